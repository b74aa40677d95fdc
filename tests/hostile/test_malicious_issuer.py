"""An issuer turns against the mesh: how far it gets, and how it is stopped."""

from __future__ import annotations

import pytest

from atmosphere.identity import RevocationSet, Target, revoke
from atmosphere.identity.identity_pb2 import Redemption as Wire
from protocols.records import domains
from protocols.sync.messages import Kind
from tests.hostile.house import INVITE, SECOND, SECOND_NODE, House, chain_of, signed
from tests.identity.keys import MESH, NOW, chain, issuer, key, link, peer, public


def test_hearing_a_statement_costs_no_look_at_all_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """An issuer can say thousands of true things: each may cost its own verification and no more."""
    house = House()
    looks = 0
    whole = RevocationSet.__iter__

    def counted(revocations: RevocationSet):  # type: ignore[no-untyped-def]
        nonlocal looks
        looks += 1
        return whole(revocations)

    monkeypatch.setattr(RevocationSet, "__iter__", counted)
    for number in range(20):
        house.hear(Kind.REVOCATION, revoke(Target.PEER, public(f"gone {number}"), key("owner"), MESH, NOW))
    assert looks == 0


def test_what_was_replaced_is_cleared_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """One who corrects himself for ever does not fill the disk."""
    monkeypatch.setattr("atmosphere.mesh.trust.REPLACED", 5)
    house = House()
    for number in range(20):
        wire = Wire(
            version=1, mesh=MESH, invite=INVITE.id, peer=public("guest"), at_ms=(NOW + 100 - number) * 1000, uses=1,
            expires=INVITE.expires, authority=SECOND,
        )
        house.hear(Kind.REDEMPTION, signed("second", domains.REDEMPTION, wire.SerializeToString()))
    house.trust.forget_ended()
    (rows,) = house.store.read_now(lambda c: c.execute("SELECT count(*) FROM trust").fetchone())
    assert rows == len(house.trust.keys())


def test_it_throws_a_guest_out_by_a_lie_until_it_is_struck() -> None:
    """The honest "can": an issuer may claim an earlier use. Striking the issuer brings the guest back."""
    house = House()
    house.hear(Kind.REDEMPTION, house.identity.redeem_record(INVITE, peer("guest"), NOW + 60))
    house.hear(Kind.REDEMPTION, SECOND_NODE.redeem_record(INVITE, peer("nobody"), NOW))
    assert house.greeting("guest", chain_of("guest"))[0] == "revoked"
    house.hear(Kind.REVOCATION, revoke(Target.ISSUER, public("second"), key("owner"), MESH, NOW))
    assert house.greeting("guest", chain_of("guest"))[0] == "let in"


def test_all_that_it_let_in_fall_with_it_and_no_others() -> None:
    house = House()
    sybils = {f"sybil {number}": chain(issuer("owner", "second"), link("second", f"sybil {number}")) for number in "ab"}
    for name, membership in sybils.items():
        assert house.greeting(name, membership)[0] == "let in"
    house.hear(Kind.REVOCATION, revoke(Target.ISSUER, public("second"), key("owner"), MESH, NOW))
    assert {name: house.greeting(name, membership)[0] for name, membership in sybils.items()} == dict.fromkeys(
        sybils, "revoked")
    assert set(house.members.fallen()) == {peer(name) for name in sybils}
    assert house.greeting("guest", chain_of("guest"))[0] == "let in"


def test_it_strikes_no_equal() -> None:
    """The owner cannot be named at all, see the table; an issuer of the same level stays, with all below it."""
    house = House()
    house.hear(Kind.REVOCATION, revoke(Target.ISSUER, public("issuer"), key("second"), MESH, NOW, authority=SECOND))
    assert house.greeting("guest", chain_of("guest"))[0] == "let in"
