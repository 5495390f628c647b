"""The records of a history file in each of its formats: logs, EDN, JSON and CSV.

`latchstore.stress.files` describes the formats. A text is read into `Record` objects, which each tell of the
begin or the end of an operation, or into whole operations, where a format has these.
"""

from __future__ import annotations

import csv
import json
import re
import reprlib
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from latchstore.stress.edn import EdnError, Keyword, Map, read_edn
from latchstore.stress.history import HistoryError, Operation, Outcome

#: The types of records, and those that end an operation.
TYPES = ("invoke", "ok", "fail", "info")

#: Operations whose value at the beginning is not their argument.
READS = frozenset({"read", "get"})

#: The answer of a record that has none.
NOTHING: Any = object()


class Record(NamedTuple):
    """The begin or the end of an operation.

    Attributes
    ----------
    line : int
    process : object
        None if the record does not name one.
    type : str
        One of `TYPES`.
    name : str
        The operation.
    key, value : object
        None if there is none.
    answer : object
        `NOTHING` if there is none of its own beside the value.
    """

    line: int
    process: Hashable
    type: str
    name: str
    key: Any
    value: Any
    answer: Any


#: A line of a log; the rest is the value in EDN, and columns that do not matter.
_LOG_LINE = re.compile(r"(?:^|\s)(:?[\w.-]*\w)\s+:(invoke|ok|fail|info)\s+:(\S+)(?:\s+(.*))?$")

#: Lines that a logger writes about something else.
_OTHER_LOG_LINE = re.compile(r"(TRACE|DEBUG|INFO|WARN|WARNING|ERROR|FATAL)\b(?!.*\s:(invoke|ok|fail|info)\s)")

_COMMENTS = r"(?:[\s,]|;[^\n]*(?:\n|$))*"
_JSON = re.compile(r'\s*\[?\s*\{\s*"')
_EDN = re.compile(rf"{_COMMENTS}[\[(]?{_COMMENTS}[{{#]")
_CSV = re.compile(r'"?\w+"?\s*(,\s*"?\w+"?\s*)+$')

_LOG_EXPECTED = 'expected process, type and function, such as "0 :invoke :write 1"'
_EXPECTED = "expected :process, :type and :f, such as {:process 0, :type :invoke, :f :write, :value 1}"
_WHOLE_EXPECTED = (
    'expected process, f, value, answer, call and return, such as {"process": 0, "f": "read", "answer": 1, '
    '"call": 10, "return": 20}'
)

_CONVERSIONS = {"null": None, "None": None, "": None, "True": True, "False": False}


def read_records(text: str) -> tuple[Iterator[Record | Operation], bool]:
    """Return the records of a text, and whether it is a log.

    Raises
    ------
    HistoryError, EdnError
        While the records are read; the message has the line.
    """
    first = next(line.strip() for line in text.splitlines() if line.strip())
    if _JSON.match(text):
        return _from_maps(_json_maps(text)), False
    if _EDN.match(text) or (first[0] in "[(" and not _LOG_LINE.search(first)):
        return _from_maps(_edn_maps(text)), False
    if _CSV.match(first):
        return _from_maps(_csv_maps(text)), False
    return _log_records(text), True


def _log_records(text: str) -> Iterator[Record]:
    for number, line in enumerate(text.splitlines(), 1):
        found = _LOG_LINE.search(line.rstrip())
        if found is None:
            if line.strip() and not _OTHER_LOG_LINE.search(line):
                raise HistoryError(f", line {number}: {_LOG_EXPECTED}, got {line.strip()[:60]!r}")
            continue
        process, kind, name, rest = found.groups()
        client: Hashable = int(process) if process.isdigit() else process
        if process.startswith(":"):
            client = Keyword(process[1:])
        yield Record(number, client, kind, name, None, _log_value(rest or ""), NOTHING)


def _log_value(text: str) -> Any:
    """Return the value at the beginning of a text; after a tab or a keyword there are other columns."""
    column = text.strip().partition("\t")[0].strip()
    try:
        values = list(read_edn(column or "nil"))
    except EdnError:
        return column
    alone = len(values) == 1 or isinstance(values[1], Keyword)
    return values[0] if alone else values


def _edn_maps(text: str) -> Iterator[tuple[int, Any]]:
    for value in read_edn(text):
        for each in value if isinstance(value, list) else (value,):
            yield (each.line if isinstance(each, Map) else 0), each


def _json_maps(text: str) -> Iterator[tuple[int, Any]]:
    """Yield the objects of JSON lines, of objects one after the other, or of one array."""
    decoder = json.JSONDecoder()
    between = re.compile(r"[\s,\[\]]*")
    line, place, end = 1, 0, len(text)
    while True:
        begin = between.match(text, place).end()  # type: ignore[union-attr]
        line += text.count("\n", place, begin)
        if begin == end:
            return
        try:
            value, place = decoder.raw_decode(text, begin)
        except ValueError as error:
            raise HistoryError(f", line {line}: expected JSON: {error}, got {text[begin:][:60]!r}") from error
        yield line, value
        line += text.count("\n", begin, place)


def _csv_maps(text: str) -> Iterator[tuple[int, Any]]:
    rows = csv.DictReader(text.splitlines(), skipinitialspace=True)
    for row in rows:
        yield rows.line_num, {(name or "").strip(): _cell(cell) for name, cell in row.items()}


def _cell(text: str | None) -> Any:
    """Return the value of a cell: EDN, or else the text."""
    text = (text or "").strip()
    if text in _CONVERSIONS:
        return _CONVERSIONS[text]
    try:
        values = list(read_edn(text))
    except EdnError:
        return text
    return values[0] if len(values) == 1 else text


def _from_maps(maps: Iterable[tuple[int, Any]]) -> Iterator[Record | Operation]:
    for line, value in maps:
        if not isinstance(value, Mapping):
            raise HistoryError(f"{_at(line)}: expected a map, got {reprlib.repr(value)}")
        whole = {str(name).lower().replace("_", ""): each for name, each in value.items()}
        if "call" in whole and "type" not in whole:
            yield _operation(line, value, whole)
            continue
        kind = str(value.get("type")).removeprefix(":")
        if kind == "info" and "process" not in value and "f" not in value:
            continue  # an event of the test itself
        told = value.get("value")
        # Transactions of Elle need not name their function.
        name = value.get("f", "txn" if isinstance(told, list) else None)
        if kind not in TYPES or not isinstance(name, str) or not _can_be_process(value.get("process")):
            raise HistoryError(f"{_at(line)}: {_EXPECTED}, got {reprlib.repr(dict(value))}")
        answer = value.get("answer", NOTHING)
        process = value.get("process")
        yield Record(line, process, kind, name.removeprefix(":"), value.get("key"), told, answer)


def _can_be_process(value: object) -> bool:
    return value is None or isinstance(value, int | str)


def _at(line: int) -> str:
    return f", line {line}" if line else ""


# -- whole operations ---------------------------------------------------------------------------------------


def _operation(line: int, value: Mapping[str, Any], names: Mapping[str, Any]) -> Operation:
    """Return an operation with its call and its return in one map, also with the names that Porcupine has."""
    asked = names.get("input", names)
    asked = {str(name).lower(): each for name, each in asked.items()} if isinstance(asked, Mapping) else {}
    name = asked.get("f", asked.get("op"))
    process = names.get("process", names.get("clientid"))
    begin, end = names["call"], names.get("return")
    answer = names.get("answer", names.get("output"))
    if isinstance(answer, Mapping) and len(answer) == 1:
        (answer,) = answer.values()
    times = [each for each in (begin, end) if each is not None]
    outcome: Outcome = names.get("outcome") or ("info" if end is None else "ok")
    if (
        not isinstance(name, str)
        or not _can_be_process(process)
        or outcome not in TYPES[1:]
        or not all(isinstance(each, int | float) for each in times)
        or begin is None
        or (end is not None and end < begin)
    ):
        raise HistoryError(f"{_at(line)}: {_WHOLE_EXPECTED}, got {reprlib.repr(dict(value))}")
    argument = None if name in READS else asked.get("value")
    key = None if asked.get("key") is None else str(asked["key"])
    pending = outcome == "info"
    return Operation(
        process,  # if it is not a number, it is given one later
        name,
        key,
        argument,
        None if pending else answer,
        begin,
        None if pending else end,
        outcome,
    )
