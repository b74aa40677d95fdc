"""What reaches standard error."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from atmosphere.cli.logs import Once, OnlyOurs


def record(
    name: str, text: str, path: str = "/x/atmosphere/node.py", level: int = logging.WARNING
) -> logging.LogRecord:
    return logging.LogRecord(name, level, path, 1, text, None, None)


@pytest.mark.parametrize(("name", "path", "level", "shown"), [
    ("atmosphere.mesh", "/x/atmosphere/mesh/service.py", logging.WARNING, True),
    ("libp2p.network", "/site/libp2p/network/swarm.py", logging.ERROR, False),
    ("root", "/site/libp2p/network/swarm.py", logging.WARNING, False),
    ("transports.libp2p.swarm", "/x/transports/libp2p/swarm.py", logging.WARNING, True),
    ("hypercorn.error", "/site/hypercorn/config.py", logging.INFO, False),
    ("atmosphere.http", "/site/quart/app.py", logging.ERROR, True),
    ("atmosphere.http.server", "/site/hypercorn/logging.py", logging.ERROR, True),
])
def test_libraries_are_quiet_and_we_are_not(name: str, path: str, level: int, shown: bool) -> None:
    assert OnlyOurs().filter(record(name, "x", path, level)) is shown


def test_the_same_words_come_once() -> None:
    once = Once()
    heard = [once.filter(record("atmosphere.x", text)) for text in ("a", "a", "b", "a")]
    assert heard == [True, False, True, False]


def test_two_errors_in_one_place_are_two() -> None:
    once, heard = Once(), []
    for error in (ValueError("a"), ValueError("a"), ValueError("b")):
        told = record("atmosphere.x", "Exception on request POST /v1/plans")
        told.exc_info = (type(error), error, None)
        heard.append(once.filter(told))
    assert heard == [True, False, True]


@pytest.mark.parametrize(("level", "lines"), [("warning", ["ours"]), ("debug", ["ours", "theirs", "theirs"])])
def test_a_process_says_only_its_own_warnings(level: str, lines: list[str]) -> None:
    """Also of a library that has cut its logger off from the root, as libp2p does."""
    code = (
        "import logging\n"
        "from atmosphere.cli.logs import configure\n"
        f"configure({level!r})\n"
        "logging.getLogger('libp2p').propagate = False\n"
        "logging.getLogger('atmosphere.x').warning('ours')\n"
        "logging.getLogger('libp2p.x').error('theirs')\n"
        "logging.getLogger('zeroconf').error('theirs')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [line.rsplit(" ", 1)[1] for line in done.stderr.splitlines()] == lines


def test_libp2p_says_nothing_past_the_filters() -> None:
    """In an interpreter of its own: it matters which of the two is imported first."""
    code = (
        "import logging; from atmosphere.cli.logs import configure; configure('warning'); import libp2p;"
        "logging.getLogger('libp2p.anything').warning('of no interest');"
        "logging.getLogger('atmosphere').warning('ours')"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    assert "ours" in said
    assert "of no interest" not in said
