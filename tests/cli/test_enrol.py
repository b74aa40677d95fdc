"""What a joiner makes of the inviter's answer."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from atmosphere.cli.enrol import Silent, _run, decision, granted, issuers
from atmosphere.cli.home import Failure
from atmosphere.env import FixedEnv
from atmosphere.identity import Enrolment, Identity, IdentityError, Invite, InviteBook, Keyring, Reason, RevocationSet
from atmosphere.store import Store
from protocols.join.messages import Enrol, Enrolled, Outcome, Pending, Refused, Reply
from tests.cli.conftest import OTHER
from transports.peer_id import PeerId

ADDRESS = "/ip4/192.0.2.7/tcp/4001"


@pytest.fixture
def env() -> FixedEnv:
    return FixedEnv(seed=1)


@pytest.fixture  # async: the clock of FixedEnv is Trio's
async def inviter(tmp_path: Path, env: FixedEnv) -> Identity:
    return Keyring(tmp_path / "inviter").init("inviter", "Home", env.now(), env.token_bytes)


@pytest.fixture
async def invite(inviter: Identity, env: FixedEnv) -> Invite:
    return inviter.create_invite([ADDRESS], env.now(), env.token_bytes)


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path / "joiner")


async def answer(inviter: Identity, invite: Invite, keyring: Keyring, env: FixedEnv) -> Reply:
    """The inviter's honest answer."""
    book = InviteBook(Store.memory(env))
    judge = Enrolment(lambda: inviter, book, RevocationSet(inviter.mesh), env.now, env.token_bytes)
    return await judge.judge(keyring.node_peer_id(env.token_bytes), Enrol(invite.envelope, "joiner"))


async def test_a_grant_becomes_a_membership(inviter: Identity, invite: Invite, keyring: Keyring, env: FixedEnv) -> None:
    mesh_name, chain = granted(invite, keyring, await answer(inviter, invite, keyring, env), env)
    identity = keyring.join(invite.mesh, mesh_name, chain, env.now())
    assert (identity.mesh_id, identity.mesh_name, identity.name) == (inviter.mesh_id, "Home", "joiner")


async def test_a_wrong_clock_is_named(inviter: Identity, invite: Invite, keyring: Keyring, env: FixedEnv) -> None:
    reply = await answer(inviter, invite, keyring, env)
    late = FixedEnv(start=env.start + 3600)
    with pytest.raises(IdentityError, match="clock") as caught:
        granted(invite, keyring, reply, late)
    assert caught.value.reason is Reason.CLOCK


async def test_a_refusal_keeps_its_words(inviter: Identity, invite: Invite, keyring: Keyring, env: FixedEnv) -> None:
    expired = FixedEnv(seed=2, start=env.start + 7200)
    reply = await answer(inviter, invite, keyring, expired)
    assert isinstance(reply.outcome, Refused)
    with pytest.raises(Failure, match="expired"):
        granted(invite, keyring, reply, expired)


class Issuer:
    """Gives *answers* one after the other: an outcome, or silence. Counts who asked and when."""

    def __init__(self, *answers: Outcome | None) -> None:
        self.answers = list(answers)
        self.asked_at: list[float] = []

    async def ask(self, request: Enrol) -> Reply:
        self.asked_at.append(trio.current_time())
        outcome = self.answers.pop(0)
        if outcome is None:
            raise Silent("cannot reach the inviter")
        return Reply(outcome, 0)


YES = Enrolled(b"chain", "Home")


async def test_pending_is_asked_again_when_it_says(autojump_clock: trio.testing.MockClock) -> None:
    issuer, said = Issuer(Pending(5000), Pending(10), Pending(10_000_000), YES), []
    began = trio.current_time()
    reply = await decision(issuer.ask, Enrol(b"invite", "joiner"), lambda _: said.append(trio.current_time()))
    assert reply.outcome == YES
    assert said == [began], "told once, before the wait"
    assert [at - began for at in issuer.asked_at] == [0, 5, 6, 66], "never hurried, never longer than a minute"


async def test_an_issuer_that_is_off_for_a_moment_does_not_end_the_wait(
    autojump_clock: trio.testing.MockClock
) -> None:
    issuer = Issuer(Pending(1000), None, None, Refused("approval_refused", "the owner said no"))
    reply = await decision(issuer.ask, Enrol(b"invite", "joiner"), lambda _: None)
    assert reply.outcome == Refused("approval_refused", "the owner said no")


async def test_an_issuer_that_is_busy_is_asked_again_and_that_is_said(autojump_clock: trio.testing.MockClock) -> None:
    busy, said = Refused("rate_limited", "too many requests", 7000), []
    issuer, began = Issuer(busy, Pending(1000), busy, YES), trio.current_time()
    assert (await decision(issuer.ask, Enrol(b"invite", "joiner"), said.append)).outcome == YES
    assert said == [busy, Pending(1000)]
    assert [at - began for at in issuer.asked_at] == [0, 7, 8, 15]


async def test_an_issuer_that_does_not_say_when_is_not_pressed(autojump_clock: trio.testing.MockClock) -> None:
    issuer, began = Issuer(Refused("rate_limited", "too many requests"), Pending(0), YES), trio.current_time()
    assert (await decision(issuer.ask, Enrol(b"invite", "joiner"), lambda _: None)).outcome == YES
    assert [at - began for at in issuer.asked_at] == [0, 5, 10]


async def test_silence_at_the_first_question_is_a_failure(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(Silent):
        await decision(Issuer(None).ask, Enrol(b"invite", "joiner"), lambda _: pytest.fail("nobody is waiting"))


async def test_the_inviter_is_asked_before_the_others(invite: Invite) -> None:
    other = f"/ip4/192.0.2.8/tcp/4001/p2p/{OTHER}"
    assert list(issuers(invite, [other]).items()) == [
        (invite.inviter, [ADDRESS]), (PeerId.parse(OTHER), ["/ip4/192.0.2.8/tcp/4001"])]


async def test_a_membership_for_somebody_else_is_refused(
    inviter: Identity, invite: Invite, keyring: Keyring, tmp_path: Path, env: FixedEnv
) -> None:
    reply = await answer(inviter, invite, Keyring(tmp_path / "thief"), env)
    with pytest.raises(IdentityError) as caught:
        granted(invite, keyring, reply, env)
    assert caught.value.reason is Reason.WRONG_AUDIENCE


@pytest.mark.parametrize(("raised", "comes_out"), [(KeyboardInterrupt(), KeyboardInterrupt),
                                                   (OSError("disk"), ExceptionGroup)])
def test_ctrl_c_in_any_task_is_one_ctrl_c(raised: BaseException, comes_out: type[BaseException]) -> None:
    async def conversation() -> Reply:
        async def fail() -> None:
            raise raised

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
        return Reply(YES, 0)

    with pytest.raises(comes_out):
        _run(conversation)
