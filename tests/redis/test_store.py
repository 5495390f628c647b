"""What a `RedisStore` takes, which servers it refuses, and what it does if a server has no memory left."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from latchstore import (
    EventManager,
    FlushTimeoutError,
    Ordered,
    RedisStore,
    StoreClosedError,
    StoreError,
    StoreFormatError,
    StoreSetEvent,
)
from latchstore.redis.scripts import COMMIT
from tests.contract.listeners import listen
from tests.contract.stores import TIMEOUT
from tests.redis.proxy import Proxy, Reply
from tests.redis.servers import Server


@pytest.fixture
def store(redis_server: Server, namespace: str) -> Iterator[RedisStore]:
    with RedisStore(redis_server.url, EventManager(), namespace=namespace) as store:
        yield store


@pytest.fixture
def client(redis_server: Server) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url) as client:
        yield client


class TestArguments:
    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("retry", "repeats commands itself"),
            ("retry_on_timeout", "repeats commands itself"),
            ("decode_responses", "are bytes"),
            ("protocol", "RESP2"),
            ("encoding", "UTF-8"),
        ],
    )
    def test_options_that_are_the_stores_own(self, redis_server: Server, name: str, reason: str) -> None:
        options: dict[str, Any] = {name: None}
        with pytest.raises(TypeError, match=f"{name} cannot be set: .*{reason}"):
            RedisStore(redis_server.url, EventManager(), namespace="a", **options)

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"namespace": 1}, TypeError, "namespace must be a str, got int 1"),
            ({"namespace": ""}, ValueError, "namespace must be a non-empty string"),
            ({"namespace": "a{b}"}, ValueError, "without braces"),
            ({"namespace": "a", "lease": 0}, ValueError, "lease must be more than 0"),
            ({"namespace": "a", "lease": None}, TypeError, "lease must be a number of seconds, got None"),
            ({"namespace": "a", "lock_timeout": None}, TypeError, "lock_timeout must be a number"),
            ({"namespace": "a", "history": 0}, ValueError, "history"),
            ({"namespace": "a", "indexes": [1]}, TypeError, r"indexes\[0\]"),
            ({"namespace": "a", "leese": 1}, TypeError, r"^RedisStore\(\) has no .* 'leese', .* 'lease'\?$"),
        ],
    )
    def test_wrong_ones(
        self, redis_server: Server, arguments: dict[str, Any], error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            RedisStore(redis_server.url, EventManager(), **arguments)

    @pytest.mark.parametrize("url", [None, 1, b"redis://localhost"])
    def test_what_is_no_url(self, url: Any) -> None:
        with pytest.raises(TypeError, match="url must be a str or a client"):
            RedisStore(url, EventManager(), namespace="a")

    def test_a_client_takes_no_options(self, client: redis.Redis) -> None:
        with pytest.raises(TypeError, match=r"accepts no further options: .*, got db"):
            RedisStore(client, EventManager(), namespace="a", db=1)

    def test_a_server_that_is_not_there(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        path = tmp_path_factory.mktemp("no") / "socket"
        with pytest.raises(ConnectionError, match="socket"):
            RedisStore(f"unix://{path}", EventManager(), namespace="a")

    def test_its_name_shows_where_it_is(self, store: RedisStore, namespace: str) -> None:
        assert repr(store).startswith(f"<RedisStore {{{namespace}}} on unix:///")


class TestRefusedServers:
    def test_one_that_evicts_keys(self, redis_server: Server) -> None:
        with (
            Server(redis_server.kind, "--maxmemory-policy", "allkeys-lru") as server,
            pytest.raises(StoreError, match=r"maxmemory-policy allkeys-lru\).* CONFIG SET"),
        ):
            RedisStore(server.url, EventManager(), namespace="a")

    def test_a_replica(self, redis_server: Server) -> None:
        with (
            Server(redis_server.kind, "--replicaof", "127.0.0.1 1") as server,
            pytest.raises(StoreError, match="is a read-only replica"),
        ):
            RedisStore(server.url, EventManager(), namespace="a")

    def test_a_namespace_of_a_later_version(self, client: redis.Redis, namespace: str) -> None:
        client.hset(f"{{{namespace}}}:about", "format", "latchstore 2: some other")
        with pytest.raises(StoreFormatError, match="'latchstore 2'"):
            RedisStore(client, EventManager(), namespace=namespace)


@pytest.mark.each_server
class TestWithoutMemory:
    """A commit is refused before it has changed anything; what frees memory is still done."""

    def test_a_full_server(self, redis_server: Server) -> None:
        with (
            Server(redis_server.kind) as server,
            RedisStore(server.url, EventManager(), namespace="a", indexes=[Ordered("n")]) as store,
        ):
            store.multiset(list("abc"), [(b"x", {"n": number}) for number in range(3)])
            revision = store.info()["revision"]
            server.ask("CONFIG SET maxmemory 1")
            with pytest.raises(OSError, match="no memory left"):
                store.set("d", (b"x", {"n": 3}))
            with pytest.raises(OSError, match="no memory left"), store.transaction() as block:
                block.multiset(["a", "b"], [(b"y", {"n": 4})] * 2)
            assert store.info()["revision"] == revision
            assert list(store.query_keys(order_by="n", limit=9)) == ["a", "b", "c"]
            assert store.to_bytes("b") == b"x"
            store.delete("a")
            with store.transaction():
                store.delete("b")
            assert list(store.query_keys()) == ["c"]
            server.ask("CONFIG SET maxmemory 0")
            store.from_bytes("d", b"")
            assert store.info()["revision"] == revision + 3


class TestClosing:
    def test_a_commit_that_is_under_way_is_waited_for(self, redis_server: Server, namespace: str) -> None:
        sent = threading.Event()

        def judge(request: bytes) -> Reply:
            if COMMIT.digest not in request:
                return Reply.PASSED
            sent.set()
            return Reply.HELD

        with (
            Proxy(redis_server.socket, judge) as proxy,
            RedisStore(proxy.url, EventManager(), namespace=namespace, socket_timeout=30) as store,
            ThreadPoolExecutor(1) as pool,
        ):
            heard = listen(store, StoreSetEvent)
            committing = pool.submit(store.from_bytes, "a", b"")
            assert sent.wait(TIMEOUT)
            with pytest.raises(FlushTimeoutError, match="a commit has not ended"):
                store.close(timeout=0)
            with pytest.raises(StoreClosedError):
                store.from_bytes("b", b"")
            proxy.release()
            store.close()
            committing.result(TIMEOUT)
            assert [event.key for event in heard] == ["a"]


class TestScripts:
    def test_a_server_that_has_forgotten_them(self, store: RedisStore, client: redis.Redis) -> None:
        store.from_bytes("a", b"1")
        client.script_flush()
        store.from_bytes("a", b"2")
        client.script_flush()
        assert store.multiget_data(["a"]) is not None
        client.script_flush()
        with store.transaction():
            store.from_bytes("b", store.to_bytes("a"))
        assert store.to_bytes("b") == b"2"
        assert store.info()["revision"] == 3

    def test_large_entries(self, store: RedisStore) -> None:
        """Of more metadata items than Lua passes at once."""
        metadata: dict[str, Any] = {f"item {number}": number for number in range(9_000)}
        store.set("a", (b"x" * 3_000_000, metadata))
        assert store.get_metadata("a") == metadata
        store.update_metadata("a", {"item 8999": None, "one more": ()})
        metadata |= {"item 8999": None, "one more": ()}
        assert store.get_metadata("a") == metadata
        with store.snapshot() as before:
            store.set_metadata("a", {"": 1})
            assert store.get_metadata("a") == {"": 1}
            assert before.get_metadata("a") == metadata
        assert len(store.to_bytes("a")) == 3_000_000
        store.delete("a")
        assert not store.exists("a")

    def test_what_nobody_has_used_for_a_day_is_forgotten(
        self, redis_server: Server, client: redis.Redis, namespace: str
    ) -> None:
        about = f"{{{namespace}}}:about"
        RedisStore(redis_server.url, EventManager(), namespace=namespace).close()
        seconds = client.time()[0]
        client.hset(
            about, mapping={"s:old": f"5 7 {seconds - 90_000}.5", "s:new": f"5 8 {seconds - 80_000}.5"}
        )
        RedisStore(redis_server.url, EventManager(), namespace=namespace).close()
        assert client.hexists(about, "s:new")
        assert not client.hexists(about, "s:old")


class TestPackage:
    def test_the_error_names_the_extra(self) -> None:
        program = (
            "import sys; sys.modules['hiredis'] = None\n"
            "import latchstore\n"
            "try: latchstore.RedisStore\n"
            "except ImportError as error: print(error)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
        assert "pip install 'latchstore[redis]'" in done.stdout, done.stderr


class TestBlocksWithoutAnEnd:
    def test_one_that_nobody_has_any_more_keeps_no_process_out(
        self, redis_server: Server, namespace: str, store: RedisStore
    ) -> None:
        with RedisStore(redis_server.url, EventManager(), namespace=namespace, lease=0.3) as left:
            block = left.transaction("left")
            block.__enter__()
            block.from_bytes("a", b"left")
            del block
            store.from_bytes("a", b"written")
            assert left.to_bytes("a") == b"written"

    def test_one_whose_server_is_gone_keeps_no_thread_out(self, redis_server: Server) -> None:
        with Server(redis_server.kind) as server:
            store = RedisStore(server.url, EventManager(), namespace="a", lock_timeout=5)
            block = store.transaction()
            block.__enter__()
            block.from_bytes("a", b"1")
            server.kill()
            with pytest.raises((ConnectionError, StoreError)):
                block.__exit__(None, None, None)
            server.start()
            store.from_bytes("a", b"2")
            with store.transaction():
                assert store.to_bytes("a") == b"2"
            store.close()
