"""What the parent and the processes of a run send each other.

A process writes lines to a pipe: records of its operations, as files of histories have them, and notices,
which begin with ``!``. A line is written by one call when an operation begins and by one when it ends, so all
that it had begun and ended is in the pipe when the process is killed. The parent sends words.

Thread safety: as told of each class.
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

#: What a notice begins with.
NOTICE = b"!"

#: What the record of a beginning begins with.
INVOKE = b'{"type": "invoke"'

#: Notices of a process: it is ready to begin, its threads have ended, this is what it has found; and a fault
#: that was put in.
READY, DONE, FOUND, MARK = "ready", "done", "found", "mark"

#: Words of the parent: begin; all threads of all processes have ended.
GO, FINISH = b"go", b"finish"

#: What the numbers of operations of a thread are below.
_MOST = 10**9


@dataclass(frozen=True)
class Order:
    """What one process is to do.

    Attributes
    ----------
    stores, where, options : object
        `SharedStores`, what its `create` has returned, and options of its `attach`.
    workloads, faults : sequence of str
        Their names.
    handed : mapping
        What each workload hands over, by its name.
    first, stride : int
        The number of the first thread, and how many threads there can be in all.
    lengths : sequence of int
        How many operations each thread does.
    seed : int
    switch_interval : float
    seconds : float or None
        After that no operation is begun.
    stacks : str
        The file that the stacks of its threads are written to when it dies, or is asked for them.
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
        # Held for one write: the system may cut lines that are longer than a pipe takes at once.
        self._lock = threading.Lock()
        # How many operations each thread has begun.
        self._begun: dict[int, int] = {}

    def begun(self, thread: int, action: Action, begin: int) -> None:
        """Send the beginning of an operation."""
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
    """What one process has written so far, as lines. Used by one thread.

    Attributes
    ----------
    records : list of bytes
        Of its operations.
    """

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self._rest = b""

    def add(self, data: bytes) -> list[tuple[str, Any]]:
        """Take what was read; return the notices in it."""
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
        """Whether the last that was heard is that an operation has begun."""
        return bool(self.records) and self.records[-1].startswith(INVOKE)
