"""The lease of the one writer: processes that are killed, and blocks that last longer than it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from latchstore import EventManager, LockTimeoutError, RedisStore, TransactionConflictError
from tests.contract.stores import TIMEOUT
from tests.fork.children import needs_fork
from tests.redis.servers import Server, preferred


@pytest.fixture
def open_store(redis_server: Server, namespace: str) -> Iterator[Callable[..., RedisStore]]:
    """What opens a store that is closed at the end of the test."""
    stores: list[RedisStore] = []

    def open_store(**options: Any) -> RedisStore:
        store = RedisStore(redis_server.url, EventManager(), namespace=namespace, **options)
        stores.append(store)
        return store

    yield open_store
    for store in stores:
        store.close()


@pytest.fixture
def client(redis_server: Server) -> Iterator[redis.Redis]:
    """What looks at the server's own keys."""
    with redis.Redis(unix_socket_path=str(redis_server.socket)) as client:
        yield client


@needs_fork
def test_a_process_that_is_killed_in_a_block(open_store: Callable[..., RedisStore]) -> None:
    """The next writer goes on when its lease is over; until then the error names it."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            signal.alarm(round(TIMEOUT))
            store = open_store(lease=0.5)
            with store.transaction("the killed one"):
                store.from_bytes("a", b"")
                os.write(write, b"x")
                signal.pause()
        finally:
            os._exit(1)
    os.close(write)
    assert os.read(read, 1) == b"x"
    os.close(read)
    store = open_store(lock_timeout=TIMEOUT)
    with (
        pytest.raises(LockTimeoutError, match=rf"process {pid} of .*'MainThread' \(.*'the killed one'"),
        store.transaction(timeout=0),
    ):
        pass
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    store.from_bytes("b", b"")
    with store.transaction():
        store.from_bytes("c", b"")
    assert sorted(store.query_keys()) == ["b", "c"]


def test_a_lease_that_is_over_in_a_block(
    open_store: Callable[..., RedisStore], client: redis.Redis, namespace: str
) -> None:
    """As if the process had been stopped meanwhile: nothing is changed, and others may have written."""
    store, beside = open_store(), open_store()
    with (  # noqa: PT012
        pytest.raises(TransactionConflictError, match="its lease of 10 s expired") as caught,
        store.transaction("slow"),
    ):
        store.from_bytes("a", b"slow")
        assert client.delete(f"{{{namespace}}}:w") == 1
        beside.from_bytes("a", b"other")
    assert caught.value.had_no_effect
    assert store.to_bytes("a") == b"other"
    # Another one has the lease by then.
    with (  # noqa: PT012
        pytest.raises(TransactionConflictError, match="its lease of 10 s expired"),
        store.transaction("slow"),
    ):
        store.from_bytes("a", b"slow")
        assert client.delete(f"{{{namespace}}}:w") == 1
        with beside.transaction("quick"):
            beside.from_bytes("a", b"other")
    assert store.to_bytes("a") == b"other"
    store.from_bytes("a", b"again")
    assert beside.to_bytes("a") == b"again"


def test_a_lease_of_another_is_left_to_it(
    open_store: Callable[..., RedisStore], client: redis.Redis, namespace: str
) -> None:
    """A block whose lease was over gives back its own alone."""
    store, beside, third = open_store(), open_store(), open_store(lock_timeout=0)
    slow = store.transaction("slow")
    slow.__enter__()
    store.from_bytes("a", b"slow")
    client.delete(f"{{{namespace}}}:w")
    with beside.transaction("the next one"):
        beside.from_bytes("a", b"other")
        with pytest.raises(TransactionConflictError):
            slow.__exit__(None, None, None)
        with pytest.raises(LockTimeoutError, match="the next one"):
            third.from_bytes("a", b"third")
    assert store.to_bytes("a") == b"other"


def test_a_lease_is_renewed_while_the_block_is_open(
    open_store: Callable[..., RedisStore], client: redis.Redis, namespace: str
) -> None:
    store = open_store(lease=1.5)
    key = f"{{{namespace}}}:w"
    with store.transaction():
        store.from_bytes("a", b"")
        renewed, last = 0, client.pttl(key)
        while renewed < 2:
            left = client.pttl(key)
            assert left > 0
            renewed += left > last
            last = left
    assert store.to_bytes("a") == b""
    assert not client.exists(key)


def test_a_renewal_that_fails_is_tried_again_soon() -> None:
    """Twice by the third part of the lease's time it would be too late."""
    with (
        Server(preferred()) as server,
        redis.Redis.from_url(server.url) as client,
        RedisStore(server.url, EventManager(), namespace="n", lease=3) as store,
    ):

        def figures(command: str) -> Any:
            return client.info("commandstats")[f"cmdstat_{command}"]

        with store.transaction():
            store.from_bytes("a", b"")
            client.execute_command("ACL", "SETUSER", "default", "-evalsha")
            while figures("evalsha")["rejected_calls"] < 2:
                pass
            client.execute_command("ACL", "SETUSER", "default", "+evalsha")
            last = client.pttl("{n}:w")
            while (left := client.pttl("{n}:w")) <= last:
                assert left > 0
                last = left
        assert store.to_bytes("a") == b""
