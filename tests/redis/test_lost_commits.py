"""Servers that lose commits: every watch is told, listeners hear nothing that is not so, revisions go on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from latchstore import (
    CompactedError,
    EventManager,
    EventsLost,
    RedisStore,
    SnapshotClosedError,
    StoreError,
    StoreModificationEvent,
    TransactionConflictError,
    Watch,
)
from tests.contract.listeners import listen
from tests.contract.stores import TIMEOUT
from tests.redis.proxy import Proxy, Reply
from tests.redis.servers import Server, preferred


def opened(url: str) -> RedisStore:
    """Return a store that several of a test share."""
    return RedisStore(url, EventManager(), namespace="shared", lock_timeout=TIMEOUT)


def read_until(watch: Watch, key: str) -> list[tuple[int, int | str]]:
    """Return what a watch gives up to the change of a key: of a gap, its two ends."""
    found: list[tuple[int, int | str]] = []
    while not found or found[-1][1] != key:
        event = watch.get(TIMEOUT)
        if isinstance(event, EventsLost):
            found.append((event.first_revision, event.last_revision))
        else:
            assert event.revision is not None
            found.append((event.revision, event.key))
    return found


def read_gap(watch: Watch) -> tuple[int, int]:
    """Return the two ends of the gap that a watch gives next."""
    event = watch.get(TIMEOUT)
    assert isinstance(event, EventsLost), event
    return event.first_revision, event.last_revision


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that keeps nothing on disk."""
    with Server(preferred()) as server:
        yield server


class TestRestart:
    def test_every_watch_and_no_listener_is_told(
        self, server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        with opened(server.url) as store, opened(server.url) as beside:
            watches = [store.watch(), store.watch("k*"), beside.watch()]
            heard = listen(store, StoreModificationEvent)
            for number in range(3):
                store.from_bytes(f"k{number}", b"")
            store.flush()
            assert [read_until(watch, "k2") for watch in watches] == [[(1, "k0"), (2, "k1"), (3, "k2")]] * 3
            with caplog.at_level(logging.WARNING, "latchstore"):
                server.kill()
                server.start()
                # The number of what stands for those that were lost is the next one.
                assert [read_gap(watch) for watch in watches] == [(1, 4)] * 3
            beside.from_bytes("k9", b"")
            assert [read_until(watch, "k9") for watch in watches] == [[(5, "k9")]] * 3
            store.flush()
            assert [(event.revision, event.key) for event in heard[3:]] == [(5, "k9")]
            assert sum("has lost 3 commits" in message for message in caplog.messages) == 2
            assert sorted(store.query_keys()) == ["k9"]
            assert store.info()["revision"] == 5

    def test_nothing_is_lost_that_the_server_has_kept(self) -> None:
        with (
            Server(preferred(), "--appendonly", "yes", "--appendfsync", "always") as server,
            opened(server.url) as store,
        ):
            watch = store.watch()
            store.from_bytes("a", b"")
            assert read_until(watch, "a") == [(1, "a")]
            server.kill()
            server.start()
            store.from_bytes("b", b"")
            assert read_until(watch, "b") == [(2, "b")]
            assert sorted(store.query_keys()) == ["a", "b"]

    def test_transactions_in_flight_fail(self, server: Server) -> None:
        with opened(server.url) as store, opened(server.url) as beside:
            for optimistic in (True, False):
                store.from_bytes("a", b"1")
                with (  # noqa: PT012
                    pytest.raises(TransactionConflictError) as caught,
                    store.transaction("in flight", optimistic=optimistic),
                ):
                    store.from_bytes("a", store.to_bytes("a") + b"2")
                    server.kill()
                    server.start()
                    # As many commits as there were: the number alone would not tell.
                    beside.from_bytes("a", b"0")
                assert caught.value.had_no_effect
                assert store.to_bytes("a") == b"0"
                server.ask("FLUSHALL")

    def test_snapshots_are_gone(self, server: Server) -> None:
        with opened(server.url) as store:
            store.from_bytes("a", b"1")
            with store.snapshot() as snapshot:
                assert snapshot.to_bytes("a") == b"1"
                server.kill()
                server.start()
                store.from_bytes("a", b"0")
                with pytest.raises(StoreError, match="has lost commits") as caught:
                    snapshot.to_bytes("a")
                assert not isinstance(caught.value, SnapshotClosedError)

    def test_watching_from_a_commit_that_was_lost(self, server: Server) -> None:
        with opened(server.url) as store:
            watch = store.watch()
            for number in range(3):
                store.from_bytes(f"k{number}", b"")
            server.kill()
            server.start()
            read_until(watch, "k2")
            assert read_gap(watch) == (1, 4)
            store.from_bytes("k9", b"")
            with pytest.raises(CompactedError):
                store.watch(since=3)
            assert read_until(store.watch(since=4), "k9") == [(5, "k9")]


class TestOthersWereFirst:
    def test_the_numbers_are_used_again_before_it_is_found(self, server: Server) -> None:
        """The last commit of the server has a later number than the one that was seen, or the same one."""
        for commits in (2, 3, 5):
            with Proxy(server.socket) as proxy, opened(proxy.url) as store:
                watch = store.watch()
                for number in range(3):
                    store.from_bytes(f"k{number}", b"")
                read_until(watch, "k2")
                proxy.judge = lambda request: Reply.LOST
                server.kill()
                server.start()
                with opened(server.url) as other:
                    for number in range(commits):
                        other.from_bytes(f"other{number}", b"")
                    other_watch = other.watch(since=0)
                    proxy.judge = lambda request: Reply.PASSED
                    last = max(commits, 4)
                    assert read_gap(watch) == (1, last)
                    store.from_bytes("k9", b"")
                    assert read_until(watch, "k9") == [(last + 1, "k9")]
                    assert read_until(other_watch, "k9") == [
                        *[(number + 1, f"other{number}") for number in range(commits)],
                        (last + 1, "k9"),
                    ]
            server.ask("FLUSHALL")


class TestFailover:
    def test_a_replica_that_was_behind_becomes_the_primary(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        socket = tmp_path / "socket"
        with (
            Server(preferred(), "--repl-diskless-sync-delay", "0", tcp=True) as primary,
            Server(preferred(), "--replicaof", "127.0.0.1", str(primary.port)) as replica,
        ):
            socket.symlink_to(primary.socket)
            with opened(f"unix://{socket}") as store, opened(f"unix://{socket}") as beside:
                watches = [store.watch(), beside.watch()]
                heard = listen(store, StoreModificationEvent)
                for number in range(3):
                    store.from_bytes(f"k{number}", b"")
                primary.wait_for_replica()
                assert replica.ask("REPLICAOF NO ONE") == "+OK"
                for number in range(3, 7):
                    store.from_bytes(f"k{number}", b"")
                store.flush()
                assert [len(read_until(watch, "k6")) for watch in watches] == [7, 7]
                socket.unlink()
                socket.symlink_to(replica.socket)
                with caplog.at_level(logging.WARNING, "latchstore"):
                    primary.kill()
                    assert [read_gap(watch) for watch in watches] == [(4, 8)] * 2
                store.from_bytes("k9", b"")
                assert [read_until(watch, "k9") for watch in watches] == [[(9, "k9")]] * 2
                store.flush()
                assert [event.revision for event in heard] == [*range(1, 8), 9]
                assert sorted(store.query_keys()) == ["k0", "k1", "k2", "k9"]
                assert "has lost 4 commits" in caplog.text

    def test_the_old_primary_is_a_replica(self, tmp_path: Path) -> None:
        """It refuses commits, on connections that are whole: the next one goes to the new primary."""
        socket = tmp_path / "socket"
        with (
            Server(preferred(), tcp=True) as primary,
            Server(preferred(), "--replicaof", "127.0.0.1", str(primary.port), tcp=True) as replica,
        ):
            socket.symlink_to(primary.socket)
            with opened(f"unix://{socket}") as store, opened(f"unix://{socket}") as idle:
                store.from_bytes("a", b"1")
                idle.from_bytes("b", b"1")
                primary.wait_for_replica()
                assert replica.ask("REPLICAOF NO ONE") == "+OK"
                assert primary.ask(f"REPLICAOF 127.0.0.1 {replica.port}") == "+OK"
                with pytest.raises(OSError, match="is a read-only replica"):
                    store.from_bytes("a", b"2")
                socket.unlink()
                socket.symlink_to(replica.socket)
                store.from_bytes("a", b"2")
                with idle.transaction():
                    assert idle.to_bytes("a") == b"2"
                    idle.from_bytes("b", b"2")
                assert store.to_bytes("b") == b"2"
