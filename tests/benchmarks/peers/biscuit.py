"""The same trust as a Biscuit token, with the Rust library behind biscuit-python: ``python biscuit.py CALLS``.

Three blocks: what the owner allows an issuer, what that one allows the next, and one node's membership; each narrows
the operations and the time, the last one names the peer. Prints one JSON object; microseconds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from biscuit_auth import AuthorizerBuilder, Biscuit, BiscuitBuilder, BlockBuilder, KeyPair

PEER = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
NOW = datetime.now(UTC)


def token(root: KeyPair) -> bytes:
    """As many bytes of meaning as our three links: operations and an end in each, the audience in the last."""
    built = BiscuitBuilder(
        'right("call"); right("serve"); right("invite"); right("issue"); check if time($t), $t <= {end};',
        {"end": NOW + timedelta(days=365)},
    ).build(root.private_key)
    for operations, days, audience in (
        ('["call", "serve", "invite"]', 90, ""),
        ('["call", "serve"]', 7, f'check if peer("{PEER}");'),
    ):
        built = built.append(BlockBuilder(
            f"check if time($t), $t <= {{end}}; check if operation($o), {operations}.contains($o); {audience}",
            {"end": NOW + timedelta(days=days)},
        ))
    return bytes(built.to_bytes())


def authorize(biscuit: Biscuit) -> None:
    builder = AuthorizerBuilder(
        'time({now}); operation("call"); peer({peer}); allow if right($r), operation($r);', {"now": NOW, "peer": PEER}
    )
    limits = builder.limits()
    limits.max_time = timedelta(seconds=1)  # its default of 1 ms fails now and then on a busy machine
    builder.set_limits(limits)
    builder.build(biscuit).authorize()


def microseconds(function: Callable[[], object], calls: int) -> list[float]:
    for _ in range(calls // 10 + 1):
        function()
    measured = []
    for _ in range(calls):
        began = time.perf_counter_ns()
        function()
        measured.append((time.perf_counter_ns() - began) / 1000)
    return sorted(measured)


def main() -> None:
    calls = int(sys.argv[1])
    root = KeyPair()
    data = token(root)
    public = root.public_key
    known = Biscuit.from_bytes(data, public)
    result: dict[str, object] = {"bytes": len(data)}
    for name, function in (
        ("uncached", lambda: authorize(Biscuit.from_bytes(data, public))), ("cached", lambda: authorize(known)),
    ):
        measured = microseconds(function, calls)
        result[name] = (measured[calls // 2], measured[calls * 99 // 100])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
