"""Checks whether the history of one key is that of a register, for distinct writes, in n log n.

The algorithm is that of Gibbons and Korach, "Testing shared memories" (SIAM Journal on Computing 26(4), 1997,
section 4), by zones. The operations of a value are its write and the reads that returned it. Let f be the
first end of these operations and s their last begin. If f is before s, the register had the value from f to
s, its *forward zone*. Otherwise one moment from s to f suffices for all of them, its *backward zone*. The
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

#: The operations that this checker supports. Their values are in `argument` and `result`.
WRITE, READ = "set", "get"


def check_register(operations: Iterable[Operation], initial: object = None) -> Verdict:
    """Check the operations on one key.

    Parameters
    ----------
    operations : iterable of Operation
        ``set`` with the value as the argument, and ``get`` with the value as the result. Failed ones are
        ignored.
    initial : object
        The initial value.

    Returns
    -------
    verdict : Verdict
        "unknown" if two writes have the same value, or if there is another operation.
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
    """The facts about each value: its write, the first end and the last begin of its operations."""

    def __init__(self, initial: object) -> None:
        self._writes: dict[object, Operation | None] = {initial: None}
        self._first_end: dict[object, float] = {initial: -inf}
        self._last_begin: dict[object, float] = {initial: -inf}

    def add_write(self, write: Operation) -> bool:
        """Add a value; return False if there is an equal one."""
        value = write.argument
        if value in self._writes:
            return False
        self._writes[value] = write
        # An operation of unknown outcome may take effect at any time.
        certain = write.end is not None and write.outcome != "info"
        self._first_end[value] = inf if write.end is None or not certain else write.end
        self._last_begin[value] = write.begin
        return True

    def add_reads(self, reads: Iterable[Operation]) -> Verdict | None:
        """Add reads to their values; return a verdict if one has an impossible value."""
        # One lookup per dict and read: half a million reads a second (benchmarks/checkers.py).
        writes, firsts, lasts = self._writes, self._first_end, self._last_begin
        for read in reads:
            value, begin, end = read.result, read.begin, read.end
            if value not in writes:
                return Verdict("invalid", f"{read}: no operation wrote that value", (read,))
            if begin > lasts[value]:
                lasts[value] = begin
            if end is not None:
                if end < firsts[value]:
                    firsts[value] = end
                write = writes[value]
                if write is not None and end < write.begin:
                    return Verdict("invalid", f"{read}: it ended before {write} began", (read, write))
        return None

    def check_zones(self, reads: Iterable[Operation]) -> Verdict:
        """Check for zones that contradict each other."""
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
                    f"{value!r} was still read at {last:.0f} ns, but the value was {following!r} since "
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
                    f"{value!r} was the value between {last_begin:.0f} and {first_end:.0f} ns, but "
                    f"{around!r} was from {first:.0f} to {last:.0f} ns"
                )
                return self._invalid(reason, value, around, reads)
        return VALID

    def _invalid(self, reason: str, value: object, other: object, reads: Iterable[Operation]) -> Verdict:
        """Return the verdict with the contradicting operations of two values."""
        writes = [self._writes[value], self._writes[other]]
        told = [each for each in writes if each is not None]
        told += [each for each in reads if each.result in (value, other)]
        return Verdict("invalid", reason, tuple(told))
