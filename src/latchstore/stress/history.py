"""Histories: the operations of threads and their results, as a list and as a file of JSON lines.

A file begins with a header. Each operation has one record ``invoke`` when it begins and one when it ends:
``ok``, ``fail`` (it had no effect) or ``info`` (unknown). An operation without an end counts as ``info``: it
may take effect at any time after it began, or never.

Thread safety: an `Operation` is immutable; a `History` is built after the threads have ended.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from latchstore import __version__

FORMAT = 1

#: Thread numbers of calls before and after the run of the other threads.
BEFORE = -1
AFTER = -2

#: The end of an operation.
Outcome = Literal["ok", "fail", "info"]
_OUTCOMES = ("ok", "fail", "info")


class HistoryError(ValueError):
    """A file is not a history, or is damaged; the message has the line."""


class Invocation(NamedTuple):
    """A call without its thread, times and result: the argument of models.

    Attributes
    ----------
    name : str
        The operation, such as ``"set"``.
    key : str or None
        The key, if the operation has one.
    argument : object
        The argument, as JSON represents it.
    """

    name: str
    key: str | None
    argument: Any


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of one thread.

    Attributes
    ----------
    thread : int
        The number of the thread, from 0; `BEFORE` or `AFTER` outside the run of the threads.
    name : str
        The operation, such as ``"set"``.
    key : str or None
        The key, if the operation has one.
    argument, result : object
        The argument and the result, as JSON represents them.
    begin, end : int
        Nanoseconds on the monotonic clock; the end is None if the call never returned.
    outcome : str
        ``"ok"``, ``"fail"`` or ``"info"``.
    transaction : int or None
        The number of the transaction that it belongs to.
    revision : int or None
        The revision of its commit, if known.
    """

    thread: int
    name: str
    key: str | None
    argument: Any
    result: Any
    begin: int
    end: int | None
    outcome: Outcome = "ok"
    transaction: int | None = None
    revision: int | None = None

    @property
    def invocation(self) -> Invocation:
        """The call alone."""
        return Invocation(self.name, self.key, self.argument)

    def precedes(self, other: Operation) -> bool:
        """Return whether this operation had ended before the other began."""
        return self.end is not None and self.outcome != "info" and self.end < other.begin

    @property
    def call(self) -> str:
        """The call, such as ``"set('a', 1)"``."""
        key = "" if self.key is None else repr(self.key)
        argument = "" if self.argument is None else f"{', ' if key else ''}{self.argument!r}"
        return f"{self.name}({key}{argument})"

    @property
    def answer(self) -> str:
        """The result; how the operation ended if it has none."""
        return repr(self.result) if self.outcome == "ok" else self.outcome

    @property
    def who(self) -> str:
        """The thread; ``"before"`` and ``"after"`` outside the run of the threads."""
        return {BEFORE: "before", AFTER: "after"}.get(self.thread, f"thread {self.thread}")

    def __str__(self) -> str:
        return f"{self.who}: {self.call} {self._ended}"

    @property
    def _ended(self) -> str:
        return f"-> {self.answer}" if self.outcome == "ok" else f"({self.outcome})"


def environment() -> dict[str, Any]:
    """Return the facts about this interpreter for a header."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
        "switch_interval": sys.getswitchinterval(),
        "platform": f"{platform.system()} {platform.machine()}",
        "latchstore": __version__,
    }


@dataclass(frozen=True)
class History:
    """The operations of one run, by the time of their beginning.

    Parameters
    ----------
    operations : iterable of Operation
    header : dict
        Facts about the run, such as its seed; must be valid JSON.
    """

    operations: tuple[Operation, ...]
    header: dict[str, Any] = field(default_factory=dict)

    def __init__(self, operations: Iterable[Operation], header: dict[str, Any] | None = None) -> None:
        ordered = sorted(operations, key=lambda operation: operation.begin)
        object.__setattr__(self, "operations", tuple(ordered))
        object.__setattr__(self, "header", dict(header or {}))

    @property
    def overlapped(self) -> bool:
        """Whether an operation began before an earlier one had ended."""
        return any(
            one.end is None or other.begin < one.end for one, other in itertools.pairwise(self.operations)
        )

    def by_key(self) -> dict[str, list[Operation]]:
        """Return the operations by key, without those that have no key."""
        keys: dict[str, list[Operation]] = {}
        for operation in self.operations:
            if operation.key is not None:
                keys.setdefault(operation.key, []).append(operation)
        return keys

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the history to a file, records in the order of time."""
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in self.lines())

    def lines(self) -> Iterator[str]:
        """Return the lines of the file."""
        yield json.dumps({"type": "header", "format": FORMAT, **self.header})
        records: list[tuple[int, int, dict[str, Any]]] = []
        for number, operation in enumerate(self.operations):
            records.append((operation.begin, 0, invoke_record(number, operation)))
            if operation.end is not None:
                records.append((operation.end, 1, return_record(number, operation)))
        # At equal times beginnings come first: such operations overlap.
        records.sort(key=lambda record: record[:2])
        for _, _, record in records:
            yield json.dumps(record)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> History:
        """Read a file that `write` has written, complete or truncated.

        Raises
        ------
        HistoryError
            If the file is not a history; the message has the file and the line.
        """
        with open(path, encoding="utf-8") as file:
            return cls.parse(file, os.fspath(path))

    @classmethod
    def parse(cls, lines: Iterable[str | bytes], name: str) -> History:
        """Parse lines as `read` does; `name` is the name of the file.

        Records of several threads may come in any order, as long as each beginning precedes its end.
        """
        header: dict[str, Any] | None = None
        begun: dict[int, dict[str, Any]] = {}
        done: list[Operation] = []
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                kind = record.pop("type")
                if header is None:
                    if kind != "header" or record.pop("format") != FORMAT:
                        raise ValueError(f"the first line must be a header of format {FORMAT}")
                    header = record
                elif kind == "invoke":
                    begun[record["id"]] = record
                elif kind in _OUTCOMES:
                    done.append(_operation(begun.pop(record["id"]), record, kind))
                else:
                    raise ValueError(f"unknown type {kind!r}")
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise HistoryError(f"{name}, line {number}: {error!r} in {line[:60].strip()!r}") from error
        if header is None:
            raise HistoryError(f"{name} is empty")
        return cls([*done, *(_operation(record, None, "info") for record in begun.values())], header)


def invoke_record(number: int, operation: Operation) -> dict[str, Any]:
    """Return the record of a beginning."""
    record = {
        "type": "invoke",
        "id": number,
        "thread": operation.thread,
        "name": operation.name,
        "key": operation.key,
        "argument": operation.argument,
        "time": operation.begin,
    }
    if operation.transaction is not None:
        record["transaction"] = operation.transaction
    return record


def return_record(number: int, operation: Operation) -> dict[str, Any]:
    """Return the record of an end."""
    record = {"type": operation.outcome, "id": number, "result": operation.result, "time": operation.end}
    if operation.revision is not None:
        record["revision"] = operation.revision
    return record


def _operation(invoke: dict[str, Any], end: dict[str, Any] | None, outcome: Outcome) -> Operation:
    return Operation(
        thread=invoke["thread"],
        name=invoke["name"],
        key=invoke["key"],
        argument=invoke["argument"],
        result=None if end is None else end["result"],
        begin=invoke["time"],
        end=None if end is None else end["time"],
        outcome=outcome,
        transaction=invoke.get("transaction"),
        revision=None if end is None else end.get("revision"),
    )
