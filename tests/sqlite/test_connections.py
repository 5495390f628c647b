"""The connections of a process: taken, given back, closed, pinned by a reader."""

from __future__ import annotations

import gc
import os
import sqlite3
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from latchstore import LockTimeoutError, SnapshotClosedError
from latchstore.sqlite.connections import Connection, Connections, Pinned
from tests.interrupts.exhaustion import STRIDE
from tests.interrupts.striker import Striker
from tests.schedules import TIMEOUT, in_another_thread

#: A moment after all tests.
FAR = time.monotonic() + 10**6


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = str(tmp_path / "store")
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t (n); INSERT INTO t VALUES (1)")
    connection.close()
    return path


@pytest.fixture
def connections(path: str) -> Iterator[Connections]:
    found = Connections(path, "NORMAL", 5.0)
    yield found
    found.close()


def numbers(connection: sqlite3.Connection) -> list[Any]:
    return connection.execute("SELECT n FROM t").fetchall()


def begin(connection: sqlite3.Connection) -> list[Any]:
    connection.execute("BEGIN")
    return numbers(connection)


def test_one_that_was_given_back_is_taken_again(connections: Connections) -> None:
    first, second = connections.take(), connections.take()
    assert first is not second
    connections.give(first)
    assert connections.take() is first
    assert first.execute("PRAGMA synchronous").fetchall() == [(1,)]
    assert first.execute("PRAGMA busy_timeout").fetchall() == [(5000,)]


def test_one_that_is_not_given_back_is_closed(connections: Connections, path: str) -> None:
    connection = connections.take()
    connection.execute("BEGIN IMMEDIATE")
    gone = weakref.ref(connection)
    del connection
    gc.collect()  # it refers to itself
    assert gone() is None
    other = connections.take()
    other.execute("BEGIN IMMEDIATE")  # nobody has SQLite's lock
    other.rollback()
    connections.give(other)


def test_after_closing_none_is_kept_until_it_is_opened_again(connections: Connections, path: str) -> None:
    in_use = connections.take()
    connections.give(connections.take())
    connections.close()
    assert connections.idle == []
    connections.give(in_use)
    assert connections.idle == []
    with pytest.raises(sqlite3.ProgrammingError):
        numbers(in_use)
    assert not os.path.exists(f"{path}-wal")
    connections.give(connections.take())
    assert connections.idle == []
    connections.reopen()
    connections.give(connections.take())
    assert len(connections.idle) == 1


def test_what_is_pinned_stays_at_its_instant(connections: Connections) -> None:
    pinned = Pinned(connections)
    assert pinned.run(begin) == [(1,)]
    writer = connections.take()
    writer.execute("INSERT INTO t VALUES (2)")
    connections.give(writer)
    assert pinned.run(numbers) == [(1,)]
    assert pinned.is_open
    pinned.close()
    pinned.close()
    assert not pinned.is_open
    with pytest.raises(SnapshotClosedError, match="the snapshot is closed"):
        pinned.run(numbers)
    assert len(connections.idle) == 2
    assert all(numbers(connection) == [(1,), (2,)] for connection in connections.idle)


def test_what_is_pinned_and_forgotten_is_given_back(connections: Connections) -> None:
    pinned = Pinned(connections)
    pinned.run(begin)
    del pinned
    assert [connection.in_transaction for connection in connections.idle] == [False]


def test_what_is_pinned_may_be_freed_after_its_connection(connections: Connections) -> None:
    """As by the collector, which closes connections wherever they are in a circle."""
    pinned = Pinned(connections)
    connection = pinned.connection
    assert connection is not None
    connection.close()
    pinned.close()
    assert not pinned.is_open
    assert connection not in connections.idle


def test_closing_does_not_wait_for_who_reads(connections: Connections) -> None:
    pinned = Pinned(connections)
    pinned.run(begin)
    reading, closed = threading.Event(), threading.Event()

    def read(connection: sqlite3.Connection) -> list[Any]:
        reading.set()
        assert closed.wait(TIMEOUT)
        return numbers(connection)

    thread = threading.Thread(target=pinned.run, args=(read,))
    thread.start()
    assert reading.wait(TIMEOUT)
    pinned.close()
    assert connections.idle == []
    closed.set()
    thread.join(TIMEOUT)
    assert len(connections.idle) == 1


def test_a_read_in_the_middle_of_one_of_its_own_thread(connections: Connections) -> None:
    pinned = Pinned(connections)
    assert pinned.run(lambda connection: (begin(connection), pinned.run(numbers))) == ([(1,)], [(1,)])
    pinned.close()


# -- what a fork does before it, and after it in the parent -------------------------------------------


def fork_here(connections: Connections) -> None:
    """Do what is done around a fork."""
    connections.before_fork(FAR)
    connections.after_in_parent()


def fork(connections: Connections) -> None:
    """Do so in a thread that is in the middle of no call of this test's."""
    in_another_thread(lambda: fork_here(connections))


def test_a_fork_closes_what_is_idle_and_leaves_what_is_pinned(connections: Connections) -> None:
    idle = connections.take()
    pinned = Pinned(connections)
    pinned.run(begin)
    connections.give(idle)
    fork(connections)
    with pytest.raises(sqlite3.ProgrammingError):
        numbers(idle)
    assert in_another_thread(lambda: pinned.run(numbers)) == [(1,)]
    pinned.close()
    connections.give(connections.take())


def test_a_fork_waits_until_nobody_uses_a_connection(connections: Connections) -> None:
    taken = [connections.take()]
    done = threading.Event()

    def wait() -> None:
        fork_here(connections)
        done.set()

    thread = threading.Thread(target=wait)
    thread.start()
    # It lasts until then: a taker is let through after a while, again and again.
    for _ in range(3):
        connections.give(connections.take())
        assert not done.is_set()
    connections.give(taken.pop())
    assert done.wait(TIMEOUT)
    thread.join(TIMEOUT)
    connections.give(connections.take())
    assert len(connections.idle) == 1


def test_who_has_a_connection_may_wait_for_who_needs_one(connections: Connections) -> None:
    """Else the three would wait for each other: the fork as well."""
    taken = [connections.take()]
    begun, used = threading.Event(), threading.Event()

    def use() -> None:
        assert begun.wait(TIMEOUT)
        connections.give(connections.take())
        used.set()

    threads = [threading.Thread(target=use), threading.Thread(target=fork_here, args=(connections,))]
    for thread in threads:
        thread.start()
    begun.set()
    assert used.wait(TIMEOUT)
    connections.give(taken.pop())
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()


def test_during_a_fork_takers_wait(connections: Connections) -> None:
    connections.before_fork(FAR)
    got = threading.Event()

    def use() -> None:
        connections.give(connections.take())
        got.set()

    thread = threading.Thread(target=use)
    thread.start()
    with pytest.raises(LockTimeoutError, match="this thread is about to fork"):
        connections.take()
    assert not got.is_set()
    connections.after_in_parent()
    assert got.wait(TIMEOUT)
    thread.join(TIMEOUT)


def test_two_threads_fork_at_a_time(connections: Connections) -> None:
    pinned = Pinned(connections)
    pinned.run(begin)
    barrier = threading.Barrier(2)

    def repeat() -> None:
        barrier.wait(TIMEOUT)
        for _ in range(20):
            fork_here(connections)

    threads = [threading.Thread(target=repeat) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    assert pinned.run(numbers) == [(1,)]
    pinned.close()


def test_busy_readers_do_not_keep_a_fork_waiting(connections: Connections) -> None:
    over = threading.Event()
    pinned = Pinned(connections)
    pinned.run(begin)

    def read() -> None:
        while not over.is_set():
            connection = connections.take()
            found = numbers(connection)
            connections.give(connection)
            assert found == pinned.run(numbers) == [(1,)]

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        fork_here(connections)
    over.set()
    for thread in threads:
        thread.join(TIMEOUT)
    pinned.close()


def test_a_connection_that_was_lost_keeps_no_fork_waiting(connections: Connections) -> None:
    connections.take()
    closed = connections.take()
    closed.close()
    fork(connections)


# -- exceptions ---------------------------------------------------------------------------------------


class Struck(BaseException):
    """An exception that is of nobody else."""


def use(connections: Connections) -> None:
    connection = connections.take()
    try:
        numbers(connection)
    finally:
        connections.give(connection)


def use_two(connections: Connections) -> None:
    connections.close_idle()
    use(connections)


def pin(connections: Connections) -> None:
    pinned = Pinned(connections)
    pinned.run(begin)
    pinned.run(numbers)
    pinned.close()


def strike(number: int, function: Any, path: str) -> str | None:
    """Strike a call at one place; return where, or None if there is none any more."""
    connections = Connections(path, "OFF", 5.0)
    kept = Pinned(connections)
    kept.run(begin)
    connections.give(connections.take())
    striker = Striker(number, Struck)
    try:
        with striker:
            function(connections)
    except Struck:
        pass
    connections.after_in_parent()  # which the system calls
    assert in_another_thread(lambda: kept.run(numbers)) == [(1,)], striker.place
    in_another_thread(lambda: use(connections))
    gc.collect(0)  # what is older does not come into it
    fork(connections)
    kept.close()
    connections.close()
    return striker.place


@pytest.mark.parametrize(
    ("function", "stride"), [(use, 1), (use_two, 4), (pin, 4), (fork_here, 11), (Connections.close, 1)]
)
def test_no_strike_loses_more_than_a_connection(
    path: str, function: Any, stride: int, request: pytest.FixtureRequest
) -> None:
    """At one of so many places; LATCHSTORE_STRIKE_EVERY=1 tries all."""
    number = 1
    request.addfinalizer(gc.enable)
    gc.disable()
    while strike(number, function, path) is not None:
        number += min(stride, STRIDE)
    assert number > 2


# -- the end of the process ---------------------------------------------------------------------------


def test_at_exit_the_log_is_written_into_the_file(path: str) -> None:
    program = f"""
import sqlite3, sys, threading
from latchstore.sqlite.connections import Connections, Pinned
connections = Connections({path!r}, "NORMAL", 5.0)
connection = connections.take()
connection.execute("INSERT INTO t VALUES (2)")
connections.give(connection)
circle = [connections]
circle.append(circle)
del connection, connections, circle
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=TIMEOUT)
    assert not os.path.exists(f"{path}-wal")
    assert not os.path.exists(f"{path}-shm")
    connection = sqlite3.connect(path)
    assert numbers(connection) == [(1,), (2,)]
    connection.close()


def test_it_is_of_our_class(connections: Connections) -> None:
    connection = connections.take()
    assert type(connection) is Connection
    connections.give(connection)
