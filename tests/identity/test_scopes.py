"""Scopes are compared by structure alone."""

from __future__ import annotations

import pytest

from atmosphere.identity import IdentityError, Reason
from atmosphere.identity.scopes import covers, is_subset


@pytest.mark.parametrize(("above", "below", "expected"), [
    ("*", "admin", True), ("*", "*", True), ("call:*", "*", False), ("call", "call:*", True), ("call:*", "call", True),
    ("call:llm/*", "call:llm/chat", True), ("call:llm/chat", "call:llm/chat/generate", True),
    ("call:llm/chat", "call:llm/*", False), ("call:llm/chat", "call:llm/chatty", False), ("call:*", "serve", False),
    ("serve", "serve:llm/chat", True), ("call:llm/chat/generate", "call:llm/chat", False),
])
def test_covers(above: str, below: str, expected: bool) -> None:
    assert covers((above,), below) is expected


@pytest.mark.parametrize("text", ["", "X", "call:", "call:/x", "call:x/", "call:*x", "call:**", "a b", "é", "x" * 65])
def test_what_is_no_scope_is_refused(text: str) -> None:
    with pytest.raises(IdentityError) as caught:
        covers(("*",), text)
    assert caught.value.reason is Reason.MALFORMED


def test_every_one_of_the_narrow_ones_must_be_covered() -> None:
    assert is_subset(("call:a/b", "serve"), ("serve", "call:a"))
    assert not is_subset(("call:a/b", "invite"), ("serve", "call:a"))
