"""The smallest part found of a history that no order explains: it is shown instead of the whole.

These parts of a history have an order if the whole has one, so each that has none is a proof:

- the operations on one part of the model;
- a prefix, whose unfinished operations are pending;
- what comes after an operation that overwrites the state, together with it; operations that may come before
  or after it are pending;
- a history without some operations that change nothing.

What is shown has the ends and answers of operations that are pending in the proof: with these still fewer
orders are possible.

Thread safety: the function has no state.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from latchstore.stress.history import Operation
from latchstore.stress.linearizability import call_of, check_linearizable
from latchstore.stress.models import Model
from latchstore.stress.verdict import Verdict

#: The maximum number of operations for which reads are removed one by one.
_MOST = 400

#: An operation of the proof, and the one that is recorded.
_Pair = tuple[Operation, Operation]


def smallest_part(
    operations: Sequence[Operation], verdict: Verdict, model: Model[Any, Any, Any], seconds: float
) -> tuple[Sequence[Operation], Verdict]:
    """Return the part, sorted, with its own verdict.

    Parameters
    ----------
    operations : sequence of Operation
    verdict : Verdict
        Of these operations: invalid.
    model : Model
    seconds : float
        Time limit.
    """
    reduction = _Reduction(operations, model, seconds)
    if verdict.operations:
        reduction.keep_part(verdict.operations[0])
    reduction.cut_end()
    reduction.cut_begin()
    reduction.remove_reads()
    shown = [recorded for _, recorded in reduction.pairs]
    found = reduction.verdict_of(shown)
    return shown, verdict if found is None else found


class _Reduction:
    """The part that is left."""

    def __init__(self, operations: Sequence[Operation], model: Model[Any, Any, Any], seconds: float) -> None:
        relevant = sorted(
            (each for each in operations if each.outcome != "fail"), key=lambda each: each.begin
        )
        self.pairs: list[_Pair] = [(each, each) for each in relevant]
        self._model = model
        self._deadline = time.monotonic() + seconds

    def verdict_of(self, operations: Sequence[Operation]) -> Verdict | None:
        """Return the verdict if it is invalid."""
        left = self._deadline - time.monotonic()
        if not operations or left <= 0:
            return None
        found = check_linearizable(operations, self._model, budget=None, seconds=left)
        return found if found.answer == "invalid" else None

    def keep_part(self, wrong: Operation) -> None:
        """Keep the operations on one part of the model."""
        part_of = getattr(self._model, "part", None)
        if part_of is not None:
            wanted = part_of(wrong.invocation)
            self.pairs = [each for each in self.pairs if part_of(each[1].invocation) == wanted]

    def cut_end(self) -> None:
        """Keep the shortest prefix without an order."""
        low, high = 0, len(self.pairs)
        while high - low > 1:
            middle = (low + high) // 2
            if self._is_wrong(self._first(middle)):
                high = middle
            else:
                low = middle
        self.pairs = self._first(high)

    def _first(self, count: int) -> list[_Pair]:
        if count == len(self.pairs):
            return self.pairs
        moment = self.pairs[count][0].begin
        return [
            (each if each.end is not None and each.end <= moment else _pending(each), recorded)
            for each, recorded in self.pairs[:count]
        ]

    def cut_begin(self) -> None:
        """Keep what comes after the last operation possible that overwrites the state."""
        overwrites = getattr(self._model, "overwrites", None)
        if overwrites is None:
            return
        certain = [each for each, _ in self.pairs if each.outcome == "ok" and each.end is not None]
        for last in sorted(certain, key=lambda each: each.end or 0, reverse=True)[:_MOST]:
            if overwrites(last.invocation):
                rest = list(self._after(last))
                if self._is_wrong(rest):
                    self.pairs = rest
                    return

    def _after(self, last: Operation) -> Iterator[_Pair]:
        for each, recorded in self.pairs:
            if not each.precedes(last):
                yield (each if each is last or last.precedes(each) else _pending(each)), recorded

    def remove_reads(self) -> None:
        """Remove operations that change nothing, one by one, if the rest still has no order."""
        is_read = getattr(self._model, "is_read", None)
        if is_read is None or len(self.pairs) > _MOST:
            return
        for pair in reversed(self.pairs):
            call = call_of(pair[0])
            fewer = [other for other in self.pairs if other is not pair]
            if is_read(call.operation, call.answer) and self._is_wrong(fewer):
                self.pairs = fewer

    def _is_wrong(self, pairs: Sequence[_Pair]) -> bool:
        return self.verdict_of([each for each, _ in pairs]) is not None


def _pending(operation: Operation) -> Operation:
    return replace(operation, end=None, outcome="info", result=None)
