"""Ordered indexes: what they save, how they are built, and what exceptions and threads do to them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest
from sortedcontainers import SortedList

from latchstore import (
    Above,
    Below,
    Between,
    DictMemoryStore,
    EventManager,
    In,
    Item,
    LockTimeoutError,
    Ordered,
    Prefix,
    TransactionError,
)
from latchstore.engine.inspection import check, renew_in_child, table_of
from latchstore.engine.ordered_index import FEW, OrderedIndex
from latchstore.engine.preimages import LayerView
from latchstore.engine.table import Table
from tests.schedules import in_another_thread

TIMEOUT = 30.0

#: More than one section moves, and than are looked at in vain.
MANY = 4 * FEW + 1_000


def due(store: Any, **options: Any) -> list[str]:
    return list(store.query_keys(order_by="due", **options))


def names(numbers: Iterable[int]) -> list[str]:
    return [f"k{number:05}" for number in numbers]


def fill(store: DictMemoryStore, numbers: Iterable[int], **metadata: Any) -> None:
    """Set keys that are due in their own order."""
    numbers = list(numbers)
    store.multiset(names(numbers), [(b"", {"due": number, **metadata}) for number in numbers])


@pytest.fixture
def store() -> DictMemoryStore:
    """A store whose indexes are built."""
    store = DictMemoryStore(EventManager(), indexes=[Ordered("due"), Ordered("key"), "kind"])
    fill(store, reversed(range(MANY)))
    assert due(store, limit=1) == names([0])
    assert list(store.glob("k*", limit=1)) == names([0])
    return store


#: What is asked, and the answer.
READS: dict[str, tuple[Callable[[Any], list[str]], list[str]]] = {
    "limit": (lambda store: due(store, limit=3), ["k00007", "k00000", "k00001"]),
    "descending": (lambda store: due(store, limit=2, descending=True), names([MANY - 1, MANY - 2])),
    "a range": (lambda store: due(store, due=Between(5, 9)), names([5, 6, 8])),
    "a range, with a limit": (lambda store: due(store, due=Above(6), limit=2), names([8, 9])),
    "a value": (lambda store: due(store, due=5), names([5])),
    "glob": (lambda store: sorted(store.glob("k0000[1-3]")), names([1, 2, 3])),
    "glob, with a limit": (lambda store: list(store.glob("k0001*", limit=1)), names([10])),
    "glob, in order": (
        lambda store: list(store.glob("k001*", order_by="key", descending=True, limit=2)),
        names([199, 198]),
    ),
    "limit alone": (lambda store: [str(len(list(store.query_keys(limit=5))))], ["5"]),
    "a limit of none": (lambda store: due(store, limit=0), []),
}


class TestCost:
    """A query that an index answers looks at no others."""

    @pytest.fixture
    def lean(self, store: DictMemoryStore, monkeypatch: pytest.MonkeyPatch) -> DictMemoryStore:
        def refuse(*arguments: object) -> None:
            raise AssertionError("all entries are looked at")

        store.update_metadata("k00007", {"due": -1})
        monkeypatch.setattr(Table, "candidates", refuse)
        monkeypatch.setattr(Table, "keys", refuse)
        monkeypatch.setattr(LayerView, "items", refuse)
        return store

    @pytest.mark.parametrize("read", READS)
    def test_in_the_store(self, lean: DictMemoryStore, read: str) -> None:
        call, expected = READS[read]
        assert call(lean) == expected

    @pytest.mark.parametrize("read", READS)
    @pytest.mark.parametrize("optimistic", [False, True])
    def test_in_a_transaction(self, lean: DictMemoryStore, read: str, optimistic: bool) -> None:
        call, expected = READS[read]
        with lean.transaction("t", optimistic=optimistic) as tx:
            tx.set("other", (b"", {}))
            assert call(lean) == expected
            tx.doom()

    @pytest.mark.parametrize("read", READS)
    def test_in_a_snapshot(self, lean: DictMemoryStore, read: str) -> None:
        call, expected = READS[read]
        with lean.snapshot() as view:
            lean.update_metadata("k00007", {"due": 9_999})
            lean.delete("k00001")
            assert call(view) == expected

    def test_a_hashed_index_with_a_limit(self, store: DictMemoryStore, monkeypatch: Any) -> None:
        fill(store, range(MANY, 2 * MANY), kind="x")

        def refuse(*arguments: object) -> None:
            raise AssertionError("all entries are looked at")

        monkeypatch.setattr(Table, "candidates", refuse)
        assert len(list(store.query_keys(kind="x", limit=2))) == 2

    @pytest.mark.parametrize(
        ("term", "expected"),
        [
            (Between(5, 7), names([5, 6])),
            (Below(2), names([0, 1])),
            (In([5, 9.0, "no"]), names([5, 9])),
            (6, names([6])),
            (Prefix("a"), ["text"]),
        ],
        ids=repr,
    )
    def test_candidates_without_an_order(
        self, store: DictMemoryStore, term: Any, expected: list[str]
    ) -> None:
        store.set("text", (b"", {"due": "abc"}))
        assert sorted(store.query_keys(due=term)) == expected
        assert sorted(key for key, _ in table_of(store).candidates({"due": term})) == expected


class TestValues:
    """Values that others can be equal to, or that have no place of their own."""

    def test_values_that_equal_others_in_their_own_way(self, store: DictMemoryStore) -> None:
        store.set("odd", (b"", {"due": EqualToFive(1_000_000)}))
        store.set("unordered", (b"", {"due": [5]}))
        store.set("complex", (b"", {"due": 5 + 0j}))
        for terms in ({"due": 5}, {"due": In([5])}):
            assert sorted(store.query_keys(where=terms)) == ["complex", "k00005", "odd"]
            assert due(store, where=terms) == ["k00005", "odd", "complex"]
            assert due(store, where=terms, limit=2) == ["k00005", "odd"]
        assert due(store, due=Above(MANY), limit=1) == ["odd"]
        assert list(store.query_keys(due=[5])) == ["unordered"]
        check(store)
        store.update_metadata("odd", {"due": 5})
        store.delete("complex")
        assert due(store, due=5, limit=5) == ["k00005", "odd"]
        check(store)

    def test_no_code_of_values_is_run(self, store: DictMemoryStore) -> None:
        Watched.calls.clear()
        for number in (1, 2, 2, 3):
            store.set("own", (b"", {"due": Watched(number)}))
            store.set("pair", (b"", {"due": (Watched(number), number)}))
        assert due(store, limit=2, descending=True) == ["own", "pair"]
        assert due(store, due=Above(MANY - 2)) == names([MANY - 1])
        with store.snapshot() as view, store.transaction("t", optimistic=True) as tx:
            tx.update_metadata("own", {"due": Watched(4)})
            assert due(store, limit=1, descending=True) == due(view, limit=1, descending=True) == ["own"]
        store.delete("own")
        assert due(store, limit=1, descending=True) == ["pair"]
        check(store)
        assert Watched.calls == []

    def test_an_item_with_the_name_of_a_fact(self) -> None:
        store = DictMemoryStore(EventManager(), indexes=[Ordered(Item("key")), Ordered("key")])
        store.set("a", (b"", {"key": 2}))
        store.set("b", (b"", {"key": 1}))
        assert list(store.query_keys(order_by=Item("key"), limit=1)) == ["b"]
        assert list(store.query_keys(order_by="key", limit=1)) == ["a"]
        assert list(store.query_keys(where={"key": Above(1)}, order_by="key", limit=9)) == ["a"]
        check(store)


class Watched:
    """Notes each comparison."""

    calls: ClassVar[list[str]] = []

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        self.calls.append("==")
        return isinstance(other, Watched) and self.number == other.number

    def __lt__(self, other: Any) -> bool:
        self.calls.append("<")
        return bool(self.number < other.number)

    def __hash__(self) -> int:
        self.calls.append("hash")
        return hash(self.number)


class EqualToFive(int):
    """An int in the order, and equal to 5 in its own way."""

    def __eq__(self, other: object) -> bool:
        return type(other) is int and other == 5

    __hash__ = int.__hash__


class TestAdding:
    """Which indexes there are."""

    def test_adding_and_removing(self) -> None:
        store = DictMemoryStore(EventManager(), indexes=["due"])
        fill(store, range(10))
        for _ in range(2):
            store.add_index(Ordered("due"))
            assert store.info()["indexes"] == ["due", Ordered("due")]
        assert due(store, limit=2) == names([0, 1])
        again = DictMemoryStore(EventManager(), indexes=store.info()["indexes"])
        assert again.info()["indexes"] == ["due", Ordered("due")]
        store.remove_index(Ordered("due"))
        assert store.info()["indexes"] == ["due"]
        with pytest.raises(KeyError):
            store.remove_index(Ordered("due"))
        assert due(store, limit=2) == names([0, 1])
        with store.transaction("t"), pytest.raises(TransactionError, match="add_index"):
            store.add_index(Ordered("due"))

    @pytest.mark.parametrize("bad", [5, None, ["due"], Item("due")])
    def test_what_is_no_index(self, bad: Any) -> None:
        store = DictMemoryStore(EventManager())
        with pytest.raises(TypeError, match="name must be a str or an Ordered, got"):
            store.add_index(bad)
        with pytest.raises(TypeError, match=r"indexes\[1\] must be a str or an Ordered, got"):
            DictMemoryStore(EventManager(), indexes=["due", bad])

    def test_what_cannot_be_an_order(self) -> None:
        with pytest.raises(TypeError, match=r"by must be 'key', .*, got int 5"):
            Ordered(5)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="name must be a str, got int 5"):
            Item(5)  # type: ignore[arg-type]

    def test_declarations_are_values(self) -> None:
        assert Ordered("due") == Ordered(Item("due")) != Ordered("key")
        assert Ordered("key") != Ordered(Item("key"))
        assert len({Ordered("due"), Ordered(Item("due")), Item("due"), Item("due")}) == 2
        assert [repr(Ordered("due")), repr(Ordered(Item("key")))] == [
            "Ordered('due')",
            "Ordered(Item('key'))",
        ]

    def test_without_sortedcontainers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "sortedcontainers", None)
        with pytest.raises(ModuleNotFoundError, match=r"latchstore\[ordered\]"):
            DictMemoryStore(EventManager(), indexes=[Ordered("due")])
        store = DictMemoryStore(EventManager())
        with pytest.raises(ModuleNotFoundError, match=r"latchstore\[ordered\]"):
            store.add_index(Ordered("due"))
        fill(store, range(3))
        assert due(store, limit=1) == names([0])
        assert store.info()["indexes"] == []

    def test_a_store_that_is_loaded(self, store: DictMemoryStore, tmp_path: Path) -> None:
        store.save(tmp_path / "saved")
        indexes = [Ordered("due"), Ordered("revision")]
        loaded = DictMemoryStore.load(tmp_path / "saved", EventManager(), indexes=indexes)
        assert loaded.info()["indexes"] == indexes
        assert due(loaded, limit=2) == names([0, 1])
        assert list(loaded.query_keys(order_by="revision", limit=1)) == names([0])
        check(loaded)

    def test_many_threads_add_the_same(self) -> None:
        store = DictMemoryStore(EventManager())
        fill(store, range(MANY))
        begin = threading.Barrier(4)
        added: list[str | Ordered] = [Ordered("due"), Ordered("key"), "due", Ordered("due")]

        def add(number: int) -> list[str]:
            begin.wait(TIMEOUT)
            store.add_index(added[number])
            return due(store, limit=1)

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(add, range(4), timeout=TIMEOUT)) == [names([0])] * 4
        assert set(store.info()["indexes"]) == {Ordered("due"), Ordered("key"), "due"}
        check(store)


class TestFaults:
    """What is broken off is done again."""

    @pytest.mark.parametrize("method", ["add", "discard"])
    @pytest.mark.parametrize("count", [1, 2, 3])
    def test_a_list_that_is_broken_off(
        self, store: DictMemoryStore, monkeypatch: pytest.MonkeyPatch, method: str, count: int
    ) -> None:
        original = getattr(SortedList, method)
        left = [count]

        def fail(self: Any, value: Any) -> None:
            left[0] -= 1
            if left[0]:
                original(self, value)
            else:
                # As if the list were broken off in the middle of a change of its own.
                self.clear()
                raise MemoryError

        store.multiset(["k00005", "k00003", "new"], [(b"", {"due": -due}) for due in (5, 3, 1)])
        store.update_metadata("k00009", {"due": -9})
        with monkeypatch.context() as patch:
            patch.setattr(SortedList, method, fail)
            with pytest.raises(MemoryError):
                due(store, limit=2)
        check(store)
        assert due(store, limit=5) == [*names([9, 5, 3]), "new", *names([0])]
        check(store)
        store.delete("k00005")
        assert due(store, limit=2) == names([9, 3])
        check(store)

    def test_many_changes_at_once(self, store: DictMemoryStore) -> None:
        for numbers, sign in ((range(FEW + 5), -1), (range(MANY), -1), (range(MANY), 1)):
            store.multiset(names(numbers), [(b"", {"due": sign * number}) for number in numbers])
            check(store)
            assert due(store, limit=1) == names([numbers[-1] if sign < 0 else 0])
            check(store)

    def test_keys_that_come_and_go(self, store: DictMemoryStore) -> None:
        for number in range(3):
            store.set("new", (b"", {"due": -number}))
            store.delete("new")
        assert due(store, limit=1) == names([0])
        store.delete("k00000")
        store.set("k00000", (b"", {"due": 1.5}))
        assert due(store, limit=2) == names([1, 0])
        check(store)

    def test_a_builder_that_was_struck(self, monkeypatch: pytest.MonkeyPatch) -> None:
        store = DictMemoryStore(EventManager(), indexes=[Ordered("due")])
        fill(store, range(10))

        def fail(self: object, found: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(OrderedIndex, "made_of", fail)
            with pytest.raises(KeyboardInterrupt):
                due(store, limit=1)
        fill(store, range(-2, 0))
        assert due(store, limit=1) == names([-2])
        monkeypatch.setattr(Table, "candidates", fail)
        assert due(store, limit=1) == names([-2])
        check(store)

    def test_a_finalizer_reads_in_order(self, store: DictMemoryStore) -> None:
        seen: list[list[str]] = []

        class Reading:
            def __deepcopy__(self, memo: object) -> Reading:
                return self

            def __del__(self) -> None:
                seen.append(due(store, limit=1))

        store.set("it", (b"", {"due": Reading()}))
        assert due(store, limit=1) == names([0])
        store.set("it", (b"", {"due": -1}))
        assert due(store, limit=1) == ["it"]
        assert seen == [["it"]]

    def test_a_call_in_the_middle_of_a_section(
        self, store: DictMemoryStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As a signal handler may come: it is refused at once, and does no harm."""
        original = SortedList.add
        refused: list[LockTimeoutError] = []

        def add(self: Any, value: Any) -> None:
            original(self, value)
            with pytest.raises(LockTimeoutError) as caught:
                due(store, limit=1)
            refused.append(caught.value)

        store.update_metadata("k00005", {"due": -5})
        with monkeypatch.context() as patch:
            patch.setattr(SortedList, "add", add)
            assert due(store, limit=1) == names([5])
        assert len(refused) == 1
        check(store)


class TestThreads:
    """Others go on while an index is built."""

    @pytest.fixture
    def building(self, monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
        """Events: set when a thread has what it builds the index of; and until which it waits then."""
        begun, go_on = threading.Event(), threading.Event()
        original = OrderedIndex.made_of

        def made_of(index: Any, found: Any) -> Any:
            found = list(found)
            if not begun.is_set():
                begun.set()
                assert go_on.wait(TIMEOUT)
            return original(index, found)

        monkeypatch.setattr(OrderedIndex, "made_of", made_of)
        return begun, go_on

    def test_reads_and_writes_meanwhile(
        self, building: tuple[threading.Event, threading.Event], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        begun, go_on = building
        store = DictMemoryStore(EventManager(), indexes=[Ordered("due")])
        fill(store, range(10))
        with ThreadPoolExecutor(1) as pool:
            built = pool.submit(due, store, limit=2)
            assert begun.wait(TIMEOUT)
            store.delete("k00000")
            store.update_metadata("k00005", {"due": -1})
            fill(store, range(20, 30))
            with monkeypatch.context() as patch:
                patch.setattr(OrderedIndex, "made_of", None)  # one builds, the others look at all entries
                assert due(store, limit=2) == names([5, 1])
            go_on.set()
            assert built.result(TIMEOUT) == names([5, 1])
        check(store)
        assert due(store, limit=100, due=Above(8)) == names([9, *range(20, 30)])

    def test_a_child_builds_for_itself(
        self, building: tuple[threading.Event, threading.Event], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        begun, go_on = building
        store = DictMemoryStore(EventManager(), indexes=[Ordered("due")])
        fill(store, range(10))
        with ThreadPoolExecutor(1) as pool:
            built = pool.submit(due, store, limit=2)
            assert begun.wait(TIMEOUT)
            renew_in_child(store)
            assert due(store, limit=1) == names([0])
            store.delete("k00000")
            with monkeypatch.context() as patch:
                patch.setattr(Table, "candidates", None)
                assert due(store, limit=1) == names([1])
            go_on.set()
            assert built.result(TIMEOUT) == names([1, 2])
        check(store)

    def test_an_answer_is_of_one_instant(self, store: DictMemoryStore) -> None:
        """Two keys change places in each commit: in order, exactly one of them comes first."""
        done = threading.Event()

        def swap() -> None:
            for number in range(400):
                dues = [-2, -1] if number % 2 else [-1, -2]
                store.multiupdate_metadata(names([0, 1]), [{"due": due} for due in dues])
            done.set()

        def read() -> None:
            while not done.is_set():
                found = list(store.query(["due"], order_by="due", limit=3))
                assert [items["due"] for _, items in found] == [-2, -1, 2]
                assert {key for key, _ in found[:2]} == set(names([0, 1]))

        store.multiupdate_metadata(names([0, 1]), [{"due": -2}, {"due": -1}])
        with ThreadPoolExecutor(4) as pool:
            calls = [pool.submit(read) for _ in range(3)]
            pool.submit(swap).result(TIMEOUT)
            for call in calls:
                call.result(TIMEOUT)
        check(store)

    def test_readers_do_not_wait_for_a_transaction(self, store: DictMemoryStore) -> None:
        with store.transaction("t") as tx:
            tx.update_metadata("k00005", {"due": -1})
            assert in_another_thread(lambda: due(store, limit=1)) == names([0])
            assert due(store, limit=1) == names([5])
