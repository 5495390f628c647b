"""Encore's DictMemoryStore behind our interface, to put it under stress.

It shows how a store of another making is adapted, and what the harness says of one that has neither locks nor
transactions:

    python -m latchstore stress --store examples.encore_store:EncoreStore --schedule random
        --workload registers,transactions,bank,list-append,scans

Encore's class says of itself that it does not support transactions. Its events do not say of which commit
they are, so the workload "events" is not for it. `LockedEncoreStore` has one lock around each call, and no
transactions: what is left is the store that encore's can be for threads.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from copy import deepcopy
from io import BytesIO
from typing import Any

from encore.events.event_manager import EventManager as EncoreEventManager
from encore.storage.dict_memory_store import DictMemoryStore as EncoresOwn

from latchstore import AbstractStore, BaseEventManager, EventManager, StringValue, Value
from latchstore.contract.ordering import OrderBy
from latchstore.contract.requests import answer, request_of


class EncoreStore(AbstractStore):
    """Hands every call on to a store of encore's."""

    def __init__(self, event_manager: BaseEventManager | None = None) -> None:
        super().__init__(EventManager() if event_manager is None else event_manager)
        self._store = EncoresOwn()
        # Its own listeners, not those of the process.
        self._store.event_manager = EncoreEventManager()
        self._store.connect()

    def connect(self, credentials: object = None) -> None:
        self._store.connect(credentials)

    def disconnect(self) -> None:
        self._store.disconnect()

    def is_connected(self) -> bool:
        return bool(self._store.is_connected())

    def info(self) -> dict[str, Any]:
        return dict(self._store.info())

    def get(self, key: str) -> Value:
        return _EncoreValue(self._store.get(key))

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
        if request.is_plain:
            return iter(self._store.query(select, **request.terms))
        return answer([(key, self.get(key)) for key in self._store.query_keys()], request, select)

    def set(
        self, key: str, value: Any, buffer_size: int = 1 << 20, *, if_revision: int | None = None
    ) -> None:
        self._refuse(if_revision)
        data, metadata = value
        self._store.set(key, (_stream(data), deepcopy(dict(metadata))), buffer_size)

    def set_data(
        self, key: str, data: Any, buffer_size: int = 1 << 20, *, if_revision: int | None = None
    ) -> None:
        self._refuse(if_revision)
        self._store.set_data(key, _stream(data), buffer_size)

    def set_metadata(self, key: str, metadata: Mapping[str, Any], *, if_revision: int | None = None) -> None:
        self._refuse(if_revision)
        self._store.set_metadata(key, deepcopy(dict(metadata)))

    def update_metadata(
        self, key: str, metadata: Mapping[str, Any], *, if_revision: int | None = None
    ) -> None:
        self._refuse(if_revision)
        self._store.update_metadata(key, deepcopy(dict(metadata)))

    def delete(self, key: str, *, if_revision: int | None = None) -> None:
        self._refuse(if_revision)
        self._store.delete(key)

    def transaction(self, notes: str = "") -> AbstractContextManager[Any]:
        transaction: AbstractContextManager[Any] = self._store.transaction(notes)
        return transaction

    def _refuse(self, if_revision: int | None) -> None:
        if if_revision is not None:
            raise TypeError("encore's store has no revisions")


def _stream(data: Any) -> Any:
    return data if hasattr(data, "read") else BytesIO(data)


class _EncoreValue(Value):
    """A value of encore's."""

    def __init__(self, value: Any) -> None:
        self._value = value
        self._data = value.data

    @property
    def data(self) -> Any:
        return self._data

    @property
    def metadata(self) -> dict[str, Any]:
        return deepcopy(dict(self._value.metadata))

    def range(self, start: int | None = None, end: int | None = None) -> Any:
        return self._value.range(start, end)

    @property
    def size(self) -> int:
        return int(self._value.size)

    @property
    def created(self) -> float:
        return float(self._value.created)

    @property
    def modified(self) -> float:
        return float(self._value.modified)


class LockedEncoreStore(EncoreStore):
    """A store of encore's with one lock around each call, and no transactions."""

    def __init__(self, event_manager: BaseEventManager | None = None) -> None:
        super().__init__(event_manager)
        # Held by each call from its beginning to its end; encore's listeners run meanwhile.
        self.lock = threading.RLock()

    def transaction(self, notes: str = "") -> AbstractContextManager[Any]:
        raise NotImplementedError("encore's store has no transactions")

    def get(self, key: str) -> Value:
        with self.lock:
            value = super().get(key)
            return StringValue(value.data.read(), value.metadata)


def _locked(name: str) -> Any:
    method = getattr(EncoreStore, name)

    @functools.wraps(method)
    def locked(self: LockedEncoreStore, *arguments: Any, **options: Any) -> Any:
        with self.lock:
            found = method(self, *arguments, **options)
            # What encore finds one after the other is found at once; a stream is an iterator as well.
            return iter(list(found)) if isinstance(found, Iterator) and not hasattr(found, "read") else found

    return locked


for _name in (
    "query", "query_keys", "glob", "exists", "set", "set_data", "set_metadata", "update_metadata", "delete",
    "get_data", "get_data_range", "get_metadata", "to_bytes", "from_bytes",
):  # fmt: skip
    setattr(LockedEncoreStore, _name, _locked(_name))
