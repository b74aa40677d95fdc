"""One node per home: a lock file that dies with its holder."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path
from types import TracebackType

from atmosphere.env import SystemEnv

FILE = "lock"
POLL_S = 0.05
"""Between two looks while waiting: nobody notices, and it costs nothing."""
TRIES = 3
"""To take the lock: :func:`holder` in another process holds it for a moment to see whether it can."""


class Locked(Exception):
    """Another process holds the home."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"held by process {pid}")
        self.pid = pid


class HomeLock:
    """The lock on a home folder, held until it is left or the process ends, however it ends.

    ``flock`` and not the file's existence decides, so a killed node leaves no stale lock behind. The file holds the
    process id for people and for error messages; it is never removed, because removing a locked file lets two
    processes hold "the" lock.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, home: Path) -> HomeLock:
        """Lock *home*, creating the folder (mode 0700). Raises :class:`Locked`, or OSError for an unusable folder."""
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(home / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        for attempt in range(TRIES):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == TRIES - 1:
                    pid = _read_pid(descriptor)
                    os.close(descriptor)
                    raise Locked(pid) from None
                threading.Event().wait(POLL_S)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return cls(descriptor)

    def __enter__(self) -> HomeLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)


def holder(home: Path) -> int | None:
    """The process that holds *home*, or None. A snapshot: it may change at once."""
    try:
        descriptor = os.open(home / FILE, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_pid(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _read_pid(descriptor: int) -> int:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else 0


def wait_until_free(home: Path, seconds: float) -> bool:
    """Wait until nobody holds *home*, at most *seconds*; whether that came."""
    env = SystemEnv()
    end = env.monotonic() + seconds
    while holder(home) is not None:
        if env.monotonic() >= end:
            return False
        threading.Event().wait(POLL_S)
    return True
