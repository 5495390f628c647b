"""One load of a key at a time, however many threads want it.

Thread safety:

1. A key's load stands in a dict while it runs. The thread that puts it there (``setdefault`` is atomic) runs
   it; all others wait for it, with no lock held.
2. A load has one outcome, set by the thread that runs it, by one assignment.
3. A load ends with its `Run`: ``run.over`` is assigned first in a ``finally``, so no exception comes before.
   What follows there (taking the load out of the dict, waking the waiters) may be struck: a load that is over
   and still in the dict is taken out by the next thread that asks for the key, and waiters look by themselves
   every `LOOK_AGAIN` seconds.
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

#: Seconds after which a waiter looks for the first time whether the load waits for it, and until the second
#: time; each later pause is twice as long.
FIRST_PAUSE, SECOND_PAUSE = 1.0, 4.0

#: Seconds of waiting after which a warning names the load.
LONG = 5.0


#: The outcome of a load that something has struck that is no failure of the loader's: another thread tries.
STRUCK = Outcome(MISSING, None)


class Removal:
    """That some keys are deleted by a transaction that is open.

    Nothing but the functions that the transaction is to call at its end refers to it: if it is freed before,
    an exception has struck the transaction's ``__exit__``, and nothing was deleted.

    Parameters
    ----------
    covers : callable
        Called with a key and the tags of its load; tells whether the key is one of them.
    """

    __slots__ = ("__weakref__", "_covers", "caller", "thread")

    def __init__(self, covers: Callable[[str, frozenset[str]], object]) -> None:
        self._covers = covers
        self.thread: threading.Thread = this_thread.thread
        self.caller: object = caller()

    def covers(self, load: Load) -> bool:
        """Tell whether a load's key is one of them."""
        return bool(self._covers(load.key, load.tags))


class LoadedInside:
    """An edit: what a load in an optimistic transaction has given, unless the load is outdated at the commit.

    A key that others have set or deleted may be missing again, as it was: then its revision tells nothing.
    The load lives as long as this, and is noted by that in the `LoadTable`.
    """

    __slots__ = ("_entry", "_load")

    blind = False
    whole = True

    def __init__(self, entry: Entry, load: Load) -> None:
        self._entry = entry
        self._load = load

    def plain(self) -> Entry:
        """Return the entry that is set, for engines that send their edits; raise if it is outdated."""
        if self._load.outdated:
            text = f"key {self._load.key!r} was set or deleted while it was loaded"
            raise TransactionConflictError(text, (self._load.key,))
        # The transaction may have looked at another one that this has made.
        return self._entry.with_items(self._entry.plain, self._entry)

    def revise(self, key: str, current: Entry | None, revision: int, now: float) -> Entry:
        return self.plain().revise(key, current, revision, now)


#: For which load each thread waits, of whatever cache, so that no circle of waiting threads closes.
_waiting: dict[threading.Thread, Load] = {}


class LoadTable:
    """The loads that run."""

    def __init__(self) -> None:
        self._loads: dict[str, Load] = {}
        # Guards that a load takes itself out of the dict, and not another one of the same key. Held for a
        # look and a deletion.
        self._latch = Latch()
        # Of transactions that are open.
        self._removals: dict[weakref.ref[Removal], None] = {}
        # In optimistic transactions, that run or whose results are not committed yet.
        self._uncommitted: dict[weakref.ref[Load], None] = {}
        # In transactions, by caller and key: a task's may be in another thread with each step.
        self._inside: dict[tuple[object, str], Load] = {}
        self._waiting = _waiting

    def check_idle(self) -> None:
        """Raise AssertionError if anything is left of a load or a removal; for tests, while nobody loads."""
        assert not self._loads, f"loads are left: {list(self._loads)}"
        assert not _alive(self._removals), "a removal is left"
        assert all(load.run.over for load in self._inside.values()), f"loads are left: {self._inside}"
        assert not self._waiting, f"threads wait: {self._waiting}"

    def renew(self) -> None:
        """Forget what runs in other threads of the parent, in a forked child; a loader that forks goes on."""
        me = this_thread.thread
        self._latch = Latch()
        for key, load in list(self._loads.items()):
            if load._thread is not me:
                del self._loads[key]
        removals, loads = _alive(self._removals), _alive(self._uncommitted)
        self._inside = {place: load for place, load in self._inside.items() if load._thread is me}
        self._removals = {weakref.ref(each): None for each in removals if each.thread is me}
        self._uncommitted = {weakref.ref(each): None for each in loads if each._thread is me}
        self._waiting.clear()
        for load in self._loads.values():
            load.waiters = Waiters()

    def __bool__(self) -> bool:
        return bool(self._loads)

    @property
    def awaited(self) -> dict[str, Load]:
        """The loads that run, by key: always the same dict, for those who commit."""
        return self._loads

    def claim(self, load: Load) -> Load:
        """Return the load of the key that runs; the one that is given, if none did."""
        load._since = clock()
        while (running := self._loads.setdefault(load.key, load)) is not load and running.is_over():
            self._latch.during(self._take_out, running)
        if running is load and self._removals:
            # Looked at after the claim, as they are noted before loads are looked for: none is missed.
            load.kept_out = load.kept_out or any(removal.covers(load) for removal in _alive(self._removals))
        return running

    def running(self, key: str) -> Load | None:
        """Return the load of the key that runs, or None."""
        return self._loads.get(key)

    def finish(self, load: Load, outcome: Outcome) -> None:
        """Set the outcome of a load and wake those who wait for it; the first outcome stands."""
        if load.outcome is None:
            load.outcome = outcome
        self._end(load)

    def end(self, loads: Iterable[Load]) -> None:
        """Take loads whose run is over out of the table, and wake those who wait for them."""
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

        From an exclusive one other threads cannot come between a load and its commit.

        Raises
        ------
        RecursiveLoadError
            If it is loading one of them already.
        """
        self.end_inside()
        before, me = self._inside, caller()
        for load in loads:
            running = self._loads.get(load.key)
            own = running is not None and running.caller is me and not running.is_over()
            if own or (me, load.key) in before:
                raise RecursiveLoadError(f"key {load.key!r} is being loaded by this thread")
        for load in loads if optimistic else ():
            self._uncommitted[weakref.ref(load)] = None
            # Looked at after that: see `claim`. What the transaction itself removes it may load again.
            others = [each for each in _alive(self._removals) if each.caller is not load.caller]
            load.kept_out = load.outdated = any(removal.covers(load) for removal in others)
        before.update({(me, load.key): load for load in loads})

    def end_inside(self) -> None:
        """Forget loads in transactions whose run is over, those included that were struck at their end."""
        for place, load in list(self._inside.items()):
            if load.run.over and self._inside.get(place) is load:
                self._inside.pop(place, None)

    def overtake(self, key: str) -> None:
        """Note that a key was set or deleted; the caller keeps the load from storing meanwhile."""
        for load in (self._loads.get(key), self._inside.get((caller(), key))):
            if load is not None:
                load.kept_out = load.overtaken = True

    def outdate(self, key: str) -> None:
        """Note that this thread is about to set or delete a key, which others may be loading in transactions.

        Noted before the commit: a transaction that commits in between does so before this thread.
        """
        me = caller()
        for load in _alive(self._uncommitted):
            if load.key == key and load.caller is not me:
                load.kept_out = load.outdated = True

    def note_written(self, keys: Iterable[str]) -> None:
        """Note that keys are set or deleted by a commit, in its section: before that is seen and after it.

        A load that is claimed before the second time may have read what was there before. One that is claimed
        later reads what the commit has left.
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
        """Overtake the loads that run, and keep out those that begin before `end_removal`."""
        self._removals[weakref.ref(removal)] = None
        self._overtake_all(removal)

    def end_removal(self, removal: Removal, committed: bool) -> None:
        """Note that the transaction has ended; if it has changed something, what still runs is too old.

        It is no more looked for than that: who asks after the commit must not get what began before it.
        """
        if committed:
            self._overtake_all(removal)
        self._removals.pop(weakref.ref(removal), None)

    def wait_if_current(self, load: Load, deadline: float | None) -> Outcome:
        """Wait for another thread's load until a time, in monotonic seconds; return its outcome.

        If the key was deleted or set since that load began, its value is older than the call that waits: then
        the outcome says nothing, and the caller looks again.

        Raises
        ------
        LoadTimeoutError
            If it takes longer.
        RecursiveLoadError
            If that load is this thread's own, or waits for it.
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

        An exception may strike its end. What is left then is a load that will be over.
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
        """Sleep until a load is over; now and then look whether it ever can be."""
        seconds = math.inf if deadline is None else max(0.0, deadline - clock())
        waited, pause = 0.0, FIRST_PAUSE
        while not load.waiters.wait(load.is_over, min(pause, seconds - waited)):
            waited += pause
            if waited >= seconds or sys.is_finalizing():
                # Hundredths: some of the time had passed when this wait began.
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
        """Raise RecursiveLoadError if the load's thread waits for this one in another way than for a load."""
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
        """Follow who waits for whom. Of those who wait in a circle the last to note that it waits sees it.

        Parameters
        ----------
        me : Thread or Load
            The thread that is to wait for a load, or the load of a task whose loader is.
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
                # Else it is about to go on, or in a circle of others, who find it themselves.
                if not each.is_over() and each not in seen:
                    seen.add(each)
                    ways.append((*way, each))


def _alive(references: dict[weakref.ref[T], None]) -> list[T]:
    """Return what is referred to; forget what was freed."""
    found = []
    for reference in list(references):
        each = reference()
        if each is None:
            references.pop(reference, None)
        else:
            found.append(each)
    return found
