"""Replies that are lost on their way: each commit is made once; where nobody can tell, the error says so."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from types import FrameType

import pytest

from latchstore import (
    EventManager,
    OutcomeUnknownError,
    RedisStore,
    StoreModificationEvent,
    StoreTransactionEndEvent,
    WorkQueue,
)
from latchstore.engine.edits import SetData
from latchstore.redis.client import Server as Client
from latchstore.redis.committing import Sent, arguments_before_edits, outcome, send
from latchstore.redis.edits import arguments_of
from latchstore.redis.scripts import COMMIT, LEASE, READ, RESOLVE, Script
from latchstore.redis.sessions import Sessions
from latchstore.redis.view import NO_PLACE
from tests.contract.listeners import listen
from tests.contract.stores import TIMEOUT
from tests.redis.proxy import Judge, Proxy, Reply, share
from tests.redis.redis_stores import ONE_SERVER_EACH
from tests.redis.servers import Server, preferred
from tests.schedules import run_threads

pytestmark = [pytest.mark.each_server, ONE_SERVER_EACH]


@pytest.fixture
def proxy(redis_server: Server) -> Iterator[Proxy]:
    """A proxy before the server."""
    with Proxy(redis_server.socket) as proxy:
        yield proxy


@pytest.fixture
def near(redis_server: Server, namespace: str) -> Iterator[RedisStore]:
    """A store whose replies are not lost."""
    with RedisStore(redis_server.url, EventManager(), namespace=namespace) as store:
        # The server has the scripts from here on, so each request names its own by the digest.
        store.from_bytes("n", b"0")
        with store.transaction():
            store.from_bytes("n", b"0")
        yield store


@pytest.fixture
def far(proxy: Proxy, near: RedisStore, namespace: str) -> Iterator[RedisStore]:
    """A store beyond the proxy."""
    with RedisStore(proxy.url, EventManager(), namespace=namespace, lock_timeout=0.3) as store:
        yield store


def losing(count: int, *scripts: Script, kind: Reply = Reply.LOST) -> Judge:
    """Return a judge that loses so many replies to some scripts."""
    left = [None] * count

    def judge(request: bytes) -> Reply:
        if left and is_of(request, *scripts):
            left.pop()
            return kind
        return Reply.PASSED

    return judge


def is_of(request: bytes, *scripts: Script) -> bool:
    """Tell whether a request is for one of some scripts."""
    return any(script.digest in request for script in scripts)


def add_one(store: RedisStore) -> None:
    """Increment a number: done twice, it would be seen."""
    store.from_bytes("n", b"%d" % (int(store.to_bytes("n")) + 1))


def add_one_in_a_block(store: RedisStore) -> None:
    with store.transaction("adding"):
        add_one(store)


def add_one_unlocked(store: RedisStore) -> None:
    for attempt in store.attempts("adding"):
        with attempt:
            add_one(store)


Add = Callable[[RedisStore], None]


def add_all(store: RedisStore, add: Add, count: int) -> None:
    for _ in range(count):
        add(store)


ADDS = pytest.mark.parametrize("add", [add_one, add_one_in_a_block, add_one_unlocked])


class TestOnce:
    @ADDS
    @pytest.mark.parametrize(
        "lost", [(COMMIT,), (COMMIT, RESOLVE), (LEASE,)], ids=["commit", "twice", "lease"]
    )
    def test_the_commit_is_made_once(
        self, near: RedisStore, far: RedisStore, proxy: Proxy, add: Add, lost: tuple[Script, ...]
    ) -> None:
        revision = near.info()["revision"]
        proxy.judge = losing(len(lost), *lost)
        add(far)
        assert proxy.lost == len(lost) or lost == (LEASE,)
        assert near.to_bytes("n") == b"1"
        assert near.info()["revision"] == revision + 1

    @pytest.mark.parametrize("add", [add_one_in_a_block, add_one_unlocked])
    def test_threads_that_count_while_replies_are_lost(
        self, near: RedisStore, proxy: Proxy, namespace: str, add: Add
    ) -> None:
        revision, threads, each = near.info()["revision"], 4, 10
        with RedisStore(proxy.url, EventManager(), namespace=namespace, lock_timeout=TIMEOUT) as far:
            chance = share(0.3, seed=26)
            proxy.judge = lambda request: chance(request) if is_of(request, COMMIT, RESOLVE) else Reply.PASSED
            run_threads([partial(add_all, far, add, each)] * threads)
            proxy.judge = losing(0)
        assert proxy.lost > threads
        assert near.to_bytes("n") == b"%d" % (threads * each)
        assert near.info()["revision"] == revision + threads * each

    def test_a_reply_that_is_held_up(self, near: RedisStore, proxy: Proxy, namespace: str) -> None:
        """After a timeout of the client's own, the server is asked by another connection."""
        with RedisStore(proxy.url, EventManager(), namespace=namespace, socket_timeout=0.1) as far:
            proxy.judge = losing(1, COMMIT, kind=Reply.HELD)
            add_one(far)
            assert proxy.held == 1
            proxy.release()
            assert [far.to_bytes("n"), far.to_bytes("n")] == [b"1", b"1"]

    @pytest.mark.parametrize("add", [add_one, add_one_in_a_block])
    @pytest.mark.parametrize("late", [0, 2 * 86_400], ids=["in time", "two days late"])
    def test_a_store_that_is_opened_meanwhile(
        self,
        near: RedisStore,
        far: RedisStore,
        proxy: Proxy,
        redis_server: Server,
        namespace: str,
        monkeypatch: pytest.MonkeyPatch,
        add: Add,
        late: float,
    ) -> None:
        """It forgets what old sessions were answered, but not this one's, whatever the clocks are."""
        revision, actual = near.info()["revision"], time.time
        monkeypatch.setattr(time, "time", lambda: actual() - late)
        left = [Reply.LOST, Reply.LOST]

        def judge(request: bytes) -> Reply:
            if left and is_of(request, COMMIT, RESOLVE):
                with RedisStore(redis_server.url, EventManager(), namespace=namespace):
                    return left.pop()
            return Reply.PASSED

        proxy.judge = judge
        add(far)
        assert not left
        assert near.to_bytes("n") == b"1"
        assert near.info()["revision"] == revision + 1

    def test_reads_are_made_again(self, near: RedisStore, far: RedisStore, proxy: Proxy) -> None:
        far.to_bytes("n")
        proxy.judge = losing(1, READ)
        assert [value.data.read() for value in far.multiget(["n"])] == [b"0"]
        assert proxy.lost == 1
        lost = [Reply.LOST]
        proxy.judge = lambda request: lost.pop() if lost else Reply.PASSED
        assert far.to_bytes("n") == b"0"
        assert proxy.lost == 2

    def test_reads_that_nobody_answers(self, far: RedisStore, proxy: Proxy) -> None:
        proxy.judge = lambda request: Reply.LOST
        with pytest.raises(ConnectionError, match="latch-"):
            far.to_bytes("n")
        with pytest.raises(ConnectionError, match="latch-"):
            far.multiget(["n"])


class TestUnknown:
    def test_a_commit_of_which_nobody_can_tell(self, near: RedisStore, far: RedisStore, proxy: Proxy) -> None:
        proxy.judge = losing(10**6, COMMIT, RESOLVE)
        with pytest.raises(OutcomeUnknownError, match=r"from_bytes: .* it may have been") as caught:
            add_one(far)
        assert not caught.value.had_no_effect
        assert near.to_bytes("n") == b"1"
        proxy.judge = losing(0)
        add_one(far)
        assert near.to_bytes("n") == b"2"

    @pytest.mark.parametrize("add", [add_one_in_a_block, add_one_unlocked])
    def test_the_end_of_a_transaction_is_heard_when_it_is_known(
        self, near: RedisStore, far: RedisStore, proxy: Proxy, add: Add
    ) -> None:
        ends: list[str] = []
        done = threading.Event()

        def note(event: StoreTransactionEndEvent) -> None:
            ends.append(event.state)
            done.set()

        far.event_manager.connect(StoreTransactionEndEvent, note)
        proxy.judge = losing(10**6, COMMIT, RESOLVE)
        with pytest.raises(OutcomeUnknownError, match="adding"):
            add(far)
        proxy.judge = losing(0)
        far.flush()
        assert done.wait(TIMEOUT)
        assert ends == ["done"]
        # Nobody waits for it.
        add(far)
        add(near)
        assert near.to_bytes("n") == b"3"
        far.flush()
        assert ends == ["done", "done"]

    @pytest.mark.parametrize("follows", [True, False])
    def test_one_that_was_not_made_is_forgotten(
        self, near: RedisStore, far: RedisStore, proxy: Proxy, follows: bool
    ) -> None:
        """Its thread is not kept when the log has another commit of its revision, or nobody reads the log."""
        ends = listen(far, StoreTransactionEndEvent) if follows else []
        raised: list[str] = []

        def block() -> None:
            try:
                with far.transaction("adding", optimistic=True):
                    add_one(far)
                    near.from_bytes("other", b"")
                    proxy.judge = losing(10**6, COMMIT, RESOLVE)
            except OutcomeUnknownError as error:
                raised.append(str(error))

        thread = threading.Thread(target=block)
        thread.start()
        thread.join(TIMEOUT)
        assert len(raised) == 1
        proxy.judge = losing(0)
        near.from_bytes("another", b"")
        far.flush()
        reference = weakref.ref(thread)
        del thread
        gc.collect()
        assert reference() is None
        assert near.to_bytes("n") == b"0"
        assert not ends

    def test_what_was_not_sent_is_known(
        self, caplog: pytest.LogCaptureFixture, redis_server: Server, namespace: str
    ) -> None:
        """A transaction whose commit could not be sent has failed, and its end is an event."""
        with (
            Proxy(redis_server.socket) as proxy,
            RedisStore(proxy.url, EventManager(), namespace=namespace) as far,
        ):
            ends = listen(far, StoreTransactionEndEvent)
            with pytest.raises(ConnectionError), far.transaction("adding", optimistic=True):  # noqa: PT012
                far.from_bytes("n", b"1")
                proxy.socket.rename(proxy.socket.with_name("away"))
                proxy.judge = lambda request: Reply.LOST
                with suppress(ConnectionError):
                    far.exists("n-1")
            proxy.judge = losing(0)
            proxy.socket.with_name("away").rename(proxy.socket)
            far.flush()
            assert [end.state for end in ends] == ["failed"]
            assert "may have been" not in caplog.text
            assert not far.exists("n")

    def test_a_server_that_is_gone(self) -> None:
        """A command that cannot be sent has had no effect; what was sent may have."""
        with Server(preferred()) as server:
            store = RedisStore(server.url, EventManager(), namespace="n", lock_timeout=0.1)
            store.from_bytes("n", b"0")
            server.kill()
            for call in (
                add_one,
                add_one_in_a_block,
                add_one_unlocked,
                lambda store: store.from_bytes("n", b"1"),
            ):
                with pytest.raises(ConnectionError):
                    call(store)
            assert store.current_transaction() is None
            server.start()
            store.from_bytes("n", b"2")
            assert store.to_bytes("n") == b"2"
            store.close()

    def test_a_server_that_stands_still(self) -> None:
        """No call waits for ever; what was sent may be done when the server goes on."""
        with (
            Server(preferred()) as server,
            RedisStore(
                server.url, EventManager(), namespace="n", lock_timeout=0.1, socket_timeout=0.2
            ) as store,
        ):
            store.from_bytes("n", b"0")
            os.kill(server.pid, signal.SIGSTOP)
            try:
                with pytest.raises(OutcomeUnknownError, match="from_bytes"):
                    store.from_bytes("n", b"1")
                for add in (add_one, add_one_in_a_block, add_one_unlocked):
                    with pytest.raises(TimeoutError):
                        add(store)
            finally:
                os.kill(server.pid, signal.SIGCONT)
            before = int(store.to_bytes("n"))
            assert before in (0, 1)
            for add in (add_one, add_one_in_a_block, add_one_unlocked):
                add(store)
            assert int(store.to_bytes("n")) == before + 3


class Struck(BaseException):
    """What a signal raises."""


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals of threads")
class TestStruckWhileWaiting:
    """A signal whose handler raises while the answer to a commit has not come."""

    @pytest.fixture
    def strike(self) -> Iterator[Callable[[], None]]:
        """What sends such a signal to the thread of the test."""

        def raise_it(number: int, frame: FrameType | None) -> None:
            raise Struck

        before = signal.signal(signal.SIGUSR1, raise_it)
        yield partial(signal.pthread_kill, threading.get_ident(), signal.SIGUSR1)
        signal.signal(signal.SIGUSR1, before)

    @ADDS
    def test_the_answer_is_nobodys_and_the_commit_is_made_once(
        self, near: RedisStore, far: RedisStore, proxy: Proxy, add: Add, strike: Callable[[], None]
    ) -> None:
        ends = listen(far, StoreTransactionEndEvent)
        changes = listen(far, StoreModificationEvent)
        struck: list[bytes] = []

        def judge(request: bytes) -> Reply:
            if not is_of(request, COMMIT) or struck:
                return Reply.PASSED
            struck.append(request)
            strike()
            return Reply.HELD

        proxy.judge = judge
        with pytest.raises(Struck):
            add(far)
        proxy.release()
        assert [far.to_bytes("n"), near.to_bytes("n")] == [b"1", b"1"]
        far.flush()
        assert [event.state for event in ends] == ["done"] * (add is not add_one)
        add(far)
        assert near.to_bytes("n") == b"2"
        far.flush()
        assert [event.state for event in ends] == ["done", "done"] * (add is not add_one)
        assert [event.key for event in changes] == ["n", "n"]

    def test_a_job_that_was_claimed_is_given_back(
        self, near: RedisStore, far: RedisStore, proxy: Proxy, strike: Callable[[], None]
    ) -> None:
        """Though its worker has not got the answer; nobody waits for the end of the lease."""
        queue, beside = WorkQueue[str](far, "jobs"), WorkQueue[str](near, "jobs")
        beside.put("a")
        beside.put("b")
        struck: list[bytes] = []

        def judge(request: bytes) -> Reply:
            if not is_of(request, COMMIT) or struck:
                return Reply.PASSED
            struck.append(request)
            strike()
            return Reply.HELD

        proxy.judge = judge
        with pytest.raises(Struck):
            queue.claim(0)
        assert struck
        proxy.release()
        jobs = [beside.claim(0), beside.claim(0)]
        assert sorted(job.payload for job in jobs if job is not None) == ["a", "b"]


class TestNever:
    """A command that is on its way when the server is asked about it is not done later."""

    @pytest.fixture
    def client(self, redis_server: Server, namespace: str) -> Client:
        return Client(redis_server.url, namespace, {})

    def test_a_late_command_does_nothing(self, near: RedisStore, client: Client) -> None:
        session = Sessions().take()
        session.number += 1
        sent = Sent(session)
        edits = arguments_of([("n", SetData(b"late"))], ())
        arguments = (*arguments_before_edits(sent, b"", NO_PLACE, b"0", 100, b"", b""), *edits)
        assert outcome(client, sent, 0, "late") == 0
        answer = send(client, sent, COMMIT, arguments, 0, "late")
        assert answer[0] not in (b"OK", b"SAME")
        assert outcome(client, sent, 0, "late") == 0
        assert near.to_bytes("n") == b"0"
