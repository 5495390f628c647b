"""A watch gives every change once and in order; replayed, they lead to what the store has."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchstore import (
    CompactedError,
    DictMemoryStore,
    EventsLost,
    StoreDeleteEvent,
    StoreSetEvent,
    StoreUpdateEvent,
    WaitTimeoutError,
    Watch,
)
from latchstore.delivery.change_feed import ChangeFeed
from tests.watches.reading import TIMEOUT, commit_of, new_buffer, new_store, read_all, taken_from

# -- what is given --------------------------------------------------------------------------------


def test_each_change_is_given_as_listeners_hear_it(store: DictMemoryStore) -> None:
    store.set("old", (b"0", {"n": 0}))
    with store.watch() as changes:
        store.set("a", (b"1", {"n": 1}))
        store.from_bytes("a", b"2")
        store.delete("old")
        created, updated, deleted = (changes.get(0) for _ in range(3))
    assert isinstance(created, StoreSetEvent)
    assert isinstance(updated, StoreUpdateEvent)
    assert isinstance(deleted, StoreDeleteEvent)
    assert [(each.revision, each.key, each.action) for each in (created, updated, deleted)] == [
        (2, "a", "set"),
        (3, "a", "update"),
        (4, "old", "delete"),
    ]
    value, previous = updated.value, updated.previous
    assert isinstance(updated, StoreUpdateEvent)
    assert value is not None
    assert previous is not None
    assert (value.bytes, previous.bytes) == (b"2", b"1")  # type: ignore[attr-defined]
    assert updated.metadata == {"n": 1}
    assert deleted.value is None
    assert deleted.metadata == {"n": 0}
    assert created.source is store
    assert created.transaction is None


def test_a_transaction_gives_its_net_effect_and_a_rollback_nothing(store: DictMemoryStore) -> None:
    with store.watch() as changes:
        with store.transaction("several") as tx:
            store.from_bytes("a", b"1")
            store.from_bytes("a", b"2")
            store.from_bytes("b", b"1")
            store.from_bytes("gone", b"")
            store.delete("gone")
            assert len(changes) == 0
        with store.transaction() as failed:
            store.from_bytes("never", b"")
            failed.doom()
        with pytest.raises(KeyError):
            store.delete("missing")
        given: list[Any] = [changes.get(0) for _ in range(2)]
        assert len(changes) == 0
    assert [(each.revision, each.key, each.action) for each in given] == [
        (tx.revision, "a", "set"),
        (tx.revision, "b", "set"),
    ]
    assert all(each.transaction.notes == "several" for each in given)


@pytest.mark.parametrize(
    ("glob", "keys"),
    [
        ("*", ["user/1", "user/2", "x*", "xy"]),
        ("user/*", ["user/1", "user/2"]),
        ("user/1", ["user/1"]),
        ("*[12]", ["user/1", "user/2"]),
        ("x[*]", ["x*"]),
        ("none", []),
        ("", []),
    ],
)
def test_glob(store: DictMemoryStore, glob: str, keys: list[str]) -> None:
    with store.watch(glob) as changes:
        for key in ("user/1", "user/2", "x*", "xy"):
            store.from_bytes(key, b"")
        assert [key for _, key in read_all(changes)] == keys


def test_a_filter_is_matched_before_or_after_the_change(store: DictMemoryStore) -> None:
    with store.watch(filter={"kind": "a"}) as changes:
        store.set("k", (b"", {"kind": "b"}))
        store.set("k", (b"", {"kind": "a"}))
        store.set("k", (b"", {"kind": "c"}))
        store.set("k", (b"", {"kind": "d"}))
        store.set("k", (b"", {"kind": "a"}))
        store.delete("k")
        store.set("other", (b"", {}))
        assert [revision for revision, _ in read_all(changes)] == [2, 3, 5, 6]


class Stubborn:
    """Equals only what it is told to, and asks which locks are held."""

    asked: list[bool]

    def __init__(self, store: DictMemoryStore, equal: bool) -> None:
        self.store = store
        self.equal = equal

    def __eq__(self, other: object) -> bool:
        # A store that held a lock would refuse, or wait for itself.
        self.store.from_bytes("asked", b"")
        return self.equal

    __hash__ = object.__hash__

    def __deepcopy__(self, memo: object) -> Stubborn:
        return self


def test_values_that_compare_in_their_own_way_do_so_on_the_readers_thread(store: DictMemoryStore) -> None:
    with (
        store.watch(filter={"kind": Stubborn(store, True)}) as yes,
        store.watch(filter={"kind": Stubborn(store, False)}) as no,
    ):
        store.set("k", (b"", {"kind": [1]}))
        assert not store.exists("asked")
        assert len(yes) == 1
        change = yes.get(0)
        assert isinstance(change, StoreSetEvent)
        assert change.key == "k"
        assert store.exists("asked")
        with pytest.raises(WaitTimeoutError):
            no.get(0)


def test_a_filter_is_isolated_from_the_caller(store: DictMemoryStore) -> None:
    wanted = {"tags": ["a"]}
    with store.watch(filter=wanted) as changes:
        wanted["tags"].append("b")
        store.set("k", (b"", {"tags": ["a"]}))
        assert read_all(changes) == [(1, "k")]


# -- the past -------------------------------------------------------------------------------------


def test_since_begins_after_a_revision() -> None:
    store = new_store(history=3)
    for number in range(5):
        store.from_bytes(f"k{number}", b"")
    for since, revisions in ((2, [3, 4, 5]), (3, [4, 5]), (4, [5]), (5, [])):
        with store.watch(since=since) as changes:
            assert [revision for revision, _ in read_all(changes)] == revisions
    with pytest.raises(CompactedError, match="since=1: the history begins with revision 3") as caught:
        store.watch(since=1)
    assert (caught.value.since, caught.value.oldest_revision) == (1, 3)
    with pytest.raises(ValueError, match="since must not be above the last commit's revision, 5, got 6"):
        store.watch(since=6)
    assert store.stats()["watches"] == 0


def test_without_a_history_only_the_present_can_be_asked_for() -> None:
    store = new_store()
    with store.watch(since=0):
        pass
    store.from_bytes("k", b"")
    with store.watch(since=1) as changes:
        store.from_bytes("k", b"")
        assert read_all(changes) == [(2, "k")]
    with pytest.raises(CompactedError) as caught:
        store.watch(since=0)
    assert caught.value.oldest_revision == 3


def test_the_past_comes_before_the_present_and_is_filtered_too(store: DictMemoryStore) -> None:
    store.multiset_data(["user/1", "x", "user/2"], [b""] * 3)
    store.from_bytes("user/1", b"")
    with store.watch("user/*", since=0) as changes:
        store.from_bytes("user/3", b"")
        assert read_all(changes) == [(1, "user/1"), (1, "user/2"), (2, "user/1"), (3, "user/3")]


def test_a_commit_that_is_published_again_is_given_once() -> None:
    feed = ChangeFeed(history=2)
    early, late = new_buffer(), new_buffer()
    assert feed.past(0, 0) == []
    feed.add(early, 0)
    for number in (1, 2, 3):
        feed.publish(commit_of(number))
        feed.publish(commit_of(number))
    # What the history has is read from there, and not given again when it is published again.
    assert [commit.revision for commit in feed.past(1, 3)] == [2, 3]
    feed.add(late, 3)
    feed.publish(commit_of(3))
    feed.publish(commit_of(4))
    assert [record.revision for record in taken_from(early)] == [1, 2, 3, 4]
    assert [record.revision for record in taken_from(late)] == [4]
    with pytest.raises(CompactedError):
        feed.past(1, 4)


def test_watches_opened_while_others_write_have_every_commit_once(pool: ThreadPoolExecutor) -> None:
    store = new_store(history=100_000)
    barrier = threading.Barrier(4)

    def write(number: int) -> None:
        barrier.wait(TIMEOUT)
        for _ in range(500):
            store.from_bytes(f"k{number}", b"")

    writing = [pool.submit(write, number) for number in range(3)]
    barrier.wait(TIMEOUT)
    opened: list[tuple[int, Watch]] = []
    chance = random.Random(1)
    while not all(each.done() for each in writing):
        revision = store.info()["revision"]
        since = chance.choice([0, revision // 2, revision])
        opened.append((since, store.watch(since=since)))
        if len(opened) > 200:
            opened.pop(chance.randrange(200))[1].close()
    store.close()
    for since, changes in opened:
        assert [change.revision for change in changes] == list(range(since + 1, 1_501))


# -- replay ---------------------------------------------------------------------------------------


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from("abcd")),
        st.tuples(st.just("delete"), st.sampled_from("abcd")),
        st.tuples(st.just("many"), st.lists(st.sampled_from("abcd"), unique=True)),
        st.tuples(st.just("read"), st.integers(1, 5)),
    ),
    max_size=40,
)


@given(steps=STEPS, max_buffer=st.integers(1, 4), on_overflow=st.sampled_from(["drop", "coalesce"]))
def test_what_a_watch_gives_leads_to_what_the_store_has(
    steps: list[tuple[str, Any]], max_buffer: int, on_overflow: str
) -> None:
    store = new_store()
    replayed: dict[str, bytes] = {}
    resynced = 0

    def read(changes: Watch) -> None:
        nonlocal resynced
        change: Any = changes.get(0)
        if isinstance(change, EventsLost):
            assert on_overflow == "drop"
            with store.snapshot() as view:
                assert view.revision >= change.last_revision
                replayed.clear()
                replayed.update({key: view.to_bytes(key) for key in view.query_keys()})
                resynced = view.revision
        elif change.revision > resynced:
            previous = None if change.previous is None else change.previous.bytes
            assert replayed.get(change.key) == previous
            if change.value is None:
                del replayed[change.key]
            else:
                replayed[change.key] = change.value.bytes

    with store.watch(max_buffer=max_buffer, on_overflow=on_overflow) as changes:
        for number, (step, what) in enumerate(steps):
            data = b"%d" % number
            if step == "set":
                store.from_bytes(what, data)
            elif step == "delete" and store.exists(what):
                store.delete(what)
            elif step == "many":
                store.multiset_data(what, [data] * len(what))
            elif step == "read":
                for _ in range(min(what, len(changes))):
                    read(changes)
        with suppress(WaitTimeoutError):
            while True:
                read(changes)
    assert replayed == {key: store.to_bytes(key) for key in store.query_keys()}
