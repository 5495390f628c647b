"""The dispatcher: one background thread that calls listeners with committed changes, in queueing order.

Thread safety:

1. Any thread may call `submit`, also under the store's lock: it is one ``deque.append``, so a finalizer may
   call it as well. The order of the calls is the order of delivery. A delivery that is queued twice, because
   an exception interrupted the caller, is counted and delivered once.
2. One thread at a time runs deliveries, with no lock held, so listeners may do anything. It is a daemon
   thread or, if none can be started, a thread that waits for events (`flush`, `stop`, `wait_for_room`).
3. The thread that delivers is the first one in `_post`: a thread adds itself, and delivers if it is the
   first. It removes itself by one call in C in a ``finally``, so the next write, flush or stop replaces a
   thread that has ended for any reason. A thread that waits for the dispatcher's thread also checks that it
   is alive. The current delivery stays in `taken` and records its progress: the next thread continues there.
4. The thread refers to the dispatcher, but to the store weakly, so that an unused store is freed. The store's
   finalizer queues an end. It may be interrupted or run out of memory, and is not called again, so an idle
   thread also checks now and then whether the store is gone.
5. `throttled` is set without a lock by a thread that finds the queue full, and cleared when there is room.
   A writer waits for room before it acquires any lock of the store, and checks again by itself now and then.
6. While timers are held, since the store is closed, no thread runs for them. The creator of a timer then
   checks whether timers are held, and `resume` then checks for new timers: one of the two wakes the thread.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from threading import get_ident

from latchstore.contract.errors import BackpressureError, DispatcherThreadError, LockTimeoutError
from latchstore.delivery.at_exit import drain_at_exit
from latchstore.delivery.calls import Call, ListenerCalls
from latchstore.delivery.deliveries import Delivery, DeliveryQueue, End, Flag, Mark
from latchstore.delivery.threads import DeliveryThread, Post, calling_deliverer
from latchstore.delivery.timers import Timer, TimerHeap
from latchstore.delivery.waiting import LOOK_AGAIN, Latch, Waiters, clock

__all__ = ["Delivery", "EventDispatcher", "Timer"]

logger: logging.Logger = logging.getLogger("latchstore")

#: Seconds after which an idle thread checks whether its store is gone.
IDLE = 10.0

#: The tries of a failing delivery before it is skipped: exceptions from outside come once or twice.
_TRIES = 10

#: The same for MemoryError, since memory may be available again soon, and the seconds between tries.
_TRIES_FOR_MEMORY = 250
_PAUSE = 0.01


class _Deliverer(ListenerCalls):
    """The choice of the thread that delivers, and its loop: rules 2 and 3. For `EventDispatcher`."""

    def __init__(self, name: str, limit: int | None, listener_name: Callable[[object], str]) -> None:
        super().__init__(listener_name)
        self._name = name
        self._limit = limit
        # Below the limit: a wake-up has room for several events, or writers and listeners would alternate.
        self._room_below = None if limit is None else limit - limit // 16
        self._timers: TimerHeap = TimerHeap()
        self.delivered_revision: int = 0
        # The store, once there is one: rule 4.
        self._store: weakref.ref[object] | None = None
        self._renew()

    def _renew(self) -> None:
        """Reset to an empty queue and no thread."""
        self._queue = DeliveryQueue()
        # Held from the start of a thread until it delivers, so that only one is started. No user code runs
        # then.
        self._life = Latch()
        # The threads that deliver, by identifier; only the first one does: rule 3.
        self._post = Post()
        # Identifies the last thread started, if it is still to deliver. If an exception interrupts its
        # creator, it may begin after another one was started, or when nothing is to be delivered any more.
        self._newest: list[None] | None = None
        # The thread that was started last.
        self._started: threading.Thread | None = None
        # Whether the warning that no thread can be started was logged.
        self._warned = False
        # If the current delivery has failed: its progress, and the number of failures in a row. It does not
        # refer to the delivery, which would keep the store alive.
        self._failed: tuple[object, int] | None = None
        self._timers = TimerHeap(self._timers.held)
        self.calling: Call | None = None
        self.delivering = None
        self.throttled: bool = False
        # Writers wait here until `throttled` is cleared, with no lock held.
        self.room: Waiters = Waiters()

    # -- the thread -------------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """The number of events that are queued or being delivered."""
        return max(0, self._queue.events + (self.delivering is not None))

    @property
    def running(self) -> bool:
        """Whether a thread delivers or waits for deliveries."""
        return self.thread is not None

    @property
    def thread(self) -> threading.Thread | None:
        """The live thread that delivers, or None."""
        return self._post.holder()

    @property
    def marks(self) -> int:
        """The number of marks in the queue, such as those of threads in `flush`."""
        return len(self._queue.marks)

    @property
    def timers(self) -> int:
        """The number of timers, including cancelled ones that have not been dropped yet."""
        return len(self._timers)

    def on_dispatcher_thread(self) -> bool:
        """Return whether the calling thread delivers, which means that a listener is calling."""
        ident, started = get_ident(), self._started
        if ident in self._post:
            return True
        # The thread begins or ends, and a finalizer calls. Not checked for one that delivers: see `Life`.
        return started is not None and started.ident == ident and started.is_alive()

    def refuse_on_own_thread(self, operation: str) -> None:
        """Raise DispatcherThreadError if a listener is calling."""
        if self.on_dispatcher_thread():
            raise DispatcherThreadError(
                f"{operation}() in a listener would wait for itself: call it in another thread"
            )

    def start_if_needed(self) -> None:
        """Start the thread if none runs and the queue has items; do not raise if that is impossible."""
        # hot path: mostly a thread runs. Threads that wait for it check whether it is alive.
        if not self._post and self._queue.items:
            self.ensure_running()

    def ensure_running(self) -> None:
        """Start the thread if none runs; do not raise if that is impossible."""
        while not (self.running or self._queue.is_empty() or sys.is_finalizing() or self._life.locked()):
            if not self._has_started():
                break
        else:
            return  # the thread that starts one checks again afterwards, and may be waiting for this thread
        if not threading.main_thread().is_alive():
            # Python 3.12.0 and 3.12.1 start no threads from now on, though other threads may run for long.
            self._deliver_until(self._queue.is_empty)
        elif not self._warned:
            self._warned = True
            try:
                logger.warning("cannot start the thread that delivers events; the next write tries again")
            except Exception:
                return  # an error of a handler, or of memory: the write has been made, and must return

    def _has_started(self) -> bool:
        """Start the thread; return whether one runs, or none can be started at interpreter exit."""
        try:
            return self._life.during(self._start)
        except LockTimeoutError:
            raise  # a signal handler or finalizer calls in the middle of this very call
        except (RuntimeError, MemoryError):
            return False

    def _start(self) -> bool:
        # At interpreter exit no other thread runs: starting one raises, or waits forever.
        if self.running or sys.is_finalizing():
            return True
        ended: list[None] = []
        self._newest = ended
        self._started = thread = DeliveryThread(partial(self._run, ended), self._name)
        thread.start()
        # A thread that was there has begun: as it leaves, neither shows it for a moment.
        while not (began := bool(self._post or ended)) and thread.is_alive():
            time.sleep(0)
        self._warned = False
        return began or bool(ended)

    def _run(self, ended: list[None]) -> None:
        """Deliver until an end is queued; the target of the thread."""
        struck: BaseException | None = None
        try:
            if self._newest is ended:
                self._deliver_until(None)
        except BaseException as error:
            struck = error
        finally:
            ended.append(None)
            if not self._queue.is_empty():
                # A thread wrote while this one ended, or this one was interrupted.
                self.ensure_running()
        if struck is not None:
            # After another thread has taken over, since logging may wait forever
            # (tests/interrupts/README.md).
            logger.error("the dispatcher's thread was interrupted; another one continues", exc_info=struck)
            struck = None  # its traceback refers to this frame

    def _deliver_until(self, enough: Callable[[], bool] | None) -> None:
        """Deliver on the calling thread, unless another one does, until `enough` or an end is queued."""
        post, queue, ident = self._post, self._queue, get_ident()
        try:
            post[ident] = calling_deliverer()
            if list(post)[:1] == [ident]:
                queue.begin()
                self._deliver_in_turn(queue, enough)
        finally:
            post.pop(ident, None)  # one call in C, needing no memory: rule 3

    def _deliver_unless_running(self, enough: Callable[[], bool]) -> None:
        """Start the thread if none runs; if none can be started, deliver on this one until `enough`."""
        if not self.running and not self._has_started():
            self._deliver_until(lambda: enough() or self._queue.is_empty())
        self.start_if_needed()

    # -- delivering -------------------------------------------------------------------------------

    def _deliver_in_turn(self, queue: DeliveryQueue, enough: Callable[[], bool] | None) -> None:
        # In a child that a listener forks, `_queue` is another queue.
        while not queue.ending and queue is self._queue and (enough is None or not enough()):
            try:
                self._run_next(queue)
            except BaseException as error:
                self._note_failure(queue, error)

    def _run_next(self, queue: DeliveryQueue) -> None:
        """Take the next delivery, or continue the current one, and run it to its end."""
        taken = queue.taken
        if not taken:
            timers = self._timers
            seconds = timers.fire_due(time.monotonic) if timers.new or timers.heap else None
            if queue is not self._queue:
                return  # a timer has forked
            if not queue.items:
                queue.sleep(IDLE if seconds is None else min(seconds, IDLE))
                if not queue.items:
                    queue.ending = self._is_abandoned()
                    return
            next(queue.moves)
        delivery = taken[0]
        if not delivery.done:
            if delivery.count:
                self.delivering = (delivery, time.monotonic())
            if delivery.revision is not None and delivery.revision - 1 > self.delivered_revision:
                # The commits before this one that are not in the queue had no listeners.
                self._note_delivered(queue, delivery.revision - 1)
            delivery.deliver(self)
            delivery.done = True
        if queue is not self._queue:
            return  # a listener has forked
        self.calling = self.delivering = self._failed = None
        if delivery.count > 1:
            queue.done_more = max(queue.done_more, delivery.more_until)
        if delivery.revision is not None:
            self._note_delivered(queue, delivery.revision)
        taken.popleft()
        if self.throttled and not self._is_full():
            self._make_room()

    def _is_abandoned(self) -> bool:
        """Return whether the store has been freed."""
        return self._store is not None and self._store() is None

    def _note_delivered(self, queue: DeliveryQueue, revision: int) -> None:
        if revision > self.delivered_revision:
            self.delivered_revision = revision
            if queue.marks:
                queue.ring(revision)

    def _note_failure(self, queue: DeliveryQueue, error: BaseException) -> None:
        """Have an interrupted delivery tried again, since the exception may have come from outside.

        A failure that repeats is not one of a listener but of a trace function, a filter or `pre_emit`.
        """
        if isinstance(error, MemoryError):
            time.sleep(_PAUSE)
        if not queue.taken or queue is not self._queue:
            return
        delivery = queue.taken[0]
        progress, tries = self._failed or (None, 0)
        if progress != delivery.progress:
            tries = 0
        self._failed = (delivery.progress, tries + 1)
        if tries + 1 >= (_TRIES_FOR_MEMORY if isinstance(error, MemoryError) else _TRIES):
            delivery.skip()
            logger.error("the delivery of %r failed repeatedly and was skipped", delivery, exc_info=error)

    def _is_full(self) -> bool:
        return self._room_below is not None and self.pending >= max(1, self._room_below)

    def _make_room(self) -> None:
        self.throttled = False
        self.room.ring_all()


class EventDispatcher(_Deliverer):
    """A queue of deliveries and the daemon thread that runs them.

    Parameters
    ----------
    name : str
        The name of the thread.
    limit : int or None
        The number of pending events at which `throttled` is set; None for no limit.
    listener_name : callable
        Returns the name of a listener for error messages.

    Attributes
    ----------
    throttled : bool
        Whether writers must call `wait_for_room` before they commit.
    delivered_revision : int
        The last commit whose events have all been delivered.
    """

    throttled: bool

    def __init__(
        self,
        name: str = "latchstore-events",
        limit: int | None = None,
        listener_name: Callable[[object], str] = repr,
    ) -> None:
        super().__init__(name, limit, listener_name)
        drain_at_exit(self)

    def renew_in_child(self) -> None:
        """Reset in a forked child: queued and current deliveries belong to the parent.

        If a listener has forked, this thread is the copy of the parent's dispatcher thread and delivers
        nothing here. When the listener returns, the thread calls no other listener and ends.
        """
        calling, delivering, queue = self.calling, self.delivering, self._queue
        if calling is not None:
            calling[1].mark_as_handled()
        if delivering is not None:
            delivering[0].forget()
        self._timers.live = False
        self._renew()
        queue.ring_all()  # ends the wait of a thread that has forked in the middle of it

    # -- queueing ---------------------------------------------------------------------------------

    def submit(self, delivery: Delivery) -> None:
        """Queue a delivery. Never waits; the caller must call `start_if_needed` once it holds no lock."""
        queue = self._queue
        if delivery.count > 1:
            queue.count_more(delivery)
        queue.items.append(delivery)
        # hot path: mostly the thread is busy.
        if queue.asleep:
            queue.wake()
        limit = self._limit
        # hot path: `pending` is exact; this is at most one more.
        if limit is not None and len(queue.items) + queue.queued_more - queue.done_more + 1 >= limit:
            self.throttled = self.throttled or self.pending >= limit

    def wait_for_room(self, purpose: str, timeout: float | None) -> None:
        """Wait until the queue has room. The caller must hold no lock and must not be a listener.

        Raises
        ------
        BackpressureError
            If there is no room within `timeout` seconds; names the running listener.
        """
        if not self.room.wait(self._has_room, -1 if timeout is None else timeout, 0, LOOK_AGAIN):
            raise BackpressureError(
                f"{purpose}: no room for events in {timeout:g} s "
                f"(max_pending_events={self._limit}): {self.describe()}",
                self.pending,
                self.listener(),
            )
        self._make_room()

    def _has_room(self) -> bool:
        if self._is_full():
            self._deliver_unless_running(lambda: not self._is_full())
        return not self._is_full()

    # -- timers -----------------------------------------------------------------------------------

    def call_later(self, seconds: float, function: Callable[[], object]) -> Timer:
        """Have the dispatcher's thread call a function once, in `seconds`, between two deliveries."""
        timers = self._timers
        timer = Timer(time.monotonic() + seconds, function, timers, self)
        timers.new[timer] = None
        self._wake()
        return timer

    def timer_cancelled(self, timer: Timer) -> None:
        """Drop a cancelled timer."""
        if self._timers.discard(timer):
            self._wake()

    def hold_timers(self) -> None:
        """Call no timers until `resume`."""
        self._timers.held = True

    def resume(self) -> None:
        """Call timers again; those whose time has passed are called at once."""
        self._timers.held = False
        if self._timers:
            self._wake()

    def _wake(self) -> None:
        """Make the thread check the timers, unless they are held."""
        if not self._timers.held:
            # Queued items make the thread check the timers anyway.
            if not self._queue.items:
                self._queue.put_mark(Mark(self._queue))
            self.start_if_needed()

    # -- waiting for events -----------------------------------------------------------------------

    def flush(self, timeout: float | None, revision: int | None = None) -> None:
        """Wait until all deliveries queued so far, or all up to a revision, are done.

        Raises
        ------
        DispatcherThreadError
            If a listener calls it.
        FlushTimeoutError, LockTimeoutError
            If `timeout` seconds have passed; at once if this thread is starting the dispatcher's thread.
        """
        self.refuse_on_own_thread("flush")
        if revision is not None and revision <= self.delivered_revision:
            return
        if self._queue.is_empty() and not self.running:
            return
        if sys.is_finalizing():
            if self.pending:
                raise self.timeout_error("events not delivered: at interpreter exit no thread runs")
            return
        self._wait_for(Flag(self._queue, revision), timeout)

    def _wait_for(self, flag: Flag, timeout: float | None) -> None:
        """Queue a flag and wait until it is reached. The waits themselves count the time."""
        self._queue.put_mark(flag)
        left = float("inf") if timeout is None else timeout
        while True:
            deadline = clock() + left
            self._deliver_unless_running(
                lambda: flag.reached.is_rung() or clock() >= deadline  # noqa: B023
            )
            # Checked each time: the thread may have passed the revision before it reaches the flag.
            if flag.until is not None and flag.until <= self.delivered_revision:
                return
            seconds = min(left, LOOK_AGAIN)
            if flag.reached.sleep(seconds):
                return
            left -= seconds
            if left <= 0:
                raise self.timeout_error(f"events not delivered in {timeout:.3g} s")

    def stop(self, timeout: float | None) -> None:
        """Deliver everything that is queued and end the thread; later writes start it again.

        Raises
        ------
        DispatcherThreadError, FlushTimeoutError, LockTimeoutError
            As `flush`.
        """
        begun = clock()
        self.flush(timeout)
        self._newest = None
        if self.running and not sys.is_finalizing():
            end = End(self._queue)
            self._wait_for(end, None if timeout is None else max(0.0, begun + timeout - clock()))
            if isinstance(end.thread, DeliveryThread):
                end.thread.join(None if timeout is None else max(0.0, begun + timeout - clock()))
                if end.thread.is_alive():
                    raise self.timeout_error(f"events not delivered in {timeout:.3g} s")
            # A thread may have written between the flush and the end of the thread.
        self.start_if_needed()

    def end_with(self, store: object) -> None:
        """Have the thread end once the store is freed and all events are delivered."""
        self._store = weakref.ref(store)
        weakref.finalize(store, self._stop_soon).atexit = False

    def _stop_soon(self) -> None:
        """Queue an end after the current items; does not wait and acquires no lock."""
        self._queue.put_mark(End(self._queue))

    def drain(self, timeout: float) -> None:
        """Wait until all events are delivered, at interpreter exit; raise FlushTimeoutError otherwise."""
        thread = self.thread
        if thread is None or not self._is_abandoned():
            # Up to the end of the thread: a waiting thread would still take events that come too late.
            self.stop(timeout)
        elif not self._queue.is_empty():
            # Nothing more is queued, and the end is behind all deliveries.
            thread.join(timeout)
            if thread.is_alive():
                raise self.timeout_error(f"events not delivered in {timeout:.3g} s")
