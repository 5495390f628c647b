"""The changes of a store, awaited.

Thread safety: used in one event loop; the watch beneath is filled and closed by any thread.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from latchstore.contract.arguments import checked_timeout
from latchstore.contract.errors import WaitTimeoutError, WatchClosedError
from latchstore.contract.events import EventsLost, StoreModificationEvent
from latchstore.delivery.async_waiting import running_loop, wait_async
from latchstore.delivery.watch import Watch, may_be_read, waiters_of

if TYPE_CHECKING:
    from latchstore.contract.seconds import Seconds


class AsyncWatch:
    """An asynchronous iterator over the changes of a store; ``AsyncStore.watch()`` makes it.

    It has what `latchstore.Watch` has, in the same order. Several tasks may read it; each change goes to one
    of them. If nobody refers to it any more it is closed.

    Parameters
    ----------
    watch : Watch
        Read by nobody else.

    Thread safety
    -------------
    A watch belongs to one event loop. Any thread may commit and may close the store.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    async def get(self, timeout: Seconds | None = None) -> StoreModificationEvent | EventsLost:
        """Return the next change; wait for it if there is none.

        A change that was taken for a task which is cancelled at that moment is not lost: it is taken when the
        task runs, and returned without another wait.

        Parameters
        ----------
        timeout : Seconds, optional
            Seconds to wait; as long as it takes if None.

        Raises
        ------
        WaitTimeoutError
            If there is no change in time.
        WatchClosedError
            If the watch was closed, or the store was and all changes have been read.
        """
        timeout = checked_timeout(timeout)
        watch, loop = self._watch, running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while True:
            try:
                return watch.get(0)
            except WaitTimeoutError:
                left = None if deadline is None else max(0.0, deadline - loop.time())
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
        """Return how many changes are there to be read, of which a filter may yet pass over some."""
        return len(self._watch)

    def __bool__(self) -> bool:
        """Return true: a watch with nothing to read is a watch all the same."""
        return True

    def close(self) -> None:
        """End the watch, and wake the tasks that wait for a change; closing twice is harmless."""
        self._watch.close()

    @property
    def closed(self) -> bool:
        """Whether the watch was closed."""
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
