"""Text of others on the owner's terminal: labels, reasons, answers may say anything, but not steer it.

A node's label or a model's answer is chosen by whoever runs that node; with escape sequences in it, it could clear the
screen, rewrite lines above, set the window's title or, in some terminals, type for the owner.
"""

from __future__ import annotations

import re

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# C0 without tab and line feed, DEL, C1, lone surrogates, and the marks that turn the direction of what follows.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_C1 = re.compile("[\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """*text* with every character that steers a terminal replaced; line feeds and tabs stay."""
    return _STEERING.sub(REPLACEMENT, text)


def one_line(text: str) -> str:
    """As :func:`plain`, and no line feeds: a log's line is one statement, and nobody else can begin one."""
    return plain(text).replace("\n", " ")


def plain_json(text: str) -> str:
    """JSON *text* with the characters written as escapes that JSON itself lets through: the same document."""
    return _C1.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
