"""The failure detector alone, in a world of a thousand nodes, beside a naive heartbeat in the same world."""

from simulations.detector.conditions import Conditions
from simulations.detector.naive import naive_heartbeat
from simulations.detector.report import Result, upper_bound
from simulations.detector.world import World

__all__ = ["Conditions", "Result", "World", "naive_heartbeat", "upper_bound"]
