"""The table of a run: counts, rates and latencies of each operation.

Thread safety: one thread fills it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from latchstore.stress.history import History, Operation

#: Latency buckets: each power of two is divided into this many parts, for a precision of 3 %.
_PARTS = 32


@dataclass(frozen=True, slots=True)
class OperationFigures:
    """One row of the table.

    Attributes
    ----------
    name : str
    count : int
        Number of operations that began.
    per_second : float
    p50, p99, p999, slowest : float
        Latency in seconds; 0 if no operation has ended.
    errors : int
        Number of operations that were refused, rolled back or interrupted.
    """

    name: str
    count: int
    per_second: float
    p50: float
    p99: float
    p999: float
    slowest: float
    errors: int


class _Latencies:
    """A histogram of nanoseconds, of constant size."""

    def __init__(self) -> None:
        self.count = 0
        self.errors = 0
        self.slowest = 0
        self._buckets: dict[int, int] = {}
        self._ended = 0

    def add(self, operation: Operation) -> None:
        self.count += 1
        if operation.outcome != "ok":
            self.errors += 1
        if operation.end is None:
            return
        took = operation.end - operation.begin
        self._ended += 1
        self.slowest = max(self.slowest, took)
        shift = max(0, took.bit_length() - _PARTS.bit_length())
        bucket = (took >> shift) << shift
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    def percentile(self, part: float) -> float:
        """Return the latency below which a fraction of the operations ended, in seconds."""
        left = part * self._ended
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                return bucket / 1e9
        return 0.0


class Figures:
    """Collects the table from the histories of a run."""

    def __init__(self) -> None:
        self._operations: dict[str, _Latencies] = {}
        #: How often two operations overlapped, by their names in order.
        self.met: Counter[tuple[str, str]] = Counter()

    def add(self, operations: Iterable[Operation]) -> None:
        """Add the operations of a history."""
        operations = list(operations)
        self.met.update(_overlapping(operations))
        known = self._operations
        for operation in operations:
            latencies = known.get(operation.name)
            if latencies is None:
                latencies = known[operation.name] = _Latencies()
            latencies.add(operation)

    def rows(self, seconds: float) -> list[OperationFigures]:
        """Return the table, for a run of this many seconds."""
        return [
            OperationFigures(
                name,
                each.count,
                each.count / seconds if seconds else 0.0,
                each.percentile(0.5),
                each.percentile(0.99),
                each.percentile(0.999),
                each.slowest / 1e9,
                each.errors,
            )
            for name, each in sorted(self._operations.items())
        ]


def together(
    first: Sequence[OperationFigures],
    second: Sequence[OperationFigures],
    first_seconds: float,
    second_seconds: float,
) -> list[OperationFigures]:
    """Return the rows of two runs as one table: the counts of both, the latencies of the second.

    The second run used threads of the system: the clock of controlled schedules counts bytecodes.
    """
    counted = {row.name: row for row in first}
    rows = {row.name: row for row in second}
    seconds = (first_seconds + second_seconds) or 1.0
    merged = []
    for name in sorted({*counted, *rows}):
        row = rows.get(name) or replace(counted[name], p50=0.0, p99=0.0, p999=0.0, slowest=0.0)
        other = counted[name] if name in counted and name in rows else None
        count = row.count + (other.count if other else 0)
        errors = row.errors + (other.errors if other else 0)
        merged.append(replace(row, count=count, errors=errors, per_second=count / seconds))
    return merged


def _overlapping(operations: Iterable[Operation]) -> Iterator[tuple[str, str]]:
    """Yield the names of each two operations of different threads that overlap."""
    # The last operation of each thread: an interrupted one lasts until its thread begins another.
    under_way: dict[int, Operation] = {}
    for operation in sorted(operations, key=lambda each: each.begin):
        for thread, other in under_way.items():
            if thread != operation.thread and (other.end is None or other.end > operation.begin):
                yield min(other.name, operation.name), max(other.name, operation.name)
        under_way[operation.thread] = operation


def operation_figures(history: History) -> list[OperationFigures]:
    """Return the table of one history."""
    figures = Figures()
    figures.add(history.operations)
    begins = [operation.begin for operation in history.operations]
    ends = [operation.end for operation in history.operations if operation.end is not None]
    return figures.rows((max(ends) - min(begins)) / 1e9 if begins and ends else 0.0)
