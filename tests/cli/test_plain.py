"""What others say reaches the owner's terminal as text and nothing more."""

from __future__ import annotations

import json
import logging

import pytest

from atmosphere.cli.home import Failure
from atmosphere.cli.logs import OneLine
from atmosphere.cli.options import print_json, print_table
from atmosphere.cli.plain import one_line, plain

HOSTILE = "gpu\x1b[2J\x1b]0;owned\x07\x9b31m\u202etxt.exe\r"


def steers(text: str) -> bool:
    return any(character in text for character in "\x1b\x07\x9b\r\u202e")


def test_text_stays_and_steering_goes() -> None:
    assert plain("Füße 😀\n\tזהב") == "Füße 😀\n\tזהב"
    assert not steers(plain(HOSTILE))
    assert plain(HOSTILE).startswith("gpu")
    assert one_line("a\nb") == "a b"


def test_tables_documents_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("node",), [(HOSTILE,)])
    print_json({"name": HOSTILE})
    written = capsys.readouterr().out
    assert not steers(written)
    assert json.loads(written[written.index("{") :]) == {"name": HOSTILE}, "programs get what was said"
    assert not steers(Failure(f"refused: {HOSTILE}").format_message())


def test_nobody_writes_a_line_of_the_log() -> None:
    forged = "x\n2026 WARNING a: all is well\x1b[A"
    record = logging.LogRecord("a", logging.WARNING, "", 1, "refused: %s", (forged,), None)
    written = OneLine("%(levelname)s %(message)s").format(record)
    assert "\n" not in written
    assert not steers(written)
