"""Messages between the parent and the processes of a run.

A process writes lines to a pipe: records of its operations, as in files of histories, and notices, which
begin with ``!``. One call writes a line when an operation begins, and one when it ends, so all of them are in
the pipe even if the process is killed. The parent sends words.

Thread safety: see each class.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from latchstore.stress.history import Operation, invoke_record, return_record
from latchstore.stress.workloads import Action

#: The beginning of a notice.
NOTICE = b"!"

#: The beginning of a record of an operation's begin.
INVOKE = b'{"type": "invoke"'

#: Notices of a process: it is ready to begin, its threads have ended, its findings, and a fault that was
#: injected.
READY, DONE, FOUND, MARK = "ready", "done", "found", "mark"

#: Words of the parent: begin; all threads of all processes have ended.
GO, FINISH = b"go", b"finish"

#: Upper limit of the numbers of a thread's operations.
_MOST = 10**9


@dataclass(frozen=True)
class Order:
    """The task of one process.

    Attributes
    ----------
    stores, where, options : object
        `SharedStores`, the result of its `create`, and options of its `attach`.
    workloads, faults : sequence of str
        Names.
    handed : mapping
        Data for each workload, by its name.
    first, stride : int
        Number of the first thread, and maximum number of threads in total.
    lengths : sequence of int
        Number of operations of each thread.
    seed : int
    switch_interval : float
    seconds : float or None
        Seconds after which no operation begins.
    stacks : str
        File for the stacks of its threads, written when it dies or on request.
    """

    stores: Any
    where: Any
    options: dict[str, Any]
    workloads: Sequence[str]
    faults: Sequence[str]
    handed: dict[str, Any]
    first: int
    stride: int
    lengths: Sequence[int]
    seed: int
    switch_interval: float
    seconds: float | None
    stacks: str


class Sender:
    """Writes lines to the parent; a `Log` of a crew. Any thread may use it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        # Held for one write: the system may split lines that are longer than a pipe's buffer.
        self._lock = threading.Lock()
        # Number of operations that each thread has begun.
        self._begun: dict[int, int] = {}

    def begun(self, thread: int, action: Action, begin: int) -> None:
        """Send the begin of an operation."""
        number = self._begun[thread] = self._begun.get(thread, -1) + 1
        operation = Operation(thread, action.name, action.key, action.argument, None, begin, None)
        self._send(json.dumps(invoke_record(thread * _MOST + number, operation)))

    def ended(self, operation: Operation) -> None:
        """Send the end of an operation."""
        number = operation.thread * _MOST + self._begun[operation.thread]
        self._send(json.dumps(return_record(number, operation)))

    def notify(self, kind: str, content: Any = None) -> None:
        """Send a notice."""
        self._send(NOTICE.decode() + json.dumps([kind, content]))

    def _send(self, line: str) -> None:
        data = line.encode() + b"\n"
        with self._lock:
            while data:
                data = data[os.write(self._descriptor, data) :]


class Lines:
    """The lines that one process has written so far. Used by one thread.

    Attributes
    ----------
    records : list of bytes
        Records of its operations.
    """

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self._rest = b""

    def add(self, data: bytes) -> list[tuple[str, Any]]:
        """Add data that was read; return the notices in it."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        notices = []
        for line in lines:
            if line.startswith(NOTICE):
                kind, content = json.loads(line[len(NOTICE) :])
                notices.append((kind, content))
            else:
                self.records.append(line)
        return notices

    @property
    def in_call(self) -> bool:
        """Whether the last record is the begin of an operation."""
        return bool(self.records) and self.records[-1].startswith(INVOKE)
