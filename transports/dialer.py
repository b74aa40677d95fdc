"""Keeps wanted peers connected: dials them, waits longer after each failure, dials again after a loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import trio

from transports.dial_plan import BackOff, DialPlan, DialState
from transports.errors import PeerUnreachable
from transports.peer_id import PeerId

MAX_PARALLEL_DIALS = 8
"""Dials at a time: each has a 10 s limit, so a hundred dead peers are through in two minutes at most."""

MAX_HURRIED_DIALS = 8
"""Dials in a hurry at a time, besides those: they must not wait behind the dead."""

HURRY_TIMEOUT = 3.0
"""Seconds for a dial in a hurry: a satellite link's handshake. Who needs longer is found by the ordinary dial."""


class DialHost(Protocol):
    """What the dialer needs of a host."""

    peer_id: PeerId

    async def connect(
        self, peer: PeerId, addresses: Sequence[str], *, timeout_s: float | None = None
    ) -> None: ...

    def connections(self) -> Mapping[PeerId, object]: ...

    def add_listener(
        self,
        on_connected: Callable[[PeerId], None],
        on_disconnected: Callable[[PeerId], None],
        on_released: Callable[[PeerId], None],
    ) -> None: ...


class Dialer:
    """The shell around :class:`DialPlan`. ``want`` and ``forget`` may be called at any time; :meth:`run` does the work.

    *jitter* gives uniform numbers in [0, 1), which spread the dials of many nodes. *on_failed* is told of every dial
    that failed, ordinary or in a hurry; it must not wait. Of one that succeeded the host's listeners are told.
    """

    def __init__(
        self,
        host: DialHost,
        jitter: Callable[[], float],
        back_off: BackOff | None = None,
        on_failed: Callable[[PeerId, PeerUnreachable], None] | None = None,
    ) -> None:
        self._host = host
        self._jitter = jitter
        self._on_failed = on_failed
        self._plan = DialPlan(back_off)
        self._changed = trio.Event()
        self._dialling = 0
        self._hurrying = 0
        host.add_listener(self._on_connected, self._on_disconnected, self._on_released)

    def __repr__(self) -> str:
        return f"<Dialer {self._plan!r}, dialling {self._dialling}, in a hurry {self._hurrying}>"

    def want(self, peer: PeerId, addresses: Sequence[str], *, forever: bool) -> None:
        """Keep *peer* connected. Without *forever* it is given up after repeated failures (see GIVE_UP_AFTER)."""
        if peer != self._host.peer_id:
            connected = peer in self._host.connections()
            self._plan.want(peer, addresses, forever, connected, trio.current_time())
            self._wake()

    def hurry(self, peer: PeerId, addresses: Sequence[str]) -> None:
        """Dial *peer* once, now, for HURRY_TIMEOUT, whatever the back-off says; it need not be wanted.

        Does nothing while the peer is connected or being dialled: then that dial's end is the answer.
        """
        if peer != self._host.peer_id and peer not in self._host.connections():
            self._plan.hurry(peer, addresses, trio.current_time())
            self._wake()

    @property
    def beginning(self) -> int:
        """Wanted peers that are not connected and have not failed yet."""
        return self._plan.beginning

    def forget(self, peer: PeerId) -> None:
        """Dial *peer* no more. A connection that exists stays."""
        self._plan.forget(peer)

    def statistics(self) -> dict[PeerId, DialState]:
        return self._plan.states()

    async def run(self) -> None:
        """Dial until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                self._changed = trio.Event()
                free = MAX_PARALLEL_DIALS - self._dialling
                for peer, addresses in self._plan.begin(trio.current_time(), free):
                    self._dialling += 1
                    nursery.start_soon(self._dial, peer, addresses, None)
                in_haste = MAX_HURRIED_DIALS - self._hurrying
                for peer, addresses in self._plan.begin_hurried(trio.current_time(), in_haste):
                    self._hurrying += 1
                    nursery.start_soon(self._dial, peer, addresses, HURRY_TIMEOUT)
                due = self._plan.next_due() if self._dialling < MAX_PARALLEL_DIALS else None
                knock = self._plan.next_knock() if self._hurrying < MAX_HURRIED_DIALS else None
                with trio.move_on_at(min(math.inf if at is None else at for at in (due, knock))):
                    await self._changed.wait()

    async def _dial(self, peer: PeerId, addresses: tuple[str, ...], hurry_s: float | None) -> None:
        failure: PeerUnreachable | None = None
        try:
            await self._host.connect(peer, addresses, timeout_s=hurry_s)
        except PeerUnreachable as error:
            failure = error
            self._plan.on_failed(peer, str(error), trio.current_time(), self._jitter(), refused=error.refused)
        finally:
            self._plan.end(peer)
            self._dialling -= hurry_s is None
            self._hurrying -= hurry_s is not None
            self._wake()
        if failure is not None and self._on_failed is not None:
            self._on_failed(peer, failure)

    def _on_connected(self, peer: PeerId) -> None:
        self._plan.on_connected(peer, trio.current_time())
        self._wake()

    def _on_disconnected(self, peer: PeerId) -> None:
        self._plan.on_lost(peer, trio.current_time(), self._jitter())
        self._look_for_others()

    def _on_released(self, peer: PeerId) -> None:
        self._plan.on_released(peer, trio.current_time(), self._jitter())
        self._look_for_others()

    def _look_for_others(self) -> None:
        if not self._host.connections():
            self._plan.revisit(trio.current_time())
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
