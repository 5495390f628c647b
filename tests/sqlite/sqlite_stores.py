"""A `SqliteStore` for the contract's tests, with and without indexes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from latchstore import EventManager, Ordered, SqliteStore
from tests.contract.stores import StoreContract

#: Some of the metadata items that the contract's tests ask for, and what is known of every entry.
INDEXES: tuple[str | Ordered, ...] = (
    "kind",
    *map(Ordered, ("name", "number", "list", "it", "key", "created", "modified", "revision")),
)


def open_file(path: Path) -> SqliteStore:
    """Open the store of a file."""
    return SqliteStore(path, EventManager(), durability="off")


class SqliteStores(StoreContract):
    """The store of each test, where indexes make no difference: it has some."""

    any_metadata = False
    indexes: tuple[str | Ordered, ...] = INDEXES

    @pytest.fixture
    def store(self) -> Iterator[SqliteStore]:
        # Each folder of pytest's is looked for among all that it has made.
        options: dict[str, Any] = {"indexes": self.indexes, "durability": "off"}
        with (
            TemporaryDirectory() as folder,
            SqliteStore(f"{folder}/file", EventManager(), **options) as store,
        ):
            yield store


class IndexedSqliteStores(SqliteStores):
    """Where they do (answers, and writes that keep them up to date): none, and some."""

    @pytest.fixture(params=[(), INDEXES], ids=["plain", "indexed"], autouse=True)
    def _indexes(self, request: pytest.FixtureRequest) -> None:
        self.indexes = request.param


@pytest.mark.in_turn("_indexes", 2)
class SqliteStoresInTurn(IndexedSqliteStores):
    """Where writes keep indexes up to date, and what they write is tested: each case on one of these."""
