"""Whether the history of one key is that of a register, for writes that are all different, in n log n.

The algorithm is that of Gibbons and Korach, "Testing shared memories" (SIAM Journal on Computing 26(4),
1997, section 4), by zones. A value's operations are its write and the reads that got it. Let f be when the
first of them had ended and s when the last of them began. If f is before s, the register had the value from
f to s, its *forward zone*. Else one moment from s to f is enough for all of them, its *backward zone*. The
history is linearizable if and only if no read ended before the write of its value began, no two forward zones
overlap, and no backward zone lies within a forward zone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from itertools import pairwise
from math import inf

from latchstore.stress.history import Operation
from latchstore.stress.verdict import VALID, Verdict

#: The operations that this checker knows. Their values are in `argument` and `result`.
WRITE, READ = "set", "get"


def check_register(operations: Iterable[Operation], initial: object = None) -> Verdict:
    """Check the operations on one key.

    Parameters
    ----------
    operations : iterable of Operation
        ``set`` with the value as the argument, and ``get`` with the value as the result. Those that failed
        are passed over.
    initial : object
        What the register has at the beginning.

    Returns
    -------
    verdict : Verdict
        "unknown" if two writes have the same value, or another operation is among them.
    """
    values = _Values(initial)
    reads: list[Operation] = []
    for operation in operations:
        if operation.outcome == "fail":
            continue
        if operation.name == WRITE:
            if not values.add_write(operation):
                return Verdict("unknown", f"the value {operation.argument!r} is written more than once")
        elif operation.name != READ:
            return Verdict("unknown", f"{operation.name!r} is neither {WRITE!r} nor {READ!r}")
        elif operation.outcome == "ok":
            reads.append(operation)
    problem = values.add_reads(reads)
    return values.check_zones(reads) if problem is None else problem


class _Values:
    """What is known of each value: its write, when the first of its operations ended, the last began."""

    def __init__(self, initial: object) -> None:
        self._writes: dict[object, Operation | None] = {initial: None}
        self._first_end: dict[object, float] = {initial: -inf}
        self._last_begin: dict[object, float] = {initial: -inf}

    def add_write(self, write: Operation) -> bool:
        """Add a value; return False if there is one like it."""
        value = write.argument
        if value in self._writes:
            return False
        self._writes[value] = write
        # What nobody saw end may take effect at any time.
        certain = write.end is not None and write.outcome != "info"
        self._first_end[value] = inf if write.end is None or not certain else write.end
        self._last_begin[value] = write.begin
        return True

    def add_reads(self, reads: Iterable[Operation]) -> Verdict | None:
        """Add reads to their values; return a verdict if one has got what it cannot have."""
        # One look in each dict for each read: half a million reads a second (benchmarks/checkers.py).
        writes, firsts, lasts = self._writes, self._first_end, self._last_begin
        for read in reads:
            value, begin, end = read.result, read.begin, read.end
            if value not in writes:
                return Verdict("invalid", f"{read}: nobody wrote that", (read,))
            if begin > lasts[value]:
                lasts[value] = begin
            if end is not None:
                if end < firsts[value]:
                    firsts[value] = end
                write = writes[value]
                if write is not None and end < write.begin:
                    return Verdict("invalid", f"{read}: had ended before {write} began", (read, write))
        return None

    def check_zones(self, reads: Iterable[Operation]) -> Verdict:
        """Look for zones that cannot be beside each other."""
        lasts = self._last_begin
        forward = sorted(
            (
                (first, lasts[value], value)
                for value, first in self._first_end.items()
                if first < lasts[value]
            ),
            key=lambda zone: zone[:2],
        )
        for (_, last, value), (first, _, following) in pairwise(forward):
            if first < last:
                reason = (
                    f"{value!r} was still read at {last:.0f} ns, when {following!r} had been there since "
                    f"{first:.0f} ns"
                )
                return self._invalid(reason, value, following, reads)
        begins = [first for first, _, _ in forward]
        for value, first_end in self._first_end.items():
            last_begin = lasts[value]
            if first_end < last_begin:
                continue
            place = bisect_left(begins, last_begin) - 1
            if place >= 0 and first_end < forward[place][1]:
                first, last, around = forward[place]
                reason = (
                    f"{value!r} was there between {last_begin:.0f} and {first_end:.0f} ns, when {around!r} "
                    f"was from {first:.0f} to {last:.0f} ns"
                )
                return self._invalid(reason, value, around, reads)
        return VALID

    def _invalid(self, reason: str, value: object, other: object, reads: Iterable[Operation]) -> Verdict:
        """Return the verdict with the operations of the two values that contradict each other."""
        writes = [self._writes[value], self._writes[other]]
        told = [each for each in writes if each is not None]
        told += [each for each in reads if each.result in (value, other)]
        return Verdict("invalid", reason, tuple(told))
