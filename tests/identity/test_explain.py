"""``explain_chain`` says each thing that was checked, and never comes to another verdict than ``verify_chain``."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmosphere.identity import IdentityError, Reason, RevocationSet, Target, explain_chain, revoke, verify_chain
from tests.identity.keys import DAY, MESH, NOW, chain, deep, issuer, key, link, member, public
from tests.identity.test_chain import HOSTILE


def test_a_good_chain_passes_every_check() -> None:
    checks = explain_chain(deep(), MESH, NOW)
    assert all(check.ok for check in checks)
    assert [check.what for check in checks] == [
        "form", "link 1, signature", "link 2, signature", "link 2, within link 1", "link 3, signature",
        "link 3, within link 2", "kind", "time", "revocation",
    ]
    assert all(check.detail for check in checks)
    assert all(check.reason is None for check in checks)


def test_ends_with_what_failed_and_its_reason() -> None:
    revoked = RevocationSet(MESH)
    revoked.add(revoke(Target.ISSUER, public("issuer"), key("owner"), MESH, NOW), NOW)
    for data, now, what, reason in (
        (b"junk", NOW, "form", Reason.MALFORMED),
        (chain(issuer("owner", "issuer"), link("thief", "member")), NOW, "link 2, signature", Reason.FORGED),
        (chain(issuer("owner", "issuer", ("serve",)), link("issuer", "member")), NOW, "link 2, within link 1",
         Reason.WIDENED_SCOPE),
        (chain(issuer("owner", "issuer")), NOW, "kind", Reason.NOT_MEMBERSHIP),
        (member(), NOW - DAY, "time", Reason.NOT_YET_VALID),
        (member(), NOW + 8 * DAY, "time", Reason.EXPIRED),
        (member(), NOW, "revocation", Reason.REVOKED),
    ):
        *before, last = explain_chain(data, MESH, now, revoked)
        assert (last.what, last.ok, last.reason) == (what, False, reason)
        assert all(check.ok for check in before)


@pytest.mark.parametrize("case", HOSTILE)
def test_the_same_verdict_as_verify_chain_on_hostile_chains(case: str) -> None:
    data, reason = HOSTILE[case]
    last = explain_chain(data, MESH, NOW)[-1]
    if reason is Reason.WRONG_AUDIENCE:  # who shows it is not in the chain
        assert last.ok
    else:
        assert (last.ok, last.reason) == (False, reason)


@given(st.integers(0, len(deep()) - 1), st.integers(0, 255), st.integers(-DAY, 400 * DAY))
def test_the_same_verdict_as_verify_chain_on_changed_ones(position: int, change: int, later: int) -> None:
    data = bytearray(deep())
    data[position] ^= change
    last = explain_chain(bytes(data), MESH, NOW + later)[-1]
    assert (last.ok, last.reason) == verdict(bytes(data), NOW + later)


def verdict(data: bytes, now: float) -> tuple[bool, Reason | None]:
    try:
        verify_chain(data, MESH, None, now)
    except IdentityError as error:
        return False, error.reason
    return True, None
