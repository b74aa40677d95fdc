"""docs/attacks.md says which test shows what: every one of them is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "attacks.md").read_text()


def test_every_test_that_the_page_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    missing = [
        f"{path}::{name}" for path, name in named
        if not (ROOT / path).exists() or not re.search(rf"def {name}\(", (ROOT / path).read_text())
    ]
    assert not missing
    assert len(named) > 40


def test_every_cannot_has_a_test_or_says_that_it_has_none() -> None:
    lines = re.findall(r"^- (.*?)(?=^- |^#|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    bare = [
        line for line in lines
        if line.startswith("Cannot") and "`tests/" not in line and "`table`" not in line
        and "no test here" not in line and "never through a third" not in line
    ]
    assert not bare
