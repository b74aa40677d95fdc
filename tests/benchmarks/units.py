"""What a unit of work costs over many nodes: ``python -m tests.benchmarks.units [--json]``.

The same 1,000 units, each 200 bytes of JSON there and back and a tool that does nothing, over three callees, by

- ours: `Dispatcher.map` of a real node over three other nodes. Each unit is decided, spread by load, sent over an
  encrypted and mutually authenticated mesh connection, checked against the caller's membership, admitted, and its
  outcome kept.
- grpc: a fan-out by hand with grpc.aio over insecure channels, in turn to three servers, as many at once as ours. It
  neither decides nor retries: the least that this can cost with it.
- Ray tasks: a local cluster with three workers. Processes of one machine that share memory; no encryption between them.
  It schedules and retries, and it keeps results in an object store. It does not know of other owners' machines.

Wall time is that of the whole map; CPU is that of all processes of a stack together (caller, callees, Ray's own
daemons) by the scheduler's count, per unit. The stacks take turns, and the medians of the rounds count. Ray runs with
the Python of ``.bench/venv`` (``make bench`` makes it) or of ``ATMOSPHERE_BENCH_PYTHON``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import psutil
import trio

from atmosphere.capabilities.backend import Backend, Emit, Provision, ToolCall
from atmosphere.capabilities.card import Card, Tool
from atmosphere.config import Config
from atmosphere.embedding import HashEmbedder
from atmosphere.node import open_node
from atmosphere.routing.intent import Intent
from atmosphere.work.units import Unit
from tests.benchmarks.call import GRPC_METHOD, PAYLOAD

UNITS = 1000
CALLEES = 3
SLOTS = 16
AT_ONCE = 2 * SLOTS * CALLEES
"""What `map` chooses for this mesh."""
PEER_PYTHON = Path(".bench/venv/bin/python")
RAY_SCRIPT = Path(__file__).parent / "peers" / "ray_tasks.py"
CARD = Card("bench/echo", "Gives back what it is given", inputs=("data",), outputs=("data",), tools=(Tool("echo"),))
LISTEN = ("/ip4/127.0.0.1/tcp/0",)
START_S = 60.0


@dataclass(frozen=True)
class Figures:
    """One stack. Milliseconds per unit."""

    stack: str
    wall_ms: float
    cpu_ms: float


# Ours


class Echo(Backend):
    """Does nothing, so that only the way there and back is measured."""

    name = "echo"

    async def discover(self) -> Sequence[Provision]:
        return [Provision(CARD, SLOTS)]

    async def invoke(self, card: Card, call: ToolCall, emit: Emit) -> bytes:
        return call.args


async def callee(home: str, bootstrap: str) -> None:
    config = Config(listen=LISTEN, bootstrap=(bootstrap,), mdns=False, probe=False)
    async with open_node(Path(home), config, embedder=HashEmbedder) as node:
        echo = Echo()
        node.registry.update(echo, await echo.discover())
        await trio.sleep_forever()


async def caller_of_ours(folder: Path) -> None:
    from tests.meshes import Meshes, until

    meshes = Meshes(folder)
    with ExitStack() as stack:
        async with meshes.node(meshes.found("A")) as node:
            invite = node.create_invite(CALLEES, 3600)
            for name in "BCD"[:CALLEES]:
                home = await meshes.join(name, invite)
                stack.enter_context(running("--callee", str(home), node.addresses()[0]))

            def all_offer() -> bool:
                return sum(route.card == CARD for route in node.table.routes()) == CALLEES

            await until(all_offer, START_S)

            async def run(count: int) -> float:
                units = [Unit(Intent(tool="echo"), PAYLOAD) for _ in range(count)]
                began = time.perf_counter()
                async with node.dispatcher.map(units) as results:
                    outcomes = [result.ok and result.result == PAYLOAD async for result in results]
                wall = time.perf_counter() - began
                assert len(outcomes) == count
                assert all(outcomes)
                return wall

            await run(500)
            print("ready", flush=True)
            async for line in trio.wrap_file(sys.stdin):
                print(json.dumps({"wall_s": await run(int(line))}), flush=True)


# grpc-python


async def caller_of_grpc() -> None:
    import grpc  # type: ignore[import-untyped,unused-ignore]

    with ExitStack() as stack:
        methods = []
        for _ in range(CALLEES):
            server = stack.enter_context(running("--serve", "grpc.aio", module="tests.benchmarks.call"))
            assert server.stdout is not None
            channel = grpc.aio.insecure_channel(server.stdout.readline().strip())
            methods.append(channel.unary_unary(GRPC_METHOD))

        async def run(count: int) -> float:
            todo = iter(range(count))

            async def worker() -> None:
                for number in todo:
                    assert await methods[number % CALLEES](PAYLOAD, timeout=10) == PAYLOAD

            began = time.perf_counter()
            await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
            return time.perf_counter() - began

        await run(500)
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps({"wall_s": await run(int(line))}), flush=True)


# The run


@contextmanager
def running(*words: str, module: str = "tests.benchmarks.units", python: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process that speaks with us over its standard input and output; ended with the block."""
    command = [python or sys.executable, *(["-m", module] if module else []), *words]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(1 if "--callee" in words or "--serve" in words else 20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Stack:
    """One stack under test: its caller's process, and the processes below it."""

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self.name = name
        self._process = process
        if self._line() != "ready":
            raise SystemExit(f"{name} did not start; its error is above")

    def _line(self) -> str:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line.startswith(("ready", "{")):  # libraries may write there too
                return line.strip()
        return ""

    def _cpu_ns(self) -> dict[Path, int]:
        """CPU time of every thread of the caller and of the processes below it, by the scheduler's count."""
        caller = psutil.Process(self._process.pid)
        tasks = [task for process in (caller, *caller.children(recursive=True))
                 for task in Path(f"/proc/{process.pid}/task").iterdir()]
        return {task: int((task / "schedstat").read_text().split()[0]) for task in tasks}

    def measure(self, units: int) -> Figures:
        before = self._cpu_ns()
        assert self._process.stdin is not None
        self._process.stdin.write(f"{units}\n")
        self._process.stdin.flush()
        wall = float(json.loads(self._line())["wall_s"])
        used = sum(after - before.get(task, 0) for task, after in self._cpu_ns().items())
        return Figures(self.name, wall * 1000 / units, used / 1e6 / units)


def python_with_ray() -> str | None:
    named = os.environ.get("ATMOSPHERE_BENCH_PYTHON")
    for python in (named, str(PEER_PYTHON) if PEER_PYTHON.exists() else None):
        if python and subprocess.run([python, "-c", "import ray"], capture_output=True, check=False).returncode == 0:
            return python
    return None


def measured(units: int, rounds: int) -> list[Figures]:
    """Of each stack the medians of its rounds."""
    with ExitStack() as stack:
        stacks = [Stack("atmosphere", stack.enter_context(running("--caller", "ours")))]
        stacks.append(Stack("grpc.aio", stack.enter_context(running("--caller", "grpc"))))
        if python := python_with_ray():
            folder = stack.enter_context(tempfile.TemporaryDirectory())  # short: Ray puts sockets there
            words = (str(RAY_SCRIPT), str(CALLEES), folder)
            stacks.append(Stack("Ray tasks", stack.enter_context(running(*words, module="", python=python))))
        else:
            print("Ray is not installed: run `make bench`, or set ATMOSPHERE_BENCH_PYTHON", file=sys.stderr)
        taken = [[one.measure(units) for one in stacks] for _ in range(rounds)]
    return [
        Figures(of_one[0].stack, median(row.wall_ms for row in of_one), median(row.cpu_ms for row in of_one))
        for of_one in zip(*taken, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object, for other programs")
    parser.add_argument("--units", type=int, default=UNITS, help="per round")
    parser.add_argument("--rounds", type=int, default=5, help="the median counts")
    parser.add_argument("--caller", choices=("ours", "grpc"), help=argparse.SUPPRESS)
    parser.add_argument("--callee", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.callee:
        trio.run(callee, *options.callee)
    elif options.caller == "ours":
        with tempfile.TemporaryDirectory() as folder:
            trio.run(caller_of_ours, Path(folder))
    elif options.caller == "grpc":
        asyncio.run(caller_of_grpc())
    if options.callee or options.caller:
        return

    rows = measured(options.units, options.rounds)
    ours, *peers = rows
    ratios = {peer.stack: {"wall": ours.wall_ms / peer.wall_ms, "cpu": ours.cpu_ms / peer.cpu_ms} for peer in peers}
    if options.json:
        print(json.dumps({"figures": [asdict(row) for row in rows], "ours_over_theirs": ratios}))
        return
    print(f"{options.units} units over {CALLEES} callees, {AT_ONCE} at once (Ray: all); per unit:")
    print(f"{'stack':13} {'wall ms':>8} {'CPU ms, all processes':>22}")
    for row in rows:
        print(f"{row.stack:13} {row.wall_ms:8.3f} {row.cpu_ms:22.3f}")
    for name, ratio in ratios.items():
        print(f"ours / {name}: " + ", ".join(f"{key} {value:.2f}" for key, value in ratio.items()))


if __name__ == "__main__":
    main()
