"""Checks whether each session sees its own writes, and never an older value than before.

A session is the sequence of one thread's operations on one key. These are two of the guarantees of Terry,
Demers, Petersen, Spreitzer, Theimer and Welch, "Session guarantees for weakly consistent replicated data"
(PDIS 1994): read your writes, and monotonic reads. They need the order of the writes of each key, which is
that of the store's commits.

Thread safety: functions of immutable arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from latchstore.stress.history import Operation
from latchstore.stress.verdict import VALID, Verdict


def check_sessions(operations: Iterable[Operation], versions: Mapping[str, Sequence[object]]) -> Verdict:
    """Check that no operation returned an older value than its thread has written or read before.

    Parameters
    ----------
    operations : iterable of Operation
        ``set`` with the value as the argument, ``get`` with the value as the result; None if there was none
        yet.
    versions : mapping of str to sequence
        The values of each key, in order. All are different.
    """
    places = {
        key: {value: place for place, value in enumerate(of_key, 1)} for key, of_key in versions.items()
    }
    sessions: dict[tuple[int, str | None], tuple[int, Operation]] = {}
    for operation in sorted(operations, key=lambda each: each.begin):
        if operation.outcome != "ok":
            continue  # unknown, or without effect
        is_write = operation.name == "set"
        value = operation.argument if is_write else operation.result
        place = 0 if value is None else places.get(operation.key or "", {}).get(value)
        if place is None:
            return Verdict("invalid", f"({operation}) returned a value that no commit has set", (operation,))
        session = operation.thread, operation.key
        newest, before = sessions.get(session, (0, operation))
        if place < newest:
            kind = "read your writes" if before.name == "set" else "monotonic reads"
            reason = f"{kind}: ({operation}) has an older value than ({before})"
            return Verdict("invalid", reason, (before, operation))
        sessions[session] = place, operation
    return VALID
