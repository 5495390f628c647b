"""One background thread that calls listeners with what was committed, in the order in which it was queued.

Thread safety:

1. `submit` may be called by any thread, also under the store's lock: it is one ``deque.append``, so that a
   finalizer may call it as well. The order of the calls is the order of delivery. What is queued twice,
   since an exception struck whoever queued it, counts and is heard once.
2. Deliveries are run by one thread at a time, with no lock held: listeners may do anything. It is a daemon
   thread, or, where the system gives none, a thread that waits for events (`flush`, `stop`, `wait_for_room`).
3. Who delivers is at the post (`_post`): a thread puts itself there, and delivers if it is the first there.
   It takes itself away by one call in C in a ``finally``, which needs no memory; so a thread that has ended,
   for whatever reason, is missed and replaced by the next write, flush or stop. Who waits for the thread asks
   in addition whether it is alive. What it had in hand stays in the queue's `taken`, and each delivery keeps
   how far it has come, so the next thread goes on there.
4. The thread refers to the dispatcher, and to the store weakly, so that a store nobody uses is freed. Its
   finalizer queues an end. A finalizer may be struck, or find no memory, and nobody calls it again: so a
   thread that has nothing to do looks by itself now and then whether the store is gone.
5. `crowded` is set by whoever finds the queue full, with no lock, and taken back when there is room. A writer
   waits for room before it takes any lock of the store, and looks again by itself now and then, so a
   wake-up that is missed costs it a moment and no more.
6. While timers are held, as the store is closed, no thread runs for them. Who makes one looks afterwards
   whether they are held, who ends that looks for new ones afterwards: so one of the two wakes the thread.
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

#: Seconds after which a thread that has nothing to do looks by itself whether its store is gone.
IDLE = 10.0

#: How often what fails is tried before it is given up: what strikes from outside does so once or twice.
_TRIES = 10

#: The same if memory is short, as it may be free again soon, and the seconds between.
_TRIES_FOR_MEMORY = 250
_PAUSE = 0.01


class _Deliverer(ListenerCalls):
    """Who delivers, and how: rules 2 and 3. `EventDispatcher` is what others use of it."""

    def __init__(self, name: str, limit: int | None, listener_name: Callable[[object], str]) -> None:
        super().__init__(listener_name)
        self._name = name
        self._limit = limit
        # With a few events of room for each wake-up, or writers and listeners would take turns.
        self._room_below = None if limit is None else limit - limit // 16
        self._timers: TimerHeap = TimerHeap()
        self.heard_revision: int = 0
        # The store, as soon as there is one: rule 4.
        self._store: weakref.ref[object] | None = None
        self._renew()

    def _renew(self) -> None:
        """Begin with nothing queued and no thread."""
        self._queue = DeliveryQueue()
        # Held while a thread is started, so that it is one, until it delivers. No user code runs meanwhile.
        self._life = Latch()
        # Who delivers, by thread identifier: the first one; see rule 3.
        self._post = Post()
        # Of the thread that was started last, if it is to deliver: if an exception strikes who starts one, it
        # may begin when another one has been started instead, or nothing is to be delivered any more.
        self._newest: list[None] | None = None
        # The thread that was started last.
        self._started: threading.Thread | None = None
        # Whether it was logged that no thread can be started.
        self._warned = False
        # Of the delivery under way, if it has failed: at which point, and how often in a row. Not the
        # delivery: it has the store, which would be kept.
        self._failed: tuple[object, int] | None = None
        self._timers = TimerHeap(self._timers.held)
        self.calling: Call | None = None
        self.delivering = None
        self.crowded: bool = False
        # Writers wait here for `crowded` to be taken back, with no lock held.
        self.room: Waiters = Waiters()

    # -- who delivers -----------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """How many events are waiting or being heard."""
        return max(0, self._queue.events + (self.delivering is not None))

    @property
    def running(self) -> bool:
        """Whether a thread delivers, or waits for something to deliver."""
        return self.thread is not None

    @property
    def thread(self) -> threading.Thread | None:
        """The thread that delivers, or None; it is alive."""
        return self._post.holder()

    @property
    def marks(self) -> int:
        """How many marks are queued, such as those of threads that wait until something has been heard."""
        return len(self._queue.marks)

    @property
    def timers(self) -> int:
        """How many timers are kept, cancelled ones that have not been dropped yet included."""
        return len(self._timers)

    def on_dispatcher_thread(self) -> bool:
        """Return whether the calling thread delivers: whether a listener is calling."""
        ident, started = get_ident(), self._started
        if ident in self._post:
            return True
        # Begins or ends, in a finalizer in the middle of that. Not asked of one that delivers: see `Life`.
        return started is not None and started.ident == ident and started.is_alive()

    def refuse_on_own_thread(self, operation: str) -> None:
        """Raise DispatcherThreadError if a listener is calling."""
        if self.on_dispatcher_thread():
            raise DispatcherThreadError(
                f"{operation}() on the dispatcher's thread would wait for itself: listeners must not call it"
            )

    def start_if_needed(self) -> None:
        """Start the thread if none runs and something is queued; raise nothing if that is impossible."""
        # hot path: mostly a thread runs. Whether it is alive is looked at by those who wait for it.
        if not self._post and self._queue.items:
            self.ensure_running()

    def ensure_running(self) -> None:
        """Start the thread if none runs; raise nothing if that is impossible."""
        while not (self.running or self._queue.is_empty() or sys.is_finalizing() or self._life.locked()):
            if not self._has_started():
                break
        else:
            return  # who is starting one looks again after that, and may wait for this thread
        if not threading.main_thread().is_alive():
            # Python 3.12.0 and 3.12.1 start no thread from now on, though others may run for long.
            self._deliver_until(self._queue.is_empty)
        elif not self._warned:
            self._warned = True
            try:
                logger.warning("no thread can be started for events; the next write tries again")
            except Exception:
                return  # a handler's, or for want of memory: the write was made, and must return

    def _has_started(self) -> bool:
        """Start the thread; return whether one runs, or none may be started any more."""
        try:
            return self._life.during(self._start)
        except LockTimeoutError:
            raise  # of a signal handler or a finalizer in the middle of this very call
        except (RuntimeError, MemoryError):
            return False

    def _start(self) -> bool:
        # Python that shuts down lets no other thread run: to start one raises something, or waits for ever.
        if self.running or sys.is_finalizing():
            return True
        left: list[None] = []
        self._newest = left
        self._started = thread = DeliveryThread(partial(self._run, left), self._name)
        thread.start()
        while not self._post and not left and thread.is_alive():
            time.sleep(0)
        self._warned = False
        return bool(self._post or left)

    def _run(self, left: list[None]) -> None:
        """Deliver until an end is queued; the function of the thread."""
        struck: BaseException | None = None
        try:
            if self._newest is left:
                self._deliver_until(None)
        except BaseException as error:
            struck = error
        finally:
            left.append(None)
            if not self._queue.is_empty():
                # Somebody wrote while it ended, or it was broken off.
                self.ensure_running()
        if struck is not None:
            # When another thread goes on: logging may wait for ever (tests/interrupts/README.md).
            logger.error("the dispatcher's thread was broken off; another one goes on", exc_info=struck)
            struck = None  # this frame is in its traceback

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
        """Start the thread if it does not run; where none can be had, deliver here until it is enough."""
        if not self.running and not self._has_started():
            self._deliver_until(lambda: enough() or self._queue.is_empty())
        self.start_if_needed()

    # -- delivering -------------------------------------------------------------------------------

    def _deliver_in_turn(self, queue: DeliveryQueue, enough: Callable[[], bool] | None) -> None:
        # In a child that a listener has forked the queue is another one.
        while not queue.ending and queue is self._queue and (enough is None or not enough()):
            try:
                self._run_next(queue)
            except BaseException as error:
                self._note_failure(queue, error)

    def _run_next(self, queue: DeliveryQueue) -> None:
        """Take the next delivery, or go on with the one that was begun, and run it to its end."""
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
            if delivery.revision is not None and delivery.revision - 1 > self.heard_revision:
                # Commits without listeners before this one have no events to wait for.
                self._note_heard(queue, delivery.revision - 1)
            delivery.deliver(self)
            delivery.done = True
        if queue is not self._queue:
            return  # a listener has forked
        self.calling = self.delivering = self._failed = None
        if delivery.count > 1:
            queue.done_more = max(queue.done_more, delivery.more_until)
        if delivery.revision is not None:
            self._note_heard(queue, delivery.revision)
        taken.popleft()
        if self.crowded and not self._is_full():
            self._make_room()

    def _is_abandoned(self) -> bool:
        """Return whether the store is gone."""
        return self._store is not None and self._store() is None

    def _note_heard(self, queue: DeliveryQueue, revision: int) -> None:
        if revision > self.heard_revision:
            self.heard_revision = revision
            if queue.marks:
                queue.ring(revision)

    def _note_failure(self, queue: DeliveryQueue, error: BaseException) -> None:
        """Have what was broken off tried again, for what has struck may have been anything.

        What fails again and again is no listener's, but a trace function's, a filter's or `pre_emit`'s.
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
            logger.error("the delivery of %r was broken off", delivery, exc_info=error)

    def _is_full(self) -> bool:
        return self._room_below is not None and self.pending >= max(1, self._room_below)

    def _make_room(self) -> None:
        self.crowded = False
        self.room.ring_all()


class EventDispatcher(_Deliverer):
    """A queue of deliveries and the daemon thread that runs them.

    Parameters
    ----------
    name : str
        The name of the thread.
    limit : int or None
        How many events may be pending before `crowded` is set; None for any number.
    listener_name : callable
        Names a listener in error messages.

    Attributes
    ----------
    crowded : bool
        Whether writers are to call `wait_for_room` before they commit anything.
    heard_revision : int
        The last commit whose events have all been heard.
    """

    crowded: bool

    def __init__(
        self,
        name: str = "latchstore-events",
        limit: int | None = None,
        listener_name: Callable[[object], str] = repr,
    ) -> None:
        super().__init__(name, limit, listener_name)
        drain_at_exit(self)

    def renew_in_child(self) -> None:
        """Begin anew in a forked child: what is queued or under way is the parent's.

        If a listener has forked, this is the thread of the parent's dispatcher, and nobody's here. When the
        listener returns, it calls no others and ends.
        """
        calling, delivering, queue = self.calling, self.delivering, self._queue
        if calling is not None:
            calling[1].mark_as_handled()
        if delivering is not None:
            delivering[0].forget()
        self._timers.live = False
        self._renew()
        queue.ring_all()  # the wait of a thread that has forked in the middle of it

    # -- queueing ---------------------------------------------------------------------------------

    def submit(self, delivery: Delivery) -> None:
        """Queue a delivery. Never waits; `start_if_needed` must follow once no lock is held."""
        queue = self._queue
        if delivery.count > 1:
            queue.count_more(delivery)
        queue.items.append(delivery)
        # hot path: mostly the thread is busy.
        if queue.asleep:
            queue.wake()
        limit = self._limit
        # hot path: `pending` counts more exactly; it is one more than this at the most.
        if limit is not None and len(queue.items) + queue.queued_more - queue.done_more + 1 >= limit:
            self.crowded = self.crowded or self.pending >= limit

    def wait_for_room(self, purpose: str, timeout: float | None) -> None:
        """Wait until the queue has room. The caller holds no lock, and is no listener.

        Raises
        ------
        BackpressureError
            If there is none within `timeout` seconds; it names the listener that is running.
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
        """Have the thread call a function once, `seconds` from now, between two deliveries."""
        timers = self._timers
        timer = Timer(time.monotonic() + seconds, function, timers, self)
        timers.new[timer] = None
        self._wake()
        return timer

    def timer_cancelled(self, timer: Timer) -> None:
        """Free a timer that is not to be called any more."""
        if self._timers.discard(timer):
            self._wake()

    def hold_timers(self) -> None:
        """Call no timers from now on, until `resume`."""
        self._timers.held = True

    def resume(self) -> None:
        """Call timers again, those that have become due meanwhile at once."""
        self._timers.held = False
        if self._timers:
            self._wake()

    def _wake(self) -> None:
        """Have the thread look at the timers, unless they are held."""
        if not self._timers.held:
            # What is queued already makes it look at them as well.
            if not self._queue.items:
                self._queue.put_mark(Mark(self._queue))
            self.start_if_needed()

    # -- waiting for events -----------------------------------------------------------------------

    def flush(self, timeout: float | None, revision: int | None = None) -> None:
        """Wait until all that was queued before has been heard, or all up to a revision.

        Raises
        ------
        DispatcherThreadError
            If a listener calls it.
        FlushTimeoutError, LockTimeoutError
            If that takes longer than `timeout` seconds; at once if this thread is starting the one of events.
        """
        self.refuse_on_own_thread("flush")
        if revision is not None and revision <= self.heard_revision:
            return
        if self._queue.is_empty() and not self.running:
            return
        if sys.is_finalizing():
            if self.pending:
                raise self.not_heard("Python shuts down, and no thread runs any more")
            return
        self._wait_for(Flag(self._queue, revision), timeout)

    def _wait_for(self, flag: Flag, timeout: float | None) -> None:
        """Queue a flag and wait until it is reached. The time is counted by the waits themselves."""
        self._queue.put_mark(flag)
        left = float("inf") if timeout is None else timeout
        while True:
            deadline = clock() + left
            self._deliver_unless_running(
                lambda: flag.reached.is_rung() or clock() >= deadline  # noqa: B023
            )
            # Asked each time: the thread may have passed the revision before it met the flag.
            if flag.until is not None and flag.until <= self.heard_revision:
                return
            seconds = min(left, LOOK_AGAIN)
            if flag.reached.sleep(seconds):
                return
            left -= seconds
            if left <= 0:
                raise self.not_heard(f"events not heard in {timeout:.3g} s")

    def stop(self, timeout: float | None) -> None:
        """Deliver all that is queued and end the thread; it starts again when it is needed again.

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
                    raise self.not_heard(f"events not heard in {timeout:.3g} s")
        # Somebody may have written between the flush and the end of the thread.
        self.start_if_needed()

    def end_with(self, store: object) -> None:
        """Have the thread end when the store is gone and all has been heard."""
        self._store = weakref.ref(store)
        weakref.finalize(store, self._stop_soon).atexit = False

    def _stop_soon(self) -> None:
        """Tell the thread to end after what is queued now; does not wait, takes no lock."""
        self._queue.put_mark(End(self._queue))

    def drain(self, timeout: float) -> None:
        """Wait until all has been heard, at the exit of the interpreter; FlushTimeoutError if it is not."""
        thread = self.thread
        if thread is None or not self._is_abandoned():
            # To the end of the thread: one that waits would yet take what comes too late to be heard.
            self.stop(timeout)
        elif not self._queue.is_empty():
            # Nobody queues any more, and what was queued comes before the word to end.
            thread.join(timeout)
            if thread.is_alive():
                raise self.not_heard(f"events not heard in {timeout:.3g} s")
