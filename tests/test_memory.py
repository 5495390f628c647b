"""`DictMemoryStore` keeps the contract, with and without indexes; and what is its own besides."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from readerwriterlock import rwlock

from latchstore import (
    DictMemoryStore,
    EventManager,
    LockTimeoutError,
    StoreSetEvent,
    TransactionError,
    get_event_manager,
)
from tests.contract.bad_input import BadInputContract, BadTimeoutContract
from tests.contract.conditions import ConditionContract
from tests.contract.delivery import DeliveryContract
from tests.contract.events import EventContract
from tests.contract.evicting import EvictContract
from tests.contract.files import ToFileContract
from tests.contract.many_keys import ManyKeysReadingContract, ManyKeysWritingContract
from tests.contract.queries import QueryContract
from tests.contract.reading import ReadingContract, ValueContract
from tests.contract.stores import TIMEOUT, fill
from tests.contract.transactions import SharedTransactionContract, TransactionContract
from tests.contract.writing import WritingContract
from tests.memory_stores import INDEXES, ORDERED, IndexedMemoryStores, MemoryStores, MemoryStoresInTurn


class TestReading(MemoryStores, ReadingContract): ...


class TestValues(MemoryStores, ValueContract): ...


class TestWriting(MemoryStoresInTurn, WritingContract): ...


class TestManyKeysReading(MemoryStoresInTurn, ManyKeysReadingContract): ...


class TestManyKeysWriting(MemoryStoresInTurn, ManyKeysWritingContract): ...


class NotALock:
    """It has the names of a lock's methods, and no methods."""

    gen_rlock = gen_wlock = 5


class TestQueries(IndexedMemoryStores, QueryContract): ...


class TestToFile(MemoryStores, ToFileContract): ...


class TestBadInput(MemoryStores, BadInputContract): ...


class TestBadTimeout(MemoryStores, BadTimeoutContract): ...


class TestTransaction(MemoryStores, TransactionContract): ...


class TestSharedTransaction(MemoryStores, SharedTransactionContract): ...


class TestEvent(MemoryStores, EventContract): ...


class TestDelivery(MemoryStores, DeliveryContract): ...


class TestCondition(MemoryStoresInTurn, ConditionContract): ...


class TestEvict(MemoryStoresInTurn, EvictContract): ...


class TestConstruction:
    """What a store can be given, and what it refuses."""

    def test_the_event_manager_of_the_process_is_the_default(self) -> None:
        store = DictMemoryStore()
        assert store.event_manager is get_event_manager()
        manager = EventManager()
        assert DictMemoryStore(manager).event_manager is manager
        assert DictMemoryStore(event_manager=manager).event_manager is manager

    def test_a_new_store_is_empty_and_not_connected(self) -> None:
        store = DictMemoryStore(EventManager())
        assert not store.is_connected()
        assert len(store) == 0
        store.set("a", (b"works", {}))
        assert store.to_bytes("a") == b"works"

    def test_credentials_are_ignored(self) -> None:
        store = DictMemoryStore(EventManager())
        store.connect({"user": "anybody"})
        assert store.is_connected()

    @pytest.mark.parametrize(
        "lock_class",
        [rwlock.RWLockFair, rwlock.RWLockRead, rwlock.RWLockWrite, lambda: rwlock.RWLockFair()],
        ids=["fair", "read", "write", "factory"],
    )
    def test_the_lock_class_can_be_given(self, lock_class: Callable[[], rwlock.RWLockable]) -> None:
        made = []

        def make() -> rwlock.RWLockable:
            made.append(lock_class())
            return made[-1]

        with DictMemoryStore(EventManager(), lock_class=make) as store:
            with store.transaction():
                store.multiset_data(["a", "b"], [b"1", b"2"])
            assert [data.read() for data in store.multiget_data(["a", "b"])] == [b"1", b"2"]
            assert len(store) == 2
        assert len(made) == 1

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"indexes": "name"}, TypeError, r"indexes .*'name'"),
            ({"indexes": 5}, TypeError, r"indexes .*5"),
            ({"indexes": ["name", 5]}, TypeError, r"indexes\[1\] .*5"),
            ({"lock_timeout": None}, TypeError, "lock_timeout .*None"),
            ({"lock_timeout": "1"}, TypeError, "lock_timeout .*'1'"),
            ({"lock_timeout": True}, TypeError, "lock_timeout .*True"),
            ({"lock_timeout": -1}, ValueError, "lock_timeout .*-1"),
            ({"lock_timeout": float("nan")}, ValueError, "lock_timeout .*nan"),
            ({"lock_class": 5}, TypeError, "lock_class .*5"),
            ({"lock_class": NotALock}, TypeError, "lock_class .*gen_rlock.* got .*NotALock"),
        ],
    )
    def test_bad_arguments(self, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            DictMemoryStore(EventManager(), **arguments)

    def test_all_but_the_event_manager_go_by_name(self) -> None:
        with pytest.raises(TypeError, match="takes event_manager by position, got 2 arguments"):
            DictMemoryStore(EventManager(), ["name"])  # type: ignore[call-arg]

    def test_the_lock_timeout_is_kept(self) -> None:
        store = DictMemoryStore(EventManager(), lock_timeout=0)
        with store.transaction("the long one"), ThreadPoolExecutor(1) as pool:
            with pytest.raises(LockTimeoutError, match="the long one"):
                pool.submit(store.from_bytes, "a", b"x").result(TIMEOUT)
            with pytest.raises(TimeoutError):
                pool.submit(store.add_index, "name").result(TIMEOUT)
        assert len(store) == 0


class TestFacts(MemoryStores):
    """What a store says of itself."""

    def test_the_repr_shows_counts_only(self, store: DictMemoryStore) -> None:
        store.set("the-key", (b"the-data", {"the-name": "the-item"}))
        store.delete("the-key")
        store.set("the-key", (b"the-data", {"the-name": "the-item"}))
        assert repr(store) == "<DictMemoryStore 1 keys, revision 3>"

    def test_the_repr_of_a_transaction_shows_its_notes_only(self, store: DictMemoryStore) -> None:
        with store.transaction("the notes") as transaction:
            store.set("the-key", (b"the-data", {"the-name": "the-item"}))
            assert repr(transaction) == "<open transaction 'the notes'>"

    def test_info(self, store: DictMemoryStore) -> None:
        fill(store, a=b"1", b=b"2")
        store.delete("a")
        expected = {
            "readonly": False,
            "connected": True,
            "closed": False,
            "keys": 1,
            "revision": 3,
            "pending_events": 0,
        }
        assert store.info().items() >= expected.items()
        assert store.info()["indexes"] in ([], list(INDEXES), list(ORDERED))
        store.close()
        assert store.info().items() >= {**expected, "connected": False, "closed": True}.items()

    def test_the_first_revision_is_one(self, store: DictMemoryStore) -> None:
        assert store.info()["revision"] == 0
        store.from_bytes("a", b"")
        assert store.get("a").revision == store.info()["revision"] == 1

    def test_bytes_are_kept_as_they_are(self, store: DictMemoryStore) -> None:
        data = b"0123456789" * 1000
        store.from_bytes("a", data)
        assert store.to_bytes("a") is data
        store.set("b", (data, {}))
        assert store.to_bytes("b") is data
        store.set("c", store.get("a"))
        assert store.to_bytes("c") is data


class TestIndexes:
    """Indexes on a live store."""

    @pytest.fixture
    def store(self) -> Iterator[DictMemoryStore]:
        with DictMemoryStore(EventManager(), indexes=["kind"]) as store:
            for number in range(10):
                store.set(f"{number}", (b"", {"kind": number % 2, "number": number}))
            yield store

    def test_adding_and_removing(self, store: DictMemoryStore) -> None:
        assert store.info()["indexes"] == ["kind"]
        before = sorted(store.query_keys(number=3)), sorted(store.query_keys(kind=1, number=3))
        store.add_index("number")
        assert store.info()["indexes"] == ["kind", "number"]
        assert (sorted(store.query_keys(number=3)), sorted(store.query_keys(kind=1, number=3))) == before
        store.update_metadata("3", {"number": 4})
        assert sorted(store.query_keys(number=4)) == ["3", "4"]
        store.remove_index("kind")
        assert store.info()["indexes"] == ["number"]
        assert sorted(store.query_keys(kind=1)) == ["1", "3", "5", "7", "9"]
        store.remove_index("number")
        store.update_metadata("3", {"number": 3})
        assert list(store.query_keys(number=3)) == ["3"]

    def test_adding_one_twice(self, store: DictMemoryStore) -> None:
        store.add_index("kind")
        assert store.info()["indexes"] == ["kind"]
        assert sorted(store.query_keys(kind=1)) == ["1", "3", "5", "7", "9"]

    def test_removing_one_that_is_not_there(self, store: DictMemoryStore) -> None:
        with pytest.raises(KeyError) as caught:
            store.remove_index("number")
        assert caught.value.args == ("number",)

    @pytest.mark.parametrize("method", ["add_index", "remove_index"])
    def test_bad_names(self, store: DictMemoryStore, method: str) -> None:
        with pytest.raises(TypeError, match="name must be a str or an Ordered, got int 5"):
            getattr(store, method)(5)

    @pytest.mark.parametrize("method", ["add_index", "remove_index"])
    def test_not_in_a_transaction(self, store: DictMemoryStore, method: str) -> None:
        with store.transaction("some notes"):
            store.set("new", (b"", {"kind": 1}))
            with pytest.raises(TransactionError, match=f"{method}.*some notes"):
                getattr(store, method)("kind")
        assert store.info()["indexes"] == ["kind"]
        assert "new" in list(store.query_keys(kind=1))

    def test_a_query_compares_only_what_the_index_finds(self, store: DictMemoryStore) -> None:
        class Counted:
            compared = 0

            def __eq__(self, other: object) -> bool:
                Counted.compared += 1
                return isinstance(other, Counted)

            def __hash__(self) -> int:
                return 5

        for number in range(10):
            store.update_metadata(f"{number}", {"other": number})
        assert list(store.query_keys(other=Counted(), number=3)) == []
        assert Counted.compared == 10
        store.add_index("number")
        assert list(store.query_keys(other=Counted(), number=3)) == []
        assert Counted.compared == 11, "of ten keys, the index has found the one"
        # Two indexes: the one that finds less is asked.
        assert list(store.query_keys(other=Counted(), kind=1, number=3)) == []
        assert Counted.compared == 12


class TestDropping:
    """A store that nobody holds is freed, and its thread ends."""

    def test_a_store_that_is_dropped(self) -> None:
        threads: list[threading.Thread] = []
        store = DictMemoryStore(EventManager())
        store.event_manager.connect(StoreSetEvent, lambda event: threads.append(threading.current_thread()))
        store.from_bytes("a", b"x")
        store.flush()
        reference = weakref.ref(store)
        assert threads[0].is_alive()
        del store
        gc.collect()
        assert reference() is None
        threads[0].join(TIMEOUT)
        assert not threads[0].is_alive()

    def test_a_store_that_was_never_listened_to(self) -> None:
        before = set(threading.enumerate())
        store = DictMemoryStore(EventManager(), indexes=["name"])
        fill(store, a=b"1", b=b"2")
        with store.transaction():
            store.delete("a")
        store.flush()
        assert set(threading.enumerate()) <= before
        reference = weakref.ref(store)
        del store
        gc.collect()
        assert reference() is None
