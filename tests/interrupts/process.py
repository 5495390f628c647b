"""What can only be tried in a process of its own: ``python -m tests.interrupts.process signals|memory ...``.

Prints what it found as JSON.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from types import FrameType
from typing import Any

from tests.interrupts.exhaustion import check, outcomes_of
from tests.interrupts.operations import OPERATIONS, Subject

#: What is tried when memory runs out. No watch: at one request in it CPython 3.11 leaks a reference, and
#: what nobody holds stays open.
MAIN = (
    "from_bytes",
    "from_bytes, new",
    "set",
    "update_metadata",
    "delete",
    "multiset",
    "transaction",
    "transaction, optimistic",
    "transaction, nested",
    "snapshot",
    "reads",
    "listening",
    "add_index",
)

#: What is interrupted by signals.
INTERRUPTED = (
    *MAIN,
    "attempts",
    "transaction, rollback()",
    "wait_for_key",
    "flush",
    "on_commit, on_rollback",
)


class _Interrupter:
    """A signal handler: while it is `armed` it raises KeyboardInterrupt.

    A signal may be under way in another thread while the main thread takes its timer back.

    Attributes
    ----------
    raised : bool
        Whether it has raised one. Python drops what is raised in a finalizer, wherever that comes to run.
    """

    armed = False
    raised = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.armed:
            self.raised = True
            raise KeyboardInterrupt

    def wait(self, sent: SimpleQueue[None]) -> None:
        """Wait for the interrupt: there is an item when it was sent, and there may be some of those before.

        A loop of its own: what is raised at its end passes a ``try`` around it (tests/test_guarded_loops.py).
        """
        while not self.raised:
            sent.get()


def signals(count: int) -> dict[str, Any]:
    """Interrupt operations in the main thread at random moments."""
    chance = random.Random(1)
    interrupter = _Interrupter()
    signal.signal(signal.SIGALRM, interrupter)
    signal.signal(signal.SIGINT, interrupter)
    interrupts = 0
    wrong: list[str] = []
    # No locks of Python's: they can be left taken.
    wanted: SimpleQueue[None] = SimpleQueue()
    sent: SimpleQueue[None] = SimpleQueue()

    def kill() -> None:
        while True:
            wanted.get()
            os.kill(os.getpid(), signal.SIGINT)
            sent.put(None)

    threading.Thread(target=kill, daemon=True).start()
    with ThreadPoolExecutor(1) as other:
        outcomes = {name: outcomes_of(name) for name in INTERRUPTED}
        for number in itertools.count():
            if interrupts >= count or number > 50 * count:
                break
            name = INTERRUPTED[number % len(INTERRUPTED)]
            subject = Subject()
            interrupter.raised = False
            try:
                interrupter.armed = True
                try:
                    if number % 2:
                        wanted.put(None)
                    else:
                        signal.setitimer(signal.ITIMER_REAL, 10 ** chance.uniform(-4.5, -2.8))
                    OPERATIONS[name](subject)
                    if number % 2:
                        interrupter.wait(sent)
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                    interrupter.armed = False
            except KeyboardInterrupt:
                interrupts += 1
            except RuntimeError as error:
                # What threading makes of one that strikes the wait in its own Thread.start().
                if not isinstance(error.__context__, KeyboardInterrupt):
                    raise
                interrupts += 1
            interrupter.armed = False
            try:
                check(name, subject, other, outcomes[name])
            except Exception as error:
                wrong.append(f"{name}: {type(error).__name__}: {error}")
    return {"interrupts": interrupts, "wrong": wrong}


def memory(failures: int, stride: int) -> dict[str, Any]:
    """Have requests for memory fail, one after the other, in each of the main operations."""
    import _testcapi  # type: ignore[import-not-found]

    failed = 0
    wrong: list[str] = []
    with ThreadPoolExecutor(1) as other:
        for name in MAIN:
            outcomes = outcomes_of(name)
            number, unheard_of = 1 + len(name) % stride, 0
            # Python gets over some failures by itself; after so many no more requests have come.
            while unheard_of < 30:
                subject = Subject()
                # Thread.start() waits for ever if the new thread has no memory to say that it runs.
                subject.store._dispatcher.ensure_running()
                operation = OPERATIONS[name]
                unheard_of += 1
                _testcapi.set_nomemory(number, number + failures)
                try:
                    operation(subject)
                except Exception:
                    # MemoryError, or what the interpreter makes of it.
                    unheard_of = 0
                    failed += 1
                finally:
                    _testcapi.remove_mem_hooks()
                try:
                    check(name, subject, other, outcomes)
                except Exception as error:
                    wrong.append(f"{name}, request {number}: {type(error).__name__}: {error}")
                number += stride
    return {"failed": failed, "wrong": wrong}


def main() -> None:
    """Do what the words say."""
    kind, *words = sys.argv[1:]
    threading.excepthook = lambda arguments: None
    sys.unraisablehook = lambda unraisable: None
    answer = signals(int(words[0])) if kind == "signals" else memory(int(words[0]), int(words[1]))
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
