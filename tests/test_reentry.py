"""Every method, called by a signal handler or a finalizer in the middle of every other one.

tests/reentry/README.md has what is promised, and the whole table; ``python -m tests.reentry`` makes it. Here
each pair is tried at one place at least.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.interrupts.operations import GROUPS
from tests.reentry.calls import CALLS, DISTURBING, OF_CACHES, SLOW
from tests.reentry.pairs import Count, comes_in, run
from tests.reentry.ways import WAYS

#: How many more places than calls are passed over, so that each call comes at another one.
MORE = 5

#: How often an operation is run in which few calls can come, as few finalizers are called.
RUNS = 4


@pytest.fixture(scope="module")
def other() -> Iterator[ThreadPoolExecutor]:
    """Another thread."""
    with ThreadPoolExecutor(1) as executor:
        yield executor


def schedules() -> list[list[str]]:
    """Return all calls but the slow ones, by what a store has to have for them."""
    plain = [name for name in CALLS if name not in DISTURBING | OF_CACHES | SLOW]
    cached = [name for name in CALLS if name in OF_CACHES - DISTURBING]
    return [plain, cached, sorted(DISTURBING)]


def run_all(operation: str, names: list[str], way: str, other: ThreadPoolExecutor, contended: bool) -> Count:
    """Make each of some calls in the middle of an operation that is run as often as that needs."""
    count = Count()
    names = [name for name in names if comes_in(name, operation, way, contended)]
    stride, shift = 1, zlib.crc32(operation.encode())
    all_of_them = way in ("signal handler", "collector")
    runs = 0
    while names and (all_of_them or runs < RUNS):
        runs += 1
        found = run(
            operation,
            names,
            way,
            other,
            contended=contended,
            stride=stride,
            first=shift % stride,
            most=len(names),
        )
        count.add(found)
        if found.wrong or found.made == 0:
            break
        names = names[found.made :]
        stride = max(1, found.passed // (len(names) + MORE))
    return count


@pytest.mark.timeout(300)
@pytest.mark.parametrize("group", GROUPS)
def test_each_call_in_the_middle_of_each_operation(group: str, other: ThreadPoolExecutor) -> None:
    """It is done at once or refused at once, nobody is held up, and nothing is lost."""
    count = Count()
    ways = itertools.cycle(itertools.product(WAYS, [False, True]))
    for operation in GROUPS[group]:
        for names in schedules():
            way, contended = next(ways)
            count.add(run_all(operation, names, way, other, contended))
    assert count.wrong == []
    assert count.made > 100


@pytest.mark.parametrize("outer", ["transaction", "transaction, optimistic", "attempts", "mapping, update"])
@pytest.mark.parametrize("inner", ["transaction, optimistic", "transaction", "attempts"])
def test_a_block_in_the_middle_of_entering_another_one_leaves_its_calls_to_it(
    outer: str, inner: str, other: ThreadPoolExecutor
) -> None:
    """The calls of the outer block go to it, and not past it to the store."""
    count = run(outer, [inner], "signal handler", other)
    assert count.wrong == []
    assert count.made > 10


def test_what_ends_the_transaction_of_a_removal_does_not_keep_out_later_loads(
    other: ThreadPoolExecutor,
) -> None:
    """Though the error of the removal is kept, and with it all that the removal had."""
    count = Count()
    for first in range(4):
        count.add(
            run("cache: clear", ["of the open one: commit"], "signal handler", other, stride=4, first=first)
        )
    assert count.wrong == []
    assert count.made > 10


def test_flush_while_this_thread_starts_the_one_of_events_is_refused(other: ThreadPoolExecutor) -> None:
    """One call alone: what comes before would have the thread started already."""
    name = "thread of events begun again"
    places = run(name, ["info"], "signal handler", other).passed
    for first in range(places - 60, places):
        count = run(name, ["flush"], "signal handler", other, first=first, most=1)
        assert count.wrong == []


def test_what_a_finalizer_writes_while_the_thread_of_events_begins_does_not_wait_for_its_start(
    other: ThreadPoolExecutor,
) -> None:
    """The thread that starts it holds the latch until it delivers."""
    for call in ("from_bytes", "transaction", "flush", "call_later"):
        count = run("thread of events begun again", [call], "collector, in the thread of events", other)
        assert count.wrong == []
