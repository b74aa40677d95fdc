"""How an issuer answers: single use is single, a lost reply costs nothing, and a restart forgets nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atmosphere.env import FixedEnv
from atmosphere.identity import (
    Enrolment,
    Identity,
    InviteBook,
    IssuerDirectory,
    RedemptionSet,
    RevocationSet,
    Target,
    accept_enrolment,
    open_redemption,
    revoke,
    verify_chain,
)
from atmosphere.store import Store
from protocols.join.messages import Enrol, Enrolled, Refused, Renew, Reply
from tests.identity.keys import DAY, MESH, NOW, chain, issuer, key, link, member, peer
from tests.identity.mesh import second
from tests.identity.test_invite import ADDRESSES, node, raw, tokens
from transports.peer_id import PeerId


class Office:
    """An issuer with a clock set by hand."""

    def __init__(
        self, store: Store | None = None, inviter: bytes = b"", *, identity: Identity | None = None,
        revoked: RevocationSet | None = None, issuer_chain_of: Callable[[PeerId], bytes] | None = None, **hooks: Any,
    ) -> None:
        self.env = FixedEnv(3)
        self.now = float(NOW)
        self.identity = identity or node()
        self.revoked = RevocationSet(MESH) if revoked is None else revoked
        self.store = store or Store.memory(self.env)
        self.enrolment = Enrolment(
            lambda: self.identity, InviteBook(self.store), self.revoked, lambda: self.now, self.env.token_bytes,
            issuer_chain_of or (lambda _: inviter), **hooks,
        )

    async def enrol(self, envelope: bytes, who: str) -> Reply:
        return await self.enrolment.judge(peer(who), Enrol(envelope, who))


def code(reply: Reply) -> str:
    assert isinstance(reply.outcome, Refused), reply
    assert reply.outcome.message
    return reply.outcome.code


async def test_an_invite_enrols_one_key_and_the_joiner_accepts() -> None:
    office = Office()
    made = node().create_invite(ADDRESSES, NOW, tokens)
    reply = await office.enrol(made.envelope, "guest")
    assert isinstance(reply.outcome, Enrolled)
    membership = accept_enrolment(
        made, peer("guest"), reply.outcome.chain, reply.outcome.inviter_chain, NOW, reply.time_ms / 1000
    )
    assert (membership.name, membership.scopes) == ("guest", ("call:*", "serve"))
    assert code(await office.enrol(made.envelope, "thief")) == "used_up"
    assert isinstance((await office.enrol(made.envelope, "guest")).outcome, Enrolled), "the reply may have been lost"
    assert "2 granted, 1 refused" in repr(office.enrolment)


async def test_redemptions_survive_a_restart(tmp_path: Path) -> None:
    made = node().create_invite(ADDRESSES, NOW, tokens, uses=2)
    for who in ("a", "b"):
        store = Store(tmp_path / "db", FixedEnv())
        assert isinstance((await Office(store).enrol(made.envelope, who)).outcome, Enrolled)
        store.close()
    store = Store(tmp_path / "db", FixedEnv())
    assert code(await Office(store).enrol(made.envelope, "c")) == "used_up"
    store.close()


async def test_a_refusal_costs_no_use() -> None:
    office = Office()
    made = node().create_invite(ADDRESSES, NOW, tokens)
    office.revoked.add(revoke(Target.PEER, peer("bad").public_key, key("owner"), MESH, NOW), NOW)
    assert code(await office.enrol(made.envelope, "bad")) == "revoked"
    assert isinstance((await office.enrol(made.envelope, "guest")).outcome, Enrolled)


async def test_any_issuer_redeems_anothers_invite() -> None:
    other = chain(issuer("owner", "other", ("invite", "serve", "call")))
    made = raw("other")
    reply = await Office(inviter=other).enrol(made, "guest")
    assert isinstance(reply.outcome, Enrolled)
    assert reply.outcome.inviter_chain == other


@pytest.mark.parametrize(("envelope", "inviter", "reason"), [
    (b"junk", b"", "malformed"),
    (raw("stranger"), b"", "not_issuer"),
    (raw("stranger"), chain(issuer("owner", "other")), "not_issuer"),
    (raw("other"), chain(issuer("owner", "other", ("serve",))), "not_issuer"),
    (raw("other", scopes=["admin"]), chain(issuer("owner", "other", ("invite",))), "widened_scope"),
    (raw(expires=NOW - 301), b"", "expired"),
    (raw(mesh=peer("other owner").public_key), b"", "foreign_mesh"),
    (raw(expires=NOW + 30 * DAY + 301), b"", "malformed"),
    (node().create_offline_invite(ADDRESSES[:1], NOW, tokens).envelope, b"", "not_issuer"),
])
async def test_refused_with_its_reason(envelope: bytes, inviter: bytes, reason: str) -> None:
    assert code(await Office(inviter=inviter).enrol(envelope, "guest")) == reason


async def test_renewal_is_for_the_same_key_and_not_after_the_end_or_a_revocation() -> None:
    office = Office()
    office.now += 6 * DAY
    reply = await office.enrolment.judge(peer("guest"), Renew(member("guest")))
    assert isinstance(reply.outcome, Enrolled)
    assert verify_chain(reply.outcome.chain, MESH, peer("guest"), office.now).not_after == office.now + 7 * DAY
    assert code(await office.enrolment.judge(peer("thief"), Renew(member("guest")))) == "wrong_audience"
    wide = chain(issuer("owner", "issuer"), link("issuer", "guest", scopes=("*",)))
    assert isinstance((await office.enrolment.judge(peer("guest"), Renew(wide))).outcome, Enrolled)
    office.now += 2 * DAY
    assert code(await office.enrolment.judge(peer("guest"), Renew(member("guest")))) == "expired"
    office.now = NOW
    office.revoked.add(revoke(Target.PEER, peer("guest").public_key, key("owner"), MESH, NOW), NOW)
    assert code(await office.enrolment.judge(peer("guest"), Renew(member("guest")))) == "revoked"


async def test_memberships_last_as_long_as_configured() -> None:
    office = Office(membership_s=3600.0)
    made = node().create_invite(ADDRESSES, NOW, tokens)
    reply = await office.enrol(made.envelope, "guest")
    assert isinstance(reply.outcome, Enrolled)
    assert verify_chain(reply.outcome.chain, MESH, peer("guest"), NOW).not_after == NOW + 3600
    office.now += 1800
    reply = await office.enrolment.judge(peer("guest"), Renew(reply.outcome.chain))
    assert isinstance(reply.outcome, Enrolled)
    assert verify_chain(reply.outcome.chain, MESH, peer("guest"), office.now).not_after == NOW + 5400


class Half:
    """One issuer and all it has heard; two of them are a mesh whose halves may be apart."""

    def __init__(self, identity: Identity) -> None:
        self.revoked = RevocationSet(MESH)
        self.redemptions = RedemptionSet(MESH, self.revoked)
        self.issuers = IssuerDirectory(MESH, self.revoked)
        self.office = Office(
            identity=identity, revoked=self.revoked, issuer_chain_of=self.issuers.chain_of,
            used_elsewhere=self.redemptions.uses_of, lost=self.redemptions.lost, on_redeemed=self.keep,
        )

    async def keep(self, record: bytes) -> None:
        self.redemptions.add(record, self.office.now)

    def hear(self, other: Half) -> None:
        """What sync does."""
        self.redemptions.merge([entry.record for entry in other.redemptions], self.office.now)
        for data in (other.office.identity.issuer_chain, *other.issuers):
            self.issuers.add(data, self.office.now)


def halves() -> tuple[Half, Half]:
    here, there = Half(node()), Half(second())
    here.hear(there)
    there.hear(here)
    return here, there


async def test_an_invite_used_at_one_issuer_is_used_up_at_the_other() -> None:
    here, there = halves()
    made = node().create_invite(ADDRESSES, NOW, tokens)
    first = await here.office.enrol(made.envelope, "guest")
    there.hear(here)
    assert code(await there.office.enrol(made.envelope, "thief")) == "used_up"
    again = await there.office.enrol(made.envelope, "guest")
    assert isinstance(first.outcome, Enrolled)
    assert isinstance(again.outcome, Enrolled), "the same key asks again, elsewhere"
    assert accept_enrolment(made, peer("guest"), again.outcome.chain, again.outcome.inviter_chain, NOW)
    assert len(there.redemptions) == 1, "and costs nothing"
    rows = there.office.store.read_now(lambda connection: connection.execute("SELECT peer FROM invites").fetchall())
    assert rows == [], "the use was begun elsewhere"


async def test_two_uses_in_two_halves_end_with_one_member_on_both_sides() -> None:
    here, there = halves()
    made = node().create_invite(ADDRESSES, NOW, tokens)
    there.office.now += 1
    early, late = await here.office.enrol(made.envelope, "early"), await there.office.enrol(made.envelope, "late")
    assert isinstance(early.outcome, Enrolled)
    assert isinstance(late.outcome, Enrolled)
    here.hear(there)
    there.hear(here)
    assert here.redemptions.digest == there.redemptions.digest
    for half in (here, there):
        renewed = await half.office.enrolment.judge(peer("early"), Renew(early.outcome.chain))
        assert isinstance(renewed.outcome, Enrolled)
        assert code(await half.office.enrolment.judge(peer("late"), Renew(late.outcome.chain))) == "revoked"
        assert code(await half.office.enrol(made.envelope, "late")) == "revoked"
        assert code(await half.office.enrol(made.envelope, "third")) == "used_up"


async def test_no_grant_without_its_record_and_no_record_is_lost_for_good() -> None:
    kept: list[bytes] = []

    async def keep(record: bytes) -> None:
        if not kept:
            kept.append(b"failed")
            raise OSError("disk full")
        kept.append(record)

    office = Office(on_redeemed=keep)
    made = node().create_invite(ADDRESSES, NOW, tokens)
    with pytest.raises(OSError, match="disk full"):
        await office.enrol(made.envelope, "guest")
    office.now += 60
    assert isinstance((await office.enrol(made.envelope, "guest")).outcome, Enrolled)
    said = open_redemption(kept[1], MESH, office.now)
    assert (said.peer, said.at_ms) == (peer("guest"), NOW * 1000), "of the time when the use began"


async def test_an_issuer_that_may_not_invite_redeems_nothing_and_costs_no_use() -> None:
    renewer = node(("call:*", "serve"))
    office = Office(identity=renewer, inviter=chain(issuer("owner", "other")))
    assert code(await office.enrol(raw("other"), "guest")) == "forbidden"
    office.identity = node()
    assert isinstance((await office.enrol(raw("other"), "somebody else")).outcome, Enrolled)


async def test_uses_of_invites_that_ended_long_ago_are_forgotten() -> None:
    office = Office()
    await office.enrol(node().create_invite(ADDRESSES, NOW, tokens).envelope, "guest")
    office.now += 31 * DAY
    await office.enrol(node().create_invite(ADDRESSES, office.now, tokens).envelope, "other")
    rows = office.store.read_now(lambda connection: connection.execute("SELECT peer FROM invites").fetchall())
    assert rows == [(peer("other").raw,)]
