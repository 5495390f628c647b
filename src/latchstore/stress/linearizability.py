"""Checks whether calls have an order that respects real time and that a model allows.

The search is that of Wing and Gong, "Testing and verifying concurrent objects" (Journal of Parallel and
Distributed Computing 17, 1993, pages 164 to 182, section 4): take a call that no other call must precede,
check whether the model allows its answer, continue with the rest, and put the call back if the rest has no
order. The search stops at the first order. Its speed comes from Lowe, "Testing for linearizability"
(Concurrency and Computation: Practice and Experience 29(4), 2017, section 3): pairs of the set of calls taken
and the state reached are memorized, and no pair is entered twice. If the model divides the calls into parts,
each part is checked by itself (Horn and Kroening, "Faster linearizability checking via P-compositionality",
FORTE 2015, section 3).
"""

from __future__ import annotations

import reprlib
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from latchstore.stress.history import Operation
from latchstore.stress.models import UNKNOWN, Model
from latchstore.stress.order_search import Asked, Call, Linearization, Search, optional
from latchstore.stress.verdict import VALID, Explanation, Verdict

__all__ = [
    "BUDGET",
    "Call",
    "Linearization",
    "Progress",
    "call_of",
    "check_linearizable",
    "linearize",
    "linearize_parts",
    "states_of",
]

#: Steps of a model after which the answer is "unknown".
BUDGET = 1_000_000

#: The maximum length of an order whose states are shown.
_SHOWN = 100

#: Steps of search before the next part is searched and the clock is read: at first, and at most.
_FIRST_TURN, _LONGEST_TURN = 500, 8_000

#: Steps after which a part is searched in a second way as well, if the model makes one known.
_ALONE = 20_000


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a search.

    Attributes
    ----------
    steps : int
        Number of model steps.
    explained, calls : int
        Number of calls in the longest order of the part that is searched, and of its calls.
    parts : int
        Number of parts without an answer.
    """

    steps: int
    explained: int
    calls: int
    parts: int


def linearize(
    calls: Iterable[Call[Asked]],
    model: Model[Any, Asked, Any],
    *,
    steps: int | None = None,
    seconds: float | None = None,
) -> Linearization[Asked]:
    """Search for an order of calls that a model allows and that agrees with their order in real time.

    Parameters
    ----------
    calls : iterable of Call
        In any order, without those that had no effect for certain.
    model : Model
        Its states may be of any type: hashable ones are found by hash, others compared by ``==``. Its parts
        are ignored, see `linearize_parts`.
    steps : int, optional
        Maximum number of model steps; None: no limit.
    seconds : float, optional
        Time limit, checked every few thousand steps; None: no limit.

    Returns
    -------
    linearization : Linearization
    """
    return next(found for _, found in _searched({None: calls}, model, steps, seconds))


def linearize_parts(
    calls: Iterable[Call[Asked]],
    model: Model[Any, Asked, Any],
    *,
    steps: int | None = None,
    seconds: float | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Iterator[tuple[Hashable, Linearization[Asked]]]:
    """Search for an order of each part that the model names; all calls have one if and only if each part has.

    Parameters
    ----------
    calls, model, steps, seconds
        As for `linearize`; the limits are for all parts together.
    progress : callable, optional
        Called every few thousand steps.

    Yields
    ------
    part : hashable
        The result of the model's `part`; None if it has no parts.
    linearization : Linearization
    """
    part_of = _part_of(model)
    parts: dict[Hashable, list[Call[Asked]]] = {}
    for call in calls:
        parts.setdefault(part_of(call.operation), []).append(call)
    return _searched(parts, model, steps, seconds, progress)


def _part_of(model: Model[Any, Asked, Any]) -> Callable[[Asked], Hashable]:
    """Return the function that names the part of an operation; all are one part if the model has none."""
    return optional(model, "part") or (lambda operation: None)


def _searched(
    parts: Mapping[Hashable, Iterable[Call[Asked]]],
    model: Model[Any, Asked, Any],
    steps: int | None,
    seconds: float | None,
    progress: Callable[[Progress], None] | None = None,
) -> Iterator[tuple[Hashable, Linearization[Asked]]]:
    """Search all parts in turn, a little longer each time: a part without an order may be found soon."""
    deadline = None if seconds is None else time.monotonic() + seconds
    made = {part: list(calls) for part, calls in parts.items()}
    searches = {part: [Search(calls, model)] for part, calls in made.items()}
    left = inf if steps is None else steps
    turn, every = _FIRST_TURN, 0
    while searches:
        for part, group in list(searches.items()):
            found = None
            for search in group:
                before = search.steps
                found = search.run(min(turn, left))
                taken = search.steps - before
                left, every = left - taken, every + taken
                if found or left <= 0:
                    break
            if progress is not None:
                progress(Progress(every, search.explained, search.size, len(searches)))
            late = deadline is not None and time.monotonic() > deadline
            if found or left <= 0 or late:
                del searches[part]
                best = search if found else max(group, key=lambda each: each.explained)
                yield part, best.result(found or "unknown")
            elif len(group) == 1 and search.has_sources and search.steps >= _ALONE:
                # Which order is soon found depends on which calls are tried first.
                group.append(Search(made[part], model, by_need=False))
        turn = min(2 * turn, _LONGEST_TURN)


def check_linearizable(
    operations: Iterable[Operation],
    model: Model[Any, Any, Any],
    budget: int | None = BUDGET,
    seconds: float | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Verdict:
    """Check operations, such as those on one key, against a model.

    Parameters
    ----------
    operations : iterable of Operation
        Failed ones are ignored. The model's `step` gets the `Invocation` of each.
    model : Model
        If it names parts, each is checked by itself.
    budget : int, optional
        Maximum number of steps; None: no limit.
    seconds : float, optional
        Time limit; None: no limit.
    progress : callable, optional
        Called every few thousand steps.
    """
    recorded: dict[int, Operation] = {}
    calls: list[Call[Any]] = []
    for operation in operations:
        if operation.outcome != "fail":
            call = call_of(operation)
            recorded[id(call)] = operation
            calls.append(call)
    verdict = VALID
    for part, found in linearize_parts(calls, model, steps=budget, seconds=seconds, progress=progress):
        if found.answer == "invalid":
            part_of = _part_of(model)
            members = (each for each in calls if part_of(each.operation) == part)
            return _explained(found, members, recorded, model)
        if found.answer == "unknown":
            at = f", at {recorded[id(found.refused[0])]}" if found.refused else ""
            verdict = Verdict("unknown", f"no answer after {found.steps:,} steps{at}")
    return verdict


def call_of(operation: Operation) -> Call[Any]:
    """Return the call for an operation of a history; an "info" operation is pending."""
    if operation.outcome == "ok":
        end = operation.end
        return Call(operation.thread, operation.invocation, operation.result, operation.begin, end)
    return Call(operation.thread, operation.invocation, UNKNOWN, operation.begin, None)


def _explained(
    found: Linearization[Any],
    calls: Iterable[Call[Any]],
    recorded: dict[int, Operation],
    model: Model[Any, Any, Any],
) -> Verdict:
    """Return a verdict with the longest order, and the call that does not fit."""
    stuck = recorded[id(found.refused[0])]
    taken = {id(call) for call in found.order}
    # Operations in the order were explained; they are listed only if they ran at the same time.
    near = sorted(calls, key=lambda call: id(call) in taken)
    around = [
        other
        for other in (recorded[id(call)] for call in near)
        if other is not stuck and not other.precedes(stuck) and not stuck.precedes(other)
    ]
    beside = f"; at the same time: {'; '.join(map(str, around[:8]))}" if around else ""
    reason = f"no order of these operations explains {stuck}{beside}"
    order = tuple(recorded[id(call)] for call in found.order)
    # A reader does not look at the states of very many calls; long histories are reduced first.
    states = states_of(found.order, model) if len(order) <= _SHOWN else ()
    expects = optional(model, "expected")
    expected = "" if expects is None else repr(expects(found.state, stuck.invocation))
    explanation = Explanation(order, states, stuck, expected, stuck.answer)
    return Verdict("invalid", reason, (stuck, *around), explanation=explanation)


def states_of(order: Iterable[Call[Any]], model: Model[Any, Any, Any]) -> tuple[str, ...]:
    """Return the model's state at the beginning and after each call of an order, as text."""
    states = [model.initial]
    for call in order:
        states.append(model.step(states[-1], call.operation, call.answer))
    return tuple(map(reprlib.repr, states))
