"""The steps of a schedule in a readable form: calls, accesses, switches of threads.

Thread safety: the functions have no state.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from latchstore.stress.history import Operation
from latchstore.stress.result import Access, Step

#: Rows at the beginning and end of a long turn that are shown.
_SHOWN = 4

#: Accesses of other threads that are listed per interruption.
_NAMED = 4


@dataclass(frozen=True, slots=True)
class Interruption:
    """A place where a thread was interrupted, and the accesses of others until it continued.

    Attributes
    ----------
    step : Step
    before : Access or None
        Its last access before.
    meanwhile : tuple of tuples
        Numbers of other threads, with accesses that may have changed something, or may have seen changes of
        the interrupted thread.
    """

    step: Step
    before: Access | None
    meanwhile: tuple[tuple[int, Access], ...]


def interruptions(steps: Sequence[Step]) -> list[Interruption]:
    """Return where threads were interrupted in the middle of an operation: candidates for a race."""
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
            # Others may have read a state that this thread has half changed.
            before = [each for each in before if _may_change(each)]
            changes = [(other.thread, access) for other in between for access in seen(other) if before]
        if changes:
            # A loop repeats its accesses.
            named = {(thread, each.does, each.text, each.where): (thread, each) for thread, each in changes}
            first = tuple(named.values())[:_NAMED]
            found.append(Interruption(step, before[-1] if before else None, first))
    return found


def _may_change(access: Access) -> bool:
    """Return whether an access may write: ``items.pop()`` may, ``len(items)`` does not."""
    return access.does in ("writes", "deletes") or (
        access.does == "calls" and "." in access.text.partition("(")[0]
    )


@dataclass(slots=True)
class Row:
    """One cell of a table with a column for each thread: a step of one thread.

    Attributes
    ----------
    thread : int
    kind : str
        ``"begins"``, ``"returns"``, ``"does"`` or ``"waits"``.
    text : str
        The call, the answer, or the object waited for.
    where : str
        For accesses and waits: file, line and function.
    accesses : list of Access
    switched : bool
        Whether the row before is of another thread.
    folded : bool
        Whether the row is collapsed at first.
    """

    thread: int
    kind: str
    text: str = ""
    where: str = ""
    accesses: list[Access] = field(default_factory=list)
    switched: bool = False
    folded: bool = False


def rows(operations: Iterable[Operation], steps: Sequence[Step]) -> list[Row]:
    """Return calls, accesses and waits in the order of time.

    Rows inside this package are folded if there is other code, and so is the middle of a long turn.
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
    # A stable sort: an access at the time of a begin or an end came after it, in the order of the steps.
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
    """Return the rows in groups of one thread, alternating between folded and shown ones."""
    groups = itertools.groupby(found, lambda row: (row.folded, row.thread))
    return [(folded, list(group)) for (folded, _), group in groups]
