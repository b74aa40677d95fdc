"""Invites that ask first: the owner's answer is what counts, it survives a restart, and the list stays readable."""

from __future__ import annotations

from pathlib import Path

import pytest

from atmosphere.env import FixedEnv
from atmosphere.identity import Approval, Approvals, IdentityError, Invite, Reason, Target, revoke
from atmosphere.identity import approvals as module
from atmosphere.store import Store
from protocols.join.messages import Enrolled, Pending
from tests.identity.keys import DAY, MESH, NOW, key, peer
from tests.identity.test_enrolment import Office, code
from tests.identity.test_invite import ADDRESSES, node, raw


def asking(number: int = 0, uses: int = 1) -> Invite:
    return node().create_invite(
        ADDRESSES[:1], NOW, lambda size: bytes([number]) * size, uses=uses, approval=True
    )


def office(store: Store | None = None) -> tuple[Office, Approvals]:
    store = store or Store.memory(FixedEnv())
    approvals = Approvals(store)
    return Office(store, approvals=approvals), approvals


async def test_pending_until_the_owner_has_answered() -> None:
    desk, approvals = office()
    for _ in range(2):
        reply = await desk.enrol(asking().envelope, "laptop")
        assert reply.outcome == Pending(5000)
    (request,) = approvals.pending()
    assert (request.peer, request.name, request.asked_at, request.state) == (
        peer("laptop"), "laptop", NOW, Approval.PENDING)
    assert await approvals.decide(peer("laptop"), approve=True)
    assert approvals.pending() == []
    assert isinstance((await desk.enrol(asking().envelope, "laptop")).outcome, Enrolled)
    assert isinstance((await desk.enrol(asking().envelope, "laptop")).outcome, Enrolled), "again, and it costs nothing"
    assert code(await desk.enrol(asking().envelope, "thief")) == "used_up"
    assert approvals.pending() == [], "nobody is asked about an invite that is used up"
    assert "2 granted, 1 refused, 2 told to wait" in repr(desk.enrolment)


async def test_a_refusal_is_told_and_may_be_changed() -> None:
    desk, approvals = office()
    await desk.enrol(asking().envelope, "laptop")
    assert await approvals.decide(peer("laptop"), approve=False)
    assert code(await desk.enrol(asking().envelope, "laptop")) == "approval_refused"
    assert await approvals.decide(peer("laptop"), approve=True)
    assert isinstance((await desk.enrol(asking().envelope, "laptop")).outcome, Enrolled)
    assert not await approvals.decide(peer("stranger"), approve=True)


async def test_an_answer_is_for_one_peer_and_one_invite() -> None:
    desk, approvals = office()
    await desk.enrol(asking(uses=5).envelope, "laptop")
    await approvals.decide(peer("laptop"), approve=True)
    assert isinstance((await desk.enrol(asking(uses=5).envelope, "thief")).outcome, Pending)
    assert isinstance((await desk.enrol(asking(1, uses=5).envelope, "laptop")).outcome, Pending)


async def test_answers_and_questions_survive_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path / "db", FixedEnv())
    desk, approvals = office(store)
    for who in ("yes", "no", "open"):
        await desk.enrol(asking(uses=3).envelope, who)
    await approvals.decide(peer("yes"), approve=True)
    await approvals.decide(peer("no"), approve=False)
    store.close()
    store = Store(tmp_path / "db", FixedEnv())
    desk, approvals = office(store)
    assert [request.peer for request in approvals.pending()] == [peer("open")]
    assert isinstance((await desk.enrol(asking(uses=3).envelope, "yes")).outcome, Enrolled)
    assert code(await desk.enrol(asking(uses=3).envelope, "no")) == "approval_refused"
    store.close()


async def test_a_revoked_key_is_not_put_before_the_owner() -> None:
    desk, approvals = office()
    desk.revoked.add(revoke(Target.PEER, peer("bad").public_key, key("owner"), MESH, NOW), NOW)
    assert code(await desk.enrol(asking().envelope, "bad")) == "revoked"
    assert approvals.pending() == []


async def test_without_a_place_to_ask_such_invites_are_refused() -> None:
    assert code(await Office().enrol(asking().envelope, "laptop")) == "forbidden"


async def test_who_was_enrolled_at_another_issuer_is_not_asked_about_again() -> None:
    approvals = Approvals(Store.memory(FixedEnv()))
    desk = Office(approvals=approvals, used_elsewhere=lambda _: frozenset({peer("laptop")}))
    assert isinstance((await desk.enrol(asking().envelope, "laptop")).outcome, Enrolled)
    assert approvals.pending() == []


async def test_an_invite_that_holds_too_long_is_not_asked_about() -> None:
    desk, approvals = office()
    assert code(await desk.enrol(raw(approval=True, expires=NOW + 31 * DAY), "laptop")) == "malformed"
    assert approvals.pending() == []


async def test_a_name_for_people_is_checked_before_it_is_shown() -> None:
    desk, approvals = office()
    assert code(await desk.enrol(asking().envelope, "\x1b[2J")) == "malformed"
    assert approvals.pending() == []


async def test_the_list_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PENDING", 5)
    monkeypatch.setattr(module, "MAX_PENDING_PER_INVITE", 3)
    monkeypatch.setattr(module, "MAX_DECIDED", 2)
    approvals = Approvals(Store.memory(FixedEnv()))
    for number in range(3):
        await approvals.request(asking(), peer(f"a{number}"), "", NOW)
    with pytest.raises(IdentityError) as caught:
        await approvals.request(asking(), peer("one too many with this invite"), "", NOW)
    assert caught.value.reason is Reason.TOO_MANY_REQUESTS
    for number in range(2):
        await approvals.request(asking(1), peer(f"b{number}"), "", NOW)
    with pytest.raises(IdentityError) as caught:
        await approvals.request(asking(1), peer("one too many"), "", NOW)
    assert caught.value.reason is Reason.TOO_MANY_REQUESTS
    assert await approvals.request(asking(), peer("a0"), "", NOW) is Approval.PENDING, "who waits, waits on"
    for number in range(3):
        await approvals.decide(peer(f"a{number}"), approve=False)
    await approvals.request(asking(2), peer("c"), "", NOW)
    assert repr(approvals) == "<Approvals 3 pending of 5>"


async def test_questions_about_ended_invites_are_forgotten() -> None:
    store = Store.memory(FixedEnv())
    approvals = Approvals(store)
    await approvals.request(asking(), peer("old"), "", NOW)
    await approvals.request(asking(), peer("new"), "", NOW + 31 * DAY)
    assert [request.peer for request in approvals.pending()] == [peer("new")]
    assert [request.peer for request in Approvals(store).pending()] == [peer("new")]
