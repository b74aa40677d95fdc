"""Finding peers on the local network: multicast DNS service discovery (RFC 6763), through zeroconf.

zeroconf runs in threads of its own; what it finds is handed to Trio, where everything else happens. Anybody on the LAN
may announce anything: whoever is found still has to prove its key and show its membership.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import trio
from zeroconf import InterfaceChoice, ServiceBrowser, ServiceInfo, ServiceListener, Zeroconf

from transports.addresses import Address, parse
from transports.errors import AddressError
from transports.peer_id import PeerId

logger = logging.getLogger(__name__)

SERVICE = "_atmosphere._udp.local."

QUERY_TIMEOUT = 2000
"""Milliseconds that a found name has to tell its text record; a repeated question fits in."""

MAX_ADDRESSES = 6
"""Addresses announced, and taken from one peer: the record still fits one Ethernet packet."""

MAX_VALUE = 255
"""Bytes of one TXT entry with its key; its length is one byte."""

REFRESH = 5.0
"""Seconds between looks at our own addresses: a laptop that changes its network is announced again soon."""

GOODBYE_TIMEOUT = 2.0
"""Seconds that stopping may take to say goodbye to the LAN."""

Found = Callable[[PeerId, tuple[str, ...]], None]


@asynccontextmanager
async def announce_and_browse(
    peer_id: PeerId, addresses: Callable[[], Sequence[str]], tag: str, found: Found
) -> AsyncIterator[None]:
    """Announce *peer_id* on the LAN, and call *found* for peers with the same *tag*, for the length of the block.

    *found* is called in Trio, again when a peer's addresses change, never for ourselves; it must not wait. *addresses*
    is asked now and then for what we can be dialled at. Loopback addresses are announced only when there are no others,
    and then on the loopback interface alone, so that nodes of one machine find each other and others are not misled.
    On a machine without multicast nothing happens but a warning.
    """
    announced = _announced(addresses())
    loopback = all(address.host_kind == "ip4" and _is_loopback(address) for address in announced)
    listener = _Listener(peer_id, tag, found, trio.lowlevel.current_trio_token())
    try:  # starts zeroconf's thread and sockets, some milliseconds; everything slow below is awaited
        zeroconf = Zeroconf(interfaces=["127.0.0.1"] if loopback else InterfaceChoice.All)
    except OSError as error:
        logger.warning("no multicast on this machine (%s): give other nodes this one's address instead", error)
        yield
        return
    try:
        ServiceBrowser(zeroconf, SERVICE, listener=listener)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_announce, zeroconf, peer_id, tag, addresses, announced)
            yield
            nursery.cancel_scope.cancel()
    finally:
        listener.stop()
        with trio.move_on_after(GOODBYE_TIMEOUT) as grace:
            grace.shield = True
            await _in_zeroconf(zeroconf, zeroconf.async_unregister_all_services())
        zeroconf.close()


async def _announce(
    zeroconf: Zeroconf, peer_id: PeerId, tag: str, addresses: Callable[[], Sequence[str]], announced: list[Address]
) -> None:
    await _in_zeroconf(zeroconf, zeroconf.async_register_service(_service(peer_id, tag, announced), strict=False))
    while True:
        await trio.sleep(REFRESH)
        now = _announced(addresses())
        if now != announced:
            announced = now
            await _in_zeroconf(zeroconf, zeroconf.async_update_service(_service(peer_id, tag, now)))


async def _in_zeroconf(zeroconf: Zeroconf, job: Awaitable[object]) -> None:
    """Run *job* in zeroconf's loop and wait for it without blocking Trio. Failures are logged: the LAN may be gone."""
    assert zeroconf.loop is not None
    done = trio.Event()
    token = trio.lowlevel.current_trio_token()

    async def run() -> None:
        await job

    def finished(future: object) -> None:
        try:
            token.run_sync_soon(done.set)
        except trio.RunFinishedError:
            logger.debug("zeroconf finished after Trio")

    future = asyncio.run_coroutine_threadsafe(run(), zeroconf.loop)
    future.add_done_callback(finished)
    await done.wait()
    error = future.exception()
    if error is not None:
        logger.warning("announcing on the LAN failed (%r); other nodes may have to be given this one's address", error)


def _is_loopback(address: Address) -> bool:
    return address.host_kind in ("ip4", "ip6") and ipaddress.ip_address(address.host).is_loopback


def _announced(texts: Sequence[str]) -> list[Address]:
    """The addresses worth announcing: no names, no wildcards, no loopback beside others."""
    parsed = [address for address in map(parse, texts) if address.host_kind in ("ip4", "ip6") and not address.wildcard]
    public = [address for address in parsed if not _is_loopback(address)]
    return (public or [address for address in parsed if address.host_kind == "ip4"])[:MAX_ADDRESSES]


def _service(peer_id: PeerId, tag: str, addresses: Sequence[Address]) -> ServiceInfo:
    properties = {"id": str(peer_id), "tag": tag}
    properties |= {f"a{index}": address.transport for index, address in enumerate(addresses)}
    for key, value in properties.items():
        if len(key) + 1 + len(value.encode()) > MAX_VALUE:
            raise ValueError(f"{key}={value} is too long for an mDNS text entry ({MAX_VALUE} bytes); use a shorter tag")
    return ServiceInfo(
        SERVICE,
        f"{peer_id}.{SERVICE}",
        parsed_addresses=[address.host for address in addresses],
        port=addresses[0].port if addresses else 0,
        properties=properties,
        server=f"{peer_id}.local.",
    )


def read_record(properties: dict[bytes, bytes | None], tag: str) -> tuple[PeerId, tuple[str, ...]] | None:
    """Peer and addresses of a text record with this *tag*; None for other tags and for nonsense."""
    text = {key.decode(errors="replace"): (value or b"").decode(errors="replace") for key, value in properties.items()}
    if text.get("tag") != tag:
        return None
    try:
        peer = PeerId.parse(text.get("id", ""))
    except ValueError:
        return None
    addresses = []
    for index in range(MAX_ADDRESSES):
        try:
            address = parse(text.get(f"a{index}", ""))
        except AddressError:
            continue
        if address.peer in (None, peer) and not address.wildcard:
            addresses.append(address.transport)
    return (peer, tuple(addresses)) if addresses else None


class _Listener(ServiceListener):
    """Called in zeroconf's browser thread."""

    def __init__(self, own: PeerId, tag: str, found: Found, token: trio.lowlevel.TrioToken) -> None:
        self._own = own
        self._tag = tag
        self._found = found
        self._token = token
        self._stopped = False

    def add_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        if self._stopped or name.startswith(str(self._own)):
            return
        info = zc.get_service_info(type_, name, timeout=QUERY_TIMEOUT)
        record = read_record(info.properties, self._tag) if info is not None else None
        if record is not None and record[0] != self._own:
            try:
                self._token.run_sync_soon(self._tell, *record)
            except trio.RunFinishedError:
                logger.debug("%s was found after the end", name)

    def update_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        self.add_service(zc, type_, name)

    def remove_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        """Being away is found out by other means."""

    def stop(self) -> None:
        self._stopped = True

    def _tell(self, peer: PeerId, addresses: tuple[str, ...]) -> None:
        if self._stopped:
            return
        try:
            self._found(peer, addresses)
        except Exception:
            logger.exception("what the LAN told of %s could not be used", peer)
