"""Large pages: what is in memory stays what it is."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from simulations import pages

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def in_large_pages() -> int:
    """Bytes of this process."""
    found = re.search(r"AnonHugePages:\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text())
    return int(found[1]) * 1024 if found else 0


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_what_is_in_memory_stays_and_is_in_large_pages_where_the_kernel_has_them() -> None:
    before = in_large_pages()
    held = [bytes([number % 256]) * 1_000_000 for number in range(100)]
    pages.collapse()
    assert all(each == bytes([number % 256]) * 1_000_000 for number, each in enumerate(held))
    if not SETTING.exists() or "[never]" in SETTING.read_text() or in_large_pages() == before == 0:
        pytest.skip("this kernel gives none")
    assert in_large_pages() - before > 50_000_000
