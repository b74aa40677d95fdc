"""What a running node writes to standard error: its own warnings, each once."""

from __future__ import annotations

import importlib
import logging

from atmosphere.cli.plain import one_line

LEVELS = ("debug", "info", "warning", "error")
REMEMBERED = 1000
"""Different warnings remembered as already said; then the memory starts anew. A node has a few dozen."""
FOREIGN = ("libp2p", "hypercorn", "quart", "zeroconf", "httpx2", "httpcore2", "multiaddr", "asyncio", "trio")
"""Libraries whose warnings are about their own inner life: shown with ``--log-level debug`` and ``info`` only."""
OURS = ("atmosphere", "protocols", "transports")


class OnlyOurs(logging.Filter):
    """Keeps libraries quiet, but not where they report an error of ours, as Quart and Hypercorn do on our loggers.

    Other loggers by file and not only by name: libp2p logs through the root logger in places.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        package = record.name.partition(".")[0]
        if package in FOREIGN:
            return record.levelno >= logging.CRITICAL
        return package in OURS or not any(f"/{name}/" in record.pathname for name in FOREIGN)


class Once(logging.Filter):
    """Lets each text through once, so that a backend that is away for a night is one line and not a thousand.

    Of an exception its own words count as well: two bugs in one route have the same text.
    """

    def __init__(self) -> None:
        super().__init__()
        self._said: set[tuple[str, str, str]] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        text = (record.name, record.getMessage(), repr(record.exc_info and record.exc_info[1]))
        if text in self._said:
            return False
        if len(self._said) >= REMEMBERED:
            self._said.clear()
        self._said.add(text)
        return True


class OneLine(logging.Formatter):
    """One record, one line: what others call themselves or give as a reason cannot forge another one."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = one_line(record.message)
        return super().formatMessage(record)


def configure(level: str) -> None:
    """Send the process's log to standard error, at *level* (one of :data:`LEVELS`)."""
    # libp2p cuts its logger off from the root, and empties it, when it is imported: so that comes first. Without a
    # handler of its own Python would write its warnings to standard error past every filter.
    importlib.import_module("transports.host")
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    if level in ("warning", "error"):
        handler.addFilter(OnlyOurs())
        handler.addFilter(Once())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("libp2p").handlers[:] = [handler]
    logging.captureWarnings(True)
