"""The smallest store there can be: a dict, and nothing but what `AbstractStore` leaves abstract.

It shows that the methods that `AbstractStore` does define are right on top of any store. It is for one
thread and emits no events.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import inf, nextafter
from typing import Any

from latchstore import AbstractStore, BaseEventManager, RevisionMismatchError, StringValue, Value
from latchstore.contract.arguments import (
    DEFAULT_BUFFER_SIZE,
    Readable,
    checked_buffer_size,
    checked_key,
    checked_revision,
    describe,
    read_all,
)
from latchstore.contract.ordering import OrderBy
from latchstore.contract.requests import answer, request_of
from latchstore.contract.store import SettableValue


class NumberedValue(StringValue):
    """A value that knows by which change it came about."""

    __slots__ = ("_revision",)

    def __init__(self, value: Value, revision: int) -> None:
        super().__init__(value.range().read(), value.metadata, value.created, value.modified)
        self._revision = revision

    @property
    def revision(self) -> int:
        return self._revision


class ReferenceStore(AbstractStore):
    """A dict of values, which are replaced and never changed."""

    def __init__(self, event_manager: BaseEventManager | None = None) -> None:
        super().__init__(event_manager)
        self._values: dict[str, NumberedValue] = {}
        self._revision = 0
        self._connected = False

    def connect(self, credentials: object = None) -> None:
        self._connected = True

    def disconnect(self) -> None:
        self._connected = False

    def is_connected(self) -> bool:
        return self._connected

    def info(self) -> dict[str, Any]:
        return {"readonly": False}

    def get(self, key: str) -> Value:
        # A new value, with a stream of its own.
        value = self._values[checked_key(key)]
        return NumberedValue(value, value.revision)

    def query(
        self,
        select: Iterable[str] | None = None,
        *,
        where: Mapping[str, Any] | None = None,
        order_by: OrderBy | None = None,
        descending: bool = False,
        limit: int | None = None,
        **kwargs: Any,
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        request = request_of(where, kwargs, order_by, descending, limit)
        return answer(self._values.items(), request, select)

    def set(
        self,
        key: str,
        value: SettableValue,
        buffer_size: int = DEFAULT_BUFFER_SIZE,
        *,
        if_revision: int | None = None,
    ) -> None:
        key = checked_key(key)
        checked_buffer_size(buffer_size)
        data, metadata = _parts(value)
        self._put(key, read_all(data, buffer_size), _checked_metadata(key, metadata), if_revision)

    def delete(self, key: str, *, if_revision: int | None = None) -> None:
        key = checked_key(key)
        self._check_revision(key, if_revision)
        del self._values[key]

    def set_data(
        self,
        key: str,
        data: Readable | bytes | bytearray | memoryview,
        buffer_size: int = DEFAULT_BUFFER_SIZE,
        *,
        if_revision: int | None = None,
    ) -> None:
        key = checked_key(key)
        checked_buffer_size(buffer_size)
        content = read_all(data, buffer_size)
        self._put(key, content, self._values[key].metadata if key in self._values else {}, if_revision)

    def set_metadata(self, key: str, metadata: Mapping[str, Any], *, if_revision: int | None = None) -> None:
        key = checked_key(key)
        data = self._values[key].range().read() if key in self._values else b""
        self._put(key, data, _checked_metadata(key, metadata), if_revision)

    def update_metadata(
        self, key: str, metadata: Mapping[str, Any], *, if_revision: int | None = None
    ) -> None:
        key = checked_key(key)
        changes = _checked_metadata(key, metadata)
        self._check_revision(key, if_revision)
        current = self._values[key]
        self._put(key, current.range().read(), {**current.metadata, **changes}, if_revision)

    @contextmanager
    def transaction(self, notes: str = "") -> Iterator[None]:
        if not isinstance(notes, str):
            raise TypeError(f"notes must be a str, got {describe(notes)}")
        # Revisions go on growing, so that none is ever used twice.
        values = dict(self._values)
        try:
            yield
        except BaseException:
            self._values = values
            raise

    def _check_revision(self, key: str, if_revision: int | None) -> None:
        actual = self._values[key].revision if key in self._values else 0
        if checked_revision(if_revision) not in (None, actual):
            assert if_revision is not None
            raise RevisionMismatchError(key, if_revision, actual)

    def _put(self, key: str, data: bytes, metadata: Mapping[str, Any], if_revision: int | None) -> None:
        self._check_revision(key, if_revision)
        now = time.time()
        created = now
        current = self._values.get(key)
        if current is not None:
            created = current.created
            now = max(now, nextafter(current.modified, inf))
        self._revision += 1
        self._values[key] = NumberedValue(StringValue(data, metadata, created, now), self._revision)


def _parts(value: Any) -> tuple[Any, Any]:
    if isinstance(value, Value):
        return value.data, value.metadata
    if not isinstance(value, tuple):
        raise TypeError(f"value must be a Value or a pair, got {describe(value)}")
    if len(value) != 2:
        raise ValueError(f"value must be a Value or a pair, got {describe(value)}")
    return value


def _checked_metadata(key: str, metadata: Any) -> dict[str, Any]:
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata must be a mapping, got {describe(metadata)}")
    for name in metadata:
        if not isinstance(name, str):
            raise TypeError(f"metadata must have str keys, got {describe(name)}")
    memo: dict[int, Any] = {}  # of all items: what two of them share, their copies share
    copied = {}
    for name, item in metadata.items():
        try:
            copied[name] = copy.deepcopy(item, memo)
        except Exception as error:
            raise TypeError(f"metadata for key {key!r}: item {name!r} cannot be copied: {error!r}") from error
    return copied
