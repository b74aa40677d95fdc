"""Why a chain holds or does not, step by step: for people who want to know what was checked. Offline."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from atmosphere.identity.chain import (
    CLOCK_SKEW_S,
    MAX_CHAIN_BYTES,
    MAX_LINKS,
    as_membership,
    chain_parts,
    check_narrows,
    check_use,
    open_chain,
    open_link,
)
from atmosphere.identity.errors import IdentityError, Reason
from atmosphere.identity.link import Link
from atmosphere.identity.revocation import RevocationSet
from transports.peer_id import PeerId

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked, and what came of it."""

    what: str
    ok: bool
    detail: str
    """What was found; cause and next step if it failed."""
    reason: Reason | None = None
    """Why it failed, for programs."""


class _Failed(Exception):
    """The rest rests on what has just failed."""


class _Report:
    def __init__(self) -> None:
        self.checks: list[Check] = []

    def run(self, what: str, check: Callable[[], T], found: Callable[[T], str]) -> T:
        """Note how *check* came out; raises _Failed when it refused."""
        try:
            result = check()
        except IdentityError as error:
            self.checks.append(Check(what, False, str(error), error.reason))
            raise _Failed from error
        self.checks.append(Check(what, True, found(result)))
        return result


def explain_chain(chain: bytes, mesh: bytes, now: float, revocations: RevocationSet | None = None) -> list[Check]:
    """Everything that :func:`verify_chain` checks, in its order, each with its outcome; ends at the first failure.

    The chain is a valid membership of *mesh* at *now* (Unix seconds) if and only if every check is ok. That its bearer
    has the subject's key is not in the chain: a connection proves it. Of revocations only those given are known.
    """
    report = _Report()
    with suppress(_Failed):  # the report says it
        _explain(report, chain, mesh, now, revocations)
    return report.checks


def _explain(report: _Report, chain: bytes, mesh: bytes, now: float, revocations: RevocationSet | None) -> None:
    parts = report.run(
        "form", lambda: chain_parts(chain),
        lambda parts: f"{len(parts)} links (at most {MAX_LINKS}), {len(chain)} bytes (at most {MAX_CHAIN_BYTES})",
    )
    signer, above = PeerId.from_public_key(mesh), None
    for number, part in enumerate(parts, 1):
        link = _explain_link(report, part, signer, mesh, number, above)
        signer, above = link.subject, link
    credential = open_chain(chain, mesh)
    report.run(
        "kind", lambda: as_membership(credential), lambda said: f"a membership of {said.peer}, named {said.name!r}"
    )
    report.run(
        "time", lambda: check_use(credential, None, now),
        lambda _: f"holds for another {credential.not_after - now:.0f} s by this machine's clock, which may be off by "
                  f"{CLOCK_SKEW_S} s",
    )
    known = 0 if revocations is None else len(revocations)
    report.run(
        "revocation", lambda: check_use(credential, None, now, revocations),
        lambda _: f"neither it, its key nor an issuer above it is among the {known} revocations known here",
    )


def _explain_link(
    report: _Report, part: bytes, signer: PeerId, mesh: bytes, number: int, above: Link | None
) -> Link:
    by = "the owner's key, which is the mesh" if above is None else str(signer)
    link = report.run(
        f"link {number}, signature", lambda: open_link(part, signer, mesh, number), lambda _: f"by {by}"
    )
    if above is None:
        return link
    report.run(
        f"link {number}, within link {number - 1}", lambda: check_narrows(link, above, number),
        lambda _: f"its signer may sign a link of kind {link.kind.name.lower()}; scopes {', '.join(link.scopes)} and "
                  "lifetime are no wider",
    )
    return link
