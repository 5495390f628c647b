"""One load of a key at a time, however many threads want it.

Thread safety: a key's load stands in a dict while it runs. Whoever puts it there (``setdefault`` is atomic)
runs it, all others wait for it, with no lock held. A load is finished once, by the thread that runs it, by
one assignment of `outcome`.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import NamedTuple, TypeVar, TypeVarTuple

from latchstore.contract.errors import LoadTimeoutError, RecursiveLoadError
from latchstore.delivery.waiting import Waiters, this_thread, thread_name

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Outcome(NamedTuple):
    """How a load has ended.

    Attributes
    ----------
    data : bytes or None
        What was loaded, encoded; None if there is nothing: a load of many keys did not have this one, or it
        failed.
    error : BaseException or None
        What it failed with.
    absent : bool
        Whether the load of many keys has found that there is none of this one.
    """

    data: bytes | None
    error: BaseException | None
    absent: bool = False


class KeptOutError(Exception):
    """Ends the commit of a load whose result must not be stored any more."""


class Failure(NamedTuple):
    """An error that is raised again until a time, in seconds of the cache's clock."""

    error: Exception
    until: float
    traceback: TracebackType | None
    tags: frozenset[str]


class Load:
    """The load of one key.

    Attributes
    ----------
    key : str
    tags : frozenset of str
        What the loaded entry is to be invalidated by.
    overtaken : bool
        Whether the key was set or deleted since the load began, which counts more than its result.
    kept_out : bool
        Whether its result must not be stored: it is overtaken, or a transaction that is still open will.
    outcome : Outcome or None
        None while it runs.
    """

    __slots__ = ("_since", "_thread", "_waiters", "kept_out", "key", "outcome", "overtaken", "tags")

    def __init__(self, key: str, tags: Iterable[str] = ()) -> None:
        self.key = key
        self.tags = frozenset(tags)
        self.overtaken = False
        self.kept_out = False
        self.outcome: Outcome | None = None
        self._thread = this_thread.thread
        self._since = time.monotonic()
        self._waiters = Waiters()


#: The outcome of a load that something has struck that is no failure of the loader's: another thread tries.
_STRUCK = Outcome(None, None)


class Removal:
    """That a key, all keys with a tag, or all keys are deleted by a transaction that is open.

    Nothing but the functions that the transaction is to call at its end refers to it: if it is freed before,
    an exception has struck the transaction's ``__exit__``, and nothing was deleted.
    """

    __slots__ = ("__weakref__", "_key", "_tag", "thread")

    def __init__(self, key: str | None = None, tag: str | None = None) -> None:
        self._key = key
        self._tag = tag
        self.thread = this_thread.thread

    def covers(self, load: Load) -> bool:
        """Tell whether a load's key is one of them."""
        if self._key is not None:
            return load.key == self._key
        return self._tag is None or self._tag in load.tags


class _Inside(threading.local):
    """What this thread is loading in a transaction."""

    def __init__(self) -> None:
        self.loads: dict[str, Load] = {}


class LoadTable:
    """The loads that run."""

    def __init__(self) -> None:
        self._loads: dict[str, Load] = {}
        # Of transactions that are open.
        self._removals: dict[weakref.ref[Removal], None] = {}
        self._inside = _Inside()
        # For which load a thread waits, so that no circle of waiting threads closes.
        self._waiting: dict[threading.Thread, Load] = {}

    def renew(self) -> None:
        """Forget what runs in other threads of the parent, in a forked child; a loader that forks goes on."""
        me = this_thread.thread
        for key, load in list(self._loads.items()):
            if load._thread is not me:
                del self._loads[key]
        self._removals = {weakref.ref(removal): None for removal in self._open() if removal.thread is me}
        self._waiting = {}
        for load in self._loads.values():
            load._waiters = Waiters()

    def __bool__(self) -> bool:
        return bool(self._loads)

    @property
    def awaited(self) -> dict[str, Load]:
        """The loads that run, by key: always the same dict, for those who commit."""
        return self._loads

    def claim(self, load: Load) -> Load:
        """Return the load of the key that runs; the one that is given, if none did."""
        running = self._loads.setdefault(load.key, load)
        if running is load and self._removals:
            # Looked at after the claim, as they are noted before loads are looked for: none is missed.
            load.kept_out = load.kept_out or any(removal.covers(load) for removal in self._open())
        return running

    def _open(self) -> list[Removal]:
        """Return the removals of transactions that are open; forget those that were freed."""
        found = []
        for reference in list(self._removals):
            removal = reference()
            if removal is None:
                self._removals.pop(reference, None)
            else:
                found.append(removal)
        return found

    def running(self, key: str) -> Load | None:
        """Return the load of the key that runs, or None."""
        return self._loads.get(key)

    def may_store(self, key: str) -> bool:
        """Tell whether the key is being loaded, by any thread, or by this one in a transaction."""
        return key in self._loads or key in self._inside.loads

    def finish(self, load: Load, outcome: Outcome) -> None:
        """End a load and wake those who wait for it; may be done twice, the first outcome stands."""
        if load.outcome is None:
            load.outcome = outcome
        if self._loads.get(load.key) is load:
            del self._loads[load.key]
        load._waiters.ring_all()

    def ending(self, loads: Iterable[Load], function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Call a function that may claim the loads; whatever happens, all that it has claimed end with it.

        Done twice, as an exception before a bytecode may strike once: rule 3 of locking.py. A load that has
        been struck by what is no failure of the loader's is tried by another thread.
        """
        try:
            try:
                return function(*arguments)
            finally:
                self._finish_all(loads)
        finally:
            self._finish_all(loads)

    def _finish_all(self, loads: Iterable[Load]) -> None:
        for load in loads:
            self.finish(load, _STRUCK)

    def load_inside(self, loads: list[Load], function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Call a function that loads keys in a transaction, unless this thread is loading one already.

        Raises
        ------
        RecursiveLoadError
        """
        before = self._inside.loads
        for load in loads:
            running = self._loads.get(load.key)
            if load.key in before or (running is not None and running._thread is this_thread.thread):
                raise RecursiveLoadError(f"key {load.key!r} is being loaded by this thread")
        try:
            self._inside.loads = {**before, **{load.key: load for load in loads}}
            return function(*arguments)
        finally:
            self._inside.loads = before

    def overtake(self, key: str) -> None:
        """Note that a key was set or deleted; the caller keeps the load from storing meanwhile."""
        for load in (self._loads.get(key), self._inside.loads.get(key)):
            if load is not None:
                load.kept_out = load.overtaken = True

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
        for load in [*self._loads.values(), *self._inside.loads.values()]:
            if removal.covers(load):
                load.kept_out = load.overtaken = True

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
        return _STRUCK if overtaken else outcome

    def _wait(self, load: Load, deadline: float | None) -> Outcome:
        me = this_thread.thread
        try:
            try:
                self._waiting[me] = load
                self._refuse_circle(me, load)
                seconds = -1.0 if deadline is None else max(0.0, deadline - time.monotonic())
                if not load._waiters.wait(lambda: load.outcome is not None, seconds):
                    raise LoadTimeoutError(
                        f"key {load.key!r} is still being loaded after {seconds:.3g} s: by thread "
                        f"{thread_name(load._thread)!r}, for {time.monotonic() - load._since:.3f} s"
                    )
            finally:
                self._waiting.pop(me, None)
        finally:
            self._waiting.pop(me, None)
        assert load.outcome is not None
        return load.outcome

    def _refuse_circle(self, me: threading.Thread, load: Load) -> None:
        """Follow who waits for whom. Of the threads of a circle the last to note that it waits sees it."""
        path = [load.key]
        waited_for: Load | None = load
        while waited_for is not None:
            if waited_for._thread is me:
                raise RecursiveLoadError(
                    f"key {load.key!r} is being loaded by this thread, or by one that waits for it: "
                    + " -> ".join(map(repr, path))
                )
            waited_for = self._waiting.get(waited_for._thread)
            if waited_for is not None:
                if waited_for.outcome is not None:
                    return  # that thread is about to go on
                if waited_for.key in path:
                    return  # a circle of others, who find it themselves
                path.append(waited_for.key)
