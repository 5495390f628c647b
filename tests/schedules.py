"""Threads that take turns: each does one step when the test tells it to, and the test waits for it.

So a schedule of several threads is a list of lines in one function, and runs the same way each time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

from latchstore import Transaction
from latchstore.engine.transactional_store import TransactionalStore

#: Seconds after which a wait in a test has failed.
TIMEOUT = 20.0

R = TypeVar("R")


class Actor:
    """One thread, and the transactions that it is in.

    Parameters
    ----------
    store : TransactionalStore
    name : str
        Of the thread.
    """

    def __init__(self, store: TransactionalStore, name: str = "actor") -> None:
        self.store = store
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._blocks: list[Transaction] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while self._blocks:
            self.abort()
        self._executor.shutdown()

    def do(self, step: Callable[[], R]) -> R:
        """Run a step in the thread, wait for it, and return or raise what it does."""
        return self.start(step).result(TIMEOUT)

    def start(self, step: Callable[[], R]) -> Future[R]:
        """Run a step in the thread and do not wait: for one that another thread has to let go on."""
        return self._executor.submit(step)

    def begin(self, notes: str = "", *, optimistic: bool = False, timeout: float = 0.0) -> Transaction:
        """Enter a block. It does not wait: if another is the owner, it raises LockTimeoutError."""
        block = self.store.transaction(notes, timeout=timeout, optimistic=optimistic)
        self.do(block.__enter__)
        self._blocks.append(block)
        return block

    def commit(self) -> None:
        """Leave the innermost block as if its body had ended."""
        block = self._blocks.pop()
        self.do(lambda: block.__exit__(None, None, None))

    def abort(self) -> None:
        """Leave the innermost block as if its body had failed."""
        block, error = self._blocks.pop(), RuntimeError("the body failed")
        self.do(lambda: block.__exit__(RuntimeError, error, None))


def run_threads(bodies: Iterable[Callable[[], object]]) -> None:
    """Run each body in a thread of its own, all from one barrier on; raise what the first one raises."""
    bodies = list(bodies)
    barrier = threading.Barrier(len(bodies))

    def run(body: Callable[[], object]) -> None:
        barrier.wait(TIMEOUT)
        body()

    with ThreadPoolExecutor(len(bodies)) as executor:
        futures = [executor.submit(run, body) for body in bodies]
    for future in futures:
        future.result(0)


def in_another_thread(step: Callable[[], R]) -> R:
    """Run a step in a new thread, wait for it, and return or raise what it does."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(step).result(TIMEOUT)


def eventually(look: Callable[[], R]) -> R:
    """Look again and again, while other threads run, until what is found is true; return that."""
    deadline = time.monotonic() + TIMEOUT
    while not (found := look()):
        assert time.monotonic() < deadline, f"still {found!r} after {TIMEOUT:g} s"
        time.sleep(0)
    return found
