"""A small store over a file that several processes use, written from docs/how-to/writing-a-store.md."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import inf, nextafter
from pathlib import Path
from typing import Any

from latchstore import AbstractStore, LockTimeoutError, StringValue, Value
from latchstore.contract.arguments import checked_key, read_all
from latchstore.contract.requests import answer, request_of

_COLUMNS = "data, metadata, created, modified"


class FileStore(AbstractStore):
    """Values in one table of a SQLite file; each thread has a connection, and a writer keeps out others."""

    connected = False

    def __init__(self, path: str, lock_timeout: float = 30.0) -> None:
        super().__init__(None)
        self._path = path
        self._timeout = lock_timeout
        self._own = threading.local()
        # Guards the list of connections.
        self._lock = threading.Lock()
        self._all: list[sqlite3.Connection] = []
        with self._connection() as connection:
            connection.execute("pragma journal_mode=wal")
            connection.execute(
                "create table if not exists entries(key primary key, data, metadata, created, modified)"
            )

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        own = self._own
        if getattr(own, "connection", None) is None:
            own.depth = 0
            own.connection = sqlite3.connect(
                self._path, timeout=self._timeout, isolation_level=None, check_same_thread=False
            )
            with self._lock:
                self._all.append(own.connection)
            own.connection.execute("pragma synchronous=off")
        try:
            yield own.connection
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise LockTimeoutError("another writer has the file") from error
            raise OSError(f"{self._path}: {error}") from error

    def connect(self, credentials: object = None) -> None:
        self.connected = True

    def disconnect(self) -> None:
        self.connected = False

    def is_connected(self) -> bool:
        return self.connected

    def close(self) -> None:  # type: ignore[override]
        self._own = threading.local()
        with self._lock:
            while self._all:
                self._all.pop().close()

    def info(self) -> dict[str, Any]:
        return {"readonly": False}

    def get(self, key: str) -> StringValue:
        checked_key(key)
        with self._connection() as connection:
            rows = connection.execute(
                "select data, metadata, created, modified from entries where key=?", (key,)
            )
            found = rows.fetchall()
        if not found:
            raise KeyError(key)
        data, metadata, created, modified = found[0]
        return StringValue(data, json.loads(metadata), created, modified)

    def query(
        self,
        select: Any = None,
        *,
        where: Any = None,
        order_by: Any = None,
        descending: bool = False,
        limit: Any = None,
        **terms: Any,
    ) -> Any:
        request = request_of(where, terms, order_by, descending, limit)
        with self._connection() as connection:
            rows = connection.execute("select key, data, metadata, created, modified from entries").fetchall()
        values = [
            (key, StringValue(data, json.loads(metadata), *times)) for key, data, metadata, *times in rows
        ]
        return answer(values, request, select)

    def set(self, key: str, value: Any, buffer_size: int = 2**20) -> None:  # type: ignore[override]
        data, metadata = (value.data, value.metadata) if isinstance(value, Value) else value
        content, text = read_all(data, buffer_size), json.dumps(metadata)
        checked_key(key)
        with self.transaction(), self._connection() as connection:
            times = connection.execute("select created, modified from entries where key=?", (key,)).fetchone()
            now = time.time()
            created, now = (times[0], max(now, nextafter(times[1], inf))) if times else (now, now)
            connection.execute(
                "insert or replace into entries values (?, ?, ?, ?, ?)", (key, content, text, created, now)
            )

    def delete(self, key: str) -> None:  # type: ignore[override]
        checked_key(key)
        with self.transaction(), self._connection() as connection:
            if not connection.execute("delete from entries where key=?", (key,)).rowcount:
                raise KeyError(key)

    def set_data(self, key: str, data: Any, buffer_size: int = 2**20) -> None:  # type: ignore[override]
        content = read_all(data, buffer_size)
        with self.transaction():
            self.from_bytes(key, content)

    def from_bytes(self, key: str, data: bytes, buffer_size: int = 2**20) -> None:  # type: ignore[override]
        with self.transaction():
            self.set(key, (_Stream(data), self.get_metadata(key) if key in self else {}))

    def set_metadata(self, key: str, metadata: Mapping[str, Any]) -> None:  # type: ignore[override]
        with self.transaction():
            self.set(key, (_Stream(self.to_bytes(key) if key in self else b""), metadata))

    def update_metadata(self, key: str, metadata: Mapping[str, Any]) -> None:  # type: ignore[override]
        with self.transaction():
            self.set_metadata(key, {**self.get_metadata(key), **metadata})

    @contextmanager
    def transaction(self, notes: str = "") -> Iterator[None]:
        with self._connection() as connection:
            own = self._own
            name = f"block_{own.depth}"
            connection.execute(f"savepoint {name}" if own.depth else "begin immediate")
            own.depth += 1
            try:
                yield
            except BaseException:
                own.depth -= 1
                connection.execute(f"rollback to {name}" if own.depth else "rollback")
                raise
            own.depth -= 1
            try:
                connection.execute(f"release {name}" if own.depth else "commit")
            except sqlite3.Error:
                if connection.in_transaction:
                    connection.execute("rollback")
                raise


class _Stream:
    """The bytes once."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int = -1) -> bytes:
        data, self._data = self._data, b""
        return data


class Files:
    """How the harness makes, opens and removes them."""

    store: type[FileStore] = FileStore

    @staticmethod
    def create(directory: str) -> str:
        return os.path.join(directory, "file")

    @classmethod
    def attach(cls, where: str, lock_timeout: float = 30.0) -> FileStore:
        return cls.store(where, lock_timeout)

    @staticmethod
    def destroy(where: str) -> None:
        assert Path(where).exists()
