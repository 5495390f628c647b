"""Describes threads that cannot continue: what each holds and waits for, and where.

Thread safety: called by the thread that has the turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from latchstore.stress.lock_order import place_of

if TYPE_CHECKING:
    from latchstore.stress.tasks import Task


class Blocked(NamedTuple):
    """A thread that had not ended when the run failed.

    Attributes
    ----------
    task, name : int and str
        Its number in reports, and its name.
    holds : tuple of str
        The locks that it held, by the place where they were made.
    waits_for : str or None
        What it waited for; None if it could have continued.
    held_by : int or None
        Number of the task that held it; None if it was not a lock, or not held.
    where : str
        Its place in the code under test.
    """

    task: int
    name: str
    holds: tuple[str, ...]
    waits_for: str | None
    held_by: int | None
    where: str


def blocked_of(task: Task, frame: FrameType | None) -> Blocked:
    """Return what a task holds and waits for."""
    waits_for = None if task.waiting is None else getattr(task.waiting, "label", None) or str(task.waiting)
    holder = holder_of(task.waiting)
    return Blocked(
        task.shown,
        task.name,
        tuple(dict.fromkeys(lock.label for lock in task.held)),
        waits_for,
        None if holder is None else holder.shown,
        place_of(frame),
    )


def table_of(blocked: Sequence[Blocked]) -> str:
    """Return a table of held locks and waits."""
    rows = [("thread", "holds", "waits for", "at")]
    for each in blocked:
        waiting = each.waits_for or "nothing"
        if each.held_by is not None:
            waiting += f", held by {each.held_by}" if each.held_by >= 0 else ", held outside the run"
        name = "" if each.name == f"thread {each.task}" else f" ({each.name})"
        rows.append((f"{each.task}{name}", ", ".join(each.holds) or "nothing", waiting, each.where))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def stuck_on_locks(tasks: Sequence[Task], certain: bool = True) -> str:
    """Return which threads wait for locks that are never released, as text; empty if there are none.

    Parameters
    ----------
    tasks : sequence of Task
    certain : bool
        Whether to say so only if no other thread can continue after a timeout: it could release the lock, as
        the last reader releases what the first has acquired.
    """
    found = {task: _stuck_from(task, task.waiting, timeouts=True) for task in tasks}
    if certain and any(each.deadline is not None and not text for each, text in found.items()):
        return ""
    return next(filter(None, found.values()), "")


def circle_of_locks(task: Task, what: object, owned: bool) -> str:
    """Return the cycle of waits that a task is part of if it waits for something, as text; empty if none.

    Parameters
    ----------
    task, what : Task and object
    owned : bool
        Whether only locks count that nobody but the holder can release.
    """
    return _stuck_from(task, what, timeouts=False, owned=owned)


def _stuck_from(task: Task, what: Any, timeouts: bool, owned: bool = False) -> str:
    seen = [task]
    each = task
    while (holder := holder_of(what)) is not None and (what.only_holder_releases or not owned):
        if holder.done:
            return f"thread {each.shown} waits for a lock that thread {holder.shown} never releases"
        if holder in seen:
            circle = [*seen[seen.index(holder) :], holder]
            return "threads wait for each other: " + " -> ".join(str(one.shown) for one in circle)
        if holder.deadline is not None and not timeouts:
            break
        seen.append(holder)
        each, what = holder, holder.waiting
    return ""


def holder_of(what: Any) -> Task | None:
    """Return the holder of the lock that a task waits for; None if it is not a lock."""
    if not hasattr(what, "holder") or what.for_waiting:
        return None
    holder: Task | None = what.holder
    return holder


def nobody_wakes(tasks: Sequence[Task]) -> str:
    """Return a text: all threads wait for something that no thread does."""
    waiting = ", ".join(str(each.shown) for each in tasks if not each.done and each.number)
    return f"no thread can continue: no thread is left to wake up threads {waiting}"
