"""Adapters: one file per kind of backend.

A module of this package that defines ``ADAPTER`` (an :class:`AdapterKind`) is a kind that the owner can configure by
name and that the scanner can find on its usual ports. Adding a kind is adding a file.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from atmosphere.capabilities.backend import Backend


@dataclass(frozen=True, slots=True)
class AdapterKind:
    """A kind of backend that is reached by an address."""

    name: str
    """What the owner writes: ``openai``, ``ollama``."""
    ports: tuple[int, ...]
    """Loopback ports where such servers usually listen."""
    open: Callable[[str, str, int], Backend]
    """(base URL, API key or "", calls at once per model) -> backend. Opens no connection. Raises ValueError."""


def adapter_kinds() -> Mapping[str, AdapterKind]:
    """Every kind there is, by name: the modules of this package are imported once and asked."""
    kinds: dict[str, AdapterKind] = {}
    for module in pkgutil.iter_modules(__path__):
        kind = getattr(importlib.import_module(f"{__name__}.{module.name}"), "ADAPTER", None)
        if isinstance(kind, AdapterKind):
            if kind.name in kinds:
                raise RuntimeError(f"two adapters are called {kind.name!r}")
            kinds[kind.name] = kind
    return MappingProxyType(kinds)
