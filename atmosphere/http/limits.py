"""What one HTTP client may cost the node: every bound in one place, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the HTTP server. Tests pass smaller ones."""

    head_bytes: int = 16 * 1024
    """Request line and headers; SDKs send under 2 KiB. More is refused with 431."""
    body_bytes: int = 16 * MIB
    """One request body: a few pictures in base64. More is refused with 413."""
    bodies_bytes: int = 128 * MIB
    """All request bodies held at once; a request that would exceed it is refused with 503."""
    body_idle_s: float = 10.0
    """A body that makes no progress for so long is refused with 408."""
    body_total_s: float = 60.0
    """A body must have arrived after so long, however steadily it drips."""
    drain_s: float = 1.0
    """A refused body is read and thrown away for so long: closing with unread bytes would reset the connection and
    take the refusal with it."""
    requests: int = 512
    """Requests at once; more are refused with 503 and Retry-After. ``/v1/health`` is not counted."""
    connections: int = 1024
    """Open connections per listener; more wait in the kernel's queue."""
    connections_per_address: int = 256
    """Open connections that one address may have where other machines reach the listener; more are closed at once.
    A stranger without a key can so hold a quarter of them."""
    keep_alive_s: float = 20.0
    """An idle connection, or one that has not finished its request head, is closed after so long. Longer than the
    5 s after which the OpenAI SDKs (httpx) drop theirs: otherwise a request can meet a closing connection."""
    write_s: float = 60.0
    """A client that does not take one piece of its answer in this time is gone; its work is cancelled."""
    leave_s: float = 2.0
    """How long giving up work (the cancel to the node that does it) may take after the client has gone."""
    retry_after_s: int = 1
    """What a refused request is told to wait."""
