"""The loading part of a cache.

Thread safety: that of ``loading.py``. Codecs and loaders are called with no lock held, unless the caller has
opened a transaction around the call.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, Unpack

from latchstore.cache.attempts import (
    Attempt,
    LoadInside,
    LoadOutside,
    Refresh,
    Shelf,
    Stale,
    end_leases,
    note_if_overtaken,
    wait_for_process,
)
from latchstore.cache.failures import bare_copy, kept_failure
from latchstore.cache.load import MISSING, Load, Outcome, Run
from latchstore.cache.near import Copy
from latchstore.cache.options import LoadManyOptions, LoadOptions, Options, checked_options
from latchstore.cache.writing import CacheWriter
from latchstore.contract.arguments import (
    check_function,
    checked_key,
    checked_keys,
    describe,
)
from latchstore.contract.codec import V
from latchstore.contract.errors import CodecError, EntryTooLargeError
from latchstore.contract.values import Entry
from latchstore.engine.bounded import Fenced, OpenTransaction

#: The result type of a loader. The caller gets ``V | R``, like ``dict.get`` with a default: the type is kept
#: where V is Any, and is V if the loader returns V.
R = TypeVar("R")

logger: logging.Logger = logging.getLogger("latchstore")

#: Seconds after which a failed refresh is tried again, unless `refresh_after` is given.
_TRY_AGAIN = 1.0


class _KeptOutError(Exception):
    """Ends the commit of a load whose result must not be stored."""


class CacheLoader(CacheWriter[V]):
    """The part of a `Cache` that loads."""

    def get_or_load(self, key: str, loader: Callable[[str], R], **options: Unpack[LoadOptions]) -> V | R:
        """Return the value of a key; load it once if it is missing, for all threads that request it.

        Parameters
        ----------
        key : str
        loader : callable
            Called with the key, with no lock held; returns the value. It may use the cache, but must not wait
            for the same key.
        ttl, idle, refresh_after, weight, tags, metadata
            As for `set`; a loaded value whose ttl, returned by a callable, has expired already is not stored.
        keep : callable, optional
            Called with the loaded value, with no lock held. Unless it returns true, the value is returned to
            the caller and the waiters but not stored; an old value being refreshed stays.
        negative_ttl : Seconds, optional
            How long a copy of a failure is raised instead of loading again; None: load at each call.
        stale_on_error : Seconds, optional
            If a load fails, return a value that expired at most this long ago; the failure is logged and
            counted, not raised. Loaded entries are kept for that much longer, visible to nothing else;
            deleted or evicted ones are not. The next call loads again, with a `negative_ttl` the first call
            after that.
        timeout : Seconds, optional
            How long to wait for another thread's load, which then continues; None: without limit.

        Returns
        -------
        value : object
            The thread that loads gets the loader's result; the others get the same object, or a copy if the
            cache has a codec. A value too heavy for the cache is returned but not stored. If the key was set
            meanwhile, the set value is returned; if it was deleted, the loaded value is not stored.

        Raises
        ------
        Exception
            Whatever the loader, `keep` or `ttl` raises; waiters get a copy without its frames. If an old
            value is being refreshed, it is returned and the failure logged; the refresh is tried again after
            `refresh_after`, or one second.
        LoadTimeoutError
            If another thread's load takes longer than `timeout`.
        RecursiveLoadError
            If the loader requests the same key, directly, through another load, or through a future or thread
            that it waits for (the latter two are detected only with the GIL). Any other wait of more than
            five seconds logs a warning.
        """
        found = self._find(key)
        if found is not MISSING and type(found) is not Stale:
            return found  # type: ignore[no-any-return]
        # hot path: most calls are hits, so options are checked only here.
        key = checked_key(key)
        check_loader(loader)
        attempt = self._attempt(key, found, checked_options(LoadOptions, options, self._defaults))
        try:
            if attempt.begin():
                try:
                    value = loader(key)
                except BaseException as error:
                    if attempt.failed(error):
                        raise
                else:
                    attempt.loaded(value)
            return attempt.value  # type: ignore[no-any-return]
        finally:
            attempt.run.over = True
            attempt.end()

    def _find(self, key: str) -> Any:
        """Return the value of a key, `MISSING` if none can be decoded, a `Stale` if it needs a refresh."""
        try:
            found = self.get(key, MISSING)
        except CodecError as error:
            return self._missed(error)
        # hot path: an entry without metadata is never refreshed.
        if found is not MISSING and self._entries.get(key, True) and self._seems_due(key):
            return Stale(found)
        return found

    def _missed(self, error: CodecError) -> Any:
        """Count a miss instead of the hit that `get` counted before decoding failed."""
        self._note_undecodable(error)
        counts = self._counts.mine
        counts.hits -= 1
        counts.misses += 1
        return MISSING

    def _seems_due(self, key: str) -> bool:
        """Return whether a found key needs a refresh, as `_is_due`; a near copy may not show it."""
        copy = self._entries.get(key)
        return not (type(copy) is Copy and not self._refreshes(key, copy.entry)) and self._is_due(key)

    def _is_due(self, key: str) -> bool:
        """Return whether a key that exists needs a refresh."""
        entry = self._entry(key)
        return entry is not None and self._refreshes(key, entry)

    def _refreshes(self, key: str, entry: Entry) -> bool:
        """Return whether an entry's refresh time has come."""
        time = self._bounded.refresh_at(key, entry)
        return time is not None and time <= self._bounded.now()

    def _decode(self, key: str, content: Any, noted: bool = False) -> Any:
        """Return a value; `MISSING` if decoding fails, so that the key is loaded again.

        The failure is logged, unless the first lookup of the key has logged it.
        """
        try:
            return self._decoded(key, content)
        except CodecError as error:
            if not noted:
                self._note_undecodable(error)
            return MISSING

    def _note_undecodable(self, error: CodecError) -> None:
        self._counts.mine.undecodable += 1
        # Not the error's own text, which shows the data, and no exception, which would keep frames.
        logger.warning("key %r cannot be decoded and is loaded again: %s", error.key, _reason_of(error))

    def _attempt(self, key: str, found: Any, options: Options) -> Attempt:
        """Return an attempt to load a key; `found` is the result of `_find`."""
        shelf = Shelf(
            self._live_content,
            self._expired_content,
            self._revision,
            self._decode,
            self._encoded,
            self._store_loaded,
            self._store_refreshed,
            self._put_inside,
            self._is_due,
            self._postpone,
            self._bounded.leases,
            self._loads,
            self._failures,
            self._counts,
        )
        transaction = self._bounded.current_transaction()
        self._index_tags(options)
        if type(found) is Stale:
            return Refresh(shelf, key, options, found.value, transaction is None)
        if transaction is not None:
            return LoadInside(shelf, key, options, transaction.optimistic)
        return LoadOutside(shelf, key, options)

    def _live_content(self, key: str) -> Any:
        """Return the content of a key, `MISSING` if it is missing or expired; this counts as a use."""
        entry = self._live_entry(key)
        return MISSING if entry is None else entry.content

    def _expired_content(self, key: str, seconds: float) -> Any:
        """Return content that is live or expired at most that long ago; else `MISSING`."""
        entry = self._entry(key)
        if entry is None or self._bounded.is_expired(key, entry, self._bounded.now() - seconds):
            return MISSING
        return entry.content

    def _put_inside(self, load: Load, content: Any, options: Options) -> Any:
        """Set the loaded value in a transaction; return content that the loader has set, or `MISSING`."""
        if load.kept_out:
            return self._live_content(load.key)
        self._put_if_it_fits(load.key, content, options, load=load)
        return MISSING

    def _put_if_it_fits(
        self,
        key: str,
        content: Any,
        options: Options,
        check: Callable[[], None] | None = None,
        load: Load | None = None,
    ) -> None:
        try:
            self._put(key, content, options, check, load=load)
        except EntryTooLargeError as error:
            logger.debug("%s: the value is returned but not stored", str(error))

    def _revision(self, key: str) -> int:
        entry = self._entry(key)
        return 0 if entry is None else entry.revision

    def _store_loaded(self, load: Load, content: Any, options: Options, begun_at: int) -> Any:
        """Store the loaded value, unless the key was set or deleted meanwhile; return the set content.

        1. A key with another revision was set. A missing key was deleted, unless the load began without an
           entry, or with an expired one that was swept since.
        2. The commit that sets or deletes a key being loaded marks the load, and the commit of the load
           checks the mark: one of the two comes after the other.
        """
        try:
            self._put_loaded(load, content, options, (0, begun_at))
        except _KeptOutError:
            return self._live_content(load.key)
        return MISSING

    def _store_refreshed(self, load: Load, content: Any, options: Options, begun_at: int) -> bool:
        """Replace the old value by the loaded one; return whether the old value was still there."""
        try:
            self._put_loaded(load, content, options, (begun_at,))
        except _KeptOutError:
            return False
        return True

    def _put_loaded(self, load: Load, content: Any, options: Options, revisions: tuple[int, ...]) -> None:
        """Store the loaded value if the key has one of these revisions; else raise _KeptOutError."""

        def check_before() -> None:
            if load.kept_out:
                raise _KeptOutError

        def check_there() -> None:
            if self._revision(load.key) not in revisions:
                raise _KeptOutError
            if load.token is not None and not self._has_lease(load.key, load.token):
                raise _KeptOutError

        fence = None if load.token is None else (load.key, load.token)
        check = Fenced(check_before, check_there, fence, _KeptOutError())
        inside = self._bounded.current_transaction() is not None
        if inside:
            check()  # no other commit comes before this one, or this one conflicts
        self._put_if_it_fits(load.key, content, options, check, load if inside else None)

    def _has_lease(self, key: str, token: int) -> bool:
        leases = self._bounded.leases
        return leases is None or leases.is_held(key, token)

    def _postpone(self, key: str, options: Options) -> None:
        """Delay the retry of a failed refresh, so that it does not run at each hit."""
        entry = self._entry(key)
        if entry is not None:
            later = self._bounded.now() + (options.refresh_after or _TRY_AGAIN)
            self._bounded.put_off_refresh(key, entry, later)

    def get_many_or_load(
        self,
        keys: Iterable[str],
        loader: Callable[[list[str]], Mapping[str, R]],
        **options: Unpack[LoadManyOptions],
    ) -> dict[str, V | R]:
        """Return the values of many keys; load the missing ones in one call.

        Parameters
        ----------
        keys : iterable of str
        loader : callable
            Called with the list of keys that are missing and not being loaded by another thread; returns a
            mapping that has the keys it found.
        timeout : Seconds, optional
            How long to wait for the loads of other threads, in total.
        ttl, idle, refresh_after, weight, tags, metadata, keep
            As for `get_or_load`.

        Returns
        -------
        values : dict
            Lacks the keys for which the loader returned nothing.
        """
        wanted = list(dict.fromkeys([self._naming.stored(key) for key in checked_keys(keys)]))
        check_loader(loader)
        checked = checked_options(LoadManyOptions, options, self._defaults)
        found = {key: value for key in wanted if (value := self._present(key)) is not MISSING}
        deadline = checked.deadline()
        missing = [key for key in wanted if key not in found]
        transaction = self._bounded.current_transaction()
        self._index_tags(checked)
        while missing:
            run = Run()
            loads = [Load(key, run, checked.tags) for key in missing]
            try:
                # This call's loads end before it waits for others, so it cannot close a circle of waits.
                done = self._claim_and_load_many(loads, loader, checked, transaction, found)
            finally:
                run.over = True
                self._loads.end(loads)
                self._loads.end_inside()
                end_leases(self._bounded.leases, loads)
            others = [key for key in missing if key not in done]
            missing = [key for key in others if not self._wait_for_other(key, found, deadline)]
        return {self._naming.shown(key): found[key] for key in wanted if key in found}

    def _present(self, key: str) -> Any:
        """Return the value of a key, even if it needs a refresh; `MISSING` if there is none."""
        found = self._find(self._naming.shown(key))
        return found.value if type(found) is Stale else found

    def _claim_and_load_many(
        self,
        loads: list[Load],
        loader: Callable[[list[str]], Mapping[str, Any]],
        options: Options,
        transaction: OpenTransaction | None,
        found: dict[str, Any],
    ) -> list[str]:
        """Load the keys that no other thread is loading; return them."""
        if transaction is not None:
            mine = loads
            self._loads.begin_inside(mine, transaction.optimistic)
        else:
            mine = self._leased([load for load in loads if self._loads.claim(load) is load])
        found.update(self._load_many(mine, loader, options, transaction is not None))
        return [load.key for load in mine]

    def _leased(self, loads: list[Load]) -> list[Load]:
        """Return the loads whose lease no other process holds."""
        leases = self._bounded.leases
        if leases is None:
            return loads
        held = leases.take([(load.key, load.tags) for load in loads])
        for load in loads:
            load.token = held.get(load.key)
        return [load for load in loads if load.token is not None]

    def _wait_for_other(self, key: str, found: dict[str, Any], deadline: float | None) -> bool:
        """Wait for another thread's load of a key; return whether the key is settled."""
        load, leases = self._loads.running(key), self._bounded.leases
        if load is None:
            value = self._present(key)
            if value is MISSING and leases is not None:
                wait_for_process(leases, key, deadline)
                value = self._present(key)
        else:
            note_if_overtaken(leases, load)
            outcome = self._loads.wait_if_current(load, deadline)
            if outcome.error is not None:
                raise bare_copy(outcome.error)
            if outcome.absent:
                return True
            content = outcome.content
            value = MISSING if content is MISSING else self._decode(key, content)
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
        contents: dict[str, Any] = {}
        try:
            missing = loads if inside else self._still_missing(loads, values, contents)
            if missing:
                self._load_missing(missing, loader, options, values, contents)
        except MemoryError:
            raise  # not a failure of the loader: the waiters try themselves
        except Exception as error:
            kept = kept_failure(loads[0].key, error) if loads else None
            for load in loads:
                if kept is not None or load.key in contents:
                    self._loads.finish(load, _outcome_of_many(contents.get(load.key, MISSING), kept))
            raise
        for load in loads:
            self._loads.finish(load, _outcome_of_many(contents.get(load.key, MISSING), None))
        return values

    def _still_missing(
        self, loads: list[Load], values: dict[str, Any], contents: dict[str, Any]
    ) -> list[Load]:
        """Add the keys that were set meanwhile to the result, and return the other loads."""
        for load in loads:
            already = self._live_content(load.key)
            value = MISSING if already is MISSING else self._decode(load.key, already, noted=True)
            if value is not MISSING:
                contents[load.key] = already
                values[load.key] = value
        return [load for load in loads if load.key not in contents]

    def _load_missing(
        self,
        loads: list[Load],
        loader: Callable[[list[str]], Mapping[str, Any]],
        options: Options,
        values: dict[str, Any],
        contents: dict[str, Any],
    ) -> None:
        begun_at = {load.key: self._revision(load.key) for load in loads}
        loaded, kept = self._loaded_many([self._naming.shown(load.key) for load in loads], loader, options)
        stored = {key: self._naming.stored(key) for key in kept}
        fresh = {stored[key]: self._encoded(stored[key], loaded[key]) for key in kept}
        keeping = {stored[key]: kept_as for key, kept_as in kept.items() if kept_as is not None}
        storing = [load for load in loads if load.key in keeping]
        with self.store.transaction("load many"):
            by_others = {
                load.key: self._store_loaded(load, fresh[load.key], keeping[load.key], begun_at[load.key])
                for load in storing
            }
        for key, content in fresh.items():
            theirs = by_others.get(key, MISSING)
            value = MISSING if theirs is MISSING else self._decode(key, theirs)
            values[key] = loaded[self._naming.shown(key)] if value is MISSING else value
            contents[key] = content if value is MISSING else theirs

    def _loaded_many(
        self, keys: list[str], loader: Callable[[list[str]], Mapping[str, Any]], options: Options
    ) -> tuple[Mapping[str, Any], dict[str, Options | None]]:
        """Return the loader's result, and the options of each key to be stored."""
        counts = self._counts.mine
        begun = time.perf_counter()
        try:
            loaded = loader(keys)
            if not isinstance(loaded, Mapping):
                raise TypeError(f"loader must return a mapping of keys to values, got {describe(loaded)}")
            kept = _kept_as(options, keys, loaded)
        except BaseException:
            counts.load_failures += 1
            raise
        else:
            counts.loads += 1
            return loaded, kept
        finally:
            counts.load_seconds += time.perf_counter() - begun


def check_loader(loader: object) -> None:
    """Raise TypeError if a loader is not callable, or is a coroutine function."""
    check_function(loader, "loader", "await latchstore.aio.AsyncCache(cache).get_or_load(key, loader)")


def _kept_as(options: Options, keys: list[str], loaded: Mapping[str, Any]) -> dict[str, Options | None]:
    """Return the options of each loaded value; None for a value that is not stored."""
    return {key: options.of(loaded[key]) for key in keys if key in loaded}


def _outcome_of_many(content: Any, error: BaseException | None) -> Outcome:
    """Return the outcome for one of many keys."""
    if content is not MISSING:
        return Outcome(content, None)
    return Outcome(MISSING, error, absent=error is None)


def _reason_of(error: CodecError) -> str:
    """Return why decoding failed, without the data that the error's text has."""
    cause = error.__cause__
    return "another cache keeps an object there by reference" if cause is None else describe(cause)
