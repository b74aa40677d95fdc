"""The order of sets, which Python draws anew for each process unless told otherwise.

A module of its own because it must run first: a command imports this, calls :func:`fix_hashing`, and only then imports
what takes seconds.
"""

from __future__ import annotations

import os
import sys

HASH_SEED = "0"


def fix_hashing() -> None:
    """Make sets of text and bytes iterate in the same order in every process: starts Python again if need be.

    Call it before anything else has happened; it does not return then.
    """
    if not hashing_is_fixed():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "PYTHONHASHSEED": HASH_SEED})


def hashing_is_fixed() -> bool:
    return os.environ.get("PYTHONHASHSEED") == HASH_SEED and not sys.flags.hash_randomization
