"""One table of attacks against a node's own doors: each is refused with its own code, and leaves nothing behind."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Awaitable, Callable

import pytest
import trio

from atmosphere.mesh.intake import vector_key
from protocols.join.messages import Enrol, encode_request
from protocols.sync.messages import Key, Kind
from tests.hostile.cases import CASES, Case
from tests.hostile.cases_records import VECTOR
from tests.hostile.cases_statements import STRIKE, USED
from tests.hostile.cases_streams import opening
from tests.hostile.house import CARD_ID, INVITE, Answer, House, beacon_by, leave_by
from tests.identity.keys import chain, issuer, member, peer


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_refused_and_nothing_taken_in(case: Case, autojump_clock: trio.abc.Clock) -> None:
    house = House()
    answer = case.attack(house)
    code, text = await answer if inspect.isawaitable(answer) else answer
    assert code == case.code, text
    assert case.words in text
    assert house.state() == house.before


def test_the_table_is_long_enough_and_each_case_stands_once() -> None:
    names = [str(case) for case in CASES]
    assert len(set(names)) == len(names)
    doors = {case.door for case in CASES}
    codes = {case.code for case in CASES}
    print(f"{len(CASES)} hostile cases at {len(doors)} doors, {len(codes)} codes: {', '.join(sorted(codes))}")
    assert len(CASES) > 60
    assert len(codes) > 15


HONEST: dict[str, Callable[[House], Answer | Awaitable[Answer]]] = {
    "greeting": lambda h: h.greeting("guest", member("guest")),
    "membership record": lambda h: h.record(lambda intake: intake.membership(member("guest"), None)),
    "beacon": lambda h: h.record(lambda intake: intake.beacon(beacon_by("alice"), peer("alice"), None)),
    "leave": lambda h: h.record(lambda intake: intake.leave(leave_by("alice"), peer("alice"))),
    "card": lambda h: h.fetched(Key(Kind.CARD, hashlib.sha256(b"\x0a\x03a/b").digest()), b"\x0a\x03a/b"),
    "vector": lambda h: h.fetched(vector_key(CARD_ID, "space:4"), VECTOR.encode()),
    "join": lambda h: h.join("guest", encode_request(Enrol(INVITE.envelope, "guest"))),
    "revocation": lambda h: h.statement(Kind.REVOCATION, STRIKE),
    "redemption": lambda h: h.statement(Kind.REDEMPTION, USED),
    "issuer": lambda h: h.statement(Kind.ISSUER, chain(issuer("owner", "plain"))),
    "call": lambda h: h.call("alice", opening()),
}


@pytest.mark.parametrize("door", HONEST)
async def test_the_same_doors_let_the_honest_in(door: str, autojump_clock: trio.abc.Clock) -> None:
    """Or the table would also pass against a wall."""
    house = House()
    answer = HONEST[door](house)
    code, text = await answer if inspect.isawaitable(answer) else answer
    assert code in {"let in", "new", "enrolled", "taken", "served"}, text
    assert house.state() != house.before
