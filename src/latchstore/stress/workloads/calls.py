"""Calls of the store's contract: how each is made, and its specified answer and effect.

A call is a list of a method's name, a key (or a list of keys, or the group that it searches) and an argument,
as JSON. `METHODS` defines for each name how to make it on a store, and its effect on a dictionary of entries;
so `EntriesModel` can check any workload, whatever calls it mixes.

An entry is its data, a string, and its metadata, a dictionary of strings: ``["data", {"item": "value"}]``.
The keys of a group begin with its name and a slash.

Thread safety: the functions have no state.
"""

from __future__ import annotations

import functools
import io
import itertools
import os
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeVar

from latchstore.contract.errors import RevisionMismatchError
from latchstore.contract.store import AbstractReadOnlyStore, AbstractStore
from latchstore.delivery.event_manager import EventManager
from latchstore.stress.history import Invocation
from latchstore.stress.models import REFUSED, UNKNOWN
from latchstore.stress.workloads.action import RolledBackError

T = TypeVar("T")

#: A method, its key, its argument.
Call = Sequence[Any]

Entries = dict[str, tuple[str, dict[str, str]]]


class Method(NamedTuple):
    """A method of the contract.

    Attributes
    ----------
    make : callable
        Called with the store, the key and the argument: calls the method, and returns its answer as JSON.
    apply : callable
        Called with the entries, the key and the argument: returns the correct answer and changes the entries.
    reads : bool
        Whether it leaves the entries unchanged.
    """

    make: Callable[[Any, Any, Any], Any]
    apply: Callable[[Entries, Any, Any], Any]
    reads: bool = False


# -- one key ------------------------------------------------------------------------------------------


def _or_none(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except KeyError:
        return None


def _done(function: Callable[[], object]) -> bool:
    """Call a function; return whether the key existed."""
    try:
        function()
    except KeyError:
        return False
    return True


def _text(stream: Any) -> str:
    with stream:
        return str(stream.read().decode())


def pair_of(value: Any) -> list[Any]:
    """Return the data and the metadata of a value."""
    data, metadata = value
    return [_text(data), metadata]


def _set(store: AbstractStore, key: str, entry: Any) -> None:
    store.set(key, (io.BytesIO(entry[0].encode()), dict(entry[1])))


def _put_data(entries: Entries, key: str, data: str) -> None:
    entries[key] = (data, entries[key][1] if key in entries else {})


def _put_metadata(entries: Entries, key: str, metadata: Mapping[str, str]) -> None:
    entries[key] = (entries[key][0] if key in entries else "", dict(metadata))


def _update(entries: Entries, key: str, items: Mapping[str, str]) -> bool:
    if key not in entries:
        return False
    data, metadata = entries[key]
    entries[key] = (data, {**metadata, **items})
    return True


def _remove(entries: Entries, key: str, _: Any) -> bool:
    return entries.pop(key, None) is not None


def _removed_if_unchanged(store: AbstractStore, remove: Callable[..., object], key: str) -> list[Any] | None:
    """Remove an entry on the condition of the revision that was read; return it, or None if there is none."""
    try:
        value = store.get(key)
    except KeyError:
        return None
    found = pair_of(value)
    try:
        remove(key, if_revision=value.revision)
    except (KeyError, RevisionMismatchError):
        raise RolledBackError from None
    return found


def _removed_in(entries: Entries, key: str, _: Any) -> Any:
    return list(entries.pop(key)) if key in entries else None


def _put(entries: Entries, key: str, entry: Any) -> None:
    entries[key] = (entry[0], dict(entry[1]))


def _entry_in(entries: Entries, key: str, _: Any = None) -> Any:
    return list(entries[key]) if key in entries else None


def _data_in(entries: Entries, key: str, _: Any = None) -> Any:
    return entries[key][0] if key in entries else None


def _metadata_in(entries: Entries, key: str, _: Any = None) -> Any:
    return entries[key][1] if key in entries else None


def _selected_in(entries: Entries, key: str, names: Sequence[str]) -> Any:
    """Return the items; None if the key or an item is missing, which both raise KeyError."""
    metadata = _metadata_in(entries, key)
    if metadata is None or any(name not in metadata for name in names):
        return None
    return {name: metadata[name] for name in names}


# -- several keys -------------------------------------------------------------------------------------


def _pairs(entries: Sequence[Any]) -> list[Any]:
    return [(io.BytesIO(data.encode()), dict(metadata)) for data, metadata in entries]


def _each(put: Callable[[Entries, str, Any], Any]) -> Callable[[Entries, Any, Any], None]:
    def apply(entries: Entries, keys: Sequence[str], values: Sequence[Any]) -> None:
        for key, value in zip(keys, values, strict=True):
            put(entries, key, value)

    return apply


def _all_of(read: Callable[[Entries, str], Any]) -> Callable[[Entries, Any, Any], Any]:
    """Return a function that reads several keys; it returns None if one is missing."""

    def apply(entries: Entries, keys: Sequence[str], _: Any) -> Any:
        return [read(entries, key) for key in keys] if all(key in entries for key in keys) else None

    return apply


def _update_all(entries: Entries, keys: Sequence[str], items: Sequence[Mapping[str, str]]) -> bool:
    """Update all keys, or none if one is missing."""
    return all(key in entries for key in keys) and all(map(_update, [entries] * len(keys), keys, items))


def _of_group(entries: Entries, group: str) -> list[str]:
    return sorted(key for key in entries if key.startswith(f"{group}/"))


def _matching(entries: Entries, group: str, terms: Mapping[str, str]) -> list[str]:
    return [key for key in _of_group(entries, group) if terms.items() <= entries[key][1].items()]


def keys_with(keys: Iterable[str], group: str) -> list[str]:
    """Return the keys that begin with the name of a group, sorted."""
    return sorted(key for key in keys if key.startswith(f"{group}/"))


def _query(store: AbstractReadOnlyStore, group: str, terms: Mapping[str, Any]) -> list[Any]:
    return sorted([key, metadata] for key, metadata in store.query(**terms) if key.startswith(f"{group}/"))


def _nothing(function: Callable[[], Any]) -> None:
    """Call a function that removes something, and ignore whether it existed."""
    _or_none(function)


def _make_index_again(store: Any, group: str, name: str) -> None:
    _nothing(lambda: store.remove_index(name))
    store.add_index(name)


# -- files --------------------------------------------------------------------------------------------


@functools.cache
def _folder() -> TemporaryDirectory[str]:
    """Return a folder for files, which is removed when the process ends.

    One for each call would be removed by `shutil`, which closes a descriptor twice, perhaps one that is used
    again, if an exception from outside comes after the first time.
    """
    return TemporaryDirectory(prefix="latchstore-stress-")


_numbers = itertools.count()


def _with_a_file(use: Callable[[Path], T]) -> T:
    """Call a function with the path of a file that does not exist yet."""
    path = Path(_folder().name, f"{os.getpid()}.{next(_numbers)}")
    try:
        return use(path)
    finally:
        path.unlink(missing_ok=True)


def _by_a_file(store: AbstractReadOnlyStore, key: str) -> str:
    def read(path: Path) -> str:
        store.to_file(key, path)
        return path.read_text(encoding="utf-8")

    return _with_a_file(read)


def _from_file(store: AbstractStore, key: str, data: str) -> None:
    def write(path: Path) -> None:
        path.write_text(data, encoding="utf-8")
        store.from_file(key, path)

    _with_a_file(write)


def _saved(store: Any, group: str, _: Any) -> list[Any]:
    """Return the entries of a group from a file that the store is saved to."""

    def save(path: Path) -> list[Any]:
        store.save(path)
        copy = type(store).load(path, EventManager())
        found = [[key, *pair_of(copy.get(key))] for key in sorted(copy.glob(f"{group}/*"))]
        copy.close()
        return found

    return _with_a_file(save)


# -- mappings -----------------------------------------------------------------------------------------


def _mapping(store: AbstractStore) -> Any:
    return store.mapping("json")


def _quoted(value: str) -> str:
    """Return the data of a mapping's value."""
    return f'"{value}"'


def _setdefault(entries: Entries, key: str, value: str) -> str:
    if key not in entries:
        entries[key] = (_quoted(value), {})
    return entries[key][0].strip('"')


def _pop(entries: Entries, key: str, _: Any) -> str | None:
    return entries.pop(key)[0].strip('"') if key in entries else None


def _popped(mapping: Any) -> list[Any] | None:
    """Remove a key of a mapping; return it and its value, or None if there is none."""
    item: list[Any] | None = _or_none(lambda: list(mapping.popitem()))
    return item


def _popitem(entries: Entries, key: str, _: Any) -> Any:
    """Remove the key that was removed; if none was, `key` is the group, in which there must be none."""
    return _of_group(entries, key) or _pop(entries, key, None)


def _update_mapping(entries: Entries, group: str, values: Mapping[str, str]) -> None:
    for key, value in values.items():
        _put_data(entries, key, _quoted(value))


def _value_in(entries: Entries, key: str, _: Any) -> str | None:
    return entries[key][0].strip('"') if key in entries else None


METHODS: dict[str, Method] = {
    # -- one key, read ------------------------------------------------------------------------
    "get": Method(lambda s, k, a: _or_none(lambda: pair_of(s.get(k))), _entry_in, True),
    "get_data": Method(lambda s, k, a: _or_none(lambda: _text(s.get_data(k))), _data_in, True),
    "get_data_range": Method(
        lambda s, k, a: _or_none(lambda: _text(s.get_data_range(k, a[0], a[1]))),
        lambda e, k, a: e[k][0][a[0] : a[1]] if k in e else None,
        True,
    ),
    "to_bytes": Method(lambda s, k, a: _or_none(lambda: s.to_bytes(k).decode()), _data_in, True),
    "get_metadata": Method(lambda s, k, a: _or_none(lambda: s.get_metadata(k)), _metadata_in, True),
    "get_metadata, selected": Method(
        lambda s, k, a: _or_none(lambda: s.get_metadata(k, select=a)), _selected_in, True
    ),
    "exists": Method(lambda s, k, a: s.exists(k), lambda e, k, a: k in e, True),
    "in": Method(lambda s, k, a: k in s, lambda e, k, a: k in e, True),
    # -- one key, written ---------------------------------------------------------------------
    "set": Method(_set, _put),
    "set_data": Method(lambda s, k, a: s.set_data(k, io.BytesIO(a.encode())), _put_data),
    "from_bytes": Method(lambda s, k, a: s.from_bytes(k, a.encode()), _put_data),
    "set_metadata": Method(lambda s, k, a: s.set_metadata(k, dict(a)), _put_metadata),
    "update_metadata": Method(lambda s, k, a: _done(lambda: s.update_metadata(k, dict(a))), _update),
    "delete": Method(lambda s, k, a: _done(lambda: s.delete(k)), _remove),
    "evict": Method(lambda s, k, a: _done(lambda: s.evict(k)), _remove),
    "delete, if unchanged": Method(lambda s, k, a: _removed_if_unchanged(s, s.delete, k), _removed_in),
    "evict, if unchanged": Method(lambda s, k, a: _removed_if_unchanged(s, s.evict, k), _removed_in),
    # -- several keys -------------------------------------------------------------------------
    "multiget": Method(
        lambda s, k, a: _or_none(lambda: [pair_of(v) for v in s.multiget(k)]), _all_of(_entry_in), True
    ),
    "multiget_data": Method(
        lambda s, k, a: _or_none(lambda: [_text(v) for v in s.multiget_data(k)]), _all_of(_data_in), True
    ),
    "multiget_metadata": Method(
        lambda s, k, a: _or_none(lambda: list(s.multiget_metadata(k))), _all_of(_metadata_in), True
    ),
    "multiset": Method(lambda s, k, a: s.multiset(k, _pairs(a)), _each(_put)),
    "multiset_data": Method(
        lambda s, k, a: s.multiset_data(k, [io.BytesIO(v.encode()) for v in a]), _each(_put_data)
    ),
    "multiset_metadata": Method(lambda s, k, a: s.multiset_metadata(k, list(a)), _each(_put_metadata)),
    "multiupdate_metadata": Method(
        lambda s, k, a: _done(lambda: s.multiupdate_metadata(k, list(a))), _update_all
    ),
    # -- searches ----------------------------------------------------------------------------------
    "glob": Method(
        lambda s, k, a: sorted(s.glob(f"{k}/*")), lambda e, k, a: _of_group(e, k), True
    ),
    "query_keys": Method(lambda s, k, a: keys_with(s.query_keys(**a), k), _matching, True),
    "query": Method(
        _query, lambda e, k, a: [[key, e[key][1]] for key in _matching(e, k, a)], True
    ),
    "len": Method(lambda s, k, a: len(s), lambda e, k, a: len(e), True),
    "add_index": Method(lambda s, k, a: s.add_index(a), lambda e, k, a: None, True),
    "index made again": Method(_make_index_again, lambda e, k, a: None, True),
    "remove_index": Method(lambda s, k, a: _nothing(lambda: s.remove_index(a)), lambda e, k, a: None, True),
    # -- files --------------------------------------------------------------------------------
    "to_file": Method(lambda s, k, a: _or_none(lambda: _by_a_file(s, k)), _data_in, True),
    "from_file": Method(_from_file, _put_data),
    "save": Method(_saved, lambda e, k, a: [[key, *e[key]] for key in _of_group(e, k)], True),
    # -- mappings -----------------------------------------------------------------------------
    "mapping: get": Method(lambda s, k, a: _mapping(s).get(k), _value_in, True),
    "mapping: set": Method(
        lambda s, k, a: _mapping(s).__setitem__(k, a), lambda e, k, a: _put_data(e, k, _quoted(a))
    ),
    "mapping: setdefault": Method(lambda s, k, a: _mapping(s).setdefault(k, a), _setdefault),
    "mapping: pop": Method(lambda s, k, a: _mapping(s).pop(k, None), _pop),
    "mapping: popitem": Method(lambda s, k, a: _popped(_mapping(s)), _popitem),
    "mapping: update": Method(lambda s, k, a: _mapping(s).update(a), _update_mapping),
    "mapping: clear": Method(lambda s, k, a: _mapping(s).clear(), lambda e, k, a: e.clear()),
}  # fmt: skip


def made(store: AbstractStore, call: Call) -> Any:
    """Make a call; return its answer."""
    name, key, argument = call
    return METHODS[name].make(store, key, argument)


def calls_of(name: str, key: Any, argument: Any, blocks: Collection[str]) -> Sequence[Call]:
    """Return the calls of an operation: several, if its name is that of a transaction."""
    if name in blocks:
        return argument  # type: ignore[no-any-return]
    if name.startswith("multi"):
        return [(name, *argument)]
    return [(name, key, argument)]


def _state_of(entries: Entries) -> Hashable:
    return frozenset((key, data, frozenset(metadata.items())) for key, (data, metadata) in entries.items())


class EntriesModel:
    """A group of entries. Its state is the set of their keys, data and metadata.

    An operation is a call, or has a list of calls as its argument, which are one atomic operation; its answer
    is then the list of their answers.

    Parameters
    ----------
    blocks : collection of str
        Names of the operations that are lists of calls.
    initial : mapping, optional
        The initial entries.
    others : int
        Number of other keys in the store, which exist throughout and which ``len`` counts.
    """

    def __init__(
        self, blocks: Sequence[str] = (), initial: Mapping[str, Sequence[Any]] | None = None, others: int = 0
    ) -> None:
        self._blocks = frozenset(blocks)
        entries: Entries = {f"other {number}": ("", {}) for number in range(others)}
        entries.update((key, (data, metadata)) for key, (data, metadata) in (initial or {}).items())
        self.initial: Hashable = _state_of(entries)

    def _calls(self, operation: Invocation) -> Sequence[Call]:
        return calls_of(operation.name, operation.key, operation.argument, self._blocks)

    def step(self, state: Any, operation: Invocation, answer: Any) -> Hashable:
        """Return the state after the operation, or `REFUSED` if its answer does not fit the state before."""
        entries: Entries = {key: (data, dict(metadata)) for key, data, metadata in state}
        answers = [
            METHODS[name].apply(entries, key, argument) for name, key, argument in self._calls(operation)
        ]
        if answer is not UNKNOWN and answer != (answers if operation.name in self._blocks else answers[0]):
            return REFUSED
        return _state_of(entries)

    def is_read(self, operation: Invocation, answer: Any) -> bool:
        """Return whether all entries are unchanged."""
        return all(METHODS[name].reads for name, _, _ in self._calls(operation))
