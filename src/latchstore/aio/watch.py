"""Watches whose changes are awaited.

Thread safety: used in one event loop; any thread may fill and close the watch beneath.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from latchstore.contract.arguments import checked_timeout
from latchstore.contract.errors import WaitTimeoutError, WatchClosedError
from latchstore.contract.events import EventsLost, StoreModificationEvent
from latchstore.delivery.async_waiting import Remaining, wait_async
from latchstore.delivery.watch import Watch, may_be_read, waiters_of

if TYPE_CHECKING:
    from latchstore.contract.seconds import Seconds


class AsyncWatch:
    """An asynchronous iterator over the changes of a store; ``AsyncStore.watch()`` makes it.

    It yields the changes of its `latchstore.Watch`, in the same order. Several tasks may read it; each change
    goes to one of them. It is closed when it is freed.

    Parameters
    ----------
    watch : Watch
        Not read by anything else.

    Thread safety
    -------------
    A watch belongs to one event loop. Any thread may commit and may close the store.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    async def get(self, timeout: Seconds | None = None) -> StoreModificationEvent | EventsLost:
        """Return the next change; wait for one if there is none.

        A change is not lost if the task is cancelled while it waits: the change is taken only when the task
        runs, and is then returned without another wait.

        Parameters
        ----------
        timeout : Seconds, optional
            Seconds to wait; None for no limit.

        Raises
        ------
        WaitTimeoutError
            If there is no change in time.
        WatchClosedError
            If the watch is closed, or the store is closed and all changes have been read.
        """
        timeout = checked_timeout(timeout)
        watch = self._watch
        remaining = Remaining(timeout)
        while True:
            try:
                return watch.get(0)
            except WaitTimeoutError:
                left = remaining()
            if left == 0 or not await wait_async(waiters_of(watch), lambda: may_be_read(watch), left):
                raise WaitTimeoutError(f"no change in {timeout or 0:g} s: {watch!r}")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StoreModificationEvent | EventsLost:
        try:
            return await self.get()
        except WatchClosedError:
            raise StopAsyncIteration from None

    def __len__(self) -> int:
        """Return the number of pending changes, some of which a filter may still skip."""
        return len(self._watch)

    def __bool__(self) -> bool:
        """Return True: a watch without pending changes is true as well."""
        return True

    def close(self) -> None:
        """Close the watch, and wake the tasks that wait for a change; closing twice is harmless."""
        self._watch.close()

    @property
    def closed(self) -> bool:
        """Whether the watch is closed."""
        return self._watch.closed

    async def __aenter__(self) -> Self:
        self._watch.__enter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<asynchronous {repr(self._watch).removeprefix('<')}"
