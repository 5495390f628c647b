"""A commit that would leave too much evicts in the same commit; what expires, and by which clock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from latchstore import DictMemoryStore, EntryTooLargeError, EventManager
from latchstore.cache.policies import LRU
from latchstore.contract.values import Entry
from latchstore.engine.edits import SetData
from latchstore.engine.entry_facts import OVERHEAD
from latchstore.engine.inspection import check, table_of
from tests.bounds.stores import Clock, entry, keys_of, limited, put, read
from tests.schedules import in_another_thread


@pytest.fixture
def clock() -> Clock:
    return Clock()


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
