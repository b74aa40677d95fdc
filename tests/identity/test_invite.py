"""Invites survive people and paper, and nobody but the inviter can make or change one."""

from __future__ import annotations

import base64
import io
from xml.etree import ElementTree

import pytest
import segno
from hypothesis import given
from hypothesis import strategies as st
from multiaddr import Multiaddr

from atmosphere.identity import (
    Identity,
    IdentityError,
    Invite,
    Reason,
    accept_enrolment,
    enrol_offline,
    open_chain,
    parse_invite,
    verify_chain,
)
from atmosphere.identity.identity_pb2 import Invite as Wire
from atmosphere.identity.invite import MAX_INVITE_BYTES, MAX_OFFLINE_INVITE_BYTES, create_invite, open_invite
from atmosphere.identity.invite_qr import svg, terminal
from atmosphere.identity.link import Kind
from protocols.records import domains, sign
from tests.identity.keys import DAY, MESH, NOW, chain, issuer, key, link, member, peer, public

ADDRESSES = ("/ip4/192.168.178.123/tcp/41234", "/ip6/fd12:3456:789a:1::42/tcp/41235/ws")


def tokens(size: int) -> bytes:
    return bytes(range(size))


def node(scopes: tuple[str, ...] = ("*",)) -> Identity:
    certificate = issuer("owner", "issuer", scopes)
    own = chain(certificate, link("issuer", "issuer", scopes=scopes, name="first"))
    return Identity.load(key("issuer").encode(), MESH, "home", own, chain(certificate))


def invite(**more: object) -> Invite:
    return node().create_invite(ADDRESSES, NOW, tokens, **more)  # type: ignore[arg-type]


def raw(signer: str = "issuer", domain: bytes = domains.INVITE, **fields: object) -> bytes:
    """An envelope of an invite with *fields* changed, signed as if all was well."""
    wire = Wire(
        version=1, mesh=MESH, mesh_name="home", addresses=[Multiaddr(ADDRESSES[0]).to_bytes()], secret=b"s" * 16,
        expires=NOW + 60, uses=1, scopes=["serve"],
    )
    for name, value in fields.items():
        wire.ClearField(name)  # type: ignore[arg-type]
        if isinstance(value, list):
            getattr(wire, name).extend(value)
        else:
            setattr(wire, name, value)
    return sign(domain, wire.SerializeToString(), key(signer))


def test_two_addresses_and_a_long_name_fit() -> None:
    made = create_invite(
        key("issuer"), MESH, "n" * 32, ADDRESSES, expires=NOW, secret=b"s" * 16,
    )
    assert len(made.envelope) <= MAX_INVITE_BYTES
    assert made.addresses == tuple(f"{address}/p2p/{peer('issuer')}" for address in ADDRESSES)
    version = segno.make_qr(made.text, error="m", mode="alphanumeric", boost_error=False).version
    assert int(version) <= 13


def test_addresses_that_do_not_fit_are_left_out_from_the_end() -> None:
    long = f"/dns4/{'a' * 60}.example/tcp/443/wss"
    assert len(node().create_invite((ADDRESSES[0], long, long), NOW, tokens).addresses) == 2
    with pytest.raises(IdentityError) as caught:
        node().create_invite((f"/dns4/{'.'.join(['a' * 60] * 4)}/tcp/1",), NOW, tokens)
    assert caught.value.reason is Reason.OVERSIZED
    for wrong in ((), ("192.168.1.2:80",)):
        with pytest.raises(IdentityError) as caught:
            node().create_invite(wrong, NOW, tokens)
        assert caught.value.reason is Reason.MALFORMED


def test_people_may_break_lines_and_change_case() -> None:
    made = invite(uses=3, scopes=("call:llm/chat",), lifetime=60)
    pasted = " \n" + "\n".join(made.text[i : i + 40] for i in range(0, len(made.text), 40)).lower() + "\n"
    again = parse_invite(pasted)
    assert again == made
    assert (again.uses, again.scopes, again.expires, again.mesh_name) == (3, ("call:llm/chat",), NOW + 60, "home")
    assert made.text.isalnum()
    assert made.text == made.text.upper()


def test_another_nodes_address_keeps_its_peer() -> None:
    other = f"/ip4/10.0.0.1/tcp/1/p2p/{peer('other')}"
    own = f"/ip4/10.0.0.2/tcp/1/p2p/{peer('issuer')}"
    assert node().create_invite((own, other), NOW, tokens).addresses == (own, other)


HOSTILE = {
    "signed by another": (raw()[:-64] + raw("stranger")[-64:], Reason.FORGED),
    "another domain": (raw(domain=domains.LINK), Reason.FORGED),
    "oversized": (b"x" * 700, Reason.OVERSIZED),
    "oversized for an online one": (raw(scopes=[f"call:llm/{n:050}" for n in range(5)]), Reason.OVERSIZED),
    "no version": (raw(version=0), Reason.MALFORMED),
    "newer version": (raw(version=2), Reason.UNKNOWN_VERSION),
    "short mesh": (raw(mesh=b"x"), Reason.MALFORMED),
    "long mesh name": (raw(mesh_name="x" * 33), Reason.MALFORMED),
    "control characters": (raw(mesh_name="a\x07"), Reason.MALFORMED),
    "no address": (raw(addresses=[]), Reason.MALFORMED),
    "four addresses": (raw(addresses=[Multiaddr(ADDRESSES[0]).to_bytes()] * 4), Reason.MALFORMED),
    "half an address": (raw(addresses=[b"\x04\x01"]), Reason.MALFORMED),
    "not an address": (raw(addresses=[b"\xff\xff\xff"]), Reason.MALFORMED),
    "short secret": (raw(secret=b"x"), Reason.MALFORMED),
    "no uses": (raw(uses=0), Reason.MALFORMED),
    "endless uses": (raw(uses=2**32 - 1), Reason.MALFORMED),
    "never expires": (raw(expires=2**63), Reason.MALFORMED),
    "no scopes": (raw(scopes=[]), Reason.MALFORMED),
    "chain without key": (raw(chain=b"x"), Reason.MALFORMED),
    "offline key without chain": (
        raw(secret=b"", uses=0, scopes=[], key_seed=key("k").encode()), Reason.MALFORMED),
    "offline key that is not the chain's": (
        raw(secret=b"", uses=0, scopes=[], key_seed=key("k").encode(),
            chain=chain(issuer("owner", "issuer"), link("issuer", "other", Kind.INVITE_KEY))), Reason.NOT_ISSUER),
    "offline with a membership as chain": (
        raw(secret=b"", uses=0, scopes=[], key_seed=key("member").encode(), chain=member()), Reason.NOT_ISSUER),
    "offline with another end": (
        raw(secret=b"", uses=0, scopes=[], key_seed=key("k").encode(),
            chain=chain(issuer("owner", "issuer"), link("issuer", "k", Kind.INVITE_KEY))), Reason.MALFORMED),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_refused_with_its_reason(case: str) -> None:
    envelope, reason = HOSTILE[case]
    with pytest.raises(IdentityError) as caught:
        open_invite(envelope)
    assert caught.value.reason is reason, caught.value


@pytest.mark.parametrize(("text", "reason"), [
    ("", Reason.MALFORMED), ("hello", Reason.MALFORMED), ("ATM1", Reason.MALFORMED), ("ATM10000", Reason.MALFORMED),
    ("ATM2" + invite().text[4:], Reason.MALFORMED), (invite().text[:-1], Reason.MALFORMED),
    (invite().text + "A", Reason.MALFORMED), ("A" * 2000, Reason.OVERSIZED), ("ATM1\u00e9", Reason.MALFORMED),
])
def test_text_that_is_no_invite_names_the_fix(text: str, reason: Reason) -> None:
    with pytest.raises(IdentityError, match=r"new invite") as caught:
        parse_invite(text)
    assert caught.value.reason is reason


def test_no_changed_character_and_no_flipped_bit_passes() -> None:
    made = invite()
    for position in range(len(made.text)):
        changed = made.text[:position] + ("A" if made.text[position] != "A" else "B") + made.text[position + 1 :]
        with pytest.raises(IdentityError):
            parse_invite(changed)
    for bit in range(len(made.envelope) * 8):
        flipped = bytearray(made.envelope)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(IdentityError):
            open_invite(bytes(flipped))


@given(st.binary(max_size=320))
def test_any_bytes_are_refused_not_crashed_on(data: bytes) -> None:
    with pytest.raises(IdentityError):
        parse_invite("ATM1" + base64.b32encode(data).decode())


@given(st.text(max_size=100))
def test_any_text_is_refused_not_crashed_on(text: str) -> None:
    for candidate in (text, f"ATM1{text}"):
        with pytest.raises(IdentityError):
            parse_invite(candidate)


def test_who_may_invite_and_to_what() -> None:
    with pytest.raises(IdentityError) as caught:
        node(("call:*", "serve")).create_invite(ADDRESSES, NOW, tokens)
    assert caught.value.reason is Reason.FORBIDDEN
    with pytest.raises(IdentityError) as caught:
        node(("call:*", "invite")).create_invite(ADDRESSES, NOW, tokens, scopes=("serve",))
    assert caught.value.reason is Reason.WIDENED_SCOPE
    plain = Identity.load(key("member").encode(), MESH, "home", member())
    with pytest.raises(IdentityError) as caught:
        plain.create_invite(ADDRESSES, NOW, tokens)
    assert caught.value.reason is Reason.NOT_ISSUER


def test_the_invite_is_not_in_its_repr() -> None:
    made = invite()
    assert made.text[10:40] not in repr(made)
    assert "home" in repr(made)


def test_offline_invite_enrols_without_anybody_and_ends_with_itself() -> None:
    made = node().create_offline_invite(ADDRESSES[:1], NOW, tokens, lifetime=DAY)
    assert len(made.envelope) <= MAX_OFFLINE_INVITE_BYTES
    again = parse_invite(made.text)
    assert again.offline
    granted = enrol_offline(again, peer("guest"), "guest", NOW + 60, tokens)
    membership = verify_chain(granted, MESH, peer("guest"), NOW + 60)
    assert membership.not_after == NOW + DAY
    assert membership.level == 3
    assert not membership.allows("invite")
    with pytest.raises(IdentityError) as caught:
        enrol_offline(again, peer("guest"), "guest", NOW + 2 * DAY, tokens)
    assert caught.value.reason is Reason.EXPIRED
    with pytest.raises(IdentityError) as caught:
        enrol_offline(invite(), peer("guest"), "guest", NOW, tokens)
    assert caught.value.reason is Reason.NOT_ISSUER


def test_a_joiner_checks_what_it_got() -> None:
    made = invite()
    good = member("guest")
    assert accept_enrolment(made, peer("guest"), good, b"", NOW, NOW + 1).peer == peer("guest")
    by_other = chain(issuer("owner", "second"), link("second", "guest"))
    assert accept_enrolment(made, peer("guest"), by_other, node().issuer_chain, NOW).issuers == (peer("second"),)
    foreign = chain(link("other owner", "guest", mesh=public("other owner")))
    for data, inviter_chain, time, reason in (
        (by_other, b"", 0, Reason.NOT_ISSUER),
        (by_other, chain(issuer("owner", "second")), 0, Reason.NOT_ISSUER),
        (member("other"), b"", 0, Reason.WRONG_AUDIENCE),
        (foreign, b"", 0, Reason.FOREIGN_MESH),
        (good, b"", NOW + DAY, Reason.CLOCK),
        (b"", b"", 0, Reason.MALFORMED),
    ):
        with pytest.raises(IdentityError) as caught:
            accept_enrolment(made, peer("guest"), data, inviter_chain, NOW, time)
        assert caught.value.reason is reason


def test_codes_can_be_drawn() -> None:
    made = invite()
    assert terminal(made).count("\n") > 20
    assert ElementTree.parse(io.StringIO(svg(made))).getroot().tag.endswith("svg")


def test_a_qr_reader_reads_it_back() -> None:
    zxingcpp = pytest.importorskip("zxingcpp")
    numpy = pytest.importorskip("numpy")
    made = invite()
    rows = segno.make_qr(made.text, error="m", mode="alphanumeric", boost_error=False).matrix_iter(scale=4, border=4)
    image = numpy.array([[0 if cell else 255 for cell in row] for row in rows], dtype=numpy.uint8)
    (found,) = zxingcpp.read_barcodes(image)
    assert parse_invite(found.text) == made


def test_renewal_keeps_scopes_and_ends_with_the_issuer() -> None:
    first = node()
    later = NOW + 6 * DAY
    renewed = verify_chain(first.renew(member("guest"), peer("guest"), later, tokens), MESH, peer("guest"), later)
    assert renewed.scopes == ("call:*", "serve")
    assert renewed.name == "guest"
    assert renewed.not_after == later + 7 * DAY
    late = NOW + 364 * DAY
    last = open_chain(first.issue_membership(peer("x"), "x", ("serve",), late, tokens), MESH)
    assert last.not_after == NOW + 365 * DAY
    with pytest.raises(IdentityError) as caught:
        first.renew(member("guest"), peer("guest"), NOW + 8 * DAY, tokens)
    assert caught.value.reason is Reason.EXPIRED
