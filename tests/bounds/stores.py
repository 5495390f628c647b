"""Stores with a bound, and what is put into them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from latchstore import AbstractStore, DictMemoryStore, Watch
from latchstore.cache.policies import EvictionPolicy, Sieve
from latchstore.contract.values import Entry
from latchstore.engine.bounded import bounded
from latchstore.engine.bounded_table import BoundedTable
from latchstore.engine.limits import Limits


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def limited(
    store: AbstractStore, *, policy: Callable[[], EvictionPolicy] = Sieve, **limits: Any
) -> BoundedTable:
    """Have a store keep within limits."""
    limits = {"max_entries": None, "max_bytes": None, "idle": None, "clock": Clock(), **limits}
    made = bounded(store, Limits(make_policy=policy, **limits))
    assert isinstance(made, BoundedTable)
    return made


def entry(data: bytes = b"", **metadata: Any) -> Entry:
    made = Entry(metadata)
    made.data = data
    return made


def put(limits: BoundedTable, *keys: str, data: bytes = b"", **metadata: Any) -> None:
    limits.write(tuple((key, entry(data, **metadata)) for key in keys), "put")


def read(watch: Watch) -> list[Any]:
    return [watch.get(0) for _ in range(len(watch))]


def keys_of(store: DictMemoryStore) -> str:
    return "".join(sorted(store.query_keys()))
