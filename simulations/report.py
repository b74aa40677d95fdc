"""What a run has shown: its figures, which are the same for every scenario as far as they can be, and distributions.

Every scenario has the figures of :data:`COMMON`; one is None where a scenario has no such thing. What they mean:

- delivered, virtual_ms: spread: share of the nodes that had the news, time until they had it by gossip. poison: the
  same among the honest, until work could be sent for the new card. crash: share of the pairs of a survivor and a dead
  node in which the first held the second offline, time until then. partition: share of the nodes whose state was whole,
  time after the healing. flash-crowd: share of the pairs routable in the end, time from when both ran. churn: share of
  the pairs routable after a time of peace, time from when both ran. routing: share of the intents that were done, time
  until then. day: the same.
- hops, copies: of news, where it was followed: what the first copy came over, and copies that came to a node.
- table_error: see :func:`simulations.scenarios.running.table_error`, at the end of the last stretch measured;
  day: mean of the day.
- messages_per_node_s, bytes_per_node_s: of the mesh at rest; of the first stretch measured where nothing ever rests.
"""

from __future__ import annotations

import dataclasses
import resource
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import psutil

from simulations.metrics import Hops, Spread, quantile
from simulations.scenarios.running import Measured
from simulations.virtual import Outcome

ERRORS_SHOWN = 3
CURVE_POINTS = 100

COMMON = (
    "delivered", "virtual_ms", "hops", "copies", "table_error", "messages_per_node_s", "bytes_per_node_s",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Headline:
    """Where a scenario's result has the first two of :data:`COMMON` under names of its own."""

    delivered: Callable[[Any], float]
    virtual_ms: Callable[[Any], Spread | None]


def _found(result: Any) -> float:
    kinds = (result.killed, result.silent)
    return float(sum(kind.found * kind.deaths for kind in kinds) / max(1, sum(kind.deaths for kind in kinds)))


_HEADLINES = {
    "crash": _Headline(_found, lambda of: Spread.together(of.killed.offline_ms, of.silent.offline_ms)),
    "partition": _Headline(lambda of: float(of.whole), lambda of: of.whole_ms),
    "flash-crowd": _Headline(lambda of: float(of.routable), lambda of: of.routable_ms),
    "poison": _Headline(lambda of: float(of.delivered), lambda of: of.delivered_ms),
    "routing": _Headline(lambda of: round(1 - of.failed / max(1, of.intents), 6), lambda of: of.mesh.ms),
    "day": _Headline(lambda of: float(of.answered), lambda of: of.ms),
    "churn": _Headline(lambda of: round(1 - of.after.missing, 6), lambda of: of.routable_ms),
}


def figures(scenario: str, nodes: int, seed: int, fidelity: str, outcome: Outcome[Any]) -> dict[str, Any]:
    """All figures of a run, ready for JSON. What the scenario found is in between, by its own names."""
    peak, now = peak_rss_mb(), psutil.Process().memory_info().rss / 2**20
    result = _plain(outcome.value)
    return {
        "scenario": scenario,
        "nodes": nodes,
        "seed": seed,
        "fidelity": fidelity,
        **_common(scenario, outcome.value),
        **{name: value for name, value in result.items() if name not in COMMON},
        "virtual_s": round(outcome.virtual_s, 3),
        "cpu_s": round(outcome.cpu_s, 2),
        "wall_s": round(outcome.wall_s, 2),
        "rss_mb": round(now, 1),
        "peak_rss_mb": round(max(peak, now), 1),
        "events": outcome.events,
        "trace_hash": outcome.trace_hash,
        "errors": sorted({_short(error) for error in outcome.errors})[:ERRORS_SHOWN],
    }


def distributions(result: Any) -> dict[str, Any]:
    """What the figures of *result* are drawn from, by the name of the figure, ready for JSON.

    ``times_ms``: points (milliseconds, share of the arrivals until then); ``hops``: pairs (hops, share of the
    arrivals); ``series``: of each stretch measured, (virtual second, messages, bytes) per node and second.
    """
    found: dict[str, dict[str, Any]] = {"times_ms": {}, "hops": {}, "series": {}}
    for name, value in _walk(result, ""):
        if isinstance(value, Spread) and value.values:
            found["times_ms"][name] = curve(value)
        elif isinstance(value, Hops) and value.counts:
            arrivals = sum(value.counts.values())
            found["hops"][name] = [(hops, round(count / arrivals, 5)) for hops, count in value.counts.items()]
        elif isinstance(value, Measured) and value.series:
            found["series"][name] = [(point.at_s, point.messages, point.bytes) for point in value.series]
    return found


def curve(spread: Spread) -> list[tuple[float, float]]:
    """*spread* as points of its distribution, at most CURVE_POINTS and one."""
    count = len(spread.values)
    shares = [place / CURVE_POINTS for place in range(1, CURVE_POINTS + 1)]
    points = [(round(spread.values[quantile(count, share)], 2), share) for share in shares]
    return [(round(spread.values[0], 2), 0.0), *points]


def text(found: Mapping[str, Any]) -> str:
    """*found*, a line for each figure."""
    return "\n".join(f"{name:22}{_readable(value)}" for name, value in found.items())


def table(rows: list[Mapping[str, Any]]) -> str:
    """*rows* under their names, in columns."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([_readable(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def peak_rss_mb() -> float:
    """The most memory that this process has held, MiB. Of a child of a larger process: that one's, if it is more."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _common(scenario: str, result: Any) -> dict[str, Any]:
    own = {name: getattr(result, name) for name in COMMON if hasattr(result, name)}
    headline = _HEADLINES.get(scenario)
    if headline is not None:
        own = {"delivered": headline.delivered(result), "virtual_ms": headline.virtual_ms(result), **own}
    stretches = [value for _, value in _walk(result, "") if isinstance(value, Measured)]
    if stretches:
        first, last = stretches[0], stretches[-1]
        own = {
            "messages_per_node_s": first.messages_per_node_s,
            "bytes_per_node_s": first.bytes_per_node_s,
            "table_error": last.table_error,
            **own,
        }
    return {name: _plain(own.get(name)) for name in COMMON}


def _walk(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """*value* and all that is in it, with names such as ``killed.offline_ms``."""
    yield name, value
    inner: Mapping[Any, Any] = {}
    if dataclasses.is_dataclass(value):
        inner = {each.name: getattr(value, each.name) for each in _figure_fields(value)}
    elif isinstance(value, Mapping):
        inner = value
    for key, each in inner.items():
        yield from _walk(each, f"{name}.{key}" if name else str(key))


def _plain(value: Any) -> Any:
    """*value* as JSON has it, without what is no figure."""
    if dataclasses.is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in _figure_fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value


def _figure_fields(value: Any) -> list[dataclasses.Field[Any]]:
    return [each for each in dataclasses.fields(value) if each.metadata.get("figure", True)]


def _short(error: str) -> str:
    """The first line of a logged error, and the last one of its traceback, if it has one."""
    lines = error.splitlines()
    return lines[0] if len(lines) == 1 else f"{lines[0]}: {lines[-1]}"


def _readable(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_readable(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return "; ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
