"""What others commit: who reads it, how much of it, and when that ends."""

from __future__ import annotations

import gc
import os
import pickle
import re
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis

from latchstore import (
    CompactedError,
    EventManager,
    EventsLost,
    RedisStore,
    StoreModificationEvent,
    StoreTransactionEndEvent,
    TransactionConflictError,
    TransactionInfo,
    Watch,
)
from latchstore.redis import log
from latchstore.redis.scripts import FOLLOW
from tests.contract.listeners import listen
from tests.contract.stores import TIMEOUT
from tests.fork.children import in_child, needs_fork
from tests.redis.proxy import Judge, Proxy, Reply
from tests.redis.servers import Server, preferred

#: More than one page.
MANY = 1_500


@pytest.fixture
def store(redis_server: Server, namespace: str) -> Iterator[RedisStore]:
    with RedisStore(redis_server.url, EventManager(), namespace=namespace, history=10) as store:
        yield store


@pytest.fixture
def beside(redis_server: Server, namespace: str) -> Iterator[RedisStore]:
    """A second store, as of another process."""
    with RedisStore(redis_server.url, EventManager(), namespace=namespace, history=10) as store:
        yield store


def followers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "latchstore-follower"]


class TestTheThread:
    def test_it_ends_when_the_store_is_closed(self, store: RedisStore, beside: RedisStore) -> None:
        watch = store.watch()
        (thread,) = followers()
        beside.from_bytes("a", b"")
        assert isinstance(watch.get(TIMEOUT), StoreModificationEvent)
        store.close()
        assert not thread.is_alive()

    def test_it_ends_when_nobody_has_the_store_any_more(self, redis_server: Server, namespace: str) -> None:
        store: RedisStore | None = RedisStore(redis_server.url, EventManager(), namespace=namespace)
        assert store is not None
        watch = store.watch()
        (thread,) = followers()
        gone = weakref.ref(store)
        del store, watch
        gc.collect()
        assert gone() is None
        thread.join(TIMEOUT)
        assert not thread.is_alive()

    def test_it_goes_on_with_another_connection(
        self, redis_server: Server, namespace: str, beside: RedisStore
    ) -> None:
        with (
            Proxy(redis_server.socket) as proxy,
            RedisStore(proxy.url, EventManager(), namespace=namespace) as store,
        ):
            watch = store.watch()
            for number in range(5):
                lost = [Reply.LOST] * 3
                proxy.judge = lambda request, lost=lost: lost.pop() if lost else Reply.PASSED  # type: ignore[misc]
                beside.from_bytes(f"k{number}", b"")
                event = watch.get(TIMEOUT)
                assert isinstance(event, StoreModificationEvent)
                assert event.key == f"k{number}"


class TestLostConnections:
    @pytest.fixture
    def proxy(self, redis_server: Server) -> Iterator[Proxy]:
        with Proxy(redis_server.socket) as proxy:
            yield proxy

    @pytest.fixture
    def far(self, proxy: Proxy, namespace: str) -> Iterator[RedisStore]:
        """A store beyond the proxy."""
        with RedisStore(proxy.url, EventManager(), namespace=namespace) as store:
            yield store

    @staticmethod
    def read(watch: Watch, beside: RedisStore, key: str) -> None:
        """Commit, and read it."""
        beside.from_bytes(key, b"")
        event = watch.get(TIMEOUT)
        assert isinstance(event, StoreModificationEvent)
        assert event.key == key

    def test_one_line_is_logged(
        self, proxy: Proxy, far: RedisStore, beside: RedisStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        """However many connections are lost one after the other until one works."""
        watch = far.watch()
        self.read(watch, beside, "first")
        for number in range(1, 4):
            lost = [Reply.LOST] * number
            proxy.judge = losing_reads(lost)
            beside.from_bytes("lost", b"")
            assert isinstance(watch.get(TIMEOUT), StoreModificationEvent)
            while lost:
                self.read(watch, beside, "again")
            logged = len(caplog.records)
            while len(caplog.records) == logged:
                self.read(watch, beside, "a")
            assert len(caplog.records) == number
        for record in caplog.records:
            assert record.levelname == "WARNING"
            assert record.exc_info is None
            assert re.fullmatch(r".*: the connection .* was lost for \d+\.\d{3} s: .+", record.getMessage())

    def test_a_server_that_is_away(self, caplog: pytest.LogCaptureFixture) -> None:
        """No line has a traceback, and the last one tells how long it was."""
        with (
            Server(preferred(), "--appendonly", "yes", "--appendfsync", "always") as server,
            RedisStore(server.url, EventManager(), namespace="n") as store,
        ):
            watch = store.watch()
            self.read(watch, store, "first")
            server.kill()
            while not caplog.records:
                with suppress(ConnectionError):
                    store.exists("a")
            server.start()
            while "was lost for" not in caplog.messages[-1]:
                self.read(watch, store, "a")
            assert 1 <= len(caplog.records) <= 2
            assert not any(record.exc_info for record in caplog.records)

    def test_a_command_that_is_refused(
        self, redis_server: Server, namespace: str, store: RedisStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Without XREAD the thread looks now and then."""
        with redis.Redis.from_url(redis_server.url) as client:
            client.execute_command("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", "-xread")
            try:
                with (
                    RedisStore(
                        redis_server.url,
                        EventManager(),
                        namespace=namespace,
                        username="app",
                        password="secret",
                    ) as refused,
                    refused.watch() as watch,
                ):
                    for number in range(8):
                        self.read(watch, store, f"k{number}")
            finally:
                client.execute_command("ACL", "DELUSER", "app")
        assert not any(record.exc_info for record in caplog.records)


def losing_reads(lost: list[Reply]) -> Judge:
    """Return a judge of the answers to XREAD, one after the other."""
    return lambda request: lost.pop() if lost and b"XREAD" in request else Reply.PASSED


class TestWhatIsRead:
    def test_nothing_while_nobody_listens(
        self, redis_server: Server, namespace: str, beside: RedisStore
    ) -> None:
        asked = []

        def judge(request: bytes) -> Reply:
            if FOLLOW.digest in request or b"XREAD" in request or b"XRANGE" in request:
                asked.append(request)
            return Reply.PASSED

        with (
            Proxy(redis_server.socket, judge) as proxy,
            RedisStore(proxy.url, EventManager(), namespace=namespace) as store,
        ):
            store.from_bytes("a", b"")
            beside.from_bytes("b", b"")
            store.flush()
            assert not asked
            heard = listen(store, StoreModificationEvent)
            beside.from_bytes("c", b"")
            store.flush()
            assert asked
            assert [(event.revision, event.key) for event in heard] == [(3, "c")]

    def test_what_nobody_reads_is_not_decoded(
        self, store: RedisStore, beside: RedisStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        decoded: list[bytes] = []
        unpack = log.raw_changes

        def noted(packed: bytes) -> Iterator[tuple[Any, ...]]:
            decoded.append(packed)
            return unpack(packed)

        monkeypatch.setattr(log, "raw_changes", noted)
        ends = listen(store, StoreTransactionEndEvent)
        beside.from_bytes("a", b"")
        with store.transaction():
            store.from_bytes("b", b"")
        store.flush()
        assert [end.state for end in ends] == ["done"]
        assert not decoded
        with store.watch() as watch:
            beside.from_bytes("c", b"")
            assert isinstance(watch.get(TIMEOUT), StoreModificationEvent)
        assert len(decoded) == 1

    def test_a_process_that_was_stopped_for_too_long(self, redis_server: Server, namespace: str) -> None:
        """Its listeners were busy: what the log has no more is a gap to watches, nothing to listeners."""
        going_on = threading.Event()
        heard: list[int] = []

        def listener(event: StoreModificationEvent) -> None:
            assert event.revision is not None
            heard.append(event.revision)
            assert going_on.wait(TIMEOUT)

        with (
            RedisStore(
                redis_server.url, EventManager(), namespace=namespace, history=10, max_pending_events=1
            ) as store,
            RedisStore(redis_server.url, EventManager(), namespace=namespace, history=10) as beside,
        ):
            store.event_manager.connect(StoreModificationEvent, listener)
            watch = store.watch()
            commits = 1_000
            for number in range(commits):
                beside.from_bytes(f"k{number}", b"x" * 100)
            going_on.set()
            store.flush()
            seen: list[int] = []
            gaps = 0
            while not seen or seen[-1] < commits:
                event = watch.get(TIMEOUT)
                if isinstance(event, EventsLost):
                    assert event.first_revision == len(seen) + 1
                    seen = list(range(1, event.last_revision + 1))
                    gaps += 1
                else:
                    assert event.revision == len(seen) + 1
                    seen.append(event.revision)
            assert gaps
            assert heard == sorted(set(heard))
            assert len(heard) < commits
            assert heard[-1] == commits


def test_a_history_that_does_not_reach_back(store: RedisStore, beside: RedisStore) -> None:
    """The server keeps ten commits at the least, and some more."""
    for number in range(500):
        beside.from_bytes(f"k{number % 10}", b"x" * 100)
    with pytest.raises(CompactedError) as caught:
        store.watch(since=1)
    oldest = caught.value.oldest_revision
    assert 100 < oldest <= 491
    for since in (oldest - 1, 490):
        with store.watch(since=since) as watch:
            for revision in range(since + 1, 501):
                event = watch.get(TIMEOUT)
                assert isinstance(event, StoreModificationEvent)
                assert event.revision == revision
    with pytest.raises(CompactedError):
        store.watch(since=oldest - 2)


def test_a_snapshot_to_which_the_history_does_not_reach_back(store: RedisStore, beside: RedisStore) -> None:
    store.from_bytes("a", b"1")
    with store.snapshot() as snapshot:
        for number in range(500):
            beside.from_bytes(f"k{number % 10}", b"x" * 100)
        reads: list[Callable[[], object]] = [
            lambda: snapshot.to_bytes("a"),
            lambda: list(snapshot.multiget(["a"])),
            lambda: list(snapshot.query_keys()),
            lambda: list(snapshot.query(kind="a")),
        ]
        for read in reads:
            with pytest.raises(CompactedError, match=r"snapshot of revision 1>: .* revision \d+; .* history"):
                read()
        with pytest.raises(CompactedError) as caught:
            snapshot.to_bytes("a")
        with pytest.raises(CompactedError) as watched:
            store.watch(since=snapshot.revision)
    error = caught.value
    assert (error.since, error.oldest_revision) == (1, watched.value.oldest_revision)
    assert error.had_no_effect
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.since, copy.oldest_revision, str(copy)) == (1, error.oldest_revision, str(error))


#: Reads of several pages, without a snapshot.
LONG: dict[str, Callable[[RedisStore], Iterable[Any]]] = {
    "keys": lambda store: store.query_keys(),
    "candidates": lambda store: store.query_keys(kind="a"),
    "prefix": lambda store: store.glob("k*"),
    "several": lambda store: store.multiget_metadata([f"k{number:04d}" for number in range(MANY)]),
}


@pytest.mark.parametrize("read", LONG.values(), ids=LONG)
@pytest.mark.parametrize("times", [2, 100])
def test_a_long_read_begins_again(
    redis_server: Server,
    namespace: str,
    beside: RedisStore,
    read: Callable[[RedisStore], Iterable[Any]],
    times: int,
) -> None:
    """Others commit more between two pages than the history has, some times or always."""
    keys = [f"k{number:04d}" for number in range(MANY)]
    with (
        Proxy(redis_server.socket) as proxy,
        RedisStore(proxy.url, EventManager(), namespace=namespace) as store,
    ):
        beside.multiset(keys, [(b"", {"kind": "a"})] * MANY)
        expected = len(list(read(store)))
        asked = 0

        def judge(request: bytes) -> Reply:
            nonlocal asked
            if b"EVALSHA" in request:
                asked += 1
                if asked <= times:
                    for _ in range(300):
                        beside.from_bytes("k0000", b"")
            return Reply.PASSED

        proxy.judge = judge
        if times == 2:
            assert len(list(read(store))) == expected == MANY
        else:
            with pytest.raises(CompactedError, match="history"):
                list(read(store))
        assert 2 < asked < 20


def test_an_optimistic_transaction_to_which_it_does_not_reach_back(
    store: RedisStore, beside: RedisStore
) -> None:
    store.from_bytes("a", b"1")
    with (  # noqa: PT012
        pytest.raises(TransactionConflictError, match="history"),
        store.transaction(optimistic=True),
    ):
        store.from_bytes("a", store.to_bytes("a") + b"2")
        for number in range(500):
            beside.from_bytes(f"k{number % 10}", b"x" * 100)
    assert store.to_bytes("a") == b"1"


@needs_fork
def test_transactions_of_other_processes_are_named(store: RedisStore, namespace: str) -> None:
    heard = listen(store, StoreModificationEvent)

    def child() -> None:
        with store.transaction("in the child"):
            store.from_bytes("a", str(os.getpid()).encode())

    assert in_child(child) == ""
    store.flush()
    (event,) = heard
    assert isinstance(event.transaction, TransactionInfo)
    assert event.transaction.notes == "in the child"
    assert event.transaction.thread == f"MainThread of process {store.to_bytes('a').decode()}"
