"""A mapping that many nodes begin with: the entries that they have in common are there once.

Each node sees a mapping of its own, in the order in which a dict would have it: what it sets, deletes or moves to the
end differs from the base for this node alone. Values are shared, so they must be such that nobody changes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, ValuesView
from typing import Any, TypeVar, cast, overload

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

_ABSENT: Any = object()
_GONE: Any = object()


class Shared(MutableMapping[K, V]):
    """*base* with the changes of one node. Nobody may change *base* any more."""

    __slots__ = ("_base", "_length", "_moved", "_own")

    def __init__(self, base: Mapping[K, V]) -> None:
        self._base = base
        self._own: dict[K, V] = {}
        """What differs: another value in the place that the key has in the base, _GONE, or a key that comes after."""
        self._moved: set[K] = set()
        """Keys of the base that have been deleted and set again: they come after, too."""
        self._length = len(base)

    def __repr__(self) -> str:
        return f"<Shared {len(self)} entries, {len(self._own)} of them or of those gone are its own>"

    def __len__(self) -> int:
        return self._length

    def __contains__(self, key: object) -> bool:
        own = self._own.get(cast(K, key), _ABSENT)
        return key in self._base if own is _ABSENT else own is not _GONE

    def __getitem__(self, key: K) -> V:
        found = self._own.get(key, _ABSENT)
        if found is _ABSENT:
            return self._base[key]
        if found is _GONE:
            raise KeyError(key)
        return cast(V, found)

    @overload
    def get(self, key: K, /) -> V | None: ...
    @overload
    def get(self, key: K, /, default: V | D) -> V | D: ...
    def get(self, key: K, /, default: Any = None) -> Any:
        found = self._own.get(key, _ABSENT)
        if found is _ABSENT:
            return self._base.get(key, default)
        return default if found is _GONE else found

    def __setitem__(self, key: K, value: V) -> None:
        own = self._own
        before = own.get(key, _ABSENT)
        if before is _GONE:
            del own[key]  # it comes after what was set meanwhile
            self._moved.add(key)
            self._length += 1
        elif before is _ABSENT and key not in self._base:
            self._length += 1
        own[key] = value

    def __delitem__(self, key: K) -> None:
        if key not in self:
            raise KeyError(key)
        self._length -= 1
        if key in self._base:
            self._own[key] = _GONE
            self._moved.discard(key)
        else:
            del self._own[key]

    @overload
    def pop(self, key: K, /) -> V: ...
    @overload
    def pop(self, key: K, /, default: V | D) -> V | D: ...
    def pop(self, key: K, /, default: Any = _ABSENT) -> Any:
        own = self._own.get(key, _ABSENT)
        based = self._base.get(key, _ABSENT)
        found = based if own is _ABSENT else own
        if found is _ABSENT or found is _GONE:
            if default is _ABSENT:
                raise KeyError(key)
            return default
        self._length -= 1
        if based is _ABSENT:
            del self._own[key]
        else:
            self._own[key] = _GONE
            self._moved.discard(key)
        return found

    def __iter__(self) -> Iterator[K]:
        own, moved = self._own, self._moved
        if not own:
            yield from self._base
            return
        for key in self._base:
            if key not in moved and own.get(key) is not _GONE:
                yield key
        for key in own:
            if key in moved or key not in self._base:
                yield key

    def values(self) -> ValuesView[V]:
        return _Values(self)

    def each(self) -> Iterator[V]:
        """The values, in order; the base is not asked for each of its keys."""
        own, moved = self._own, self._moved
        if not own:
            yield from self._base.values()
            return
        for key, value in self._base.items():
            if not moved or key not in moved:
                value = own.get(key, value)
                if value is not _GONE:
                    yield value
        for key, value in own.items():
            if key in moved or key not in self._base:
                yield value


class _Values(ValuesView[V]):
    __slots__ = ("_each",)

    def __init__(self, shared: Shared[Any, V]) -> None:
        super().__init__(shared)
        self._each = shared.each

    def __iter__(self) -> Iterator[V]:
        return self._each()
