"""Stand-ins for what asks the operating system: clocks, entropy, threads, sockets, processes.

:func:`install` puts them in place, once per process: in the standard library, and wherever a watched package holds
the original (a module's name, a default argument, a closure such as a dataclass's default factory). Outside a run they
are the originals. Inside a run, in its thread, clocks and entropy are the world's, and what would leave the world
raises :class:`Escape` and is remembered.

What cannot be seen from here: randomness and clocks of compiled code (keys drawn by OpenSSL and libsodium's own calls;
a node in a world gets its keys from the seed), and the addresses of objects (sets of objects without a hash of their
own). The hash of the trace shows whether such a thing mattered.
"""

from __future__ import annotations

import datetime
import os
import random  # noqa: TID251  # the originals are replaced here
import socket
import subprocess
import sys
import threading
import time  # noqa: TID251  # the originals are replaced here
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import nacl.bindings
import trio
from libp2p.tools.timed_cache.base_timed_cache import BaseTimedCache

EPOCH: Final = 1_800_000_000.0
"""Wall-clock time at the start of a world, Unix seconds."""

UPTIME_S: Final = 100_000.0
"""What the system's monotonic clocks show at the start: a machine has been up for a while."""

WATCHED = ("atmosphere", "libp2p", "multiaddr", "nacl", "protocols", "simulations", "transports")
"""Packages in which no original may be left."""

_OWN = "simulations.virtual"
_URANDOM = os.urandom  # noqa: TID251  # replaced here

wall_s = time.perf_counter
"""Real seconds, for figures."""
cpu_s = time.process_time
"""Real seconds of CPU of this process."""


class Escape(RuntimeError):
    """Something in a virtual world reached for the real one."""


@dataclass
class Inside:
    """A run that is on."""

    thread: int
    clock: Callable[[], float]
    entropy: random.Random
    escapes: list[str] = field(default_factory=list)


_run: Inside | None = None
_installed = False


def _inside() -> Inside | None:
    """The run that is on, for callers in its thread."""
    return _run if _run is not None and _run.thread == threading.get_ident() else None


@contextmanager
def inside(run: Inside) -> Iterator[None]:
    """*run* is on for the length of the block."""
    global _run
    if _run is not None:
        raise RuntimeError("a virtual world runs in this process already; use a process for each")
    _run = run
    try:
        yield
    finally:
        _run = None


# Clocks and entropy --------------------------------------------------------------------------------------------------


def _clock(original: Callable[[], Any], start: float, unit: int) -> Callable[[], Any]:
    def stand_in() -> float | int:
        run = _inside()
        if run is None:
            return original()  # type: ignore[no-any-return]
        seconds = start + run.clock()
        return seconds if unit == 1 else int(seconds * unit)

    return stand_in


def _entropy(original: Callable[[int], bytes]) -> Callable[[int], bytes]:
    def stand_in(size: int = 32) -> bytes:
        run = _inside()
        return original(size) if run is None else run.entropy.randbytes(size)

    return stand_in


class _Dates(type(datetime.datetime)):  # type: ignore[misc]  # the metaclass of datetime is type
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, datetime.datetime)


class _VirtualDatetime(datetime.datetime, metaclass=_Dates):
    """datetime, whose today is the world's."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return datetime.datetime.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls) -> Any:
        return datetime.datetime.fromtimestamp(time.time(), datetime.UTC).replace(tzinfo=None)


_STAND_INS: dict[Any, Any] = {
    time.time: _clock(time.time, EPOCH, 1),
    time.time_ns: _clock(time.time_ns, EPOCH, 10**9),
    time.monotonic: _clock(time.monotonic, UPTIME_S, 1),
    time.monotonic_ns: _clock(time.monotonic_ns, UPTIME_S, 10**9),
    time.perf_counter: _clock(time.perf_counter, UPTIME_S, 1),
    time.perf_counter_ns: _clock(time.perf_counter_ns, UPTIME_S, 10**9),
    _URANDOM: _entropy(_URANDOM),
    nacl.bindings.randombytes: _entropy(nacl.bindings.randombytes),
}
"""Original -> stand-in, for functions that answer."""

_REPLACED = {**_STAND_INS, datetime.datetime: _VirtualDatetime}


# What would leave the world ------------------------------------------------------------------------------------------


def _forbid(owner: Any, name: str, what: str) -> None:
    original = getattr(owner, name)

    def stand_in(*args: Any, **options: Any) -> Any:
        run = _inside()
        if run is None:
            return original(*args, **options)
        message = f"{what} in a virtual world: {_describe(args)}; use the node's Env, or a twin in memory"
        run.escapes.append(message)
        raise Escape(message)

    setattr(owner, name, stand_in)


def _describe(args: tuple[Any, ...]) -> str:
    return ", ".join(repr(arg) if isinstance(arg, str | bytes | int | float) else type(arg).__name__ for arg in args)


def _seed_of_generator(original: Callable[..., None]) -> Callable[..., None]:
    def seed(self: random.Random, a: Any = None, version: int = 2) -> None:
        run = _inside()
        if a is None and run is not None and type(self) is not random.SystemRandom:
            a = run.entropy.getrandbits(256)
        original(self, a, version)

    return seed


def _cache_without_thread(self: Any, ttl: int, sweep_interval: int = 60) -> None:
    """The library's caches with a lifetime: each starts a thread that sweeps it by the wall clock."""
    self.ttl, self.sweep_interval, self.cache = ttl, sweep_interval, {}
    self.lock = threading.Lock()


# In place ------------------------------------------------------------------------------------------------------------


def install() -> None:
    """Put every stand-in in its place. May be called again, after more has been imported."""
    global _installed
    if not _installed:
        _installed = True
        for original, stand_in in _STAND_INS.items():
            if original is not nacl.bindings.randombytes:
                setattr(time if original.__module__ == "time" else os, original.__name__, stand_in)
        random._urandom = _STAND_INS[_URANDOM]  # type: ignore[attr-defined]
        random.Random.seed = _seed_of_generator(random.Random.seed)  # type: ignore[method-assign]
        _forbid(time, "sleep", "time.sleep")
        _forbid(threading.Thread, "start", "a thread")
        _forbid(trio._threads, "start_thread_soon", "a thread of Trio's")
        _forbid(socket.socket, "__init__", "a socket")
        _forbid(subprocess.Popen, "__init__", "a process")
        _swap_cache()
    for _, holder, name, original in list(originals_left()):
        _rebind(holder, name, _REPLACED[original])


def _swap_cache() -> None:
    start, stop = BaseTimedCache.__init__, BaseTimedCache.stop

    def init(self: Any, ttl: int, sweep_interval: int = 60) -> None:
        (start if _inside() is None else _cache_without_thread)(self, ttl, sweep_interval)

    def end(self: Any) -> None:
        if hasattr(self, "_thread"):
            stop(self)

    BaseTimedCache.__init__ = init  # type: ignore[method-assign]
    BaseTimedCache.stop = end  # type: ignore[method-assign]


def originals_left() -> Iterator[tuple[str, Any, str | int, Any]]:
    """Where watched packages hold an original: (description, holder, name or position, original)."""
    for module_name, module in list(sys.modules.items()):
        if module_name.split(".")[0] not in WATCHED or module_name.startswith(_OWN):
            continue
        for name, value in list(vars(module).items()):
            if _is_original(value):
                yield f"{module_name}.{name}", module, name, value
            elif getattr(value, "__module__", None) != module_name:
                continue
            elif isinstance(value, types.FunctionType):
                yield from _in_function(f"{module_name}.{name}", value)
            elif isinstance(value, type):
                for attribute, member in list(vars(value).items()):
                    if _is_original(member):
                        yield f"{module_name}.{name}.{attribute}", value, attribute, member
                    function = getattr(member, "__func__", member)
                    if isinstance(function, types.FunctionType):
                        yield from _in_function(f"{module_name}.{name}.{attribute}", function)


def _in_function(where: str, function: types.FunctionType) -> Iterator[tuple[str, Any, str | int, Any]]:
    for position, default in enumerate(function.__defaults__ or ()):
        if _is_original(default):
            yield f"{where}, a default", function, position, default
    for name, default in (function.__kwdefaults__ or {}).items():
        if _is_original(default):
            yield f"{where}, default of {name}", function.__kwdefaults__, name, default
    for cell in function.__closure__ or ():
        try:
            value = cell.cell_contents
        except ValueError:  # not bound yet
            continue
        if _is_original(value):
            yield f"{where}, a closure", cell, "cell_contents", value


def _is_original(value: Any) -> bool:
    return isinstance(value, types.BuiltinFunctionType | types.FunctionType | type) and value in _REPLACED


def _rebind(holder: Any, name: str | int, stand_in: Any) -> None:
    if isinstance(name, int):
        defaults = list(holder.__defaults__)
        defaults[name] = stand_in
        holder.__defaults__ = tuple(defaults)
    elif isinstance(holder, dict):
        holder[name] = stand_in
    else:
        setattr(holder, name, stand_in)
