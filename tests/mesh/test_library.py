"""Records by content: bounded by number and by bytes."""

from __future__ import annotations

import pytest

from atmosphere.mesh import library
from atmosphere.mesh.library import Library
from protocols.sync.messages import Key, Kind


def key(number: int, kind: Kind = Kind.CARD) -> Key:
    return Key(kind, number.to_bytes(32, "big"))


def test_records_come_back_in_the_order_of_the_keys() -> None:
    shelf = Library()
    for number in range(3):
        shelf.put(key(number), bytes([number]))
    assert [record.body for record in shelf.records([key(2), key(9), key(0)])] == [b"\x02", b"\x00"]


def test_the_least_recently_used_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(library.CAPACITY, Kind.CARD, 2)
    shelf = Library()
    shelf.put(key(1), b"1")
    shelf.put(key(2), b"2")
    shelf.get(key(1))
    shelf.put(key(3), b"3")
    assert key(1) in shelf
    assert key(2) not in shelf


def test_the_least_recently_used_goes_first_where_bytes_are_scarce(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "MAX_BYTES", 100)
    shelf = Library()
    for number in range(3):
        shelf.put(key(number), bytes(30))
    shelf.get(key(0))
    shelf.put(key(3), bytes(30))
    assert key(0) in shelf
    assert key(1) not in shelf


def test_bytes_are_counted_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "MAX_BYTES", 100)
    shelf = Library()
    for number in range(50):
        shelf.put(key(number), bytes(30))
        shelf.put(key(number), bytes(30))  # the same again costs nothing
    assert shelf.size <= 100
    for number in range(50):
        shelf.drop(key(number))
    assert shelf.size == 0
