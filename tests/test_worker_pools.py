"""The recipes of the README for pools of threads and for asyncio."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from latchstore import (
    Above,
    DictMemoryStore,
    EventManager,
    Job,
    Ordered,
    RevisionMismatchError,
    Worked,
    WorkQueue,
    WrongThreadError,
)

TIMEOUT = 20.0


@pytest.fixture
def store() -> DictMemoryStore:
    return DictMemoryStore(EventManager(), indexes=["state"])


def test_a_transaction_for_each_task(store: DictMemoryStore) -> None:
    store.set("total", (b"", {"sum": 0}))

    def add(number: int) -> None:
        with store.transaction(f"add {number}"):
            store.from_bytes(f"part {number}", b"%d" % number)
            store.update_metadata("total", {"sum": store.get_metadata("total")["sum"] + number})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(200)))
    assert store.get_metadata("total") == {"sum": sum(range(200))}
    assert len(store) == 201


def test_a_queue_hands_out_work(store: DictMemoryStore) -> None:
    queue: WorkQueue[int] = WorkQueue(store, "parcels")
    store.set("total", (b"", {"sent": 0}))
    for number in range(200):
        queue.put(number)

    def send(job: Job[int]) -> None:
        with store.transaction("send"):
            store.update_metadata("total", {"sent": store.get_metadata("total")["sent"] + 1})
            job.ack()

    assert queue.run(send, threads=8) == Worked(acked=200)
    assert store.get_metadata("total") == {"sent": 200}


def test_work_is_claimed_by_one_thread_with_a_store_alone() -> None:
    """The last recipe of docs/how-to/work-queues.md, by several threads."""
    store = DictMemoryStore(EventManager(), indexes=[Ordered("new")])
    for number in range(100):
        store.set(f"job {number}", (b"", {"new": number}))
    done: list[str] = []

    def claim() -> str | None:
        while (key := next(store.query_keys(new=Above(-1), order_by="new", limit=1), None)) is not None:
            job = store.get(key)
            if "new" in job.metadata:
                try:
                    store.set_metadata(key, {"state": "claimed"}, if_revision=job.revision)
                except RevisionMismatchError:
                    continue  # another thread was quicker
                return key
        return None

    def work() -> None:
        while (key := claim()) is not None:
            done.append(key)
            store.set_metadata(key, {"state": "done"})

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert sorted(done) == sorted(f"job {number}" for number in range(100))
    assert len(list(store.query_keys(state="done"))) == 100


def test_asyncio_hands_work_to_threads(store: DictMemoryStore) -> None:
    def move(number: int) -> int | None:
        with store.transaction("move") as tx:
            store.from_bytes(f"k{number}", b"")
        return tx.revision

    async def main() -> list[int | None]:
        return await asyncio.gather(*(asyncio.to_thread(move, number) for number in range(50)))

    assert sorted(revision or 0 for revision in asyncio.run(main())) == list(range(1, 51))


def test_tasks_of_one_thread_that_meet_in_a_block_get_an_error(store: DictMemoryStore) -> None:
    """And not each other's writes."""

    async def main() -> None:
        inside, go_on = asyncio.Event(), asyncio.Event()

        async def first() -> None:
            with store.transaction("first"):
                store.from_bytes("k", b"first")
                inside.set()
                await go_on.wait()
                assert store.to_bytes("k") == b"first"

        async def second() -> None:
            await inside.wait()
            try:
                for call in (
                    lambda: store.from_bytes("k", b"second"),
                    lambda: store.to_bytes("k"),
                    lambda: store.transaction("second").__enter__(),
                ):
                    with pytest.raises(WrongThreadError, match="asyncio"):
                        call()
            finally:
                go_on.set()

        await asyncio.wait_for(asyncio.gather(first(), second()), TIMEOUT)

    asyncio.run(main())
    assert store.to_bytes("k") == b"first"


@pytest.mark.skipif(
    not hasattr(concurrent.futures, "InterpreterPoolExecutor"), reason="needs a Python that has them"
)
def test_a_store_is_not_handed_to_another_interpreter(store: DictMemoryStore) -> None:
    executor: Any = concurrent.futures.InterpreterPoolExecutor  # type: ignore[attr-defined]
    # The store's refusal to be pickled, or that of a Python which does not try.
    refused = "cannot be pickled or copied|<DictMemoryStore .* does not support cross-interpreter data"
    with executor(1) as pool, pytest.raises(Exception, match=refused):
        pool.submit(len, store).result(TIMEOUT)
