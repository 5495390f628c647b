"""Optimistic commits that find each time that others were first: after some checks they keep them out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import redis

from latchstore import EventManager, LockTimeoutError, RedisStore, TransactionConflictError
from latchstore.redis.scripts import COMMIT, LEASE, READ
from tests.contract.stores import TIMEOUT
from tests.redis.proxy import Proxy, Reply
from tests.redis.servers import Server

#: How many commits are tried without the lease.
CHECKS = 5

#: After so many looks others commit no more: without a lease it would go on for ever.
MANY = 50


@pytest.fixture
def writer(redis_server: Server, namespace: str) -> Iterator[RedisStore]:
    """What others write by, unless they would have to wait."""
    with RedisStore(redis_server.url, EventManager(), namespace=namespace, lock_timeout=0) as store:
        with store.transaction():
            store.from_bytes("a", b"1")  # the server has the scripts from here on
        yield store


class Others:
    """A judge of a proxy: after each look at the log another process commits.

    Parameters
    ----------
    writer : RedisStore
    last : callable
        Called when the last commit without a lease has been refused.

    Attributes
    ----------
    looks, leases : int
        How many looks there were, and commands for a lease.
    """

    def __init__(self, writer: RedisStore, last: Callable[[], object] = int) -> None:
        self._writer = writer
        self._last = last
        self._commits = 0
        self.looks = self.leases = 0

    def write(self) -> None:
        """Commit."""
        self._writer.from_bytes("other", b"%d" % self.looks)

    def __call__(self, request: bytes) -> Reply:
        self.leases += LEASE.digest in request
        if READ.digest in request and self.looks < MANY:
            self.looks += 1
            with suppress(LockTimeoutError):  # it is kept out
                self.write()
        if COMMIT.digest in request:
            self._commits += 1
            if self._commits == CHECKS:
                self._last()
        return Reply.PASSED


def add(store: RedisStore, proxy: Proxy, others: Others, timeout: float) -> None:
    """Add to a number, while others commit from before the end of the block on."""
    with store.transaction("adding", optimistic=True, timeout=timeout):
        store.from_bytes("a", store.to_bytes("a") + b"2")
        others.write()
        proxy.judge = others


@pytest.fixture
def proxy(redis_server: Server) -> Iterator[Proxy]:
    with Proxy(redis_server.socket) as proxy:
        yield proxy


@pytest.fixture
def store(proxy: Proxy, namespace: str) -> Iterator[RedisStore]:
    """A store beyond the proxy."""
    with RedisStore(proxy.url, EventManager(), namespace=namespace) as store:
        yield store


@pytest.mark.parametrize("timeout", [TIMEOUT, 0])
def test_the_lease_keeps_others_out(
    store: RedisStore, proxy: Proxy, writer: RedisStore, timeout: float
) -> None:
    others = Others(writer)
    add(store, proxy, others, timeout)
    assert others.looks < MANY
    assert others.leases == 2  # taken, and given back
    assert writer.to_bytes("a") == b"12"
    assert writer.to_bytes("other") == b"%d" % (others.looks - 1)
    # Nobody is kept out any more.
    writer.from_bytes("a", b"")


def test_a_conflict_is_found_under_the_lease(store: RedisStore, proxy: Proxy, writer: RedisStore) -> None:
    others = Others(writer, lambda: writer.from_bytes("a", b"3"))
    with pytest.raises(TransactionConflictError, match="'a'"):
        add(store, proxy, others, TIMEOUT)
    assert others.leases == 2
    assert writer.to_bytes("a") == b"3"
    writer.from_bytes("a", b"")


def test_another_has_the_lease(
    store: RedisStore, proxy: Proxy, writer: RedisStore, redis_server: Server, namespace: str
) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        others = Others(writer, lambda: client.set(f"{{{namespace}}}:w", "another's"))
        with pytest.raises(LockTimeoutError, match=r"'adding'.*held by another process"):
            add(store, proxy, others, 0)
    assert writer.to_bytes("a") == b"1"
