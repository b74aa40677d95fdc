"""A real js-libp2p peer in a process of its own, driven over its stdin and stdout (tests/interop/js/peer.mjs)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import trio

from tests.transports.support import eventually
from transports.addresses import split_peer
from transports.host import Host
from transports.peer_id import PeerId

Transport = Literal["tcp", "ws"]
Dialler = Literal["js", "we"]
Security = Literal["noise", "tls"]

START_S = 15.0
ANSWER_S = 20.0
END_S = 5.0


class JsError(Exception):
    """The js peer could not do what it was asked to; the text is its own."""


class JsPeer:
    """The remote control. :meth:`call` may be used by several tasks at once."""

    peer_id: PeerId
    addresses: dict[Transport, str]

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._answers: dict[int, trio.MemorySendChannel[dict[str, Any]]] = {}
        self._count = 0
        self.events: list[dict[str, Any]] = []

    async def read(self) -> None:
        """Take in answers and events until the process ends."""
        assert self._process.stdout is not None
        buffer = b""
        async for received in self._process.stdout:
            *lines, buffer = (buffer + received).split(b"\n")
            for line in map(json.loads, lines):
                if "event" in line:
                    self.events.append(line)
                else:
                    self._answers.pop(line["id"]).send_nowait(line)

    async def call(self, do: str, **args: object) -> Any:
        """The result of a command of peer.mjs; raises :class:`JsError`, or TooSlowError without an answer."""
        assert self._process.stdin is not None
        self._count += 1
        number = self._count
        send, receive = trio.open_memory_channel[dict[str, Any]](1)
        self._answers[number] = send
        with trio.fail_after(ANSWER_S):
            await self._process.stdin.send_all(json.dumps({"id": number, "do": do, **args}).encode() + b"\n")
            answer = await receive.receive()
        if "error" in answer:
            raise JsError(answer["error"])
        return answer["result"]

    def said(self, event: str, **fields: object) -> list[dict[str, Any]]:
        """The events of this kind with these fields that have come so far."""
        wanted = {"event": event, **fields}
        return [line for line in self.events if wanted.items() <= line.items()]

    async def event(self, event: str, seconds: float = 10.0, **fields: object) -> dict[str, Any]:
        """The first such event, waiting for it."""
        await eventually(lambda: self.said(event, **fields), seconds)
        return self.said(event, **fields)[0]


@asynccontextmanager
async def js_peer(folder: Path, security: Security = "noise") -> AsyncIterator[JsPeer]:
    """Run the peer that is installed in *folder* for the length of the block."""
    command = ["node", "--experimental-websocket", "peer.mjs", security]  # Node has WebSocket by itself from 22 on
    process = await trio.lowlevel.open_process(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    peer = JsPeer(process)
    try:
        async with process.stdin, process.stdout, trio.open_nursery() as nursery:
            nursery.start_soon(peer.read)
            ready = await peer.event("ready", START_S)
            peer.peer_id = split_peer(ready["addresses"][0])[0]
            peer.addresses = {"ws" if "/ws/" in address else "tcp": address for address in ready["addresses"]}
            yield peer
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            with trio.move_on_after(END_S):
                await process.wait()  # it ends with its stdin
            if process.returncode is None:
                process.kill()
                await process.wait()


async def meet(host: Host, js: JsPeer, dialler: Dialler = "js", transport: Transport = "tcp") -> None:
    """Connect the two and return when both know it."""
    if dialler == "we":
        await host.connect(js.peer_id, [split_peer(js.addresses[transport])[1]])
    else:
        with trio.fail_after(5):
            while await js.call("connections"):  # noqa: ASYNC110 - it would answer with one that is about to end
                await trio.sleep(0.005)
        mine = next(a for a in host.addresses if ("/ws/" in a) == (transport == "ws"))
        await js.call("dial", address=mine)
    await eventually(lambda: js.peer_id in host.connections())
