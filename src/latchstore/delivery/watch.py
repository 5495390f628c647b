"""Watches: iterators over the changes of a store, each read at its reader's own pace.

Thread safety: any number of threads may read and close a watch; each change goes to one of them. Changes
become events, and are compared with the filter, on the reader's thread with no lock held.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from latchstore.contract.arguments import checked_timeout
from latchstore.contract.errors import WaitTimeoutError, WatchClosedError
from latchstore.contract.events import EventsLost, StoreModificationEvent
from latchstore.contract.matching import matches
from latchstore.delivery.change_buffer import ChangeBuffer, Lost, Record
from latchstore.delivery.commit_events import event_class_of, event_of
from latchstore.delivery.waiting import Waiters, clock

if TYPE_CHECKING:
    from latchstore.contract.seconds import Seconds

T = TypeVar("T")


def _left(timeout: float | None, begun: float) -> float | None:
    """Return the rest of a timeout that began at `begun`."""
    return None if timeout is None else max(0.0, timeout - (clock() - begun))


class Watch:
    """An iterator over the changes of a store, in commit order; returned by ``store.watch()``.

    Iterating waits for changes. It ends when the watch is closed, or when the store is closed and all changes
    have been read. Inside a transaction of the same thread it raises, as `get` does. Each change is a
    `StoreSetEvent`, `StoreUpdateEvent` or `StoreDeleteEvent`, like those of listeners. An `EventsLost`
    between them marks where changes were dropped because the buffer was full.

    A watch without references is closed.

    Thread safety
    -------------
    Any number of threads may read and close a watch; each change goes to one of them.
    """

    def __init__(
        self,
        source: object,
        buffer: ChangeBuffer,
        glob: str,
        refuse_in_transaction: Callable[[str], object] | None = None,
    ) -> None:
        self._source = source
        self._refuse_in_transaction = refuse_in_transaction
        self._buffer = buffer
        self._interest = buffer.interest
        self._glob = glob
        buffer.belong_to(self)

    def get(self, timeout: Seconds | None = None) -> StoreModificationEvent | EventsLost:
        """Return the next change; wait for it if there is none.

        Parameters
        ----------
        timeout : Seconds, optional
            The most seconds to wait; None for no limit. 0 does not wait, and is allowed in a transaction.

        Raises
        ------
        WaitTimeoutError
            If no change comes in time.
        TransactionError
            If it may wait and is called inside a transaction of this thread, which blocks other writers and
            whose own changes are published after its end.
        WatchClosedError
            If the watch was closed, or the store was closed and all changes have been read.
        LockTimeoutError
            If a finalizer or signal handler calls it in the middle of a call of the same thread.
        """
        timeout = checked_timeout(timeout)
        if timeout != 0 and self._refuse_in_transaction is not None:
            self._refuse_in_transaction("get")
        begun = clock()
        buffer, ended = self._buffer, False
        # The changes to check after the timeout has expired: those that came later do not count.
        last: int | None = None
        while not buffer.closed:
            left = _left(timeout, begun)
            ended = buffer.ended
            taken = self._take(left)
            if taken is None:
                if ended is buffer.ended:
                    break
                continue  # changes committed before the end are returned first
            if isinstance(taken, Lost):
                return EventsLost(self._source, **taken._asdict())
            if self._is_wanted(taken):
                change = taken.change
                return event_of(
                    event_class_of(change), change, self._source, taken.revision, taken.transaction
                )
            if left == 0:
                last = len(self) if last is None else last - 1
                if last <= 0:
                    break
        if buffer.closed:
            raise WatchClosedError(f"{self!r} is used after it was closed")
        if ended:
            raise WatchClosedError(f"{self!r}: the store was closed, and all changes have been read")
        # Without a timeout this is reached only at interpreter exit, where waits end at once.
        raise WaitTimeoutError(f"no change in {timeout or 0:g} s: {self!r}")

    def _take(self, timeout: float | None) -> Record | Lost | None:
        try:
            return self._buffer.past.popleft()
        except IndexError:
            pass  # and waits outside of the handler: what interrupts the wait has no other cause
        return self._buffer.take(timeout)

    def _is_wanted(self, record: Record) -> bool:
        terms = self._interest.terms
        _, old, new = record.change
        return not terms or matches(old, terms) or matches(new, terms)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StoreModificationEvent | EventsLost:
        try:
            return self.get()
        except WatchClosedError:
            raise StopIteration from None

    def __len__(self) -> int:
        """Return the number of changes to read, of which a filter may skip some."""
        return len(self._buffer.past) + len(self._buffer)

    def __bool__(self) -> bool:
        """Return true, also if there is nothing to read."""
        return True

    def close(self) -> None:
        """Close the watch and wake waiting readers; repeated calls do nothing."""
        self._buffer.close()

    @property
    def closed(self) -> bool:
        """Whether the watch was closed."""
        return self._buffer.closed

    def __enter__(self) -> Self:
        if self._buffer.closed:
            raise WatchClosedError(f"{self!r} is used after it was closed")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._buffer.closed else "ended" if self._buffer.ended else "open"
        return f"<{state} watch of {self._glob!r} in {self._source!r}, {len(self)} changes to read>"


def waiters_of(watch: Watch) -> Waiters:
    """Return the waiters that are woken when the watch may be readable or has ended; for asyncio."""
    return watch._buffer.waiters


def may_be_read(watch: Watch) -> bool:
    """Return whether ``get(0)`` returns a change, unless a filter skips it, or raises WatchClosedError."""
    buffer = watch._buffer
    return buffer.closed or buffer.ended or len(watch) > 0


def wait_until(
    predicate: Callable[[], T], changes: Watch, timeout: float | None, what: str, do: str = "become true"
) -> T:
    """Call `predicate` now and after each change until its result is true; return the result.

    Raises
    ------
    WaitTimeoutError
        If `timeout` seconds have passed; names `what` was waited for, and what it did not `do`.
    """
    begun = clock()
    late = f"{what} did not {do} in {timeout or 0:g} s"
    while not (result := predicate()):
        left = _left(timeout, begun)
        if left == 0:
            raise WaitTimeoutError(late)  # checked first: the predicate itself may make changes
        try:
            changes.get(left)
        except WaitTimeoutError:
            raise WaitTimeoutError(late) from None
        except WatchClosedError:
            raise WatchClosedError(f"the store was closed during the wait for {what}") from None
    return result
