"""What nodes say of each other, looked at all the time: every change of a state, with the time it was seen.

Reads the change log of each node's table on its control socket (which works across network namespaces): a look may come
late, but nothing that happened between two looks is missed.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx2

from tests.processes import eventually

STATES = {"known": "online", **{state: state for state in ("online", "suspect", "offline", "left")}}
"""Changes that are about a node's state; one that becomes known is online."""
EVERY_S = 0.1
TIMEOUT_S = 5.0


def control(home: Path) -> httpx2.Client:
    """A client of the node in *home*, with the owner's routes. Raises ConnectError when nobody answers there.

    It looks first: httpcore leaves its socket open where it cannot connect, and an open socket is a warning here.
    """
    with socket.socket(socket.AF_UNIX) as trial:
        try:
            trial.connect(str(home / "control.sock"))
        except OSError as error:
            raise httpx2.ConnectError(f"{home.name}: {error}") from error
    return httpx2.Client(transport=httpx2.HTTPTransport(uds=str(home / "control.sock")), base_url="http://node",
                         timeout=TIMEOUT_S)


def _get(client: httpx2.Client, path: str) -> Any:
    return client.get(path).raise_for_status().json()


@dataclass(frozen=True)
class Seen:
    """*observer* says since *at* (on ``time.perf_counter``) that *subject* is in *state*."""

    at: float
    observer: str
    subject: str
    state: str
    reason: str

    def __str__(self) -> str:
        return f"{self.observer} says {self.subject} is {self.state} ({self.reason})"


class Watch:
    """Looks at every node while inside. A node that does not answer is asked again: its silence says nothing."""

    def __init__(self, homes: Mapping[str, Path], every_s: float = EVERY_S) -> None:
        """*homes*: by the names of the nodes that are asked."""
        self.seen: list[Seen] = []
        self.looks = dict.fromkeys(homes, 0)
        """Answers so far, by observer: a watch that saw nothing must not pass for peace."""
        self._homes, self._every_s = homes, every_s
        self._names: dict[str, str] = {}
        self._now: dict[str, dict[str, str]] = {name: {} for name in homes}
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._look, args=(name, home)) for name, home in homes.items()]

    def __enter__(self) -> Watch:
        for name, home in self._homes.items():  # others may know a node for a while before they know its name
            with control(home) as client:
                self._names[_get(client, "/v1/health")["atmosphere"]["peer_id"]] = name
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _look(self, observer: str, home: Path) -> None:
        number = -1
        with control(home) as client:
            while not self._end.wait(self._every_s):
                try:
                    if number < 0:
                        number = self._begin(observer, client)
                    changes = _get(client, f"/v1/admin/changes?since={number}")["changes"]
                except httpx2.TransportError:
                    continue
                at = time.perf_counter()
                for change in changes:
                    number = change["number"]
                    state, _, reason = change["what"].partition(": ")
                    if state in STATES:
                        subject = self._names.get(change["peer_id"], change["name"])
                        self._note(Seen(at, observer, subject, STATES[state], reason))
                self.looks[observer] += 1

    def _begin(self, observer: str, client: httpx2.Client) -> int:
        """Note the states as they are now; the number of the change that all later ones follow."""
        changes = _get(client, "/v1/admin/changes?since=0")["changes"]
        views = _get(client, "/v1/mesh/nodes")["nodes"]
        at = time.perf_counter()
        for view in views:
            subject = self._names.get(view["peer_id"], view["name"])
            self._note(Seen(at, observer, subject, view["state"], view["reason"]))
        return int(changes[-1]["number"])

    def _note(self, seen: Seen) -> None:
        self.seen.append(seen)
        self._now[seen.observer][seen.subject] = seen.state

    def states(self, subject: str) -> dict[str, str]:
        """What each observer says of *subject* now; of itself a node says nothing."""
        return {observer: states.get(subject, "unknown") for observer, states in self._now.items()
                if observer != subject}

    def all_say(self, subject: str, state: str) -> bool:
        return set(self.states(subject).values()) == {state}

    def wait(self, state: str, seconds: float, *subjects: str) -> None:
        """Return when all say *state* of each of *subjects*. Raises NodeFailed after *seconds*."""
        eventually(f"all say that {', '.join(subjects)} is {state}", seconds,
                   lambda: all(self.all_say(subject, state) for subject in subjects) or None)

    def first(self, subject: str, *states: str, since: float) -> dict[str, float]:
        """When each observer first said one of *states* of *subject*: seconds after *since*."""
        found: dict[str, float] = {}
        for seen in list(self.seen):
            if seen.subject == subject and seen.state in states and seen.at >= since:
                found.setdefault(seen.observer, seen.at - since)
        return found

    def said(self, *states: str) -> list[Seen]:
        """Everybody who was ever said to be in one of *states*."""
        return [seen for seen in list(self.seen) if seen.state in states]
