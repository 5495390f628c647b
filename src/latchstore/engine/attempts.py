"""Attempts: repeat an optimistic transaction after a conflict.

Thread safety: an `Attempts` is used by one thread, like the transactions that it makes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import TracebackType

from latchstore.contract.errors import TransactionClosedError, TransactionConflictError
from latchstore.delivery.waiting import clock
from latchstore.engine.transaction import Transaction

#: The longest pause before the second try, and before any try, in seconds.
FIRST_PAUSE = 0.000_5
LONGEST_PAUSE = 0.1


class Attempt:
    """One try: a context manager that returns the transaction, and suppresses all conflicts but the last.

    Parameters
    ----------
    attempts : Attempts
    number : int
        Counted from 1.
    """

    def __init__(self, attempts: Attempts, number: int) -> None:
        self.number = number
        self._attempts = attempts
        self._transaction: Transaction | None = None

    @property
    def entered(self) -> bool:
        """Whether the block has begun."""
        return self._transaction is not None

    def __enter__(self) -> Transaction:
        if self._transaction is not None:
            raise TransactionClosedError(f"attempt {self.number} was entered before: enter each attempt once")
        self._transaction = self._attempts.make_transaction()
        return self._transaction.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        assert self._transaction is not None
        try:
            self._transaction.__exit__(kind, error, traceback)
        except TransactionConflictError as conflict:
            self._attempts.after_conflict(self.number, conflict)
            return True
        if isinstance(error, TransactionConflictError) and self._transaction.revision is None:
            # Raised by tx.commit() inside the block. After a commit it is another store's, and propagates.
            self._attempts.after_conflict(self.number, error)
            return True
        self._attempts.finished = True
        return False


class Attempts:
    """An iterator over attempts that ends after one was committed.

    Between two tries it sleeps for a random time, up to a limit that doubles with each try ("full jitter": M.
    Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015), so that threads in conflict do
    not meet again.

    Parameters
    ----------
    make_transaction : callable
        Returns the transaction of an attempt.
    notes : str
    tries : int
        The most attempts.
    timeout : float or None
        Seconds after which no further attempt begins; None for no limit.
    """

    def __init__(
        self,
        make_transaction: Callable[[], Transaction],
        notes: str,
        tries: int,
        timeout: float | None,
    ) -> None:
        self.make_transaction = make_transaction
        self.finished = False
        self._notes = notes
        self._tries = tries
        self._timeout = timeout
        self._begun = clock()

    def __iter__(self) -> Iterator[Attempt]:
        number = 0
        while not self.finished:
            number += 1
            attempt = Attempt(self, number)
            yield attempt
            if not attempt.entered:
                raise TransactionClosedError(
                    f"attempt {number} at {self._notes!r} was never entered: "
                    "write `with attempt as tx:` in the loop"
                )

    def after_conflict(self, number: int, conflict: TransactionConflictError) -> None:
        """Sleep before the next attempt, or raise the conflict with the number of tries if there is none."""
        time.sleep(self.pause_after(number, conflict))

    def pause_after(self, number: int, conflict: TransactionConflictError) -> float:
        """Return the seconds before the next attempt; raise the conflict as `after_conflict` does."""
        import random  # imported here, since conflicts are rare

        elapsed = clock() - self._begun
        pause = random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(number, 30)))  # noqa: S311
        if number >= self._tries or (self._timeout is not None and elapsed + pause > self._timeout):
            raise TransactionConflictError(
                f"gave up after {number} tries in {elapsed:.3f} s: {conflict}", conflict.keys, number
            ) from conflict
        return pause
