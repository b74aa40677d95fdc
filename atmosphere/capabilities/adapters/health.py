"""``system/health``: how the machine of this node does. Built in, always there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import psutil

from atmosphere.capabilities.backend import Backend, Emit, Provision, ToolCall
from atmosphere.capabilities.card import Card, Tool
from atmosphere.env import Env
from protocols.call.errors import CallError, Code

_CONCURRENCY = 8  # a check takes a millisecond

HEALTH_CARD = Card(
    type="system/health",
    description="Health of a node's machine: processor load, memory, disk and uptime",
    examples=("How is this machine doing?", "How much memory is free?", "Is the disk full?", "What is its load?"),
    topics=("cpu", "disk", "load", "memory", "uptime"),
    inputs=("data",),
    outputs=("data",),
    tools=(Tool("check", "Processor load, memory, disk and uptime now", '{"type":"object","properties":{}}'),),
)


class HealthBackend(Backend):
    """Answers from the operating system; nothing is cached, nothing waits."""

    name = "built-in health"

    def __init__(self, env: Env, home: Path) -> None:
        """*home*: the disk that it is on is the one reported."""
        self._env = env
        self._home = home
        self._started = env.monotonic()

    async def discover(self) -> Sequence[Provision]:
        return [Provision(HEALTH_CARD, _CONCURRENCY)]

    async def invoke(self, card: Card, call: ToolCall, emit: Emit) -> bytes:
        if call.tool != "check":
            raise CallError(Code.NOT_FOUND, f"{self.name} has no tool {call.tool!r}; it has: check")
        memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(self._home))
        cores = psutil.cpu_count() or 1
        load = psutil.getloadavg()
        return json.dumps(
            {
                "status": "ok",
                "uptime_s": round(self._env.monotonic() - self._started, 1),
                "cpu": {"cores": cores, "load_1m": load[0], "load_5m": load[1], "load_per_core": load[0] / cores},
                "memory": {"total_bytes": memory.total, "available_bytes": memory.available, "percent": memory.percent},
                "disk": {"total_bytes": disk.total, "free_bytes": disk.free, "percent": disk.percent},
                "process": {"rss_bytes": psutil.Process().memory_info().rss},
            }
        ).encode()
