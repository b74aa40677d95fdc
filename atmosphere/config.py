"""The node's settings: ``config.yaml`` in the home folder, typed, versioned, every default with its reason.

Precedence: command line over file over default. Unknown keys are an error that names them: a typo must not be
silently ignored.
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

VERSION = 1
FILE = "config.yaml"
DEFAULT_HTTP = "127.0.0.1:11451"
NETWORKS = ("lan", "wan", "simulation")
HOME_VARIABLE = "ATMOSPHERE_HOME"
PREFERENCES = ("fast", "cheap", "near")
DECISION_MODES = ("off", "ambiguous", "always")


class ConfigError(Exception):
    """A setting is wrong; the message names it, where it stands and what would be right."""


@dataclass(frozen=True, slots=True)
class BackendConfig:
    """A backend that the owner named; the usual local ports are probed besides."""

    url: str
    kind: str = "openai"
    """``openai`` or ``ollama``."""
    key_env: str | None = None
    """Name of the environment variable that holds the API key; the key itself is never written to disk."""
    continuation: bool = False
    """The server goes on with an answer whose beginning it is given (vLLM, llama.cpp and Ollama do): a stream that
    breaks on another node may be continued here, and one that breaks here elsewhere."""
    price_micros: int = 0
    """What a call is to cost others, in millionths of the owner's unit: of a paid API about what it charges."""
    labels: tuple[str, ...] = ()
    """Facts about what it offers, for constraints: ``cloud``, ``eu``."""

    def __post_init__(self) -> None:
        if self.price_micros < 0:
            raise ConfigError(f"price_micros: expected 0 or more, found {self.price_micros}")


@dataclass(frozen=True, slots=True)
class CostConfig:
    """What work here costs besides what is measured: the owner's word, as multipliers of the neutral cost 1."""

    measure: bool = True
    """Read battery, processors, memory and connection of this machine; else only the other settings count."""
    multiplier: float = 1.0
    """Always: above 1 others are preferred to this node."""
    on_battery_multiplier: float = 2.0
    low_battery_multiplier: float = 5.0
    """Besides, below 20 % of charge."""
    metered_connection_multiplier: float = 3.0
    metered: bool | None = None
    """Whether this node's connection is paid by volume; None: found out where the system says so."""
    bandwidth_mbps: float | None = None
    """Of the connection; None: what the network interface says of itself."""
    peak_hours: str = ""
    """Local time: ``09:00-17:00``, several separated by commas; past midnight is fine."""
    peak_multiplier: float = 1.5

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if isinstance(value, float) and not 0 < value < float("inf"):
                raise ConfigError(f"{item.name}: expected a number above 0, found {value!r}")
        self.peak_ranges()

    def peak_ranges(self) -> tuple[tuple[int, int], ...]:
        """The peak hours as (from, to), minutes since midnight."""
        ranges = []
        for part in filter(None, (part.strip() for part in self.peak_hours.split(","))):
            found = _HOURS.fullmatch(part)
            minutes = [int(hour) * 60 + int(minute) for hour, minute in (found.group(1, 2), found.group(3, 4))
                       ] if found else []
            if len(minutes) != 2 or max(minutes) > 24 * 60 or minutes[0] == minutes[1]:
                raise ConfigError(f"peak_hours: expected times like 09:00-17:00, found {part!r}")
            ranges.append((minutes[0], minutes[1]))
        return tuple(ranges)


_HOURS = re.compile(r"(\d\d):([0-5]\d)-(\d\d):([0-5]\d)")


@dataclass(frozen=True, slots=True)
class RoutingConfig:
    """What the owner allows of everything that is sent from this node to others, whoever asked."""

    stay: tuple[str, ...] = ()
    """Capability types, exact or families like ``knowledge/*``, whose work never leaves this node."""
    never: tuple[str, ...] = ()
    """Peer ids of nodes that get no work from here."""
    labels: tuple[str, ...] = ()
    """Labels that every other node must carry (``site:home``)."""
    avoid_labels: tuple[str, ...] = ()
    """Labels that no other node may carry (``cloud``)."""
    max_price_micros: int | None = None
    """The dearest offer of another node that may be used, in millionths of a call's price."""
    decision_model: str = "ambiguous"
    """When a decision model of the mesh is asked who should do it: ``off``, ``ambiguous`` (where this node is unsure)
    or ``always``. It is given the words of the request and what the capabilities say of themselves."""
    decision_deadline_ms: int = 300
    """How long a request may wait for that: less than a person notices, enough for a small model on a CPU."""
    decision_below: float = 0.7
    """Unsure means: this node's own probability that its choice is right is below this."""

    def __post_init__(self) -> None:
        if self.decision_model not in DECISION_MODES:
            raise ConfigError(f"decision_model is {self.decision_model!r}; known are {', '.join(DECISION_MODES)}")
        if not 1 <= self.decision_deadline_ms <= 10_000:
            raise ConfigError(f"decision_deadline_ms: expected 1 to 10000, found {self.decision_deadline_ms}")
        if not 0 <= self.decision_below <= 1:
            raise ConfigError(f"decision_below: expected a probability, found {self.decision_below}")


@dataclass(frozen=True, slots=True)
class NameConfig:
    """A capability name that clients may write in place of a model's: what the model must be able to do."""

    type: str | None = None
    text: str = ""
    """What it is for, in words: matched with what capabilities say of themselves."""
    inputs: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    min_context_tokens: int = 0
    gpu_required: bool = False
    prefer: str = ""
    """``fast``, ``cheap`` or ``near``."""

    def __post_init__(self) -> None:
        if self.prefer not in ("", *PREFERENCES):
            raise ConfigError(f"prefer is {self.prefer!r}; known are {', '.join(PREFERENCES)}")


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that an owner may set."""

    version: int = VERSION
    name: str = ""
    """What people call this node; default: the host name."""
    listen: tuple[str, ...] = ()
    """Multiaddrs; empty: TCP and WebSocket on all interfaces, on a port that is chosen once and kept in *port*."""
    port: int = 0
    """The libp2p port, chosen at the first start so that other nodes find this one again after a restart."""
    bootstrap: tuple[str, ...] = ()
    """Multiaddrs with /p2p/ of nodes to connect to at start and after every loss."""
    http: str = DEFAULT_HTTP
    """HOST:PORT of the OpenAI API. Anything but loopback needs an API key first (``keys add``)."""
    mdns: bool = True
    """Find nodes of the same mesh on the LAN."""
    network: str = "wan"
    """How long answers may take before a node is doubted: ``lan`` (one house, one machine) or ``wan``."""
    neighbours: int = 12
    """Connections that this node makes on its own to nodes it hears of; GossipSub's upper degree."""
    probe: bool = True
    """Look for backends on the usual local ports."""
    backends: tuple[BackendConfig, ...] = ()
    aliases: typing.Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What clients write -> a model's name, or a list of models that the owner holds for equivalent, best first."""
    names: typing.Mapping[str, NameConfig] = field(default_factory=dict)
    """Capability names that clients may write in place of a model's, besides ``fast``, ``vision`` and ``best-code``."""
    routing: RoutingConfig = field(default_factory=RoutingConfig)
    cost: CostConfig = field(default_factory=CostConfig)
    embedder: str = ""
    """Folder of a sentence-transformers model (the extra of that name) in place of the one in the wheel."""
    labels: tuple[str, ...] = ()
    """Facts about this node for constraints: ``gpu``, ``site:home``."""
    concurrency: int = 4
    """Calls of one capability at once where the backend does not say; the rest queue."""
    membership_s: float = 7 * 86400.0
    """Lifetime of the memberships that this node issues. A stolen node is out by itself after that; 60 s at least."""
    grace_s: float = 10.0
    """How long running work may take to finish when the node is asked to stop."""

    def __post_init__(self) -> None:
        if self.network not in NETWORKS:
            raise ConfigError(f"network: {self.network!r} is none of {', '.join(NETWORKS)}")


def home_folder(option: str | Path | None = None) -> Path:
    """The home folder: the option, else the environment variable, else ``~/.atmosphere``."""
    chosen = option or os.environ.get(HOME_VARIABLE) or "~/.atmosphere"
    return Path(chosen).expanduser().absolute()


def load(home: Path) -> Config:
    """Read ``home/config.yaml``; defaults where there is none. Raises :class:`ConfigError`."""
    path = home / FILE
    if not path.exists():
        return Config()
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not readable YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected settings like 'name: laptop', found {type(data).__name__}")
    version = data.get("version", VERSION)
    if version != VERSION:
        raise ConfigError(f"{path} has version {version}; this release reads version {VERSION}")
    return _build(Config, data, str(path))


def save(home: Path, config: Config) -> None:
    """Write *config* to ``home/config.yaml``: only what differs from the defaults, in one step."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    data = {"version": VERSION}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if item.name != "version" and value != _default(item):
            data[item.name] = _plain(value)
    path = home / FILE
    temporary = path.with_suffix(".new")
    temporary.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), encoding="utf-8")
    temporary.replace(path)


def _default(item: dataclasses.Field[Any]) -> Any:
    return item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)
                if getattr(value, f.name) != _default(f)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, typing.Mapping):
        return {key: _plain(one) if dataclasses.is_dataclass(one) else one[0] if len(one) == 1 else list(one)
                for key, one in value.items()}
    return value


T = typing.TypeVar("T")


def _build(kind: type[T], data: dict[str, Any], where: str) -> T:
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise ConfigError(f"{where}: unknown setting {', '.join(unknown)}; known are {', '.join(sorted(hints))}")
    values = {name: _convert(hints[name], value, f"{where}: {name}") for name, value in data.items()}
    try:
        return kind(**values)
    except (TypeError, ConfigError) as error:
        raise ConfigError(f"{where}: {error}") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        return None if value is None else _convert(options[0], value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{where}: expected a list, found {value!r}")
        return tuple(_convert(typing.get_args(hint)[0], item, where) for item in value)
    if origin is not None and isinstance(value, dict):
        kind = typing.get_args(hint)[1]
        return types.MappingProxyType({
            str(key): _convert(kind, item, f"{where}: {key}") if dataclasses.is_dataclass(kind) else
            _names(item, f"{where}: {key}")
            for key, item in value.items()
        })
    if dataclasses.is_dataclass(hint) and isinstance(value, dict) and isinstance(hint, type):
        return _build(hint, value, where)
    if hint is str and value is False:
        return "off"  # YAML reads the bare word so
    if hint is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool) == isinstance(value, bool):
        return value
    raise ConfigError(f"{where}: expected {getattr(hint, '__name__', hint)}, found {value!r}")


def _names(value: Any, where: str) -> tuple[str, ...]:
    """One name, or a list of them that is not empty."""
    names = tuple(value) if isinstance(value, list) else (value,)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ConfigError(f"{where}: expected a model's name or a list of names, found {value!r}")
    return names
