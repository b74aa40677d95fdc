"""Ports of the machine: find free ones, read addresses that have one."""

from __future__ import annotations

import socket

ATTEMPTS = 50


def choose_port() -> int:
    """A port that is free together with the next one (WebSocket listens there), on all interfaces.

    Chosen by the system, so two nodes on one machine do not begin with the same. Raises OSError when none is found.
    """
    for _ in range(ATTEMPTS):
        with socket.socket() as probe:
            probe.bind(("0.0.0.0", 0))
            port = int(probe.getsockname()[1])
            if port < 65535 and is_free(port + 1):
                return port
    raise OSError("no two neighbouring TCP ports are free")


def is_free(port: int, host: str = "0.0.0.0") -> bool:
    """Whether *port* can be bound now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def split_host_port(text: str) -> tuple[str, int]:
    """``127.0.0.1:8080`` or ``[::1]:8080``; raises ValueError that shows how to write it."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is not HOST:PORT; write it like 127.0.0.1:11451")
    return host, int(port)
