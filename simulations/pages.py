"""Large pages for a large world: each step touches objects all over the memory, and each is looked up by its page.

Of a thousand nodes at rest these look-ups took a sixth of the processor time with pages of 4 KB.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

LARGE = 2 * 1024 * 1024
MADV_COLLAPSE = 25
"""Of madvise(2): "put this into large pages now". Linux 6.1 knows it; without it nothing happens."""


def collapse() -> None:
    """Have the kernel put what this process holds now into large pages, where it can; a second per GB."""
    if sys.platform != "linux":
        return
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, access, _, _, inode, *_ = line.split()
        start, end = (int(address, 16) for address in span.split("-"))
        first = -(-start // LARGE) * LARGE
        size = end // LARGE * LARGE - first
        if access == "rw-p" and inode == "0" and size > 0:
            madvise(first, size, MADV_COLLAPSE)  # where it is refused all stays as it was
