"""Records a schedule for reports: where each thread lost its turn, and its reads and writes before that.

Thread safety: as in ``scheduler.py``: the thread that has the turn may access everything. Single operations
of a dict cache the actions of code objects.
"""

from __future__ import annotations

import dis
import linecache
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import TYPE_CHECKING

from latchstore.stress.lock_order import place_of
from latchstore.stress.places import is_shared, name_of
from latchstore.stress.result import Access, Step
from latchstore.stress.standstill import holder_of

if TYPE_CHECKING:
    from latchstore.stress.tasks import Task

#: Maximum characters of an access's source.
_LONGEST = 100

_OURS = str(Path(__file__).parents[1])

#: The actions of bytecodes, by parts of their names; the first match counts.
_DOES = (
    ("STORE_", "writes"),
    ("DELETE_", "deletes"),
    ("BEFORE_WITH", "enters"),
    ("CALL", "calls"),
    ("ATTR", "reads"),
    ("METHOD", "reads"),
    ("SUBSCR", "reads"),
    ("SLICE", "reads"),
    ("CONTAINS_OP", "reads"),
    ("FOR_ITER", "reads"),
)

#: The beginnings of the names of bytecodes that change variables of the thread's own.
_OF_ITS_OWN = ("STORE_FAST", "STORE_DEREF", "STORE_NAME", "DELETE_FAST")


class StepRecorder:
    """Records the steps of one run.

    Parameters
    ----------
    frame_of : callable
        Returns the innermost frame of a task in the code under test.
    last_tick : callable
        Returns the last time at which an operation began or ended. It does not advance the clock: a recorded
        run must be the same as one without recording.
    """

    def __init__(self, frame_of: Callable[[Task], FrameType | None], last_tick: Callable[[], int]) -> None:
        self._frame_of = frame_of
        self._last_tick = last_tick
        self._accesses: list[Access] = []
        self.steps: list[Step] = []

    def note(self, frame: FrameType) -> None:
        """Record the action of the bytecode that runs next."""
        action = _actions_of(frame.f_code).get(frame.f_lasti)
        if action is None:
            return
        does, text = action
        access = Access(self._last_tick(), place_of(frame), does, text, is_ours(frame.f_code))
        last = self._accesses[-1] if self._accesses else None
        if last is not None and last.where == access.where and _is_part(last, access):
            self._accesses.pop()
        self._accesses.append(access)

    def enter(self) -> None:
        """Drop the call that has led into code under test, as the actions of that code follow."""
        if self._accesses and self._accesses[-1].does == "calls":
            self._accesses.pop()

    def end_turn(self, task: Task) -> None:
        """Record the turn of a task that passes it on."""
        accesses, self._accesses = tuple(self._accesses), []
        if task.number == 0:
            return  # it only waits for other threads
        time, frame = self._last_tick(), None if task.done else self._frame_of(task)
        if frame is None:
            self.steps.append(Step(task.shown, "", "ends" if task.done else "begins", time, accesses))
            return
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        label = getattr(task.waiting, "label", None)
        if label is not None:
            holder = holder_of(task.waiting)
            what = label if holder is None else f"the lock of {label}, held by thread {holder.shown}"
            line += f"  (waits for {what})"
        ours = is_ours(frame.f_code)
        self.steps.append(Step(task.shown, place_of(frame), line, time, accesses, ours))


def is_ours(code: CodeType) -> bool:
    """Return whether code is of this package."""
    return code.co_filename.startswith(_OURS)


def _is_part(last: Access, access: Access) -> bool:
    """Return whether an access is of a part of the next one's expression, or the same one again."""
    if (last.does, last.text) == (access.does, access.text):
        return True
    longer = len(access.text) > len(last.text) or access.does == "enters"
    return last.does == "reads" and longer and last.text in access.text


_actions: dict[CodeType, dict[int, tuple[str, str]]] = {}


def _actions_of(code: CodeType) -> dict[int, tuple[str, str]]:
    """Return by offset the actions of bytecodes that may touch shared state, with their source."""
    found = _actions.get(code)
    if found is None:
        found = {}
        entered = set()
        previous = ""
        for instruction in dis.get_instructions(code):
            name, before, previous = name_of(instruction), previous, instruction.opname
            does = next((does for part, does in _DOES if part in name), None)
            if does is None or (name.startswith(_OF_ITS_OWN) and not is_shared(instruction, code)):
                continue
            text = _source_of(code, instruction.positions)
            if before == "LOAD_SPECIAL" and does == "calls":
                does = "enters"  # as of Python 3.14
            if does == "enters":
                entered.add(instruction.positions)
            elif does == "calls" and instruction.positions in entered:
                does = "leaves"  # the end of a with statement has the position of its beginning
            if does in ("enters", "leaves") or instruction.opname == "FOR_ITER":
                # On Python 3.11 the position is that of the whole statement; only its first line is kept.
                text = _first_line(code, instruction.positions).removeprefix("with ")
                text = text.partition(": ")[0].rstrip(":")
            text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
            # A comprehension is not an access, but expressions in it are.
            if text and not (text[0] in "([{" and (does == "calls" or instruction.opname == "FOR_ITER")):
                found[instruction.offset] = does, text
        _actions[code] = found
    return found


def _first_line(code: CodeType, positions: dis.Positions | None) -> str:
    if positions is not None and positions.lineno != positions.end_lineno:
        return linecache.getline(code.co_filename, positions.lineno or 0)[positions.col_offset or 0 :].strip()
    return _source_of(code, positions)


def _source_of(code: CodeType, positions: dis.Positions | None) -> str:
    if positions is None or None in positions:
        return ""
    first, last, begin, end = positions
    assert first is not None
    assert last is not None
    # Columns count bytes.
    lines = [linecache.getline(code.co_filename, line).encode() for line in range(first, last + 1)]
    lines[-1] = lines[-1][:end]
    lines[0] = lines[0][begin:]
    return " ".join(line.decode(errors="replace").strip() for line in lines)
