"""What was read of this machine, and from what it can be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Battery:
    """The state of a battery."""

    percent: float
    """Of charge, 0..100."""
    plugged: bool
    """Whether the machine is on mains power."""


@dataclass(frozen=True, slots=True)
class Network:
    """The interface that leads out."""

    name: str
    link_mbps: float | None
    """What it can carry, as it says itself; radios often say nothing."""
    used_mbps: float | None
    """What it carried since the last reading, the busier direction; None at the first one."""


@dataclass(frozen=True, slots=True)
class Readings:
    """One look at the machine. None: not known, and *unknown* says why; or there is none (a battery, a GPU)."""

    cpu: float | None = None
    """Share of all cores that was busy since the last reading, 0..1."""
    gpu: float | None = None
    """Share of the time in which the GPUs computed, their mean, 0..1."""
    gpus: tuple[str, ...] = ()
    """Their names."""
    memory: float | None = None
    """Share of the memory that programs cannot have, 0..1."""
    battery: Battery | None = None
    network: Network | None = None
    metered: bool | None = None
    """Whether the connection is paid by volume."""
    unknown: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Reading -> why this system does not tell it: cpu, gpu, memory, battery, network, metered."""


class Machine(Protocol):
    """Something that can be read. Reading may block for as long as a driver likes."""

    def read(self) -> Readings: ...


class FixedMachine:
    """The twin for tests and simulations: says what it is given."""

    def __init__(self, readings: Readings) -> None:
        self.readings = readings
        self.reads = 0

    def __repr__(self) -> str:
        return f"<FixedMachine {self.readings!r}>"

    def read(self) -> Readings:
        self.reads += 1
        return self.readings
