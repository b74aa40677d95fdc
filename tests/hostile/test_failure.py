"""Who floods a witness, and the honest at the doors of tests/hostile/cases_failure.py."""

from __future__ import annotations

import pytest
import trio

from atmosphere.mesh.detector import Suspect
from atmosphere.mesh.detector_beliefs import MAX_SUSPICIONS
from atmosphere.mesh.intake import Taken
from protocols.framing import encode_frame
from protocols.probe.messages import ProbeOutcome
from protocols.probe.server import BURST, ProbeServer
from tests.hostile.cases_failure import FLOOD, NEWS, probed, question, suspected, suspicion_by, watch
from tests.hostile.house import House, conversation
from tests.identity.keys import NOW, peer
from transports.peer_id import PeerId

HONEST = {
    "it does not answer": NEWS,
    "connections are refused": suspicion_by("alice", refused=True),
    "a clock that is slow": suspicion_by("alice", issued_at_ms=(NOW - 299) * 1000),
    "a clock that is fast": suspicion_by("alice", issued_at_ms=(NOW + 299) * 1000),
}


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_suspicion_is_heard_and_one_alone_decides_nothing(name: str) -> None:
    house = House()
    assert suspected(house, HONEST[name], "alice") == ("new", "")
    assert house.state() == house.before


def test_a_suspicion_of_this_node_is_refuted_once_a_second() -> None:
    house = House()
    door = watch(house)
    order = (3, 99)
    door.detector.proof(house.table.me, (3, 1), house.env.monotonic())
    for number in range(50):
        about_me = suspicion_by("alice", subject=house.table.me, epoch=order[0], sequence=order[1] + number)
        assert door.hear(about_me, peer("alice")) is not Taken.BAD
    assert house.told.count("refuted") == 1


def test_a_flood_of_suspicions_takes_nobody_out_and_little_memory() -> None:
    house = House()
    door = watch(house)
    for number in range(3 * MAX_SUSPICIONS):
        subject = PeerId.from_public_key(number.to_bytes(32, "big"))
        door.hear(suspicion_by("alice", subject=subject), peer("alice"))
    assert house.state() == house.before
    assert door.detector.statistics().suspicions <= MAX_SUSPICIONS


def test_who_a_full_table_has_dropped_may_be_suspected() -> None:
    house = House()
    door = watch(house)
    house.table.forget(peer("member"))
    door._act([Suspect(peer("member"), "others hear nothing of it")])
    assert peer("member") not in house.table.nodes


async def test_an_honest_question_is_answered(autojump_clock: trio.abc.Clock) -> None:
    house = House()
    assert await probed(house, encode_frame(question())) == ("answered", "1 answers")
    assert house.told[-1] == peer("alice")


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
