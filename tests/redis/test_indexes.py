"""Indexes on a server: all clients keep them, whoever has added them, and whenever."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from latchstore import (
    Above,
    EventManager,
    Item,
    LockTimeoutError,
    Ordered,
    RedisStore,
    TransactionConflictError,
)
from tests.redis.proxy import Proxy, Reply
from tests.redis.redis_stores import ONE_SERVER_EACH
from tests.redis.servers import Server

pytestmark = [pytest.mark.each_server, ONE_SERVER_EACH]


@pytest.fixture
def stores(redis_server: Server, namespace: str) -> Iterator[tuple[RedisStore, RedisStore]]:
    """Two clients."""
    with (
        RedisStore(redis_server.url, EventManager(), namespace=namespace) as one,
        RedisStore(redis_server.url, EventManager(), namespace=namespace) as other,
    ):
        yield one, other


def in_order(store: RedisStore, by: str = "n") -> list[str]:
    """Return all keys with an item in its order, as its index has them: a limit has it looked at."""
    return list(store.query_keys(order_by=Item(by), where={by: Above(-10)}, limit=1_000))


def test_all_clients_keep_an_index_that_one_has_added(stores: tuple[RedisStore, RedisStore]) -> None:
    one, other = stores
    one.set("a", (b"", {"n": 1}))
    one.add_index(Ordered("n"))
    other.set("b", (b"", {"n": 0}))  # the other one has not been told
    other.multiset(["c", "d"], [(b"", {"n": 3}), (b"", {"n": 2})])
    with other.transaction():
        other.update_metadata("a", {"n": 5})
        other.delete("c")
    assert in_order(one) == in_order(other) == ["b", "d", "a"]
    assert one.info()["indexes"] == other.info()["indexes"] == [Ordered("n")]


def test_an_index_that_was_removed_is_not_looked_at(stores: tuple[RedisStore, RedisStore]) -> None:
    one, other = stores
    one.add_index(Ordered("n"))
    one.set("a", (b"", {}))
    other.set_metadata("a", {"n": 1})  # from here on the other one has its list
    assert in_order(other) == ["a"]
    one.remove_index(Ordered("n"))
    one.update_metadata("a", {"n": 2})
    one.set("b", (b"", {"n": 1}))
    assert in_order(other) == ["b", "a"]
    with pytest.raises(KeyError):
        other.remove_index(Ordered("n"))
    # What was left of the positions does not come back.
    other.add_index("n")
    assert in_order(one) == ["b", "a"]


def test_one_set_serves_equality_and_order(stores: tuple[RedisStore, RedisStore]) -> None:
    one, other = stores
    one.add_index("n")
    other.add_index(Ordered("n"))
    one.set("a", (b"", {"n": 1}))
    one.remove_index("n")
    assert in_order(one) == in_order(other) == ["a"]
    assert list(other.query_keys(n=1)) == ["a"]


def test_an_index_over_many_entries(stores: tuple[RedisStore, RedisStore]) -> None:
    one, other = stores
    keys = [f"k{number}" for number in range(2_300)]
    one.multiset(keys, [(b"x" * 2_000, {"n": -number % 7, "": number}) for number in range(2_300)])
    other.add_index(Ordered("n"))
    other.add_index(Ordered(Item("")))
    other.add_index(Ordered("modified"))
    expected = sorted(keys, key=lambda key: (-int(key[1:]) % 7, key))
    assert in_order(one) == expected[:1_000]
    assert list(one.query_keys(order_by="", limit=3)) == ["k0", "k1", "k2"]
    one.set_data("k7", b"")
    assert list(one.query_keys(order_by="modified", descending=True, limit=1)) == ["k7"]
    assert next(iter(one.query(("",), order_by="", limit=1))) == ("k0", {"": 0})


def test_writers_wait_for_an_index(redis_server: Server, namespace: str) -> None:
    """What another client writes while an index is made comes after it, and is in it."""
    writes: list[str] = []

    def judge(request: bytes) -> Reply:
        if b"items" in request and b"pn" in request and not writes:
            # In the thread of the proxy, which passes nothing on meanwhile.
            with pytest.raises(LockTimeoutError, match="add_index"):
                hasty.set("b", (b"", {"n": 0}))
            writes.append("b")
        return Reply.PASSED

    with (
        RedisStore(redis_server.url, EventManager(), namespace=namespace, lock_timeout=0.05) as hasty,
        Proxy(redis_server.socket) as proxy,
        RedisStore(proxy.url, EventManager(), namespace=namespace) as store,
    ):
        store.set("a", (b"", {"n": 1}))
        proxy.judge = judge
        store.add_index(Ordered("n"))
        assert writes
        hasty.set("b", (b"", {"n": 0}))
        assert in_order(store) == in_order(hasty) == ["b", "a"]


def test_what_an_attempt_has_left_is_taken_away(redis_server: Server, namespace: str) -> None:
    """The lease is lost while an index is made: it is not there, and the next attempt makes it anew."""

    def judge(request: bytes) -> Reply:
        if b"items" in request and b"pn" in request:
            redis_server.ask(f"DEL {{{namespace}}}:w")
        return Reply.PASSED

    with (
        RedisStore(redis_server.url, EventManager(), namespace=namespace) as other,
        Proxy(redis_server.socket) as proxy,
        RedisStore(proxy.url, EventManager(), namespace=namespace) as store,
    ):
        other.set("a", (b"", {"n": 1}))
        proxy.judge = judge
        with pytest.raises(TransactionConflictError, match="its lease of 10 s expired"):
            store.add_index(Ordered("n"))
        assert store.info()["indexes"] == []
        other.set("a", (b"", {"n": 7}))
        other.set("b", (b"", {"n": 2}))
        other.add_index(Ordered("n"))
        assert in_order(store) == ["b", "a"]
        other.delete("a")
        assert in_order(store) == ["b"]


def test_keys_and_names_of_any_characters(stores: tuple[RedisStore, RedisStore]) -> None:
    one, other = stores
    name = "n\0\ud800{}"
    one.add_index(Ordered(Item(name)))
    for key in ("", "\0", "\0a", "\ud800", "{}", "a"):
        one.set(key, (b"", {name: "x\0"}))
    one.set("z", (b"", {name: "x"}))
    other.update_metadata("a", {name: "x\0\0"})
    found = list(other.query_keys(order_by=Item(name), limit=10))
    assert found == ["z", "", "\0", "\0a", "{}", "\ud800", "a"]
    assert sorted(other.query_keys(where={name: "x\0"})) == ["", "\0", "\0a", "{}", "\ud800"]
