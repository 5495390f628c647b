"""What tasks ask a `RedisStore` for is sent and awaited in their loop, on one connection for each."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import pytest
import redis

from latchstore import (
    BackpressureError,
    Cache,
    EventManager,
    NearCache,
    OutcomeUnknownError,
    RedisStore,
    StoreSetEvent,
    StoreTransactionStartEvent,
    TransactionConflictError,
)
from latchstore.aio import AsyncCache, AsyncStore
from latchstore.redis.scripts import COMMIT, FOLLOW, RESOLVE, Script
from tests.event_loops import TIMEOUT, Run
from tests.fork.children import in_child, needs_fork
from tests.redis.proxy import Judge, Proxy, Reply
from tests.redis.servers import Server

pytest.importorskip("greenlet")


@pytest.fixture
def store(redis_server: Server, namespace: str) -> Iterator[RedisStore]:
    with RedisStore(redis_server.url, EventManager(), namespace=namespace, indexes=["kind"]) as store:
        # The server has the scripts from here on, so each request names its own by the digest.
        store.from_bytes("n", b"0")
        with store.transaction():
            store.from_bytes("n", b"0")
        yield store


@pytest.fixture
def proxy(redis_server: Server) -> Iterator[Proxy]:
    with Proxy(redis_server.socket) as proxy:
        yield proxy


@pytest.fixture
def far(proxy: Proxy, store: RedisStore, namespace: str) -> Iterator[RedisStore]:
    """A store beyond the proxy."""
    with RedisStore(proxy.url, EventManager(), namespace=namespace, lock_timeout=0.3) as far:
        far.from_bytes("n", b"0")  # it knows the indexes from here on
        yield far


def answering(replies: dict[Script, Reply], judged: list[Reply]) -> Judge:
    """Return a judge of the replies to some scripts, each of them once; note what it has done."""
    left = dict(replies)

    def judge(request: bytes) -> Reply:
        for script in list(left):
            if script.digest in request:
                judged.append(left.pop(script))
                return judged[-1]
        return Reply.PASSED

    return judge


def holding_first_read(proxy: Proxy) -> Judge:
    return lambda request: Reply.HELD if b"HGET" in request and not proxy.held else Reply.PASSED


async def until(true: Callable[[], object]) -> None:
    """Let other tasks and threads run until something is true."""
    while not true():
        await asyncio.sleep(0)


def connections(server: Server) -> int:
    with redis.Redis.from_url(server.url) as client:
        return len(client.client_list())


class TestOneConnection:
    def test_all_tasks_of_a_loop_share_it(self, run: Run, store: RedisStore, redis_server: Server) -> None:
        async def main() -> None:
            tasks, before = AsyncStore(store), connections(redis_server)
            await asyncio.gather(*(tasks.from_bytes(f"k{n}", b"%d" % n) for n in range(100)))
            found = await asyncio.gather(*(tasks.to_bytes(f"k{n}") for n in range(100)))
            assert found == [b"%d" % n for n in range(100)]
            assert connections(redis_server) == before + 1

        run(main())

    def test_it_is_closed_with_the_loop(self, run: Run, store: RedisStore, redis_server: Server) -> None:
        before = connections(redis_server)
        run(AsyncStore(store).exists("n"))
        assert connections(redis_server) == before
        run(AsyncStore(store).exists("n"))

    def test_it_is_closed_with_the_store(
        self, run: Run, store: RedisStore, redis_server: Server, namespace: str
    ) -> None:
        before = connections(redis_server)

        async def main() -> None:
            async with AsyncStore(RedisStore(redis_server.url, EventManager(), namespace=namespace)) as other:
                await other.from_bytes("a", b"")
            await until(lambda: connections(redis_server) == before)
            assert await other.exists("a")  # a closed store can be read
            await until(lambda: connections(redis_server) <= before + 1)
            async with other:
                await other.from_bytes("a", b"")

        run(main())

    def test_loops_in_several_threads(self, store: RedisStore) -> None:
        async def count(name: str) -> None:
            tasks = AsyncStore(store)
            for _ in range(5):
                async for attempt in tasks.attempts("add"):
                    async with attempt as tx:
                        await tx.from_bytes("n", b"%d" % (int(await tx.to_bytes("n")) + 1))
                await tasks.from_bytes(name, b"")

        threads = [
            threading.Thread(target=asyncio.run, args=(count(f"thread {n}"),), name=f"loop {n}")
            for n in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
        assert store.to_bytes("n") == b"15"
        assert len(list(store.glob("thread *"))) == 3

    @needs_fork
    def test_a_forked_child_has_its_own(self, store: RedisStore) -> None:
        async def main() -> None:
            tasks = AsyncStore(store)
            await tasks.from_bytes("a", b"parent")

            def child() -> None:
                # In a thread: in this one the child takes the parent's loop to run.
                write = AsyncStore(store).from_bytes("b", b"child")
                thread = threading.Thread(target=asyncio.run, args=(write,))
                thread.start()
                thread.join(TIMEOUT)
                assert store.to_bytes("a") == b"parent"

            assert in_child(child) == ""
            assert await tasks.to_bytes("b") == b"child"

        asyncio.run(main())


class TestCalls:
    def test_all_of_them(self, run: Run, store: RedisStore) -> None:
        async def main() -> None:
            tasks = AsyncStore(store)
            await tasks.set("a", (b"1", {"kind": "x", "n": 1}))
            await tasks.multiset(["b", "c"], [(b"2", {"kind": "x"}), (BytesIO(b"3"), {})])
            await tasks.update_metadata("b", {"n": 2})
            await tasks.set_metadata("c", {"kind": "y"})
            await tasks.multiset_metadata(["d"], [{}])
            await tasks.multiupdate_metadata(["d"], [{"kind": "z"}])
            await tasks.delete("d")
            assert (await tasks.get("b")).metadata == {"kind": "x", "n": 2}
            assert [value.data.read() for value in await tasks.multiget(["a", "c"])] == [b"1", b"3"]
            assert await tasks.multiget_metadata(["c"]) == [{"kind": "y"}]
            assert await tasks.query_keys(where={"kind": "x"}, order_by="n", descending=True) == ["b", "a"]
            assert await tasks.query(kind="y") == [("c", {"kind": "y"})]
            assert await tasks.glob("[ab]") == ["a", "b"]
            assert await tasks.count() == 4  # with the number that is there
            with pytest.raises(KeyError, match="nothing"):
                await tasks.get("nothing")

        run(main())

    def test_conditions(self, run: Run, store: RedisStore) -> None:
        """Of tasks that set a key on condition that it is the same, one does."""

        async def main() -> list[Any]:
            tasks = AsyncStore(store)
            revision = store.info()["revision"]
            sets = (tasks.from_bytes("n", b"%d" % n, if_revision=revision) for n in range(10))
            return await asyncio.gather(*sets, return_exceptions=True)

        assert run(main()).count(None) == 1

    def test_many_keys_by_pages(self, run: Run, store: RedisStore) -> None:
        keys = [f"k{n:04}" for n in range(2_500)]
        store.multiset(keys, [(b"", {})] * len(keys))

        async def main() -> None:
            tasks = AsyncStore(store)
            assert await tasks.glob("k*") == keys
            assert len(await tasks.multiget(keys)) == len(keys)
            async with tasks.transaction() as tx:
                await asyncio.create_task(tasks.delete("k0000"))
                assert len(await tx.query_keys()) == len(keys) + 1
                await tx.rollback()  # what it has read was changed

        run(main())

    def test_a_stream_of_the_users_is_read_in_a_thread(self, run: Run, store: RedisStore) -> None:
        class Stream:
            def __init__(self) -> None:
                self.threads: set[threading.Thread] = set()
                self.parts = [b"a", b"b", b""]

            def read(self, size: int = -1) -> bytes:
                self.threads.add(threading.current_thread())
                return self.parts.pop(0)

        async def main() -> None:
            tasks, first, second, third = AsyncStore(store), Stream(), Stream(), Stream()
            await tasks.set("a", (first, {}))
            await tasks.multiset(["b"], [(second, {})])
            async with tasks.transaction() as tx:
                await tx.set("c", (third, {}))
            assert [await tasks.to_bytes(key) for key in "abc"] == [b"ab"] * 3
            assert threading.current_thread() not in first.threads | second.threads | third.threads

        run(main())

    def test_a_block_of_the_thread(self, run: Run, store: RedisStore) -> None:
        """Calls of a task in it go to it."""

        async def main() -> None:
            tasks = AsyncStore(store)
            with store.transaction():
                store.from_bytes("a", b"")
                assert await tasks.exists("a")
                await tasks.from_bytes("b", b"")
            assert await tasks.exists("b")

        run(main())

    def test_without_greenlet(
        self, run: Run, store: RedisStore, redis_server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Calls are made in threads."""
        monkeypatch.delitem(sys.modules, "latchstore.aio.greenlets", raising=False)
        monkeypatch.setitem(sys.modules, "greenlet", None)

        async def main() -> None:
            tasks, before = AsyncStore(store), connections(redis_server)
            await tasks.from_bytes("a", b"")
            assert await tasks.exists("a")
            assert connections(redis_server) == before

        run(main())


class TestWaiting:
    def test_a_task_that_waits_for_a_thread(self, run: Run, store: RedisStore) -> None:
        """The loop goes on, and the commits of tasks are made when the thread's block ends."""
        begun, end = threading.Event(), threading.Event()

        def hold() -> None:
            with store.transaction("held"):
                begun.set()
                assert end.wait(TIMEOUT)

        async def main() -> None:
            tasks = AsyncStore(store)
            thread = threading.Thread(target=hold)
            thread.start()
            assert await asyncio.to_thread(begun.wait, TIMEOUT)
            writes = [asyncio.create_task(tasks.from_bytes(f"k{n}", b"")) for n in range(3)]
            async with tasks.transaction() as tx:
                await tx.from_bytes("tx", b"")
                assert await tasks.to_bytes("n") == b"0"
                assert not any(write.done() for write in writes)
                end.set()
            await asyncio.gather(*writes)
            await asyncio.to_thread(thread.join, TIMEOUT)
            assert await tasks.glob("*") == ["k0", "k1", "k2", "n", "tx"]

        run(main())

    def test_many_transactions_that_meet(self, run: Run, store: RedisStore) -> None:
        async def main() -> None:
            tasks = AsyncStore(store)

            async def add() -> None:
                async for attempt in tasks.attempts("add"):
                    async with attempt as tx:
                        await tx.from_bytes("n", b"%d" % (int(await tx.to_bytes("n")) + 1))

            await asyncio.gather(*(add() for _ in range(20)))
            assert await tasks.to_bytes("n") == b"20"

        run(main())

    def test_listeners_that_are_behind(self, run: Run, redis_server: Server, namespace: str) -> None:
        """A task waits for them as a thread does, and the loop goes on."""
        manager, begun, end = EventManager(), threading.Event(), threading.Event()

        def listen(event: StoreSetEvent) -> None:
            begun.set()
            assert end.wait(TIMEOUT)

        manager.connect(StoreSetEvent, listen)

        async def main() -> None:
            store = RedisStore(
                redis_server.url, manager, namespace=namespace, max_pending_events=1, lock_timeout=0.1
            )
            async with AsyncStore(store) as tasks:
                await tasks.from_bytes("a", b"")
                assert await asyncio.to_thread(begun.wait, TIMEOUT)
                try:
                    writes = [
                        await asyncio.gather(tasks.from_bytes(f"k{n}", b""), return_exceptions=True)
                        for n in range(3)
                    ]
                    assert any(isinstance(error, BackpressureError) for (error,) in writes)
                    assert await tasks.to_bytes("a") == b""
                finally:
                    end.set()

        run(main())

    def test_changes_are_there_when_a_commit_returns(self, run: Run, store: RedisStore) -> None:
        async def main() -> None:
            tasks = AsyncStore(store)
            async with tasks.watch() as changes:
                for n in range(5):
                    await tasks.from_bytes(f"k{n}", b"")
                    assert len(changes) == n + 1
                async with tasks.transaction("t") as tx:
                    await tx.from_bytes("a", b"")
                    await tx.from_bytes("b", b"")
                found = [await changes.get() for _ in range(7)]
                assert [each.key for each in found if isinstance(each, StoreSetEvent)] == [
                    *(f"k{n}" for n in range(5)),
                    "a",
                    "b",
                ]

        run(main())

    def test_tasks_that_commit_while_others_publish(self, run: Run, store: RedisStore) -> None:
        """The log is read in a section that no task is in while it awaits."""
        begun: list[object] = []
        store.event_manager.connect(StoreTransactionStartEvent, begun.append)

        async def main() -> None:
            tasks = AsyncStore(store)

            async def write(name: str) -> None:
                for each in range(4):
                    async with tasks.transaction(name) as tx:
                        await tx.from_bytes(f"{name}/{each}", b"")

            async with tasks.watch() as changes:
                await asyncio.gather(*(write(f"k{n}") for n in range(20)))
                assert len(changes) == 80
            await tasks.flush()
            assert len(begun) == 80

        run(main())

    def test_the_loop_goes_on_while_a_thread_reads_the_log(
        self, run: Run, store: RedisStore, proxy: Proxy, namespace: str
    ) -> None:
        """A task that has to publish its commit meanwhile waits outside the loop's thread."""
        far = RedisStore(proxy.url, EventManager(), namespace=namespace, socket_timeout=3 * TIMEOUT)
        went_on, in_time = threading.Event(), list[bool]()

        def let_go() -> None:
            in_time.append(went_on.wait(TIMEOUT))
            proxy.release()

        async def main() -> None:
            async with AsyncStore(far) as tasks, tasks.watch() as changes:
                await tasks.from_bytes("a", b"")
                proxy.judge = lambda request: (
                    Reply.HELD if FOLLOW.digest in request and not proxy.held else Reply.PASSED
                )
                threads = [threading.Thread(target=far.from_bytes, args=("b", b""))]
                threads[0].start()
                await until(lambda: proxy.held)
                threads.append(threading.Thread(target=let_go))
                threads[1].start()
                write = asyncio.create_task(tasks.from_bytes("c", b""))
                await until(lambda: store.exists("c"))
                assert await tasks.exists("n")  # its reply comes after that of the write
                went_on.set()
                await write
                for thread in threads:
                    await asyncio.to_thread(thread.join, TIMEOUT)
                assert len(changes) == 3

        run(main())
        assert in_time == [True]


class TestLostReplies:
    def test_a_read_is_asked_again(self, run: Run, far: RedisStore, proxy: Proxy) -> None:
        proxy.judge = lambda request: Reply.LOST if b"HGET" in request and not proxy.lost else Reply.PASSED

        async def main() -> None:
            tasks = AsyncStore(far)
            assert await asyncio.gather(*(tasks.to_bytes("n") for _ in range(10))) == [b"0"] * 10

        run(main())
        assert proxy.lost == 1

    @pytest.mark.parametrize("lost", [(COMMIT,), (COMMIT, RESOLVE)], ids=["commit", "twice"])
    def test_a_commit_is_made_once(
        self, run: Run, store: RedisStore, far: RedisStore, proxy: Proxy, lost: tuple[Script, ...]
    ) -> None:
        judged: list[Reply] = []
        proxy.judge = answering(dict.fromkeys(lost, Reply.LOST), judged)
        revision = store.info()["revision"]

        async def main() -> None:
            tasks = AsyncStore(far)
            await asyncio.gather(tasks.from_bytes("a", b""), tasks.from_bytes("b", b""))
            async with tasks.transaction() as tx:
                await tx.from_bytes("c", b"")
            assert tx.revision == revision + 3

        run(main())
        assert judged == [Reply.LOST] * len(lost)
        assert store.info()["revision"] == revision + 3

    def test_if_nobody_can_tell(self, run: Run, far: RedisStore, proxy: Proxy) -> None:
        proxy.judge = lambda request: (
            Reply.LOST if COMMIT.digest in request or RESOLVE.digest in request else Reply.PASSED
        )

        async def main() -> None:
            with pytest.raises(OutcomeUnknownError, match="from_bytes"):
                await AsyncStore(far).from_bytes("a", b"")

        run(main())


class TestCancellation:
    def test_of_a_read(self, run: Run, far: RedisStore, proxy: Proxy) -> None:
        """Its reply is dropped: the next call gets its own, and so do those that were under way."""

        async def main() -> None:
            tasks = AsyncStore(far)
            await tasks.from_bytes("a", b"1")
            proxy.judge = holding_first_read(proxy)
            first = asyncio.create_task(tasks.to_bytes("a"))
            second = asyncio.create_task(tasks.to_bytes("n"))
            await until(lambda: proxy.held)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            third = asyncio.create_task(tasks.get_metadata("a"))
            proxy.release()
            assert (await second, await third) == (b"0", {})

        run(main())

    def test_of_a_transaction_at_its_commit(
        self, run: Run, store: RedisStore, far: RedisStore, proxy: Proxy
    ) -> None:
        """What has become of it is known when the task ends."""

        async def main() -> None:
            tasks, judged = AsyncStore(far), list[Reply]()
            ends: list[str] = []

            async def write() -> None:
                async with tasks.transaction() as tx:
                    tx.on_commit(lambda: ends.append("committed"))
                    tx.on_rollback(lambda: ends.append("rolled back"))
                    await tx.from_bytes("a", b"")
                    proxy.judge = answering({COMMIT: Reply.HELD}, judged)

            task = asyncio.create_task(write())
            await until(lambda: judged)
            task.cancel()
            await asyncio.sleep(0)
            proxy.release()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert ends == ["committed" if await tasks.exists("a") else "rolled back"]
            assert store.to_bytes("a") == b""
            assert tasks.store.current_transaction() is None

        run(main())

    def test_of_a_write_that_nobody_answers(self, run: Run, far: RedisStore, proxy: Proxy) -> None:
        """The task ends all the same, and the store goes on when the server does."""

        async def main() -> None:
            tasks, judged = AsyncStore(far), list[Reply]()
            proxy.judge = answering({COMMIT: Reply.HELD}, judged)
            task = asyncio.create_task(tasks.from_bytes("a", b""))
            await until(lambda: judged)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            proxy.release()
            await tasks.from_bytes("b", b"")
            assert await tasks.exists("b")

        run(main())

    @pytest.mark.parametrize("in_transaction", [False, True], ids=["write", "transaction"])
    def test_of_a_commit_whose_answer_is_late(
        self, run: Run, far: RedisStore, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, in_transaction: bool
    ) -> None:
        """The server is asked what has become of it, and the task ends when it has answered."""
        monkeypatch.setattr("latchstore.aio.greenlets.PATIENCE", TIMEOUT)

        async def main() -> None:
            tasks, judged = AsyncStore(far), list[Reply]()

            async def write() -> None:
                if in_transaction:
                    async with tasks.transaction() as tx:
                        await tx.from_bytes("a", b"")
                else:
                    await tasks.from_bytes("a", b"")

            proxy.judge = answering({COMMIT: Reply.HELD, RESOLVE: Reply.PASSED}, judged)
            task = asyncio.create_task(write())
            await until(lambda: judged)
            task.cancel()
            for _ in range(100):
                await asyncio.sleep(0)
            assert not task.done()
            proxy.release()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert judged == [Reply.HELD, Reply.PASSED]
            assert await tasks.exists("a")

        run(main())

    def test_of_many_anywhere(self, run: Run, store: RedisStore) -> None:
        """Each has added one to a number, or nothing, as its transaction can tell; none is stuck."""

        async def main() -> None:
            tasks, revisions = AsyncStore(store), list[int]()

            async def add(name: str) -> None:
                async with tasks.transaction() as tx:
                    try:
                        await tx.from_bytes(name, b"")
                        await tx.from_bytes(f"{name}/2", b"")
                        await tx.commit()
                    finally:
                        if tx.revision is not None:
                            revisions.append(tx.revision)

            adds = [asyncio.create_task(add(f"k{n}")) for n in range(60)]
            for number, each in enumerate(adds):
                for _ in range(number % 12):
                    await asyncio.sleep(0)
                each.cancel()
            await asyncio.gather(*adds, return_exceptions=True)
            assert len(await tasks.glob("k*")) == 2 * len(set(revisions))
            assert {await tasks.exists(f"k{n}") == await tasks.exists(f"k{n}/2") for n in range(60)} == {True}
            await tasks.from_bytes("n", b"1")
            assert await tasks.to_bytes("n") == b"1"

        run(main())

    @pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
    def test_a_loop_that_is_closed_in_the_middle(
        self, store: RedisStore, far: RedisStore, proxy: Proxy
    ) -> None:
        """Nothing is left open but the connection, of which asyncio warns: the store goes on."""

        async def write() -> None:
            async with AsyncStore(far).transaction() as tx:
                await tx.from_bytes("a", b"")
                await tx.exists("n")
                proxy.judge = lambda request: Reply.PASSED if proxy.held else Reply.HELD
                await tx.exists("b")

        coroutine = write()
        loop = asyncio.new_event_loop()
        task = loop.create_task(coroutine)
        loop.run_until_complete(asyncio.wait_for(until(lambda: proxy.held), TIMEOUT))
        loop.close()
        coroutine.close()
        del task, loop, coroutine
        proxy.release()
        assert not store.exists("a")
        far.from_bytes("b", b"")
        assert asyncio.run(AsyncStore(far).exists("b"))
        gc.collect()  # what asyncio warns of, it warns of here


class TestCaches:
    def test_calls(self, run: Run, store: RedisStore, redis_server: Server) -> None:
        cache = Cache[Any](store, max_entries=100, ttl=60)

        async def main() -> None:
            tasks, before, loads = AsyncCache(cache), connections(redis_server), list[str]()

            async def load(key: str) -> str:
                loads.append(key)
                await asyncio.sleep(0)
                return key.upper()

            found = await asyncio.gather(*(tasks.get_or_load("a", load) for _ in range(50)))
            assert (set(found), loads) == ({"A"}, ["a"])
            await tasks.set("b", 1)
            assert await tasks.add("b", 2) is False
            assert await tasks.touch("b", 10)
            assert await tasks.get_many(["a", "b", "c"]) == {"a": "A", "b": 1}
            assert await tasks.delete("b")
            assert not await tasks.contains("b")
            await tasks.set("c", 1, tags=["t"])
            assert await tasks.invalidate_tag("t") == 1
            await tasks.clear()
            assert await tasks.get("a", 0) == 0
            assert connections(redis_server) == before + 1

        run(main())

    def test_hits_of_a_near_cache(self, run: Run, store: RedisStore) -> None:
        """They await nothing, and end when the key is set, by a task as well as by another process."""
        cache = Cache[Any](store, max_entries=100, near=NearCache(staleness=TIMEOUT))

        async def main() -> None:
            tasks = AsyncCache(cache)
            await tasks.set("a", 1)
            assert await tasks.get("a") == 1
            await until(lambda: cache.get("a") == 1 and cache.stats()["near_hits"])
            # The copy may have been read before the log was applied up to the set; that drops it once more.
            await AsyncStore(store).flush(TIMEOUT)
            hits = cache.stats()["near_hits"]
            await until(lambda: cache.get("a") == 1 and cache.stats()["near_hits"] > hits)
            before = cache.stats()["near_hits"]
            get = tasks.get("a")
            with pytest.raises(StopIteration) as end:
                get.send(None)
            assert end.value.value == 1
            assert cache.stats()["near_hits"] == before + 1
            await tasks.set("a", 2)
            assert await tasks.get("a") == 2

        run(main())

    def test_conflicts_name_the_key(self, run: Run, store: RedisStore) -> None:
        async def main() -> None:
            tasks = AsyncStore(store)

            async def overtaken() -> None:
                async with tasks.transaction() as tx:
                    await tx.get("n")
                    await asyncio.create_task(tasks.from_bytes("n", b"1"))
                    await tx.from_bytes("a", b"")

            with pytest.raises(TransactionConflictError, match="'n'"):
                await overtaken()

        run(main())
