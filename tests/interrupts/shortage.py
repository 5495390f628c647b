"""Memory that cannot be had: the n-th request of an operation fails, and perhaps some after it, for every n.

Each operation runs in a forked child: at some requests CPython itself crashes, in programs that have nothing
of ours (plain_memory.py). A child that crashes is followed by one that goes on after that request.
"""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from tests.interrupts.checks import check, outcomes_of
from tests.interrupts.exhaustion import Count
from tests.interrupts.helper import helper, shown
from tests.interrupts.operations import LEAVES_CLOSED, OPERATIONS, subject_for
from tests.interrupts.subjects import TIMEOUT
from tests.interrupts.waiting import WAITING

#: Operations that begin threads: ``Thread.start()`` waits for ever if the new one has no memory to begin.
THREADED = (*WAITING, *LEAVES_CLOSED)

#: Python gets over some failures by itself; after so many requests no more have come.
UNHEARD_OF = 30

#: Seconds after which a child that writes nothing is taken for stuck.
PATIENCE = 30

#: How many objects of a kind the interpreter keeps at most to give out again.
FREE = 2_000

SHORT_OF_MEMORY = [name for name in OPERATIONS if name not in THREADED]


def hoarded() -> list[object]:
    """Return so many small objects that the interpreter keeps none that was freed."""
    items = [0] * 8
    tuples = [tuple(items[:size]) for size in range(1, 8) for _ in range(FREE)]
    return [tuples, [{} for _ in range(100)], [[] for _ in range(100)], [float(each) for each in range(200)]]


#: What has one request fail, and some after it: given which, and how many. Returns whether one has failed,
#: and what was wrong.
Attempt = Callable[[int, int], tuple[bool, list[str]]]


def starve(name: str, failures: int, stride: int) -> tuple[Count, int]:
    """Have the requests of one operation fail, one after the other; return what was counted, and crashes.

    Parameters
    ----------
    failures : int
        How many requests in a row fail.
    stride : int
        Of how many requests one fails first.
    """
    return starve_in_children(name, partial(_operating, name), failures, stride)


def starve_in_children(
    name: str, begin: Callable[[], AbstractContextManager[Attempt]], failures: int, stride: int
) -> tuple[Count, int]:
    """Do so with what is begun in each child; none that is later than the last to be tried."""
    count = Count()
    crashes = 0
    first: int | None = 1 + len(name) % stride
    while first is not None:
        first, crashed = _starve_in_child(name, begin, failures, stride, first, count)
        crashes += crashed
    return count, crashes


def _starve_in_child(
    name: str,
    begin: Callable[[], AbstractContextManager[Attempt]],
    failures: int,
    stride: int,
    first: int,
    count: Count,
) -> tuple[int | None, bool]:
    """Begin with one request; return with which to go on, and whether the child has crashed."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(read)
            with begin() as attempt:
                _starve_from(attempt, failures, stride, first, write)
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    last = first
    for line in lines_of(read, child):
        number, failed, wrong = json.loads(line)
        last = max(last, number)
        count.struck += failed
        count.wrong += wrong
    os.close(read)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 0:
        return None, False
    if status == -9 or status > 0:
        what = "it is stuck" if status == -9 else f"the process ended with {status}"
        count.wrong.append(f"{name}, request {last}: {what}")
    return last + stride, True


def lines_of(
    read: int, child: int, ease: Callable[[int], object] = int, patience: float = PATIENCE
) -> Iterator[bytes]:
    """Return what a child writes; one that writes nothing for long is eased, and then killed."""
    rest = b""
    while True:
        ready, _, _ = select.select([read], [], [], PATIENCE / 10)
        if not ready:
            ease(child)
            ready, _, _ = select.select([read], [], [], patience)
        if not ready:
            os.kill(child, signal.SIGKILL)
        data = os.read(read, 65_536)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from lines


def _starve_from(attempt: Attempt, failures: int, stride: int, number: int, pipe: int) -> None:
    def tell(*words: Any) -> None:
        os.write(pipe, json.dumps(words).encode() + b"\n")

    unheard_of = 0
    while unheard_of * stride < max(UNHEARD_OF, 2 * stride):
        tell(number, 0, [])
        failed, wrong = attempt(number, failures)
        tell(number, int(failed), wrong)
        unheard_of = 0 if failed else unheard_of + 1
        number += stride


@contextmanager
def _operating(name: str) -> Iterator[Attempt]:
    """Give what has a request of an operation fail."""
    import _testcapi  # type: ignore[import-not-found]

    helper()
    outcomes_of(name)
    operation = OPERATIONS[name]

    def attempt(number: int, failures: int) -> tuple[bool, list[str]]:
        subject = subject_for(name)
        failed = False
        # Held meanwhile, so that no request is met by a tuple, list or dict that was freed before: the
        # end of a `with` on a lock needs a tuple of three.
        hoard = hoarded()
        _testcapi.set_nomemory(number, number + failures)
        try:
            operation(subject)
        except Exception:
            # MemoryError, or what the interpreter makes of it.
            failed = True
        finally:
            _testcapi.remove_mem_hooks()
        del hoard
        try:
            check(name, subject, other)
        except Exception as error:
            return failed, [f"{name}, request {number} and {failures - 1} more: {shown(error)}"]
        return failed, []

    with ThreadPoolExecutor(1) as other:
        other.submit(int).result(TIMEOUT)
        yield attempt
