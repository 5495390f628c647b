"""Encore's own tests of a store pass on `DictMemoryStore` and on `SqliteStore`.

They come with encore 0.8.0. The stores that they test are filled here through `set`, as the tests say
that they must be. One case expects what ``get_metadata`` is decided against, and is replaced.
"""

from __future__ import annotations

import io
import tempfile
import unittest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from latchstore import DictMemoryStore, EventManager, SqliteStore
from latchstore.engine.transactional_store import TransactionalStore

if TYPE_CHECKING:
    # The mixins are of unknown types; to the checker, these are classes without methods.
    class StoreReadTestMixin: ...

    class StoreWriteTestMixin: ...
else:
    abstract_test = pytest.importorskip("encore.storage.tests.abstract_test")
    StoreReadTestMixin = abstract_test.StoreReadTestMixin
    StoreWriteTestMixin = abstract_test.StoreWriteTestMixin

METADATA: dict[str, Any] = {
    "a_str": "test3",
    "an_int": 1,
    "a_float": 2.0,
    "a_bool": True,
    "a_list": ["one", "two", "three"],
    "a_dict": {"one": 1, "two": 2, "three": 3},
}


class MemoryStores(unittest.TestCase):
    """The store of each test: one in memory."""

    store: TransactionalStore

    def new_store(self) -> TransactionalStore:
        return DictMemoryStore(EventManager())

    def setUp(self) -> None:
        """Make a store with the key that all of encore's tests expect."""
        self.store = self.new_store()
        self.addCleanup(self.store.close)
        self.store.set("test1", (io.BytesIO(b"test2\n"), METADATA))


class SqliteStores(MemoryStores):
    """The store of each test: one in a file."""

    def new_store(self) -> TransactionalStore:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return SqliteStore(Path(folder.name) / "file", EventManager(), durability="off")


class TestReading(StoreReadTestMixin, MemoryStores):
    def setUp(self) -> None:
        MemoryStores.setUp(self)
        for number in range(10):
            metadata: dict[str, Any] = {"query_test1": "value", "query_test2": number}
            if number % 2 == 0:
                metadata["optional"] = True
            self.store.set(f"key{number}", (io.BytesIO(f"value{number}".encode()), metadata))

    def test_get_metadata_select_missing(self) -> None:
        for number in range(10):
            if number % 2 == 0:
                assert self.store.get_metadata(f"key{number}", ["query_test1", "optional"]) == {
                    "query_test1": "value",
                    "optional": True,
                }
            else:
                with pytest.raises(KeyError, match="optional"):
                    self.store.get_metadata(f"key{number}", ["query_test1", "optional"])


class TestWriting(StoreWriteTestMixin, MemoryStores):
    def setUp(self) -> None:
        MemoryStores.setUp(self)
        for number in range(10):
            self.store.set(
                f"existing_key{number}",
                (io.BytesIO(f"existing_value{number}".encode()), {"meta": True, "meta1": -number}),
            )


class TestReadingSqlite(TestReading, SqliteStores): ...


class TestWritingSqlite(TestWriting, SqliteStores): ...


@pytest.mark.parametrize("mixin", [StoreReadTestMixin, StoreWriteTestMixin])
def test_the_mixins_hold_tests(mixin: type) -> None:
    # Else all of the above would pass because there is nothing to do.
    assert sum(name.startswith("test_") for name in dir(mixin)) >= 17


def test_values_of_encores_stores_can_be_set() -> None:
    memory = pytest.importorskip("encore.storage.dict_memory_store")
    theirs = memory.DictMemoryStore()
    theirs.set("a", (io.BytesIO(b"data"), {"n": [1]}))
    with DictMemoryStore(EventManager()) as store:
        store.set("b", theirs.get("a"))
        store.multiset(["c", "d"], theirs.multiget(["a", "a"]))
        theirs.set("e", store.get("b"))
        for key in "bcd":
            assert store.to_bytes(key) == b"data"
            assert store.get_metadata(key) == {"n": [1]}
    assert theirs.to_bytes("e") == b"data"
    assert theirs.get_metadata("e") == {"n": [1]}
