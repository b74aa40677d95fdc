"""Stand-in model servers as processes of their own, for the e2e tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from tests.processes import environment, eventually, free_port


@dataclass
class Backend:
    """A running stand-in of an OpenAI-compatible server."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def log(self) -> Any:
        """What it saw so far; see tests/backends/http_server.py."""
        return httpx2.get(f"{self.url}/_log", timeout=5).raise_for_status().json()


@contextmanager
def openai_server(
    model: str, *, tokens: int = 5, token_delay_ms: float = 0, port: int | None = None
) -> Iterator[Backend]:
    """Run one for the length of the block, on *port* or on a free one."""
    port = port or free_port()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "tests.backends.openai_server", "--port", str(port), "--model", model,
            "--tokens", str(tokens), "--token-delay-ms", str(token_delay_ms),
        ],
        env=environment(), stdout=subprocess.DEVNULL,
    )
    backend = Backend(port)
    try:
        eventually(f"the stand-in at {backend.url} answers", 15, lambda: True if backend.log() is not None else None)
        yield backend
    finally:
        process.terminate()
        process.wait(timeout=10)
