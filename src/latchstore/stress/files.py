"""Reading histories that other programs have recorded: Jepsen's and Knossos's, Porcupine's, and our own.

Three kinds of files are told apart by their first line that has anything in it:

- *lines of a log*, ``INFO  jepsen.util - 3 :invoke :cas [1 2]``: a process, a type, a function and a value,
  after anything else;
- *EDN*, ``{:process 3, :type :invoke, :f :cas, :value [1 2]}``, with a ``:key`` if there are several: maps,
  one after the other or in one vector or list;
- *our own*, JSON lines with a header, see `latchstore.stress.history`.

The order of the records is the order in time. A process does one operation at a time, from ``invoke`` to:

======== ===============================================================================================
``ok``   it returned. Its answer is the ``:answer`` in EDN, or else its value; a ``write``, ``put`` or
         ``append`` has none, and that of a ``cas`` is True
``fail`` it had no effect, so it is passed over. In logs a ``cas`` that fails and repeats its value has
         compared, and found another value: its answer is False
``info`` nobody knows; it may have taken effect, at any time after it began. So for those without an end
======== ===============================================================================================

Processes that are no number, such as ``:nemesis``, are passed over.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from latchstore.stress.edn import EdnError, Keyword, Map, read_edn
from latchstore.stress.history import History, HistoryError, Operation, Outcome

#: A line of a log; what its value is in EDN.
_LOG_LINE = re.compile(r"(?:^|\s)(:?[\w-]+)\s+:(invoke|ok|fail|info)\s+:([\w-]+)(?:\s+(.*))?$")

_TYPES = ("invoke", "ok", "fail", "info")

#: Operations that repeat their value at the end, which is not their answer.
_WRITES = frozenset({"write", "put", "append"})

#: Operations whose value at the beginning is not their argument.
_READS = frozenset({"read", "get"})


@dataclass(frozen=True, slots=True)
class _Record:
    """One line: a process has begun something, or has ended it."""

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
        The times of its operations are the numbers of the records, but of our own files.

    Raises
    ------
    HistoryError
        If it is none of them, or a broken one; the message names the file and the line.
    OSError
        If it cannot be read.
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
            raise HistoryError(f", line {number}: no process, type and function in {line.strip()[:60]!r}")
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
            raise HistoryError(f": a map was expected, got {value!r}")
        kind, name = value.get("type"), value.get("f")
        if kind not in _TYPES or not isinstance(name, str) or "process" not in value:
            raise HistoryError(f", line {value.line}: no :process, :type and :f in {value!r}")
        told = value.get("value")
        answer = value.get("answer", told)
        yield _Record(value.line, value["process"], str(kind), str(name), value.get("key"), told, answer)


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    """Return values, and those in a vector or a list one by one."""
    for value in values:
        if isinstance(value, list):
            yield from value
        else:
            yield value


@dataclass
class _Pairs:
    """Puts beginnings and ends together."""

    in_logs: bool
    _open: dict[Any, tuple[int, _Record]] = field(default_factory=dict)

    def operations(self, records: Iterable[_Record]) -> Iterator[Operation]:
        """Return the operations that are whole, then those that have no end."""
        for time, record in enumerate(records):
            if isinstance(record.process, Keyword) or not isinstance(record.process, int):
                continue
            if record.type == "invoke":
                if record.process in self._open:
                    raise HistoryError(f", line {record.line}: process {record.process} is at work already")
                self._open[record.process] = time, record
                continue
            begun = self._open.pop(record.process, None)
            if begun is None:
                raise HistoryError(f", line {record.line}: process {record.process} has begun nothing")
            yield self._operation(*begun, record, time)
        for begin, invoke in self._open.values():
            yield self._operation(begin, invoke, None, None)

    def _operation(self, begin: int, invoke: _Record, end: _Record | None, time: int | None) -> Operation:
        if end is not None and end.name != invoke.name:
            raise HistoryError(f", line {end.line}: {end.name!r} ends what has begun as {invoke.name!r}")
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
