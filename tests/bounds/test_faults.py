"""Bounds hold under strikes, threads, transactions and forks."""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from latchstore import (
    DictMemoryStore,
    EventManager,
    StoreDeleteEvent,
    StoreModificationEvent,
    TransactionConflictError,
)
from latchstore.cache.policies import POLICIES, EvictionPolicy, Node, Sieve
from latchstore.engine.bounded_table import BoundedTable
from latchstore.engine.entry_facts import OVERHEAD
from latchstore.engine.inspection import check, table_of
from latchstore.engine.table import Table
from tests.bounds.stores import entry, keys_of, limited, put
from tests.fork.children import in_child
from tests.schedules import in_another_thread, run_threads

TIMEOUT = 20.0


class Struck(BaseException):
    """As if raised by a signal handler."""


class Striking(Sieve):
    """A policy that is struck where a test has it struck."""

    at = ""

    def _strike(self, method: str) -> None:
        if Striking.at == method:
            Striking.at = ""
            raise Struck(method)

    def add(self, node: Node) -> None:
        super().add(node)
        self._strike("add")

    def remove(self, node: Node) -> None:
        self._strike("remove")
        super().remove(node)

    def choose(self) -> Node | None:
        found = super().choose()
        self._strike("choose")
        return found


class TestStrikes:
    @pytest.mark.parametrize("method", ["add", "remove", "choose"])
    def test_before_the_commit_is_decided(self, store: DictMemoryStore, method: str) -> None:
        limits = limited(store, max_entries=3, policy=Striking)
        put(limits, "a", "b", "c")
        Striking.at = method
        with pytest.raises(Struck):
            put(limits, "d") if method != "remove" else store.delete("a")
        assert keys_of(store) == "abc"
        for key in "efghi":
            put(limits, key)
            limits.check()
        assert len(store) == 3

    def test_after_the_commit_is_decided(
        self, store: DictMemoryStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        limits = limited(store, max_entries=3)
        put(limits, "a", "b", "c")
        finish = Table.finish

        def strike(table: Table) -> None:
            monkeypatch.undo()
            raise Struck

        monkeypatch.setattr(Table, "finish", strike)
        with pytest.raises(Struck):
            put(limits, "d")
        assert Table.finish is finish
        assert keys_of(store) == "bcd"  # it is made all the same
        limits.check()
        assert limits.totals().evictions["size"] == 1

    @pytest.mark.parametrize("metadata", [{}, {"cache_expires": 1e9}])
    def test_in_the_middle_of_the_books(self, store: DictMemoryStore, metadata: dict[str, Any]) -> None:
        """Wherever: at each line of the books in turn; the bound holds after it, and the totals are right."""
        struck = place = 0
        while True:
            limits = limited(store, max_entries=3, max_bytes=10_000)
            store.mapping("raw").clear()
            put(limits, "a", "b", "c", data=b"1", **metadata)
            place += 1
            if not _struck_at_line(place, lambda limits=limits: put(limits, "d", **metadata)):  # type: ignore[misc]
                break
            struck += 1
            assert keys_of(store) in ("abc", "bcd", "acd", "abd")
            for key in "efg":
                put(limits, key)
                assert len(store) <= 3
                limits.check()
            assert keys_of(store) == "efg"  # the policy has lost none of the others
            limits.close()
        assert struck > 50

    @pytest.mark.parametrize("metadata", [{}, {"cache_expires": 1e9}])
    @pytest.mark.parametrize("what", ["new", "again", "delete"])
    def test_in_the_middle_of_the_books_where_nothing_is_evicted(
        self, store: DictMemoryStore, what: str, metadata: dict[str, Any]
    ) -> None:
        def write() -> None:
            if what == "delete":
                store.delete("a")
            else:
                put(limits, "d" if what == "new" else "a", data=b"22", **metadata)

        struck = 0
        while True:
            limits = limited(store, max_entries=4, max_bytes=10_000)
            store.mapping("raw").clear()
            put(limits, "a", "b", "c", data=b"1", **metadata)
            if not _struck_at_line(struck + 1, write):
                break
            struck += 1
            assert (
                keys_of(store) in {"new": ("abc", "abcd"), "again": ("abc",), "delete": ("abc", "bc")}[what]
            )
            put(limits, "e")
            limits.check()
            for key in "fghi":
                put(limits, key)
                limits.check()
            assert keys_of(store) == "fghi"  # the policy has lost none of the others
            limits.close()
        assert struck > 20

    def test_a_strike_is_not_counted_twice(self, store: DictMemoryStore) -> None:
        limits = limited(store, max_entries=2, policy=Striking)
        put(limits, "a", "b")
        Striking.at = "add"
        with pytest.raises(Struck):
            put(limits, "c")
        assert limits.totals().evictions["size"] == 0
        put(limits, "c")
        assert limits.totals().evictions["size"] == 1


def _struck_at_line(place: int, function: Callable[[], object]) -> bool:
    """Call a function, and raise Struck at a line of the books; return whether there is such a line."""
    left = [place]

    def trace(frame: Any, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.endswith(("engine/bounds.py", "engine/deadlines.py")):
            return None

        def line(frame: Any, event: str, argument: object) -> Any:
            if event == "line":
                left[0] -= 1
                if left[0] == 0:
                    raise Struck
            return line

        return line

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    except Struck:
        return True
    finally:
        sys.settrace(before)
    return left[0] <= 0


class Told:
    """A witness that notes what it is told, and what could be seen then."""

    def __init__(self) -> None:
        self.store: DictMemoryStore | None = None
        self.told: list[tuple[list[str], list[str]]] = []
        self.awaited: dict[str, object] = {}

    def note_written(self, keys: Iterable[str]) -> None:
        assert self.store is not None
        self.told.append((list(keys), sorted(table_of(self.store).entries)))


def test_a_witness_is_told_before_a_commit_can_be_seen_and_after_it(store: DictMemoryStore) -> None:
    witness = Told()
    limits = limited(store, max_entries=2, witness=witness)
    put(limits, "a", "b")
    witness.store = store
    witness.awaited["c"] = None
    put(limits, "c")
    assert witness.told == [(["c"], ["a", "b"]), (["c"], ["b", "c"])]  # "a" was evicted, not written
    with pytest.raises(KeyError):
        store.delete("x")
    assert witness.told[2:] == [(["x"], ["b", "c"])]
    store.delete("b")
    assert witness.told[3:] == [(["b"], ["b", "c"]), (["b"], ["c"])]
    store.evict("c", "size")
    assert witness.told[5:] == [([], ["c"]), ([], [])]


class TestThreads:
    @pytest.mark.parametrize("policy", POLICIES.values())
    @pytest.mark.parametrize("max_entries", [1, 2, 20])
    def test_never_more_at_any_commit(self, policy: Callable[[], EvictionPolicy], max_entries: int) -> None:
        """Of 16 threads: single writes, many keys, both kinds of transactions, savepoints, deletions."""
        with DictMemoryStore(EventManager()) as store:
            max_bytes = (OVERHEAD + 20) * max_entries
            limits = limited(store, max_entries=max_entries, max_bytes=max_bytes, policy=policy)
            watch = store.watch(max_buffer=10**9)
            run_threads(_worker(store, limits, seed, 4 * max_entries) for seed in range(16))
            worst = _worst(watch)
            assert worst[0] <= max_entries
            assert worst[1] <= max_bytes
            limits.check()
            check(store)

    def test_readers_of_many_keys_never_find_more(self, store: DictMemoryStore) -> None:
        limits = limited(store, max_entries=5)
        done = threading.Event()
        found: list[int] = []

        def read() -> None:
            found.append(len(list(store.query_keys())))
            while not done.is_set():
                found.append(len(list(store.query_keys())))

        def write() -> None:
            for number in range(500):
                put(limits, f"k{number}", f"l{number}")
            done.set()

        run_threads([read, read, write])
        assert max(found) <= 5


def _worker(store: DictMemoryStore, limits: BoundedTable, seed: int, keys: int) -> Callable[[], None]:
    source = random.Random(seed)

    def key() -> str:
        return f"k{source.randrange(keys)}"

    def block() -> None:
        limits.write(((key(), entry(bytes(source.randrange(9)))),), "put")
        with store.transaction() as inner:
            store.from_bytes(key(), b"1234")
            put(limits, key())
            if source.random() < 0.3:
                inner.doom()
        found = limits.entry(one := key())
        if found is not None:
            limits.use(one, found)

    def run() -> None:
        for _ in range(30):
            what = source.random()
            if what < 0.4:
                put(limits, key(), data=bytes(source.randrange(9)))
            elif what < 0.5:
                store.from_bytes(key(), bytes(source.randrange(9)))
            elif what < 0.6:
                store.mapping("raw").pop(key(), None)
            elif what < 0.7:
                put(limits, *{key() for _ in range(3)})
            elif what < 0.85:
                with store.transaction():
                    block()
            else:
                for attempt in store.attempts("writing", tries=10_000):
                    with attempt:
                        block()

    return run


def _worst(watch: Any) -> tuple[int, int]:
    """Replay a watch; return the most entries and the most bytes that any commit has left."""
    held: dict[str, int] = {}
    worst = (0, 0)
    revision = None
    while len(watch):
        event: Any = watch.get(0)
        assert isinstance(event, StoreModificationEvent)
        if event.revision != revision:
            worst = max(worst[0], len(held)), max(worst[1], sum(held.values()))
            revision = event.revision
        if isinstance(event, StoreDeleteEvent):
            del held[event.key]
        else:
            assert event.value is not None
            held[event.key] = OVERHEAD + len(event.key) + event.value.size  # type: ignore[attr-defined]
    return max(worst[0], len(held)), max(worst[1], sum(held.values()))


class TestTransactions:
    def test_what_is_evicted_in_one_is_a_conflict_with_who_writes_it(self, store: DictMemoryStore) -> None:
        limits = limited(store, max_entries=2)
        put(limits, "a", "b")

        def block() -> None:
            with store.transaction(optimistic=True):
                put(limits, "c")
                assert keys_of(store) == "bc"
                in_another_thread(lambda: store.from_bytes("a", b"new"))

        with pytest.raises(TransactionConflictError, match="'a'"):
            block()
        assert keys_of(store) == "ab"
        limits.check()

    def test_many_keys_after_a_savepoint_that_was_rolled_back(self, store: DictMemoryStore) -> None:
        limits = limited(store, max_entries=3, max_bytes=10_000)
        put(limits, "a", "b", "c")
        with store.transaction():
            put(limits, "d")
            with store.transaction() as inner:
                put(limits, "e", "f", "g")
                assert keys_of(store) == "efg"
                inner.doom()
            assert keys_of(store) == "bcd"
            put(limits, "h")
            assert keys_of(store) == "cdh"
            store.delete("c")
            put(limits, "i")
            assert keys_of(store) == "dhi"
        assert keys_of(store) == "dhi"
        limits.check()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
class TestForks:
    def test_a_child_keeps_to_the_bound(self, store: DictMemoryStore) -> None:
        limits = limited(store, max_entries=2)
        put(limits, "a", "b")

        def child() -> None:
            put(limits, "c")
            assert keys_of(store) == "bc"
            limits.check()

        assert in_child(child) == ""
        assert keys_of(store) == "ab"

    def test_one_of_a_parent_in_the_middle_of_its_books(self, store: DictMemoryStore) -> None:
        """Another thread of the parent is changing them; it is not there in the child."""
        inside, leave = threading.Event(), threading.Event()

        class Halting(Sieve):
            def choose(self) -> Node | None:
                found = super().choose()
                if threading.current_thread().name == "halting":
                    inside.set()
                    assert leave.wait(TIMEOUT)
                return found

        limits = limited(store, max_entries=2, policy=Halting)
        put(limits, "a", "b")
        thread = threading.Thread(target=put, args=(limits, "c"), name="halting")
        thread.start()
        assert inside.wait(TIMEOUT)

        def child() -> None:
            for key in "defg":
                put(limits, key)
                assert len(store) <= 2
                limits.check()

        try:
            assert in_child(child) == ""
        finally:
            leave.set()
            thread.join(TIMEOUT)
        assert keys_of(store) == "bc"
