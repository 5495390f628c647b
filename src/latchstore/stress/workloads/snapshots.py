"""Snapshots and streams that are read while others write.

Opening one and reading it are separate operations: it must show the state of the time at which it was opened,
even if it is first read after other writes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, Protocol

from latchstore.contract.store import AbstractReadOnlyStore, AbstractStore
from latchstore.stress.history import History, Operation
from latchstore.stress.verdict import VALID, Verdict, all_of
from latchstore.stress.workloads.action import (
    Action,
    PlainWorkload,
    chance_of,
    has_transactions,
    operations_of,
    text_of,
)
from latchstore.stress.workloads.groups import INITIAL, Groups, GroupWrite, read_by_multiget
from latchstore.stress.workloads.transactions import verdicts_of_groups

#: The methods that return streams.
_STREAMS = ("get", "get_data", "get_data_range", "multiget_data")

_SNAPSHOT, _LOOK = "open snapshot", "look"
_OPEN_STREAMS, _READ_STREAMS = "open streams", "read streams"
_OPENINGS, _LOOKS = (_SNAPSHOT, _OPEN_STREAMS), (_LOOK, _READ_STREAMS)

#: Number of actions after which a thread opens snapshots and streams.
_BEGINNING = 20

#: The most keys that a value has besides its mark.
_MOST_MORE = 2

#: The fraction of openings that are of streams.
_STREAMING = 0.35

#: The fraction of writes of each thread: the first mostly reads.
_WRITING = (0.1, 0.7, 0.4)


class _Marked(GroupWrite):
    """Writes the group, and a key with the value in its name and metadata, in place of the one before.

    So searches of a snapshot show the value. Some more keys make the number of keys change.
    """

    __slots__ = ()

    def run(self, store: AbstractStore) -> list[str | None] | None:
        if self.name != "multiset group":
            return super().run(store)
        with store.transaction(self.name):
            super().run(store)
            _mark(store, self.key, self.argument)
        return None

    def write_keys(self, store: AbstractStore, keys: Iterable[str]) -> None:
        super().write_keys(store, keys)
        _mark(store, self.key, self.argument)


def _mark(store: AbstractStore, group: str, value: str) -> None:
    mark = _mark_of(group, value)
    for key in store.glob(f"{_mark_of(group, '')}*"):
        if key != mark:
            _remove(store, key)
    store.set_metadata(mark, {"value": value})
    for number in range(_MOST_MORE):
        more = f"{_more_of(group)}{number}"
        if number < _more_than_the_mark(value):
            store.from_bytes(more, b"")
        else:
            _remove(store, more)


def _remove(store: AbstractStore, key: str) -> None:
    """Remove a key, if it is there; a broken store may answer wrongly whether it is."""
    try:
        store.delete(key)
    except KeyError:
        return


def _mark_of(group: str, value: str) -> str:
    return f"{group}/at {value}"


def _more_of(group: str) -> str:
    return f"{group}/more "


def _more_than_the_mark(value: str) -> int:
    """Return how many other keys a value has: none, one or two."""
    return ord(value[-1]) % (_MOST_MORE + 1)


def _marked(keys: Iterable[str], group: str) -> str:
    """Return the value in the name of the one key that has one."""
    prefix = _mark_of(group, "")
    return "/".join(key.removeprefix(prefix) for key in keys if key.startswith(prefix))


class _View(Protocol):
    """What a thread keeps open between its actions."""

    def values(self, ways: Sequence[str]) -> list[str | None]:
        """Return values of the group, read in some ways, which must be equal."""

    def close(self) -> None: ...


class _Group(NamedTuple):
    """A group in a snapshot, and the value of its first key."""

    view: AbstractReadOnlyStore
    name: str
    keys: Sequence[str]
    value: str

    @property
    def mark(self) -> str:
        return _mark_of(self.name, self.value)

    def queried(self) -> Iterator[str]:
        """Yield the values in the metadata of keys that have one."""
        prefix = _mark_of(self.name, "")
        return (metadata["value"] for key, metadata in self.view.query() if key.startswith(prefix))

    def counted(self) -> str:
        """Return the value if there are as many keys as it has."""
        found, right = len(self.view), len(self.keys) + 1 + _more_than_the_mark(self.value)
        return self.value if found == right else f"{found} keys instead of {right}"


#: The ways to read a group in a snapshot.
_WAYS: dict[str, Callable[[_Group], Iterable[str | None]]] = {
    "one by one": lambda group: [text_of(group.view, key) for key in group.keys],
    "get": lambda group: [group.view.get(key).data.read().decode() for key in group.keys],
    "multiget": lambda group: read_by_multiget(group.view, group.keys),
    "multiget_data": lambda group: [each.read().decode() for each in group.view.multiget_data(group.keys)],
    "get_metadata": lambda group: [group.view.get_metadata(group.mark)["value"]],
    "multiget_metadata": lambda group: [each["value"] for each in group.view.multiget_metadata([group.mark])],
    "exists": lambda group: [group.value if group.view.exists(group.mark) else "no key"],
    "glob": lambda group: [_marked(group.view.glob(f"{group.name}/*"), group.name)],
    "query": lambda group: group.queried(),
    "query_keys": lambda group: [_marked(group.view.query_keys(), group.name)],
    "len": lambda group: [group.counted()],
}

#: Those that each look takes, as they are short and tell little, and how many others it takes.
_ALWAYS = ("exists", "len")
_OTHERS = [way for way in _WAYS if way not in _ALWAYS]
_OTHERS_AT_ONCE = 3


class _Snapshot:
    """A snapshot, in which a group is read."""

    def __init__(self, store: Any, group: str, keys: Sequence[str]) -> None:
        self._view: AbstractReadOnlyStore = store.snapshot()
        self._group = group
        self._keys = keys

    def values(self, ways: Sequence[str]) -> list[str | None]:
        """Return the value of a key, and those that the ways give; None for a missing key."""
        value = text_of(self._view, self._keys[0])
        group = _Group(self._view, self._group, self._keys, str(value))
        found = [value]
        for way in ways:
            try:
                found += _WAYS[way](group)
            except KeyError:
                found.append(None)
        return found

    def close(self) -> None:
        self._view.close()


class _Streams:
    """Streams of the data of keys, one by each method."""

    def __init__(self, store: AbstractStore, keys: Sequence[str]) -> None:
        opened = zip(_STREAMS, itertools.cycle(keys), strict=False)
        self._streams = [_stream_by(store, method, key) for method, key in opened]

    def values(self, ways: Sequence[str]) -> list[str | None]:
        """Return their texts; a stream can be read once, in one way."""
        return [None if stream is None else stream.read().decode() for stream in self._streams]

    def close(self) -> None:
        for stream in self._streams:
            if stream is not None:
                stream.close()


def _stream_by(store: AbstractStore, method: str, key: str) -> Any:
    """Return the stream of a method; None if the key is missing."""
    try:
        match method:
            case "get":
                return store.get(key).data
            case "get_data_range":
                return store.get_data_range(key)
            case "multiget_data":
                return next(iter(store.multiget_data([key])))
            case _:
                return store.get_data(key)
    except KeyError:
        return None


class _Held:
    """What a thread keeps open between its actions, and the action that has opened it."""

    def __init__(self) -> None:
        self.open: tuple[_Open, _View] | None = None

    def close(self) -> None:
        held, self.open = self.open, None
        if held is not None:
            held[1].close()


class _Open:
    """Opens a snapshot or a stream, and closes what the thread has opened before."""

    __slots__ = ("_held", "_keys", "argument", "key", "name")

    def __init__(self, name: str, key: str, argument: str, keys: Sequence[str], held: _Held) -> None:
        self.name = name
        self.key = key
        self.argument = argument
        self._keys = keys
        self._held = held

    def run(self, store: AbstractStore) -> None:
        """Open it, and read nothing."""
        self.view(store)

    def view(self, store: AbstractStore) -> _View:
        """Open it, and return it."""
        self._held.close()
        view = (
            _Snapshot(store, self.key, self._keys) if self.name == _SNAPSHOT else _Streams(store, self._keys)
        )
        self._held.open = self, view
        return view

    def still_open(self) -> _View | None:
        """Return what it has opened; None if it was interrupted or left out."""
        held = self._held.open
        return held[1] if held is not None and held[0] is self else None


class _Look:
    """Reads a group in what the thread has open."""

    __slots__ = ("_opening", "_ways", "argument", "key", "name")

    def __init__(self, opening: _Open, ways: Sequence[str]) -> None:
        self.name = _LOOKS[_OPENINGS.index(opening.name)]
        self.key = opening.key
        self.argument = opening.argument
        self._opening = opening
        self._ways = ways

    def run(self, store: Any) -> dict[str, Any]:
        """Return the values of the group, and whether what they are read in was opened for that."""
        view = self._opening.still_open()
        return {"new": view is None, "values": (view or self._opening.view(store)).values(self._ways)}


class Snapshots(PlainWorkload):
    """Snapshots and streams while transactions write: each shows the instant at which it was opened.

    Parameters
    ----------
    size : int
        Number of keys that each transaction writes.
    """

    name = "snapshots"
    weight: ClassVar[float] = 5

    def __init__(self, size: int = 3) -> None:
        self._groups = Groups(self.name, 1, size, _Marked)

    def supports(self, store: AbstractStore) -> bool:
        """Return whether the store has snapshots and transactions."""
        return callable(getattr(store, "snapshot", None)) and has_transactions(store)

    def prepare(self, store: AbstractStore) -> None:
        self._groups.prepare(store)
        for group in self._groups.keys:
            _mark(store, group, INITIAL)

    def actions(self, thread: int, seed: int) -> Iterator[Action]:
        """Yield random writes, and reads of snapshots and streams, several for each snapshot."""
        chance = chance_of(self.name, seed, thread)
        # At first all threads open snapshots, or all open streams, so that there are many of one kind.
        streams = chance_of(self.name, seed, -1).random() < _STREAMING
        held = _Held()
        number = 0
        opening: _Open | None = None
        while True:
            number += 1
            if chance.random() < _WRITING[thread % len(_WRITING)]:
                yield self._groups.write(chance, f"{thread}.{number}", failing=0.1)
                continue
            ((group, keys),) = self._groups.keys.items()
            if opening is not None and (streams or chance.random() < 0.7):
                yield _Look(opening, [*_ALWAYS, *chance.sample(_OTHERS, _OTHERS_AT_ONCE)])
                # A stream is read once.
                opening = None if streams else opening
                continue
            if number > _BEGINNING:
                streams = chance.random() < _STREAMING
            opening = _Open(_OPENINGS[streams], group, f"{thread}.{number}", keys, held)
            yield opening

    def finish(self, store: AbstractStore) -> Any:
        """Return the final values of the group, its mark among them, and keys that must not exist."""
        found = self._groups.finish(store)
        for group in self._groups.keys:
            left = [str(key) for key in found["left"]]
            found[group].append(_marked(left, group))
            marks = (_mark_of(group, ""), _more_of(group))
            found["left"] = [key for key in left if not key.startswith(marks)]
        return found

    def verdicts(self, history: History) -> dict[str, Verdict]:
        """Check that each snapshot shows the state of its opening, and that it does not change."""
        mine = operations_of(self.name, history)
        opened = {each.argument: each for each in mine if each.name in _OPENINGS}
        first: dict[str, Operation] = {}
        stays = [
            _check_same(each, first.setdefault(each.argument, each))
            for each in mine
            if each.name in _LOOKS and each.outcome == "ok"
        ]
        others = [each for each in history.operations if each.name not in (*_OPENINGS, *_LOOKS)]
        reads = [
            read
            for look in first.values()
            # It is not known when an opening that was interrupted has opened what is read.
            if look.result["new"] or (look.argument in opened and opened[look.argument].outcome == "ok")
            for read in _as_reads(opened.get(look.argument), look)
        ]
        groups = verdicts_of_groups(self.name, History([*others, *reads], history.header))
        return {"stays": all_of(stays), **groups}


def _as_reads(opened: Operation | None, look: Operation) -> Iterator[Operation]:
    """Yield the first look as a read at the time of the opening; each stream is one by itself."""
    when = look if look.result["new"] or opened is None else opened
    values = look.result["values"]
    for part in [values] if look.name == _LOOK else [[value] for value in values]:
        yield replace(look, result=part, begin=when.begin, end=when.end)


def _check_same(look: Operation, first: Operation) -> Verdict:
    """Compare a read with the first one of the same snapshot."""
    if set(first.result["values"]) == set(look.result["values"]):
        return VALID
    return Verdict("invalid", f"({look}) differs from ({first}), of the same snapshot", (look, first))
