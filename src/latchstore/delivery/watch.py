"""The changes of a store as something to iterate over, each reader at its own pace.

Thread safety: a watch may be read and closed by any number of threads; each change goes to one of them.
What is read becomes an event, and is compared with the filter, on the reader's thread with no lock held.
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
    """Return what is left of a timeout that began then."""
    return None if timeout is None else max(0.0, timeout - (clock() - begun))


class Watch:
    """An iterator over the changes of a store, in commit order; ``store.watch()`` makes it.

    Iterating waits for changes, and ends when the watch is closed, or when the store is and all changes
    have been read. It is refused inside a transaction of the same thread, as `get` is. Each change is a
    `StoreSetEvent`, `StoreUpdateEvent` or `StoreDeleteEvent`, as listeners hear them. Between them, one
    `EventsLost` marks where changes were dropped because the buffer was full.

    A watch that nobody refers to any more is closed.
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
            Seconds to wait; as long as it takes if None. 0 takes what there is, and may be used anywhere.

        Raises
        ------
        WaitTimeoutError
            If there is no change in time.
        TransactionError
            If it may wait and is called inside a transaction of this thread, which keeps others from changing
            anything, and whose own changes come after its end.
        WatchClosedError
            If the watch was closed, or the store was and all changes have been read.
        LockTimeoutError
            If a finalizer or a signal handler calls it in the middle of a call of the same thread.
        """
        timeout = checked_timeout(timeout)
        if timeout != 0 and self._refuse_in_transaction is not None:
            self._refuse_in_transaction("get")
        begun = clock()
        buffer, ended = self._buffer, False
        # How many changes are looked at when the time is over: those that come after that do not count.
        last: int | None = None
        while not buffer.closed:
            left = _left(timeout, begun)
            ended = buffer.ended
            taken = self._take(left)
            if taken is None:
                if ended is buffer.ended:
                    break
                continue  # what was committed before the end is given first
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
        # With no timeout it comes here only when the interpreter ends, which is not waited for.
        raise WaitTimeoutError(f"no change in {timeout or 0:g} s: {self!r}")

    def _take(self, timeout: float | None) -> Record | Lost | None:
        try:
            return self._buffer.past.popleft()
        except IndexError:
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
        """Return how many changes are there to be read, of which a filter may yet pass over some."""
        return len(self._buffer.past) + len(self._buffer)

    def __bool__(self) -> bool:
        """Return true: a watch with nothing to read is a watch all the same."""
        return True

    def close(self) -> None:
        """End the watch, and wake whoever waits for a change; closing twice is harmless."""
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
    """Return what is rung when there may be something to read, or the watch has ended; for asyncio."""
    return watch._buffer.waiters


def may_be_read(watch: Watch) -> bool:
    """Return whether ``get(0)`` returns a change that no filter passes over, or raises WatchClosedError."""
    buffer = watch._buffer
    return buffer.closed or buffer.ended or len(watch) > 0


def wait_until(predicate: Callable[[], T], changes: Watch, timeout: float | None, what: str) -> T:
    """Call `predicate` now and after each change until its result is true; return that.

    Raises
    ------
    WaitTimeoutError
        If that takes longer than `timeout` seconds; it names `what` was waited for.
    """
    begun = clock()
    late = f"{what} has not come true in {timeout or 0:g} s"
    while not (result := predicate()):
        left = _left(timeout, begun)
        if left == 0:
            raise WaitTimeoutError(late)  # there may always be a change: the predicate may make one
        try:
            changes.get(left)
        except WaitTimeoutError:
            raise WaitTimeoutError(late) from None
        except WatchClosedError:
            raise WatchClosedError(f"the store was closed while {what} was waited for") from None
    return result
