"""Runs at most one load of a key at a time; other threads wait for it.

Thread safety:

1. A running load is in a dict, by its key. The thread that adds it (``setdefault`` is atomic) runs it; all
   others wait for it, with no lock held.
2. A load has one outcome; the thread that runs it sets it by one assignment.
3. A load ends with its `Run`: ``run.over`` is assigned first in a ``finally``, so no exception comes before.
   An exception may interrupt the steps after it (remove the load from the dict, wake the waiters): the next
   thread that requests the key removes a load that is over, and waiters check by themselves every
   `LOOK_AGAIN` seconds.
"""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TypeVar

from latchstore.cache.load import MISSING, Load, Outcome, loading
from latchstore.cache.waits import place_of, waits_for_this_thread
from latchstore.contract.errors import LoadTimeoutError, RecursiveLoadError, TransactionConflictError
from latchstore.contract.values import Entry
from latchstore.delivery.waiting import Latch, Waiters, clock, this_thread, thread_name
from latchstore.engine.tasks import caller

logger: logging.Logger = logging.getLogger("latchstore")

T = TypeVar("T")

#: Seconds until a waiter first checks whether the load waits for it, and until the second check; each later
#: pause is twice as long.
FIRST_PAUSE, SECOND_PAUSE = 1.0, 4.0

#: Seconds of waiting after which a warning is logged.
LONG = 5.0


#: The outcome of a load that an injected exception ended, not a failure of the loader: another thread tries.
STRUCK = Outcome(MISSING, None)


class Removal:
    """A deletion of keys by a transaction that is open.

    Only the transaction's callbacks refer to it. If it is freed earlier, an exception has interrupted the
    transaction's ``__exit__``, and nothing was deleted.

    Parameters
    ----------
    covers : callable
        Called with a key and the tags of its load; returns whether the key is deleted.
    """

    __slots__ = ("__weakref__", "_covers", "caller")

    def __init__(self, covers: Callable[[str, frozenset[str]], object]) -> None:
        self._covers = covers
        self.caller: object = caller()

    def covers(self, load: Load) -> bool:
        """Return whether the load's key is deleted."""
        return bool(self._covers(load.key, load.tags))


class LoadedInside:
    """An edit: sets the result of a load in an optimistic transaction; the commit fails if it is outdated.

    The revision alone proves nothing: a key that others have set and deleted is missing again, as before.
    This edit keeps the load alive, and the `LoadTable` notes the load that long.
    """

    __slots__ = ("_entry", "_load")

    blind = False
    whole = True

    def __init__(self, entry: Entry, load: Load) -> None:
        self._entry = entry
        self._load = load

    def plain(self) -> Entry:
        """Return the entry that is set, for engines that send their edits; raise if the load is outdated."""
        if self._load.outdated:
            text = f"key {self._load.key!r} was set or deleted while it was loaded"
            raise TransactionConflictError(text, (self._load.key,))
        # The transaction may have read another entry object, which this edit made earlier.
        return self._entry.with_items(self._entry.plain, self._entry)

    def revise(self, key: str, current: Entry | None, revision: int, now: float) -> Entry:
        return self.plain().revise(key, current, revision, now)


#: The load that each thread waits for, in any cache; used to detect circles of waiting threads.
_waiting: dict[threading.Thread, Load] = {}


class LoadTable:
    """The running loads of a cache."""

    def __init__(self) -> None:
        self._loads: dict[str, Load] = {}
        # Guards that a load removes itself from the dict, not another load of the same key. Held for a lookup
        # and a deletion.
        self._latch = Latch()
        # Deletions of open transactions.
        self._removals: dict[weakref.ref[Removal], None] = {}
        # Loads in optimistic transactions that run, or whose results are not committed yet.
        self._uncommitted: dict[weakref.ref[Load], None] = {}
        # Loads in transactions, by caller and key: a task may continue in another thread at each step.
        self._inside: dict[tuple[object, str], Load] = {}
        self._waiting = _waiting

    def check_idle(self) -> None:
        """Raise AssertionError if a load or a removal is left; for tests, while nobody loads."""
        assert not self._loads, f"loads are left: {list(self._loads)}"
        assert not _alive(self._removals), "a removal is left"
        assert all(load.run.over for load in self._inside.values()), f"loads are left: {self._inside}"
        assert not self._waiting, f"threads wait: {self._waiting}"

    def renew(self) -> None:
        """Forget loads of the parent's other threads, in a forked child; a loader that forks continues."""
        me = this_thread.thread
        self._latch = Latch()
        for key, load in list(self._loads.items()):
            if load._thread is not me:
                del self._loads[key]
        self._inside = {place: load for place, load in self._inside.items() if load._thread is me}
        # The transactions are the parent's.
        self._removals, self._uncommitted = {}, {}
        self._waiting.clear()
        for load in self._loads.values():
            load.waiters = Waiters()

    def __bool__(self) -> bool:
        return bool(self._loads)

    @property
    def awaited(self) -> dict[str, Load]:
        """The running loads, by key: always the same dict, for commits."""
        return self._loads

    def claim(self, load: Load) -> Load:
        """Return the running load of the key; the given one if there was none."""
        load._since = clock()
        while (running := self._loads.setdefault(load.key, load)) is not load and running.is_over():
            self._latch.during(self._take_out, running)
        if running is load and self._removals:
            # Check after the claim: a removal is noted before it marks loads, so none is missed.
            load.kept_out = load.kept_out or any(removal.covers(load) for removal in _alive(self._removals))
        return running

    def running(self, key: str) -> Load | None:
        """Return the running load of the key, or None."""
        return self._loads.get(key)

    def finish(self, load: Load, outcome: Outcome) -> None:
        """Set the outcome of a load and wake its waiters; the first outcome stands."""
        if load.outcome is None:
            load.outcome = outcome
        self._end(load)

    def end(self, loads: Iterable[Load]) -> None:
        """Remove loads whose run is over from the table, and wake their waiters."""
        for load in loads:
            self._end(load)

    def _end(self, load: Load) -> None:
        if self._loads.get(load.key) is load:
            self._latch.during(self._take_out, load)
        load.waiters.ring_all()

    def _take_out(self, load: Load) -> None:
        if self._loads.get(load.key) is load:
            del self._loads[load.key]

    def begin_inside(self, loads: Collection[Load], optimistic: bool) -> None:
        """Note that the caller loads keys in a transaction, until their run is over.

        In an exclusive transaction, no other thread can commit between a load and its commit.

        Raises
        ------
        RecursiveLoadError
            If the caller is loading one of them already.
        """
        self.end_inside()
        before, me = self._inside, caller()
        for load in loads:
            running = self._loads.get(load.key)
            own = running is not None and running.caller is me and not running.is_over()
            if own or (me, load.key) in before:
                raise RecursiveLoadError(f"key {load.key!r} is being loaded by this thread already")
        for load in loads if optimistic else ():
            self._uncommitted[weakref.ref(load)] = None
            # Check after noting: see `claim`. The transaction may load again what it removes itself.
            others = [each for each in _alive(self._removals) if each.caller is not load.caller]
            load.kept_out = load.outdated = any(removal.covers(load) for removal in others)
        before.update({(me, load.key): load for load in loads})

    def end_inside(self) -> None:
        """Remove loads in transactions whose run is over, including interrupted ones."""
        for place, load in list(self._inside.items()):
            if load.run.over and self._inside.get(place) is load:
                self._inside.pop(place, None)

    def overtake(self, key: str) -> None:
        """Note that a key was set or deleted; the caller prevents the load from storing meanwhile."""
        for load in (self._loads.get(key), self._inside.get((caller(), key))):
            if load is not None:
                load.kept_out = load.overtaken = True

    def outdate(self, key: str) -> None:
        """Note that this thread is about to set or delete a key, which others may load in transactions.

        Called before the commit: a transaction that commits in between comes before this thread's commit.
        """
        me = caller()
        for load in _alive(self._uncommitted):
            if load.key == key and load.caller is not me:
                load.kept_out = load.outdated = True

    def note_written(self, keys: Iterable[str]) -> None:
        """Note that a commit sets or deletes keys; called in its section, before it is visible and after.

        A load claimed before the second call may have read the state before the commit. A load claimed later
        reads the state after it.
        """
        for key in keys:
            load = self._loads.get(key)
            if load is not None:
                load.kept_out = load.overtaken = True

    def _overtake_all(self, removal: Removal) -> None:
        inside = [load for load in list(self._inside.values()) if load.caller is removal.caller]
        for load in [*self._loads.values(), *inside]:
            if removal.covers(load):
                load.kept_out = load.overtaken = True
        for load in _alive(self._uncommitted):
            if load.caller is not removal.caller and removal.covers(load):
                load.kept_out = load.outdated = True

    def begin_removal(self, removal: Removal) -> None:
        """Overtake the running loads, and keep out those that begin before `end_removal`."""
        self._removals[weakref.ref(removal)] = None
        self._overtake_all(removal)

    def end_removal(self, removal: Removal, committed: bool) -> None:
        """Note that the transaction has ended; if it committed, loads that still run are too old.

        They leave the table: a caller after the commit must not get the result of a load that began before
        it.
        """
        try:
            if committed:
                self._overtake_all(removal)
        finally:
            # Without memory CPython may keep the removal forever, and it would keep all later loads out.
            self._removals.pop(weakref.ref(removal), None)

    def wait_if_current(self, load: Load, deadline: float | None) -> Outcome:
        """Wait for another thread's load until a time, in monotonic seconds; return its outcome.

        If the key was set or deleted since that load began, its value is older than the waiting call: the
        outcome is discarded, and the caller looks again.

        Raises
        ------
        LoadTimeoutError
            If the load takes longer.
        RecursiveLoadError
            If the load is this thread's own, or waits for it.
        """
        overtaken = load.overtaken
        outcome = self._wait(load, deadline)
        return STRUCK if overtaken else outcome

    def _wait(self, load: Load, deadline: float | None) -> Outcome:
        me, outer = this_thread.thread, loading.get()
        try:
            self._waiting[me] = load
            self.refuse_circle(me, load)
            if outer is None:
                self._await_end(load, deadline)
            else:
                # A function that a task's load calls in this thread.
                with self.awaiting(outer, load):
                    self._await_end(load, deadline)
        finally:
            self._waiting.pop(me, None)
        outcome = load.outcome
        return STRUCK if outcome is None else outcome

    @contextlib.contextmanager
    def awaiting(self, outer: Load | None, load: Load) -> Iterator[None]:
        """Note that the loader of a task's load waits for another one, unless that closes a circle.

        An exception may interrupt its end. Then a load is left that will be over.
        """
        if outer is None:
            yield
            return
        outer.awaits.append(load)
        try:
            self.refuse_circle(outer, load)
            yield
        finally:
            outer.awaits.remove(load)

    def _await_end(self, load: Load, deadline: float | None) -> None:
        """Sleep until a load is over; check at times whether it can end at all."""
        seconds = math.inf if deadline is None else max(0.0, deadline - clock())
        waited, pause = 0.0, FIRST_PAUSE
        while not load.waiters.wait(load.is_over, min(pause, seconds - waited)):
            waited += pause
            if waited >= seconds or sys.is_finalizing():
                # Hundredths: part of the time had passed when this wait began.
                raise LoadTimeoutError(
                    f"key {load.key!r} is still being loaded after {round(min(waited, seconds), 2):g} s: "
                    f"by {load.describe()}"
                )
            self.refuse_hidden_circle(load)
            if waited >= LONG and not load.warned:
                load.warned = True
                logger.warning(
                    "thread %r has waited for key %r for %.3g s, which thread %r is loading: it is %s",
                    thread_name(this_thread.thread),
                    load.key,
                    waited,
                    thread_name(load._thread),
                    place_of(load._thread),
                )
            pause = max(SECOND_PAUSE, 2 * pause)

    def refuse_hidden_circle(self, load: Load) -> None:
        """Raise RecursiveLoadError if the load's thread waits for this one by a future or a join."""
        loaders = {
            thread.ident: waited_for._thread.ident
            for thread, waited_for in list(self._waiting.items())
            if thread is not this_thread.thread and not waited_for.is_over()
        }
        how = waits_for_this_thread(load._thread.ident, loaders)
        if how is not None:
            raise RecursiveLoadError(
                f"key {load.key!r} is being loaded by thread {thread_name(load._thread)!r}, which waits for "
                f"this one: it is {how}"
            )

    def refuse_circle(self, me: object, load: Load) -> None:
        """Follow the waits. Of threads that wait in a circle, the last one to register its wait finds it.

        Parameters
        ----------
        me : Thread or Load
            The thread that is about to wait, or the load of a task whose loader is.
        load : Load

        Raises
        ------
        RecursiveLoadError
        """
        ways: list[tuple[Load, ...]] = [(load,)]
        seen: set[Load] = set()
        while ways:
            way = ways.pop()
            last = way[-1]
            if me in (last, last._thread):
                raise RecursiveLoadError(
                    f"key {load.key!r} is being loaded by this thread, or by one that waits for it: "
                    + " -> ".join(repr(each.key) for each in way)
                )
            waited_for = self._waiting.get(last._thread)
            for each in (*last.awaits, *(() if waited_for is None else (waited_for,))):
                # Otherwise it is about to continue, or is in a circle of others, which they detect.
                if not each.is_over() and each not in seen:
                    seen.add(each)
                    ways.append((*way, each))


def _alive(references: dict[weakref.ref[T], None]) -> list[T]:
    """Return the live objects; remove dead references."""
    found = []
    for reference in list(references):
        each = reference()
        if each is None:
            references.pop(reference, None)
        else:
            found.append(each)
    return found
