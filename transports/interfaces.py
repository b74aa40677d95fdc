"""The addresses of this machine, for listeners on a wildcard address."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import replace

import psutil

from transports.addresses import Address

_KINDS = {"ip4": socket.AF_INET, "ip6": socket.AF_INET6}


def interface_hosts(kind: str) -> list[str]:
    """Addresses of the interfaces that are up, loopback last; link-local IPv6 is left out (it needs a zone)."""
    up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
    hosts = {
        entry.address
        for name, entries in psutil.net_if_addrs().items()
        if name in up
        for entry in entries
        if entry.family == _KINDS[kind] and "%" not in entry.address
    }
    return sorted(hosts, key=lambda host: (ipaddress.ip_address(host).is_loopback, host))


def expand(address: Address) -> list[Address]:
    """*address* itself, or, for a wildcard, one address for each interface."""
    if not address.wildcard:
        return [address]
    return [replace(address, host=host) for host in interface_hosts(address.host_kind)]
