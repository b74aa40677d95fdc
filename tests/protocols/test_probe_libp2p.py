"""Probe over real hosts: a witness pings the subject, and says what its own dial met when that is gone."""

from __future__ import annotations

import pytest
import trio

from protocols.probe.client import ask
from protocols.probe.messages import PROTOCOL, ProbeError, ProbeOutcome
from protocols.probe.server import ProbeServer
from tests.transports.support import CONFIG, connect, eventually, hosts, seed
from transports.errors import PeerUnreachable
from transports.host import Host, open_host
from transports.peer_id import PeerId
from transports.stream import StreamClosed


def witness(host: Host) -> ProbeServer:
    """As a node does it: ping what is connected, dial what is not and whose address is known."""

    async def check(subject: PeerId) -> ProbeOutcome:
        try:
            if subject not in host.connections():
                await host.connect(subject, ())
            await host.ping(subject)
        except PeerUnreachable as error:
            return ProbeOutcome.REFUSED if error.refused else ProbeOutcome.UNKNOWN
        return ProbeOutcome.ALIVE

    server = ProbeServer(check)
    host.handle(PROTOCOL, server.serve)
    return server


async def test_a_witness_sees_life_and_death() -> None:
    async with hosts(2) as (asker, via):
        witness(via)
        await connect(asker, via)
        stream = await asker.open_stream(via.peer_id, PROTOCOL)
        async with open_host(CONFIG, seed(9)) as subject:
            assert await ask(stream, subject.peer_id, 2.0) is ProbeOutcome.UNKNOWN, "never heard of"
            await connect(via, subject)
            assert await ask(stream, subject.peer_id, 2.0) is ProbeOutcome.ALIVE
        await eventually(lambda: subject.peer_id not in via.connections())
        assert await ask(stream, subject.peer_id, 2.0) is ProbeOutcome.REFUSED
        await stream.close()
        await eventually(lambda: not asker.statistics().streams)


async def test_a_stranger_gets_no_answer() -> None:
    async with hosts(2, admitted=False) as (asker, via):
        witness(via)
        await connect(asker, via)
        asker.admit(via.peer_id)
        with pytest.raises((PeerUnreachable, ProbeError, StreamClosed)), trio.fail_after(5):
            await ask(await asker.open_stream(via.peer_id, PROTOCOL), via.peer_id, 1.0)
