"""Every method, called by a signal handler or a finalizer in the middle of every other one.

tests/reentry/README.md has what is promised, and the whole table; ``python -m tests.reentry`` makes it. Here
each operation is tried with a sixth of all calls, and each call in a sixth of all operations, at one place at
least; LATCHSTORE_PAIRS_EVERY=1 tries each pair.
"""

from __future__ import annotations

import gc
import inspect
import itertools
import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import CodeType, FrameType
from typing import Any

import pytest

from latchstore import (
    Cache,
    DeadLetter,
    DictMemoryStore,
    EventManager,
    Job,
    Snapshot,
    StoreMapping,
    StoreView,
    Transaction,
    Watch,
    WorkQueue,
)
from latchstore.cache.memoizing import Memoized
from tests.interrupts.operations import GROUPS, OPERATIONS, subject_for
from tests.interrupts.subjects import TIMEOUT
from tests.reentry.caller import Caller
from tests.reentry.calls import CALLS, DISTURBING, OF_CACHES, OF_QUEUES, SLOW
from tests.reentry.pairs import Count, comes_in, run
from tests.reentry.ways import WAYS

#: Of how many pairs one is tried.
PAIRS_EVERY = int(os.environ.get("LATCHSTORE_PAIRS_EVERY", "6"))

#: How many more places than calls are passed over, so that each call comes at another one.
MORE = 5

#: How often an operation is run in which few calls can come, as few finalizers are called.
RUNS = 4

#: How many operations are tried by one test, at the most.
LARGEST = 12


@pytest.fixture(scope="module")
def other() -> Iterator[ThreadPoolExecutor]:
    """Another thread."""
    with ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.fixture(scope="module", autouse=True)
def _frozen_again() -> Iterator[None]:
    """Leave what pytest has collected out of the collector's rounds again, which `Collector` has put back."""
    yield
    gc.collect()
    gc.freeze()


def schedules() -> list[list[str]]:
    """Return all calls but the slow ones, by what a store has to have for them."""
    plain = [name for name in CALLS if name not in DISTURBING | OF_CACHES | OF_QUEUES | SLOW]
    cached = [name for name in CALLS if name in OF_CACHES - DISTURBING]
    return [plain, cached, sorted(OF_QUEUES), sorted(DISTURBING)]


def run_all(operation: str, names: list[str], way: str, other: ThreadPoolExecutor, contended: bool) -> Count:
    """Make each of some calls in the middle of an operation that is run as often as that needs."""
    count = Count()
    first = zlib.crc32(operation.encode()) % PAIRS_EVERY
    names = [name for name in names[first::PAIRS_EVERY] if comes_in(name, operation, way, contended)]
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


# -- what the tables have ------------------------------------------------------------------------------

#: The classes all of whose methods the tables have to call.
CLASSES = (
    DictMemoryStore,
    Transaction,
    Snapshot,
    Watch,
    EventManager,
    Cache,
    StoreMapping,
    StoreView,
    Memoized,
    WorkQueue,
    Job,
    DeadLetter,
)

#: What they need not call, of all classes or of one.
LEFT_OUT = {
    "Job.__enter__": "a block that is interrupted gives its job back: neither the state before nor after",
    "Job.__exit__": "calls `ack` or `end_after`, which are operations",
    "emits_itself": "is asked by the thread of events, in the middle of whose calls others come as well",
    "run": "starts threads and waits for all that they do",
    "check": "looks into everything, and is for tests",
    "__reduce__": "names a function, and touches no store",
    "__reduce_ex__": "raises that it cannot be pickled",
    "__aenter__": "raises that it is for `AsyncStore`",
    "__aexit__": "likewise",
    "__get__": "makes a method of a function when it is looked up",
    "__set_name__": "is called when a class is defined",
}


def methods(cls: type) -> dict[str, CodeType]:
    """Return public methods and properties of a class, and the special methods that are ours."""
    found = {}
    for name in dir(cls):
        member = inspect.getattr_static(cls, name)
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        code = getattr(function, "__code__", None)
        if code is None or (name.startswith("_") and not name.endswith("__")):
            continue
        if not name.startswith("_") or "latchstore" in code.co_filename:
            found[name] = code
    return found


def entered_by(calls: Iterable[Callable[[], object]]) -> set[CodeType]:
    """Make calls; return what was entered in this thread."""
    entered = set()

    def profile(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            entered.add(frame.f_code)

    for call in calls:
        sys.setprofile(profile)
        try:
            call()
        finally:
            sys.setprofile(None)
    return entered


def called_inside() -> Iterator[Callable[[], object]]:
    """Yield each call of the table, in a transaction if it is about the one that is open."""
    for name in CALLS:
        subject = subject_for("cache: get" if name in OF_CACHES else "from_bytes")
        caller = Caller(subject, [name])
        if name.startswith("of the open one"):
            with subject.store.transaction():
                yield caller.call
        else:
            yield caller.call
        caller.end()
        assert caller.wrong == []
        subject.store.close(TIMEOUT)


def operated() -> Iterator[Callable[[], object]]:
    """Yield each operation of the other table."""
    for name, operation in OPERATIONS.items():
        subject = subject_for(name)
        yield lambda operation=operation, subject=subject: operation(subject)  # type: ignore[misc]
        for undo in subject.undo:
            undo()
        subject.store.connect()
        subject.store.close(TIMEOUT)


@pytest.mark.parametrize("table", [called_inside, operated])
def test_each_public_method_is_in_the_table(table: Callable[[], Iterator[Callable[[], Any]]]) -> None:
    entered = entered_by(table())
    missing = {
        f"{cls.__name__}.{name}"
        for cls in CLASSES
        for name, code in methods(cls).items()
        if code not in entered and not {name, f"{cls.__name__}.{name}"} & LEFT_OUT.keys()
    }
    assert missing == set()
    assert {name.split(".")[-1] for name in LEFT_OUT} <= {name for cls in CLASSES for name in methods(cls)}


def test_a_pair_by_itself() -> None:
    """By the command that a failure prints."""
    words = [
        "--operation",
        "multiset",
        "--call",
        "from_bytes",
        "--call",
        "len",
        "--stride",
        "7",
        "--most",
        "3",
    ]
    command = [sys.executable, "-m", "tests.reentry.process", "signal handler", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 calls, 0 of them refused")


# -- each pair -----------------------------------------------------------------------------------------


def parts() -> Iterator[Any]:
    """Yield the operations of each group, of a large one in parts, which take long on a busy machine."""
    for group, operations in GROUPS.items():
        number = -(-len(operations) // LARGEST)
        for part in range(number):
            yield pytest.param([*operations][part::number], id=f"{group}, {part + 1} of {number}")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("operations", [*parts()])
def test_each_call_in_the_middle_of_each_operation(operations: list[str], other: ThreadPoolExecutor) -> None:
    """It is done at once or refused at once, nobody is held up, and nothing is lost."""
    count = Count()
    ways = itertools.cycle(itertools.product(WAYS, [False, True]))
    for operation in operations:
        for names in schedules():
            way, contended = next(ways)
            count.add(run_all(operation, names, way, other, contended))
    assert count.wrong == []
    assert count.made > 100 // PAIRS_EVERY


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


def test_clearing_a_mapping_passes_over_what_is_deleted_meanwhile(other: ThreadPoolExecutor) -> None:
    """By a call in the middle of it, which is a part of the same transaction."""
    count = run("mapping, clear", ["cache: set", "cache: delete"], "signal handler", other)
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
