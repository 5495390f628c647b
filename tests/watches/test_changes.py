"""A watch gives every change once and in order; replayed, they lead to what the store has."""

from __future__ import annotations

import pickle
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchstore import (
    CompactedError,
    DictMemoryStore,
    EventsLost,
    StoreSetEvent,
    WaitTimeoutError,
    Watch,
)
from latchstore.delivery.change_feed import ChangeFeed
from tests.watches.reading import commit_of, new_buffer, new_store, read_all, taken_from

# -- what is given --------------------------------------------------------------------------------


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


# -- the past -------------------------------------------------------------------------------------


def test_a_history_has_as_many_commits_as_it_is_to_have() -> None:
    store = new_store(history=3)
    for number in range(5):
        store.from_bytes(f"k{number}", b"")
    with store.watch(since=2) as changes:
        assert read_all(changes) == [(3, "k2"), (4, "k3"), (5, "k4")]
    with pytest.raises(CompactedError) as caught:
        store.watch(since=1)
    assert (caught.value.since, caught.value.oldest_revision) == (1, 3)


def test_without_a_history_only_the_present_can_be_asked_for() -> None:
    store = new_store()
    with store.watch(since=0):
        pass
    store.from_bytes("k", b"")
    with store.watch(since=1) as changes:
        store.from_bytes("k", b"")
        assert read_all(changes) == [(2, "k")]
    with pytest.raises(
        CompactedError, match=r"no history \(history=0\).* give the store a history="
    ) as caught:
        store.watch(since=0)
    assert caught.value.oldest_revision == 3
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


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
