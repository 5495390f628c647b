"""`WithLock`, by which ``with`` is safe on 3.14: the lock it is made of, which no strike leaves taken."""

from __future__ import annotations

import inspect
import re
import sys
import threading
from pathlib import Path

import pytest

from latchstore.contract import with_lock
from latchstore.contract.with_lock import WITH_IS_A_CALL, WithLock, for_with
from latchstore.delivery.waiting import Bell
from tests.interrupts.striker import Striker
from tests.schedules import TIMEOUT, in_another_thread


def test_with_takes_the_lock_and_gives_it_back() -> None:
    lock = threading.Lock()
    guard = WithLock(lock)
    with guard:
        assert lock.locked()
        assert guard.locked()
        assert not guard.acquire(blocking=False)
    assert not lock.locked()
    assert guard.acquire()
    assert lock.locked()
    guard.release()
    assert not guard.locked()


def test_an_exception_in_the_block_gives_it_back() -> None:
    guard = WithLock(threading.Lock())
    with pytest.raises(KeyError), guard:
        raise KeyError
    assert not guard.locked()


def test_who_waits_gets_it() -> None:
    guard = WithLock(threading.Lock())
    entered = threading.Event()

    def enter() -> None:
        with guard:
            entered.set()

    thread = threading.Thread(target=enter, daemon=True)
    with guard:
        thread.start()
        assert not entered.is_set()
    assert entered.wait(TIMEOUT)
    thread.join(TIMEOUT)
    assert not thread.is_alive()


@pytest.mark.skipif(sys.version_info < (3, 14), reason="a reentrant lock has no `locked` there")
def test_a_reentrant_lock_stays_reentrant() -> None:
    guard = WithLock(threading.RLock())
    with guard, guard:
        assert not in_another_thread(lambda: guard.acquire(blocking=False))
    assert in_another_thread(lambda: guard.acquire(blocking=False) and guard.release() is None)


def test_only_where_with_begins_with_a_call_is_anything_put_in_between() -> None:
    lock = threading.Lock()
    made: object = for_with(lock)
    assert isinstance(made, WithLock) if WITH_IS_A_CALL else made is lock


@pytest.mark.parametrize("room", ["contract", "delivery", "engine", "cache"])
def test_all_locks_of_the_store_are_made_by_it(room: str) -> None:
    for path in Path(with_lock.__file__).parents[1].joinpath(room).rglob("*.py"):
        source = path.read_text("utf-8").replace(inspect.getsource(Bell), "")  # which no ``with`` acquires
        made = re.findall(r"(\S*)threading\.R?Lock\(\)", source)
        assert set(made) <= {"for_with("}, path


def use(lock: threading.Lock, used: list[bool]) -> None:
    """Pass the places at which an exception might leave a lock taken."""
    with lock:
        used.append(True)


class Struck(Exception):
    """An exception that is of nobody else."""


def test_no_strike_leaves_the_lock_taken() -> None:
    files = (Path(__file__), Path(with_lock.__file__))
    number, places = 1, set()
    while True:
        lock = for_with(threading.Lock())
        striker = Striker(number, Struck, files=files)
        try:
            with striker:
                use(lock, [])
        except Struck:
            pass
        assert not lock.locked(), striker.place
        if striker.place is None:
            break
        places.add(striker.place.split()[1])
        number += 1
    assert "use" in places
    assert ("WithLock.__enter__" in places) == WITH_IS_A_CALL
