"""Whose dials a NAT lets in. Pure.

A host behind a NAT dials out as it likes. A dial to it gets no answer unless the rules below let it in. The NAT keeps
the port (so the address that the host listens on is the one that others see, as with UPnP or a port that was reused),
and each host has a NAT of its own.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum


class Nat(Enum):
    """Kinds by RFC 3489, which says it shortest; RFC 4787 calls the middle two endpoint-independent mappings."""

    NONE = "none"
    FULL_CONE = "full cone"
    """Lets everybody in while the host talks to anybody outside."""
    RESTRICTED = "restricted"
    """Lets in whom the host has dialled lately, or is connected to."""
    SYMMETRIC = "symmetric"
    """Has another port for each destination, which nobody else can know: lets nobody in."""


MAPPING_S = 120.0
"""Seconds that a NAT remembers a dial without an answer; RFC 5382 asks for 240 for half-open connections, home routers
keep less."""


def lets_in(kind: Nat, source: str, mapped: Collection[str]) -> bool:
    """Whether a dial from the host *source* comes through; *mapped* are the hosts dialled lately or connected now."""
    if kind is Nat.FULL_CONE:
        return bool(mapped)
    if kind is Nat.RESTRICTED:
        return source in mapped
    return kind is Nat.NONE
