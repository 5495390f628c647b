"""Queries on a server: what they cost, and that pages are of one instant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import redis

from latchstore import Above, Between, EventManager, In, Ordered, Prefix, RedisStore
from tests.redis.proxy import Proxy, Reply
from tests.redis.servers import Server

#: More than two pages.
MANY = 2_500


class Cost(NamedTuple):
    """What a call has cost the server."""

    commands: int
    sent: int


@pytest.fixture
def cost(redis_server: Server) -> Iterator[Callable[[Callable[[], object]], Cost]]:
    """Return the number of commands of a call, and the bytes that the server has sent."""
    with redis.Redis.from_url(redis_server.url) as client:

        def figures() -> Cost:
            stats: Any = client.info("stats")
            return Cost(stats["total_commands_processed"], stats["total_net_output_bytes"])

        def measure(call: Callable[[], object]) -> Cost:
            figures()
            idle, before = figures(), figures()
            call()
            after = figures()
            # What a look itself costs is left out, up to the digits of its figures. A script is one command
            # for the client; those that it runs itself count with the server as well.
            return Cost(
                after.commands - before.commands - (before.commands - idle.commands),
                after.sent - before.sent - (before.sent - idle.sent),
            )

        yield measure


def fill(store: RedisStore, count: int) -> None:
    for start in range(0, count, 500):
        numbers = range(start, min(start + 500, count))
        store.multiset(
            [f"k{number:05d}" for number in numbers],
            [
                (b"x" * 100, {"n": number, "kind": "abc"[number % 3], "name": f"n{number}"})
                for number in numbers
            ],
        )


INDEXES: list[str | Ordered] = ["kind", Ordered("n"), Ordered("created"), Ordered("revision")]

QUERIES: dict[str, Callable[[RedisStore], Iterator[Any]]] = {
    "ordered": lambda store: store.query(order_by="n", limit=5),
    "ordered keys": lambda store: store.query_keys(order_by="n", limit=5),
    "from the end": lambda store: store.query(order_by="n", descending=True, limit=5),
    "a range": lambda store: store.query(where={"n": Above(10)}, order_by="n", limit=5),
    "a range without a limit": lambda store: store.query(where={"n": Between(10, 15)}, order_by="n"),
    "equality": lambda store: store.query(kind="a", limit=5),
    "one of several": lambda store: store.query(kind=In(["a", "b"]), limit=5),
    "two items": lambda store: store.query(kind="a", order_by="n", limit=5),
    "of no order": lambda store: store.query(limit=5),
    "by keys": lambda store: store.query(order_by="key", limit=5),
    "by time": lambda store: store.query(order_by="created", limit=5),
    "by revision": lambda store: store.query(order_by="revision", descending=True, limit=5),
    "an item without index": lambda store: store.query(name="n3", limit=1),
    "glob": lambda store: store.glob("k0000*", limit=5),
    "glob of a prefix": lambda store: store.glob("k0000?"),
}


@pytest.mark.parametrize("ask", QUERIES.values(), ids=QUERIES)
def test_a_query_with_a_limit_costs_what_it_returns(
    redis_server: Server,
    namespace: str,
    cost: Callable[[Callable[[], object]], Cost],
    ask: Callable[[RedisStore], Iterator[Any]],
) -> None:
    with RedisStore(redis_server.url, EventManager(), namespace=namespace, indexes=INDEXES) as store:
        fill(store, 400)
        list(ask(store))  # connections and scripts are there
        few = cost(lambda: list(ask(store)))
        fill(store, 1_200)
        many = cost(lambda: list(ask(store)))
    # The digits of the server's figures and of revisions; all entries would be 50 kB and more.
    assert many.commands == few.commands
    assert abs(many.sent - few.sent) < 200
    assert many.sent < 2_500


#: Queries of several pages, and whether their answer has an order.
LONG: dict[str, tuple[bool, Callable[[Any], Iterator[str]]]] = {
    "range": (True, lambda store: store.query_keys(order_by="n", where={"n": Above(-1)})),
    "from the end": (
        True,
        lambda store: store.query_keys(order_by="n", descending=True, where={"n": Above(-1)}),
    ),
    "limit": (True, lambda store: store.query_keys(order_by="n", limit=MANY - 100)),
    "term": (False, lambda store: store.query_keys(n=Above(-1))),
    "no index": (False, lambda store: store.query_keys(name=Prefix("n"))),
    "glob": (False, lambda store: store.glob("k*")),
    "keys": (False, lambda store: store.query_keys()),
}


@pytest.mark.parametrize(("is_ordered", "ask"), LONG.values(), ids=LONG)
@pytest.mark.parametrize("in_snapshot", [False, True], ids=["store", "snapshot"])
def test_pages_are_of_one_instant(
    redis_server: Server,
    namespace: str,
    is_ordered: bool,
    ask: Callable[[Any], Iterator[str]],
    in_snapshot: bool,
) -> None:
    """While pages are read, entries go from behind to the front, to the back, away, and are new."""
    asked = 0

    def judge(request: bytes) -> Reply:
        nonlocal asked
        if is_watched and b"EVALSHA" in request:
            asked += 1
            writer.multiset(
                [f"k{asked:05d}", f"k{MANY - asked:05d}", f"k{asked:05d}new", f"k{MANY // 2:05d}"],
                [(b"", {"n": number, "name": "n"}) for number in (MANY + asked, 0.5, 1000.5, asked + 0.1)],
            )
            writer.delete(f"k{1000 + asked:05d}")
        return Reply.PASSED

    is_watched = False
    with (
        RedisStore(redis_server.url, EventManager(), namespace=namespace, indexes=[Ordered("n")]) as writer,
        Proxy(redis_server.socket, judge) as proxy,
        RedisStore(proxy.url, EventManager(), namespace=namespace) as store,
    ):
        fill(writer, MANY)
        expected = list(ask(writer))
        list(ask(store))
        if in_snapshot:
            with store.snapshot() as snapshot:
                is_watched = True
                found = list(ask(snapshot))
                is_watched = False
        else:
            is_watched = True
            found = list(ask(store))
            is_watched = False
        assert asked > 2
        assert found == expected if is_ordered else sorted(found) == sorted(expected)
        assert store.exists("k00001new")
