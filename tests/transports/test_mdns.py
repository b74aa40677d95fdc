"""Nodes find each other on the LAN: here over multicast on the loopback interface."""

from __future__ import annotations

import pytest
import trio

from tests.transports.support import hosts
from transports.mdns import SERVICE, announce_and_browse, read_record
from transports.peer_id import PeerId

PEER = PeerId.from_public_key(bytes(32))


async def test_two_hosts_of_one_mesh_find_each_other_and_a_third_is_not_found() -> None:
    async with hosts(3) as (a, b, stranger):
        found: dict[PeerId, dict[PeerId, tuple[str, ...]]] = {host.peer_id: {} for host in (a, b, stranger)}
        both = trio.Event()

        def listener(own: PeerId):  # type: ignore[no-untyped-def]
            def on_found(peer: PeerId, addresses: tuple[str, ...]) -> None:
                found[own][peer] = addresses
                if found[a.peer_id] and found[b.peer_id]:
                    both.set()

            return on_found

        started = trio.current_time()
        async with (
            announce_and_browse(stranger.peer_id, lambda: stranger.addresses, "other", listener(stranger.peer_id)),
            announce_and_browse(a.peer_id, lambda: a.addresses, "mesh", listener(a.peer_id)),
            announce_and_browse(b.peer_id, lambda: b.addresses, "mesh", listener(b.peer_id)),
        ):
            with trio.fail_after(20):
                await both.wait()
            print(f"found each other after {trio.current_time() - started:.2f} s")
            await a.connect(b.peer_id, found[a.peer_id][b.peer_id])
        assert set(found[a.peer_id]) == {b.peer_id}
        assert set(found[b.peer_id]) == {a.peer_id}
        assert found[stranger.peer_id] == {}


@pytest.mark.parametrize(
    "record",
    [
        {},
        {b"tag": b"other", b"id": str(PEER).encode(), b"a0": b"/ip4/1.2.3.4/tcp/1"},
        {b"tag": b"mesh", b"id": b"nobody", b"a0": b"/ip4/1.2.3.4/tcp/1"},
        {b"tag": b"mesh", b"id": str(PEER).encode()},
        {b"tag": b"mesh", b"id": str(PEER).encode(), b"a0": b"/ip4/0.0.0.0/tcp/1"},
        {b"tag": b"mesh", b"id": str(PEER).encode(), b"a0": b"\xff\xfe", b"a1": None},
    ],
)
def test_records_that_say_nothing_useful(record: dict[bytes, bytes | None]) -> None:
    assert read_record(record, "mesh") is None


def test_a_record() -> None:
    record = {b"tag": b"mesh", b"id": str(PEER).encode(), b"a0": b"junk", b"a1": b"/ip4/1.2.3.4/tcp/1"}
    assert read_record(record, "mesh") == (PEER, ("/ip4/1.2.3.4/tcp/1",))


def test_the_service_name_is_short_enough() -> None:
    assert len(str(PEER)) <= 63
    assert SERVICE.endswith("._udp.local.")
