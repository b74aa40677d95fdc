"""Hosts of a test: network namespaces on a switch of two halves that can be parted. Nothing leaves this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

NETWORK = "10.77.0"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=10)


class Switch:
    """Two bridges, ``left`` and ``right``, with one cable between them; every host is its own namespace on one side."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._hosts: list[str] = []
        _ip("netns", "add", name)
        for side in ("left", "right"):
            _ip("-n", name, "link", "add", side, "type", "bridge")
            _ip("-n", name, "link", "set", side, "up")
        _ip("-n", name, "link", "add", "cable-l", "type", "veth", "peer", "name", "cable-r")
        _ip("-n", name, "link", "set", "cable-l", "master", "left")
        _ip("-n", name, "link", "set", "cable-r", "master", "right")
        self.heal()

    def host(self, side: str) -> tuple[str, str]:
        """A new host on *side*: its namespace and its address."""
        number = len(self._hosts) + 1
        host, address = f"{self._name}-{number}", f"{NETWORK}.{number}"
        _ip("netns", "add", host)
        self._hosts.append(host)
        _ip("-n", host, "link", "set", "lo", "up")
        _ip("-n", host, "link", "add", "eth0", "type", "veth", "peer", "name", f"port{number}", "netns", self._name)
        _ip("-n", host, "addr", "add", f"{address}/24", "dev", "eth0")
        _ip("-n", host, "link", "set", "eth0", "up")
        _ip("-n", self._name, "link", "set", f"port{number}", "master", side)
        _ip("-n", self._name, "link", "set", f"port{number}", "up")
        return host, address

    def part(self) -> None:
        """Pull the cable: no packet crosses, nobody is told."""
        _ip("-n", self._name, "link", "set", "cable-l", "down")

    def heal(self) -> None:
        """Put it back."""
        _ip("-n", self._name, "link", "set", "cable-l", "up")
        _ip("-n", self._name, "link", "set", "cable-r", "up")

    def close(self) -> None:
        for name in (*self._hosts, self._name):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=10)


@contextmanager
def switch() -> Iterator[Switch]:
    """A switch for the length of the block. Skips where namespaces cannot be made; in CI that is a failure."""
    reason = ""
    if shutil.which("ip") is None:
        reason = "network namespaces need iproute2 (the command `ip`)"
    elif os.geteuid() != 0:
        reason = "network namespaces need root"
    if reason:
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    made = Switch(f"atm{os.getpid()}")
    try:
        yield made
    finally:
        made.close()
