"""A closed-loop HTTP load: ``python -m tests.benchmarks.load PORT CONNECTIONS SECONDS MODEL [--stream]``.

Prints one line of JSON.

Each connection sends a request, reads the whole answer, sends the next. Plain sockets, so that the load does not
cost more than what it loads.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import selectors
import socket
import time
from dataclasses import dataclass

WARM_UP_S = 0.5


@dataclass
class Client:
    began: float
    received: bytes = b""


class Failed(Exception):
    """The server did not answer with 200, or closed."""


def request(port: int, model: str, stream: bool) -> bytes:
    messages = [{"role": "user", "content": "What is the weather like in Berlin today, and what should I wear?"}]
    body = json.dumps({"model": model, "messages": messages, "stream": stream}).encode()
    return (f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
            f"Accept: application/json\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body


def complete(received: bytes) -> bool:
    """Whether *received* is a whole answer. Raises :class:`Failed` unless it is a good one."""
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return False
    if not head.startswith(b"HTTP/1.1 200"):
        raise Failed((head + body)[:500].decode(errors="replace"))
    for line in head.split(b"\r\n"):
        if line[:15].lower() == b"content-length:":
            return len(body) >= int(line[15:])
    return body.endswith(b"\r\n0\r\n\r\n")


def run(port: int, connections: int, seconds: float, model: str, stream: bool) -> dict[str, float]:
    """Load for *seconds* after a warm-up. ``all_requests`` has those of the warm-up too; latencies in ms have not."""
    message = request(port, model, stream)
    clients: dict[socket.socket, Client] = {}
    latencies: list[float] = []
    answered = 0
    with selectors.DefaultSelector() as selector:

        def connect(began: float) -> None:
            sock = socket.create_connection(("127.0.0.1", port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(sock, selectors.EVENT_READ)
            clients[sock] = Client(began)
            sock.sendall(message)

        for _ in range(connections):
            connect(time.perf_counter())
        counted_from = time.perf_counter() + WARM_UP_S
        end = counted_from + seconds
        while (now := time.perf_counter()) < end:
            for key, _ in selector.select(1):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                client = clients[sock]
                try:
                    part = sock.recv(65536)
                except ConnectionResetError:
                    part = b""
                if not part:
                    if client.received:
                        raise Failed("the server closed a connection within an answer")
                    selector.unregister(sock)  # some servers close after a number of requests: that costs them time
                    clients.pop(sock)
                    sock.close()
                    connect(client.began)
                    continue
                client.received += part
                if complete(client.received):
                    now = time.perf_counter()
                    answered += 1
                    if client.began >= counted_from:
                        latencies.append((now - client.began) * 1000)
                    clients[sock] = Client(now)
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # closed: seen at the next read
                        sock.sendall(message)
        for sock in clients:
            sock.close()
    latencies.sort()
    if not latencies:
        raise Failed("no request was answered in the time")
    return {"requests": len(latencies), "all_requests": answered,
            "p50_ms": latencies[len(latencies) // 2], "p99_ms": latencies[int(len(latencies) * 0.99)],
            "rate": len(latencies) / seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("connections", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("model")
    parser.add_argument("--stream", action="store_true")
    options = parser.parse_args()
    try:
        result = run(options.port, options.connections, options.seconds, options.model, options.stream)
    except Failed as error:
        raise SystemExit(f"load: {error}") from error
    print(json.dumps(result))


if __name__ == "__main__":
    main()
