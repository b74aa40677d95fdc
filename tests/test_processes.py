"""The harness of the real nodes sees what a node would rather keep in its log."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.processes import NodeFailed, check_log

STAMP = "2026-11-21 16:06:46,123"


@pytest.mark.parametrize("line", [
    f"{STAMP} ERROR atmosphere.http.server: connection failed",
    f"{STAMP} CRITICAL trio: broken",
    "Traceback (most recent call last):",
    "  + Exception Group Traceback (most recent call last):",
    "Exception ignored in: <function x>",
    "Fatal Python error: Segmentation fault",
])
def test_an_error_in_a_log_fails(tmp_path: Path, line: str) -> None:
    (tmp_path / "A.log").write_text(f"node A\n{line}\n  what it was\n")
    with pytest.raises(NodeFailed, match=r"(?s)node A .*what it was"):
        check_log(tmp_path / "A")


def test_a_warning_is_none(tmp_path: Path) -> None:
    (tmp_path / "A.log").write_text(f"node A\n{STAMP} WARNING atmosphere.mesh: the peer said ERROR x\n")
    check_log(tmp_path / "A")
