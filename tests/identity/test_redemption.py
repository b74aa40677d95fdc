"""An invite used anywhere is used everywhere, and everybody agrees on who came first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmosphere.identity import (
    Identity,
    IdentityError,
    Reason,
    RedemptionSet,
    RevocationSet,
    Target,
    open_redemption,
    redeem_record,
    revoke,
)
from atmosphere.identity.identity_pb2 import Redemption as Wire
from atmosphere.identity.link import Kind
from atmosphere.identity.redemption import MAX_AUTHORITY_BYTES, MAX_REDEMPTION_BYTES
from protocols.records import domains, sign
from protocols.records.records_pb2 import Envelope
from tests.identity.keys import DAY, MESH, NOW, chain, issuer, key, link, member, peer, public
from tests.identity.mesh import invite, second, third
from tests.identity.test_invite import ADDRESSES, node, tokens

ISSUER_CHAIN = chain(issuer("owner", "issuer"))


def raw(signer: str = "issuer", domain: bytes = domains.REDEMPTION, **fields: object) -> bytes:
    """A redemption with *fields* changed, signed as if all was well."""
    values: dict[str, object] = {
        "version": 1, "mesh": MESH, "invite": invite().id, "peer": public("guest"), "at_ms": NOW * 1000, "uses": 1,
        "expires": NOW + 3600, "authority": ISSUER_CHAIN, **fields,
    }
    return sign(domain, Wire(**values).SerializeToString(), key(signer))  # type: ignore[arg-type]


HOSTILE: dict[str, tuple[bytes, Reason]] = {
    "signed by another": (raw()[:-64] + raw("stranger")[-64:], Reason.FORGED),
    "another domain": (raw(domain=domains.REVOCATION), Reason.FORGED),
    "oversized": (raw(authority=b"x" * 1200), Reason.OVERSIZED),
    "truncated": (raw()[:-1], Reason.MALFORMED),
    "no version": (raw(version=0), Reason.MALFORMED),
    "newer version": (raw(version=2), Reason.UNKNOWN_VERSION),
    "foreign mesh": (
        raw(mesh=public("other owner"),
            authority=chain(link("other owner", "issuer", Kind.ISSUER, mesh=public("other owner")))),
        Reason.FOREIGN_MESH),
    "authority of a foreign mesh": (
        raw(authority=chain(link("other owner", "issuer", Kind.ISSUER, mesh=public("other owner")))),
        Reason.FOREIGN_MESH),
    "short invite id": (raw(invite=b"x" * 31), Reason.MALFORMED),
    "short peer": (raw(peer=b"x" * 31), Reason.MALFORMED),
    "no uses": (raw(uses=0), Reason.MALFORMED),
    "endless uses": (raw(uses=10_001), Reason.MALFORMED),
    "from the future": (raw(at_ms=(NOW + 301) * 1000, expires=NOW + DAY), Reason.NOT_YET_VALID),
    "after the invite's end": (raw(expires=NOW - 301), Reason.EXPIRED),
    "of an endless invite": (raw(expires=NOW + 31 * DAY), Reason.MALFORMED),
    "no authority": (raw(authority=b""), Reason.MALFORMED),
    "authority of another": (raw("thief"), Reason.WRONG_AUDIENCE),
    "authority of a member": (raw("member", authority=member()), Reason.NOT_ISSUER),
    "authority that nobody gave": (
        raw("x", authority=chain(issuer("other owner", "x"))), Reason.FORGED),
    "authority that had ended": (
        raw(authority=chain(link("owner", "issuer", Kind.ISSUER, begins=NOW - DAY, ends=NOW - 301))), Reason.EXPIRED),
    "authority that had not begun": (raw(at_ms=(NOW - 301) * 1000), Reason.EXPIRED),
    "authority that may not invite": (
        raw(authority=chain(issuer("owner", "issuer", ("serve", "issue")))), Reason.FORBIDDEN),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_refused_with_its_reason(case: str) -> None:
    record, reason = HOSTILE[case]
    with pytest.raises(IdentityError) as caught:
        open_redemption(record, MESH, NOW)
    assert caught.value.reason is reason, caught.value


def test_says_what_was_redeemed_and_is_small() -> None:
    record = second().redeem_record(invite(3), peer("guest"), NOW + 0.25)
    said = open_redemption(record, MESH, NOW)
    assert (said.invite_id, said.peer, said.signer) == (invite(3).id, peer("guest"), peer("second"))
    assert (said.at_ms, said.uses, said.expires) == (NOW * 1000 + 250, 3, NOW + 3600)
    assert said.record == record
    assert len(record) <= 700
    assert invite(3).envelope[-16:] not in record


def test_the_largest_certificate_that_is_handed_out_fits() -> None:
    scopes = [f"call:llm/{'x' * 54}{number}" for number in range(8)]
    wide = node().appoint_issuer(peer("s"), (*scopes, "invite"), NOW, tokens, name="n" * 64)
    assert len(wide) > MAX_AUTHORITY_BYTES - 70
    assert len(redeem_record(key("s"), wide, invite(), peer("guest"), NOW)) <= MAX_REDEMPTION_BYTES
    with pytest.raises(IdentityError) as caught:
        node().appoint_issuer(peer("s"), [f"call:llm/{'x' * 53}{number:02}" for number in range(12)], NOW, tokens)
    assert caught.value.reason is Reason.OVERSIZED


def test_who_may_not_redeem() -> None:
    plain = Identity.load(key("member").encode(), MESH, "home", member())
    with pytest.raises(IdentityError) as caught:
        plain.redeem_record(invite(), peer("guest"), NOW)
    assert caught.value.reason is Reason.NOT_ISSUER
    with pytest.raises(IdentityError) as caught:
        node(("call:*", "serve")).redeem_record(invite(), peer("guest"), NOW)
    assert caught.value.reason is Reason.FORBIDDEN
    with pytest.raises(IdentityError) as caught:
        node().redeem_record(node().create_offline_invite(ADDRESSES[:1], NOW, tokens), peer("guest"), NOW)
    assert caught.value.reason is Reason.MALFORMED
    with pytest.raises(IdentityError) as caught:
        node().redeem_record(invite(), peer("guest"), NOW + 2 * 3600)
    assert caught.value.reason is Reason.EXPIRED


@given(st.integers(0, len(raw()) * 8 - 1))
def test_no_flipped_bit_passes(bit: int) -> None:
    flipped = bytearray(raw())
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(IdentityError):
        open_redemption(bytes(flipped), MESH, NOW)


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_refused_not_crashed_on(data: bytes, signed: bool) -> None:
    record = sign(domains.REDEMPTION, data, key("issuer")) if signed else data
    with pytest.raises(IdentityError):
        open_redemption(record, MESH, NOW)


@given(
    uses=st.integers(1, 10_000), at=st.floats(0, 3600), who=st.text("abc", min_size=1, max_size=3),
    number=st.integers(0, 255),
)
def test_round_trip(uses: int, at: float, who: str, number: int) -> None:
    made = invite(uses, number)
    said = open_redemption(node().redeem_record(made, peer(who), NOW + at), MESH, NOW + at)
    assert (said.invite_id, said.uses, said.peer) == (made.id, uses, peer(who))
    assert said.at_ms == int((NOW + at) * 1000)


def build(records: Sequence[bytes], revoked: RevocationSet | None = None) -> RedemptionSet:
    known = RedemptionSet(MESH, revoked)
    known.merge(records, NOW + DAY)
    return known


def test_the_first_keys_by_time_then_peer_id_win() -> None:
    early = node().redeem_record(invite(), peer("early"), NOW)
    late = third().redeem_record(invite(), peer("late"), NOW + 1)
    for records in permutations((early, late)):
        known = build(records)
        assert known.uses_of(invite().id) == {peer("early"), peer("late")}
        assert (known.lost(peer("early")), known.lost(peer("late"))) == (False, True)
    assert not build([late]).lost(peer("late")), "nobody came before it"
    assert not build([early]).lost(peer("stranger"))
    one, other = sorted((peer("a"), peer("b")))
    tied = build([node().redeem_record(invite(), one, NOW), third().redeem_record(invite(), other, NOW)])
    assert (tied.lost(one), tied.lost(other)) == (False, True)


def test_who_won_with_any_invite_is_not_lost() -> None:
    records = [
        node().redeem_record(invite(), peer("early"), NOW),
        third().redeem_record(invite(), peer("late"), NOW + 1),
        third().redeem_record(invite(number=1), peer("late"), NOW + 2),
    ]
    assert not build(records).lost(peer("late"))


def test_the_same_key_at_two_issuers_is_one_use() -> None:
    records = [
        node().redeem_record(invite(2), peer("a"), NOW),
        third().redeem_record(invite(2), peer("a"), NOW + 1),
        third().redeem_record(invite(2), peer("b"), NOW + 2),
    ]
    known = build(records)
    assert len(known) == 3
    assert not known.lost(peer("a"))
    assert not known.lost(peer("b"))


def test_what_a_struck_issuer_said_no_longer_counts_nor_throws_anybody_out() -> None:
    honest = node().redeem_record(invite(), peer("guest"), NOW + 10)
    invented = third().redeem_record(invite(), peer("nobody"), NOW)
    revoked = RevocationSet(MESH)
    known = build([honest, invented], revoked)
    assert known.lost(peer("guest"))
    revoked.add(revoke(Target.ISSUER, public("third"), key("owner"), MESH, NOW), NOW)
    assert not known.lost(peer("guest"))
    assert not known.lost(peer("nobody")), "it never used the invite; its membership fell with the issuer"
    assert known.uses_of(invite().id) == {peer("guest")}


def test_the_larger_number_of_uses_counts() -> None:
    honest = [node().redeem_record(invite(2), peer("a"), NOW), node().redeem_record(invite(2), peer("b"), NOW + 1)]
    lying = raw("third", invite=invite(2).id, peer=public("b"), at_ms=(NOW + 5) * 1000,
                authority=chain(issuer("owner", "third")))
    known = build([*honest, lying])
    assert not known.lost(peer("a"))
    assert not known.lost(peer("b"))


def signers() -> dict[str, Callable[[], Identity]]:
    return {"first": node, "second": second, "third": third}


STATEMENTS = st.lists(
    st.tuples(
        st.sampled_from(["first", "second", "third"]), st.integers(1, 2), st.integers(0, 1),
        st.sampled_from("abcd"), st.integers(0, 3),
    ),
    max_size=8,
)


@given(STATEMENTS, st.randoms(use_true_random=False), st.booleans())
def test_merging_in_any_order_gives_the_same_set_and_verdicts(
    statements: list[tuple[str, int, int, str, int]], random: object, strike: bool
) -> None:
    records = [
        signers()[who]().redeem_record(invite(uses, number), peer(guest), NOW + at)
        for who, uses, number, guest, at in statements
    ]
    shuffled = [*records, *records]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    sets = []
    for order in (records, shuffled):
        revoked = RevocationSet(MESH)
        known = RedemptionSet(MESH, revoked)
        for number, record in enumerate(order):
            known.add(record, NOW + DAY)
            known.lost(peer("a"))  # a verdict in between must not stay
            if strike and number == len(order) // 2:
                revoked.add(revoke(Target.ISSUER, public("third"), key("owner"), MESH, NOW), NOW)
        if strike:
            revoked.add(revoke(Target.ISSUER, public("third"), key("owner"), MESH, NOW), NOW)
        sets.append(known)
    assert sets[0].digest == sets[1].digest
    for guest in "abcd":
        assert sets[0].lost(peer(guest)) == sets[1].lost(peer(guest))
    for uses in (1, 2):
        for number in (0, 1):
            made = invite(uses, number)
            assert sets[0].uses_of(made.id) == sets[1].uses_of(made.id)
            kept = [guest for guest in sets[0].uses_of(made.id) if guest in sets[0]._winners_of(made.id)]
            assert len(kept) <= uses


def test_one_statement_counts_for_each_signer_peer_and_invite() -> None:
    records = [node().redeem_record(invite(), peer("a"), NOW + at) for at in (5, 3, 9, 3)]
    known = RedemptionSet(MESH)
    new = [known.add(record, NOW + DAY) is not None for record in records]
    assert new == [True, True, False, False]
    assert [entry.at_ms for entry in known] == [(NOW + 3) * 1000]


def test_kept_until_the_last_membership_that_rests_on_it_has_ended() -> None:
    record = node().redeem_record(invite(), peer("a"), NOW)
    known = build([record])
    end = NOW + 3600 + 7 * DAY + 600
    assert known.forget_ended(end) == 0
    assert known.forget_ended(end + 1) == 1
    assert len(known) == 0
    assert known.uses_of(invite().id) == frozenset()
    assert not known.lost(peer("a"))
    assert known.add(record, end + 1) is None, "a node that still has it must not bring it back"
    longer = RedemptionSet(MESH, kept_s=30 * DAY)
    assert longer.add(record, end + 1) is not None


def test_bounded_and_the_same_ones_stay_in_any_order() -> None:
    records = [
        node().redeem_record(invite(number=number, lifetime=60.0 * (number + 1)), peer(f"p{number}"), NOW)
        for number in range(6)
    ]
    digests = set()
    for order in (records, records[::-1], records[3:] + records[:3]):
        known = RedemptionSet(MESH, limit=3)
        known.merge(order, NOW)
        digests.add(known.digest)
        assert len(known) == 3
        assert {entry.peer for entry in known} == {peer("p3"), peer("p4"), peer("p5")}
        assert "3 entries of 3 invites" in repr(known)
    assert len(digests) == 1


def test_who_lost_by_one_statement_stays_lost_when_another_one_goes() -> None:
    ends_first = raw(
        "third", peer=public("late"), at_ms=(NOW + 2) * 1000, expires=NOW + 60, authority=third().issuer_chain
    )
    known = RedemptionSet(MESH, limit=2)
    known.merge([
        node().redeem_record(invite(), peer("early"), NOW), ends_first,
        node().redeem_record(invite(), peer("late"), NOW + 1),
    ], NOW + 5)
    assert {entry.signer for entry in known} == {peer("issuer")}
    assert known.lost(peer("late"))


def test_replaced_statements_do_not_pile_up() -> None:
    known = RedemptionSet(MESH)
    for second_before in range(300):
        known.add(node().redeem_record(invite(), peer("a"), NOW + 300 - second_before), NOW + DAY)
    assert len(known) == 1
    assert len(known._ending) < 100


def test_a_second_encoding_of_a_statement_is_refused() -> None:
    record = raw()
    envelope = Envelope.FromString(record)
    other = Envelope(signature=envelope.signature).SerializeToString() + Envelope(
        payload=envelope.payload, signer=envelope.signer
    ).SerializeToString()
    assert Envelope.FromString(other) == envelope
    with pytest.raises(IdentityError) as caught:
        open_redemption(other, MESH, NOW)
    assert caught.value.reason is Reason.MALFORMED




def test_a_use_from_before_the_certificate_is_said_as_of_its_beginning() -> None:
    renewed = node().with_issuer(chain(link("owner", "issuer", Kind.ISSUER, begins=NOW + 900)), NOW + 900)
    said = open_redemption(renewed.redeem_record(invite(), peer("guest"), NOW + 60), MESH, NOW + 900)
    assert said.at_ms == (NOW + 900) * 1000
