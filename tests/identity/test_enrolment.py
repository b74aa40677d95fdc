"""How an issuer answers: single use is single, a lost reply costs nothing, and a restart forgets nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from atmosphere.env import FixedEnv
from atmosphere.identity import Enrolment, InviteBook, RevocationSet, Target, accept_enrolment, revoke, verify_chain
from atmosphere.store import Store
from protocols.join.messages import Enrol, Enrolled, Refused, Renew, Reply
from tests.identity.keys import DAY, MESH, NOW, chain, issuer, key, link, member, peer
from tests.identity.test_invite import ADDRESSES, node, raw, tokens


class Office:
    """An issuer with a clock set by hand."""

    def __init__(self, store: Store | None = None, inviter: bytes = b"") -> None:
        self.env = FixedEnv(3)
        self.now = float(NOW)
        self.identity = node()
        self.revoked = RevocationSet(MESH)
        self.store = store or Store.memory(self.env)
        self.enrolment = Enrolment(
            lambda: self.identity, InviteBook(self.store), self.revoked, lambda: self.now, self.env.token_bytes,
            lambda _: inviter,
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
    (raw(approval=True), b"", "forbidden"),
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
