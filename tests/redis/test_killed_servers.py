"""A server that is killed again and again, and writes each commit to disk first: no acknowledged one is lost.

``tox -e long`` sets LATCHSTORE_SERVER_KILLS to 50.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter

import pytest

from latchstore import EventManager, EventsLost, OutcomeUnknownError, RedisStore, TransactionConflictError
from tests.contract.stores import TIMEOUT
from tests.redis.servers import Server, preferred

KILLS = int(os.environ.get("LATCHSTORE_SERVER_KILLS", "3"))
WRITERS = 3

#: The most commits that are acknowledged before the server is killed.
COMMITS = 40


class Writer:
    """A thread that counts at two keys of its own, and knows which numbers may be there.

    Attributes
    ----------
    acknowledged : int
        The number of the last commit that has returned.
    sent : int
        That of the last one that was tried.
    raised : Counter
        What commits have raised.
    failure : BaseException or None
        What it has found that is wrong.
    """

    def __init__(self, number: int, server: Server, acknowledged: threading.Semaphore) -> None:
        self.keys = (f"w{number}/a", f"w{number}/b")
        self.acknowledged = self.sent = 0
        self.raised: Counter[type[BaseException]] = Counter()
        self.failure: BaseException | None = None
        self.over = threading.Event()
        self._server, self._signal, self._in_a_block = server, acknowledged, number % 2 == 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def join(self) -> None:
        """Have it end."""
        self.over.set()
        self._thread.join(2 * TIMEOUT)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            with RedisStore(
                self._server.url, EventManager(), namespace="killed", lock_timeout=TIMEOUT, lease=2
            ) as store:
                while not self.over.is_set():
                    self._count(store)
        except BaseException as error:
            self.failure = error

    def _count(self, store: RedisStore) -> None:
        self.sent += 1
        data = [b"%d" % self.sent] * 2
        try:
            if self._in_a_block:
                with store.transaction("counting"):
                    store.multiset_data(self.keys, data)
            else:
                store.multiset_data(self.keys, data)
        except (ConnectionError, OutcomeUnknownError, TransactionConflictError) as error:
            self.raised[type(error)] += 1
            if not isinstance(error, OutcomeUnknownError):
                self.sent -= 1  # it has had no effect
            return
        self.acknowledged = self.sent
        self._signal.release()


@pytest.mark.timeout(1_200)
def test_no_acknowledged_commit_is_lost() -> None:
    chance = random.Random(26)
    acknowledged = threading.Semaphore(0)
    with (
        Server(preferred(), "--appendonly", "yes", "--appendfsync", "always") as server,
        RedisStore(server.url, EventManager(), namespace="killed", history=10**6) as store,
    ):
        watch = store.watch()
        writers = [Writer(number, server, acknowledged) for number in range(WRITERS)]
        try:
            for _ in range(KILLS):
                for _ in range(chance.randint(1, COMMITS)):
                    assert acknowledged.acquire(timeout=2 * TIMEOUT)
                server.kill()
                server.start()
        finally:
            for writer in writers:
                writer.join()
        assert [writer.failure for writer in writers] == [None] * WRITERS
        for writer in writers:
            a, b = (int(store.to_bytes(key)) for key in writer.keys)
            assert a == b
            assert writer.acknowledged <= a <= writer.sent
        revision = store.info()["revision"]
        assert revision >= sum(writer.acknowledged for writer in writers)
        # The watch was not told of a gap, and has each commit once.
        seen: list[int | None] = []
        while len(seen) < 2 * revision:
            event = watch.get(TIMEOUT)
            assert not isinstance(event, EventsLost)
            seen.append(event.revision)
        assert seen == [number for number in range(1, revision + 1) for _ in range(2)]
