"""The callee of ``/atmosphere/call/1``: many calls at once on each long-lived stream.

What one peer can take is bounded before its request is run: calls, arguments, streams, and time. A call over a bound
gets an Error and the stream goes on; a peer that breaks the protocol is told why in an Error on call 0, and its
stream ends. Whatever a handler raises stays inside its call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from protocols.call.limits import CallLimits
from protocols.call.messages import Load
from protocols.call.served import Emit, EmitEvent, Handler, PeerUse, ServedStream, Service, SubscribeHandler
from transports.peer_id import PeerId
from transports.stream import Stream

__all__ = ["CallServer", "Emit", "EmitEvent", "Handler", "ServerStatistics", "SubscribeHandler"]


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """A :class:`CallServer` at one moment (the first four) and in its life."""

    streams: int
    calls: int
    peers: int
    args_bytes: int
    served: int
    refused: int
    violations: int


class CallServer:
    """Serves calls with *handler*.

    ``await handler(call, emit)`` returns the result. A CallError it raises goes to the caller as it is; anything else
    becomes INTERNAL without a detail, and is logged here. Its scope is cancelled at once when the caller cancels, when
    the deadline passes, or when the stream is lost or ended by the caller.
    """

    def __init__(
        self,
        handler: Handler,
        limits: CallLimits | None = None,
        *,
        load: Callable[[], Load] | None = None,
        subscribe: SubscribeHandler | None = None,
    ) -> None:
        """*load*: asked for every Accepted, Result and Error, and carried on it. *subscribe*: runs one subscription
        until it returns; without it there are no triggers here, and callers are told so."""
        self.limits = limits or CallLimits()
        self._service = Service(handler, self.limits, load, subscribe)
        self._peers: dict[PeerId, PeerUse] = {}

    def __repr__(self) -> str:
        service = self._service
        return f"<CallServer {service.calls} calls of {len(self._peers)} peers, stopping={service.stopping}>"

    def statistics(self) -> ServerStatistics:
        uses = self._peers.values()
        return ServerStatistics(
            streams=sum(use.streams for use in uses),
            calls=self._service.calls,
            peers=len(self._peers),
            args_bytes=sum(use.args_bytes for use in uses),
            served=self._service.served,
            refused=self._service.refused,
            violations=self._service.violations,
        )

    async def drain(self) -> None:
        """Take no new calls (they get ``unavailable``, retryable) and wait until the running ones have ended."""
        self._service.stopping = True
        while self._service.calls:
            await self._service.idle.wait()

    async def serve(self, stream: Stream) -> None:
        """Serve *stream* until the caller ends it, it is lost, or it is idle. Never raises for what a peer does.

        Returns with every handler of the stream ended and the stream closed or reset.
        """
        use = self._peers.setdefault(stream.peer, PeerUse())
        use.streams += 1
        try:
            await ServedStream(self._service, stream, use).run()
        finally:
            use.streams -= 1
            if not use.streams:
                del self._peers[stream.peer]
