"""A network that takes its time: every packet between two hosts is held for a while. ``python -m tests.e2e.slow_link``.

Kernels are often built without netem (``tc qdisc add ... netem`` fails there), so the delay is made here: each host, a
network namespace, has one TUN device, and this one process carries every packet from the device it came out of to that
of the host it is addressed to. Its delay is drawn for each packet; on one way no packet overtakes another, as in one
queue, for what arrives out of order is told apart from loss only slowly by TCP and would be a third trouble.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import heapq
import ipaddress
import json
import os
import random
import selectors
import signal
import struct
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

DEVICE = "tun0"
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_CLONE_NEWNET = 0x40000000
_IPV4 = 4
MTU = 1500
QUEUE = 20_000
"""Packets on their way at most; beyond, they are lost, as in any router."""


def open_device(namespace: str, address: str) -> int:
    """A TUN device in *namespace*, up, with *address* and a route to all others of its /24; its file descriptor."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        _enter(libc, there)
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
    finally:
        _enter(libc, home)
        os.close(home)
        os.close(there)
    for words in (("addr", "add", f"{address}/24", "dev", DEVICE), ("link", "set", DEVICE, "mtu", str(MTU), "up")):
        subprocess.run(["ip", "-n", namespace, *words], check=True, capture_output=True, timeout=10)
    return device


def _enter(libc: ctypes.CDLL, namespace: int) -> None:
    if libc.setns(namespace, _CLONE_NEWNET):  # os.setns exists from Python 3.12 on
        raise OSError(ctypes.get_errno(), "setns")


@dataclass
class Link:
    """All ways between the hosts."""

    devices: dict[bytes, int]
    """File descriptors by IPv4 address."""
    low_s: float
    high_s: float
    waiting: list[tuple[float, int, int, bytes]] = field(default_factory=list)
    free_at: dict[tuple[bytes, bytes], float] = field(default_factory=dict)
    """When the last packet of each way (from, to) leaves."""
    carried: int = 0
    dropped: int = 0
    delays: list[float] = field(default_factory=list)
    """What the last packets really took."""

    def take(self, packet: bytes, now: float) -> None:
        """Hold *packet* for its delay. What is not IPv4 for one of the hosts goes nowhere."""
        if packet[0] >> 4 != _IPV4:
            return
        way = packet[12:16], packet[16:20]
        target = self.devices.get(way[1])
        if target is None or len(self.waiting) >= QUEUE:
            self.dropped += 1
            return
        due = max(now + random.uniform(self.low_s, self.high_s), self.free_at.get(way, 0.0))
        self.free_at[way] = due
        self.carried += 1
        heapq.heappush(self.waiting, (due, self.carried, target, packet))
        self.delays.append(due - now)

    def give(self, now: float) -> float | None:
        """Deliver what is due; seconds until the next, None if nothing waits."""
        while self.waiting and self.waiting[0][0] <= now:
            _, _, target, packet = heapq.heappop(self.waiting)
            try:
                os.write(target, packet)
            except OSError:  # the host has gone, or takes no more: lost
                self.dropped += 1
        return self.waiting[0][0] - now if self.waiting else None

    def run(self) -> None:
        """Carry packets until SIGTERM."""
        ended = False

        def end(number: int, frame: object) -> None:
            nonlocal ended
            ended = True

        signal.signal(signal.SIGTERM, end)
        with selectors.DefaultSelector() as selector:
            for device in self.devices.values():
                selector.register(device, selectors.EVENT_READ)
            while not ended:
                wait = self.give(time.monotonic())
                for key, _ in selector.select(0.2 if wait is None else max(0.0, min(wait, 0.2))):
                    try:
                        while True:
                            self.take(os.read(key.fd, MTU + 100), time.monotonic())
                    except BlockingIOError:
                        continue
                del self.delays[:-QUEUE]

    def statistics(self) -> dict[str, float]:
        ordered = sorted(self.delays) or [0.0]
        return {"carried": self.carried, "dropped": self.dropped, "delay_p50_ms": ordered[len(ordered) // 2] * 1000,
                "delay_min_ms": ordered[0] * 1000, "delay_max_ms": ordered[-1] * 1000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("low_ms", type=float)
    parser.add_argument("high_ms", type=float)
    parser.add_argument("ready", type=Path, help="written when the devices are there")
    parser.add_argument("hosts", nargs="+", metavar="NAMESPACE=ADDRESS")
    options = parser.parse_args()
    pairs = [host.split("=") for host in options.hosts]
    devices = {ipaddress.IPv4Address(address).packed: open_device(namespace, address) for namespace, address in pairs}
    link = Link(devices, options.low_ms / 1000, options.high_ms / 1000)
    options.ready.touch()
    link.run()
    print(json.dumps(link.statistics()), flush=True)


if __name__ == "__main__":
    main()
