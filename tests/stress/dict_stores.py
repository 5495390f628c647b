"""Stores as somebody writes them who starts from `AbstractStore`: a dict and a lock, or a database.

Thread safety: `LockedDict`, `Sqlite` and `Slow` are safe; of the others each has one thing wrong.
"""

from __future__ import annotations

import copy
import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from latchstore import AbstractStore, StringValue


def _bytes(data: Any) -> bytes:
    return bytes(data) if isinstance(data, bytes | bytearray | memoryview) else bytes(data.read())


def _matches(metadata: Mapping[str, Any], terms: Mapping[str, Any]) -> bool:
    return all(name in metadata and metadata[name] == value for name, value in terms.items())


class _Plain(AbstractStore):
    """What all of them need and nobody races for."""

    def connect(self, credentials: object = None) -> None:
        """Nothing is to be connected."""

    def disconnect(self) -> None:
        """Nothing is connected."""

    def is_connected(self) -> bool:
        return True

    def info(self) -> dict[str, Any]:
        return {"readonly": False}


class LockedDict(_Plain):
    """A dict of pairs behind one lock; a transaction holds it, and puts a copy back if it fails."""

    def __init__(self) -> None:
        super().__init__()
        # Guards `entries`; held by a transaction from its beginning to its end.
        self.lock = threading.RLock()
        self.entries: dict[str, tuple[bytes, dict[str, Any]]] = {}

    def get(self, key: str) -> StringValue:
        with self.lock:
            return StringValue(*self.entries[key])

    def set(self, key: str, value: Any, *args: Any, **options: Any) -> None:
        data, metadata = value
        entry = (_bytes(data), copy.deepcopy(dict(metadata)))
        with self.lock:
            self.entries[key] = entry

    def delete(self, key: str, **options: Any) -> None:
        with self.lock:
            del self.entries[key]

    def set_data(self, key: str, data: Any, *args: Any, **options: Any) -> None:
        content = _bytes(data)
        with self.lock:
            self.entries[key] = (content, self.entries.get(key, (b"", {}))[1])

    def set_metadata(self, key: str, metadata: Any, **options: Any) -> None:
        with self.lock:
            self.entries[key] = (self.entries.get(key, (b"", {}))[0], copy.deepcopy(dict(metadata)))

    def update_metadata(self, key: str, metadata: Any, **options: Any) -> None:
        with self.lock:
            data, before = self.entries[key]
            self.entries[key] = (data, {**before, **copy.deepcopy(dict(metadata))})

    def query(self, select: Any = None, **kwargs: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        with self.lock:
            found = [
                (key, metadata) for key, (_, metadata) in self.entries.items() if _matches(metadata, kwargs)
            ]
            if select is not None:
                names = list(select)
                found = [(key, {name: all_[name] for name in names if name in all_}) for key, all_ in found]
            return iter(copy.deepcopy(found))

    def multiget(self, keys: Iterable[str]) -> Iterator[Any]:
        with self.lock:
            return iter([self.get(key) for key in keys])

    @contextmanager
    def transaction(self, notes: str = "") -> Iterator[None]:
        with self.lock:
            before = dict(self.entries)
            try:
                yield
            except BaseException:
                self.entries.clear()
                self.entries.update(before)
                raise


class Slow(LockedDict):
    """The same, which takes 5 ms for each read and write of a key."""

    def get(self, key: str) -> StringValue:
        time.sleep(0.005)
        return super().get(key)

    def set_data(self, key: str, *args: Any, **options: Any) -> None:
        time.sleep(0.005)
        super().set_data(key, *args, **options)


class Sqlite(_Plain):
    """A table of SQLite in memory, of which one thread at a time has the connection."""

    def __init__(self) -> None:
        super().__init__()
        # Guards the connection; held by a transaction from its beginning to its end.
        self.lock = threading.RLock()
        self.depth = 0
        self.database = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self.database.execute("CREATE TABLE entries (key TEXT PRIMARY KEY, data BLOB, metadata TEXT)")

    def close(self, timeout: Any = 30.0) -> None:
        """Close the database, which is gone then."""
        self.database.close()

    def _rows(self, sql: str, *parameters: Any) -> list[Any]:
        with self.lock:
            return self.database.execute(sql, parameters).fetchall()

    def _row(self, key: str) -> tuple[bytes, dict[str, Any]]:
        rows = self._rows("SELECT data, metadata FROM entries WHERE key = ?", key)
        if not rows:
            raise KeyError(key)
        return rows[0][0], json.loads(rows[0][1])

    def _put(self, key: str, data: bytes, metadata: Mapping[str, Any]) -> None:
        self._rows("REPLACE INTO entries VALUES (?, ?, ?)", key, data, json.dumps(dict(metadata)))

    def get(self, key: str) -> StringValue:
        return StringValue(*self._row(key))

    def set(self, key: str, value: Any, *args: Any, **options: Any) -> None:
        data, metadata = value
        self._put(key, _bytes(data), metadata)

    def delete(self, key: str, **options: Any) -> None:
        with self.lock:
            self._row(key)
            self._rows("DELETE FROM entries WHERE key = ?", key)

    def _change(self, key: str, new: Any, data: bytes | None = None, metadata: Any = None) -> None:
        with self.lock:
            try:
                old = self._row(key)
            except KeyError:
                if not new:
                    raise
                old = (b"", {})
            self._put(key, old[0] if data is None else data, old[1] if metadata is None else metadata)

    def set_data(self, key: str, data: Any, *args: Any, **options: Any) -> None:
        self._change(key, True, data=_bytes(data))

    def set_metadata(self, key: str, metadata: Any, **options: Any) -> None:
        self._change(key, True, metadata=metadata)

    def update_metadata(self, key: str, metadata: Any, **options: Any) -> None:
        with self.lock:
            self._change(key, False, metadata={**self._row(key)[1], **metadata})

    def query(self, select: Any = None, **kwargs: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        rows = [(key, json.loads(text)) for key, text in self._rows("SELECT key, metadata FROM entries")]
        names = None if select is None else list(select)
        return iter([
            (key, each if names is None else {name: each[name] for name in names if name in each})
            for key, each in rows
            if _matches(each, kwargs)
        ])  # fmt: skip

    def multiget(self, keys: Iterable[str]) -> Iterator[Any]:
        with self.lock:
            return iter([self.get(key) for key in keys])

    @contextmanager
    def transaction(self, notes: str = "") -> Iterator[None]:
        with self.lock:
            name = f"block{self.depth}"
            self.depth += 1
            self._rows(f"SAVEPOINT {name}")
            try:
                yield
            except BaseException:
                self._rows(f"ROLLBACK TO {name}")
                raise
            finally:
                self.depth -= 1
                self._rows(f"RELEASE {name}")


# -- broken ones ------------------------------------------------------------------------------------------


class UpdatesWithoutLock(LockedDict):
    """The lock is forgotten where metadata is updated."""

    def update_metadata(self, key: str, metadata: Any, **options: Any) -> None:
        data, before = self.entries[key]
        self.entries[key] = (data, {**before, **copy.deepcopy(dict(metadata))})


class SetsDataWithoutLock(LockedDict):
    """The lock is forgotten where data is set."""

    def set_data(self, key: str, data: Any, *args: Any, **options: Any) -> None:
        metadata = self.entries.get(key, (b"", {}))[1]
        self.entries[key] = (_bytes(data), metadata)


class ReadsWithoutLock(LockedDict):
    """The lock is forgotten where a key is read, so a reader sees into transactions."""

    def get(self, key: str) -> StringValue:
        return StringValue(*self.entries[key])


class CountsWithoutLock(LockedDict):
    """The lock is forgotten where keys are counted."""

    def __len__(self) -> int:
        return len(self.entries)


class LooksAndDeletes(LockedDict):
    """A delete looks for the key before it takes the lock."""

    def delete(self, key: str, **options: Any) -> None:
        if key not in self.entries:
            raise KeyError(key)
        with self.lock:
            self.entries.pop(key, None)


class SwapsCopies(LockedDict):
    """A value is set by a copy of the dict, which is made before the lock is taken."""

    def set(self, key: str, value: Any, *args: Any, **options: Any) -> None:
        data, metadata = value
        entries = {**self.entries, key: (_bytes(data), copy.deepcopy(dict(metadata)))}
        with self.lock:
            self.entries = entries


class CopiesTooEarly(LockedDict):
    """The copy that a rollback puts back is made before the lock is taken."""

    @contextmanager
    def transaction(self, notes: str = "") -> Iterator[None]:
        before = dict(self.entries)
        with self.lock:
            try:
                yield
            except BaseException:
                self.entries.clear()
                self.entries.update(before)
                raise


class RemembersReads(LockedDict):
    """What was read is remembered, and forgotten before a write and not after it."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, tuple[bytes, dict[str, Any]]] = {}

    def get(self, key: str) -> StringValue:
        if key not in self.known:
            with self.lock:
                entry = self.entries[key]
            self.known[key] = entry
        found = self.known.get(key)
        return super().get(key) if found is None else StringValue(*found)

    def set(self, key: str, *args: Any, **options: Any) -> None:
        self.known.pop(key, None)
        super().set(key, *args, **options)

    def set_data(self, key: str, *args: Any, **options: Any) -> None:
        self.known.pop(key, None)
        super().set_data(key, *args, **options)

    def set_metadata(self, key: str, *args: Any, **options: Any) -> None:
        self.known.pop(key, None)
        super().set_metadata(key, *args, **options)

    def update_metadata(self, key: str, *args: Any, **options: Any) -> None:
        self.known.pop(key, None)
        super().update_metadata(key, *args, **options)

    def delete(self, key: str, **options: Any) -> None:
        self.known.pop(key, None)
        super().delete(key, **options)
