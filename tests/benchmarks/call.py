"""Tool calls over loopback libp2p against grpc-python unary calls: ``python -m tests.benchmarks.call [--json]``.

Each stack has its callee in a process of its own and carries the same 200-byte JSON both ways. Ours runs over the
real host (TCP, Noise, yamux: encrypted and authenticated), gRPC over an insecure channel, which is the form that
is fastest for it. Latency is measured by the caller per call; CPU is that of the whole process, per call.

The stacks take turns, several rounds each, and the round with the median latency counts: a busy moment of the machine
hits all of them or none.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from functools import partial

import trio

PAYLOAD = b'{"text": "' + b"x" * 188 + b'"}'
CARD = b"c" * 32
KEYS = {"caller": b"1" * 32, "callee": b"2" * 32}
CONCURRENCY = (1, 32)
GRPC_METHOD = "/bench.Tools/Call"


@dataclass(frozen=True)
class Figures:
    """One stack at one concurrency. Milliseconds; CPU per call."""

    stack: str
    concurrency: int
    calls: int
    p50_ms: float
    p99_ms: float
    calls_per_s: float
    caller_cpu_ms: float
    callee_cpu_ms: float


def figures(
    stack: str, concurrency: int, latencies: list[float], wall: float, caller_cpu: float, callee_cpu: float
) -> Figures:
    count = len(latencies)
    ordered = sorted(latencies)
    return Figures(
        stack,
        concurrency,
        count,
        ordered[count // 2] * 1000,
        ordered[min(count - 1, math.ceil(count * 0.99))] * 1000,
        count / wall,
        caller_cpu / count * 1000,
        callee_cpu / count * 1000,
    )


# Ours


async def serve_ours() -> None:
    from protocols.call.messages import PROTOCOL, IncomingCall
    from protocols.call.server import CallServer, Emit
    from transports.config import HostConfig
    from transports.host import open_host

    async def handler(call: IncomingCall, emit: Emit) -> bytes:
        if call.tool == "cpu":
            return repr(time.process_time()).encode()
        return call.args

    async with open_host(HostConfig(), KEYS["callee"]) as host:
        server = CallServer(handler)
        host.handle(PROTOCOL, server.serve)
        host.add_listener(host.admit, lambda peer: None)
        print(host.addresses[0], flush=True)
        await trio.sleep_forever()


async def call_ours(address: str, calls: int) -> list[Figures]:
    from protocols.call.client import CallClient
    from protocols.call.messages import PROTOCOL
    from transports.config import HostConfig
    from transports.host import open_host
    from transports.peer_id import PeerId

    peer = PeerId.parse(address.rsplit("/", 1)[1])
    results = []
    async with open_host(HostConfig(), KEYS["caller"]) as host, trio.open_nursery() as nursery:
        host.admit(peer)
        await host.connect(peer, [address])
        client = CallClient(lambda to: host.open_stream(to, PROTOCOL))
        nursery.start_soon(client.run)

        async def one() -> None:
            assert await client.request(peer, CARD, "echo", PAYLOAD, deadline_s=10) == PAYLOAD

        async def callee_cpu() -> float:
            return float(await client.request(peer, CARD, "cpu", b""))

        for _ in range(200):
            await one()
        for concurrency in CONCURRENCY:
            latencies: list[float] = []
            callee_before, caller_before, start = await callee_cpu(), time.process_time(), time.perf_counter()

            async def caller(count: int, into: list[float] = latencies) -> None:
                for _ in range(count):
                    began = time.perf_counter()
                    await one()
                    into.append(time.perf_counter() - began)

            async with trio.open_nursery() as callers:
                for _ in range(concurrency):
                    callers.start_soon(caller, calls // concurrency)
            wall, caller_used = time.perf_counter() - start, time.process_time() - caller_before
            callee_used = await callee_cpu() - callee_before
            results.append(figures("atmosphere", concurrency, latencies, wall, caller_used, callee_used))
        nursery.cancel_scope.cancel()
    return results


# grpc-python


def serve_grpc(*, asynchronous: bool) -> None:
    import grpc  # type: ignore[import-untyped,unused-ignore]

    def answer(request: bytes) -> bytes:
        return repr(time.process_time()).encode() if request == b"cpu" else request

    async def aio_method(request: bytes, context: object) -> bytes:
        return answer(request)

    def method(request: bytes, context: object) -> bytes:
        return answer(request)

    def handlers(function: Callable[..., bytes | Awaitable[bytes]]) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            "bench.Tools", {"Call": grpc.unary_unary_rpc_method_handler(function)}
        )

    async def aio_server() -> None:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((handlers(aio_method),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        print(f"127.0.0.1:{port}", flush=True)
        await server.wait_for_termination()

    if asynchronous:
        asyncio.run(aio_server())
    else:
        from concurrent.futures import ThreadPoolExecutor

        server = grpc.server(ThreadPoolExecutor(max_workers=8))
        server.add_generic_rpc_handlers((handlers(method),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        print(f"127.0.0.1:{port}", flush=True)
        server.wait_for_termination()


async def call_grpc(stack: str, address: str, calls: int) -> list[Figures]:
    import grpc  # type: ignore[import-untyped,unused-ignore]

    results = []
    async with grpc.aio.insecure_channel(address) as channel:
        method = channel.unary_unary(GRPC_METHOD)

        async def one() -> None:
            assert await method(PAYLOAD, timeout=10) == PAYLOAD

        for _ in range(200):
            await one()
        for concurrency in CONCURRENCY:
            latencies: list[float] = []
            callee_before = float(await method(b"cpu"))
            caller_before, start = time.process_time(), time.perf_counter()

            async def caller(count: int, into: list[float] = latencies) -> None:
                for _ in range(count):
                    began = time.perf_counter()
                    await one()
                    into.append(time.perf_counter() - began)

            await asyncio.gather(*(caller(calls // concurrency) for _ in range(concurrency)))
            wall, caller_used = time.perf_counter() - start, time.process_time() - caller_before
            callee_used = float(await method(b"cpu")) - callee_before
            results.append(figures(stack, concurrency, latencies, wall, caller_used, callee_used))
    return results


def run_grpc(stack: str, calls: int, address: str) -> list[Figures]:
    return asyncio.run(call_grpc(stack, address, calls))


# The run


def with_callee(kind: str, run: Callable[[str], list[Figures]]) -> list[Figures]:
    callee = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.call", "--serve", kind], stdout=subprocess.PIPE, text=True
    )
    try:
        assert callee.stdout is not None
        address = callee.stdout.readline().strip()
        if not address:
            raise SystemExit(f"the callee '{kind}' did not start; its error is above")
        return run(address)
    finally:
        callee.kill()
        callee.wait()


def medians(measured: list[Figures]) -> list[Figures]:
    """Of each stack and concurrency the round with the median p50, in the order of the first round."""
    groups: dict[tuple[str, int], list[Figures]] = {}
    for row in measured:
        groups.setdefault((row.stack, row.concurrency), []).append(row)
    return [sorted(rounds, key=lambda row: row.p50_ms)[len(rounds) // 2] for rounds in groups.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object, for other programs")
    parser.add_argument("--calls", type=int, default=3000, help="per stack and concurrency")
    parser.add_argument("--rounds", type=int, default=3, help="the median one counts")
    parser.add_argument("--only", choices=("ours", "grpc"), help="one side only, for profiling")
    parser.add_argument("--serve", choices=("ours", "grpc.aio", "grpc.threads"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve == "ours":
        trio.run(serve_ours)
    elif options.serve:
        serve_grpc(asynchronous=options.serve == "grpc.aio")
    if options.serve:
        return

    calls: int = options.calls
    measured: list[Figures] = []
    for _ in range(options.rounds):
        if options.only != "grpc":
            measured += with_callee("ours", lambda address: trio.run(call_ours, address, calls))
        if options.only != "ours":
            for kind in ("grpc.aio", "grpc.threads"):
                measured += with_callee(kind, partial(run_grpc, kind, calls))
    rows = medians(measured)
    ratios = {
        f"{peer.stack} at {peer.concurrency}": {
            "p50": ours.p50_ms / peer.p50_ms,
            "p99": ours.p99_ms / peer.p99_ms,
            "calls_per_s": ours.calls_per_s / peer.calls_per_s,
            "cpu": (ours.caller_cpu_ms + ours.callee_cpu_ms) / (peer.caller_cpu_ms + peer.callee_cpu_ms),
        }
        for ours in rows
        for peer in rows
        if ours.stack == "atmosphere" != peer.stack and ours.concurrency == peer.concurrency
    }
    if options.json:
        print(json.dumps({"figures": [asdict(row) for row in rows], "ours_over_theirs": ratios}))
        return
    print(f"{'stack':13} {'at once':>7} {'p50 ms':>8} {'p99 ms':>8} {'calls/s':>8} {'caller CPU ms':>15} {'callee':>7}")
    for row in rows:
        print(
            f"{row.stack:13} {row.concurrency:7} {row.p50_ms:8.3f} {row.p99_ms:8.3f} {row.calls_per_s:8.0f} "
            f"{row.caller_cpu_ms:15.3f} {row.callee_cpu_ms:7.3f}"
        )
    for name, ratio in ratios.items():
        print(f"ours / {name}: " + ", ".join(f"{key} {value:.2f}" for key, value in ratio.items()))


if __name__ == "__main__":
    main()
