"""Threads that write at the same time: each gets its turn."""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path

import pytest

from latchstore import EventManager, LockTimeoutError, SqliteStore
from latchstore.engine.owned import Block
from latchstore.engine.owner import Claim, Route
from latchstore.engine.turns import Turns
from tests.sqlite.other_process import TIMEOUT

#: What those wait for whose turns are looked at.
CLAIM = Claim(Block(), deque[Route]().append, "a write")


class TestTurns:
    def test_who_came_first_may_try(self) -> None:
        turns = Turns()
        first, second = turns.join([], CLAIM), turns.join([], CLAIM)
        first.since -= 1
        assert [turns.may_try(each) for each in (None, first, second)] == [False, True, False]

    def test_others_may_go_before_for_a_moment(self) -> None:
        turns = Turns()
        first = turns.join([], CLAIM)
        first.since += 1_000
        assert turns.may_try(None)

    def test_a_turn_that_is_over_keeps_nobody_waiting(self) -> None:
        """Though somebody holds it: a traceback that is kept, say."""
        turns = Turns()
        left: list[None] = []
        first, second = turns.join(left, CLAIM), turns.join([], CLAIM)
        first.since -= 1
        assert not turns.may_try(second)
        left.clear()
        assert first.is_over
        assert turns.may_try(second)
        turns.ring()
        assert second.sleep(TIMEOUT) > 0

    def test_sleeping(self) -> None:
        turn = Turns().join([], CLAIM)
        assert turn.sleep(0.0) == 0
        assert turn.sleep(-1) == -1


class TestThreads:
    def test_no_writer_is_kept_out_by_others(self, store: SqliteStore) -> None:
        """They go on writing until each has written; a thread that never got in would be waited for."""
        wanted, counts = 15, [0] * 4
        barrier = threading.Barrier(len(counts))

        def write(number: int) -> None:
            barrier.wait(TIMEOUT)
            while min(counts) < wanted:
                store.from_bytes(f"k{number}", b"x")
                counts[number] += 1

        threads = [threading.Thread(target=write, args=(number,)) for number in range(len(counts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
        assert min(counts) >= wanted
        assert store.info()["revision"] == sum(counts)

    def test_a_thread_that_has_waited_too_long(self, path: Path) -> None:
        with (
            SqliteStore(path, EventManager(), durability="off", lock_timeout=0.05) as store,
            store.transaction("long"),
        ):
            raised: list[LockTimeoutError] = []

            def write() -> None:
                with pytest.raises(LockTimeoutError, match=r"from_bytes: no write lock in 0\.05 s") as caught:
                    store.from_bytes("a", b"1")
                raised.append(caught.value)

            thread = threading.Thread(target=write)
            thread.start()
            thread.join(TIMEOUT)
            assert "transaction 'long'" in str(raised[0])
            assert "MainThread" in str(raised[0])
