"""An exception before any bytecode of any operation leaves the store as before it or as after it.

Every bytecode that the package executes in the calling thread is tried, one after the other, each with a new
store: KeyboardInterrupt, what PyThreadState_SetAsyncExc raises, and MemoryError come at some of them only,
and which these are depends on the version of Python. By default one of twenty is, and each of those of
short operations; LATCHSTORE_STRIKE_EVERY=1 tries all, and ``python -m tests.interrupts`` writes the table
that is in tests/interrupts/README.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from latchstore.change_feed import ChangeBuffer, Commit, Interest
from latchstore.values import Entry
from tests.interrupts import Striker
from tests.interrupts.exhaustion import exhaust
from tests.interrupts.operations import OPERATIONS


@pytest.fixture(scope="module")
def other() -> Iterator[ThreadPoolExecutor]:
    """Another thread."""
    with ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_exception_before_any_bytecode(
    name: str, other: ThreadPoolExecutor, record_property: Callable[[str, object], None]
) -> None:
    answer = exhaust(name, other)
    record_property("injected", answer.struck)
    assert answer.damage == []
    assert answer.struck >= 5


def test_a_watch_reads_each_change_once_though_its_writer_is_struck() -> None:
    """Even if it reads between the writer's first attempt and the second."""
    number = struck = 0
    for options in ((10, False), (2, False), (1, True)):
        while True:
            number += 1
            buffer = ChangeBuffer(Interest("*", {}), *options)
            changes = [(f"k{each}", None, Entry()) for each in range(3)]
            expected = offered(options, changes)
            commit = Commit(1, changes, None)
            striker = Striker(number)
            with contextlib.suppress(KeyboardInterrupt), striker:
                buffer.offer(commit)
            read = taken_from(buffer)
            buffer.offer(commit)
            read += taken_from(buffer)
            if striker.place is None:
                number = 0
                break
            struck += 1
            assert read == expected, striker.place
    assert struck > 300


def offered(options: tuple[int, bool], changes: list[Any]) -> list[Any]:
    buffer = ChangeBuffer(Interest("*", {}), *options)
    buffer.offer(Commit(1, changes, None))
    return taken_from(buffer)


def taken_from(buffer: ChangeBuffer) -> list[Any]:
    found = []
    while (taken := buffer.take(0.0)) is not None:
        found.append(taken)
    return found
