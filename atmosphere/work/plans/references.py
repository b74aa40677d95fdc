"""Arguments that are known only later: the inputs of a plan's unit, taken from what other units gave.

Arguments are plain JSON in which an object with one of the operators below stands for a value:

    {"$from": "search", "path": "passages.*.text"}     a part of another unit's result
    {"$from": "embed"}                                 all results of a step with ``for_each``, as a list in its order
    {"$from": "embed[3]"}, {"$from": "embed[$index]"}  that of one of its units; of the one at the same place
    {"$from": ["draft", "review"]}                     a list of results; ``"partial": true`` leaves out what failed
    {"$item": "title"}, {"$index": true}               the element of ``for_each`` this unit is for; its position
    {"$value": "documents", "path": "0.text"}          a named value of the plan
    {"$text": ["Compare ", {...}], "join": "; "}       one text of all parts; the elements of a list are joined
    {"$literal": {...}}                                what is in it, as it is (for a key that begins with a $)

Pure: :func:`parse` makes a tree of typed operators of it, :func:`dump` the JSON again, :func:`resolve` the arguments.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

Json = Any
"""A JSON value, as ``json`` reads it."""

Path = tuple[str, ...]
"""Steps into a value: names of objects, positions in lists, ``*`` for every element of a list."""

MAX_NESTING = 64
"""Levels of lists and objects in arguments."""
JOIN = "\n\n"
"""Between the elements of a list in a text."""


class PlanError(ValueError):
    """Something of a plan is wrong; the message names the unit and the fix."""


class Scope(Protocol):
    """What the arguments of one unit may refer to."""

    item: Json
    index: int | None
    values: Mapping[str, Json]

    def output(self, source: str) -> Json:
        """The result of a unit; of a step with ``for_each``, :class:`Several`."""

    def outputs(self, sources: tuple[str, ...], *, partial: bool) -> list[Json]:
        """The results of all units of *sources*; with *partial* without those that have none."""


@dataclass(frozen=True, slots=True)
class From:
    """Results of other units."""

    sources: tuple[str, ...]
    path: Path = ()
    many: bool = False
    """Written as a list: the value is one."""
    partial: bool = False

    def resolve(self, scope: Scope) -> Json:
        if not self.many and not self.partial:
            what = f"the result of {self.sources[0]!r}"
            found = scope.output(self.sources[0])
            if not isinstance(found, Several):
                return follow(found, self.path, what)
            return [follow(value, self.path, what) for value in found]
        what = f"a result of {', '.join(map(repr, self.sources))}"
        return [follow(value, self.path, what) for value in scope.outputs(self.sources, partial=self.partial)]

    def dump(self) -> Json:
        plain: dict[str, Json] = {"$from": list(self.sources) if self.many else self.sources[0]}
        if self.path:
            plain["path"] = _dump_path(self.path)
        return plain | ({"partial": True} if self.partial else {})


class Several(list[Json]):
    """The results of the units of one step with ``for_each``: a path goes into each of them."""


@dataclass(frozen=True, slots=True)
class Item:
    """The element of ``for_each``."""

    path: Path = ()

    def resolve(self, scope: Scope) -> Json:
        return follow(scope.item, self.path, "the element of for_each")

    def dump(self) -> Json:
        return {"$item": _dump_path(self.path) if self.path else True}


@dataclass(frozen=True, slots=True)
class Index:
    """The position in ``for_each``, from 0."""

    def resolve(self, scope: Scope) -> Json:
        return scope.index

    def dump(self) -> Json:
        return {"$index": True}


@dataclass(frozen=True, slots=True)
class Value:
    """A named value of the plan."""

    name: str
    path: Path = ()

    def resolve(self, scope: Scope) -> Json:
        return follow(scope.values[self.name], self.path, f"the value {self.name!r}")

    def dump(self) -> Json:
        return {"$value": self.name} | ({"path": _dump_path(self.path)} if self.path else {})


@dataclass(frozen=True, slots=True)
class Text:
    """One text: strings as they are, elements of a list joined, anything else as JSON."""

    parts: tuple[Json, ...]
    join: str = JOIN

    def resolve(self, scope: Scope) -> Json:
        return "".join(self._part(resolve(part, scope)) for part in self.parts)

    def _part(self, value: Json) -> str:
        if isinstance(value, list):
            return self.join.join(_as_text(item) for item in value)
        return _as_text(value)

    def dump(self) -> Json:
        plain: dict[str, Json] = {"$text": [dump(part) for part in self.parts]}
        return plain | ({"join": self.join} if self.join != JOIN else {})


@dataclass(frozen=True, slots=True)
class Literal:
    """A value in which nothing stands for something else."""

    value: Json

    def resolve(self, scope: Scope) -> Json:
        return self.value

    def dump(self) -> Json:
        return {"$literal": self.value}


Operator = From | Item | Index | Value | Text | Literal
Tree = Any
"""JSON with operators in it."""


def parse(value: Json, where: str, depth: int = 0) -> Tree:
    """The tree of *value*. *where*: what it is, for errors. Raises PlanError."""
    _deep(where, depth)
    if isinstance(value, list):
        return [parse(item, where, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    name = next((key for key in value if key.startswith("$")), None)
    if name is None:
        return {key: parse(item, where, depth + 1) for key, item in value.items()}
    return _operator(name, value, where, depth + 1)


def dump(tree: Tree) -> Json:
    """The JSON that :func:`parse` makes *tree* of."""
    if isinstance(tree, Operator):
        return tree.dump()
    if isinstance(tree, list):
        return [dump(item) for item in tree]
    if isinstance(tree, dict):
        return {key: dump(item) for key, item in tree.items()}
    return tree


def resolve(tree: Tree, scope: Scope) -> Json:
    """*tree* with every operator's value in its place. Raises PlanError for a path that leads nowhere."""
    if isinstance(tree, Operator):
        return tree.resolve(scope)
    if isinstance(tree, list):
        return [resolve(item, scope) for item in tree]
    if isinstance(tree, dict):
        return {key: resolve(item, scope) for key, item in tree.items()}
    return tree


def operators(tree: Tree) -> Iterator[Operator]:
    """Every operator in *tree*."""
    if isinstance(tree, Operator):
        yield tree
    parts = tree.parts if isinstance(tree, Text) else tree.values() if isinstance(tree, dict) else tree
    if isinstance(tree, Text | dict | list):
        for part in parts:
            yield from operators(part)


def follow(value: Json, path: Path, what: str) -> Json:
    """The part of *value* that *path* leads to. Raises PlanError that says what there is instead."""
    for done, step in enumerate(path):
        if isinstance(value, list) and step == "*":
            return [follow(item, path[done + 1 :], f"an element of {_named(path[:done])} of {what}") for item in value]
        if isinstance(value, list) and step.isdecimal() and len(step) < 10 and int(step) < len(value):
            value = value[int(step)]
        elif isinstance(value, dict) and step in value:
            value = value[step]
        else:
            raise PlanError(f"there is no {_named(path[: done + 1])} in {what}; {_inside(value)}")
    return value


def parse_path(value: Json, where: str) -> Path:
    """``"a.0.b"`` or ``["a", 0, "b"]`` (for names with a dot). Raises PlanError."""
    if isinstance(value, str):
        return tuple(value.split(".")) if value else ()
    if isinstance(value, list) and all(isinstance(step, str | int) and not isinstance(step, bool) for step in value):
        return tuple(map(str, value))
    raise PlanError(f'{where}: a path is a text like "passages.*.text" or a list like ["passages", 0, "text"]')


def _operator(name: str, fields: dict[str, Json], where: str, depth: int) -> Operator:
    value = fields[name]
    more = set(fields) - {name}
    allowed = _OPERATORS.get(name)
    if allowed is None:
        raise PlanError(f"{where}: {name!r} is none of {', '.join(_OPERATORS)}; put an object with names of its own "
                        'that begin with $ into {"$literal": ...}')
    if not more <= allowed:
        raise PlanError(f"{where}: {', '.join(sorted(more - allowed))} beside {name!r}; "
                        f"{'there may be ' + ', '.join(sorted(allowed)) if allowed else 'nothing may stand there'}")
    path = parse_path(fields.get("path", ""), where)
    match name:
        case "$from":
            sources = value if isinstance(value, list) else [value]
            partial = fields.get("partial", False)
            if not sources or not all(isinstance(source, str) and source for source in sources):
                raise PlanError(f"{where}: '$from' names a unit or a list of units, like {{\"$from\": \"search\"}}")
            if not isinstance(partial, bool):
                raise PlanError(f"{where}: 'partial' is true or false")
            return From(tuple(sources), path, isinstance(value, list), partial)
        case "$item":
            return Item(() if value is True else parse_path(value, where))
        case "$index":
            return Index()
        case "$value":
            if not isinstance(value, str):
                raise PlanError(f"{where}: '$value' names one of the plan's values")
            return Value(value, path)
        case "$text":
            join = fields.get("join", JOIN)
            if not isinstance(value, list) or not isinstance(join, str):
                raise PlanError(f"{where}: '$text' is a list of parts, and 'join' a text")
            return Text(tuple(parse(part, where, depth) for part in value), join)
    _bound(value, where, depth)
    return Literal(value)


def _bound(value: Json, where: str, depth: int) -> None:
    _deep(where, depth)
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _bound(part, where, depth + 1)


def _deep(where: str, depth: int) -> None:
    if depth > MAX_NESTING:
        raise PlanError(f"{where}: nested more than {MAX_NESTING} levels deep; send flatter arguments")


_OPERATORS: dict[str, set[str]] = {"$from": {"path", "partial"}, "$item": set(), "$index": set(), "$value": {"path"},
                                   "$text": {"join"}, "$literal": set()}


def _dump_path(path: Path) -> Json:
    return list(path) if any("." in step or not step for step in path) else ".".join(path)


def _as_text(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _named(path: Path) -> str:
    return repr(".".join(path)) if path else "the whole"


def _inside(value: Json) -> str:
    if isinstance(value, dict):
        return f"it has {', '.join(sorted(map(str, value))[:20]) or 'nothing'}"[:400]
    if isinstance(value, list):
        return f"it is a list of {len(value)} there (0 is the first, * means each)"
    return f"it is {json.dumps(value)[:60]} there"
