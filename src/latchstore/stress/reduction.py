"""Reduces the history of a failure on native threads: the remaining part still proves the failure.

A prefix of a history (with unfinished operations pending) is wrong only if the whole is. So is a part with
fewer keys, if the checker checks these by themselves, and one with fewer reads: an order of the whole history
explains each of these. So each part that is still invalid is a proof.

What a workload has read after the end of all threads (its facts) proves nothing of a prefix, as the
operations that were cut off have changed it. So a prefix is checked without facts, and a failure that only
they show keeps its end.

Thread safety: called after the threads of the run have ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from latchstore.stress.history import History, Operation
from latchstore.stress.verdict import Verdict
from latchstore.stress.workloads import Workload
from latchstore.stress.workloads.action import facts_of

#: Seconds after which the reduction stops.
SECONDS = 5.0

#: Read-only operations: a history without some of them is correct if the whole is.
_READS = ("get", "exists", "get_metadata", "get pair", "read")

#: The names in a header of what was read at the end of the run.
_FACTS = ("facts", "facts of processes")

#: The maximum number of operations for which reads are removed one by one.
_MOST = 400


def smallest(
    history: History, workloads: Sequence[Workload], verdicts: Mapping[str, Mapping[str, Verdict]]
) -> History:
    """Return a part of a history for which the first failed checker still fails.

    Parameters
    ----------
    history : History
    workloads : sequence of Workload
    verdicts : mapping
        Those of the history, by workload and checker.

    Returns
    -------
    history : History
        The same one if no checker failed, or if no part fails.
    """
    for workload in workloads:
        for check, verdict in verdicts[workload.name].items():
            if verdict.answer == "invalid":
                return _Reduction(history, workload, check).reduced(verdict)
    return history


class _Reduction:
    """Tries parts of one history."""

    def __init__(self, history: History, workload: Workload, check: str) -> None:
        self._workload = workload
        self._check = check
        self._header = {**history.header, "workloads": [workload.name], "overlapped": history.overlapped}
        self._operations = sorted(history.operations, key=lambda each: each.begin)
        self._deadline = time.monotonic() + SECONDS

    def reduced(self, verdict: Verdict) -> History:
        """Return the smallest part found."""
        self._keep(lambda each: each.key is not None and each.key.startswith(f"{self._workload.name}/"))
        without_facts = {name: value for name, value in self._header.items() if name not in _FACTS}
        is_of_the_end = not self._fails(self._operations, without_facts)
        if not is_of_the_end:
            self._header = without_facts
        self._keep_parts({self._workload.part_of(each.key) for each in verdict.operations if each.key})
        if not is_of_the_end:
            self._cut_end()
        if len(self._operations) <= _MOST:
            for operation in [each for each in self._operations if each.name in _READS][::-1]:
                self._keep(lambda each, operation=operation: each is not operation)  # type: ignore[misc]
        return History(self._operations, self._header)

    def _fails(self, operations: Sequence[Operation], header: Mapping[str, Any] | None = None) -> bool:
        if not operations or time.monotonic() > self._deadline:
            return False
        history = History(operations, self._header if header is None else dict(header))
        verdict = self._workload.verdicts(history).get(self._check)
        return verdict is not None and verdict.answer == "invalid"

    def _keep(self, wanted: Callable[[Operation], bool]) -> None:
        """Keep a part of the operations if the checker fails for it."""
        fewer = [each for each in self._operations if wanted(each)]
        if len(fewer) < len(self._operations) and self._fails(fewer):
            self._operations = fewer

    def _keep_parts(self, parts: Collection[str]) -> None:
        """Keep the keys of these parts, and what was read of them at the end, if the checker fails for it."""
        part_of = self._workload.part_of
        fewer = [each for each in self._operations if each.key is not None and part_of(each.key) in parts]
        header = self._header
        facts = facts_of(self._workload.name, History((), header))
        if isinstance(facts, dict):
            prefix = f"{self._workload.name}/"
            kept = {
                key: fact
                for key, fact in facts.items()
                if not key.startswith(prefix) or part_of(key) in parts
            }
            header = {**header, "facts": {self._workload.name: kept}}
        if len(fewer) < len(self._operations) and self._fails(fewer, header):
            self._operations, self._header = fewer, header

    def _cut_end(self) -> None:
        """Cut the history after the first moment at which it fails."""
        low, high = 0, len(self._operations)
        while high - low > 1:
            middle = (low + high) // 2
            if self._fails(_until(self._operations, middle)):
                high = middle
            else:
                low = middle
        if high < len(self._operations):
            self._operations = _until(self._operations, high)


def _until(operations: Sequence[Operation], count: int) -> list[Operation]:
    """Return the first operations; those unfinished when the next one began are pending."""
    if count >= len(operations):
        return list(operations)
    moment = operations[count].begin
    return [
        each
        if each.end is not None and each.end <= moment
        else replace(each, end=None, outcome="info", result=None)
        for each in operations[:count]
    ]
