"""What stands in for the world around a simulated node: its backend, and the papers that make it a member.

Everything else of it is the production code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from nacl.signing import SigningKey

from atmosphere.capabilities.backend import Backend, Emit, Provision, ToolCall
from atmosphere.capabilities.card import Card, Tool
from atmosphere.identity import Identity
from atmosphere.identity.identity import ISSUER_S, MEMBERSHIP_S, issue_link
from atmosphere.identity.link import Kind
from atmosphere.identity.scopes import ALL, MEMBER
from transports.peer_id import PeerId

MESH_NAME = "simulated"
CALLS_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Work:
    """What can be asked of every simulated node."""

    type: str = "tool/work"
    tool: str = "do"


WORK = Work()


class Worker(Backend):
    """Offers cards and answers at once with the arguments it was given."""

    name = "simulated worker"

    def __init__(self, cards: Sequence[Card]) -> None:
        self.cards = list(cards)

    async def discover(self) -> Sequence[Provision]:
        return [Provision(card, CALLS_AT_ONCE) for card in self.cards]

    async def invoke(self, card: Card, call: ToolCall, emit: Emit) -> bytes:
        return call.args or b"{}"


def card_about(subject: str) -> Card:
    """A card that nobody has until somebody offers it."""
    return Card(
        type=WORK.type,
        description=f"Does the work called {subject}",
        examples=(f"Please do {subject}",),
        topics=(subject,),
        tools=(Tool(WORK.tool, "Does it", '{"type":"object","properties":{}}'),),
    )


def identities(
    owner: bytes, keys: Sequence[bytes], names: Sequence[str], now: float, token_bytes: Callable[[int], bytes]
) -> Iterator[Identity]:
    """Members of one mesh, each with a key of *keys*; the first one is its issuer, as after `init` and `invite`.

    *owner*, *keys*: seeds of 32 bytes.
    """
    owner_key, first = SigningKey(owner), SigningKey(keys[0])
    mesh = owner_key.verify_key.encode()
    issuer = issue_link(owner_key, b"", Kind.ISSUER, _peer(keys[0]), (ALL,), "", mesh, now, ISSUER_S, token_bytes)
    for seed, name in zip(keys, names, strict=True):
        scopes = (ALL,) if seed == keys[0] else MEMBER
        chain = issue_link(
            first, issuer, Kind.MEMBERSHIP, _peer(seed), scopes, name, mesh, now, MEMBERSHIP_S, token_bytes
        )
        yield Identity.load(seed, mesh, MESH_NAME, chain, issuer if seed == keys[0] else b"")


def _peer(seed: bytes) -> PeerId:
    return PeerId.from_public_key(SigningKey(seed).verify_key.encode())
