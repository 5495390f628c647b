"""`Cache`: a bounded, expiring cache that threads share, on a store that keeps the bound in its commits.

Reading is in ``reading.py``, writing in ``writing.py``; here is what loads.

Thread safety: that of ``loading.py``. Codecs and loaders are called with no lock held, unless the caller has
opened a transaction around the call.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

from latchstore.cache.loading import Failure, KeptOutError, Load, Outcome
from latchstore.cache.memoizing import Memoized
from latchstore.cache.options import Options, checked_options, checked_seconds
from latchstore.cache.reading import MISSING
from latchstore.cache.writing import CacheWriter
from latchstore.contract.arguments import check_callable, checked_key, checked_keys, checked_timeout, describe
from latchstore.contract.codec import decoded, encoded
from latchstore.contract.errors import EntryTooLargeError

logger = logging.getLogger("latchstore")

P = ParamSpec("P")
R = TypeVar("R")

#: How many failures are remembered before those are forgotten whose time is over.
_MANY_FAILURES = 1_000

#: Seconds after which a refresh that has failed is tried again, if `refresh_after` does not say.
_TRY_AGAIN = 1.0


class Cache(CacheWriter):
    """A cache of Python objects, by string keys, that any number of threads share.

    It is a mapping: ``cache[key] = value``, ``cache.get(key)``, ``del cache[key]``. What it holds are entries
    of a store, so they can be watched, listened to, read in snapshots and changed in transactions. Without a
    bound it grows for ever.

    Parameters
    ----------
    store : AbstractStore, optional
        Where the entries are; a DictMemoryStore of its own if None. It must keep bounds in its own commits,
        as a DictMemoryStore does; others are refused. All that the store holds belongs to the cache, whoever
        writes it; of several caches on one store the narrowest bound holds.
    max_entries : int, optional
        How many entries there may be.
    max_bytes : int, optional
        How much they may weigh together: for each the length of key and data, and of the metadata's names and
        values, or the `weight` given with it. The store itself refuses an entry that weighs more alone.
    ttl : float, optional
        Seconds after which an entry expires, unless it is set with a ttl of its own; None or infinity: never.
    idle : float, optional
        Seconds without a hit after which an entry expires; for what others write, and what a transaction
        sets, from the first time on that the cache looks at it.
    policy : str or callable
        Which entry is evicted when the cache is full: ``"sieve"``, ``"s3-fifo"`` or ``"lru"``, or what makes
        an EvictionPolicy.
    codec : str or Codec
        How objects become bytes: ``"pickle"``, ``"json"``, ``"raw"`` (bytes as they are), or one's own.
    clock : callable
        Returns seconds; ``time.monotonic``, looked up at each call, if it is not given. If it tells less than
        it did when the store was saved, as after a boot, what is loaded with a time of its own is dropped.

    Attributes
    ----------
    store : AbstractStore

    Notes
    -----
    The bound holds at each commit: one that would exceed it evicts in the same commit, with a StoreEvictEvent
    that tells the cause, never a key that it writes itself if there is another one. A transaction shows what
    it evicts, and a rollback brings it back. An entry that an exclusive transaction has read or written stays
    until that ends; for an optimistic one eviction is a change like any other, so it conflicts.

    The cache never returns an expired entry, in a transaction neither. The store, its snapshots, queries and
    watches show it until it is evicted: by later commits of the cache, a few by each, or by `sweep`.

    Examples
    --------
    >>> from latchstore import Cache
    >>> cache = Cache(max_entries=1_000, ttl=60)
    >>> cache.get_or_load("answer", lambda key: 42)
    42
    >>> cache["answer"], cache.get("question", "none")
    (42, 'none')
    """

    # -- loading ----------------------------------------------------------------------------------

    def get_or_load(
        self,
        key: str,
        loader: Callable[[str], Any],
        *,
        ttl: float | None = None,
        idle: float | None = None,
        refresh_after: float | None = None,
        negative_ttl: float | None = None,
        weight: int | None = None,
        tags: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Return the value of a key; load it if it is missing, once however many threads ask for it.

        Parameters
        ----------
        key : str
        loader : callable
            Called with the key, with no lock held; returns the value. It may use the cache, but not wait for
            this key again.
        negative_ttl : float, optional
            Seconds for which a failure is raised again instead of loading again; 0 if None.
        timeout : float, optional
            Seconds to wait for another thread's load, which goes on then; as long as it takes if None.
        ttl, idle, refresh_after, weight, tags, metadata
            As for `set`.

        Returns
        -------
        value : object
            To the thread that has loaded it what the loader has returned, to the others a copy. A value that
            is too heavy for the cache is returned, and not kept. If the key was set meanwhile it is what was
            set; if it was deleted, what was loaded is not kept.

        Raises
        ------
        Exception
            Whatever the loader raises, to all who have waited for it. With an old value that is to be
            refreshed there, that is returned, and the failure logged; it is tried again after
            `refresh_after`, or a second.
        LoadTimeoutError
            If another thread's load takes longer than `timeout`.
        RecursiveLoadError
            If the loader, or one that waits for it, asks for the same key.
        """
        found = self.get(key, MISSING)
        # hot path: an entry without metadata is not refreshed.
        if found is not MISSING and not (self._entries.get(key) and self._is_due(key)):
            return found
        # Looked at only when they are needed, as most calls are hits.
        key = checked_key(key)
        check_callable(loader, "loader")
        options = checked_options(self._ttl, ttl, idle, refresh_after, weight, tags, metadata)
        negative_ttl = checked_seconds(negative_ttl, "negative_ttl")
        timeout = checked_timeout(timeout)
        if found is not MISSING:
            return self._refreshed(key, loader, options, found)
        if self._bounded.current_transaction() is not None:
            return self._load_inside(key, loader, options)
        self._index_tags(options)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._raise_failure(key)
            mine = Load(key, options.tags)
            load, value = self._loads.ending(
                [mine], self._claim_and_load, mine, loader, options, negative_ttl
            )
            if load is mine:
                return value
            outcome = self._loads.wait_if_current(load, deadline)
            if outcome.error is not None:
                raise outcome.error
            if outcome.data is not None:
                return decoded(self._codec, key, outcome.data)

    def _claim_and_load(
        self, mine: Load, loader: Callable[[str], Any], options: Options, negative_ttl: float | None
    ) -> tuple[Load, Any]:
        """Return the load of the key that runs, and what it has loaded, if it is this thread's."""
        load = self._loads.claim(mine)
        return load, self._load(mine, loader, options, negative_ttl) if load is mine else None

    def _load_inside(self, key: str, loader: Callable[[str], Any], options: Options) -> Any:
        """Load in a transaction: other threads may be waiting for that, so it waits for none."""
        load = Load(key, options.tags)
        value = self._loads.load_inside([load], self._loaded, key, loader)
        data = encoded(self._codec, key, value)
        if load.kept_out:  # the loader has set or deleted it
            set_by_loader = self._live_data(key)
            return value if set_by_loader is None else decoded(self._codec, key, set_by_loader)
        try:
            self._put(key, data, options)
        except EntryTooLargeError as error:
            logger.debug("%s: returned and not kept", error)
        return value

    def _load(
        self, load: Load, loader: Callable[[str], Any], options: Options, negative_ttl: float | None
    ) -> Any:
        """Run the load that this thread has claimed."""
        key = load.key
        try:
            data = self._live_data(key)  # another may have loaded it before the claim
            if data is not None:
                self._loads.finish(load, Outcome(data, None))
                return decoded(self._codec, key, data)
            begun_at = self._revision(key)
            value = self._loaded(key, loader)
            data = encoded(self._codec, key, value)
            set_by_others = self._store_loaded(load, data, options, begun_at)
            if set_by_others is not None:
                data, value = set_by_others, decoded(self._codec, key, set_by_others)
            self._loads.finish(load, Outcome(data, None))
            return value
        except (MemoryError, RecursionError):
            raise  # no answer to others: one of them tries. Kept, it would keep what it has broken off, too
        except Exception as error:
            if negative_ttl is not None:
                self._note_failure(load, error, negative_ttl)
            self._loads.finish(load, Outcome(None, error))
            raise

    def _loaded(self, key: str, loader: Callable[[str], Any]) -> Any:
        counts = self._counts.mine
        begun = time.perf_counter()
        try:
            value = loader(key)
        except BaseException:
            counts.load_failures += 1
            raise
        else:
            counts.loads += 1
            return value
        finally:
            counts.load_seconds += time.perf_counter() - begun

    def _revision(self, key: str) -> int:
        entry = self._bounded.entry(key)
        return 0 if entry is None else entry.revision

    def _store_loaded(self, load: Load, data: bytes, options: Options, begun_at: int) -> bytes | None:
        """Keep what was loaded, unless the key was set or deleted meanwhile; return what was set.

        1. A key that is there with another revision was set. One that is not there was deleted, unless the
           load began with none, or with one that had expired and was swept since.
        2. The commit that sets or deletes a key which is being loaded marks the load, and the commit of the
           load looks for that: of the two one comes after the other.
        """
        try:
            self._put_loaded(load, data, options, (0, begun_at))
        except KeptOutError:
            return self._live_data(load.key)
        except EntryTooLargeError as error:
            logger.debug("%s: returned and not kept", error)
        return None

    def _put_loaded(self, load: Load, data: bytes, options: Options, revisions: tuple[int, ...]) -> None:
        """Keep what was loaded if the key has one of some revisions; else raise KeptOutError."""

        def check() -> None:
            if load.kept_out or self._revision(load.key) not in revisions:
                raise KeptOutError

        if self._bounded.current_transaction() is not None:
            check()  # nobody else commits before this does, or it is in conflict
        self._put(load.key, data, options, check)

    def _refreshed(self, key: str, loader: Callable[[str], Any], options: Options, old: Any) -> Any:
        """Load a key again, if no other thread does; the old value serves meanwhile, and if that fails."""
        if self._bounded.current_transaction() is not None:
            return old
        self._index_tags(options)
        mine = Load(key, options.tags)
        return self._loads.ending([mine], self._claim_and_refresh, mine, loader, options, old)

    def _claim_and_refresh(self, mine: Load, loader: Callable[[str], Any], options: Options, old: Any) -> Any:
        key = mine.key
        if self._loads.claim(mine) is not mine:
            return old
        try:
            if not self._is_due(key):
                return old if (data := self._live_data(key)) is None else decoded(self._codec, key, data)
            begun_at = self._revision(key)
            value = self._loaded(key, loader)
            data = encoded(self._codec, key, value)
            try:
                self._put_loaded(mine, data, options, (begun_at,))
            except KeptOutError:
                value = self.get(key, value)
            self._loads.finish(mine, Outcome(data, None))
            return value
        except Exception as error:
            # Those who ask get the old value, so nobody else is told. Not tried again at each hit.
            entry = self._bounded.entry(key)
            if entry is not None:
                later = self._bounded.now() + (options.refresh_after or _TRY_AGAIN)
                self._bounded.put_off_refresh(key, entry, later)
            logger.warning("refreshing key %r failed, the old value is kept", key, exc_info=True)
            # A log that keeps the record is to keep no transaction, whose block may have been left open.
            traceback.clear_frames(error.__traceback__)
            return old

    def _is_due(self, key: str) -> bool:
        """Tell whether a key that is there is to be loaded again."""
        entry = self._bounded.entry(key)
        time = None if entry is None else self._bounded.refresh_at(key, entry)
        return time is not None and time <= self._bounded.now()

    def _note_failure(self, load: Load, error: Exception, seconds: float) -> None:
        now = self._bounded.now()
        if len(self._failures) >= _MANY_FAILURES:
            failures = list(self._failures.items())
            over = [other for other, failure in failures if failure.until <= now]
            for other in over or [other for other, _ in failures[: len(failures) - _MANY_FAILURES + 1]]:
                self._failures.pop(other, None)
        self._failures[load.key] = Failure(error, now + seconds, error.__traceback__, load.tags)
        if load.kept_out:
            # Looked at after it is noted, as who deletes a key first marks its load: one of the two sees it.
            self._failures.pop(load.key, None)

    def _raise_failure(self, key: str) -> None:
        failure = self._failures.get(key)
        if failure is not None:
            if self._bounded.now() < failure.until:
                raise failure.error.with_traceback(failure.traceback)  # or it would grow each time
            self._failures.pop(key, None)

    def get_many_or_load(
        self,
        keys: Iterable[str],
        loader: Callable[[list[str]], Mapping[str, Any]],
        *,
        timeout: float | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Return the values of many keys; load those that are missing in one call.

        Parameters
        ----------
        keys : iterable of str
        loader : callable
            Called with the list of keys that are missing and that no other thread is loading; returns a
            mapping of those that there are.
        timeout : float, optional
            Seconds to wait for the loads of other threads, together.
        **options
            As for `set`.

        Returns
        -------
        values : dict
            Without the keys that the loader did not have.
        """
        wanted = list(dict.fromkeys(checked_keys(keys)))
        check_callable(loader, "loader")
        timeout = checked_timeout(timeout)
        checked = checked_options(self._ttl, **options)
        found = self.get_many(wanted)
        deadline = None if timeout is None else time.monotonic() + timeout
        missing = [key for key in wanted if key not in found]
        inside = self._bounded.current_transaction() is not None
        self._index_tags(checked)
        while missing:
            loads = [Load(key, checked.tags) for key in missing]
            # All of ours are loaded before any other is waited for: so no circle can close here.
            done = self._loads.ending(loads, self._claim_and_load_many, loads, loader, checked, inside, found)
            others = [key for key in missing if key not in done]
            missing = [key for key in others if not self._wait_for_other(key, found, deadline)]
        return {key: found[key] for key in wanted if key in found}

    def _claim_and_load_many(
        self,
        loads: list[Load],
        loader: Callable[[list[str]], Mapping[str, Any]],
        options: Options,
        inside: bool,
        found: dict[str, Any],
    ) -> list[str]:
        """Load those keys that no other thread is loading; return which they were."""
        if inside:
            mine = loads
            values = self._loads.load_inside(mine, self._load_many, mine, loader, options, inside)
        else:
            mine = [load for load in loads if self._loads.claim(load) is load]
            values = self._load_many(mine, loader, options, inside)
        found.update(values)
        return [load.key for load in mine]

    def _wait_for_other(self, key: str, found: dict[str, Any], deadline: float | None) -> bool:
        """Wait for another thread's load of a key; return whether that has settled it."""
        load = self._loads.running(key)
        if load is None:
            value = self.get(key, MISSING)
        else:
            outcome = self._loads.wait_if_current(load, deadline)
            if outcome.error is not None:
                raise outcome.error
            if outcome.absent:
                return True
            value = MISSING if outcome.data is None else decoded(self._codec, key, outcome.data)
        if value is MISSING:
            return False
        found[key] = value
        return True

    def _load_many(
        self,
        loads: list[Load],
        loader: Callable[[list[str]], Mapping[str, Any]],
        options: Options,
        inside: bool,
    ) -> dict[str, Any]:
        """Run the loads that this thread has claimed."""
        values: dict[str, Any] = {}
        data: dict[str, bytes] = {}
        try:
            missing = loads if inside else self._still_missing(loads, values, data)
            if missing:
                self._load_missing(missing, loader, options, values, data)
        except (MemoryError, RecursionError):
            raise  # as in `_load`
        except Exception as error:
            for load in loads:
                self._loads.finish(load, _outcome_of_many(data.get(load.key), error))
            raise
        for load in loads:
            self._loads.finish(load, _outcome_of_many(data.get(load.key), None))
        return values

    def _still_missing(self, loads: list[Load], values: dict[str, Any], data: dict[str, bytes]) -> list[Load]:
        """Note what is there by now, and return the other loads."""
        for load in loads:
            already = self._live_data(load.key)
            if already is not None:
                data[load.key] = already
                values[load.key] = decoded(self._codec, load.key, already)
        return [load for load in loads if load.key not in data]

    def _load_missing(
        self,
        loads: list[Load],
        loader: Callable[[list[str]], Mapping[str, Any]],
        options: Options,
        values: dict[str, Any],
        data: dict[str, bytes],
    ) -> None:
        begun_at = {load.key: self._revision(load.key) for load in loads}
        loaded: Any = self._loaded([load.key for load in loads], loader)  # type: ignore[arg-type]
        if not isinstance(loaded, Mapping):
            raise TypeError(f"loader must return a mapping of keys to values, got {describe(loaded)}")
        fresh = {
            load.key: encoded(self._codec, load.key, loaded[load.key]) for load in loads if load.key in loaded
        }
        given = [load for load in loads if load.key in fresh]
        with self.store.transaction("load many"):
            kept = {
                load.key: self._store_loaded(load, fresh[load.key], options, begun_at[load.key])
                for load in given
            }
        for key, by_others in kept.items():
            values[key] = loaded[key] if by_others is None else decoded(self._codec, key, by_others)
            data[key] = fresh[key] if by_others is None else by_others

    def memoize(
        self,
        *,
        ttl: float | None = None,
        key: Callable[..., object] | None = None,
        tags: Iterable[str] | Callable[..., Iterable[str]] = (),
        **options: Any,
    ) -> Callable[[Callable[P, R]], Memoized[P, R]]:
        """Return a decorator that keeps what a function or method returns, by its arguments.

        The function gets ``invalidate(*args)``, which forgets the result of that call, and
        ``cache_key(*args)``.

        Parameters
        ----------
        ttl : float, optional
            Seconds for which a result is kept; the cache's own if None.
        key : callable, optional
            Called with the arguments, returns a plain value that tells one call from another. Without it
            all arguments must be plain values.
        tags : iterable of str, or callable
            What results can be invalidated by; a callable gets the arguments.
        **options
            As for `get_or_load`.
        """
        if key is not None and not callable(key):
            raise TypeError(f"key must be callable or None, got {describe(key)}")
        if not callable(tags):
            tags = checked_keys(tags, "tags")
        checked = {"ttl": checked_seconds(ttl, "ttl"), **options}

        def decorate(function: Callable[P, R]) -> Memoized[P, R]:
            return Memoized(self, function, key, tags, checked)

        return decorate


def _outcome_of_many(data: bytes | None, error: Exception | None) -> Outcome:
    """Return how the load of one of many keys has ended."""
    return Outcome(data, None if data is not None else error, data is None and error is None)
