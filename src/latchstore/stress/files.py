"""Reads recorded histories in the formats of Jepsen, Knossos, Elle, Porcupine, and of latchstore.

The beginning of the text determines the format:

- *lines of a log*, ``INFO  jepsen.util - 3 :invoke :cas [1 2]``: any prefix, then a process, a type, a
  function and a value; further columns and lines of the logger about something else are ignored;
- *EDN*, ``{:process 3, :type :invoke, :f :cas, :value [1 2]}``, with a ``:key`` if there are several: maps in
  sequence, or in one vector or list;
- *JSON*, ``{"process": 3, "type": "invoke", "f": "cas", "value": [1, 2]}``: the same, in lines or an array;
- *CSV* with these names in its first line;
- *whole operations* in JSON, EDN or CSV, ``{"process": 3, "f": "read", "answer": 2, "call": 10, "return":
  20}``, also with the names ``ClientId``, ``Input``, ``Output``, ``Call`` and ``Return`` of Porcupine;
- *latchstore*, JSON lines with a header, see `latchstore.stress.history`.

The text is UTF-8, and may be compressed by gzip.

Except in whole operations, which have times, the order of the records is the order in time, and a process
runs one operation at a time, from ``invoke`` to:

======== ===============================================================================================
``ok``   it returned. Its answer is the ``:answer``, otherwise its value; a ``write``, ``put`` or ``append``
         has none, and that of a ``cas`` is True unless it is a truth value
``fail`` it had no effect, so it is ignored. In logs, a ``cas`` that fails and repeats its value has
         compared and found another value: its answer is False
``info`` unknown: it may have taken effect at any time after it began, like those without an end
======== ===============================================================================================

If there are no keys, but each ``read`` or ``get`` begins with a pair of a key and nil, as the independent
registers of Jepsen do, the values of all operations are pairs of a key and a value.

Records of a process that is a keyword, such as ``:nemesis``, are ignored.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from latchstore.stress.edn import EdnError, Keyword
from latchstore.stress.history import History, HistoryError, Operation, Outcome
from latchstore.stress.records import NOTHING, READS, Record, read_records

#: Operations that repeat their value at the end; it is not their answer.
_WRITES = frozenset({"write", "put", "append"})

_COMPRESSED = b"\x1f\x8b"


def read_history(path: str | os.PathLike[str]) -> History:
    """Read a history in any of the formats above.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    history : History
        The times of its operations are the numbers of the records, except in formats that have times of
        operations. Processes that are no numbers have numbers that no other process has.

    Raises
    ------
    HistoryError
        If the file has none of these formats, is damaged, or has no operations; the message has the file and
        the line.
    OSError
        If the file cannot be read.
    """
    name = os.fspath(path)
    text = _text(name)
    if not text.strip():
        raise HistoryError(f"{name} is empty")
    if text.lstrip().startswith('{"type": "header"'):
        return History.parse(text.splitlines(), name)
    try:
        records, in_logs = read_records(text)
        halves: list[Record] = []
        whole: list[Operation] = []
        for each in records:
            if isinstance(each, Operation):
                whole.append(each)
            else:
                halves.append(each)
        if halves and whole:
            raise HistoryError(": expected either operations, or their begins and ends, got both")
        operations = whole or list(_Pairs(in_logs).operations(_with_keys(halves)))
    except (EdnError, HistoryError) as error:
        raise HistoryError(f"{name}{error}") from error
    if not operations:
        raise HistoryError(f"{name}: expected operations of clients, got none")
    return History(_numbered(operations), {"file": name})


def _text(name: str) -> str:
    with open(name, "rb") as file:
        data = file.read()
    if data.startswith(_COMPRESSED):
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise HistoryError(f"{name} cannot be decompressed: {error}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise HistoryError(f"{name} is not a text in UTF-8: {error}") from error


def _of_nemesis(record: Record) -> bool:
    return isinstance(record.process, Keyword) or record.process in ("nemesis", ":nemesis")


def _with_keys(records: Sequence[Record]) -> Sequence[Record]:
    """Return the records with keys from values that are pairs of a key and a value, if all are."""
    begun = [each for each in records if each.type == "invoke" and not _of_nemesis(each)]
    if any(each.key is not None or not _is_pair(each.value) for each in begun):
        return records
    reads = [each for each in begun if each.name in READS]
    if not reads or any(each.value[1] is not None for each in reads):
        return records
    return [
        each._replace(key=each.value[0], value=each.value[1]) if _is_pair(each.value) else each
        for each in records
    ]


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def _numbered(operations: Iterable[Operation]) -> Iterator[Operation]:
    """Yield operations with numbers for processes that are no numbers."""
    operations = list(operations)
    used = {each.thread for each in operations}
    numbers: dict[Hashable, int] = {each: each for each in used if isinstance(each, int)}
    following = max((*numbers.values(), -1)) + 1
    for each in operations:
        if not isinstance(each.thread, int) and each.thread not in numbers:
            numbers[each.thread] = following
            following += 1
        yield each if isinstance(each.thread, int) else replace(each, thread=numbers[each.thread])


@dataclass
class _Pairs:
    """Matches beginnings with ends."""

    in_logs: bool
    _open: dict[Hashable, tuple[int, Record]] = field(default_factory=dict)

    def operations(self, records: Iterable[Record]) -> Iterator[Operation]:
        """Yield complete operations first, then those without an end."""
        for time, record in enumerate(records):
            if _of_nemesis(record):
                continue
            if record.type == "invoke":
                if record.process in self._open:
                    raise HistoryError(
                        f", line {record.line}: {_client(record)} has begun an operation already, in line "
                        f"{self._open[record.process][1].line}: expected its end, got another begin; an "
                        "operation whose end nobody knows ends with :info, and each client is a process"
                    )
                self._open[record.process] = time, record
                continue
            begun = self._open.pop(record.process, None)
            if begun is None:
                raise HistoryError(
                    f", line {record.line}: {_client(record)} has not begun an operation: expected :invoke, "
                    f"got :{record.type} {record.name}"
                )
            yield self._operation(*begun, record, time)
        for begin, invoke in self._open.values():
            yield self._operation(begin, invoke, None, None)

    def _operation(self, begin: int, invoke: Record, end: Record | None, time: int | None) -> Operation:
        if end is not None and end.name != invoke.name:
            raise HistoryError(
                f", line {end.line}: {end.name!r} ends an operation of {_client(end)} that began as "
                f"{invoke.name!r} in line {invoke.line}"
            )
        outcome: Outcome = "info"
        result: Any = None
        if end is not None and end.type != "info":
            outcome = "ok" if end.type == "ok" else "fail"
            result = end.value if end.answer is NOTHING else end.answer
            if end.answer is NOTHING and invoke.name in _WRITES:
                result = None
            if invoke.name == "cas":
                if not isinstance(result, bool):
                    result = outcome == "ok"
                if self.in_logs and end.value == invoke.value:
                    outcome = "ok"
        argument = None if invoke.name in READS else invoke.value
        key = None if invoke.key is None else str(invoke.key)
        ended = None if outcome == "info" else time
        # Processes that are no numbers have one later.
        thread: Any = invoke.process
        return Operation(thread, invoke.name, key, argument, result, begin, ended, outcome)


def _client(record: Record) -> str:
    return "the process" if record.process is None else f"process {record.process}"
