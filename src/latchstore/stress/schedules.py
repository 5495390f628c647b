"""The kinds of schedules of a run, and the faults that each of them supports.

Thread safety: constants and functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from latchstore.stress.factories import PlanError
from latchstore.stress.faults import Fault

ScheduleKind = Literal["mixed", "native", "random", "whole", "pct", "exhaustive"]
SCHEDULES: tuple[ScheduleKind, ...] = ("mixed", "native", "random", "whole", "pct", "exhaustive")

#: The kinds of threads that each kind of schedule has: controlled threads, threads of the system. With
#: several processes, each has threads of the system.
PARTS: dict[str, set[str]] = {
    "native": {"native"},
    "mixed": {"native", "controlled"},
    **{name: {"controlled"} for name in ("random", "whole", "pct", "exhaustive")},
}


def parts_for(fault: type[Fault]) -> set[str]:
    """Return the kinds of threads that a fault supports."""
    return {part for part in ("native", "controlled", "processes", "tasks") if getattr(fault, part)}


def check_faults(
    faults: Sequence[type[Fault]], schedule: ScheduleKind, processes: int = 1, tasks: int = 0
) -> None:
    """Raise PlanError if a kind of schedule does not support one of the faults, or not all at once."""
    parts, where = PARTS[schedule], f"--schedule {schedule}"
    if processes > 1:
        parts, where = {"processes"}, f"--processes {processes}"
    elif tasks:
        parts, where = {"tasks"}, f"--tasks {tasks}"
    for fault in faults:
        if not (parts_for(fault) & parts):
            raise PlanError(f"fault {fault.name!r} does not work with {where}")
    if not parts.intersection(*map(parts_for, faults)):
        raise PlanError(
            f"no schedule supports all of these faults at once: {', '.join(each.name for each in faults)}"
        )
