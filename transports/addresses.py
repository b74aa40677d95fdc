"""Multiaddrs: check them with errors that name the fix, split off the peer id, tell LAN from internet.

Text in and text out; the library's parser is loaded only when a host runs.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from transports.errors import AddressError
from transports.peer_id import PeerId

EXAMPLE = "/ip4/192.168.1.5/tcp/4001"
MAX_LENGTH = 512
"""Characters; a relayed address with two peer ids has about 250."""

_HOSTS = ("ip4", "ip6", "dns", "dns4", "dns6")

Path = Literal["lan", "direct", "relay"]


@dataclass(frozen=True)
class Address:
    """One transport address: where a TCP (or WebSocket) connection goes, and whose it is, if the text said."""

    host_kind: str
    host: str
    port: int
    websocket: bool
    peer: PeerId | None

    @property
    def transport(self) -> str:
        """The multiaddr without the peer id."""
        return f"/{self.host_kind}/{self.host}/tcp/{self.port}{'/ws' if self.websocket else ''}"

    def __str__(self) -> str:
        return self.transport if self.peer is None else f"{self.transport}/p2p/{self.peer}"

    @property
    def wildcard(self) -> bool:
        """True for 0.0.0.0 and ::, which can be listened on but not dialled."""
        return self.host_kind in ("ip4", "ip6") and ipaddress.ip_address(self.host).is_unspecified


def parse(text: str) -> Address:
    """Read ``/ip4|ip6|dns|dns4|dns6/<host>/tcp/<port>[/ws][/p2p/<peer id>]``; raises :class:`AddressError`."""
    if len(text) > MAX_LENGTH:
        raise AddressError(f"an address of {len(text)} characters is too long; one looks like {EXAMPLE}")
    parts = text.strip().split("/")
    if len(parts) < 5 or parts[0]:
        raise AddressError(f"{text!r} is not a multiaddr; write it like {EXAMPLE}")
    _, kind, host, transport, port_text, *rest = parts
    if kind not in _HOSTS:
        known = ", /".join(_HOSTS)
        raise AddressError(f"{text!r} begins with /{kind}, this node knows /{known}; write it like {EXAMPLE}")
    if kind in ("ip4", "ip6"):
        try:
            host = str(ipaddress.IPv4Address(host) if kind == "ip4" else ipaddress.IPv6Address(host))
        except ValueError as error:
            raise AddressError(f"{text!r}: {error}; write it like {EXAMPLE}") from None
    elif not host or len(host) > 253:
        raise AddressError(f"{text!r} has no usable host name; write it like /dns4/node.example/tcp/4001")
    if transport != "tcp":
        raise AddressError(f"{text!r} uses /{transport}, this node speaks /tcp and /tcp/<port>/ws, as in {EXAMPLE}")
    if not port_text.isascii() or not port_text.isdigit() or int(port_text) > 65535:
        raise AddressError(f"{text!r}: {port_text!r} is not a TCP port; use 1 to 65535, or 0 to let the system choose")
    websocket = rest[:1] == ["ws"]
    if websocket:
        rest = rest[1:]
    peer = None
    if rest[:1] == ["p2p"] and len(rest) >= 2:
        try:
            peer = PeerId.parse(rest[1])
        except ValueError as error:
            raise AddressError(f"{text!r}: {error}") from None
        rest = rest[2:]
    if rest:
        raise AddressError(f"{text!r}: this node does not understand /{'/'.join(rest)}; write it like {EXAMPLE}")
    return Address(kind, host, int(port_text), websocket, peer)


def split_peer(text: str) -> tuple[PeerId, str]:
    """The peer id and the address without it; :class:`AddressError` when the address names no peer."""
    address = parse(text)
    if address.peer is None:
        raise AddressError(f"{text!r} does not say whose address it is; add /p2p/<peer id>, as `status` prints it")
    return address.peer, address.transport


@lru_cache(maxsize=4096)  # asked for every connection each time somebody looks at all of them
def classify(text: str) -> Path:
    """``lan`` for loopback, private and link-local addresses, else ``direct``; ``relay`` for circuits."""
    if "/p2p-circuit" in text:
        return "relay"
    parts = text.split("/")
    if len(parts) < 3 or parts[1] not in ("ip4", "ip6"):
        return "direct"
    try:
        address = ipaddress.ip_address(parts[2])
    except ValueError:
        return "direct"
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        address = mapped
    return "lan" if address.is_private or address.is_link_local or address.is_loopback else "direct"
