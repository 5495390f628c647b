"""How many events may wait, and which writers wait for room."""

from __future__ import annotations

import inspect

import pytest

from latchstore import BackpressureError, DictMemoryStore, EventManager, StoreDeleteEvent
from latchstore.engine.inspection import dispatcher_of
from tests.backpressure.crowds import SHORT, TIMEOUT, Crowd, Permitted, changes_nothing


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_as_many_events_as_the_limit_may_wait(limit: int) -> None:
    with Crowd(limit, lock_timeout=SHORT) as crowd:
        crowd.write(limit)
        assert crowd.store.stats()["events_pending"] == limit
        with changes_nothing(crowd.store), pytest.raises(BackpressureError):
            crowd.store.from_bytes("one too many", b"")
        assert not crowd.store.exists("one too many")


@pytest.mark.parametrize(("limit", "heard"), [(1, 1), (3, 1), (100, 7)])
def test_a_writer_goes_on_when_there_is_room(limit: int, heard: int) -> None:
    """A queue of 100 has room again at 93, or writers and listeners would take turns."""
    with Crowd(limit) as crowd:
        crowd.write(limit)
        writing = crowd.start(lambda: crowd.store.from_bytes("late", b""))
        for _ in range(heard - 1):
            crowd.listener.permit(1)
        crowd.listener.wait_until_begun(heard)
        assert dispatcher_of(crowd.store).throttled
        assert not writing.done()
        assert not crowd.store.exists("late")
        crowd.listener.permit(1)
        writing.result(TIMEOUT)
        assert crowd.store.exists("late")
        crowd.listener.permit(limit)
        crowd.store.flush(TIMEOUT)
        assert crowd.listener.heard == [f"k{number}" for number in range(limit)] + ["late"]


def test_any_number_may_wait_without_a_limit() -> None:
    with Crowd(None, lock_timeout=SHORT) as crowd:
        crowd.write(1_000)
        assert crowd.store.stats()["events_pending"] == 1_000
        crowd.listener.permit(1_000)
        crowd.store.flush(TIMEOUT)
        assert len(crowd.listener.heard) == 1_000


def test_a_hundred_thousand_may_wait_by_default() -> None:
    assert inspect.signature(DictMemoryStore).parameters["max_pending_events"].default == 100_000


def test_each_key_of_a_commit_counts() -> None:
    with Crowd(3, lock_timeout=SHORT) as crowd:
        crowd.write(1)
        crowd.store.multiset_data(["a", "b"], [b"", b""])
        assert crowd.store.stats()["events_pending"] == 3
        with changes_nothing(crowd.store), pytest.raises(BackpressureError):
            crowd.store.delete("a")


def test_who_has_been_let_in_may_go_beyond_the_limit() -> None:
    with Crowd(3, lock_timeout=SHORT) as crowd:
        crowd.write(2)
        with crowd.store.transaction():
            for number in range(10):
                crowd.store.from_bytes(f"t{number}", b"")
        assert crowd.store.stats()["events_pending"] == 12
        with pytest.raises(BackpressureError):
            crowd.store.from_bytes("k", b"")


def test_nobody_waits_when_nobody_listens() -> None:
    store = DictMemoryStore(EventManager(), max_pending_events=1, lock_timeout=SHORT)
    for number in range(10):
        store.from_bytes(f"k{number}", b"")
        store.multiset_data(["a", "b"], [b"", b""])
        with store.transaction():
            store.delete("a")
    assert store.stats()["events_pending"] == 0
    assert not dispatcher_of(store).running


def test_nobody_waits_for_events_that_nobody_listens_to() -> None:
    store = DictMemoryStore(EventManager(), max_pending_events=1, lock_timeout=SHORT)
    listener = Permitted()
    store.event_manager.connect(StoreDeleteEvent, listener.listen)
    for number in range(10):
        store.from_bytes(f"k{number}", b"")
    store.delete("k0")
    with pytest.raises(BackpressureError):
        store.delete("k1")
    listener.permit(1)
    store.close(TIMEOUT)
    assert listener.heard == ["k0"]


def test_a_queue_may_fill_up_again_and_again() -> None:
    with Crowd(2, lock_timeout=0) as crowd:
        for _ in range(5):
            crowd.write(2)
            with pytest.raises(BackpressureError):
                crowd.store.from_bytes("k", b"")
            crowd.listener.permit(2)
            crowd.store.flush(TIMEOUT)
        assert crowd.store.stats()["events_delivered"] == 10
