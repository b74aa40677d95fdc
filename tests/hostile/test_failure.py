"""Who floods a witness, and the honest at the doors of tests/hostile/cases_failure.py."""

from __future__ import annotations

import pytest
import trio

from protocols.framing import encode_frame
from protocols.probe.messages import ProbeOutcome
from protocols.probe.server import BURST, ProbeServer
from tests.hostile.cases_failure import FLOOD, NEWS, SUSPICION, probed, question, suspected, suspicion_by
from tests.hostile.house import House, conversation
from tests.identity.keys import NOW
from transports.peer_id import PeerId


def test_an_honest_suspicion_is_heard() -> None:
    assert suspected(NEWS, "member") == ("new", "")
    assert suspected(suspicion_by("member", refused=True), "member") == ("new", "")
    for minutes in (-5, 5):
        assert suspected(suspicion_by("member", issued_at_ms=(NOW + 60 * minutes) * 1000), "member") == ("new", "")


async def test_an_honest_question_is_answered(autojump_clock: trio.abc.Clock) -> None:
    house = House()
    assert await probed(house, encode_frame(question())) == ("answered", "1 answers")
    assert house.told[-1] == SUSPICION.subject


@pytest.mark.parametrize("streams", [1, 8])
async def test_a_flood_of_questions_is_checked_as_often_as_one_peer_may_ask(
    streams: int, autojump_clock: trio.abc.Clock
) -> None:
    checked: list[PeerId] = []

    async def check(subject: PeerId) -> ProbeOutcome:
        checked.append(subject)
        await trio.lowlevel.checkpoint()
        return ProbeOutcome.ALIVE

    server = ProbeServer(check)
    async with trio.open_nursery() as nursery:
        for _ in range(streams):
            nursery.start_soon(conversation, "member", FLOOD, server.serve)
    assert len(checked) == BURST
    await conversation("alice", encode_frame(question()), server.serve)
    assert len(checked) == BURST + 1, "another member is answered all the same"
