"""What begins to follow commits late, on a store that has made some while nothing followed them."""

from __future__ import annotations

import pytest

from latchstore import DictMemoryStore, EventManager, Ordered, StoreUpdateEvent, WorkQueue
from latchstore.engine.inspection import check


@pytest.fixture
def store() -> DictMemoryStore:
    store = DictMemoryStore(EventManager())
    for number in range(3):
        store.set("k", (b"before", {"kind": number}))
    return store


def test_a_snapshot(store: DictMemoryStore) -> None:
    with store.snapshot() as snapshot:
        store.from_bytes("k", b"after")
        assert snapshot.to_bytes("k") == b"before"
    store.from_bytes("k", b"later")
    with store.snapshot() as snapshot:
        store.from_bytes("k", b"last")
        assert snapshot.to_bytes("k") == b"later"


@pytest.mark.parametrize("index", ["kind", Ordered("kind")])
def test_an_index(store: DictMemoryStore, index: str | Ordered) -> None:
    if isinstance(index, Ordered):
        pytest.importorskip("sortedcontainers")
    store.add_index(index)
    store.set("k", (b"", {"kind": 7}))
    assert list(store.query_keys(kind=7)) == ["k"]
    assert list(store.query_keys(kind=2)) == []
    check(store)


def test_a_watch(store: DictMemoryStore) -> None:
    for _ in range(2):
        with store.watch() as changes:
            store.from_bytes("k", b"watched")
            event = changes.get(0)
            assert isinstance(event, StoreUpdateEvent)
            assert event.revision == store.info()["revision"]
        store.from_bytes("k", b"unwatched")


def test_a_work_queue(store: DictMemoryStore) -> None:
    queue: WorkQueue[str] = WorkQueue(store, "jobs")
    queue.put("job")
    job = queue.claim(timeout=0)
    assert job is not None
    assert job.payload == "job"
    check(store)
