"""Keeps the registry true: looks at the configured backends and at the usual local ports, again and again.

A backend that vanishes is out of the registry within 10 s, one that returns is in it again within the same time: a poll
every 5 s, at most two silent answers of 2 s each. A refused connection counts at once. Silence does not count while one
of the backend's calls makes progress: a busy server may be slow to list its models. A call that fails makes the scanner
look at once.

Ports that nobody configured are only looked at on loopback. Another Atmosphere node, and this one, is never taken for
a backend: that would send work round in a circle.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

import trio

from atmosphere.capabilities.adapters import AdapterKind, adapter_kinds
from atmosphere.capabilities.adapters.openai import DISCOVER_TIMEOUT_S, NODE_HEADER
from atmosphere.capabilities.backend import Backend, BackendGone, BackendSilent, Provision
from atmosphere.capabilities.card import CONTINUE
from atmosphere.capabilities.registry import LocalRegistry
from atmosphere.capabilities.upstream import Upstream, UpstreamError
from atmosphere.config import BackendConfig, ConfigError

log = logging.getLogger(__name__)

POLL_S = 5.0
MIN_GAP_S = 0.5      # between two looks at one backend, however many calls fail
SILENCES = 2         # in a row, then it counts as gone
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True, slots=True)
class Target:
    """One address to look at."""

    url: str
    kind: AdapterKind
    key: str = field(default="", repr=False)
    configured: bool = False
    """The owner named it; otherwise it is a usual port on loopback."""
    continuation: bool = False
    """The owner says that it goes on with an answer whose beginning it is given."""
    price_micros: int = 0
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """How it stands with one target, for people."""

    url: str
    kind: str
    configured: bool
    up: bool
    models: tuple[str, ...]
    """What it serves now; a capability without a model is named by its type."""
    reason: str
    """Why it is not up; empty when it is."""


def plan_targets(
    backends: Sequence[BackendConfig],
    *,
    probe: bool = True,
    environ: Mapping[str, str],
    kinds: Mapping[str, AdapterKind] | None = None,
) -> tuple[Target, ...]:
    """What to look at: the configured backends, and with *probe* each usual port that none of them is on.

    *environ* holds the API keys. Raises :class:`ConfigError` for an unknown kind, a bad address or a missing key.
    """
    kinds = adapter_kinds() if kinds is None else kinds
    targets = []
    for backend in backends:
        kind = kinds.get(backend.kind)
        if kind is None:
            raise ConfigError(f"backend {backend.url}: unknown kind {backend.kind!r}; known are {', '.join(kinds)}")
        if backend.key_env is not None and backend.key_env not in environ:
            raise ConfigError(f"backend {backend.url}: its key is to be in ${backend.key_env}, which is not set")
        try:
            _address(backend.url)
        except ValueError as error:
            raise ConfigError(f"backend {backend.url}: {error}") from error
        key = environ[backend.key_env] if backend.key_env else ""
        targets.append(Target(backend.url, kind, key, configured=True, continuation=backend.continuation,
                              price_micros=backend.price_micros, labels=backend.labels))
    taken = {_address(target.url) for target in targets}
    if probe:
        for kind in kinds.values():
            for port in kind.ports:
                if ("loopback", port) not in taken:
                    taken.add(("loopback", port))
                    targets.append(Target(f"http://127.0.0.1:{port}", kind))
    return tuple(targets)


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected http://HOST:PORT or https://HOST/PREFIX")
    host = "loopback" if parts.hostname in _LOOPBACK else parts.hostname
    return host, parts.port or (443 if parts.scheme == "https" else 80)


def _continuing(provision: Provision) -> Provision:
    """*provision* with the feature ``continue`` on the card, if it streams text."""
    card = provision.card
    if "stream" not in card.features:
        return provision
    return replace(provision, card=replace(card, features=(*card.features, CONTINUE)))


def _owned(provision: Provision, target: Target) -> Provision:
    """*provision* with what the owner says of the backend that it comes from."""
    return replace(provision, price_micros=provision.price_micros or target.price_micros,
                   labels=tuple(dict.fromkeys((*provision.labels, *target.labels))))


async def is_node(url: str) -> bool:
    """Whether an Atmosphere node listens at *url*. Raises :class:`BackendGone` when nobody does."""
    parts = urlsplit(url)
    upstream = Upstream(f"{parts.scheme}://{parts.netloc}")
    try:
        answer = await upstream.get("/v1/health", timeout_s=DISCOVER_TIMEOUT_S)
    except UpstreamError as error:
        if error.started:
            return False  # it does not like the question; its answer to discover() counts
        raise BackendGone(str(error)) from error
    finally:
        await upstream.aclose()
    if NODE_HEADER in answer.headers:
        return True
    try:
        health = answer.json()
    except ValueError:
        return False
    return isinstance(health, dict) and "atmosphere" in health


class _Watch:
    """One target: its backend, and whether it is there."""

    def __init__(self, target: Target, concurrency: int) -> None:
        self.target = target
        self.backend: Backend = target.kind.open(target.url, target.key, concurrency)
        self.up = False
        self.silences = 0
        self.models: tuple[str, ...] = ()
        self.reason = "not looked at yet"
        self.looked = False
        self.look_now = trio.Event()
        self.scope = trio.CancelScope()

    def status(self) -> TargetStatus:
        target = self.target
        return TargetStatus(
            target.url, target.kind.name, target.configured, self.up, self.models, "" if self.up else self.reason
        )


class Scanner:
    """Looks at its targets until cancelled; owns the backends it opens.

    :meth:`run` never raises because of what a backend does. Nothing waits for it: a node is ready before its backends
    have answered.
    """

    def __init__(
        self,
        registry: LocalRegistry,
        targets: Sequence[Target],
        *,
        concurrency: int = 4,
        poll_s: float = POLL_S,
        is_node: Callable[[str], Awaitable[bool]] = is_node,
    ) -> None:
        """*concurrency*: calls at once per model. Raises ValueError for an address that is none."""
        self._is_node = is_node
        self._registry = registry
        self._poll_s = poll_s
        self._concurrency = concurrency
        self._watches = [_Watch(target, concurrency) for target in targets]
        self._nursery: trio.Nursery | None = None
        self._settled = trio.Event()
        self._see_whether_settled()

    def __repr__(self) -> str:
        return f"<Scanner {sum(watch.up for watch in self._watches)} of {len(self._watches)} targets are up>"

    async def run(self) -> None:
        """Look at every target at once and then every *poll_s* seconds; closes the backends when cancelled."""
        self._registry.on_suspect = self.suspect
        async with trio.open_nursery() as self._nursery:
            for watch in self._watches:
                self._nursery.start_soon(self._keep_looking, watch)
            await trio.sleep_forever()

    def retarget(self, targets: Sequence[Target]) -> None:
        """Look at *targets* from now on: new ones at once; those that are not among them are closed.

        Raises ValueError for an address that is none; then nothing has changed.
        """
        kept = [watch for watch in self._watches if watch.target in targets]
        known = {watch.target for watch in kept}
        added = [_Watch(target, self._concurrency) for target in targets if target not in known]
        for watch in self._watches:
            if watch not in kept:
                watch.scope.cancel()
        self._watches = kept + added
        if self._nursery is not None:
            for watch in added:
                self._nursery.start_soon(self._keep_looking, watch)

    async def settled(self) -> None:
        """Wait until every target has been looked at once: 2 s at most, much less when nothing is silent."""
        await self._settled.wait()

    def suspect(self, backend: Backend) -> None:
        """Look at *backend* now: a call on it failed."""
        for watch in self._watches:
            if watch.backend is backend:
                watch.look_now.set()

    def statistics(self) -> tuple[TargetStatus, ...]:
        """Every target that was configured or is up."""
        return tuple(watch.status() for watch in self._watches if watch.target.configured or watch.up)

    async def _keep_looking(self, watch: _Watch) -> None:
        try:
            with watch.scope:
                await self._look(watch)
                watch.looked = True
                self._see_whether_settled()
                while True:
                    if not watch.silences:  # after a silence: again at once
                        await trio.sleep(min(MIN_GAP_S, self._poll_s))
                        with trio.move_on_after(max(self._poll_s - MIN_GAP_S, 0)):
                            await watch.look_now.wait()
                        watch.look_now = trio.Event()
                    await self._look(watch)
        finally:
            self._registry.remove(watch.backend)
            with trio.CancelScope(shield=True):
                await watch.backend.aclose()

    def _see_whether_settled(self) -> None:
        if all(watch.looked for watch in self._watches):
            self._settled.set()

    async def _look(self, watch: _Watch) -> None:
        began = trio.current_time()
        try:
            if not watch.up and await self._is_node(watch.target.url):
                raise BackendGone(f"{watch.target.url} is an Atmosphere node, not a backend; join its mesh instead")
            provisions = await watch.backend.discover()
        except BackendSilent as error:
            if not watch.up:
                watch.reason = str(error)
                return
            watch.silences += 1
            if self._registry.last_activity(watch.backend) >= began:
                watch.silences = 0
            elif watch.silences >= SILENCES:
                self._lost(watch, str(error))
        except BackendGone as error:
            self._lost(watch, str(error))
        except Exception:  # a bug in an adapter must not take the node down; it is logged with its traceback
            log.exception("looking at %s failed", watch.target.url)
            self._lost(watch, "a bug in its adapter; the log has the details")
        else:
            self._found(watch, provisions)

    def _found(self, watch: _Watch, provisions: Sequence[Provision]) -> None:
        if not watch.up:
            log.info("found %s: %d capabilities", watch.backend.name, len(provisions))
        watch.up, watch.silences = True, 0
        watch.models = tuple(sorted({item.card.model or item.card.type for item in provisions}))
        if watch.target.continuation:
            provisions = [_continuing(item) for item in provisions]
        if watch.target.price_micros or watch.target.labels:
            provisions = [_owned(item, watch.target) for item in provisions]
        self._registry.update(watch.backend, provisions)

    def _lost(self, watch: _Watch, reason: str) -> None:
        if watch.up:
            log.info("lost %s: %s", watch.backend.name, reason)
        watch.up, watch.silences, watch.models, watch.reason = False, 0, (), reason
        self._registry.remove(watch.backend)
