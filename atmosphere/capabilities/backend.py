"""What an adapter gives the node: cards, their limits, and a way to run a tool."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from atmosphere.capabilities.card import Card
from protocols.call.errors import CallError, Code
from transports.peer_id import PeerId

Emit = Callable[[bytes], Awaitable[None]]
"""Sends one piece of a streamed answer; waits while the caller reads slowly; cancelled when the caller leaves."""


@dataclass(frozen=True, slots=True)
class Provision:
    """One capability as this node offers it."""

    card: Card
    concurrency: int = 1
    """Calls that may run at once; more wait in a bounded queue."""
    price_micros: int = 0
    """Asking price per call in millionths of the owner's unit; 0: free."""
    labels: tuple[str, ...] = ()
    """Facts about this node's copy, e.g. ``gpu``, ``site:home``."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of one tool, as a backend sees it."""

    tool: str
    args: bytes
    """JSON, UTF-8. For tools of the OpenAI family this is the request body of the matching endpoint."""
    caller: PeerId | None = None
    """Who asks; None: this node's own user."""
    trace_id: bytes = b""
    idempotency_key: bytes = b""
    deadline: float | None = field(default=None)
    """On the Env's monotonic clock; None: the backend's own limit. The caller of the backend enforces it."""
    _parsed: dict[str, Any] | None = field(default=None, init=False, repr=False, compare=False)

    def arguments(self) -> dict[str, Any]:
        """*args* as a JSON object, parsed once for the registry and the backend together; treat it as read-only.

        Empty args are an empty object. Raises :class:`CallError` (invalid) for anything that is not a JSON object.
        """
        if self._parsed is None:
            try:
                parsed = json.loads(self.args) if self.args else {}
            except (ValueError, RecursionError) as error:
                raise CallError(Code.INVALID, f"the arguments of {self.tool} are not JSON: {error}") from None
            if not isinstance(parsed, dict):
                kind = type(parsed).__name__
                raise CallError(Code.INVALID, f"the arguments of {self.tool} must be a JSON object, not {kind}")
            object.__setattr__(self, "_parsed", parsed)
            return parsed
        return self._parsed


class Backend(ABC):
    """A local provider of capabilities: an HTTP server, a folder of documents, the node itself.

    A backend never retries and never chooses another one: that is the dispatcher's work.
    """

    name: str
    """Unique on this node, for people: ``ollama http://127.0.0.1:11434``."""

    @abstractmethod
    async def discover(self) -> Sequence[Provision]:
        """What is there now. Raises :class:`BackendGone` when the backend does not answer.

        Called every few seconds: it must be cheap and must not disturb running calls.
        """

    @abstractmethod
    async def invoke(self, card: Card, call: ToolCall, emit: Emit) -> bytes:
        """Run ``call.tool`` of *card*; stream pieces through *emit*, return the result (JSON bytes).

        Cancelling it stops the work behind it. Raises :class:`protocols.call.CallError` with code ``unavailable``
        (never started), ``backend`` (details: the backend's own answer), ``invalid`` or ``not_found``.
        """

    async def aclose(self) -> None:  # noqa: B027 - most backends hold nothing open
        """Release what is held open."""


class BackendGone(Exception):
    """The backend does not answer; the message says what was tried."""


class BackendSilent(BackendGone):
    """The backend took the connection and did not answer in time: gone, or only busy."""
