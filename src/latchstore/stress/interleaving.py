"""What the threads of a schedule did, one after the other, as people read it: calls, accesses, switches.

Thread safety: the functions keep nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from latchstore.stress.history import Operation
from latchstore.stress.result import Access, Step

#: Rows of one turn that are shown at its beginning and its end if it has many.
_SHOWN = 4

#: Accesses of other threads that are named for one interruption.
_NAMED = 4


@dataclass(frozen=True, slots=True)
class Interruption:
    """A place at which a thread had to stop, and what others did until it went on.

    Attributes
    ----------
    step : Step
    before : Access or None
        What it did last.
    meanwhile : tuple of tuples
        The number of another thread, and an access that may have changed something, or may have seen
        what this one had changed.
    """

    step: Step
    before: Access | None
    meanwhile: tuple[tuple[int, Access], ...]


def interruptions(steps: Sequence[Step]) -> list[Interruption]:
    """Return where threads had to stop in the middle of something: where to look for a race."""
    outside = any(not each.ours for step in steps for each in step.accesses)

    def seen(step: Step) -> list[Access]:
        accesses = (each for each in step.accesses if each.does not in ("enters", "leaves"))
        return [each for each in accesses if not (outside and each.ours)]

    found = []
    for place, step in enumerate(steps):
        following = next((n for n in range(place + 1, len(steps)) if steps[n].thread == step.thread), None)
        if following is None or not steps[following].accesses or not step.where:
            continue
        between = steps[place + 1 : following]
        changes = [(o.thread, access) for o in between for access in seen(o) if _may_change(access)]
        before = seen(step)
        if not changes:
            # Others may have looked at what it is half through with.
            before = [each for each in before if _may_change(each)]
            changes = [(other.thread, access) for other in between for access in seen(other) if before]
        if changes:
            found.append(Interruption(step, before[-1] if before else None, tuple(changes[:_NAMED])))
    return found


def _may_change(access: Access) -> bool:
    """Tell whether an access is more than a look: ``items.pop()`` may be, and ``len(items)`` is not."""
    return access.does in ("writes", "deletes") or (
        access.does == "calls" and "." in access.text.partition("(")[0]
    )


@dataclass(slots=True)
class Row:
    """What one thread did, in one cell of a table with a column for each thread.

    Attributes
    ----------
    thread : int
    kind : str
        ``"begins"``, ``"returns"``, ``"does"`` or ``"waits"``.
    text : str
        The call, the answer, or what was waited for.
    where : str
        Of accesses and waits: file, line and function.
    accesses : list of Access
    switched : bool
        Whether another thread had the row before.
    folded : bool
        Whether it is left out until somebody asks for it.
    """

    thread: int
    kind: str
    text: str = ""
    where: str = ""
    accesses: list[Access] = field(default_factory=list)
    switched: bool = False
    folded: bool = False


def rows(operations: Iterable[Operation], steps: Sequence[Step]) -> list[Row]:
    """Return calls, accesses and waits by their times.

    What is inside this package is folded if there is other code, and so is the middle of a long turn.
    """
    events: list[tuple[int, Row]] = []
    for operation in operations:
        events.append((operation.begin, Row(operation.thread, "begins", operation.call)))
        if operation.end is not None:
            events.append((operation.end, Row(operation.thread, "returns", operation.answer)))
    for step in steps:
        for access in step.accesses:
            events.append((access.time, Row(step.thread, "does", where=access.where, accesses=[access])))
        if "  (waits for" in step.text:
            events.append((step.time, Row(step.thread, "waits", step.text, step.where)))
    # Stable: what was done at the time of a beginning or an end came after that, in the order of the steps.
    events.sort(key=lambda event: event[0])
    found: list[Row] = []
    for _, row in events:
        last = found[-1] if found else None
        row.switched = last is not None and last.thread != row.thread
        if (
            last is not None
            and not row.switched
            and row.kind == last.kind == "does"
            and row.where == last.where
        ):
            assert last.accesses is not None
            assert row.accesses is not None
            last.accesses += row.accesses
        else:
            found.append(row)
    _fold(found)
    return found


def _fold(found: Sequence[Row]) -> None:
    inside = [row for row in found if row.accesses and row.accesses[0].ours]
    if len(inside) < sum(row.kind == "does" for row in found):
        for row in inside:
            row.folded = True
    for turn in _turns(found):
        for row in turn[_SHOWN:-_SHOWN]:
            row.folded = row.folded or row.kind == "does"


def _turns(found: Sequence[Row]) -> Iterator[list[Row]]:
    turn: list[Row] = []
    for row in found:
        if row.switched and turn:
            yield turn
            turn = []
        turn.append(row)
    yield turn


def folds(found: Iterable[Row]) -> list[tuple[bool, list[Row]]]:
    """Return the rows in groups of one thread: those that are folded, those that are not, in turn."""
    groups = itertools.groupby(found, lambda row: (row.folded, row.thread))
    return [(folded, list(group)) for (folded, _), group in groups]
