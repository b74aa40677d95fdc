"""Hosts of a test: network namespaces on a switch that can be parted, or on a network that is slow and loses packets.

Nothing leaves this machine.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.slow_link import DEVICE
from tests.processes import environment, eventually

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


class SlowNetwork:
    """Hosts between which every packet takes *low_ms* to *high_ms* (see slow_link.py) and some are lost.

    Made with all its hosts; :meth:`host` hands them out.
    """

    def __init__(self, name: str, folder: Path, count: int, low_ms: float, high_ms: float) -> None:
        self._hosts = [(f"{name}-{number}", f"{NETWORK}.{number}") for number in range(1, count + 1)]
        self._free = list(self._hosts)
        for host, _ in self._hosts:
            _ip("netns", "add", host)
            _ip("-n", host, "link", "set", "lo", "up")
        ready = folder / "slow_link.ready"
        words = [f"{host}={address}" for host, address in self._hosts]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.slow_link", str(low_ms), str(high_ms), str(ready), *words],
            stdout=subprocess.PIPE, text=True, env=environment(),
        )
        eventually("the slow network is there", 20, lambda: ready.exists() or None)

    def host(self, side: str) -> tuple[str, str]:
        """The next host; there are no sides."""
        return self._free.pop(0)

    def lose(self, percent: int) -> None:
        """Lose that share of the packets that arrive at each host."""
        for host, _ in self._hosts:
            _nft(host, f"""
                table inet loss {{
                  chain arriving {{
                    type filter hook input priority 0
                    iifname "{DEVICE}" numgen random mod 100 < {percent} counter drop
                    iifname "{DEVICE}" counter
                  }}
                }}
            """, "-f", "-")

    def lost(self) -> tuple[int, int]:
        """Packets lost so far, and packets that arrived."""
        lost = arrived = 0
        for host, _ in self._hosts:
            for item in json.loads(_nft(host, "", "--json", "list", "ruleset"))["nftables"]:
                counted = [part["counter"]["packets"] for part in item.get("rule", {}).get("expr", ())
                           if "counter" in part]
                if counted and any("drop" in part for part in item["rule"]["expr"]):
                    lost += counted[0]
                elif counted:
                    arrived += counted[0]
        return lost, arrived

    def cut(self, namespace: str) -> None:
        """A host is gone as by a power failure: nobody is told."""
        _ip("-n", namespace, "link", "set", DEVICE, "down")

    def close(self) -> dict[str, float]:
        """Take it down; what it carried."""
        self._process.terminate()
        said, _ = self._process.communicate(timeout=10)
        for name, _ in self._hosts:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=10)
        statistics: dict[str, float] = json.loads(said) if said else {}
        return statistics


def _nft(namespace: str, rules: str, *words: str) -> str:
    done = subprocess.run(["ip", "netns", "exec", namespace, "nft", *words], input=rules, check=True,
                          capture_output=True, text=True, timeout=10)
    return done.stdout


@contextmanager
def switch() -> Iterator[Switch]:
    """A switch for the length of the block. Skips where namespaces cannot be made; in CI that is a failure."""
    _require("ip")
    made = Switch(f"atm{os.getpid()}")
    try:
        yield made
    finally:
        made.close()


@contextmanager
def slow_network(folder: Path, count: int, low_ms: float, high_ms: float) -> Iterator[SlowNetwork]:
    """A slow network of *count* hosts for the length of the block; at its end it says what it carried.

    Skips where it cannot be made; in CI that is a failure.
    """
    _require("ip", "nft")
    made = SlowNetwork(f"slow{os.getpid()}", folder, count, low_ms, high_ms)
    try:
        yield made
    finally:
        print(f"the slow network: {made.close()}")


def _require(*commands: str) -> None:
    packages = {"ip": "iproute2", "nft": "nftables"}
    missing = [f"the command `{name}` ({packages[name]})" for name in commands if shutil.which(name) is None]
    if "nft" in commands and not Path("/dev/net/tun").exists():
        missing.append("/dev/net/tun")
    if os.geteuid() != 0:
        missing.append("root")
    if missing:
        reason = f"network namespaces need {' and '.join(missing)}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
