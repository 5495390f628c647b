"""The table of places where CPython raises is what this CPython does: measured, not read.

An exception is set before each bytecode of a small function that has every kind of call, loop and ``with``,
and the place is noted at which the interpreter raises it; likewise for signals at random moments.
"""

from __future__ import annotations

import ctypes
import dis
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any

import pytest

from latchstore.contract.with_lock import for_with
from tests.interrupts import places
from tests.interrupts.striker import set_exception


class Managed:
    """A context manager written in Python."""

    def __enter__(self) -> Managed:
        return self

    def __exit__(self, *details: object) -> None:
        return None


def called(number: int = 1, *more: int) -> int:
    return number + len(more)


def generated(items: list[int]) -> Iterator[int]:
    for item in items:
        yield item + 0
    yield from iter(items)


def everything(lock: Any, items: list[int], nothing: Any) -> int:
    """Pass every kind of place."""
    number = 0
    with lock:
        number += len(items)
        for item in items:
            number += item
    while number > 3:
        number -= 1
    left: Any = items.copy()
    while left is not None:
        left = left[1:] or None
    while nothing is None:
        number += 1
        nothing = items if number > 9 else None
    called()
    called(*items)
    len(*[items])
    called(number=3)
    dict([("item", 1)], number=3)  # a call of C with a keyword
    with Managed() as managed:
        kept = [item for item in items if item]
    try:
        managed.missing  # type: ignore[attr-defined]
    except AttributeError:
        number = abs(number)
    finally:
        number = abs(number)
    for item in generated(items):
        number += item
    return number + sum(each for each in kept)


def keyword(setting: Iterator[object]) -> None:
    """Call a function of C with a keyword, after what the iterator does.

    From 3.14 on only the specialised instruction checks, and while any thread is traced none is specialised.
    """
    [*setting]
    dict([("item", 1)], number=3)


def place_in_keyword() -> int:
    """Return the offset at which `keyword` raises what is set at its beginning; called in a new process."""
    for _ in range(100):
        keyword(iter(()))
    try:
        keyword(setting_one())
        len("")
    except KeyboardInterrupt as error:
        return place_of(error.__traceback__)[1]
    return -1


def place_in_a_new_process() -> int:
    """Return the offset in `keyword` in a process in which nothing has ever been traced."""
    code = "from tests.test_interrupt_places import place_in_keyword as place; print(place())"
    root = Path(__file__).parents[1]
    return int(
        subprocess.run([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, check=True).stdout
    )


def codes() -> set[CodeType]:
    """Return the function's code, and that of what it calls."""
    functions = (everything, keyword, called, generated, Managed.__enter__, Managed.__exit__)
    found = [each.__code__ for each in functions]
    for code in found:
        found += [each for each in code.co_consts if isinstance(each, CodeType)]
    return set(found)


CODES = codes()


def place_of(traceback: TracebackType | None) -> tuple[CodeType, int]:
    """Return where something was raised, in the innermost of the functions above."""
    place = None
    while traceback is not None:
        if traceback.tb_frame.f_code in CODES:
            place = (traceback.tb_frame.f_code, traceback.tb_lasti)
        traceback = traceback.tb_next
    assert place is not None
    return place


def is_known(code: CodeType, offset: int) -> bool:
    """Tell whether the table has a place."""
    if dis.opname[code.co_code[offset]] == places.ENTRY:
        return code.co_code[offset + 1] & 3 in (0, 1)
    return offset in places.checks(code)


def setting_one() -> Iterator[object]:
    """Return what sets an exception when it is iterated over."""
    ident, kind = ctypes.c_ulong(threading.get_ident()), ctypes.py_object(KeyboardInterrupt)
    return map(set_exception, [ident], [kind])


def raised_before(number: int) -> tuple[CodeType, int] | None:
    """Set an exception before one bytecode; return where it is raised, None if there are no so many."""
    setting = setting_one()
    passed = 0

    def before(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal passed
        if event == "opcode":
            passed += 1
            if passed == number:
                frame.f_trace_opcodes = False  # else 3.15 checks at the beginning of a `with`
                sys.settrace(None)
                # Not a call, at whose end it would be raised in this function.
                [*setting]
                return None
        return before

    def entered(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code not in CODES:
            return None
        frame.f_trace = before
        frame.f_trace_opcodes = True
        return before

    lock = for_with(threading.Lock())
    traced = sys.gettrace()
    sys._getframe().f_trace_opcodes = True
    try:
        sys.settrace(entered)
        everything(lock, [1, 0, 2], None)
        sys.settrace(None)
        len("")  # where what was set after all other places comes
    except KeyboardInterrupt as error:
        assert not lock.locked()
        return None if is_over(error) else place_of(error.__traceback__)
    finally:
        sys.settrace(traced)
    return None


def is_over(error: BaseException) -> bool:
    """Tell whether the function was left already."""
    traceback = error.__traceback__
    return traceback is None or traceback.tb_next is None


@pytest.mark.filterwarnings("ignore")
def test_what_is_pending_is_raised_at_the_places_of_the_table_and_at_each_of_its_instructions() -> None:
    for _ in range(100):
        everything(for_with(threading.Lock()), [1, 0, 2], None)  # the interpreter specialises what runs often
    found = {(keyword.__code__, place_in_a_new_process())}
    number = 1
    while (place := raised_before(number)) is not None:
        found.add(place)
        number += 1
    assert number > 150
    assert [where(*place) for place in found if not is_known(*place)] == []
    had = {dis.opname[code.co_code[offset]] for code in CODES for offset in places.checks(code)}
    raised = {dis.opname[code.co_code[offset]] for code, offset in found}
    assert had | {places.ENTRY} == raised
    assert had >= places.checks_of_this_python()


def where(code: CodeType, offset: int) -> str:
    return f"{code.co_qualname} {offset} {dis.opname[code.co_code[offset]]}"


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers of Unix")
def test_signals_are_raised_at_the_places_of_the_table() -> None:
    chance = random.Random(1)
    found = set()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if frame is not None and frame.f_code in CODES:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(3_000):
            lock = for_with(threading.Lock())
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 6e-5))
                for _ in range(10):
                    everything(lock, [1, 0, 2], None)
            except KeyboardInterrupt as error:
                found.add(place_of(error.__traceback__))
            assert not lock.locked()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(found) > 10
    assert [where(*place) for place in found if not is_known(*place)] == []
