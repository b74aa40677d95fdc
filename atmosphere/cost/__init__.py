"""What work on this machine costs now: readings of the machine, the owner's settings, one figure for the beacon."""

from atmosphere.cost.factors import Cost, Factor, breakdown
from atmosphere.cost.meter import Meter
from atmosphere.cost.readings import Battery, FixedMachine, Machine, Network, Readings

__all__ = ["Battery", "Cost", "Factor", "FixedMachine", "Machine", "Meter", "Network", "Readings", "breakdown"]
