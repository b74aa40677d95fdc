"""Reads this machine: what the operating system tells any program, and for what it does not, why.

Nothing here fails: what cannot be read is not known, and the reason is part of the reading.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import psutil

from atmosphere.cost.nvml import Nvml
from atmosphere.cost.readings import Battery, Network, Readings

METERED_EVERY_S = 60.0
"""NetworkManager is asked this often: it takes a process each time."""
METERED_TIMEOUT_S = 2.0
MODEMS = ("wwan", "ppp", "rmnet")
"""Interfaces of mobile networks begin with one of these; such connections are paid by volume, mostly."""
ROUTES = Path("/proc/net/route")

T = TypeVar("T")


class SystemMachine:
    """This machine. :meth:`read` blocks for some milliseconds, and for as long as a driver likes if one is broken."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        """*monotonic*: Env's clock, seconds."""
        self._monotonic = monotonic
        self._gpu = Nvml()
        self._cpu_known = False
        self._carried: tuple[str, float, int, int] | None = None  # interface, when, bytes received, sent
        self._metered: tuple[str, float, bool | None, str] | None = None  # interface, when, answer, why not

    def __repr__(self) -> str:
        return f"<SystemMachine {self._gpu!r}>"

    def read(self) -> Readings:
        """One look at everything."""
        unknown: dict[str, str] = {}
        gpu = self._gpu.read()
        if gpu.reason:
            unknown["gpu"] = gpu.reason
        network = _asked("network", self._network, unknown)
        name = network.name if network is not None else None
        return Readings(
            cpu=_asked("cpu", self._cpu, unknown),
            gpu=gpu.busy,
            gpus=gpu.names,
            memory=_asked("memory", _memory, unknown),
            battery=_asked("battery", _battery, unknown),
            network=network,
            metered=self._is_metered(name, unknown),
            unknown=unknown,
        )

    def _cpu(self, unknown: dict[str, str]) -> float | None:
        busy = psutil.cpu_percent(interval=None) / 100  # since the last call; the first one says nothing
        if not self._cpu_known:
            self._cpu_known = True
            unknown["cpu"] = "known from the second reading on"
            return None
        return float(busy)

    def _network(self, unknown: dict[str, str]) -> Network | None:
        counters, stats = psutil.net_io_counters(pernic=True), psutil.net_if_stats()
        name = _way_out(counters, stats)
        if name is None:
            unknown["network"] = "no network interface leads out"
            return None
        link = float(stats[name].speed) if name in stats and stats[name].speed else None
        if link is None:
            unknown["network"] = f"{name} does not say how fast it is; set cost.bandwidth_mbps"
        now = self._monotonic()
        received, sent = (counters[name].bytes_recv, counters[name].bytes_sent) if name in counters else (0, 0)
        before, self._carried = self._carried, (name, now, received, sent)
        used = None
        if before is not None and before[0] == name and now > before[1]:
            used = max(received - before[2], sent - before[3], 0) * 8 / 1e6 / (now - before[1])
        return Network(name, link, used)

    def _is_metered(self, interface: str | None, unknown: dict[str, str]) -> bool | None:
        if interface is None:
            unknown["metered"] = "no network interface leads out"
            return None
        if interface.startswith(MODEMS):
            return True
        now, known = self._monotonic(), self._metered
        if known is None or known[0] != interface or now - known[1] >= METERED_EVERY_S:
            known = self._metered = (interface, now, *_ask_metered(interface))
        if known[3]:
            unknown["metered"] = known[3]
        return known[2]


def _asked(name: str, ask: Callable[[dict[str, str]], T | None], unknown: dict[str, str]) -> T | None:
    """What *ask* finds; None and the reason where the system refuses."""
    try:
        return ask(unknown)
    except (OSError, psutil.Error, NotImplementedError) as error:
        unknown[name] = f"the system refuses to tell: {error}"
        return None


def _memory(unknown: dict[str, str]) -> float:
    memory = psutil.virtual_memory()
    return 1.0 - float(memory.available) / float(memory.total)


def _battery(unknown: dict[str, str]) -> Battery | None:
    sensors = getattr(psutil, "sensors_battery", None)  # not there on every system
    if sensors is None:
        unknown["battery"] = "this system does not tell programs about batteries"
        return None
    found = sensors()
    if found is None:
        return None
    if found.power_plugged is None:
        unknown["battery"] = "the battery does not say whether it is being charged"
        return None
    return Battery(float(found.percent), bool(found.power_plugged))


def _way_out(counters: Mapping[str, Any], stats: Mapping[str, Any]) -> str | None:
    """The interface of the default route; where that is not told, the one that is up and has carried most."""
    try:
        routes = [line.split() for line in ROUTES.read_text().splitlines()[1:]]
    except OSError:
        routes = []
    defaults = [(int(route[6]), route[0]) for route in routes if len(route) > 6 and route[1] == "00000000"]
    if defaults:
        return min(defaults)[1]
    up = [name for name, one in stats.items() if one.isup and "loopback" not in one.flags and not name.startswith("lo")]
    return max(up, key=lambda name: counters[name].bytes_recv if name in counters else 0, default=None)


def _ask_metered(interface: str) -> tuple[bool | None, str]:
    """(answer, why there is none) of NetworkManager."""
    if sys.platform != "linux":
        return None, "this system does not tell programs whether the connection is metered; set cost.metered"
    command = ["nmcli", "--get-values", "GENERAL.METERED", "device", "show", interface]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=METERED_TIMEOUT_S, check=True)
    except FileNotFoundError:
        return None, "only NetworkManager tells this, and it is not here; set cost.metered"
    except (OSError, subprocess.SubprocessError) as error:
        return None, f"NetworkManager does not say ({type(error).__name__}); set cost.metered"
    word = done.stdout.strip().split(" ")[0]  # "yes", "no", "yes (guessed)", "no (guessed)", "unknown"
    if word in ("yes", "no"):
        return word == "yes", ""
    return None, f"NetworkManager does not know it of {interface}; set cost.metered"
