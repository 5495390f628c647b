"""Attempts to give a caller the value of a key, by loading it or by waiting for another thread's load.

The caller runs the loader itself, so that few frames are between a memoized function and the function::

    attempt = ...
    try:
        if attempt.begin():
            try:
                value = loader(key)
            except BaseException as error:
                if attempt.failed(error):
                    raise
            else:
                attempt.loaded(value)
        return attempt.value
    finally:
        attempt.run.over = True  # first, and one assignment: rule 3 of loading.py
        attempt.end()

Thread safety: an attempt is used by one thread. What threads share are the loads, the failures and the
entries, which it reaches by its `Shelf`.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from latchstore.cache.counting import ThreadCounts
from latchstore.cache.failures import Failures, bare_copy, kept_failure
from latchstore.cache.loading import Load, LoadTable, Outcome, Run
from latchstore.cache.options import Options

logger = logging.getLogger("latchstore")

#: What stands for no value.
MISSING: Any = object()


class Stale:
    """A value that is to be loaded again while others get it."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class Shelf(NamedTuple):
    """What attempts use of a cache.

    Attributes
    ----------
    live_data : callable
        Returns the data of a key; None if it is missing or expired.
    decode : callable
        Called with key and data, and True if it was tried before; returns the value, `MISSING` if it cannot
        be decoded.
    encode : callable
        Called with key and value; returns the data, or raises CodecError.
    revision : callable
        Returns the revision of a key; 0 if it is missing.
    store : callable
        Called with load, data, options and the revision at which the load began: stores what was loaded,
        unless the key was set or deleted since. Returns the data that somebody else has set, or None.
    refresh : callable
        Called likewise: stores it in place of the entry of that revision; returns whether it is stored.
    put : callable
        Called with load, data and options: stores what was loaded in a transaction.
    is_due : callable
        Tells whether the value of a key is to be loaded again.
    postpone : callable
        Called with key and options: the next try is not made at once.
    loads, failures, counts
    """

    live_data: Callable[[str], bytes | None]
    decode: Callable[..., Any]
    encode: Callable[[str, Any], bytes]
    revision: Callable[[str], int]
    store: Callable[[Load, bytes, Options, int], bytes | None]
    refresh: Callable[[Load, bytes, Options, int], bool]
    put: Callable[[Load, bytes, Options], bytes | None]
    is_due: Callable[[str], bool]
    postpone: Callable[[str, Options], None]
    loads: LoadTable
    failures: Failures
    counts: ThreadCounts


class AttemptLike(Protocol):
    """What all attempts have.

    Attributes
    ----------
    run : Run
        The caller sets ``run.over`` when the attempt is over.
    value : object
        What the caller is to return.
    """

    run: Run
    value: Any

    def begin(self) -> bool:
        """Return whether the caller is to load the value; else it is there, or this raises why it is not."""

    def loaded(self, value: Any) -> None:
        """Take what the loader has returned."""

    def failed(self, error: BaseException) -> bool:
        """Take what the loader has raised; return whether the caller is to raise it."""

    def end(self) -> None:
        """Wake those who wait for this load."""


class _Timed:
    """Counts the load, and what it takes."""

    def __init__(self, shelf: Shelf, key: str, options: Options) -> None:
        self.run = Run()
        self.value: Any = MISSING
        self._shelf = shelf
        self._options = options
        self._load = Load(key, self.run, options.tags)
        self._begun = 0.0

    def _begin_counting(self) -> bool:
        self._begun = time.perf_counter()
        return True

    def _count(self, success: bool) -> None:
        counts = self._shelf.counts.mine
        counts.load_seconds += time.perf_counter() - self._begun
        if success:
            counts.loads += 1
        else:
            counts.load_failures += 1


class Attempt(_Timed):
    """Loads a key that is missing, or waits for the thread that does.

    Parameters
    ----------
    shelf : Shelf
    key : str
    options : Options
    negative_ttl : float or None
        Seconds for which a failure is kept.
    deadline : float or None
        Until when to wait, in monotonic seconds.
    """

    def __init__(
        self, shelf: Shelf, key: str, options: Options, negative_ttl: float | None, deadline: float | None
    ) -> None:
        super().__init__(shelf, key, options)
        self._negative_ttl = negative_ttl
        self._deadline = deadline
        self._begun_at = 0

    def begin(self) -> bool:
        shelf, load = self._shelf, self._load
        while True:
            shelf.failures.raise_kept(load.key)
            running = shelf.loads.claim(load)
            if running is load:
                return self._begin_load()
            outcome = shelf.loads.wait_if_current(running, self._deadline)
            if outcome.error is not None:
                raise bare_copy(outcome.error)
            if outcome.data is not None:
                self.value = shelf.decode(load.key, outcome.data)
                if self.value is not MISSING:
                    return False

    def _begin_load(self) -> bool:
        shelf, load = self._shelf, self._load
        data = shelf.live_data(load.key)  # another may have loaded it before the claim
        if data is not None:
            self.value = shelf.decode(load.key, data, True)
            if self.value is not MISSING:
                shelf.loads.finish(load, Outcome(data, None))
                return False
        self._begun_at = shelf.revision(load.key)
        return self._begin_counting()

    def loaded(self, value: Any) -> None:
        self._count(True)
        shelf, load = self._shelf, self._load
        try:
            data = shelf.encode(load.key, value)
            by_others = shelf.store(load, data, self._options, self._begun_at)
            self.value = value
            if by_others is not None:
                theirs = shelf.decode(load.key, by_others)
                if theirs is not MISSING:
                    data, self.value = by_others, theirs
            shelf.loads.finish(load, Outcome(data, None))
        except Exception as error:
            self._give_up(error)
            raise

    def failed(self, error: BaseException) -> bool:
        self._count(False)
        self._give_up(error)
        return True

    def _give_up(self, error: BaseException) -> None:
        """Have the waiters raise the error as well, unless it has struck this thread only."""
        if not isinstance(error, Exception) or isinstance(error, MemoryError):
            return
        kept = kept_failure(self._load.key, error)
        if kept is not None:
            if self._negative_ttl is not None:
                self._shelf.failures.note(self._load, kept, self._negative_ttl)
            self._shelf.loads.finish(self._load, Outcome(None, kept))

    def end(self) -> None:
        self._shelf.loads.end((self._load,))


class AttemptInside(_Timed):
    """Loads a key in a transaction: other threads may be waiting for that, so it waits for none."""

    def begin(self) -> bool:
        self._shelf.loads.begin_inside((self._load,))
        return self._begin_counting()

    def loaded(self, value: Any) -> None:
        self._count(True)
        shelf, load = self._shelf, self._load
        data = shelf.encode(load.key, value)
        by_loader = shelf.put(load, data, self._options)
        theirs = MISSING if by_loader is None else shelf.decode(load.key, by_loader)
        self.value = value if theirs is MISSING else theirs

    def failed(self, error: BaseException) -> bool:
        self._count(False)
        return True

    def end(self) -> None:
        self._shelf.loads.end_inside()


class Refresh(_Timed):
    """Loads a key again, if no other thread does; the old value serves meanwhile, and if that fails."""

    def __init__(self, shelf: Shelf, key: str, options: Options, old: Any, may_load: bool) -> None:
        super().__init__(shelf, key, options)
        self.value = old
        self._may_load = may_load
        self._begun_at = 0

    def begin(self) -> bool:
        shelf, load = self._shelf, self._load
        if not self._may_load or shelf.loads.claim(load) is not load:
            return False
        if not shelf.is_due(load.key):
            data = shelf.live_data(load.key)
            newer = MISSING if data is None else shelf.decode(load.key, data)
            self.value = self.value if newer is MISSING else newer
            return False
        self._begun_at = shelf.revision(load.key)
        return self._begin_counting()

    def loaded(self, value: Any) -> None:
        self._count(True)
        shelf, load = self._shelf, self._load
        try:
            data = shelf.encode(load.key, value)
            if shelf.refresh(load, data, self._options, self._begun_at):
                self.value = value
            else:
                by_others = shelf.live_data(load.key)
                theirs = MISSING if by_others is None else shelf.decode(load.key, by_others)
                self.value = value if theirs is MISSING else theirs
            shelf.loads.finish(load, Outcome(data, None))
        except Exception as error:
            self._keep_old(error)

    def failed(self, error: BaseException) -> bool:
        self._count(False)
        if not isinstance(error, Exception):
            return True
        self._keep_old(error)
        return False

    def _keep_old(self, error: Exception) -> None:
        # Those who ask get the old value, so nobody else is told. Not tried again at each hit.
        self._shelf.postpone(self._load.key, self._options)
        logger.warning(
            "refreshing key %r failed, the old value is kept",
            self._load.key,
            exc_info=(type(error), error, error.__traceback__),
        )
        # A log that keeps the record is to keep no transaction, whose block may have been left open.
        traceback.clear_frames(error.__traceback__)

    def end(self) -> None:
        self._shelf.loads.end((self._load,))
