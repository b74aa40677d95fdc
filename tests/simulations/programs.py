"""Small programs in a virtual world, run by the tests in processes of their own: ``NAME ACCELERATIONS SEED...``."""

from __future__ import annotations

import json
import os
import random
import secrets
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable

import trio

from simulations.fast import NAMES, accelerated
from simulations.gossip import GossipResult, GossipWorld, gossip_world
from simulations.hashing import fix_hashing
from simulations.virtual import EPOCH, Escape, Virtual, run


async def market(world: Virtual) -> float:
    """Tasks that race for a small channel and draw from every source there is."""
    send, receive = trio.open_memory_channel[int](3)

    async def seller(number: int) -> None:
        env = world.env(f"seller {number}")
        for _ in range(10):
            await trio.sleep(env.random.random())
            await send.send(number)
            drawn = await env.run_blocking(lambda: random.random() + random.Random().random())
            world.trace.note("sold", number, drawn, env.now(), time.time(), time.monotonic(), env.token_bytes(4))
            world.trace.note("entropy", os.urandom(4), str(uuid.uuid4()), secrets.token_hex(4), repr({"a", "b", "c"}))

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(seller, number)
        for _ in range(100):
            world.trace.note("bought", await receive.receive())
    assert time.time() == EPOCH + trio.current_time()
    return time.time()


async def caught(world: Virtual) -> list[str]:
    """Everything that leaves the world is refused, and remembered although it is caught."""
    refused = []

    async def attempt(name: str, leave: Callable[[], object]) -> None:
        try:
            answer = leave()
            if isinstance(answer, Awaitable):
                await answer
        except Escape:
            refused.append(name)

    await attempt("thread of Trio", lambda: trio.to_thread.run_sync(int))
    await attempt("thread", lambda: threading.Thread(target=int).start())
    await attempt("sleep", lambda: time.sleep(1))
    await attempt("socket", lambda: trio.socket.socket())
    await attempt("process", lambda: subprocess.run(["true"], check=True))
    print(*refused, sep="\n")
    return refused


async def held_original(world: Virtual) -> None:
    """A watched package that got hold of the real clock after the start."""
    import transports.rates
    from simulations.virtual import stand_ins

    (real,) = [original for original in stand_ins._STAND_INS if getattr(original, "__name__", "") == "monotonic"]
    transports.rates.clock = real  # type: ignore[attr-defined]


async def hosts(world: Virtual) -> None:
    """Twelve real hosts that connect and gossip, over the memory transport."""
    result = await gossip_world(GossipWorld(nodes=12, dials=2, settle_s=5, idle_s=2, messages=5, interval_s=1))(world)
    assert result.deliveries == result.expected == 55
    assert not world.errors


HUNDRED = GossipWorld(nodes=100, settle_s=8, idle_s=2, messages=6, interval_s=2)


async def hundred(world: Virtual) -> GossipResult:
    """A hundred hosts; what came of it in one line of JSON."""
    result = await gossip_world(HUNDRED)(world)
    assert not world.errors
    delays = [round(result.delay(share), 4) for share in (0.5, 0.99, 1.0)]
    print(json.dumps({"delivered": result.deliveries / result.expected, "delays": delays, "frames": result.frames}))
    return result


PROGRAMS: dict[str, Callable[[Virtual], Awaitable[object]]] = {
    "market": market,
    "caught": caught,
    "held_original": held_original,
    "hosts": hosts,
    "hundred": hundred,
}


def main() -> None:
    fix_hashing()
    name, accelerations, *seeds = sys.argv[1:]
    for seed in seeds:
        with accelerated(NAMES if accelerations == "all" else [each for each in accelerations.split(",") if each]):
            outcome = run(PROGRAMS[name], seed=int(seed))
        print(outcome.trace_hash)


if __name__ == "__main__":
    main()
