"""How many round trips agreeing on security and muxer takes: one each."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from libp2p.abc import IMultiselectCommunicator
from libp2p.custom_types import TProtocol
from libp2p.protocol_muxer.exceptions import MultiselectClientError
from libp2p.protocol_muxer.multiselect_client import MULTISELECT_PROTOCOL_ID as HEADER
from libp2p.protocol_muxer.multiselect_client import MultiselectClient

from transports.libp2p.upgrader import OneFlightClient


class Peer(IMultiselectCommunicator):
    """Answers as a peer that speaks *spoken*; counts how often somebody waited for it."""

    def __init__(self, spoken: Sequence[str]) -> None:
        self._spoken = (HEADER, *spoken)
        self._answers: list[str] = []
        self.flights = 0
        self._waited = True
        self.heard: list[str] = []

    async def write(self, msg_str: str) -> None:
        self.heard.append(msg_str)
        self._answers.append(msg_str if msg_str in self._spoken else "na")
        self.flights += self._waited
        self._waited = False

    async def read(self) -> str:
        self._waited = True
        return self._answers.pop(0)


def protocols(*names: str) -> list[TProtocol]:
    return [TProtocol(name) for name in names]


@pytest.mark.parametrize(("client", "first", "second"), [(OneFlightClient(), 1, 2), (MultiselectClient(), 2, 3)])
async def test_the_first_proposal_leaves_with_the_header(client: MultiselectClient, first: int, second: int) -> None:
    """The library waits for the other's header before it proposes."""
    peer = Peer(["/noise"])
    assert await client.select_one_of(protocols("/noise", "/tls"), peer) == "/noise"
    assert (peer.heard, peer.flights) == ([HEADER, "/noise"], first)
    peer = Peer(["/tls"])
    assert await client.select_one_of(protocols("/noise", "/tls"), peer) == "/tls"
    assert (peer.heard, peer.flights) == ([HEADER, "/noise", "/tls"], second)


async def test_a_peer_that_speaks_none_of_them() -> None:
    with pytest.raises(MultiselectClientError):
        await OneFlightClient().select_one_of(protocols("/noise", "/tls"), Peer(["/plaintext/2.0.0"]))
