"""What `AbstractStore` defines is right on top of any store: the contract holds for the smallest one.

The store in ``contract/reference_store.py`` defines the abstract methods and nothing else. It has no
events and no threads, so those parts of the contract are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest

from latchstore import AbstractReadOnlyStore, AbstractStore, EventManager, get_event_manager
from tests.contract.bad_input import BadInputContract
from tests.contract.conditions import ConditionContract
from tests.contract.evicting import EvictContract
from tests.contract.files import ToFileContract
from tests.contract.many_keys import ManyKeysReadingContract, ManyKeysWritingContract
from tests.contract.queries import QueryContract
from tests.contract.reading import ReadingContract, ValueContract
from tests.contract.reference_store import ReferenceStore
from tests.contract.transactions import TransactionContract
from tests.contract.writing import WritingContract


class ReferenceStores:
    """The store of each test in this module."""

    @pytest.fixture
    def store(self) -> Iterator[AbstractStore]:
        with ReferenceStore(EventManager()) as store:
            yield store


class TestReading(ReferenceStores, ReadingContract): ...


class TestValues(ReferenceStores, ValueContract): ...


class TestWriting(ReferenceStores, WritingContract): ...


class TestManyKeysReading(ReferenceStores, ManyKeysReadingContract): ...


class TestManyKeysWriting(ReferenceStores, ManyKeysWritingContract): ...


class TestQueries(ReferenceStores, QueryContract): ...


class TestToFile(ReferenceStores, ToFileContract): ...


class TestBadInput(ReferenceStores, BadInputContract): ...


class TestTransaction(ReferenceStores, TransactionContract): ...


class TestCondition(ReferenceStores, ConditionContract): ...


class TestEvict(ReferenceStores, EvictContract): ...


class TestBases:
    """The abstract classes themselves."""

    def test_the_event_manager_of_the_process_is_the_default(self) -> None:
        assert ReferenceStore().event_manager is get_event_manager()
        manager = EventManager()
        assert ReferenceStore(manager).event_manager is manager

    def test_a_store_is_a_read_only_store(self) -> None:
        assert issubclass(AbstractStore, AbstractReadOnlyStore)

    def test_what_a_store_has_to_define(self) -> None:
        reading = {"connect", "disconnect", "is_connected", "info", "get", "multiget", "query"}
        assert AbstractReadOnlyStore.__abstractmethods__ == reading
        assert AbstractStore.__abstractmethods__ == {"get", "query", "set", "delete", "transaction"}

    def test_many_keys_are_one_transaction_of_the_store(self, monkeypatch: pytest.MonkeyPatch) -> None:
        notes = []
        store = ReferenceStore(EventManager())
        original = store.transaction

        def transaction(text: str) -> AbstractContextManager[None]:
            notes.append(text)
            return original(text)

        monkeypatch.setattr(store, "transaction", transaction)
        store.multiset(["a"], [(b"", {})])
        store.multiset_data(["a"], [b""])
        store.multiset_metadata(["a"], [{}])
        store.multiupdate_metadata(["a"], [{}])
        for read in (store.multiget, store.multiget_data, store.multiget_metadata):
            next(iter(read(["a"])))
        changes = ["multiset", "multiset_data", "multiset_metadata", "multiupdate_metadata"]
        assert notes == [*changes, "multiget", "multiget", "multiget"]

    def test_what_is_handed_in_is_gone_through_before_the_transaction(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = ReferenceStore(EventManager())
        store.set("a", (b"", {}))
        found: list[bool] = []
        began = False

        def items(item: Any) -> Iterator[Any]:
            found.append(began)
            yield item

        def transaction(text: str) -> AbstractContextManager[None]:
            nonlocal began
            began = True
            return nullcontext()

        monkeypatch.setattr(store, "transaction", transaction)
        for call in (
            lambda: store.multiget(items("a")),
            lambda: store.multiset(items("a"), items((b"", {}))),
            lambda: store.multiset_data(items("a"), items(b"")),
            lambda: store.multiset_metadata(items("a"), items({})),
            lambda: store.multiupdate_metadata(items("a"), items({})),
        ):
            began = False
            call()
            assert began
        assert found == [False] * 9
