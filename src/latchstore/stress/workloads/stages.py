"""Checks whether operations can have taken effect in a known order, each between its call and its return.

Each operation is placed as early as possible: not before it began, nor before any operation of an earlier
stage. If that is after its end for one of them, no order is possible; otherwise this is one. So the check
takes one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Any

from latchstore.stress.history import Invocation, Operation
from latchstore.stress.linearizability import check_linearizable
from latchstore.stress.models import REFUSED, UNKNOWN
from latchstore.stress.verdict import VALID, Verdict


def check_stages(stages: Iterable[Sequence[Operation]]) -> Verdict:
    """Check operations in stages: those of one stage come after all of the stages before.

    Parameters
    ----------
    stages : iterable of sequences of Operation
        Within a stage any order is allowed.
    """
    now: float = -inf
    latest: Operation | None = None
    for stage in stages:
        after, last = now, latest
        for operation in stage:
            if _end(operation) < now:
                reason = f"({operation}) had ended before ({latest}) began, which it must come after"
                return Verdict("invalid", reason, tuple(each for each in (operation, latest) if each))
            if operation.begin > after:
                after, last = operation.begin, operation
        now, latest = after, last
    return VALID


def _end(operation: Operation) -> float:
    return inf if operation.end is None or operation.outcome == "info" else operation.end


class ReplaceModel:
    """One value that is read (``get``), or replaced by a following value (``replace``).

    Parameters
    ----------
    following : callable
        Called with the value and the argument of a ``replace``; returns the new value.
    initial : str, optional
        The initial value.
    rank : callable, optional
        Called with a value; returns the number of replacements that led to it, if values show that.
    """

    def __init__(
        self,
        following: Callable[[str | None, str], str],
        initial: str | None = None,
        rank: Callable[[str | None], int] | None = None,
    ) -> None:
        self.following = following
        self.initial = initial
        self.rank = rank

    def step(self, state: str | None, operation: Invocation, answer: Any) -> Any:
        """Return the state after the operation, or `REFUSED` if its answer is not the state before."""
        if answer is not UNKNOWN and answer != state:
            return REFUSED
        return state if operation.name == "get" else self.following(state, operation.argument)

    def is_read(self, operation: Invocation, answer: Any) -> bool:
        """Return whether the value is unchanged."""
        return operation.name == "get"

    def may_answer(self, state: str | None, operation: Invocation, answer: Any) -> bool:
        """Return whether a value may be read, now or after replacements."""
        return self.rank is None or answer in (state, UNKNOWN) or self.rank(state) < self.rank(answer)


def check_replacements(operations: Iterable[Operation], model: ReplaceModel) -> Verdict:
    """Check reads and replacements of one value, where each new value is unique.

    Each replacement has the value that it found. So they form a chain, whose order is known.

    Parameters
    ----------
    operations : iterable of Operation
        ``get`` and ``replace``, each with the previous value as its result.
    model : ReplaceModel
    """
    everything = list(operations)
    found = {each.result for each in everything if each.outcome == "ok"}
    relevant = [
        each
        for each in everything
        # An operation of unknown outcome whose value was never read had no effect, or had it after all
        # others, or another replacement followed at once; only the rank shows the last case.
        if each.outcome == "ok"
        or (
            each.outcome == "info"
            and each.name == "replace"
            and (model.rank is not None or _may_be_seen(each, found))
        )
    ]
    if any(each.outcome == "info" for each in relevant):
        return check_linearizable(relevant, model)
    return _check_chain(relevant, model)


def _may_be_seen(operation: Operation, found: set[str | None]) -> bool:
    # A value may show the replacements before the last one as well, as that of a list does.
    return any(value is not None and operation.argument in value for value in found)


def _check_chain(operations: Sequence[Operation], model: ReplaceModel) -> Verdict:
    successors: dict[str | None, Operation] = {}
    reads: dict[str | None, list[Operation]] = {}
    for operation in operations:
        if operation.name == "get":
            reads.setdefault(operation.result, []).append(operation)
            continue
        other = successors.setdefault(operation.result, operation)
        if other is not operation:
            reason = f"lost update: ({operation}) and ({other}) replaced the same value"
            return Verdict("invalid", reason, (operation, other))
    value, stages = model.initial, [reads.pop(model.initial, [])]
    while value in successors:
        operation = successors.pop(value)
        value = model.following(value, operation.argument)
        stages += [[operation], reads.pop(value, [])]
    for stray in (*successors.values(), *(each for all_ in reads.values() for each in all_)):
        return Verdict("invalid", f"({stray}) found a value that the key never had", (stray,))
    return check_stages(stages)
