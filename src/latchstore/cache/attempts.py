"""Attempts: how one caller gets the value of a key, by loading it or by waiting for another load.

The caller runs the loader itself, so that few frames are between a memoized function and the wrapped
function: `CacheLoader.get_or_load` has the steps, the last of which sets ``run.over`` (rule 3 of
``loading.py``).

Thread safety: one thread uses an attempt. Threads share the loads, the failures and the entries, which an
attempt reaches through its `Shelf`.
"""

from __future__ import annotations

import logging
import math
import time
import traceback
from collections.abc import Callable, Generator, Iterable
from types import CoroutineType
from typing import Any, NamedTuple, TypeGuard

from latchstore.cache.counting import ThreadCounts
from latchstore.cache.failures import Failures, bare_copy, kept_failure
from latchstore.cache.load import MISSING, Load, Outcome, Run
from latchstore.cache.loading import LoadTable
from latchstore.cache.options import Options
from latchstore.contract.errors import LoadTimeoutError
from latchstore.delivery.waiting import clock
from latchstore.engine.bounded import Leases

logger: logging.Logger = logging.getLogger("latchstore")


class Stale:
    """An old value that other callers get while it is loaded again."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value: Any = value


class Shelf(NamedTuple):
    """The parts of a cache that attempts use: loads, failures, counts, and functions.

    The content of a key is what its entry holds: data, or with the codec "reference" the object itself.

    Attributes
    ----------
    live_content, revision : callable
        Called with a key. The first returns its content, `MISSING` if it is missing or expired; the second
        its revision, 0 if it is missing or expired.
    expired_content : callable
        Called with a key and seconds; returns content that is live or expired at most that long ago, else
        `MISSING`.
    decode, encode : callable
        Called with key and content, or key and value. `decode` returns `MISSING` if decoding fails, and logs
        the failure unless a third argument is true.
    store, refresh : callable
        Called with load, content, options and the revision at which the load began. `store` sets the key
        unless it was set or deleted since then, and returns the content that another writer has set, or
        `MISSING`. `refresh` replaces the entry of that revision, and returns whether it did.
    put : callable
        Called with load, content and options: like `store`, but in the caller's transaction.
    is_due, postpone : callable
        Called with a key; `postpone` with options as well. `is_due` returns whether to load the key again,
        `postpone` delays the next refresh.
    leases : Leases or None
        The leases of loads outside transactions, if other processes share the store.
    """

    live_content: Callable[[str], Any]
    expired_content: Callable[[str, float], Any]
    revision: Callable[[str], int]
    decode: Callable[..., Any]
    encode: Callable[[str, Any], Any]
    store: Callable[[Load, Any, Options, int], Any]
    refresh: Callable[[Load, Any, Options, int], bool]
    put: Callable[[Load, Any, Options], Any]
    is_due: Callable[[str], bool]
    postpone: Callable[[str, Options], None]
    leases: Leases | None
    loads: LoadTable
    failures: Failures
    counts: ThreadCounts


class ForLoad(NamedTuple):
    """A wait for another caller's load, up to a time in monotonic seconds."""

    load: Load
    deadline: float | None


class ForProcess(NamedTuple):
    """A wait for another process that holds the lease of a key."""

    key: str
    deadline: float | None


#: The steps of a beginning: each yields a wait, and receives the outcome of a `ForLoad`.
Steps = Generator[ForLoad | ForProcess, Any, bool]


class Attempt:
    """Base class of attempts; subclasses decide when to load, and what to do with the value.

    Attributes
    ----------
    run : Run
        The caller sets ``run.over`` when the attempt is over.
    load : Load
    value : object
        The value that the caller returns.
    """

    def __init__(self, shelf: Shelf, key: str, options: Options) -> None:
        self.run: Run = Run()
        self.value: Any = MISSING
        self._shelf = shelf
        self._options = options
        self.load: Load = Load(key, self.run, options.tags)
        self._begun_at = 0
        self._begun = 0.0

    def begin(self) -> bool:
        """Return True if the caller is to load, False if `value` is set; raise if neither is possible."""
        self._begun_at = self._shelf.revision(self.load.key)
        self._begun = time.perf_counter()
        return True

    def steps(self) -> Steps:
        """Do what `begin` does, but yield each wait to the caller."""
        return self.begin()
        yield

    def loaded(self, value: Any) -> None:
        """Handle the loader's result."""
        try:
            if type(value) is CoroutineType:
                value.close()
                raise TypeError(
                    f"the loader of key {self.load.key!r} returned a coroutine, which can be awaited once: "
                    "use await latchstore.aio.AsyncCache(cache).get_or_load(key, loader)"
                )
            options = self._options.of(value)
            content = self._shelf.encode(self.load.key, value)
        except Exception as error:
            # An exception of the caller's functions or of the codec counts as a failure of the loader: there
            # is no value that can be kept.
            if self.failed(error):
                raise
            return
        self._count(True)
        self._keep(value, content, options)

    def _keep(self, value: Any, content: Any, options: Options | None) -> None:
        """Store the loaded value, unless options are None; set the result for the caller and the waiters."""
        raise NotImplementedError

    def failed(self, error: BaseException) -> bool:
        """Handle the loader's exception; return whether the caller raises it."""
        return self._replaced(error) is MISSING

    def _replaced(self, error: BaseException) -> Any:
        """Return an expired value in place of a failure, if one is recent enough."""
        self._count(False)
        content = self._take_expired() if _is_failure(error) else MISSING
        if content is not MISSING:
            _log_served(f"loading key {self.load.key!r} failed, the expired value is returned instead", error)
        return content

    def _take_expired(self) -> Any:
        """Set the expired value as the result, if it is recent enough; return its content."""
        seconds = self._options.stale_on_error
        content = MISSING if seconds is None else self._shelf.expired_content(self.load.key, seconds)
        if not self._take(MISSING, content):
            return MISSING
        self._shelf.counts.mine.stale_served += 1
        return content

    def end(self) -> None:
        """Wake the waiters of this load."""
        self._shelf.loads.end((self.load,))

    def _count(self, success: bool) -> None:
        counts = self._shelf.counts.mine
        counts.load_seconds += time.perf_counter() - self._begun
        if success:
            counts.loads += 1
        else:
            counts.load_failures += 1

    def _take(self, value: Any, content: Any, *noted: bool) -> bool:
        """Set the value of this content as the result; if the content is `MISSING`, the given value."""
        found = MISSING if content is MISSING else self._shelf.decode(self.load.key, content, *noted)
        self.value = value if found is MISSING else found
        return found is not MISSING


class Leased(Attempt):
    """An attempt that has the lease of its key, if other processes share the store."""

    def _take_lease(self) -> bool:
        """Acquire the lease of the key; return False if another process holds it."""
        leases, load = self._shelf.leases, self.load
        if leases is None:
            return True
        held = leases.take([(load.key, load.tags)])
        load.token = held.get(load.key)
        return bool(held)

    def end(self) -> None:
        try:
            end_leases(self._shelf.leases, [self.load])
        finally:
            super().end()


class LoadOutside(Leased):
    """Loads a missing key, or waits for the thread that loads it."""

    def __init__(self, shelf: Shelf, key: str, options: Options) -> None:
        super().__init__(shelf, key, options)
        self._deadline = options.deadline()

    def begin(self) -> bool:
        steps, shelf = self.steps(), self._shelf
        outcome: Outcome | None = None
        while True:
            try:
                wait = steps.send(outcome)
            except StopIteration as end:
                return bool(end.value)
            if isinstance(wait, ForLoad):
                outcome = shelf.loads.wait_if_current(*wait)
            else:
                assert shelf.leases is not None
                wait_for_process(shelf.leases, *wait)

    def steps(self) -> Steps:
        shelf, load = self._shelf, self.load
        while True:
            error = shelf.failures.kept(load.key)
            if error is None:
                before = shelf.loads.running(load.key)
                running = shelf.loads.claim(load)
                if running is load:
                    if before is not None:
                        end_leases(shelf.leases, [before])  # its loop was closed while it ran
                    break
                note_if_overtaken(shelf.leases, running)
                outcome: Outcome = yield ForLoad(running, self._deadline)
                error = outcome.error
                if self._take(MISSING, outcome.content):
                    return False
            if error is not None:
                if self._take_expired() is not MISSING:
                    return False
                raise bare_copy(error)
        while True:
            if not self._take_lease():
                yield ForProcess(load.key, self._deadline)
            content = shelf.live_content(load.key)  # another may have loaded it before the claim
            if self._take(MISSING, content, True):
                shelf.loads.finish(load, Outcome(content, None))
                return False
            if shelf.leases is None or load.token is not None:
                return super().begin()

    def _keep(self, value: Any, content: Any, options: Options | None) -> None:
        shelf, load = self._shelf, self.load
        try:
            by_others = MISSING if options is None else shelf.store(load, content, options, self._begun_at)
            is_theirs = self._take(value, by_others)
            shelf.loads.finish(load, Outcome(by_others if is_theirs else content, None))
        except Exception as error:
            self._give_up(error)
            raise

    def failed(self, error: BaseException) -> bool:
        content = self._replaced(error)
        if content is not MISSING:
            self._shelf.loads.finish(self.load, Outcome(content, None))
        self._give_up(error)
        return content is MISSING

    def _give_up(self, error: BaseException) -> None:
        """Raise the error in the waiters as well, unless it was injected into this thread only."""
        kept = kept_failure(self.load.key, error) if _is_failure(error) else None
        if kept is not None:
            if self._options.negative_ttl is not None:
                self._shelf.failures.note(self.load, kept, self._options.negative_ttl)
            self._shelf.loads.finish(self.load, Outcome(MISSING, kept))


class LoadInside(Attempt):
    """Loads a key in a transaction; never waits for other threads, which may wait for the transaction."""

    def __init__(self, shelf: Shelf, key: str, options: Options, optimistic: bool) -> None:
        super().__init__(shelf, key, options)
        self._optimistic = optimistic

    def begin(self) -> bool:
        self._shelf.loads.begin_inside((self.load,), self._optimistic)
        return super().begin()

    def _keep(self, value: Any, content: Any, options: Options | None) -> None:
        self._take(value, MISSING if options is None else self._shelf.put(self.load, content, options))

    def end(self) -> None:
        self._shelf.loads.end_inside()


class Refresh(Leased):
    """Loads a key again, unless another thread does; callers get the old value meanwhile."""

    def __init__(self, shelf: Shelf, key: str, options: Options, old: Any, may_load: bool) -> None:
        super().__init__(shelf, key, options)
        self.value = old
        self._may_load = may_load

    def begin(self) -> bool:
        shelf, load = self._shelf, self.load
        if not self._may_load or shelf.loads.claim(load) is not load or not self._take_lease():
            return False
        if shelf.is_due(load.key):
            return super().begin()
        self._take(self.value, shelf.live_content(load.key))
        return False

    def _keep(self, value: Any, content: Any, options: Options | None) -> None:
        shelf, load = self._shelf, self.load
        try:
            if options is None:
                shelf.postpone(load.key, self._options)
                is_kept = True
            else:
                is_kept = shelf.refresh(load, content, options, self._begun_at)
            self._take(value, MISSING if is_kept else shelf.live_content(load.key))
            shelf.loads.finish(load, Outcome(content, None))
        except Exception as error:
            self._keep_old(error)

    def failed(self, error: BaseException) -> bool:
        self._count(False)
        if not isinstance(error, Exception):
            return True
        self._keep_old(error)
        return False

    def _keep_old(self, error: BaseException) -> None:
        # Callers get the old value, so the failure is only logged. It is not tried again at each hit.
        self._shelf.postpone(self.load.key, self._options)
        _log_served(f"refreshing key {self.load.key!r} failed, the old value is returned instead", error)


def note_if_overtaken(leases: Leases | None, load: Load) -> None:
    """Mark another thread's load as overtaken, if another process has set or deleted the key."""
    if leases is not None and load.token is not None and not leases.is_held(load.key, load.token):
        load.kept_out = load.overtaken = True


def wait_for_process(leases: Leases, key: str, deadline: float | None) -> None:
    """Wait until no other process is loading a key, up to a time in monotonic seconds.

    Raises
    ------
    LoadTimeoutError
        If another process is still loading it then.
    RecursiveLoadError
        If that process waits for a load of this thread.
    """
    begun = clock()
    if not leases.wait(key, math.inf if deadline is None else max(0.0, deadline - begun)):
        raise load_timeout(key, clock() - begun, leases.holder(key) or "another process")


def load_timeout(key: str, waited: float, who: str) -> LoadTimeoutError:
    """Return the error of a caller that has waited for another caller's load."""
    return LoadTimeoutError(f"key {key!r} is still being loaded after {waited:.2f} s: by {who}")


def end_leases(leases: Leases | None, loads: Iterable[Load]) -> None:
    """Release the leases of loads."""
    if leases is not None:
        leases.end({load.key: load.token for load in loads if load.token is not None})


def _is_failure(error: BaseException) -> TypeGuard[Exception]:
    """Return whether an exception is a failure of the loader, not one injected into this thread."""
    return isinstance(error, Exception) and not isinstance(error, MemoryError)


def _log_served(text: str, error: BaseException) -> None:
    """Log a failure that is hidden by an old value."""
    logger.warning(text, exc_info=(type(error), error, error.__traceback__))
    # A log that stores the record must keep no transaction alive: a frame may hold an open block.
    traceback.clear_frames(error.__traceback__)
