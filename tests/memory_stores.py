"""The stores in memory that the contract is tested on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from latchstore import DictMemoryStore, EventManager, Ordered
from latchstore.engine.inspection import check_idle
from latchstore.engine.transactional_store import TransactionalStore

#: Some of the metadata items that the contract's tests ask for.
INDEXES = ("name", "number", "list", "kind", "shared")

#: What some of the stores keep in order, beside a hashed index on one of them.
ORDERED: tuple[str | Ordered, ...] = (
    "kind",
    *map(Ordered, ("name", "number", "list", "it", "due", "key", "created", "modified", "revision")),
)


class MemoryStores:
    """The store of each test, where indexes make no difference: it has a hashed one, and some in order."""

    @pytest.fixture
    def store(self) -> Iterator[DictMemoryStore]:
        with DictMemoryStore(EventManager(), indexes=ORDERED, history=100) as store:
            yield store

    def check(self, store: TransactionalStore) -> None:
        """No block or snapshot is open, nothing of the past is pinned, and all structures agree."""
        assert isinstance(store, DictMemoryStore)
        facts = store.info()
        assert (facts["snapshots"], facts["oldest_snapshot"]) == (0, 0.0)
        assert (facts["pinned_entries"], facts["pinned_bytes"]) == (0, 0)
        check_idle(store)


class IndexedMemoryStores(MemoryStores):
    """Where they do (answers, and writes that keep them up to date): none, hashed ones, and some in order."""

    @pytest.fixture(params=[(), INDEXES, ORDERED], ids=["plain", "indexed", "ordered"])
    def store(self, request: pytest.FixtureRequest) -> Iterator[DictMemoryStore]:
        with DictMemoryStore(EventManager(), indexes=request.param, history=100) as store:
            yield store


@pytest.mark.in_turn("store", 3)
class MemoryStoresInTurn(IndexedMemoryStores):
    """Where writes keep indexes up to date, and what they write is tested: each case on one of these."""
