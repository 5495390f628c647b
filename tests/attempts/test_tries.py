"""What ends the tries of a store in memory without a conflict."""

from __future__ import annotations

import itertools
import time

import pytest

from latchstore import DictMemoryStore, EventManager, LockTimeoutError
from tests.schedules import Actor


def test_a_lock_that_does_not_come_free_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    numbers: list[int] = []
    with DictMemoryStore(EventManager(), lock_timeout=0) as store, Actor(store) as holder:
        holder.begin("in the way")
        slept.clear()
        with pytest.raises(LockTimeoutError, match="in the way"):  # noqa: PT012 (the loop is what raises)
            for attempt in itertools.islice(store.attempts(), 3):
                with attempt:
                    numbers.append(attempt.number)
                    store.from_bytes("y", b"")
        assert not store.exists("y")
        assert store.info()["snapshots"] == 0
    assert numbers == [1]
    assert not any(slept)
