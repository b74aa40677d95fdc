"""SPEC "Trust": what is said in one half of a parted mesh is in force in the other as soon as they meet again.

Four hosts in network namespaces, two on each side of a cable that the test pulls: A (the owner's) and B on the left, I
(an appointed issuer) and M on the right.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.e2e.namespaces import switch
from tests.e2e.worlds import PORT, invitation, world
from tests.processes import eventually

pytestmark = pytest.mark.e2e

PARTED_S = 15.0
"""Until both halves have given each other up: 10 s of silence and, on a busy machine, a few for the looks."""
HEALED_S = 5.0
"""Until the halves meet again: somebody dials every second."""
ENFORCED_S = 2.0


def test_what_one_half_said_is_in_force_in_the_other_when_they_meet(tmp_path: Path) -> None:
    with switch() as network, world(network, tmp_path) as here:
        a = here.add("A", "left")
        text = invitation(a, uses=3)
        b, issuer, m = here.add("B", "left", text), here.add("I", "right", text), here.add("M", "right", text)
        a.command("issuer", "add", issuer.peer, "--scopes", "call:*,serve,invite")
        everybody = {"A", "B", "I", "M"}
        eventually("everybody knows everybody", 30, lambda: all(h.online() == everybody for h in here.hosts) or None)
        eventually("I is an issuer everywhere", 10, lambda: all(
            issuer.peer in h.command("issuer", "list", "--json") for h in here.hosts) or None)
        single = invitation(a)

        network.part()
        began = time.perf_counter()
        eventually("the halves have given each other up", PARTED_S, lambda: (
            a.online() == b.online() == {"A", "B"} and issuer.online() == m.online() == {"I", "M"}) or None)
        print(f"\nboth halves noticed after {time.perf_counter() - began:.0f} s")

        # The left half revokes M; the single-use invite of A is redeemed in both halves, on the right by the issuer.
        a.command("revoke", m.peer, "--reason", "while parted", "--yes")
        here.add("L", "left", single)
        right = here.prepared("R", "right")
        right.command("join", single, "--via", f"/ip4/{issuer.address}/tcp/{PORT}/p2p/{issuer.peer}", "--name", "R")
        right.start()
        m.revoked = right.revoked = True  # R's membership ends with L's
        eventually("L is let in on the left", 20, lambda: "L" in b.online() or None)
        eventually("R is let in on the right", 20, lambda: "R" in issuer.online() or None)
        assert "M" in issuer.online()

        network.heal()
        healed = time.perf_counter()

        def met() -> bool | None:
            return True if issuer.online() & {"A", "B", "L"} else None

        eventually("the halves meet again", HEALED_S, met)
        first = time.perf_counter()
        eventually("the right half has put M out", ENFORCED_S, lambda: "M" not in issuer.online() or None)
        print(f"first link {first - healed:.1f} s after the heal, M put out {time.perf_counter() - first:.2f} s later")
        eventually("one of L and R is left, the same for everybody", 10, lambda: all(
            host.online() & {"L", "R"} == {"L"} for host in (a, b, issuer)) or None)
        print(f"the same members everywhere {time.perf_counter() - first:.1f} s after the first link")
