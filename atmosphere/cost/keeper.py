"""Keeps the cost up to date: reads the machine every few seconds, never on the node's own thread."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime

import trio

from atmosphere.cost.meter import Meter
from atmosphere.cost.readings import Machine, Readings
from atmosphere.env import Env

logger = logging.getLogger(__name__)

READ_EVERY_S = 5.0
"""A reading takes some milliseconds of CPU; a cable that is pulled is known of within this."""
READ_TIMEOUT_S = 5.0
"""A reading that takes longer hangs in a driver."""
STUCK_MAX = 3
"""Readings left behind in hanging drivers; after that the machine is not read any more."""
STUCK_PAUSE_S = 60.0


class CostKeeper:
    """Feeds a meter. :meth:`run` owns the one task."""

    def __init__(self, machine: Machine | None, meter: Meter, env: Env, on_change: Callable[[], None]) -> None:
        """*machine*: None where there is nothing to read (a simulation): then only the settings count.

        *on_change*: the cost to tell has changed, or GPUs were found; called synchronously, to note it.
        """
        self.meter = meter
        self.stuck = 0
        self._machine = machine
        self._env = env
        self._on_change = on_change

    def __repr__(self) -> str:
        return f"<CostKeeper {self.meter!r}>"

    async def run(self) -> None:
        """Read until cancelled, which never waits for a reading; returns only where reading is given up."""
        machine = self._machine
        if machine is None:
            self._take(Readings(unknown=dict.fromkeys(_READ, "this node does not read its machine")))
            return
        while self.stuck < STUCK_MAX:
            readings: Readings | None = None
            with trio.move_on_after(READ_TIMEOUT_S):
                readings = await self._env.run_abandonable(machine.read)
            if readings is not None:
                self._take(readings)
                await trio.sleep(READ_EVERY_S)
                continue
            self.stuck += 1
            logger.warning("this machine's load could not be read within %g s: a driver hangs", READ_TIMEOUT_S)
            self._take(Readings(unknown=dict.fromkeys(_READ, "the last reading hangs in a driver")))
            await trio.sleep(STUCK_PAUSE_S)
        logger.error("this machine's load is not read any more: %d readings hang in a driver", self.stuck)

    def _take(self, readings: Readings) -> None:
        gpus = self.meter.readings.gpus
        if self.meter.read(readings, self._env.monotonic(), _minute(self._env.now())) or readings.gpus != gpus:
            self._on_change()


_READ = ("cpu", "gpu", "memory", "battery", "network", "metered")


def _minute(now: float) -> int:
    """Of the local day."""
    local = datetime.fromtimestamp(now, UTC).astimezone()
    return local.hour * 60 + local.minute
