"""What people read of a schedule: where each thread lost its turn, and what it read and wrote before.

Thread safety: as in ``scheduler.py``: whoever has the turn may touch everything. What code objects do is
kept by single operations of a dict.
"""

from __future__ import annotations

import dis
import linecache
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import TYPE_CHECKING

from latchstore.stress.lock_order import place_of
from latchstore.stress.result import Access, Step

if TYPE_CHECKING:
    from latchstore.stress.tasks import Task

#: Characters of the source of an access.
_LONGEST = 100

_OURS = str(Path(__file__).parents[1])

#: What bytecodes do, by parts of their names; the first that fits counts.
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


class StepRecorder:
    """Writes down the steps of one run.

    Parameters
    ----------
    frame_of : callable
        Returns the innermost frame of a task in the code under test.
    last_tick : callable
        Returns the last time that an operation began or ended. It moves no clock: a run that is written down
        is to be the same as one that is not.
    """

    def __init__(self, frame_of: Callable[[Task], FrameType | None], last_tick: Callable[[], int]) -> None:
        self._frame_of = frame_of
        self._last_tick = last_tick
        self._accesses: list[Access] = []
        self.steps: list[Step] = []

    def note(self, frame: FrameType) -> None:
        """Note what the bytecode that is run next does."""
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
        """Leave out the call that has led into code under test, as what is done there follows."""
        if self._accesses and self._accesses[-1].does == "calls":
            self._accesses.pop()

    def end_turn(self, task: Task) -> None:
        """Write down the turn of a task that gives it away."""
        accesses, self._accesses = tuple(self._accesses), []
        if task.number == 0:
            return  # it only waits for the others
        time, frame = self._last_tick(), self._frame_of(task)
        if frame is None:
            self.steps.append(Step(task.shown, "", "ends" if task.done else "begins", time, accesses))
            return
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        waiting = getattr(task.waiting, "label", None)
        if waiting is not None:
            line += f"  (waits for {waiting})"
        ours = is_ours(frame.f_code)
        self.steps.append(Step(task.shown, place_of(frame), line, time, accesses, ours))


def is_ours(code: CodeType) -> bool:
    """Tell whether code is of this package."""
    return code.co_filename.startswith(_OURS)


def _is_part(last: Access, access: Access) -> bool:
    """Tell whether an access is of an expression that the next one has as a part, or is noted twice."""
    if (last.does, last.text) == (access.does, access.text):
        return True
    longer = len(access.text) > len(last.text) or access.does == "enters"
    return last.does == "reads" and longer and last.text in access.text


_actions: dict[CodeType, dict[int, tuple[str, str]]] = {}


def _actions_of(code: CodeType) -> dict[int, tuple[str, str]]:
    """Return by offsets what the bytecodes do that may touch what threads share, and the source of it."""
    found = _actions.get(code)
    if found is None:
        found = {}
        for instruction in dis.get_instructions(code):
            does = next((does for part, does in _DOES if part in instruction.opname), None)
            if does is None or instruction.opname in (
                "STORE_FAST",
                "STORE_DEREF",
                "STORE_NAME",
                "DELETE_FAST",
            ):
                continue
            text = _source_of(code, instruction.positions)
            if does == "calls" and (text.startswith("with ") or not text.endswith(")")):
                does = "leaves"  # at the end of a with statement, whose place it has
            if does in ("enters", "leaves") or instruction.opname == "FOR_ITER":
                # On Python 3.11 that is the whole statement, of which the first line is kept.
                text = _first_line(code, instruction.positions).removeprefix("with ")
                text = text.partition(": ")[0].rstrip(":")
            text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
            # A comprehension is no access; what is in it is.
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
