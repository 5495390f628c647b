"""One background thread that hands out what was committed, in the order in which it was queued.

Thread safety:

1. `submit` may be called by any thread, also under the store's locks: it is one ``SimpleQueue.put``,
   which CPython implements in C as reentrant, so that a finalizer may call it too. The order of the
   calls is the order of delivery; commits call it under the writer mutex.
2. Deliveries are run by the dispatcher's thread alone, with no lock held: listeners may do anything.
3. The thread knows the dispatcher, never the store, so that a store nobody uses is freed; `stop_soon`
   is what its finalizer calls.
4. Of the threads that were started one runs, whichever takes the post first; so it does no harm if an
   exception makes `ensure_running` forget one that it has started. An exception may strike the thread, too:
   another one goes on where it stood. A delivery goes from the queue to `_taken` in C, and stays there
   until all have heard it; how far it has come it knows itself.
5. Each counter has one writer at a time: `_queued_more` whoever holds the writer mutex, all others the
   dispatcher's thread. Others read them at any time and may be a moment behind. A delivery that is queued
   twice, since an exception struck whoever did it, counts and is heard once.
6. `crowded` is set by whoever finds the queue full, with no lock, and taken back when there is room. A
   writer waits for that at the door with no lock of the store held, and looks again by itself now and
   then, so a wake-up that is missed costs it a moment and no more.
7. Timers are in the hands of the thread alone: a new one comes to it by the queue, and by a list before that.
   While they are held back, as the store is closed, none is called, and new ones stay in the list, so that no
   thread runs for them. Who puts one there looks afterwards whether they are held back, who ends that looks
   at the list afterwards: so one of the two hands it on.
"""

from __future__ import annotations

import atexit
import heapq
import itertools
import logging
import sys
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import get_ident
from typing import Any

from latchstore.contract.errors import BackpressureError, DispatcherThreadError, FlushTimeoutError
from latchstore.contract.events import BaseEvent
from latchstore.delivery.waiting import Latch, Waiters

logger = logging.getLogger("latchstore")

#: Seconds that the interpreter's exit waits for pending events of all stores together.
EXIT_TIMEOUT = 10.0


#: Seconds after which a writer at the door looks by itself whether there is room.
_LOOK_AGAIN = 0.05


#: Is never queued.
_NEVER: Any = object()


class Delivery(ABC):
    """What is queued: something that tells its listeners when its turn has come.

    Attributes
    ----------
    count : int
        How many events it stands for. Of those with more than one, one is submitted at a time.
    revision : int or None
        The commit that it tells of, if it does.
    more_until : int
        How many events beyond the first of each delivery were queued up to this one, if it has more than one.
    done : bool
        Whether all of it has been heard.
    failed : bool
        Whether it was broken off once.
    """

    __slots__ = ("count", "done", "failed", "more_until", "revision")

    def __init__(self, count: int = 1, revision: int | None = None) -> None:
        self.count = count
        self.revision = revision
        self.more_until = 0
        self.done = False
        self.failed = False

    @abstractmethod
    def deliver(self, dispatcher: EventDispatcher) -> None:
        """Call the listeners; the dispatcher is told of each. Called again, it goes on where it stood."""

    def forget(self) -> None:
        """Stand for nothing any more: a listener has forked, and in the child this is the parent's."""
        self.count = 0
        self.revision = None


class _Flag(Delivery):
    """A delivery that only says when its turn has come: all that was queued before has been heard."""

    __slots__ = ("reached", "until")

    def __init__(self, until: int | None) -> None:
        super().__init__(0)
        # A queue and not an Event, whose wait() can be left locked by an interrupt (locking.py).
        self.reached: SimpleQueue[None] = SimpleQueue()
        # It is rung as soon as this revision has been heard, even if its turn has not come.
        self.until = until

    def deliver(self, dispatcher: EventDispatcher) -> None:
        self.reached.put(None)
        if self in dispatcher._flags:
            dispatcher._flags.remove(self)


class Timer:
    """A function that the dispatcher's thread calls once, some time from now."""

    __slots__ = ("_dispatcher", "_function", "_queue", "_waiting", "due")

    def __init__(self, seconds: float, function: Callable[[], object], dispatcher: EventDispatcher) -> None:
        #: When it is called, in monotonic seconds.
        self.due = time.monotonic() + seconds
        # Given up as soon as it is not needed: the thread may wait for long with the timer at hand.
        self._function: Callable[[], object] | None = function
        self._dispatcher = weakref.ref(dispatcher)
        self._queue = dispatcher._queue
        self._waiting = True

    @property
    def active(self) -> bool:
        """Whether the function is still to be called; in a forked child, no timer of the parent's is."""
        dispatcher = self._dispatcher()
        return self._waiting and dispatcher is not None and dispatcher._queue is self._queue

    def cancel(self) -> None:
        """Have the function not be called, if it has not been."""
        self._waiting = False
        self._function = None

    def fire(self) -> None:
        """Call the function, unless the timer was cancelled; what it raises is logged."""
        function = self._function
        if function is None or not self._waiting:
            return
        self._waiting = False
        self._function = None
        try:
            function()
        except BaseException:
            logger.exception("%r, called by a timer, failed", function)


class _NewTimer(_Flag):
    """Brings a timer to the dispatcher's thread."""

    __slots__ = ("_timer",)

    def __init__(self, timer: Timer) -> None:
        super().__init__(None)
        self._timer = timer

    def deliver(self, dispatcher: EventDispatcher) -> None:
        super().deliver(dispatcher)
        heapq.heappush(dispatcher._timers, (self._timer.due, next(_timer_numbers), self._timer))


#: Of two timers that are due at the same time, the one that was made first is called first.
_timer_numbers = itertools.count()


class EventDispatcher:
    """A queue of deliveries and the daemon thread that runs them.

    It is also the observer (`event_manager.ListenerObserver`) of the listeners that it calls.

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
    calling : tuple of callable, BaseEvent and float, or None
        The listener that is being called, with what, and since when, in monotonic seconds; one assignment
        publishes it.
    crowded : bool
        Whether writers are to call `wait_for_room` before they commit anything.
    heard_revision : int
        The last commit whose events have all been heard.
    delivered : int
        How many events have been emitted.
    listener_errors : int
        How many calls of listeners have raised something.
    slowest : tuple of str or None, and float
        The listener that has taken longest in one call, and how long, in seconds.
    """

    def __init__(
        self,
        name: str = "latchstore-events",
        limit: int | None = None,
        listener_name: Callable[[object], str] = repr,
    ) -> None:
        self.calling: tuple[Callable[..., object], BaseEvent, float] | None
        self._name = name
        self._limit = limit
        # With a few events of room for each wake-up, or writers and listeners would take turns.
        self._room_below = None if limit is None else limit - limit // 16
        self._listener_name = listener_name
        # Whether the store is gone.
        self._abandoned = False
        # Whether timers are held back: rule 7.
        self._holding = False
        self.delivered = 0
        self.listener_errors = 0
        self.slowest: tuple[str | None, float] = (None, 0.0)
        self.heard_revision = 0
        self.renew()
        _dispatchers.add(self)

    def renew(self) -> None:
        """Begin with nothing queued and no thread."""
        self._queue: SimpleQueue[Delivery | None] = SimpleQueue()
        # What the thread has taken from the queue and is not done with: one item at the most.
        self._taken: deque[Delivery | None] = deque()
        # Moves one from there to here, with no bytecode in between.
        self._moves: Iterator[None] = map(self._taken.append, iter(self._queue.get, _NEVER))
        # Guards that a thread is started and told to end once. Nothing is called under it but Thread.start.
        self._life = Latch()
        # Item 0 is the thread that runs.
        self._post: dict[int, threading.Thread] = {}
        self._starting = False
        self._stopping = False
        # What the thread is delivering and since when (monotonic seconds); one assignment publishes it.
        self._delivering: tuple[Delivery, float] | None = None
        self.calling = None
        # Events beyond the first of each delivery, for `pending`: queued, and done with.
        self._queued_more = 0
        self._done_more = 0
        self.crowded = False
        # Writers at the door wait here for `crowded` to be taken back, with no lock held.
        self._room = Waiters()
        # The flags in the queue, which are no events; changed by single list operations.
        self._flags: list[_Flag] = []
        # A heap, of the thread's own.
        self._timers: list[tuple[float, int, Timer]] = []
        # Timers that were made while they are held back; changed by single list operations.
        self._held: list[Timer] = []

    def renew_in_child(self) -> None:
        """Begin anew in a forked child: what is queued or under way is the parent's.

        If a listener has forked, this is the thread of the parent's dispatcher, and nobody's here. When the
        listener returns, it calls no others and ends.
        """
        calling, delivering = self.calling, self._delivering
        if calling is not None:
            calling[1].mark_as_handled()
        if delivering is not None:
            delivering[0].forget()
        for flag in self._flags.copy():
            flag.reached.put(None)  # the wait of a thread that has forked in the middle of it
        self.renew()

    # -- what is going on -------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """How many events are waiting or being heard."""
        more = self._queued_more - self._done_more - len(self._flags)
        return max(0, self._queue.qsize() + (self._delivering is not None) + more)

    @property
    def running(self) -> bool:
        """Whether the thread is being started, or runs."""
        return self._starting or bool(self._post)

    @property
    def _thread(self) -> threading.Thread | None:
        return self._post.get(0)

    def on_dispatcher_thread(self) -> bool:
        """Tell whether the calling thread is the dispatcher's."""
        thread = self._thread
        return thread is not None and thread.ident == get_ident()

    def describe(self) -> str:
        """Say what is being heard, by whom, for how long, and how much is waiting."""
        calling, delivering = self.calling, self._delivering
        waiting = f"{self.pending} events pending"
        if calling is not None:
            listener, event, since = calling
            held = time.monotonic() - since
            return f"listener {self._listener_name(listener)} has had {event!r} for {held:.3f} s, {waiting}"
        if delivering is None:
            return waiting
        delivery, since = delivering
        return f"{delivery!r} under way for {time.monotonic() - since:.3f} s, {waiting}"

    def _listener(self) -> str | None:
        calling = self.calling
        return None if calling is None else self._listener_name(calling[0])

    # -- told by what is delivered ----------------------------------------------------------------

    def returned(self, failed: bool) -> float:
        """Note that the listener has returned, or raised something; return the time."""
        now = time.monotonic()
        calling, self.calling = self.calling, None
        if failed:
            self.listener_errors += 1
        if calling is not None and now - calling[2] > self.slowest[1]:
            self.slowest = (self._listener_name(calling[0]), now - calling[2])
        return now

    # -- the queue and its thread -----------------------------------------------------------------

    def submit(self, delivery: Delivery) -> None:
        """Queue a delivery. Never waits; `ensure_running` must follow once no lock is held."""
        if delivery.count > 1:
            if not delivery.more_until:
                delivery.more_until = self._queued_more + delivery.count - 1
            self._queued_more = delivery.more_until
        queue = self._queue
        queue.put(delivery)
        limit = self._limit
        if limit is None:
            return
        # `pending` takes longer to ask for; it is one more than this at the most.
        almost = queue.qsize() + self._queued_more - self._done_more
        if almost + 1 >= limit and self.pending >= limit:
            self.crowded = True

    def wait_for_room(self, purpose: str, timeout: float | None) -> None:
        """Wait until the queue has room. The caller holds no lock, and is no listener.

        Raises
        ------
        BackpressureError
            If there is none within `timeout` seconds; it names the listener that is running.
        """
        self.ensure_running()
        seconds = -1 if timeout is None else timeout
        if not self._room.wait(lambda: not self._is_full(), seconds, 0, _LOOK_AGAIN):
            raise BackpressureError(
                f"{purpose}: no room for events in {timeout:g} s "
                f"(max_pending_events={self._limit}): {self.describe()}",
                self.pending,
                self._listener(),
            )
        self._make_room()

    def _make_room(self) -> None:
        self.crowded = False
        self._room.ring_all()

    def _is_full(self) -> bool:
        return self._room_below is not None and self.pending >= max(1, self._room_below)

    def ensure_running(self) -> None:
        """Start the thread if it does not run. Raises RuntimeError if the system gives no thread."""
        if not self.running and not self._life.during(self._start):
            self._deliver_here()

    def start_if_needed(self) -> None:
        """Start the thread if it does not run and something is queued."""
        # Asked first what is mostly so: `pending` would take 0.5 us at the end of each write.
        if not self._post and not self._queue.empty():
            self.ensure_running()

    def _start(self) -> bool:
        """Return whether there is no more to be done."""
        # Python that shuts down lets no other thread run: to start one raises something, or waits for ever.
        if self.running or sys.is_finalizing():
            return True
        try:
            self._starting = True
            self._start_threads()
        except RuntimeError:
            if threading.main_thread().is_alive():
                raise
            return False
        finally:
            self._starting = False
        return True

    def _start_threads(self) -> None:
        # More than one only if an exception strikes a thread before it has its post.
        while not self._post:
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            thread.start()
            while not self._post and thread.is_alive():
                time.sleep(0)

    def _deliver_here(self) -> None:
        """Deliver what is queued on the calling thread.

        Python 3.12.0 and 3.12.1 start no thread once the main thread is over, though others may run for long.
        """
        thread = threading.current_thread()
        while self._has_more() and self._post.setdefault(0, thread) is thread:
            try:
                self._run_all()
            finally:
                self._life.during(self._leave_post, thread)

    def _run_all(self) -> None:
        while self._has_more():
            self._run_next()

    def _has_more(self) -> bool:
        return bool(self._taken) or not self._queue.empty()

    def _run(self) -> None:
        """Deliver until told to stop. Nothing that a listener does ends this loop."""
        thread = threading.current_thread()
        try:
            if self._post.setdefault(0, thread) is thread:
                self._run_at_post(thread)
                self._life.during(self._leave_post, thread)
        except BaseException:
            # Something has struck outside of all listeners: another thread goes on.
            logger.exception("the thread of the dispatcher was broken off")
            if self._post.get(0) is thread:  # else whoever has started it may hold the latch, and wait
                self._life.during(self._leave_post, thread)
        if self._has_more():
            # It was told to end twice, or something struck, or somebody wrote while it ended.
            self._life.during(self._start_if_more)

    def _start_if_more(self) -> bool:
        # Asked again under the latch: another thread may have delivered all of it, and been told to end.
        return not self._has_more() or self._start()

    def _run_at_post(self, thread: threading.Thread) -> None:
        # A child that a listener has forked has this thread, and not its post.
        while self._run_next() and self._post.get(0) is thread:
            pass

    def _leave_post(self, thread: threading.Thread) -> None:
        if self._post.get(0) is thread:
            if self._taken and self._taken[0] is None:
                # The word to end. Else the next thread has yet to meet it, should there be one.
                self._stopping = False
                self._taken.popleft()
            self._post.clear()

    def _run_next(self) -> bool:
        taken = self._taken
        if not taken:
            if self._timers:
                self._take_or_fire()
            else:
                next(self._moves)
        delivery = taken[0]
        if delivery is None:
            return False
        if not delivery.done:
            if delivery.count:
                self._delivering = (delivery, time.monotonic())
            revision = delivery.revision
            if revision is not None and revision - 1 > self.heard_revision:
                # Commits that nobody listened to stand before this one: there was nothing to hear of them.
                self._note_heard(revision - 1)
            try:
                delivery.deliver(self)
            except BaseException:
                if not delivery.failed:
                    delivery.failed = True
                    return True  # it goes on where it was: what has struck may have been anything
                logger.exception("a listener broke off the delivery of %r", delivery)
            delivery.done = True
        self.calling = None
        self._delivering = None
        if delivery.count > 1:
            self._done_more = max(self._done_more, delivery.more_until)
        revision = delivery.revision  # asked again, as a listener may have forked
        if revision is not None and revision > self.heard_revision:
            self._note_heard(revision)
        taken.popleft()
        if self.crowded and not self._is_full():
            self._make_room()
        return True

    def _take_or_fire(self) -> None:
        """Take what is queued next, and call the timers that are due before it comes."""
        taken, timers = self._taken, self._timers
        while timers and not taken and not self._holding:
            due, _, timer = timers[0]
            left = due - time.monotonic()
            if left <= 0:
                timer.fire()
                heapq.heappop(timers)
                continue
            get = partial(self._queue.get, timeout=min(left, threading.TIMEOUT_MAX))
            with suppress(Empty):
                next(map(taken.append, iter(get, _NEVER)))  # as `_moves` does
        if not taken:
            next(self._moves)

    def call_later(self, seconds: float, function: Callable[[], object]) -> Timer:
        """Have the thread call a function once, `seconds` from now, between two deliveries."""
        timer = Timer(seconds, function, self)
        self._held.append(timer)
        if not self._holding:
            self._hand_on_held()
        return timer

    def _hand_on_held(self) -> None:
        """Have the thread get the timers that were made; one that comes to it twice is called once."""
        for timer in self._held.copy():
            self._put_flag(_NewTimer(timer))
            with suppress(ValueError):
                self._held.remove(timer)  # else another thread has done so
        self.ensure_running()

    def hold_timers(self) -> None:
        """Call no timers from now on, until `resume`."""
        self._holding = True

    def resume(self) -> None:
        """Call timers again, those that have become due meanwhile at once."""
        self._holding = False
        if self._timers or self._held:
            self._put_flag(_Flag(None))  # wakes the thread, should it run
            self._hand_on_held()

    def _note_heard(self, revision: int) -> None:
        self.heard_revision = revision
        # The copy is made only if there is anything in it: this is done for each commit.
        for flag in self._flags.copy() if self._flags else ():
            if flag.until is not None and flag.until <= revision:
                flag.reached.put(None)

    def refuse_on_own_thread(self, operation: str) -> None:
        """Raise DispatcherThreadError if a listener is calling."""
        if self.on_dispatcher_thread():
            raise DispatcherThreadError(
                f"{operation}() on the dispatcher's thread would wait for itself: listeners must not call it"
            )

    def flush(self, timeout: float | None, revision: int | None = None) -> None:
        """Wait until all that was queued before has been heard, or all up to a revision.

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
        if revision is not None and revision <= self.heard_revision:
            return
        if sys.is_finalizing():
            if self.pending:
                raise FlushTimeoutError(
                    f"Python shuts down, and no thread runs any more: {self.describe()}",
                    self.pending,
                    self._listener(),
                )
            return
        flag = _Flag(revision)
        self._put_flag(flag)
        self.ensure_running()
        # Asked again: the thread may have passed the revision before it knew of the flag.
        if revision is not None and revision <= self.heard_revision:
            return
        try:
            flag.reached.get(timeout=timeout)
        except Empty:
            raise self._not_heard("events not heard", timeout) from None

    def _put_flag(self, flag: _Flag) -> None:
        try:
            self._flags.append(flag)
            self._queue.put(flag)
        except BaseException:
            # Those in the list are in the queue, too, or `pending` would be wrong.
            if flag in self._flags:
                self._queue.put(flag)
            raise

    def stop(self, timeout: float | None) -> None:
        """Deliver all that is queued and end the thread; it starts again when it is needed again.

        Raises
        ------
        DispatcherThreadError, FlushTimeoutError
            As `flush`.
        """
        begun = time.monotonic()
        self.flush(timeout)
        thread = self._life.during(self._tell_to_end)
        if sys.is_finalizing():
            return
        while thread is not None:
            thread.join(None if timeout is None else max(0.0, begun + timeout - time.monotonic()))
            if thread.is_alive():
                raise self._not_heard("events not heard", timeout)
            # Another one has taken its place if something has struck it.
            thread = self._thread if self._stopping else None
        if not self._queue.empty():
            # Somebody wrote between the flush and the end of the thread.
            self.ensure_running()

    def _tell_to_end(self) -> threading.Thread | None:
        thread = self._thread
        if thread is not None and not self._stopping:
            # In this order: struck in between, the thread is told once more, and not never.
            self._queue.put(None)
            self._stopping = True
        return thread

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
            # To the end of the thread: one that waits would yet take what comes too late to be heard.
            self.stop(timeout)
            return
        # Nobody queues any more, and what was queued comes before the word to end.
        thread.join(timeout)
        if thread.is_alive():
            raise self._not_heard("events not heard", timeout)

    def _not_heard(self, what: str, timeout: float | None) -> FlushTimeoutError:
        return FlushTimeoutError(
            f"{what} in {timeout:.3g} s: {self.describe()}", self.pending, self._listener()
        )


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
