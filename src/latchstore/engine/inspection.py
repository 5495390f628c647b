"""The test hook of a store: its parts, and whether they agree.

Tests look into a store by this module alone. Programs do not use it, the store does not load it, and nothing
in it is promised.

Thread safety: what may be done with a part, and when, is written in its own module.
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
    """Return what keeps the entries of a store, whatever it is."""
    return store._engine


def dispatcher_of(store: TransactionalStore) -> EventDispatcher:
    """Return what delivers the events of a store."""
    return store._dispatcher


def feed_of(store: TransactionalStore) -> ChangeFeed:
    """Return what fills the watches of a store."""
    return store._feed


def check(store: DictMemoryStore) -> None:
    """Raise AssertionError if the structures of a store disagree; while nobody writes."""
    store._table.check()


def check_idle(store: DictMemoryStore) -> None:
    """Raise AssertionError as `check` does, or if a block is open or a lock held; while nobody uses it."""
    table = store._table
    table.check()
    lock, owner = table.latches
    assert owner.claim is None, owner.describe()
    assert not table.routes, f"transactions are open: {table.routes}"
    assert table.detour is None, f"reads make a detour: {table.detour}"
    assert not lock.is_used(), "the table lock is held"


def replace_entries(store: DictMemoryStore, entries: dict[str, Any]) -> None:
    """Have a store keep its entries in another dict, which has to hold what the old one does."""
    table = store._table
    store._entries = table.entries = table.preimages.base = entries


def renew_in_child(store: DictMemoryStore) -> None:
    """Do with a store what is done with it in a forked child."""
    store._renew_in_child()
