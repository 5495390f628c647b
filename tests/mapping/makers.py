"""Everything that is a mapping, made anew for each test."""

from __future__ import annotations

from collections.abc import Callable

from latchstore import Cache, DictMemoryStore, EventManager, StoreMapping
from tests.contract.reference_store import ReferenceStore


def mapping_of_a_store() -> StoreMapping:
    return DictMemoryStore(EventManager()).mapping()


def mapping_of_a_minimal_store() -> StoreMapping:
    return ReferenceStore(EventManager()).mapping()


def cache() -> StoreMapping:
    return Cache(codec="pickle")


def bounded_cache() -> StoreMapping:
    return Cache(codec="pickle", max_entries=1_000, ttl=3_600.0, idle=3_600.0)


def cache_of_a_shared_store() -> StoreMapping:
    return Cache(DictMemoryStore(EventManager()), codec="pickle", max_bytes=1_000_000)


Make = Callable[[], StoreMapping]
