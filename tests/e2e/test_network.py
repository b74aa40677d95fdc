"""README: a mesh that was parted is one again within five seconds, and a bad network kills nobody.

Hosts in network namespaces. ``make soak`` has the long forms: a minute parted, ten minutes of loss and delay.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.e2e.namespaces import slow_network, switch
from tests.e2e.watch import Watch, control
from tests.e2e.worlds import Host, invitation, world
from tests.processes import SOAK, eventually, strained

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800 if SOAK else 420)]

PARTED_S = 60.0 if SOAK else 20.0
EQUAL_S = 5.0
GIVEN_UP_S = 15.0
"""Until both halves have given each other up: 10 s of silence and, on a busy machine, a few for the looks."""
DELAY_MS = 50.0, 150.0
LOSS_PERCENT = 5
ROUGH_S = 600.0 if SOAK else 60.0
CUT_LIMIT_S = 15.0
"""Where the network is good it is 10 s; who loses answers himself doubts himself first and waits longer (Lifeguard)."""
LOOK_S = 0.5


class Work:
    """Health checks from one host to the others of its half, one after another, all the time."""

    def __init__(self, at: Host, others: list[Host], pause_s: float = 0.1) -> None:
        self.done = 0
        self.failed: Counter[str] = Counter()
        self._at, self._others, self._pause_s = at, others, pause_s
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Work:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        with control(self._at.home) as client:
            while not self._end.wait(self._pause_s):
                for other in self._others:
                    failure = check(client, other)
                    if failure:
                        self.failed[failure] += 1
                    else:
                        self.done += 1


def check(client: httpx2.Client, other: Host) -> str:
    """Call a tool of *other*, and of nobody else; why it failed."""
    answer = client.post("/v1/tools/call", json={
        "type": "system/health", "tool": "check", "atmosphere": {"constraints": {"node": other.peer}, "explain": True}})
    if answer.status_code != 200:
        return f"{other.name}: {answer.status_code} {answer.json()['error']['message']}"
    return "" if answer.headers["x-atmosphere-node"] == other.peer else f"{other.name}: another node answered"


def picture(host: Host) -> dict[str, Any]:
    """What *host* knows of the mesh and must be the same everywhere: not how far away the others are."""
    with control(host.home) as client:
        nodes = client.get("/v1/mesh/nodes").json()["nodes"]
        capabilities = client.get("/v1/mesh/capabilities").json()["capabilities"]
        issuers = client.get("/v1/admin/issuers").json()["issuers"]
        routes = client.post("/v1/mesh/route", json={"intent": "how do you do?", "type": "system/health"}).json()
    return {
        "nodes": sorted((node["peer_id"], node["name"], node["state"], sorted(c["id"] for c in node["capabilities"]))
                        for node in nodes),
        "capabilities": sorted((one["id"], sorted(node["peer_id"] for node in one["nodes"])) for one in capabilities),
        "issuers": sorted((one["peer_id"], one["scopes"], one["not_after"], one["appointed_by"]) for one in issuers),
        "routes": sorted(candidate["peer_id"] for candidate in routes["candidates"]),
        "trust": trust(host),
    }


def trust(host: Host) -> list[tuple[int, str]]:
    """The digests of the revocations, redemptions and issuers that *host* has on disk."""
    with sqlite3.connect(f"file:{host.home}/node.db?mode=ro", uri=True) as database:
        rows = database.execute("SELECT kind, hex(digest) FROM trust ORDER BY kind, digest").fetchall()
    database.close()
    return rows


def differences(hosts: list[Host]) -> list[str]:
    """Where the hosts' pictures differ, by part."""
    pictures = {host.name: picture(host) for host in hosts}
    first = pictures[hosts[0].name]
    return [f"{name}: {part} {one[part]} against {first[part]}" for name, one in pictures.items() for part in first
            if one[part] != first[part]]


@contextmanager
def timed(what: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    print(f"{what} after {time.perf_counter() - began:.2f} s")


def test_both_halves_work_while_parted_and_are_equal_within_five_seconds_of_the_heal(tmp_path: Path) -> None:
    print()
    with switch() as network, world(network, tmp_path) as here:
        a = here.add("A", "left")
        text = invitation(a, uses=5)
        b, c = (here.add(name, "left", text) for name in "BC")
        d, e, m = (here.add(name, "right", text) for name in "DEM")
        everybody = {host.name for host in here.hosts}
        eventually("everybody knows everybody", 30, lambda: all(h.online() == everybody for h in here.hosts) or None)
        left, right, stay = [a, b, c], [d, e, m], [a, b, c, d, e]
        eventually("all pictures are equal", 10, lambda: (not differences(here.hosts)) or None)

        with Work(a, [b, c]) as on_the_left, Work(d, [e]) as on_the_right, \
                Watch({host.name: host.home for host in stay}) as watch:
            network.part()
            began = time.perf_counter()
            eventually("the halves have given each other up", GIVEN_UP_S, lambda: (
                all(watch.states(h.name)[o.name] == "offline" for h in left for o in (d, e)) and
                all(watch.states(h.name)[o.name] == "offline" for h in right for o in left)) or None)
            print(f"the halves gave each other up after {time.perf_counter() - began:.2f} s")
            m.revoked = True
            a.command("revoke", m.peer, "--reason", "while parted", "--yes")
            a.command("issuer", "add", c.peer, "--scopes", "call:*,serve")
            for host in (b, e):  # each half has news of its own
                document = tmp_path / f"{host.name}.md"
                document.write_text(f"# Host {host.name}\n\nWhat {host.name} has learnt while the mesh was parted.\n")
                host.command("knowledge", "add", str(document))
            assert "M" in d.online()
            time.sleep(max(0.0, PARTED_S - (time.perf_counter() - began)))
            wrong = [seen for seen in watch.said("offline") if {seen.observer, seen.subject} <= set("ABC")
                     or {seen.observer, seen.subject} <= set("DEM")]
            working = on_the_left.done, on_the_right.done

            network.heal()
            healed = time.perf_counter()

            def equal() -> bool | None:
                return None if differences(stay) else True

            try:
                eventually("all pictures are equal", EQUAL_S + 40, equal)
            finally:
                took = time.perf_counter() - healed
                first = [seen.at - healed for seen in watch.said("online") if seen.at > healed]
                print(f"first word across {min(first, default=float('nan')):.2f} s, all equal {took:.2f} s after it")
            final = picture(a)
            states = {name: state for _, name, state, _ in final["nodes"]}
        print(f"work within the halves: {working[0]} and {working[1]} calls while parted, {on_the_left.done} and "
              f"{on_the_right.done} in all; failed: {dict(on_the_left.failed + on_the_right.failed)}")
        assert {name for name, state in states.items() if state == "online"} == everybody - {"M"}
        assert len(final["trust"]) == len(set(final["trust"])) > 0
        assert [one for one in final["capabilities"] if {b.peer} <= set(one[1])], "what B learnt is not known"
        assert not wrong, [str(seen) for seen in wrong]
        assert not on_the_left.failed
        assert not on_the_right.failed
        assert min(working) > PARTED_S
        assert took <= strained(EQUAL_S + LOOK_S)


def test_loss_and_delay_kill_nobody_and_a_death_is_seen_through_them(tmp_path: Path) -> None:
    print()
    with slow_network(tmp_path, 6, *DELAY_MS) as network, world(network, tmp_path) as here:
        a = here.add("A", "")
        text = invitation(a, uses=5)
        for name in "BCDEF":
            here.add(name, "", text)
        everybody = [host.name for host in here.hosts]
        with Watch({host.name: host.home for host in here.hosts}) as watch:
            watch.wait("online", 60, *everybody)
        network.lose(LOSS_PERCENT)
        with Watch({host.name: host.home for host in here.hosts}) as watch, Work(a, here.hosts[1:], 1.0) as work:
            time.sleep(ROUGH_S)
        suspects, dead = watch.said("suspect"), watch.said("offline")
        measured = [view["rtt_ms"] for view in a.status()["nodes"] if view["rtt_ms"] is not None]
        lost, arrived = network.lost()
        print(f"{ROUGH_S:.0f} s of {lost} packets lost of {lost + arrived} ({lost / (lost + arrived):.1%}) and "
              f"{DELAY_MS[0]:.0f}-{DELAY_MS[1]:.0f} ms each way: {len(suspects)} suspicions, {len(dead)} deaths "
              f"declared, in {min(watch.looks.values())} to {max(watch.looks.values())} looks at each of 6 nodes")
        print(f"A measured round trips of {min(measured):.0f} to {max(measured):.0f} ms; work: {work.done} calls done, "
              f"failed: {dict(work.failed)}")
        for reason, count in Counter(seen.reason for seen in suspects).most_common(5):
            print(f"  {count} suspicions: {reason}")
        assert 0.6 * LOSS_PERCENT < 100 * lost / (lost + arrived) < 1.4 * LOSS_PERCENT
        assert min(measured) > 2 * DELAY_MS[0]
        assert min(watch.looks.values()) > ROUGH_S
        assert not dead, [str(seen) for seen in dead]

        victim = here.hosts[-1]
        others = {host.name: host.home for host in here.hosts[:-1]}
        with Watch(others) as watch:
            watch.wait("online", 10, victim.name)
            began = time.perf_counter()
            network.cut(victim.namespace)
            watch.wait("offline", 30, victim.name)
        declared = watch.first(victim.name, "offline", since=began)
        print(f"a host that is cut off is offline after {min(declared.values()):.2f} to {max(declared.values()):.2f} s")
        assert max(declared.values()) <= strained(CUT_LIMIT_S + LOOK_S)
