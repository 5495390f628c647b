"""A `SqliteStore` for the contract's tests, with and without indexes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from latchstore import EventManager, Ordered, SqliteStore
from tests.contract.stores import StoreContract

#: Some of the metadata items that the contract's tests ask for, and what is known of every entry.
INDEXES = ("kind", *map(Ordered, ("name", "number", "list", "it", "key", "created", "modified", "revision")))


class SqliteStores(StoreContract):
    """The store of each test: without indexes, and with some."""

    any_metadata = False

    @pytest.fixture(params=[(), INDEXES], ids=["plain", "indexed"])
    def store(
        self, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[SqliteStore]:
        path = tmp_path_factory.mktemp("store") / "file"
        with SqliteStore(path, EventManager(), indexes=request.param, durability="off") as store:
            yield store
