"""Each test's docstring is the rule it proves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmosphere.work.breaker import FAILURES, FIRST_PAUSE_S, MAX_PAUSE_S, PROBE_S, Breaker, Circuit


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    breaker.bad(now, "boot 1", certain=True)
    return breaker


def test_a_certain_failure_opens_it_at_once() -> None:
    breaker = opened()
    assert breaker.state is Circuit.OPEN
    assert breaker.wait_s(0.25, "boot 1") == pytest.approx(FIRST_PAUSE_S - 0.25)


def test_errors_of_a_backend_open_it_only_in_a_row() -> None:
    breaker = Breaker()
    for _ in range(FAILURES - 1):
        breaker.bad(0.0, certain=False)
    breaker.good()
    for _ in range(FAILURES - 1):
        breaker.bad(0.0, certain=False)
        assert breaker.wait_s(0.0) == 0
    breaker.bad(0.0, certain=False)
    assert breaker.state is Circuit.OPEN


def test_half_open_lets_one_probe_pass_and_its_answer_decides() -> None:
    breaker = opened()
    assert breaker.wait_s(FIRST_PAUSE_S, "boot 1") == 0
    breaker.begin(FIRST_PAUSE_S)
    assert breaker.state is Circuit.HALF_OPEN
    assert breaker.wait_s(FIRST_PAUSE_S + 0.1, "boot 1") > 0  # for everybody else
    breaker.good()
    assert breaker.state is Circuit.CLOSED
    assert breaker.wait_s(FIRST_PAUSE_S + 0.1, "boot 1") == 0


def test_pauses_double_up_to_the_longest_and_begin_anew_after_a_good_answer() -> None:
    breaker, now, pauses = opened(), 0.0, []
    for _ in range(7):
        pauses.append(breaker.wait_s(now, "boot 1"))
        now += pauses[-1]
        breaker.begin(now)
        breaker.bad(now, "boot 1", certain=False)
    assert pauses == [1, 2, 4, 8, MAX_PAUSE_S, MAX_PAUSE_S, MAX_PAUSE_S]
    breaker.begin(now)
    breaker.good()
    breaker.bad(now, "boot 1", certain=True)
    assert breaker.wait_s(now, "boot 1") == FIRST_PAUSE_S


def test_a_probe_that_says_nothing_leaves_room_for_the_next() -> None:
    breaker = opened()
    breaker.begin(1.0)
    breaker.void(1.5)
    assert breaker.state is Circuit.OPEN
    assert breaker.wait_s(1.5, "boot 1") == 0


def test_a_probe_that_is_never_heard_of_holds_nobody_back_for_long() -> None:
    breaker = opened()
    breaker.begin(1.0)
    assert breaker.wait_s(1.0 + PROBE_S, "boot 1") == 0


def test_news_of_the_node_are_a_reason_to_ask_at_once() -> None:
    breaker = opened()
    assert breaker.wait_s(0.1, "boot 2") == 0
    breaker.begin(0.1)
    breaker.bad(0.1, "boot 2", certain=True)
    assert breaker.wait_s(0.2, "boot 2") > 0


def test_calls_that_were_under_way_when_it_opened_do_not_prolong_the_pause() -> None:
    breaker = opened()
    for _ in range(20):
        breaker.bad(0.5, "boot 1", certain=True)
    assert breaker.wait_s(FIRST_PAUSE_S, "boot 1") == 0


@given(st.lists(st.tuples(st.sampled_from(["begin", "good", "bad", "certain", "void"]), st.floats(0, 5)), max_size=60))
def test_it_never_stays_shut_longer_than_its_bounds(steps: list[tuple[str, float]]) -> None:
    breaker, now = Breaker(), 0.0
    for step, pause in steps:
        now += pause
        if step == "begin" and not breaker.wait_s(now):
            breaker.begin(now)
        elif step == "good":
            breaker.good()
        elif step == "void":
            breaker.void(now)
        elif step != "begin":
            breaker.bad(now, certain=step == "certain")
        assert 0 <= breaker.wait_s(now) <= max(MAX_PAUSE_S, PROBE_S) + 1e-6
