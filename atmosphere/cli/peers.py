"""Nodes as people name them: a peer id, the end of one as lists show it, or a name that is theirs alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from atmosphere.cli.home import Failure
from atmosphere.cli.plain import one_line

MIN_END = 6
"""Characters of a peer id's end that name a node; 58^6 is far more than a mesh has nodes."""


@dataclass(frozen=True)
class Named:
    """A peer id in its text form, and what the node calls itself ("" if that is not known here)."""

    peer_id: str
    name: str = ""

    def __str__(self) -> str:
        return one_line(f"{self.name} {self.peer_id}").lstrip()


def named(views: Iterable[dict[str, Any]]) -> list[Named]:
    """From any of the node's lists whose items have ``peer_id`` and ``name``."""
    return [Named(view["peer_id"], view["name"]) for view in views]


def find(text: str, known: Iterable[Named], where: str) -> Named:
    """Who *text* means. A full peer id needs not be known here.

    Names are what nodes say about themselves, so one that two nodes use is nobody's. *where*: the command that lists
    them. Raises :class:`Failure`.
    """
    from transports.peer_id import PeerId

    known = list(dict.fromkeys(known))  # somebody may wait with two invites
    try:
        peer = str(PeerId.parse(text))  # first: a node must not be able to hide another by taking its id as a name
    except ValueError:
        end = text.lstrip("…")
        found = [one for one in known if text == one.name or (len(end) >= MIN_END and one.peer_id.endswith(end))]
    else:
        return next((one for one in known if one.peer_id == peer), Named(peer))
    if not found:
        raise Failure(f"no node {text!r} is known here", f"`atmosphere-p2p {where}` lists names and peer ids")
    if len(found) > 1:
        raise Failure(f"{text!r} means {len(found)} nodes: {', '.join(map(str, found))}", "give the whole peer id")
    return found[0]
