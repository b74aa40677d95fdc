"""A shared mapping is to each of its nodes what a dict would be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.shared import Shared

keys = st.integers(0, 9)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), keys),
        st.tuples(st.just("pop"), keys),
        st.tuples(st.just("to the end"), keys),
        st.tuples(st.just("first out"), keys),
        st.tuples(st.just("clear"), st.just(0)),
    ),
    max_size=30,
)


def change(mapping: dict[int, str] | Shared[int, str], step: tuple[str, int], number: int) -> object:
    what, key = step
    match what:
        case "set":
            mapping[key] = str(number)
        case "pop":
            return mapping.pop(key, None)
        case "to the end":
            if key in mapping:
                mapping[key] = mapping.pop(key)
        case "first out":
            first = next(iter(mapping), None)
            return None if first is None else mapping.pop(first)
        case "clear":
            mapping.clear()
    return None


@given(st.lists(keys, max_size=6, unique=True), steps)
def test_it_is_what_a_dict_would_be_in_the_same_order(begin: list[int], changes: list[tuple[str, int]]) -> None:
    base = {key: f"base {key}" for key in begin}
    before = dict(base)
    own, other, plain = Shared(base), Shared(base), dict(base)
    for number, step in enumerate(changes):
        assert change(own, step, number) == change(plain, step, number)
        assert list(own.items()) == list(plain.items())
        assert list(own.values()) == list(plain.values())
        assert list(own) == list(plain)
        assert len(own) == len(plain)
        assert [own.get(key, "no") for key in range(10)] == [plain.get(key, "no") for key in range(10)]
        assert [key in own for key in range(10)] == [key in plain for key in range(10)]
    assert base == before == dict(other)


def test_what_is_not_there_is_a_key_error() -> None:
    shared = Shared({1: "a"})
    del shared[1]
    for key in (1, 2):
        with pytest.raises(KeyError):
            shared[key]
        with pytest.raises(KeyError):
            del shared[key]
    assert shared != {1: "a"}
