"""One background thread that hands out what was committed, in the order in which it was queued.

Thread safety:

1. `submit` may be called by any thread, also under the store's locks: it is one ``SimpleQueue.put``,
   which CPython implements in C as reentrant, so that a finalizer may call it too. The order of the
   calls is the order of delivery; commits call it under the writer mutex.
2. Deliveries are run by the dispatcher's thread alone, with no lock held: listeners may do anything.
3. The thread knows the dispatcher, never the store, so that a store nobody uses is freed; `stop_soon`
   is what its finalizer calls.
4. `_life` is the last lock in the order of ``locking.py``. It guards the starting and ending of the
   thread; nothing is called under it but ``Thread.start``.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from queue import SimpleQueue
from threading import get_ident
from typing import Protocol

from latchstore.errors import DispatcherThreadError, FlushTimeoutError

logger = logging.getLogger("latchstore")

#: Seconds that the interpreter's exit waits for pending events of all stores together.
EXIT_TIMEOUT = 10.0


class Delivery(Protocol):
    """What is queued: something that tells its listeners when its turn has come."""

    def deliver(self) -> None: ...


class _Flag:
    """A delivery that only says when its turn has come: all that was queued before has been heard."""

    __slots__ = ("reached",)

    def __init__(self) -> None:
        self.reached = threading.Event()

    def deliver(self) -> None:
        self.reached.set()


class EventDispatcher:
    """A queue of deliveries and the daemon thread that runs them.

    Parameters
    ----------
    name : str
        The name of the thread.
    """

    def __init__(self, name: str = "latchstore-events") -> None:
        self._name = name
        self._queue: SimpleQueue[Delivery | None] = SimpleQueue()
        # Guards _thread and _stopping: at most one thread runs, and is told to end once. Nothing is
        # called under it but Thread.start.
        self._life = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = False
        # Whether the store is gone.
        self._abandoned = False
        # What the thread is delivering and since when (monotonic seconds); one assignment publishes it.
        self._delivering: tuple[Delivery, float] | None = None
        _dispatchers.add(self)

    @property
    def pending(self) -> int:
        """How many deliveries are waiting or under way."""
        return self._queue.qsize() + (self._delivering is not None)

    @property
    def running(self) -> bool:
        """Whether the thread has been started, and not been ended by `stop`."""
        return self._thread is not None

    def on_dispatcher_thread(self) -> bool:
        """Tell whether the calling thread is the dispatcher's."""
        thread = self._thread
        return thread is not None and thread.ident == get_ident()

    def submit(self, delivery: Delivery) -> None:
        """Queue a delivery. Never waits; `ensure_running` must follow once no lock is held."""
        self._queue.put(delivery)

    def ensure_running(self) -> None:
        """Start the thread if it does not run. Raises RuntimeError if the system gives no thread."""
        if self._thread is not None:
            return
        with self._life:
            if self._thread is not None:
                return
            # Known before it runs: the first listener may ask whether this is its thread.
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            try:
                self._thread.start()
            except BaseException:
                self._thread = None
                raise

    def _run(self) -> None:
        """Deliver until told to stop. Nothing that a listener does ends this loop."""
        while True:
            delivery = self._queue.get()
            if delivery is None:
                # Noted here and not by `stop`, whose time may have run out before this.
                with self._life:
                    self._thread = None
                    self._stopping = False
                return
            self._delivering = (delivery, time.monotonic())
            try:
                delivery.deliver()
            except BaseException:
                # SystemExit and KeyboardInterrupt too: a listener must not silence all others.
                logger.exception("a listener broke off the delivery of %r", delivery)
            finally:
                # Both names go, or the thread would keep the store alive while it waits.
                self._delivering = None
                del delivery

    def refuse_on_own_thread(self, operation: str) -> None:
        """Raise DispatcherThreadError if a listener is calling."""
        if self.on_dispatcher_thread():
            raise DispatcherThreadError(
                f"{operation}() on the dispatcher's thread would wait for itself: listeners must not call it"
            )

    def flush(self, timeout: float | None) -> None:
        """Wait until all that was queued before has been heard.

        Raises
        ------
        DispatcherThreadError
            If a listener calls it.
        FlushTimeoutError
            If that takes longer than `timeout` seconds.
        """
        self.refuse_on_own_thread("flush")
        if self._thread is None and self._queue.empty():
            return
        flag = _Flag()
        self._queue.put(flag)
        self.ensure_running()
        if not flag.reached.wait(timeout):
            raise FlushTimeoutError(f"events not heard in {timeout:g} s: {self.describe()}")

    def stop(self, timeout: float | None) -> None:
        """Deliver all that is queued and end the thread; it starts again when it is needed again.

        Raises
        ------
        DispatcherThreadError, FlushTimeoutError
            As `flush`.
        """
        self.flush(timeout)
        with self._life:
            thread = self._thread
            if thread is not None and not self._stopping:
                self._stopping = True
                self._queue.put(None)
        if thread is None:
            return
        thread.join(timeout)
        if thread.is_alive():
            raise FlushTimeoutError(f"events not heard in {timeout:g} s: {self.describe()}")
        if not self._queue.empty():
            # Somebody wrote between the flush and the end of the thread.
            self.ensure_running()

    def stop_soon(self) -> None:
        """Tell the thread to end after what is queued now; does not wait, takes no lock."""
        self._abandoned = True
        self._queue.put(None)

    def drain(self, timeout: float) -> None:
        """Wait until all has been heard, at the exit of the interpreter; FlushTimeoutError if it is not."""
        thread = self._thread
        if thread is None or not thread.is_alive():
            return
        if not self._abandoned:
            self.flush(timeout)
            return
        # Nobody queues any more, and what was queued comes before the word to end.
        thread.join(timeout)
        if thread.is_alive():
            raise FlushTimeoutError(f"events not heard in {timeout:g} s: {self.describe()}")

    def describe(self) -> str:
        """Say what is being delivered, for how long, and how much is waiting."""
        delivering = self._delivering
        waiting = f"{self._queue.qsize()} waiting"
        if delivering is None:
            return waiting
        delivery, since = delivering
        return f"{delivery!r} under way for {time.monotonic() - since:.3f} s, {waiting}"


# Every dispatcher alive, for the exit of the interpreter.
_dispatchers: weakref.WeakSet[EventDispatcher] = weakref.WeakSet()


def _drain_at_exit() -> None:
    """Let pending events be heard before daemon threads are cut off; gives up after EXIT_TIMEOUT."""
    deadline = time.monotonic() + EXIT_TIMEOUT
    for dispatcher in list(_dispatchers):
        try:
            dispatcher.drain(max(0.0, deadline - time.monotonic()))
        except FlushTimeoutError as error:
            logger.warning("at exit: %s", error)


atexit.register(_drain_at_exit)
