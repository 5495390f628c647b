"""A commit that would leave too much evicts in the same commit, whoever makes it, and whatever strikes."""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from latchstore import (
    AbstractStore,
    DictMemoryStore,
    EntryTooLargeError,
    EventManager,
    StoreDeleteEvent,
    StoreModificationEvent,
    TransactionConflictError,
    Watch,
)
from latchstore.cache.policies import LRU, POLICIES, EvictionPolicy, Node, Sieve
from latchstore.contract.values import Entry
from latchstore.engine.bounded import bounded
from latchstore.engine.bounded_table import BoundedTable
from latchstore.engine.edits import SetData
from latchstore.engine.entry_facts import OVERHEAD
from latchstore.engine.inspection import check, table_of
from latchstore.engine.limits import Limits
from latchstore.engine.table import Table
from tests.fork.children import in_child
from tests.schedules import in_another_thread, run_threads

TIMEOUT = 20.0


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store() -> Iterator[DictMemoryStore]:
    with DictMemoryStore(EventManager()) as store:
        yield store
        check(store)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def limited(
    store: AbstractStore, *, policy: Callable[[], EvictionPolicy] = Sieve, **limits: Any
) -> BoundedTable:
    """Have a store keep within limits."""
    limits = {"max_entries": None, "max_bytes": None, "idle": None, "clock": Clock(), **limits}
    made = bounded(store, Limits(make_policy=policy, **limits))
    assert isinstance(made, BoundedTable)
    return made


def entry(data: bytes = b"", **metadata: Any) -> Entry:
    made = Entry(metadata)
    made.data = data
    return made


def put(limits: BoundedTable, *keys: str, data: bytes = b"", **metadata: Any) -> None:
    limits.write(tuple((key, entry(data, **metadata)) for key in keys), "put")


def read(watch: Watch) -> list[Any]:
    return [watch.get(0) for _ in range(len(watch))]


def keys_of(store: DictMemoryStore) -> str:
    return "".join(sorted(store.query_keys()))


class TestOneCommit:
    def test_of_the_write_and_what_it_evicts(self, store: DictMemoryStore) -> None:
        limits = limited(store, max_entries=2)
        put(limits, "a", "b")
        watch = store.watch()
        put(limits, "c")
        events = read(watch)
        assert sorted((event.action, event.key, event.revision) for event in events) == [
            ("evict", "a", 2),
            ("set", "c", 2),
        ]
        assert [event.cause for event in events if event.action == "evict"] == ["size"]
        assert keys_of(store) == "bc"
        assert limits.totals().evictions == {"size": 1, "expired": 0, "idle": 0}

    @pytest.mark.parametrize(
        "write",
        [
            lambda store: store.from_bytes("c", b""),
            lambda store: store.set("c", (b"", {"of": 1})),
            lambda store: store.multiset(list("c"), [(b"", {})]),
            lambda store: store.mapping("raw").update(c=b""),
        ],
    )
    def test_whoever_makes_it(
        self, store: DictMemoryStore, write: Callable[[DictMemoryStore], object]
    ) -> None:
        limits = limited(store, max_entries=2)
        put(limits, "a", "b")
        write(store)
        assert keys_of(store) == "bc"
        limits.check()

    @pytest.mark.parametrize("optimistic", [False, True])
    def test_of_a_transaction(self, store: DictMemoryStore, optimistic: bool) -> None:
        limits = limited(store, max_entries=2)
        put(limits, "a", "b")
        with store.transaction(optimistic=optimistic):
            store.from_bytes("c", b"")
            store.from_bytes("b", b"b")
            assert keys_of(store) == "abc"  # the store evicts at the commit, a cache before it
        assert keys_of(store) == "bc"
        limits.check()

    def test_a_snapshot_has_what_was_evicted(self, store: DictMemoryStore) -> None:
        limits = limited(store, max_entries=2)
        put(limits, "a", "b")
        with store.snapshot() as view:
            put(limits, "c")
            assert sorted(view.query_keys()) == ["a", "b"]

    def test_indexes_know(self) -> None:
        with DictMemoryStore(EventManager(), indexes=["kind"]) as store:
            limits = limited(store, max_entries=2)
            put(limits, "a", "b", kind=1)
            put(limits, "c", kind=1)
            assert sorted(store.query_keys(kind=1)) == ["b", "c"]
            check(store)


class TestWhatIsEvicted:
    def test_no_key_that_the_commit_writes(self, store: DictMemoryStore) -> None:
        limits = limited(store, max_entries=3)
        put(limits, "a", "b", "c")
        put(limits, "a", "d")  # "a" is the oldest
        assert keys_of(store) == "acd"

    def test_but_the_first_of_them_if_nothing_else_is_left(self, store: DictMemoryStore) -> None:
        limits = limited(store, max_entries=3)
        put(limits, "a", "b")
        watch = store.watch()
        put(limits, "a", "c", "d", "e")
        assert keys_of(store) == "cde"
        actions = sorted((event.action, event.key) for event in read(watch))
        assert actions == [("evict", "a"), ("evict", "b"), ("set", "c"), ("set", "d"), ("set", "e")]
        put(limits, "p", "q", "r", "s")
        assert keys_of(store) == "qrs"
        limits.check()

    def test_by_weight(self, store: DictMemoryStore) -> None:
        limits = limited(store, max_bytes=30 + 2 * OVERHEAD)
        put(limits, "a", "b", data=bytes(9))
        put(limits, "c", data=bytes(14))
        assert keys_of(store) == "bc"
        store.set_data("b", bytes(15))  # which grows
        assert keys_of(store) == "b"
        assert limits.totals()[:2] == (1, 16 + OVERHEAD)

    def test_what_is_too_much_alone_changes_nothing(self, store: DictMemoryStore) -> None:
        limits = limited(store, max_bytes=1_000)
        put(limits, "a", "b", data=bytes(9))
        revision = store.info()["revision"]
        with pytest.raises(
            EntryTooLargeError, match=f"'c' weighs {1_001 + OVERHEAD} bytes, more than max_bytes=1000"
        ):
            limits.write((("a", entry(b"new")), ("c", entry(bytes(1_000)))), "put")
        with pytest.raises(EntryTooLargeError):
            store.from_bytes("c", bytes(1_000))
        assert store.info()["revision"] == revision
        assert store.to_bytes("a") == bytes(9)
        limits.check()

    def test_hits_of_a_policy_that_needs_them(self, store: DictMemoryStore) -> None:
        limits = limited(store, max_entries=3, policy=LRU)
        put(limits, "a", "b", "c")
        for key in "ba":
            found = limits.entry(key)
            assert found is not None
            assert limits.use(key, found)
        for key in "xyz":
            put(limits, key)
            limits.check()
        assert limits.totals().evictions["size"] == 3
        watch = store.watch()
        put(limits, "b", "a", "c")
        evicted = [event.key for event in read(watch) if event.action == "evict"]
        assert evicted == ["x", "y", "z"]

    def test_more_than_there_is_when_the_bound_is_made(self, store: DictMemoryStore) -> None:
        store.multiset(list("abcde"), [(b"", {})] * 5)
        limited(store, max_entries=2).check()
        assert len(store) == 2
        assert store.info()["revision"] == 2


class TestSeveral:
    def test_each_has_its_own_keys(self, store: DictMemoryStore) -> None:
        first, second = limited(store, max_entries=2, prefix="f"), limited(store, max_entries=3, prefix="s")
        for number in range(5):
            put(first, f"f{number}")
            put(second, f"s{number}")
            store.from_bytes(f"other{number}", b"")
        assert sorted(store.query_keys()) == ["f3", "f4", *(f"other{n}" for n in range(5)), "s2", "s3", "s4"]
        assert (first.totals().entries, second.totals().entries) == (2, 3)
        first.check()
        second.check()

    def test_of_the_same_keys_the_narrower_holds(self, store: DictMemoryStore) -> None:
        wide, narrow = limited(store, max_entries=9), limited(store, max_entries=2)
        for key in "abcd":
            put(wide, key)
        assert keys_of(store) == "cd"
        wide.check()
        narrow.check()

    def test_one_that_is_closed_is_dropped(self, store: DictMemoryStore) -> None:
        limits = limited(store, max_entries=2)
        limits.close()
        store.multiset(list("abc"), [(b"", {})] * 3)
        assert keys_of(store) == "abc"
        assert table_of(store).bounds == ()
        put(limits, "d")  # and comes again with the first write
        assert len(store) == 2
        limits.check()

    def test_one_that_is_closed_takes_no_sweep_from_another(
        self, store: DictMemoryStore, clock: Clock
    ) -> None:
        limits, other = limited(store, clock=clock), limited(store, max_entries=9)
        put(limits, "a", cache_expires=1_001.0)
        clock.now = 1_001.0
        other.close()
        assert limits.sweep() == 1
        assert keys_of(store) == ""

    def test_one_that_is_freed_is_dropped(self, store: DictMemoryStore) -> None:
        limited(store, max_entries=2)
        store.multiset(list("abc"), [(b"", {})] * 3)
        assert keys_of(store) == "abc"


class TestTime:
    def test_what_has_expired_goes_by_the_way(self, store: DictMemoryStore, clock: Clock) -> None:
        limits = limited(store, clock=clock)
        put(limits, "a", cache_expires=1_001.0)
        put(limits, "b", cache_expires=1_002.0)
        clock.now = 1_001.0
        put(limits, "c")
        assert keys_of(store) == "bc"
        assert limits.totals().evictions["expired"] == 1

    def test_not_in_commits_that_bring_no_reading_of_the_clock(
        self, store: DictMemoryStore, clock: Clock
    ) -> None:
        limits = limited(store, clock=clock)
        put(limits, "a", cache_expires=1_001.0)
        clock.now = 1_001.0
        store.from_bytes("b", b"")
        assert keys_of(store) == "ab"
        assert limits.sweep() == 1

    def test_the_clock_is_called_with_no_lock_held(self, store: DictMemoryStore) -> None:
        held: list[bool] = []

        def clock() -> float:
            held.append(bool(table_of(store).latches.table.is_used()))
            return 1_000.0

        limits = limited(store, max_entries=2, idle=1.0, clock=clock)
        put(limits, "a", "b", cache_expires=1_001.0)
        put(limits, "c")
        limits.sweep()
        assert len(held) >= 3
        assert not any(held)

    def test_a_reading_of_a_commit_that_failed_is_forgotten(
        self, store: DictMemoryStore, clock: Clock
    ) -> None:
        limits = limited(store, clock=clock)
        put(limits, "a", cache_expires=1_001.0)
        clock.now = 1_001.0
        with pytest.raises(KeyError):
            limits.write((("missing", _Missing(b"")),), "fails")
        store.from_bytes("b", b"")
        assert keys_of(store) == "ab"

    @pytest.mark.parametrize("back", [False, True])
    def test_what_was_saved_by_another_clock(
        self, store: DictMemoryStore, clock: Clock, tmp_path: Path, back: bool
    ) -> None:
        limits = limited(store, clock=clock)
        put(limits, "a", cache_expires=1_060.0)
        put(limits, "b")
        store.save(tmp_path / "saved")
        with DictMemoryStore.load(tmp_path / "saved", EventManager()) as loaded:
            clock.now = 10.0 if back else 1_000.0
            limited(loaded, clock=clock).check()
            assert keys_of(loaded) == ("b" if back else "ab")


class _Missing(SetData):
    """An edit that needs what is not there."""

    def revise(self, key: str, current: Entry | None, revision: int, now: float) -> Entry:
        raise KeyError(key)


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


def test_a_plain_store_has_no_bound(store: DictMemoryStore) -> None:
    store.from_bytes("a", b"")
    assert table_of(store).bounds == ()


def test_facts_of_a_commit_that_failed_are_forgotten(store: DictMemoryStore, clock: Clock) -> None:
    """Neither the books that are built anew have them nor those of the next commit of the key."""
    limits = limited(store, max_bytes=100, clock=clock)
    put(limits, "a", cache_weight=10)
    with pytest.raises(EntryTooLargeError):
        limits.write((("a", entry(cache_weight=20)), ("b", entry(cache_weight=101))), "put")
    table_of(store).bounds[0].stale = True
    assert limits.totals().weight == 10
    limits.check()
    with store.transaction():
        with pytest.raises(EntryTooLargeError):
            put(limits, "a", cache_weight=101)
        in_another_thread(limits.totals)
        store.set("a", (b"", {"cache_weight": 30}))
    assert limits.totals().weight == 30
    limits.check()
