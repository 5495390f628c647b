"""Deliveries and the queue from which a dispatcher takes them.

Thread safety:

1. Any thread may queue a delivery, also in the middle of another call: it is one ``deque.append``. Then it
   wakes the dispatcher's thread if that sleeps. If an exception interrupts it in between, the next one that
   queues does so, or the thread checks by itself.
2. A delivery that the thread has taken stays in `DeliveryQueue.taken` until it is done, so that another
   thread can continue if that one ends. One call in C moves it there, so no exception from outside comes in
   between.
3. `queued_more` has one writer at a time, the holder of the store's lock; only the dispatcher's thread
   assigns `done_more`. Other threads read them at any time and may see slightly old values.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from typing import Any

from latchstore.delivery.waiting import Bell

#: A sentinel that is never queued.
_NEVER: Any = object()


class Delivery(ABC):
    """An item of the queue, which calls listeners.

    Attributes
    ----------
    count : int
        The number of its events. Deliveries with more than one are submitted one at a time.
    revision : int or None
        The revision of the commit whose events it has, if any.
    more_until : int
        If it has more than one event: the number of events beyond the first of each delivery that were queued
        up to and including this one.
    done : bool
        Whether all of it has been delivered.
    """

    __slots__ = ("count", "done", "more_until", "revision")

    def __init__(self, count: int = 1, revision: int | None = None) -> None:
        self.count: int = count
        self.revision = revision
        self.more_until: int = 0
        self.done: bool = False

    @abstractmethod
    def deliver(self, dispatcher: Any) -> None:
        """Call the listeners, observed by the `EventDispatcher`; a repeated call continues."""

    @property
    def progress(self) -> object:
        """The state of the delivery; equal after two failures at the same point."""
        return None

    def skip(self) -> None:
        """Skip a part that fails repeatedly: the whole delivery, or its current event."""
        self.done = True

    def forget(self) -> None:
        """Become empty: a listener has forked, and in the child the events are the parent's."""
        self.count = 0
        self.revision = None


class Mark(Delivery):
    """A position in the queue, which is not an event; delivering it only wakes the thread."""

    __slots__ = ("_queue",)

    def __init__(self, queue: DeliveryQueue) -> None:
        super().__init__(0)
        self._queue = queue

    def deliver(self, dispatcher: Any) -> None:
        self._queue.marks.pop(self, None)


class Flag(Mark):
    """A mark that a thread waits for: all deliveries before it are done.

    Attributes
    ----------
    reached : Bell
        Rung when the mark is reached.
    until : int or None
        A revision; the bell is also rung once this revision has been delivered.
    """

    __slots__ = ("reached", "until")

    def __init__(self, queue: DeliveryQueue, until: int | None = None) -> None:
        super().__init__(queue)
        self.until: int | None = until
        self.reached: Bell = Bell()

    def deliver(self, dispatcher: Any) -> None:
        super().deliver(dispatcher)
        self.reached.ring()


class End(Flag):
    """Ends the thread that delivers it.

    Attributes
    ----------
    thread : Thread or None
        That thread.
    """

    __slots__ = ("thread",)

    def __init__(self, queue: DeliveryQueue) -> None:
        super().__init__(queue)
        self.thread: threading.Thread | None = None

    def deliver(self, dispatcher: Any) -> None:
        self.thread = threading.current_thread()
        super().deliver(dispatcher)
        self._queue.ending = True
        self.done = True


class DeliveryQueue:
    """Deliveries in the order in which they are queued.

    Attributes
    ----------
    items : deque of Delivery
        The deliveries that the thread has not taken yet.
    taken : deque of Delivery
        The delivery that the thread has taken and that is not done; at most one.
    moves : iterator
        Each step moves the next delivery from `items` to `taken`; there must be one.
    asleep : bool
        Whether the thread sleeps, or is about to check the items for the last time before it sleeps: a thread
        that queues an item wakes it.
    marks : dict of Mark to None
        The marks in the queue, which are not events; changed by single operations.
    ending : bool
        Whether the thread is to end.
    queued_more, done_more : int
        The events beyond the first of each delivery: queued, and done.
    """

    __slots__ = ("_bell", "asleep", "done_more", "ending", "items", "marks", "moves", "queued_more", "taken")

    def __init__(self) -> None:
        self.items: deque[Delivery] = deque()
        self.taken: deque[Delivery] = deque()
        self.moves: Iterator[None] = map(self.taken.append, iter(self.items.popleft, _NEVER))
        self.asleep: bool = False
        # The bell of the thread that delivers; each such thread makes its own.
        self._bell: Bell = Bell()
        self.marks: dict[Mark, None] = {}
        self.ending: bool = False
        self.queued_more: int = 0
        self.done_more: int = 0

    @property
    def events(self) -> int:
        """The number of events not taken; off by one while a mark is being queued or taken."""
        return len(self.items) + self.queued_more - self.done_more - len(self.marks)

    def is_empty(self) -> bool:
        """Return whether nothing is left to deliver. Call it before checking which thread delivers."""
        try:
            return not self.items and (not self.taken or self.taken[0].done)
        except IndexError:
            return False  # another thread delivers at the moment

    def count_more(self, delivery: Delivery) -> None:
        """Count the events beyond the first of a delivery that is about to be queued; counted once."""
        if not delivery.more_until:
            delivery.more_until = self.queued_more + delivery.count - 1
        self.queued_more = delivery.more_until

    def begin(self) -> None:
        """Begin to deliver on the calling thread, while no other thread does."""
        self.ending = False
        # A new bell, whose lock is of the thread's kind: a module's store is older than a run of the harness.
        self._bell = Bell()

    def put_mark(self, mark: Mark) -> None:
        """Queue a mark."""
        try:
            self.marks[mark] = None
            self.items.append(mark)
        except BaseException:
            self.marks.pop(mark, None)  # all marks must be in the queue, or `events` would be too small
            raise
        if self.asleep:
            self.wake()

    def wake(self) -> None:
        """Wake the thread. No exception from outside can come between the two statements."""
        try:
            # First: the thread may go to sleep again before this continues, and must be found asleep then.
            self.asleep = False
            self._bell.release()
        except RuntimeError:
            return  # another thread has woken it
        except MemoryError:
            self.asleep = True
            raise

    def sleep(self, seconds: float) -> None:
        """Wait until a delivery is queued, at most `seconds`; may return early."""
        try:
            self.asleep = True
            if not self.items:
                self._bell.sleep(seconds)
        finally:
            self.asleep = False

    def ring(self, revision: int) -> None:
        """Wake the threads that wait for this revision."""
        for mark in list(self.marks):
            if isinstance(mark, Flag) and mark.until is not None and mark.until <= revision:
                mark.reached.ring()

    def ring_all(self) -> None:
        """Wake all waiting threads."""
        for mark in list(self.marks):
            if isinstance(mark, Flag):
                mark.reached.ring()
