"""The network between hosts of one process: who reaches whom, how late, and what goes wrong."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial

import trio
from libp2p.abc import ITransport
from libp2p.crypto.keys import KeyPair

from transports.addresses import parse
from transports.config import HostConfig
from transports.errors import ListenError
from transports.libp2p.upgrader import Upgrader
from transports.memory.connection import End
from transports.memory.links import LinkModel
from transports.memory.nat import MAPPING_S, Nat, lets_in
from transports.memory.pipe import Passage, Pipe
from transports.memory.place import Condition, Place
from transports.memory.transport import MemoryTransport, MemoryUpgrader
from transports.memory.wire import Wire
from transports.peer_id import PeerId

SYN_WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Seconds between the attempts of TCP to reach a host that does not answer (Linux: TCP_SYN_RETRIES)."""

FIRST_EPHEMERAL = 32768
"""Port from which the first dial of a host comes."""

_REAL = ("0.0.0.0", "127.0.0.1")


@dataclass(frozen=True)
class Traffic:
    """Of one host, since the network began: yamux frames, as the production node would send them, without encryption
    and TCP (which add some 18 bytes to a write and 40 to a segment)."""

    sent_bytes: int
    sent_frames: int
    received_bytes: int
    received_frames: int


@dataclass(frozen=True)
class NetworkStatistics:
    peers: Mapping[PeerId, Traffic]
    connections: int
    """With both ends open."""
    in_flight: int
    """Bytes under way."""
    dials: int
    events: int
    wake_ups: int


class MemoryNetwork:
    """Carries whatever hosts are opened in it; made by :func:`open_network`.

    Each host has an address of its own that looks public (each in another /16). What a host sends arrives in order, as
    late as the link model says, or, under a fault, later or never: as over TCP, nothing is lost from the middle.
    The network vouches for peer ids; there is no encryption. Times are of Trio's clock, rounded up to a millisecond.
    """

    def __init__(self, links: LinkModel, draw: Callable[[], float], nursery: trio.Nursery) -> None:
        self.links = links
        self.nursery = nursery
        self.wire = Wire()
        self._draw = draw
        self._places: dict[PeerId, Place] = {}
        self._by_host: dict[str, Place] = {}
        self._partings = 0

    def __repr__(self) -> str:
        return f"<MemoryNetwork of {len(self._places)} hosts, {self.wire!r}>"

    # Hosts --------------------------------------------------------------------------------------------------------

    def place(self, peer: PeerId) -> Place:
        """Where *peer* is; its address is chosen when it is first asked for."""
        place = self._places.get(peer)
        if place is None:
            place = self._places[peer] = Place(peer, fake_address(len(self._places)))
            self._by_host[place.host] = place
        return place

    def address(self, peer: PeerId, port: int = 4001) -> str:
        """The address at which *peer* listens, or will, with its peer id: for a bootstrap list."""
        return f"/ip4/{self.place(peer).host}/tcp/{port}/p2p/{peer}"

    def listen_addresses(self, peer: PeerId, addresses: Sequence[str]) -> tuple[str, ...]:
        """*addresses* with the host's own one in place of wildcards and loopback. ListenError for others."""
        host, found = self.place(peer).host, []
        for text in addresses:
            address = parse(text)
            if address.host not in (*_REAL, host):
                raise ListenError(text, f"in the memory network {peer.short} has the address {host}; use /ip4/0.0.0.0")
            found.append(replace(address, host=host).transport)
        return tuple(found)

    @contextmanager
    def attached(self, peer: PeerId, config: HostConfig, keys: KeyPair) -> Iterator[tuple[list[ITransport], Upgrader]]:
        """A life of the host of *peer*: afterwards nothing of it is left in the network. One at a time.

        Nothing is encrypted and nothing times out here, so settings and keys are of no use.
        """
        place = self.place(peer)
        if place.condition in (Condition.RUNS, Condition.STALLED):
            raise ValueError(f"{peer} runs already; kill it, or close its host, before it is opened again")
        place.life += 1
        life = place.life
        self._become(place, Condition.RUNS)
        try:
            yield [MemoryTransport(self, place)], MemoryUpgrader()
        finally:
            if place.life == life and place.condition in (Condition.RUNS, Condition.STALLED):
                self.kill(peer, silent=False)

    def limit_uplink(self, peer: PeerId, bytes_per_s: float) -> None:
        """From now on all connections of *peer* together send no more than this."""
        if bytes_per_s <= 0:
            raise ValueError(f"an uplink of {bytes_per_s} bytes/s sends nothing; kill or part the host instead")
        self.place(peer).uplink.bytes_per_s = bytes_per_s

    async def dial(self, place: Place, life: int, host: str, port: int) -> End:
        """A connection from *place*, before its handshake. Raises OSError; a cancel leaves nothing behind."""
        if place.life != life or place.condition not in (Condition.RUNS, Condition.STALLED):
            raise OSError(errno.ENETDOWN, "this host was killed")
        place.dials += 1
        place.dialled[host] = trio.current_time()
        target = self._by_host.get(host)
        for wait in SYN_WAITS:
            if target is not None and self._answers(target, place):
                break
            await trio.sleep(wait)
        else:
            raise TimeoutError(errno.ETIMEDOUT, f"{host} does not answer")
        assert target is not None
        out, back = self.links(place.peer, target.peer), self.links(target.peer, place.peer)
        await trio.sleep(out.latency_s + out.lost_for(1, self._draw))
        accept = target.accepts.get(port)
        if accept is None:
            await trio.sleep(back.latency_s)
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"nobody listens at {host}:{port}")
        near = End(self, place, target, (host, port), dials=True)
        far = End(self, target, place, (place.host, FIRST_EPHEMERAL + place.dials % FIRST_EPHEMERAL), dials=False)
        near.opposite, far.opposite = far, near
        near.out = Pipe(self.wire, out, place.uplink, self._draw, near, far)
        far.out = Pipe(self.wire, back, target.uplink, self._draw, far, near)
        self._refresh((near, far))
        if not accept(far):
            far.hang_up()
        try:
            await trio.sleep(back.latency_s)
        except BaseException:
            near.hang_up()
            raise
        return near

    def _answers(self, target: Place, source: Place) -> bool:
        """Whether the machine of *target* answers a dial from *source* now, be it with a refusal."""
        if self._passage(source, target) is Passage.CUT or source.condition is Condition.STALLED:
            return False
        if target.nat is Nat.NONE:
            return True
        since = trio.current_time() - MAPPING_S
        target.dialled = {host: when for host, when in target.dialled.items() if when >= since}
        return lets_in(target.nat, source.host, {*target.dialled, *(end.other_place.host for end in target.ends)})

    # Faults -------------------------------------------------------------------------------------------------------

    def kill(self, peer: PeerId, silent: bool) -> None:
        """End the process of *peer*: its connections close, and dials to it are refused. *silent*: its machine goes
        dark, nobody hears of it and nothing answers. The Host object lives on, cut off; it may be opened again."""
        place = self.place(peer)
        place.accepts.clear()
        self._become(place, Condition.DARK if silent else Condition.KILLED)
        for end in list(place.ends):
            if silent:
                end.vanish("this host was killed")
            else:
                end.broken("this host was killed")

    def stall(self, peer: PeerId) -> None:
        """The process of *peer* stands still until :meth:`wake` or :meth:`heal`: nothing that it says leaves,
        what it is told waits."""
        if self.place(peer).condition is Condition.RUNS:
            self._become(self.place(peer), Condition.STALLED)

    def wake(self, peer: PeerId) -> None:
        """End the stall of *peer* alone."""
        if self.place(peer).condition is Condition.STALLED:
            self._become(self.place(peer), Condition.RUNS)

    def part(self, groups: Iterable[Collection[PeerId]], reset_after: float | None = None) -> None:
        """Cut every link between two of *groups*; peers in none of them are a group too. Replaces an earlier parting.

        Connections across stand still and break when TCP gives up (30 s after the first byte that nobody acknowledges,
        45 s without one), or at the latest after *reset_after* seconds; after :meth:`heal` those that are left go on.
        """
        for place in self._places.values():
            place.group = 0
        for number, group in enumerate(groups, start=1):
            for peer in sorted(group):
                self.place(peer).group = number
        self._partings += 1
        self._refresh(self._ends())
        if reset_after is not None:
            self.wire.at(trio.current_time() + reset_after, partial(self._reset_across, self._partings))

    def _reset_across(self, parting: int) -> None:
        for end in self._ends() if parting == self._partings else ():
            if end.place.group != end.other_place.group:
                end.broken("ConnectionResetError: the connection was reset by the network")

    def heal(self) -> None:
        """No parting and no stalls any more. TCP notices at its next attempt, as late as the cut was long at worst."""
        for place in self._places.values():
            place.group = 0
            if place.condition is Condition.STALLED:
                place.condition = Condition.RUNS
        self._refresh(self._ends())

    def put_behind(self, peer: PeerId, nat: Nat) -> None:
        """From now on dials to *peer* come through if the rules of *nat* let them; connections stay."""
        self.place(peer).nat = nat

    def _become(self, place: Place, condition: Condition) -> None:
        place.condition = condition
        self._refresh([*place.ends, *place.facing])

    def _refresh(self, ends: Iterable[End]) -> None:
        for end in ends:
            end.out.set_passage(self._passage(end.place, end.other_place))

    def _ends(self) -> list[End]:
        return [end for place in self._places.values() for end in place.ends]

    @staticmethod
    def _passage(a: Place, b: Place) -> Passage:
        conditions = (a.condition, b.condition)
        if a.group != b.group or Condition.DARK in conditions:
            return Passage.CUT
        return Passage.HELD if Condition.STALLED in conditions else Passage.OPEN

    def statistics(self) -> NetworkStatistics:
        ends = self._ends()
        return NetworkStatistics(
            peers={
                peer: Traffic(place.sent_bytes, place.sent_frames, place.received_bytes, place.received_frames)
                for peer, place in self._places.items()
            },
            connections=sum(end.is_initiator and not end.opposite.closed for end in ends),
            in_flight=sum(end.out.in_flight for end in ends),
            dials=sum(place.dials for place in self._places.values()),
            events=self.wire.events,
            wake_ups=self.wire.wake_ups,
        )


def fake_address(number: int) -> str:
    """The address of the host *number*, below 5 million. They look public, and each /16 is used once first."""
    number, first = divmod(number, 80)
    third, second = divmod(number, 256)
    return f"{20 + first}.{second}.{third // 16 + 1}.{third % 16 + 1}"


@asynccontextmanager
async def open_network(links: LinkModel, draw: Callable[[], float]) -> AsyncIterator[MemoryNetwork]:
    """A network for the length of the block; hosts must have been closed before its end.

    *draw* gives uniform numbers in [0, 1) for jitter and loss; the same ones make the same run.
    """
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        network = MemoryNetwork(links, draw, nursery)
        nursery.start_soon(network.wire.run)
        try:
            yield network
        except Exception as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
