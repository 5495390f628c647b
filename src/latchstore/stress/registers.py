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
from dataclasses import dataclass
from itertools import pairwise
from math import inf

from latchstore.stress.history import Operation
from latchstore.stress.verdict import VALID, Verdict

#: The operations that this checker knows. Their values are in `argument` and `result`.
WRITE, READ = "set", "get"


@dataclass(slots=True)
class _Value:
    """The operations of one value, so far as the check needs them."""

    write: Operation | None
    first_end: float
    last_begin: float

    def add(self, begin: float, end: float) -> None:
        self.first_end = min(self.first_end, end)
        self.last_begin = max(self.last_begin, begin)


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
    relevant = [operation for operation in operations if operation.outcome != "fail"]
    values: dict[object, _Value] = {initial: _Value(None, -inf, -inf)}
    for operation in relevant:
        if operation.name == WRITE:
            if operation.argument in values:
                return Verdict("unknown", f"the value {operation.argument!r} is written more than once")
            values[operation.argument] = _Value(operation, _end(operation), operation.begin)
        elif operation.name != READ:
            return Verdict("unknown", f"{operation.name!r} is neither {WRITE!r} nor {READ!r}")
    for operation in relevant:
        if operation.name == READ and operation.outcome == "ok":
            value = values.get(operation.result)
            if value is None:
                return Verdict("invalid", f"{operation}: nobody wrote that")
            if value.write is not None and operation.precedes(value.write):
                return Verdict("invalid", f"{operation}: had ended before {value.write} began")
            value.add(operation.begin, _end(operation))
    return _check_zones(values)


def _end(operation: Operation) -> float:
    # What nobody saw end may take effect at any time.
    return inf if operation.end is None or operation.outcome == "info" else operation.end


def _check_zones(values: dict[object, _Value]) -> Verdict:
    forward = sorted(
        (value.first_end, value.last_begin, repr(name))
        for name, value in values.items()
        if value.first_end < value.last_begin
    )
    for (_, last, name), (first, _, following) in pairwise(forward):
        if first < last:
            seen = f"{following} had been there since {first:.0f} ns"
            return Verdict("invalid", f"{name} was still read at {last:.0f} ns, when {seen}")
    begins = [first for first, _, _ in forward]
    for each, value in values.items():
        if value.first_end < value.last_begin:
            continue
        place = bisect_left(begins, value.last_begin) - 1
        if place >= 0 and value.first_end < forward[place][1]:
            first, last, around = forward[place]
            span = f"between {value.last_begin:.0f} and {value.first_end:.0f} ns"
            return Verdict(
                "invalid", f"{each!r} was there {span}, when {around} was from {first:.0f} to {last:.0f} ns"
            )
    return VALID
