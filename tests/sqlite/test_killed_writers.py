"""Processes that write are killed at random moments: nothing that was acknowledged is lost, nothing is torn.

``tox -e long`` sets LATCHSTORE_KILLS to 200.
"""

from __future__ import annotations

import os
import random
import select
import signal
import sqlite3
import struct
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from latchstore import EventManager, EventsLost, SqliteStore, StoreEvent, Watch
from tests.sqlite.other_process import TIMEOUT

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

KILLS = int(os.environ.get("LATCHSTORE_KILLS", "10"))
WRITERS = 3

#: The most commits of a writer before one is killed.
COMMITS = 12

_NUMBER = struct.Struct("q")


class Writer:
    """A forked process that counts: a commit puts the next number at two keys of its own, and adds to a sum.

    Attributes
    ----------
    name : str
        What its keys begin with.
    acknowledged : int
        The number of the last commit that has returned.
    """

    def __init__(self, name: str, path: Path, commit: Callable[[SqliteStore, str, int], None]) -> None:
        self.name = name
        self.acknowledged = 0
        self.pipe, write = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # to fork beside threads is what this does
            self._pid = os.fork()
        if not self._pid:
            self._count(path, commit, write)
        os.close(write)

    def _count(self, path: Path, commit: Callable[[SqliteStore, str, int], None], write: int) -> None:
        """Count on and on, in the child."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(600)
        try:
            store = SqliteStore(path, EventManager(), durability="full", history=10**6)
            number = 0
            while True:
                number += 1
                commit(store, self.name, number)
                os.write(write, _NUMBER.pack(number))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)

    def read(self) -> None:
        """Read one acknowledgement."""
        self.acknowledged = self._read() or self.acknowledged

    def _read(self) -> int | None:
        found = os.read(self.pipe, _NUMBER.size)
        return _NUMBER.unpack(found)[0] if found else None

    def kill(self) -> bool:
        """End it as ``kill -9`` does, and read what it has acknowledged; return whether that has ended it."""
        os.kill(self._pid, signal.SIGKILL)
        _, status = os.waitpid(self._pid, 0)
        while (number := self._read()) is not None:
            self.acknowledged = number
        os.close(self.pipe)
        return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def in_a_transaction(store: SqliteStore, name: str, number: int) -> None:
    with store.transaction(name):
        total = int(store.to_bytes("total")) + 1
        store.multiset_data([f"{name}/a", f"{name}/b", "total"], [b"%d" % number] * 2 + [b"%d" % total])


def in_attempts(store: SqliteStore, name: str, number: int) -> None:
    for attempt in store.attempts(name, tries=10_000):
        with attempt:
            in_a_transaction(store, name, number)


def read_on(watch: Watch, last: int, until: int) -> int:
    """Read changes up to a revision: three of each commit, and no commit is left out unless that is told."""
    count = 3
    while last < until or count < 3:
        change = watch.get(TIMEOUT)
        if isinstance(change, EventsLost):
            assert change.first_revision == last + 1
            last, count = change.last_revision, 3
            continue
        assert isinstance(change, StoreEvent)
        assert change.revision is not None
        if count == 3:
            assert change.revision == last + 1
            last, count = change.revision, 0
        assert change.revision == last
        count += 1
    return last


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("commit", [in_a_transaction, in_attempts])
def test_acknowledged_commits_are_whole_and_there(
    path: Path, commit: Callable[[SqliteStore, str, int], None]
) -> None:
    chance = random.Random(25)
    with SqliteStore(path, EventManager(), history=10**6) as store:
        store.from_bytes("total", b"0")
        first = last = store.info()["revision"]
        watch = store.watch(since=first)
        writers = [Writer(f"w{number}", path, commit) for number in range(WRITERS)]
        total = 0
        for number in range(KILLS + WRITERS):
            for _ in range(chance.randint(1, COMMITS)):
                ready, _, _ = select.select([writer.pipe for writer in writers], [], [], TIMEOUT)
                assert ready
                for writer in writers:
                    if writer.pipe in ready:
                        writer.read()
            victim = writers.pop(chance.randrange(len(writers)))
            assert victim.kill()
            a, b = (int(store.to_bytes(key)) if store.exists(key) else 0 for key in keys_of(victim))
            assert a == b
            assert a in (victim.acknowledged, victim.acknowledged + 1)
            total += a
            if number < KILLS:
                writers.append(Writer(f"w{number + WRITERS}", path, commit))
            if not writers:
                break
            if chance.random() < 0.5:  # the watch of this process goes on, or another one goes on from there
                watch.close()
                watch = store.watch(since=last)
            last = read_on(watch, last, store.info()["revision"])
        assert int(store.to_bytes("total")) == total
        assert read_on(watch, last, store.info()["revision"]) == first + total
        watch.close()
        with store.watch(since=first) as again:
            assert read_on(again, first, first + total) == first + total
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def keys_of(writer: Writer) -> tuple[str, str]:
    return f"{writer.name}/a", f"{writer.name}/b"
