"""Forks: what a child may use, and that the kernel has its locks."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from latchstore import (
    EventManager,
    LockTimeoutError,
    SnapshotClosedError,
    SqliteStore,
    StoreError,
)
from latchstore.sqlite import connections as module
from latchstore.sqlite.connections import Connections, Pinned
from tests.fork.children import in_child
from tests.schedules import TIMEOUT, Actor

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

#: All rows have the number of the last commit.
MAKE = """
PRAGMA journal_mode = WAL;
CREATE TABLE t (n, filling);
WITH RECURSIVE c (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 200)
INSERT INTO t SELECT 0, zeroblob(400) FROM c;
"""
NUMBERS = "SELECT DISTINCT n FROM t"


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = str(tmp_path / "store")
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(MAKE)
    connection.close()
    return path


def numbers(connection: sqlite3.Connection) -> list[int]:
    return [number for (number,) in connection.execute(NUMBERS).fetchall()]


def begin(connection: sqlite3.Connection) -> list[int]:
    connection.execute("BEGIN")
    return numbers(connection)


def read(connections: Connections) -> list[int]:
    connection = connections.take()
    try:
        return numbers(connection)
    finally:
        connections.give(connection)


#: A process with an open snapshot and a thread that reads; and its child, which opens a snapshot of its own,
#: and reads it again when the parent has written, written back, and closed all that it has.
PROGRAM = """
import os, sqlite3, sys, threading
path, handler = sys.argv[1:]
import latchstore
if handler == "without":
    os.register_at_fork = lambda **functions: None
from latchstore.sqlite.connections import Connections, Pinned

connections = Connections(path, "NORMAL", 5.0)

def advance(number):
    connection = connections.take()
    connection.execute("UPDATE t SET n = ?, filling = zeroblob(400)", (number,))
    connections.give(connection)

def numbers(connection):
    return [number for (number,) in connection.execute("SELECT DISTINCT n FROM t").fetchall()]

def begin(connection):
    connection.execute("PRAGMA cache_size = 1")  # the pages are read from the files each time
    connection.execute("BEGIN")
    return numbers(connection)

def locked(name):
    "Return whether this process has locks on a file, as far as the kernel knows."
    inode = os.stat(name).st_ino
    lines = [line.split() for line in open("/proc/locks") if "->" not in line]
    return any(int(line[4]) == os.getpid() and line[5].endswith(f":{inode}") for line in lines)

advance(1)
advance(2)
pinned = Pinned(connections)
assert pinned.run(begin) == [2]
over = threading.Event()

def keep_reading():
    while not over.is_set():
        connection = connections.take()
        numbers(connection)
        connections.give(connection)

thread = threading.Thread(target=keep_reading)
thread.start()
if handler == "without":
    over.set()
    thread.join()
to_child, from_parent = os.pipe(), os.pipe()
pid = os.fork()
if not pid:
    try:
        own = Pinned(connections)
        first = own.run(begin)
        facts = [f"{first}", f"database locked {locked(path)}", f"index locked {locked(path + '-shm')}"]
        os.write(from_parent[1], b"x")
        os.read(to_child[0], 1)
        try:
            facts += [f"again {own.run(numbers)}", f"log {os.path.exists(path + '-wal')}"]
        except sqlite3.Error as error:
            facts.append(f"again {error!r}")
        print(*facts, sep="; ", flush=True)
    finally:
        os._exit(0)
over.set()
thread.join()
os.read(from_parent[0], 1)
pinned.close()
for number in range(3, 30):
    advance(number)
    connection = connections.take()
    if number % 10 == 9:
        connection.execute("PRAGMA busy_timeout = 0")
        ((busy, _, _),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connections.give(connection)
print("busy", busy, flush=True)
connections.close()
os.write(to_child[1], b"x")
os.waitpid(pid, 0)
"""


def run(path: str, handler: str) -> tuple[str, str]:
    """Return what the child tells, and what the parent does."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, path, handler],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    parent, child = done.stdout.splitlines()
    return parent, child


def integrity(path: str) -> list[str]:
    connection = sqlite3.connect(path)
    try:
        return [row[0] for row in connection.execute("PRAGMA integrity_check")]
    finally:
        connection.close()


needs_proc = pytest.mark.skipif(not os.path.exists("/proc/locks"), reason="needs the kernel's list of locks")


@needs_proc
def test_the_kernel_has_the_locks_of_a_child(path: str) -> None:
    parent, child = run(path, "with")
    assert child == "[2]; database locked True; index locked True; again [2]; log True"
    assert parent == "busy 1"  # as the child was reading what would have been overwritten
    assert integrity(path) == ["ok"]


@needs_proc
def test_without_the_handlers_it_has_none(path: str) -> None:
    """The test above is worth something: this is what SQLite does with what it has inherited."""
    parent, child = run(path, "without")
    assert child.startswith("[2]; database locked False; index locked False; again ")
    assert not child.endswith("again [2]; log True")
    assert parent == "busy 0"


def test_the_child_uses_the_file_and_the_parent_goes_on(path: str) -> None:
    connections = Connections(path, "NORMAL", 5.0)
    pinned = Pinned(connections)
    pinned.run(begin)
    read(connections)

    def child() -> None:
        with pytest.raises(SnapshotClosedError, match="in the parent of this forked process"):
            pinned.run(numbers)
        assert read(connections) == [0]
        own = Pinned(connections)
        assert own.run(begin) == [0]
        assert in_child(lambda: read(connections)) == ""  # a child of its own
        assert own.run(numbers) == [0]
        own.close()
        connections.close()

    assert in_child(child) == ""
    writer = connections.take()
    writer.execute("UPDATE t SET n = 1")
    connections.give(writer)
    assert pinned.run(numbers) == [0]
    pinned.close()
    assert read(connections) == [1]
    connections.close()
    assert integrity(path) == ["ok"]


def test_children_beside_busy_threads(path: str) -> None:
    connections = Connections(path, "OFF", 5.0)
    over = threading.Event()
    failures: list[BaseException] = []

    def keep(function: object) -> None:
        try:
            while not over.is_set():
                assert callable(function)
                function()
        except BaseException as error:
            failures.append(error)

    def advance() -> None:
        connection = connections.take()
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE t SET n = n + 1")
            connection.execute("COMMIT")
        finally:
            connection.rollback()
            connections.give(connection)

    def look() -> None:
        pinned = Pinned(connections)
        assert pinned.run(begin) == pinned.run(numbers)
        pinned.close()

    def child() -> None:
        for _ in range(3):
            assert len(read(connections)) == 1
            look()
            advance()
        connections.close()

    functions = [advance, look, lambda: read(connections)]
    threads = [threading.Thread(target=keep, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    told = [in_child(child) for _ in range(10)]
    over.set()
    for thread in threads:
        thread.join(TIMEOUT)
    assert failures == []
    assert told == [""] * 10
    assert read(connections)[0] >= 30
    connections.close()
    assert integrity(path) == ["ok"]


def refused(connections: Connections) -> None:
    for path in (connections.path, os.path.realpath(connections.path)):
        for each in (connections, Connections(path, "NORMAL", 5.0)):
            with pytest.raises(StoreError, match="cannot be used in this forked process: at the fork"):
                each.take()


def test_a_call_that_lasts_too_long(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORK_TIMEOUT", 0.2)
    connections = Connections(path, "NORMAL", 5.0)
    reading, over = threading.Event(), threading.Event()

    def use() -> None:
        connection = connections.take()
        reading.set()
        assert over.wait(TIMEOUT)
        connections.give(connection)

    thread = threading.Thread(target=use)
    thread.start()
    assert reading.wait(TIMEOUT)
    assert in_child(lambda: refused(connections)) == ""
    assert read(connections) == [0]
    over.set()
    thread.join(TIMEOUT)
    assert in_child(lambda: read(connections)) == ""
    connections.close()


@pytest.mark.parametrize("pinned", [False, True])
def test_a_fork_in_the_middle_of_a_call_of_its_own_thread(
    path: str, monkeypatch: pytest.MonkeyPatch, pinned: bool
) -> None:
    monkeypatch.setattr(module, "FORK_TIMEOUT", 10_000)  # it does not wait for itself
    connections = Connections(path, "NORMAL", 5.0)

    def fork(connection: sqlite3.Connection) -> str:
        return in_child(lambda: refused(connections))

    if pinned:
        user = Pinned(connections)
        assert user.run(fork) == ""
        assert user.run(begin) == [0]
        user.close()
    else:
        connection = connections.take()
        assert fork(connection) == ""
        assert numbers(connection) == [0]
        connections.give(connection)
    connections.close()


def test_a_store_in_a_child(path: str, tmp_path: Path) -> None:
    """A child has no part in what the parent's threads are in the middle of, and waits for it like others."""
    store = SqliteStore(tmp_path / "shared", EventManager(), lock_timeout=0.2, durability="off")
    store.from_bytes("k", b"before")
    snapshot = store.snapshot()
    watch = store.watch()
    with Actor(store, "writer") as writer:
        writer.begin("moving", timeout=5)
        writer.do(lambda: store.from_bytes("k", b"moved"))

        def child() -> None:
            assert store.to_bytes("k") == b"before"
            with pytest.raises(SnapshotClosedError):
                snapshot.to_bytes("k")
            with pytest.raises(LockTimeoutError, match=rf"process {os.getppid()}, thread 'writer.*'moving'"):
                store.from_bytes("other", b"")
            with store.snapshot() as own:
                assert own.to_bytes("k") == b"before"

        assert in_child(child) == ""
        writer.commit()
    assert in_child(lambda: store.from_bytes("from the child", b"1")) == ""
    assert snapshot.to_bytes("k") == b"before"
    changes = [watch.get(TIMEOUT) for _ in range(2)]
    assert [getattr(change, "key", None) for change in changes] == ["k", "from the child"]
    snapshot.close()
    store.close()
