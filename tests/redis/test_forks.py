"""Forks while threads are in a call: the child has its own connections and sessions, the parent goes on."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
import redis

from latchstore import EventManager, RedisStore, StoreModificationEvent
from latchstore.redis.scripts import COMMIT
from tests.contract.stores import TIMEOUT
from tests.fork.children import in_child, needs_fork
from tests.redis.proxy import Proxy, Reply
from tests.redis.servers import Server

pytestmark = needs_fork

FORKS = int(os.environ.get("LATCHSTORE_FORKS", "10"))


@pytest.fixture
def store(redis_server: Server, namespace: str) -> Iterator[RedisStore]:
    with RedisStore(redis_server.url, EventManager(), namespace=namespace) as store:
        store.from_bytes("n", b"0")
        yield store


def test_a_child_has_its_own_sessions(store: RedisStore, redis_server: Server, namespace: str) -> None:
    """With those of the parent, the server would take a commit of the child for one that it has made."""
    for number in range(3):
        assert in_child(lambda number=number: store.from_bytes(f"child{number}", b"")) == ""  # type: ignore[misc]
        store.from_bytes(f"parent{number}", b"")
    names = ["n", *[f"{who}{number}" for who in ("child", "parent") for number in range(3)]]
    assert sorted(store.query_keys()) == sorted(names)
    with redis.Redis(unix_socket_path=str(redis_server.socket)) as client:
        commits = client.xrange(f"{{{namespace}}}:log")
    sessions = [fields[b"i"].rpartition(b":")[0] for _, fields in commits]
    assert len(sessions) == 7
    assert len(set(sessions)) == 4
    assert len({session.split(b".")[0] for session in sessions}) == 4


def test_a_fork_while_a_thread_waits_for_an_answer(
    store: RedisStore, redis_server: Server, namespace: str
) -> None:
    held = threading.Event()

    def judge(request: bytes) -> Reply:
        if COMMIT.digest in request and not held.is_set():
            held.set()
            return Reply.HELD
        return Reply.PASSED

    with (
        Proxy(redis_server.socket) as proxy,
        RedisStore(proxy.url, EventManager(), namespace=namespace) as far,
    ):
        far.from_bytes("n", b"1")
        far.event_manager.connect(StoreModificationEvent, lambda event: None)
        proxy.judge = judge
        thread = threading.Thread(target=far.from_bytes, args=("a", b"parent"))
        thread.start()
        assert held.wait(TIMEOUT)

        def child() -> None:
            assert far.to_bytes("a") == b"parent"
            far.from_bytes("b", b"child")
            with far.transaction("child"):
                far.from_bytes("c", far.to_bytes("b"))
            far.flush()
            far.close()

        assert in_child(child) == ""
        proxy.release()
        thread.join(TIMEOUT)
        assert not thread.is_alive()
        assert [far.to_bytes(key) for key in "abc"] == [b"parent", b"child", b"child"]
        far.from_bytes("d", b"parent")
        assert store.to_bytes("d") == b"parent"


def test_children_beside_busy_threads(store: RedisStore) -> None:
    """Each call of the parent and of its children is made once."""
    over, counts = threading.Event(), [0, 0]

    def count(number: int) -> None:
        while not over.is_set():
            with store.transaction(f"thread {number}"):
                store.from_bytes("n", b"%d" % (int(store.to_bytes("n")) + 1))
            counts[number] += 1

    def child() -> None:
        for _ in range(3):
            with store.transaction("child"):
                store.from_bytes("n", b"%d" % (int(store.to_bytes("n")) + 1))
            assert int(store.to_bytes("n")) > 0

    threads = [threading.Thread(target=count, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        told = [in_child(child) for _ in range(FORKS)]
    finally:
        over.set()
        for thread in threads:
            thread.join(TIMEOUT)
    assert told == [""] * FORKS
    assert int(store.to_bytes("n")) == sum(counts) + 3 * FORKS
    assert store.info()["revision"] == 1 + sum(counts) + 3 * FORKS
