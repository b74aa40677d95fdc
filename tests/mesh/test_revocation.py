"""Trust on the move: revocations, redemptions, issuers and renewals among real nodes in one process."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from atmosphere.identity import IdentityError, Reason, Target, parse_invite
from atmosphere.node import Node
from atmosphere.routing.intent import Constraints, Intent
from protocols.call import CallError, Code
from protocols.join.messages import Enrolled, Refused
from protocols.sync.messages import Kind, Record
from tests.meshes import knows, mesh_of, until

pytestmark = pytest.mark.e2e


async def call(caller: Node, callee: Node) -> bytes:
    intent = Intent(tool="check", constraints=Constraints(node=callee.peer_id))
    async with caller.dispatcher.run(intent, b"{}", deadline_s=5) as execution:
        return await execution.result()


async def test_a_revoked_peer_is_put_out_by_every_node_and_stays_out(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "ABC") as (_meshes, (a, b, c)):
        assert await call(c, b)
        await a.revoke(Target.PEER, c.peer_id.public_key, "stolen")
        took = await until(lambda: c.peer_id not in a.table.nodes and c.peer_id not in b.table.nodes, 2.0)
        print(f"\nput out everywhere after {took * 1000:.0f} ms")
        await until(lambda: c.peer_id not in a.host.connections() and c.peer_id not in b.host.connections(), 2.0)
        with pytest.raises(CallError):
            await call(c, b)
        with pytest.raises(CallError) as refused:
            await call(b, c)
        assert refused.value.code is Code.NOT_FOUND
        # It dials again and again, and is told why each time.
        await until(lambda: any(r.code == "revoked" for r in c.mesh.neighbours.refusals.values()), 5.0)
        assert not knows(a, c)
        assert c.status().me["membership"]["revoked"] is True  # type: ignore[index]


async def test_a_node_that_was_away_learns_before_it_routes(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "AC") as (meshes, (a, c)):
        home = await meshes.join("D", a.create_invite(1, 3600))
        async with meshes.node(home, a, c) as d:
            await until(lambda: knows(d, c))
        await a.revoke(Target.PEER, c.peer_id.public_key, "while D was away")
        async with meshes.node(home, c, a) as d:  # C is dialled first
            with pytest.raises(CallError):
                await call(d, c)
            assert c.peer_id not in d.table.nodes
            assert len(d.mesh.trust.revocations) == 1
        async with meshes.node(home) as d:  # it remembers without anybody
            assert len(d.mesh.trust.revocations) == 1


async def test_nobody_revokes_above_himself(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "AB") as (_, (a, b)):
        with pytest.raises(Exception, match="revoke") as raised:
            await b.revoke(Target.PEER, a.peer_id.public_key, "coup")
        assert raised.value.reason is Reason.FORBIDDEN  # type: ignore[attr-defined]
        await a.appoint_issuer(b.peer_id, ("call:*", "serve", "revoke"))
        await until(lambda: b.identity.issuer_chain, 5.0)
        with pytest.raises(IdentityError) as raised_again:  # it may revoke now, but not its own issuer
            await b.revoke(Target.PEER, a.peer_id.public_key, "coup")
        assert raised_again.value.reason is Reason.ABOVE_REVOKER
        assert knows(b, a)


async def test_an_appointed_issuer_lets_in_and_renews_without_the_first_node(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "AB") as (meshes, (a, b)):
        await a.appoint_issuer(b.peer_id, ("call:*", "serve", "invite"))
        await until(lambda: b.identity.issuer_chain, 5.0)
        home = await meshes.join("C", b.create_invite(1, 3600))
        async with meshes.node(home, a, b) as c:
            await until(lambda: knows(a, c) and knows(b, c))
            assert await call(c, a)
        assert {view.name for view in a.issuers()} == {"A", "B"}


async def test_an_invite_of_one_issuer_is_redeemed_at_another_once(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "AB") as (meshes, (a, b)):
        await a.appoint_issuer(b.peer_id, ("call:*", "serve", "invite"))
        await until(lambda: b.identity.issuer_chain, 5.0)
        invite = a.create_invite(1, 3600)
        first = await meshes.ask("C", invite, at=b)
        assert isinstance(first.outcome, Enrolled)
        await until(lambda: a.mesh.trust.redemptions.uses_of(parse_invite(invite).id), 2.0)
        second = await meshes.ask("D", invite, at=a)
        assert isinstance(second.outcome, Refused)
        assert second.outcome.code == "used_up"
        again = await meshes.ask("C", invite, at=a)  # the same key again: its reply may have been lost
        assert isinstance(again.outcome, Enrolled)


@pytest.mark.logs_errors  # of the node that loses its membership
async def test_a_single_use_invite_redeemed_in_two_halves_ends_with_one_membership(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The halves are two issuers whose news does not get through; the first sync of anybody heals them."""
    async with mesh_of(tmp_path, "AB") as (meshes, (a, b)):
        await a.appoint_issuer(b.peer_id, ("call:*", "serve", "invite"))
        await until(lambda: b.identity.issuer_chain, 5.0)
        invite = a.create_invite(1, 3600)
        with monkeypatch.context() as apart:

            async def lost_on_the_way(record: Record) -> None:
                return None

            for node in (a, b):
                apart.setattr(node.mesh, "_spread", lost_on_the_way)
            first = await meshes.join("C", invite, at=a)
            second = await meshes.join("D", invite, at=b)
        async with meshes.node(first, a) as c, meshes.node(second, b) as d:
            await until(lambda: a.mesh.trust.digest == b.mesh.trust.digest == c.mesh.trust.digest, 5.0)
            for node in (a, b, c):
                assert node.mesh.trust.redemptions.lost(d.peer_id)
                assert not node.mesh.trust.redemptions.lost(c.peer_id)
            await until(lambda: knows(a, c) and knows(b, c), 5.0)
            assert not any(knows(node, d) for node in (a, b, c))


async def test_a_membership_is_renewed_silently_before_it_ends(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "AB", membership_s=8.0) as (_, (a, b)):
        assert a.identity.membership.not_after  # A's own is a week long; B's was issued for 8 s
        first = b.identity.membership
        assert first.not_after - first.not_before == 8
        await until(lambda: b.identity.membership.serial != first.serial, 10.0)
        assert b.standing.renewal.state.state == "ok"
        await trio.sleep(3)  # beyond the end of the first one
        assert await call(a, b)
        assert await call(b, a)


async def test_who_cannot_renew_says_so(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "AB", membership_s=8.0) as (meshes, (_a, b)):
        home = b.home
    async with meshes.node(home, membership_s=8.0) as alone:
        await until(lambda: alone.standing.renewal.state.state == "failing", 10.0)
        assert "issuer" in alone.standing.renewal.state.reason
        assert str(alone.status().me["membership"]["renewal"]).startswith("failing: ")  # type: ignore[index]


async def test_records_that_prove_nothing_are_refused(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "AB") as (_, (a, b)):
        for kind in (Kind.REVOCATION, Kind.REDEMPTION, Kind.ISSUER, Kind.CARD):
            before = a.mesh.trust.digest
            assert a.mesh.trust.hear(Record(kind, b"nonsense")).value == "bad"
            assert a.mesh.trust.hear(Record(kind, b.identity.chain)).value == "bad"
            assert a.mesh.trust.digest == before
