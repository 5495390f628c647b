"""Reduces the history of a failure on native threads: the remaining part still proves the failure.

A prefix of a history (with unfinished operations pending) is wrong only if the whole is. So is a part with
fewer keys, if the checker checks each key by itself, and one with fewer reads: an order of the whole history
explains each of these. So each part that is still invalid is a proof.

Thread safety: called after the threads of the run have ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from latchstore.stress.history import History, Operation
from latchstore.stress.verdict import Verdict
from latchstore.stress.workloads import Workload

#: Seconds after which the reduction stops.
SECONDS = 5.0

#: Read-only operations: a history without some of them is correct if the whole is.
_READS = ("get", "exists", "get_metadata", "get pair", "read")

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
        self._header = {**history.header, "workloads": [workload.name]}
        self._operations = sorted(history.operations, key=lambda each: each.begin)
        self._deadline = time.monotonic() + SECONDS

    def reduced(self, verdict: Verdict) -> History:
        """Return the smallest part found."""
        self._keep(lambda each: each.key is not None and each.key.startswith(f"{self._workload.name}/"))
        keys = {each.key for each in verdict.operations if each.key is not None}
        if keys:
            self._keep(lambda each: each.key in keys)
        self._cut_end()
        if len(self._operations) <= _MOST:
            for operation in [each for each in self._operations if each.name in _READS][::-1]:
                self._keep(lambda each, operation=operation: each is not operation)  # type: ignore[misc]
        return History(self._operations, self._header)

    def _fails(self, operations: Sequence[Operation]) -> bool:
        if not operations or time.monotonic() > self._deadline:
            return False
        verdict = self._workload.verdicts(History(operations, self._header)).get(self._check)
        return verdict is not None and verdict.answer == "invalid"

    def _keep(self, wanted: Callable[[Operation], bool]) -> None:
        """Keep a part of the operations if the checker fails for it."""
        fewer = [each for each in self._operations if wanted(each)]
        if len(fewer) < len(self._operations) and self._fails(fewer):
            self._operations = fewer

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
