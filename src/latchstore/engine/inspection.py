"""The test hook of a store: access to its parts, and consistency checks.

Tests access a store's parts only through this module. Programs do not use it, the store does not import it,
and it may change at any time.

Thread safety: the module of each part documents how it may be used.
"""

from __future__ import annotations

from typing import Any

from latchstore.delivery.change_feed import ChangeFeed
from latchstore.delivery.dispatcher import EventDispatcher
from latchstore.engine.interface import Engine
from latchstore.engine.memory import DictMemoryStore
from latchstore.engine.table import Table
from latchstore.engine.transactional_store import TransactionalStore


def table_of(store: DictMemoryStore) -> Table:
    """Return the engine of a store: entries, journal, locks and owner."""
    return store._table


def engine_of(store: TransactionalStore) -> Engine:
    """Return the engine of a store of any kind."""
    return store._engine


def dispatcher_of(store: TransactionalStore) -> EventDispatcher:
    """Return the dispatcher of a store's events."""
    return store._dispatcher


def feed_of(store: TransactionalStore) -> ChangeFeed:
    """Return the change feed of a store's watches."""
    return store._feed


def check(store: DictMemoryStore) -> None:
    """Raise AssertionError if the structures of a store are inconsistent; without concurrent writers."""
    store._table.check()


def check_idle(store: DictMemoryStore) -> None:
    """Raise AssertionError like `check`, or if a block is open or a lock held; without concurrent use."""
    table = store._table
    table.check()
    lock, owner = table.latches
    assert owner.claim is None, owner.describe()
    assert not table.routes, f"transactions are open: {table.routes}"
    assert table.detour is None, f"reads make a detour: {table.detour}"
    assert not lock.is_used(), "the table lock is held"


def replace_entries(store: DictMemoryStore, entries: dict[str, Any]) -> None:
    """Make a store keep its entries in another dict, which must have the same content."""
    table = store._table
    store._entries = table.entries = table.preimages.base = entries


def renew_in_child(store: DictMemoryStore) -> None:
    """Run the handler of a forked child for one store."""
    store._renew_in_child()
