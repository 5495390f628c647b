"""Reads recorded histories in the formats of Jepsen and Knossos, of Porcupine, and of latchstore.

The first non-empty line determines the format:

- *lines of a log*, ``INFO  jepsen.util - 3 :invoke :cas [1 2]``: any prefix, then a process, a type, a
  function and a value;
- *EDN*, ``{:process 3, :type :invoke, :f :cas, :value [1 2]}``, with a ``:key`` if there are several: maps in
  sequence, or in one vector or list;
- *latchstore*, JSON lines with a header, see `latchstore.stress.history`.

The order of the records is the order in time. A process runs one operation at a time, from ``invoke`` to:

======== ===============================================================================================
``ok``   it returned. Its answer is the ``:answer`` in EDN, otherwise its value; a ``write``, ``put`` or
         ``append`` has none, and that of a ``cas`` is True
``fail`` it had no effect, so it is ignored. In logs, a ``cas`` that fails and repeats its value has
         compared and found another value: its answer is False
``info`` unknown: it may have taken effect at any time after it began, like those without an end
======== ===============================================================================================

Records whose process is not a number, such as ``:nemesis``, are ignored.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from latchstore.stress.edn import EdnError, Keyword, Map, read_edn
from latchstore.stress.history import History, HistoryError, Operation, Outcome

#: A line of a log; its value is EDN.
_LOG_LINE = re.compile(r"(?:^|\s)(:?[\w-]+)\s+:(invoke|ok|fail|info)\s+:([\w-]+)(?:\s+(.*))?$")

_TYPES = ("invoke", "ok", "fail", "info")

#: Operations that repeat their value at the end; it is not their answer.
_WRITES = frozenset({"write", "put", "append"})

#: Operations whose value at the beginning is not their argument.
_READS = frozenset({"read", "get"})


@dataclass(frozen=True, slots=True)
class _Record:
    """One record: the beginning or the end of an operation."""

    line: int
    process: Any
    type: str
    name: str
    key: Any
    value: Any
    answer: Any


def read_history(path: str | os.PathLike[str]) -> History:
    """Read a history in any of the formats above.

    Parameters
    ----------
    path : path
        The file, in UTF-8.

    Returns
    -------
    history : History
        The times of its operations are the numbers of the records, except in the format of latchstore.

    Raises
    ------
    HistoryError
        If the file has none of these formats, or is damaged; the message has the file and the line.
    OSError
        If the file cannot be read.
    """
    name = os.fspath(path)
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise HistoryError(f"{name} is not a text in UTF-8: {error}") from error
    first = next((line for line in text.splitlines() if line.strip()), None)
    if first is None:
        raise HistoryError(f"{name} is empty")
    if first.lstrip().startswith('{"'):
        return History.read(path)
    edn = first.lstrip().startswith(("{", "[{", "({", ";", "[", "(")) and not _LOG_LINE.search(first)
    try:
        records = list(_edn_records(text) if edn else _log_records(text))
        return History(_Pairs(in_logs=not edn).operations(records), {"file": name})
    except (EdnError, HistoryError) as error:
        raise HistoryError(f"{name}{error}") from error


def _log_records(text: str) -> Iterator[_Record]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        found = _LOG_LINE.search(line.strip())
        if found is None:
            raise HistoryError(
                f", line {number}: expected process, type and function, got {line.strip()[:60]!r}"
            )
        process, kind, name, value = found.groups()
        try:
            values = list(read_edn(value or "nil"))
        except EdnError:
            values = [value]
        told = values[0] if len(values) == 1 else values
        yield _Record(number, int(process) if process.isdigit() else process, kind, name, None, told, told)


def _edn_records(text: str) -> Iterator[_Record]:
    for value in _flat(read_edn(text)):
        if not isinstance(value, Map):
            raise HistoryError(f": expected a map, got {value!r}")
        kind, name = value.get("type"), value.get("f")
        if kind not in _TYPES or not isinstance(name, str) or "process" not in value:
            raise HistoryError(f", line {value.line}: expected :process, :type and :f, got {value!r}")
        told = value.get("value")
        answer = value.get("answer", told)
        yield _Record(value.line, value["process"], str(kind), str(name), value.get("key"), told, answer)


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    """Yield values, and the items of vectors and lists."""
    for value in values:
        if isinstance(value, list):
            yield from value
        else:
            yield value


@dataclass
class _Pairs:
    """Matches beginnings with ends."""

    in_logs: bool
    _open: dict[Any, tuple[int, _Record]] = field(default_factory=dict)

    def operations(self, records: Iterable[_Record]) -> Iterator[Operation]:
        """Yield complete operations first, then those without an end."""
        for time, record in enumerate(records):
            if isinstance(record.process, Keyword) or not isinstance(record.process, int):
                continue
            if record.type == "invoke":
                if record.process in self._open:
                    raise HistoryError(
                        f", line {record.line}: process {record.process} has begun an operation already"
                    )
                self._open[record.process] = time, record
                continue
            begun = self._open.pop(record.process, None)
            if begun is None:
                raise HistoryError(
                    f", line {record.line}: process {record.process} has not begun an operation"
                )
            yield self._operation(*begun, record, time)
        for begin, invoke in self._open.values():
            yield self._operation(begin, invoke, None, None)

    def _operation(self, begin: int, invoke: _Record, end: _Record | None, time: int | None) -> Operation:
        if end is not None and end.name != invoke.name:
            raise HistoryError(
                f", line {end.line}: {end.name!r} ends an operation that began as {invoke.name!r}"
            )
        read = invoke.name in _READS
        outcome: Outcome = "info"
        result: Any = None
        if end is not None and end.type != "info":
            outcome = "ok" if end.type == "ok" else "fail"
            result = None if invoke.name in _WRITES else end.answer
            if invoke.name == "cas":
                result = outcome == "ok"
                if self.in_logs and end.value == invoke.value:
                    outcome = "ok"
        argument = None if read else invoke.value
        key = None if invoke.key is None else str(invoke.key)
        ended = None if outcome == "info" else time
        return Operation(invoke.process, invoke.name, key, argument, result, begin, ended, outcome)
