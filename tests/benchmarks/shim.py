"""What the HTTP shim costs: ``python -m tests.benchmarks.shim [--json] [--seconds S]``.

One node with one OpenAI-compatible backend, against proxies that only forward the same requests to the same backend:
plain Quart-Trio with httpx2, FastAPI with uvicorn and httpx, and the LiteLLM proxy when ``ATMOSPHERE_BENCH_LITELLM``
names its command. All run at once and are loaded in turn, so a busy machine is the same for all. CPU is the scheduler's
own count (``/proc/PID/task/*/schedstat``), all threads; latency is what one closed-loop client process sees.
The FastAPI proxy runs with the Python of ``.bench/venv`` (``make bench`` makes it) or of ``ATMOSPHERE_BENCH_PYTHON``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests.benchmarks.peers.upstream import MODEL
from tests.processes import Nodes, environment, eventually, free_port, nodes

CONNECTIONS = (1, 32, 256)
PEERS = Path(__file__).parent / "peers"
PEER_PYTHON = Path(".bench/venv/bin/python")
STARTS_S = 60.0
"""LiteLLM takes a quarter of a minute to start on a quiet machine."""
GOAL_CPU_MS = 1.5
GOAL_LITELLM = 5.0


@dataclass(frozen=True)
class Server:
    """One server under test."""

    name: str
    port: int
    pid: int


@dataclass(frozen=True)
class Figure:
    """One server at one load."""

    server: str
    connections: int
    stream: bool
    requests: int
    cpu_ms: float
    p50_ms: float
    p99_ms: float
    rate: float


def cpu_ms(pid: int) -> float:
    """CPU that the process has used, by the scheduler's count."""
    return sum(int(Path(task, "schedstat").read_text().split()[0])
               for task in Path(f"/proc/{pid}/task").iterdir()) / 1e6


def measure(server: Server, connections: int, seconds: float, stream: bool) -> Figure:
    """Load *server*. The CPU is that of all requests, the warm-up's too; the latencies are without it."""
    words = [sys.executable, "-m", "tests.benchmarks.load", str(server.port), str(connections), str(seconds), MODEL]
    before = cpu_ms(server.pid)
    done = subprocess.run(words + ["--stream"] * stream, capture_output=True, text=True, timeout=60, check=False)
    used = cpu_ms(server.pid) - before
    if done.returncode:
        raise SystemExit(f"{server.name}: {done.stderr.strip()[-500:]}")
    load: dict[str, Any] = json.loads(done.stdout)
    return Figure(server.name, connections, stream, int(load["requests"]), used / load["all_requests"],
                  load["p50_ms"], load["p99_ms"], load["rate"])


@contextmanager
def process(*words: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block."""
    with tempfile.TemporaryFile() as log:
        running = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, env=environment())
        try:
            yield running
        finally:
            running.terminate()
            try:
                running.wait(10)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


def answers(port: int, path: str, running: subprocess.Popen[bytes]) -> bool | None:
    if running.poll() is not None:
        raise SystemExit(f"{running.args!r} ended with status {running.returncode}")
    return True if httpx2.get(f"http://127.0.0.1:{port}{path}", timeout=2).status_code == 200 else None


def start_node(group: Nodes, upstream: str) -> Server:
    """Our node, with the upstream as its only backend."""
    node = group.start("shim", options=("--no-probe",))
    node.command("backend", "add", f"{upstream}/v1")

    def has_model() -> bool | None:
        return True if MODEL in [model["id"] for model in node.get("/v1/models")["data"]] else None

    eventually("the node knows its backend", STARTS_S, has_model)
    return Server("atmosphere", int(node.http.rpartition(":")[2]), node.process.pid)


def start_peer(stack: ExitStack, name: str, python: str | Path, script: str, upstream: str) -> Server:
    port = free_port()
    running = stack.enter_context(process(python, PEERS / script, str(port), upstream))
    eventually(f"{name} answers", STARTS_S, lambda: answers(port, "/v1/health", running))
    return Server(name, port, running.pid)


def start_litellm(stack: ExitStack, command: str, upstream: str) -> Server:
    port = free_port()
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    config = Path(folder, "config.yaml")
    parameters = {"model": f"openai/{MODEL}", "api_base": f"{upstream}/v1", "api_key": "none"}
    config.write_text(json.dumps({
        "model_list": [{"model_name": MODEL, "litellm_params": parameters}],
        "general_settings": {"dangerously_permit_weak_or_unset_master_key": True},  # loopback, for a minute
    }))
    running = stack.enter_context(process(command, "--config", config, "--host", "127.0.0.1", "--port", str(port)))
    eventually("litellm answers", STARTS_S, lambda: answers(port, "/health/liveliness", running))
    return Server("litellm", port, running.pid)


def peer_python() -> str | Path | None:
    """The Python that has the peers' libraries; None when there is none."""
    named = os.environ.get("ATMOSPHERE_BENCH_PYTHON")
    for python in (named, PEER_PYTHON if PEER_PYTHON.exists() else None, sys.executable):
        if python and subprocess.run([python, "-c", "import fastapi, uvicorn, httpx"], capture_output=True,
                                     check=False).returncode == 0:
            return python
    return None


def run(seconds: float) -> list[Figure]:
    """Every server at every load."""
    with ExitStack() as stack:
        port = free_port()
        upstream = f"http://127.0.0.1:{port}"
        backend = stack.enter_context(process(sys.executable, PEERS / "upstream.py", str(port)))
        eventually("the upstream answers", STARTS_S, lambda: answers(port, "/v1/models", backend))
        servers = [start_node(stack.enter_context(nodes()), upstream),
                   start_peer(stack, "quart-trio + httpx2", sys.executable, "quart_proxy.py", upstream)]
        python = peer_python()
        if python is None:
            print("FastAPI is not installed: run `make bench`, or set ATMOSPHERE_BENCH_PYTHON", file=sys.stderr)
        else:
            servers.append(start_peer(stack, "fastapi + httpx", python, "fastapi_proxy.py", upstream))
        if litellm := os.environ.get("ATMOSPHERE_BENCH_LITELLM"):
            servers.append(start_litellm(stack, litellm, upstream))
        return [measure(server, connections, seconds, stream)
                for stream in (False, True) for connections in CONNECTIONS for server in servers]


def show(figures: list[Figure]) -> None:
    """The table; ratios are the server's CPU in multiples of ours at the same load."""
    print(f"{'':22}{'conn':>5}{'CPU ms/request':>16}{'x ours':>8}{'p50 ms':>9}{'p99 ms':>9}{'requests/s':>12}")
    ours = {(figure.stream, figure.connections): figure for figure in figures if figure.server == "atmosphere"}
    for stream in (False, True):
        print("streamed, 21 chunks" if stream else "not streamed")
        for figure in figures:
            if figure.stream == stream:
                ratio = figure.cpu_ms / ours[stream, figure.connections].cpu_ms
                print(f"  {figure.server:20}{figure.connections:5}{figure.cpu_ms:16.2f}{ratio:8.2f}"
                      f"{figure.p50_ms:9.1f}{figure.p99_ms:9.1f}{figure.rate:12.0f}")
    alone = ours[False, 1]
    print(f"goal: {GOAL_CPU_MS} ms CPU per local request; measured {alone.cpu_ms:.2f} ms at 1 connection")
    for figure in figures:
        if (figure.server, figure.stream, figure.connections) == ("litellm", False, 1):
            print(f"goal: LiteLLM costs {GOAL_LITELLM:g} times as much; measured {figure.cpu_ms / alone.cpu_ms:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=3.0, help="per server and load")
    options = parser.parse_args()
    figures = run(options.seconds)
    if options.json:
        print(json.dumps([asdict(figure) for figure in figures]))
    else:
        show(figures)


if __name__ == "__main__":
    main()
