"""Real nodes as processes on loopback, for the demo, the e2e tests and the benchmarks.

Every home is in a temporary folder; only processes that were started here are ended.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx2

COMMAND = Path(sys.executable).with_name("atmosphere-p2p")
READY_S = 20.0
"""A node is ready in two seconds; a busy machine and a cold disk get more."""
END_S = 15.0
"""More than a node's grace period."""
POLL_S = 0.02
TROUBLE = re.compile(r"^[-\d]+ [\d:,]+ (ERROR|CRITICAL) |Traceback \(most recent|^Exception ignored|^Fatal Python ",
                     re.MULTILINE)
"""What no node's log should have, whatever others do to it."""
REVOKED = re.compile(r"^.* ERROR atmosphere\.mesh\.service: this node has been revoked: .*$", re.MULTILINE)
"""What a revoked one may say there, if it hears of it before it is put out."""
SOAK = os.environ.get("ATMOSPHERE_SOAK") == "1"
"""``make soak``: the long forms of the tests that have one."""

T = TypeVar("T")


class NodeFailed(Exception):
    """A command or a node process did not do what it should; the text says what it said."""


@dataclass
class Node:
    """One running node process."""

    name: str
    home: Path
    http: str
    process: subprocess.Popen[bytes]
    ready_s: float
    """From the start of the process until its API answered."""
    revoked: bool = False
    """The test revokes it."""

    @property
    def log(self) -> str:
        """What the process has written so far."""
        return self.home.with_suffix(".log").read_text(errors="replace")

    @property
    def base_url(self) -> str:
        """For OpenAI clients."""
        return f"http://{self.http}/v1"

    def get(self, path: str) -> Any:
        return httpx2.get(f"http://{self.http}{path}", timeout=10).raise_for_status().json()

    def post(self, path: str, body: object) -> Any:
        return httpx2.post(f"http://{self.http}{path}", json=body, timeout=30).raise_for_status().json()

    def command(self, *words: str) -> str:
        """Run ``atmosphere-p2p WORDS`` on this node's home; its output. Raises :class:`NodeFailed`."""
        return command(self.home, *words)

    def kill(self) -> None:
        """End the process as a power failure would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """End the process gracefully; its exit status. Killed when it takes longer than :data:`END_S`."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(timeout=END_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise NodeFailed(f"node {self.name} did not end within {END_S:.0f} s of SIGTERM") from None


@dataclass
class Nodes:
    """The nodes of one test, in one temporary folder."""

    folder: Path
    running: list[Node] = field(default_factory=list)

    def start(self, name: str, *, invite: str | None = None, options: tuple[str, ...] = ()) -> Node:
        """Start a node: on a new mesh, or on the one that *invite* lets it join. Returns when its API answers."""
        home = self.folder / name
        command(home, *(("init",) if invite is None else ("join", invite)), "--name", name)
        return self.run(home, options=options)

    def run(self, home: Path, *, options: tuple[str, ...] = (), mdns: bool = False,
            program: tuple[str | Path, ...] = (COMMAND,)) -> Node:
        """Start the process of the node in *home*. Returns when its API answers.

        *program*: something that takes the same words as ``atmosphere-p2p``.
        """
        http = f"127.0.0.1:{free_port()}"
        listen = () if "--listen" in options else ("--listen", "/ip4/127.0.0.1/tcp/0")
        began = time.perf_counter()
        with home.with_suffix(".log").open("ab") as log:
            process = subprocess.Popen(
                [*program, "--home", home, "run", "--http", http, *(() if mdns else ("--no-mdns",)), *listen, *options],
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=environment(),
            )
        node = Node(home.name, home, http, process, 0.0)
        self.running.append(node)

        def healthy() -> bool | None:
            if process.poll() is not None:
                raise NodeFailed(f"node {node.name} ended with status {process.returncode}: {node.log[-2000:]}")
            return True if node.get("/v1/health") else None

        eventually(f"node {node.name} answers", READY_S, healthy)
        node.ready_s = time.perf_counter() - began
        return node


@contextmanager
def nodes() -> Iterator[Nodes]:
    """A place for nodes. When the block ends its processes end and its folder goes; after an error logs are shown.

    Raises :class:`NodeFailed` at the end when a node did not end, or when a log has :data:`TROUBLE`.
    """
    group = Nodes(Path(tempfile.mkdtemp(prefix="atmosphere-")))
    try:
        yield group
        for node in group.running:
            if node.process.poll() is None:
                node.process.terminate()  # all first, then wait: they end side by side
        for node in group.running:
            node.stop()
        revoked = {node.home for node in group.running if node.revoked}
        for home in {node.home for node in group.running}:
            check_log(home, revoked=home in revoked)
    except BaseException:
        for node in group.running:
            print(f"--- log of {node.name}\n{node.log[-2000:]}", file=sys.stderr)
        raise
    finally:
        for node in group.running:
            if node.process.poll() is None:
                node.kill()
        shutil.rmtree(group.folder, ignore_errors=True)


def check_log(home: Path, *, revoked: bool = False) -> None:
    """Raise :class:`NodeFailed` with the place where the log of the node in *home* has :data:`TROUBLE`, if it has."""
    log = home.with_suffix(".log").read_text(errors="replace")
    if revoked:
        log = REVOKED.sub("", log)
    if found := TROUBLE.search(log):
        raise NodeFailed(f"the log of node {home.name} tells of an error: {log[max(0, found.start() - 200):][:5000]}")


def command(home: Path, *words: str) -> str:
    """Run ``atmosphere-p2p --home HOME WORDS``; its output. Raises :class:`NodeFailed` with what it said."""
    done = subprocess.run([COMMAND, "--home", home, *words], capture_output=True, text=True, timeout=60, check=False,
                          env=environment())
    if done.returncode:
        raise NodeFailed(f"`{' '.join(words[:2])}` failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def invite(node: Node, uses: int = 1) -> str:
    """A fresh invite into the mesh of *node*."""
    return str(json.loads(node.command("invite", "--uses", str(uses), "--json"))["invite"])


def environment() -> dict[str, str]:
    """The environment without what would point a node at somebody's home or proxy."""
    return {name: value for name, value in os.environ.items()
            if name != "ATMOSPHERE_HOME" and not name.lower().endswith("_proxy")}


def free_port() -> int:
    """A TCP port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def strained(seconds: float) -> float:
    """What *seconds* of a machine with time for us are on this one now: more, if it has more to do than processors."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def eventually(what: str, seconds: float, look: Callable[[], T | None]) -> T:
    """The first result of *look* that is not None; raises :class:`NodeFailed` after *seconds* (:func:`strained`)."""
    seconds = strained(seconds)
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = look()
        except httpx2.TransportError:
            found = None
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise NodeFailed(f"{what}: not within {seconds:.0f} s")
        time.sleep(POLL_S)


def wait_for_capability(at: Node, kind: str, names: set[str], seconds: float = 30.0) -> None:
    """Return when *at* knows that each node of *names* is online and offers a capability of type *kind*."""

    def known() -> bool | None:
        able = {node["name"] for node in at.get("/v1/mesh/nodes")["nodes"]
                if node["state"] == "online" and any(item["type"] == kind for item in node["capabilities"])}
        return True if able >= names else None

    eventually(f"{at.name} knows {kind} of {', '.join(sorted(names))}", seconds, known)
