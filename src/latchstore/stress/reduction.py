"""Making the history of a failure on native threads small: what is left still proves the failure.

A beginning of a history (what had not ended by then is pending) is wrong only if the whole is; so is one with
fewer keys, where a checker looks at each key by itself, and one with fewer reads: an order of the whole
explains each of these. So each cut that is still found invalid is a proof.

Thread safety: called when the threads of the run have ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from latchstore.stress.history import History, Operation
from latchstore.stress.verdict import Verdict
from latchstore.stress.workloads import Workload

#: Seconds after which a history is left as small as it is by then.
SECONDS = 5.0

#: Operations that only look: a history without some of them is right if the whole is.
_READS = ("get", "exists", "get_metadata", "get pair", "read")

#: Operations that a history may have for its reads to be taken away one by one.
_MOST = 400


def smallest(
    history: History, workloads: Sequence[Workload], verdicts: Mapping[str, Mapping[str, Verdict]]
) -> History:
    """Return a part of a history by which the first checker that has failed fails as well.

    Parameters
    ----------
    history : History
    workloads : sequence of Workload
    verdicts : mapping
        Of the history, by workload and checker.

    Returns
    -------
    history : History
        The same one if none has failed, or if no part will do.
    """
    for workload in workloads:
        for check, verdict in verdicts[workload.name].items():
            if verdict.answer == "invalid":
                return _Reduction(history, workload, check).reduced(verdict)
    return history


class _Reduction:
    """The parts of one history that are tried."""

    def __init__(self, history: History, workload: Workload, check: str) -> None:
        self._workload = workload
        self._check = check
        self._header = {**history.header, "workloads": [workload.name]}
        self._operations = sorted(history.operations, key=lambda each: each.begin)
        self._deadline = time.monotonic() + SECONDS

    def reduced(self, verdict: Verdict) -> History:
        """Return the smallest part that was found."""
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
        """Keep some of the operations if these fail."""
        fewer = [each for each in self._operations if wanted(each)]
        if len(fewer) < len(self._operations) and self._fails(fewer):
            self._operations = fewer

    def _cut_end(self) -> None:
        """Cut the history after the first moment by which it fails."""
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
    """Return the first operations; those that had not ended when the next one began are pending."""
    if count >= len(operations):
        return list(operations)
    moment = operations[count].begin
    return [
        each
        if each.end is not None and each.end <= moment
        else replace(each, end=None, outcome="info", result=None)
        for each in operations[:count]
    ]
