"""Back-off and redial: the plan with exact times, the dialer on a virtual clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest
import trio
import trio.testing

from transports.dial_plan import GIVE_UP_AFTER, MAX_WANTED, REVISIT_EVERY, BackOff, DialPlan
from transports.dialer import HURRY_TIMEOUT, MAX_HURRIED_DIALS, MAX_PARALLEL_DIALS, Dialer
from transports.errors import PeerUnreachable
from transports.peer_id import PeerId


def peer(number: int) -> PeerId:
    return PeerId.from_public_key(number.to_bytes(32, "big"))


@pytest.mark.parametrize(
    ("failures", "draw", "expected"),
    [(0, 0, 0), (0, 0.5, 0.25), (1, 0, 0.5), (2, 0, 1), (5, 0, 8), (8, 0, 60), (8, 1, 30), (999, 0, 60)],
)
def test_back_off(failures: int, draw: float, expected: float) -> None:
    assert BackOff().delay(failures, draw) == expected


def test_a_plan_dials_waits_and_gives_up() -> None:
    plan = DialPlan()
    plan.want(peer(1), ("/a",), forever=False, connected=False, now=10.0)
    assert plan.begin(10.0, 5) == [(peer(1), ("/a",))]
    assert plan.begin(10.0, 5) == [], "it is being dialled"
    plan.on_failed(peer(1), "refused", 10.0, 0.0)
    plan.end(peer(1))
    assert plan.next_due() == 10.5
    assert plan.begin(10.4, 5) == []
    for failure in range(1, GIVE_UP_AFTER):
        assert plan.states()[peer(1)].failures == failure
        plan.on_failed(peer(1), "refused", 10.0, 0.0)
    assert plan.states() == {}


def test_a_peer_wanted_forever_is_never_given_up() -> None:
    plan = DialPlan()
    plan.want(peer(1), ("/a",), forever=True, connected=False, now=0.0)
    for _ in range(GIVE_UP_AFTER * 2):
        plan.on_failed(peer(1), "refused", 0.0, 0.0)
    assert plan.next_due() == 60.0
    assert plan.states()[peer(1)].last_error == "refused"


def test_a_new_address_is_dialled_at_once() -> None:
    plan = DialPlan()
    plan.want(peer(1), ("/a",), forever=True, connected=False, now=0.0)
    plan.on_failed(peer(1), "refused", 0.0, 0.0)
    plan.want(peer(1), ("/a",), forever=False, connected=False, now=0.1)
    assert plan.next_due() == 0.5, "nothing new was said"
    plan.want(peer(1), ("/b",), forever=False, connected=False, now=0.2)
    assert plan.begin(0.2, 1) == [(peer(1), ("/b", "/a"))]
    assert plan.states()[peer(1)].forever


def test_a_connected_peer_is_not_dialled_and_a_lost_one_soon() -> None:
    plan = DialPlan()
    plan.want(peer(1), ("/a",), forever=True, connected=True, now=0.0)
    assert plan.next_due() is None
    plan.on_lost(peer(1), 5.0, 0.5)
    assert plan.next_due() == 5.25
    plan.on_connected(peer(1), 5.0)
    assert plan.begin(100.0, 1) == []


def test_the_plan_is_bounded() -> None:
    plan = DialPlan()
    assert all(plan.want(peer(n), ("/a",), False, False, 0.0) for n in range(MAX_WANTED))
    assert not plan.want(peer(MAX_WANTED), ("/a",), False, False, 0.0)
    assert plan.want(peer(MAX_WANTED), ("/a",), True, False, 0.0), "bootstrap peers always fit"


def test_a_dial_in_a_hurry_leaves_the_back_off_as_it_was() -> None:
    plan = DialPlan()
    plan.want(peer(1), ("/a",), forever=False, connected=False, now=0.0)
    plan.on_failed(peer(1), "refused", 0.0, 0.0, refused=True)
    plan.hurry(peer(1), ("/b",), 0.1)
    assert plan.begin(100.0, 5) == [], "it is no ordinary dial"
    assert plan.begin_hurried(0.1, 0) == []
    assert plan.begin_hurried(0.1, 5) == [(peer(1), ("/b", "/a"))]
    plan.hurry(peer(1), ("/c",), 0.2)
    assert plan.begin_hurried(0.1, 5) == [], "it is being dialled"
    plan.on_failed(peer(1), "silence", 0.2, 0.0)
    plan.end(peer(1))
    assert plan.begin_hurried(0.1, 5) == []
    state = plan.states()[peer(1)]
    assert (state.failures, state.due, state.last_error) == (1, 0.5, "silence")


def parted(silent: int, answering: int) -> DialPlan:
    """The plan of a node that has lost *silent* of its peers, long ago: the next ordinary dial is a minute away."""
    plan = DialPlan()
    for number in range(silent + answering):
        plan.want(peer(number), ("/a",), forever=True, connected=number >= silent, now=0.0)
    for number in range(silent):
        for _ in range(10):
            plan.on_failed(peer(number), "no answer", 100.0, 0.0)
    return plan


def knocks(plan: DialPlan, until: float) -> list[tuple[float, PeerId]]:
    """Who is dialled out of turn, and when; every dial takes a second and fails."""
    made = []
    now: float | None = 100.0
    while now is not None and now <= until:
        for to, _ in plan.begin_hurried(now, 8):
            made.append((now, to))
            plan.on_failed(to, "no answer", now + 1, 0.0)
            plan.end(to)
        now = plan.next_knock()
    return made


def test_a_node_that_is_cut_off_knocks_in_turn() -> None:
    plan = parted(3, 3)
    assert plan.cut_off
    assert plan.next_due() == 160.0
    assert knocks(plan, 108.0) == [(100.0 + 2 * n, peer(n % 3)) for n in range(5)]
    assert plan.next_due() == 160.0, "the back-off is as it was"


def test_a_lone_peer_is_not_knocked_on_while_it_is_dialled() -> None:
    plan = parted(1, 1)
    assert plan.begin(160.0, 8) == [(peer(0), ("/a",))]
    assert plan.next_knock() is None
    plan.on_failed(peer(0), "no answer", 170.0, 0.0)
    plan.end(peer(0))
    assert plan.next_knock() == 162.0


@pytest.mark.parametrize("why", ["a few", "refused"])
def test_a_node_is_not_cut_off_when_few_are_silent_or_they_answer_with_a_refusal(why: str) -> None:
    plan = parted(2, 3)
    if why == "refused":
        plan = parted(5, 1)
        for number in range(5):
            plan.on_failed(peer(number), "refused", 100.0, 0.0, refused=True)
    assert not plan.cut_off
    assert plan.next_knock() is None
    assert plan.begin_hurried(1000.0, 8) == []


def test_when_one_is_back_the_others_are_dialled_at_once() -> None:
    plan = parted(4, 2)
    plan.on_connected(peer(0), 110.0)
    assert {to for to, _ in plan.begin(110.0, 8)} == {peer(1), peer(2), peer(3)}
    plan = parted(2, 4)
    plan.on_connected(peer(0), 110.0)
    assert plan.begin(110.0, 8) == [], "that was one peer, not the network"


def test_a_peer_that_nobody_wants_is_dialled_once_and_not_kept() -> None:
    plan = DialPlan()
    for outcome in ("failed", "connected", "connected before it began", "wanted meanwhile"):
        plan.hurry(peer(1), ("/a",), 0.0)
        if outcome == "connected before it began":
            plan.on_connected(peer(1), 5.0)
        else:
            assert plan.begin_hurried(0.1, 5) == [(peer(1), ("/a",))]
            if outcome == "failed":
                plan.on_failed(peer(1), "refused", 0.0, 0.0)
            elif outcome == "connected":
                plan.on_connected(peer(1), 5.0)
            else:
                plan.want(peer(1), (), forever=True, connected=False, now=0.0)
            plan.end(peer(1))
        assert plan.begin_hurried(0.1, 5) == []
        assert (peer(1) in plan.states()) == (outcome == "wanted meanwhile")
    for number in range(MAX_WANTED + 1):
        plan.hurry(peer(number), ("/a",), 0.0)
    assert len(plan.states()) == MAX_WANTED


class FakeHost:
    """Connects to those who are up, in one second."""

    def __init__(self, refused: bool = True) -> None:
        self.refused = refused
        self.peer_id = peer(0)
        self.up: set[PeerId] = set()
        self.attempts: list[tuple[float, PeerId]] = []
        self.limits: list[float | None] = []
        self.dialling = self.most = 0
        self._connected: dict[PeerId, None] = {}

    def add_listener(
        self,
        on_connected: Callable[[PeerId], None],
        on_disconnected: Callable[[PeerId], None],
        on_released: Callable[[PeerId], None],
    ) -> None:
        self.on_connected, self.on_disconnected, self.on_released = on_connected, on_disconnected, on_released

    def connections(self) -> Mapping[PeerId, None]:
        return self._connected

    async def connect(self, peer_id: PeerId, addresses: Sequence[str], *, timeout_s: float | None = None) -> None:
        self.attempts.append((trio.current_time(), peer_id))
        self.limits.append(timeout_s)
        self.dialling += 1
        self.most = max(self.most, self.dialling)
        await trio.sleep(1)
        self.dialling -= 1
        if peer_id not in self.up:
            raise PeerUnreachable("it is down", refused=self.refused)
        self._connected[peer_id] = None
        self.on_connected(peer_id)

    def lose(self, peer_id: PeerId, *, released: bool = False) -> None:
        del self._connected[peer_id]
        (self.on_released if released else self.on_disconnected)(peer_id)


async def test_the_dialer_redials_with_growing_waits(autojump_clock: trio.abc.Clock) -> None:
    host = FakeHost()
    dialer = Dialer(host, jitter=lambda: 0.0)
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dialer.run)
        dialer.want(peer(1), ("/a",), forever=True)
        await trio.sleep(8)
        assert [at - start for at, _ in host.attempts] == pytest.approx([0, 1.5, 3.5, 6.5])
        host.up.add(peer(1))
        await trio.sleep(10)
        assert dialer.statistics()[peer(1)].connected
        count = len(host.attempts)
        await trio.sleep(1000)
        assert len(host.attempts) == count
        host.lose(peer(1))
        await trio.sleep(1.1)
        assert dialer.statistics()[peer(1)].connected
        dialer.forget(peer(1))
        host.lose(peer(1))
        await trio.sleep(100)
        assert len(host.attempts) == count + 1
        nursery.cancel_scope.cancel()


async def test_parallel_dials_are_bounded(autojump_clock: trio.abc.Clock) -> None:
    host = FakeHost()
    dialer = Dialer(host, jitter=lambda: 0.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dialer.run)
        for number in range(1, 41):
            dialer.want(peer(number), ("/a",), forever=True)
        host.up = {peer(number) for number in range(1, 41)}
        await trio.sleep(6)
        assert host.most == MAX_PARALLEL_DIALS
        assert len(host.connections()) == 40
        nursery.cancel_scope.cancel()


async def test_a_node_does_not_dial_itself(autojump_clock: trio.abc.Clock) -> None:
    host = FakeHost()
    dialer = Dialer(host, jitter=lambda: 0.0)
    dialer.want(host.peer_id, ("/a",), forever=True)
    assert dialer.statistics() == {}


async def test_a_dial_in_a_hurry_waits_for_nobody_and_its_failure_is_told(autojump_clock: trio.abc.Clock) -> None:
    host = FakeHost()
    told: list[tuple[float, PeerId, bool]] = []
    dialer = Dialer(
        host, lambda: 0.0, on_failed=lambda to, error: told.append((trio.current_time(), to, error.refused))
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dialer.run)
        for number in range(1, MAX_PARALLEL_DIALS + 1):
            dialer.want(peer(number), ("/a",), forever=True)
        await trio.testing.wait_all_tasks_blocked()
        assert host.limits == [None] * MAX_PARALLEL_DIALS
        start = trio.current_time()
        for number in range(100, 100 + 2 * MAX_HURRIED_DIALS):
            dialer.hurry(peer(number), ("/b",))
        dialer.hurry(peer(1), ("/b",))  # being dialled already
        dialer.hurry(host.peer_id, ("/b",))
        await trio.sleep(1.4)
        made = zip(host.attempts, host.limits, strict=True)
        hurried = [(round(at - start, 3), to) for (at, to), limit in made if limit]
        assert sorted(hurried) == [(n // MAX_HURRIED_DIALS, peer(100 + n)) for n in range(2 * MAX_HURRIED_DIALS)]
        assert set(host.limits) == {None, HURRY_TIMEOUT}
        assert len(told) == MAX_PARALLEL_DIALS + MAX_HURRIED_DIALS
        assert all(refused for _, _, refused in told)
        await trio.sleep(2)
        assert set(dialer.statistics()) == {peer(n) for n in range(1, MAX_PARALLEL_DIALS + 1)}
        nursery.cancel_scope.cancel()


async def test_who_lets_go_of_us_is_left_in_peace_until_it_is_needed(autojump_clock: trio.abc.Clock) -> None:
    host = FakeHost()
    host.up = {peer(1), peer(2), peer(3)}
    dialer = Dialer(host, jitter=lambda: 0.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dialer.run)
        dialer.want(peer(1), ("/a",), forever=True)
        dialer.want(peer(2), ("/b",), forever=True)
        dialer.want(peer(3), ("/c",), forever=False)
        await trio.sleep(2)
        host.lose(peer(1), released=True)
        host.lose(peer(3), released=True)
        released = trio.current_time()
        assert dialer.beginning == 0
        await trio.sleep(REVISIT_EVERY - 1)
        assert len(host.attempts) == 3
        await trio.sleep(2.5)
        assert [(at - released, to) for at, to in host.attempts[3:]] == [(REVISIT_EVERY, peer(1))]
        assert set(dialer.statistics()) == {peer(1), peer(2)}
        host.lose(peer(1), released=True)
        host.lose(peer(2), released=True)  # nobody is left: both are dialled at once
        await trio.sleep(1.5)
        assert set(host.connections()) == {peer(1), peer(2)}
        nursery.cancel_scope.cancel()


async def test_whoever_hears_of_the_loss_first_may_hurry(autojump_clock: trio.abc.Clock) -> None:
    host = FakeHost()
    host.up.add(peer(1))
    dialer = Dialer(host, jitter=lambda: 0.9)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dialer.run)
        dialer.want(peer(1), ("/a",), forever=True)
        await trio.sleep(2)
        del host._connected[peer(1)]
        lost = trio.current_time()
        dialer.hurry(peer(1), ())  # by a listener that is told before the dialer is
        host.on_disconnected(peer(1))
        await trio.sleep(5)
        assert [round(at - lost, 3) for at, _ in host.attempts[1:]] == [0.0]
        assert host.limits[1:] == [HURRY_TIMEOUT]
        assert dialer.statistics()[peer(1)].connected
        nursery.cancel_scope.cancel()


async def test_a_connected_peer_is_not_dialled_in_a_hurry(autojump_clock: trio.abc.Clock) -> None:
    host = FakeHost()
    host.up.add(peer(1))
    dialer = Dialer(host, jitter=lambda: 0.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dialer.run)
        dialer.hurry(peer(1), ("/a",))
        await trio.sleep(2)
        assert peer(1) in host.connections()
        dialer.hurry(peer(1), ("/a",))
        await trio.sleep(2)
        assert len(host.attempts) == 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("parted_for", [60, 3600])
async def test_a_parted_network_is_whole_again_soon(parted_for: float, autojump_clock: trio.abc.Clock) -> None:
    """Six peers that were silent for so long: all are connected within seconds of their return."""
    host = FakeHost(refused=False)
    dialer = Dialer(host, jitter=lambda: 0.5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dialer.run)
        for number in range(1, 7):
            dialer.want(peer(number), ("/a",), forever=True)
        await trio.sleep(parted_for)
        per_second = len(host.attempts) / parted_for
        assert per_second < 1.5, "it costs little"
        host.up = {peer(number) for number in range(1, 7)}
        healed = trio.current_time()
        while len(host.connections()) < 6:  # noqa: ASYNC110 - virtual time
            await trio.sleep(0.1)
        assert trio.current_time() - healed < 4.5
        nursery.cancel_scope.cancel()
