"""What a dispatcher delivers, and the queue of it.

Thread safety:

1. Any thread may put something in the queue, also in the middle of another call: it is one ``deque.append``.
   Afterwards it wakes the thread if that sleeps; if an exception strikes in between, the next one does so, or
   the thread looks by itself.
2. What the thread has taken stays in `DeliveryQueue.taken` until it is done with, so that another thread goes
   on with it should that one end. It moves there in one call in C, so that no exception from outside comes in
   between.
3. `queued_more` has one writer at a time, whoever holds the lock of the store; `done_more` is assigned by the
   dispatcher's thread. Others read them at any time and may be a moment behind.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from typing import Any

from latchstore.delivery.waiting import Bell

#: Is never queued.
_NEVER: Any = object()


class Delivery(ABC):
    """What is queued: something that calls listeners when its turn has come.

    Attributes
    ----------
    count : int
        How many events it stands for. Of those with more than one, one is submitted at a time.
    revision : int or None
        The commit whose events it has, if it does.
    more_until : int
        How many events beyond the first of each delivery were queued up to this one, if it has more than one.
    done : bool
        Whether all of it has been heard.
    """

    __slots__ = ("count", "done", "more_until", "revision")

    def __init__(self, count: int = 1, revision: int | None = None) -> None:
        self.count: int = count
        self.revision = revision
        self.more_until: int = 0
        self.done: bool = False

    @abstractmethod
    def deliver(self, dispatcher: Any) -> None:
        """Call the listeners, observed by the `EventDispatcher`; called again, go on where it was."""

    @property
    def progress(self) -> object:
        """How far it has come; compared, to find out whether the same has failed again."""
        return None

    def skip(self) -> None:
        """Give up what has failed again and again: all of it, or the event whose turn it is."""
        self.done = True

    def forget(self) -> None:
        """Stand for nothing any more: a listener has forked, and in the child this is the parent's."""
        self.count = 0
        self.revision = None


class Mark(Delivery):
    """A place in the queue, which is no event; by itself it only wakes the thread."""

    __slots__ = ("_queue",)

    def __init__(self, queue: DeliveryQueue) -> None:
        super().__init__(0)
        self._queue = queue

    def deliver(self, dispatcher: Any) -> None:
        self._queue.marks.pop(self, None)


class Flag(Mark):
    """A mark that somebody waits for: all that was queued before it has been heard.

    Attributes
    ----------
    reached : Bell
        Rung then.
    until : int or None
        If this revision has been heard before, it is rung as well.
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
    """The end of the thread that delivers it.

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
    """Deliveries in the order in which they are made.

    Attributes
    ----------
    items : deque of Delivery
        Those that the thread has not taken yet.
    taken : deque of Delivery
        What it has taken and is not done with: one at the most.
    moves : iterator
        Moves the next one from there to here; there must be one.
    asleep : bool
        Whether the thread sleeps, or is about to look at the items for the last time before: who has queued
        something wakes it.
    marks : dict of Mark to None
        The marks in the queue, which are no events; changed by single operations.
    ending : bool
        Whether the thread is to end.
    queued_more, done_more : int
        Events beyond the first of each delivery: queued, and done with.
    """

    __slots__ = ("_bell", "asleep", "done_more", "ending", "items", "marks", "moves", "queued_more", "taken")

    def __init__(self) -> None:
        self.items: deque[Delivery] = deque()
        self.taken: deque[Delivery] = deque()
        self.moves: Iterator[None] = map(self.taken.append, iter(self.items.popleft, _NEVER))
        self.asleep: bool = False
        # Of the thread that delivers; made anew by each.
        self._bell: Bell = Bell()
        self.marks: dict[Mark, None] = {}
        self.ending: bool = False
        self.queued_more: int = 0
        self.done_more: int = 0

    @property
    def events(self) -> int:
        """How many events have not been taken; one more or less while a mark is queued or taken."""
        return len(self.items) + self.queued_more - self.done_more - len(self.marks)

    def is_empty(self) -> bool:
        """Return whether there is nothing to deliver. To be called before the look at who delivers."""
        try:
            return not self.items and (not self.taken or self.taken[0].done)
        except IndexError:
            return False  # a thread delivers meanwhile

    def count_more(self, delivery: Delivery) -> None:
        """Count the events beyond the first of a delivery, once, which is about to be queued."""
        if not delivery.more_until:
            delivery.more_until = self.queued_more + delivery.count - 1
        self.queued_more = delivery.more_until

    def begin(self) -> None:
        """Begin to deliver, on the calling thread, while no other one does."""
        self.ending = False
        # Whose kind of lock is that of the thread: a store of a module is older than a run of the harness.
        self._bell = Bell()

    def put_mark(self, mark: Mark) -> None:
        """Queue a mark."""
        try:
            self.marks[mark] = None
            self.items.append(mark)
        except BaseException:
            self.marks.pop(mark, None)  # each of them is in the queue, or the events would never be as many
            raise
        if self.asleep:
            self.wake()

    def wake(self) -> None:
        """Wake the thread. Written so that no exception from outside strikes between the two."""
        try:
            # First: the thread may sleep again before this goes on, and has to be found asleep then.
            self.asleep = False
            self._bell.release()
        except RuntimeError:
            return  # another thread was quicker
        except MemoryError:
            self.asleep = True
            raise

    def sleep(self, seconds: float) -> None:
        """Wait until something is queued, for so many seconds at the most; may return early."""
        try:
            self.asleep = True
            if not self.items:
                self._bell.sleep(seconds)
        finally:
            self.asleep = False

    def ring(self, revision: int) -> None:
        """Wake those who wait for this revision."""
        for mark in list(self.marks):
            if isinstance(mark, Flag) and mark.until is not None and mark.until <= revision:
                mark.reached.ring()

    def ring_all(self) -> None:
        """Wake all who wait."""
        for mark in list(self.marks):
            if isinstance(mark, Flag):
                mark.reached.ring()
