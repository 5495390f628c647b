"""`Cache`: a bounded, expiring cache that threads share, on top of any store.

Thread safety: that of ``keeper.py`` and ``loading.py``. Codecs and loaders are called with no lock held,
unless the caller has opened a transaction around the call. The clock is called in transactions of the cache's
own, too, so other writers wait for it; under no latch.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, overload

from latchstore.cache.attempts import MISSING, Attempt, LoadInside, LoadOutside, Refresh, Shelf, Stale
from latchstore.cache.counting import CountRegister, ThreadCounts
from latchstore.cache.failures import Failures, bare_copy, kept_failure
from latchstore.cache.keeper import Keeper
from latchstore.cache.loading import Load, LoadTable, Outcome, Removal, Run
from latchstore.cache.memoizing import Memoized, Results
from latchstore.cache.options import (
    EXPIRES,
    TAGS,
    WEIGHT,
    Options,
    checked_clock,
    checked_options,
    checked_seconds,
)
from latchstore.cache.policies import EvictionPolicy
from latchstore.contract.arguments import (
    check_callable,
    checked_count,
    checked_key,
    checked_keys,
    checked_timeout,
    describe,
)
from latchstore.contract.codec import Codec, RawCodec, decoded, encoded
from latchstore.contract.contains import Contains
from latchstore.contract.errors import CodecError, EntryTooLargeError
from latchstore.contract.glob_pattern import matching_keys
from latchstore.contract.mapping import StoreMapping
from latchstore.contract.store import AbstractStore
from latchstore.delivery.event_manager import EventManager
from latchstore.engine.memory import DictMemoryStore

logger = logging.getLogger("latchstore")

P = ParamSpec("P")
R = TypeVar("R")

#: Seconds after which a refresh that has failed is tried again, if `refresh_after` does not say.
_TRY_AGAIN = 1.0


class Cache(StoreMapping):
    """A cache of Python objects, by string keys, that any number of threads share.

    It is a mapping: ``cache[key] = value``, ``cache.get(key)``, ``del cache[key]``. What it holds are entries
    of a store, so they can be watched, listened to, read in snapshots and changed in transactions; evicting
    and expiring are commits like any other, with a StoreEvictEvent that says the cause.

    Parameters
    ----------
    store : AbstractStore, optional
        Where the entries are; a DictMemoryStore of its own if None. Of a store that others write to, too, the
        cache hears by events, and takes what they write into its bound.
    max_entries : int, optional
        How many entries there may be.
    max_bytes : int, optional
        How much they may weigh together: for each the length of key and data, and of the metadata's names and
        values, or the `weight` given with it.
    ttl : float, optional
        Seconds after which an entry expires, unless it is set with a ttl of its own; None or infinity: never.
    idle : float, optional
        Seconds without a hit after which an entry goes.
    policy : str or callable
        What goes when there is no room: ``"sieve"``, ``"s3-fifo"`` or ``"lru"``, or what makes an
        EvictionPolicy.
    codec : str or Codec
        How objects become bytes: ``"pickle"``, ``"json"``, ``"raw"`` (bytes as they are), or an object with
        ``encode`` and ``decode``.
    clock : callable
        Returns seconds. With ``time.time`` what is saved with the store can expire when it is loaded again.

    Attributes
    ----------
    store : AbstractStore

    Notes
    -----
    With an exclusive transaction open, an entry that it has read or written is evicted by nobody else before
    it ends; for an optimistic one eviction is a change like any other, so it conflicts, and ``attempts``
    tries again. Inside a transaction the cache shows what the transaction sees, and what it evicts to make
    room goes with the commit, or comes back with the rollback. Expired entries are not returned inside it,
    either.

    A cache on a store of its own does not hear of what is written to that store directly: it learns of it
    when the key is read. Give it the store to have it listen.

    Examples
    --------
    >>> from latchstore import Cache
    >>> cache = Cache(max_entries=1_000, ttl=60)
    >>> cache.get_or_load("answer", lambda key: 42)
    42
    >>> cache["answer"], cache.get("question", "none")
    (42, 'none')
    """

    def __init__(
        self,
        store: AbstractStore | None = None,
        *,
        max_entries: int | None = None,
        max_bytes: int | None = None,
        ttl: float | None = None,
        idle: float | None = None,
        policy: str | Callable[[], EvictionPolicy] = "sieve",
        codec: str | Codec = "pickle",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if store is not None and not isinstance(store, AbstractStore):
            raise TypeError(f"store must be an AbstractStore or None, got {describe(store)}")
        self._max_entries = None if max_entries is None else checked_count(max_entries, "max_entries", 1)
        self._max_bytes = None if max_bytes is None else checked_count(max_bytes, "max_bytes", 1)
        self._ttl = checked_seconds(ttl, "ttl")
        self._clock = checked_clock(clock)
        self._owns_store = store is None
        self.store: AbstractStore = DictMemoryStore(EventManager()) if store is None else store
        super().__init__(self.store, codec)
        self._keeper = Keeper(
            self.store,
            not self._owns_store,
            self._max_entries,
            self._max_bytes,
            checked_seconds(idle, "idle"),
            policy,
            clock,
        )
        # What each hit needs.
        self._nodes = self._keeper.nodes
        self._notes_hits = self._keeper.on_hit is not None
        self._is_raw = type(self._codec) is RawCodec
        # Of what others have written the nodes may not know yet when it expires.
        self._to_bytes = self.store.to_bytes if self._owns_store else self._keeper.known_bytes
        self._register = CountRegister()
        self._counts = ThreadCounts(self._register)
        self._loads = LoadTable()
        self._failures = Failures(clock)
        self._has_tag_index = False
        _caches[id(self)] = self

    # -- reading ----------------------------------------------------------------------------------

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, or the default if it is missing or expired.

        Raises
        ------
        CodecError
            If the data cannot be decoded; it names the key.
        """
        # The one way by which all reads go. Rule 2 of keeper.py: the node, the clock, the store.
        try:
            node = self._nodes[key]
            if node.timed and self._keeper.is_over(node):
                return self._look(key, default)
            data = self._to_bytes(key)
        except (KeyError, TypeError):
            return self._look(key, default)
        node.visited = True
        if self._notes_hits:
            self._keeper.on_hit(node)  # type: ignore[misc]
        self._counts.mine.hits += 1
        return data if self._is_raw else decoded(self._codec, key, data)

    def __getitem__(self, key: str) -> Any:
        found = self.get(key, MISSING)
        if found is MISSING:
            raise KeyError(key)
        return found

    def _look(self, key: str, default: Any) -> Any:
        """Ask the store, whose metadata tells what the nodes do not: whether it has expired."""
        # Asked first, as most that come here are misses. What is nowhere needs no note.
        if not self.store.exists(key) and key not in self._nodes:
            self._counts.mine.misses += 1
            return default
        key = checked_key(key)
        data = self._read(key)
        return default if data is None else decoded(self._codec, key, data)

    def _read(self, key: str) -> bytes | None:
        data = self._live_data(key)
        if data is None:
            self._counts.mine.misses += 1
        else:
            self._counts.mine.hits += 1
        return data

    def _live_data(self, key: str) -> bytes | None:
        value = self._keeper.live_value(key)
        return None if value is None else value.range().read()

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return the values of those keys that are there and have not expired."""
        found = {key: self.get(key, MISSING) for key in checked_keys(keys)}
        return {key: value for key, value in found.items() if value is not MISSING}

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._keeper.live_value(checked_key(key)) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._keeper.live_keys())

    def __len__(self) -> int:
        return self._keeper.count()

    def remaining(self, key: str) -> float | None:
        """Return for how many seconds a key will be kept yet; None if it does not expire.

        Raises
        ------
        KeyError
            If it is missing or expired.
        """
        return self._keeper.remaining(checked_key(key))

    # -- writing ----------------------------------------------------------------------------------

    def __setitem__(self, key: str, value: Any) -> None:
        self.set(key, value)

    def set(
        self,
        key: str,
        value: Any,
        *,
        ttl: float | None = None,
        idle: float | None = None,
        refresh_after: float | None = None,
        weight: int | None = None,
        tags: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Put a value under a key; others are evicted first if there is no room.

        Parameters
        ----------
        key : str
        value : object
            What the codec can encode.
        ttl : float, optional
            Seconds after which it expires; the cache's own if None, infinity for never.
        idle : float, optional
            Seconds without a hit after which it goes; the cache's own if None.
        refresh_after : float, optional
            Seconds after which `get_or_load` loads it again, while others get the old value.
        weight : int, optional
            What it counts, in bytes; by default what it holds.
        tags : iterable of str
            What it can be invalidated by.
        metadata : mapping, optional
            More for the entry's metadata.

        Raises
        ------
        EntryTooLargeError
            If it weighs more than the whole cache may.
        CodecError
            If it cannot be encoded.
        """
        key = checked_key(key)
        options = checked_options(self._ttl, ttl, idle, refresh_after, weight, tags, metadata)
        self._set(key, encoded(self._codec, key, value), options)

    def _set(self, key: str, data: bytes, options: Options) -> None:
        if self._loads.may_store(key):
            # The load must not put an older value in its place: point 2 of `_store_loaded`.
            with self._keeper.transaction(f"set {key!r}"):
                self._loads.overtake(key)
                self._put(key, data, options)
        else:
            self._put(key, data, options)

    def set_many(self, values: Mapping[str, Any], **options: Any) -> None:
        """Set many keys in one transaction; options as for `set`."""
        if not isinstance(values, Mapping):
            raise TypeError(f"values must be a mapping of keys to values, got {describe(values)}")
        checked = checked_options(self._ttl, **options)
        # Encoded before, as that may run anybody's code, and take long.
        items = [
            (checked_key(key, "a key of values"), encoded(self._codec, key, value))
            for key, value in values.items()
        ]
        self._index_tags(checked)
        with self._keeper.transaction("set_many"):
            for key, data in items:
                self._set(key, data, checked)

    def update(  # type: ignore[override]
        self, other: Mapping[str, Any] | Iterable[Any] = (), /, **more: Any
    ) -> None:
        """Set many keys in one transaction."""
        self.set_many(dict(other, **more))

    def add(self, key: str, value: Any, **options: Any) -> bool:
        """Set a key if it is missing or expired; return whether it was. Options as for `set`."""
        key = checked_key(key)
        checked = checked_options(self._ttl, **options)
        data = encoded(self._codec, key, value)
        self._index_tags(checked)
        with self._keeper.transaction(f"add {key!r}"):
            if key in self:
                return False
            self._set(key, data, checked)
            return True

    def modify(
        self, key: str, function: Callable[[Any], Any], *, default: Any = MISSING, **options: Any
    ) -> Any:
        """Put what a function makes of a key's value in its place; no other change comes in between.

        The entry keeps its tags and what is left of its time.

        Parameters
        ----------
        key : str
        function : callable
            Called with the value, with no lock held; returns the new one. It is called again if the entry was
            changed meanwhile.
        default : object, optional
            What the function gets if the key is missing or expired.
        **options
            Of an entry that was missing; as for `set`.

        Returns
        -------
        value : object
            What the function has returned.

        Raises
        ------
        KeyError
            If the key is missing or expired, and there is no default.
        """
        key = checked_key(key)
        check_callable(function, "function")
        checked = checked_options(self._ttl, **options)
        self._index_tags(checked)
        while True:
            before = self._content(key)
            if before is None and default is MISSING:
                raise KeyError(key)
            value = function(default if before is None else decoded(self._codec, key, before[0]))
            data = encoded(self._codec, key, value)
            with self._keeper.transaction(f"modify {key!r}"):
                # What is there is compared, and no revision, which not all stores have.
                if self._content(key) == before:
                    if before is not None:
                        checked = Options(weight=before[1].get(WEIGHT), metadata=before[1])
                    self._set(key, data, checked)
                    return value

    def _content(self, key: str) -> tuple[bytes, Mapping[str, Any]] | None:
        """Return data and metadata, None if the key is missing or expired."""
        value = self._keeper.live_value(key)
        return None if value is None else (value.range().read(), value.metadata)

    def touch(self, key: str, ttl: float | None = None) -> bool:
        """Have a key expire `ttl` seconds from now, the cache's own if None; return whether it is there."""
        key = checked_key(key)
        ttl = self._ttl if ttl is None else checked_seconds(ttl, "ttl")
        with self._keeper.transaction(f"touch {key!r}"):
            value = self._keeper.live_value(key)
            if value is None:
                return False
            metadata = value.metadata
            metadata.pop(EXPIRES, None)
            if ttl is not None:
                metadata[EXPIRES] = self._clock() + ttl
            self._keeper.set_metadata(key, value.size, metadata)
            return True

    def _put(self, key: str, data: bytes, options: Options) -> None:
        self._index_tags(options)
        if self._failures:
            self._failures.pop(key, None)
        self._keeper.put(key, data, options)

    def _index_tags(self, options: Options) -> None:
        """Have the store keep an index on tags, if it can and there is a use for it."""
        if self._has_tag_index or not options.tags or self._keeper.current_transaction() is not None:
            return
        add_index = getattr(self.store, "add_index", None)
        if add_index is not None:
            add_index(TAGS)
        self._has_tag_index = True

    def sweep(self) -> int:
        """Evict what has expired or was idle for too long; return how many entries that were.

        It need not be called: the store's own thread does it when something is due. A store that has no
        thread is swept when something is set.
        """
        return self._keeper.sweep()

    # -- invalidating -----------------------------------------------------------------------------

    def delete(self, key: str) -> bool:
        """Remove a key; return whether it was there, and had not expired.

        A load of the key that is under way does not put it back.
        """
        key = checked_key(key)
        loading = self._loads.may_store(key)
        with self._keeper.transaction(f"delete {key!r}") if loading else contextlib.nullcontext():
            if self._keeper.current_transaction() is None:
                self._loads.overtake(key)
            else:
                self._overtake(Removal(key))
            self._failures.pop(key, None)
            was_there = self._keeper.live_value(key) is not None
            try:
                self._keeper.delete(key)
            except KeyError:
                return False
        return was_there

    def __delitem__(self, key: str) -> None:
        if not self.delete(key):
            raise KeyError(key)

    def _remove(self, key: str) -> None:
        self.delete(key)

    def _add(self, key: str, value: Any) -> bool:
        return self.add(key, value)

    def clear(self) -> None:
        """Remove all keys in one transaction; loads that are under way do not put theirs back."""
        with self._keeper.transaction("clear"):
            self._overtake(Removal())
            self._failures.clear()
            for key in list(self.store.query_keys()):
                self._keeper.delete(key)

    def invalidate_tag(self, tag: str) -> int:
        """Remove all entries that were set with a tag, in one transaction; return how many."""
        tag = checked_key(tag, "tag")
        with self._keeper.transaction(f"invalidate tag {tag!r}"):
            self._overtake(Removal(tag=tag))
            self._failures.forget(lambda key, tags: tag in tags)
            keys = list(self.store.query_keys(**{TAGS: Contains(tag)}))
            for key in keys:
                self._keeper.delete(key)
        return len(keys)

    def delete_glob(self, pattern: str) -> int:
        """Remove all keys that match a pattern, as for ``store.glob``, in one transaction; return how many.

        Loads that are under way do not put theirs back.
        """
        matching_keys(pattern, ())  # a pattern that is none is refused before anything is done

        def matches(key: str) -> bool:
            return bool(matching_keys(pattern, (key,)))

        with self._keeper.transaction(f"delete {pattern!r}"):
            self._overtake(Removal(matches=matches))
            self._failures.forget(lambda key, tags: matches(key))
            keys = list(self.store.glob(pattern))
            for key in keys:
                self._keeper.delete(key)
        return len(keys)

    def _overtake(self, removal: Removal) -> None:
        """Keep loads from storing what is deleted: those that run, and that begin before it is committed."""
        self._loads.begin_removal(removal)
        transaction = self._keeper.current_transaction()
        if transaction is None:
            self._loads.end_removal(removal, False)
        else:
            transaction.on_commit(functools.partial(self._loads.end_removal, removal, True))
            transaction.on_rollback(functools.partial(self._loads.end_removal, removal, False))

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
            Seconds for which a copy of a failure is raised instead of loading again; 0 if None.
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
            Whatever the loader raises; those who have waited for it get a copy, without its frames. With an
            old value that is to be refreshed there, that is returned, and the failure logged; it is tried
            again after `refresh_after`, or a second.
        LoadTimeoutError
            If another thread's load takes longer than `timeout`.
        RecursiveLoadError
            If the loader, or one that waits for it, asks for the same key; also by way of a future or a
            thread that it waits for, which cannot be seen without the GIL. After five seconds of waiting in
            any other way a warning is logged.
        """
        found = self._find(key)
        if found is not MISSING and type(found) is not Stale:
            return found
        # Looked at only when they are needed, as most calls are hits.
        key = checked_key(key)
        check_callable(loader, "loader")
        options = checked_options(self._ttl, ttl, idle, refresh_after, weight, tags, metadata)
        negative_ttl = checked_seconds(negative_ttl, "negative_ttl")
        attempt = self._attempt(key, found, options, negative_ttl, checked_timeout(timeout))
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
            attempt.run.over = True
            attempt.end()

    def _find(self, key: str) -> Any:
        """Return the value of a key, `MISSING` if none can be decoded, a `Stale` if it is to be refreshed."""
        try:
            found = self.get(key, MISSING)
        except CodecError as error:
            self._note_undecodable(error)
            counts = self._counts.mine
            counts.hits -= 1  # which `get` has counted
            counts.misses += 1
            return MISSING
        return Stale(found) if found is not MISSING and self._is_due(key) else found

    def _is_due(self, key: str) -> bool:
        node = self._nodes.get(key)
        return node is not None and node.refresh is not None and self._clock() >= node.refresh

    def _decode(self, key: str, data: bytes, noted: bool = False) -> Any:
        """Return a value; `MISSING` if it cannot be decoded, so that it is loaded again.

        That is noted, unless it has been when the key was first looked for.
        """
        try:
            return decoded(self._codec, key, data)
        except CodecError as error:
            if not noted:
                self._note_undecodable(error)
            return MISSING

    def _note_undecodable(self, error: CodecError) -> None:
        self._counts.mine.undecodable += 1
        # Not the error's own text, which shows the data; and no exception, which would keep frames.
        logger.warning(
            "key %r cannot be decoded and is loaded again: %s", error.key, describe(error.__cause__)
        )

    def _attempt(
        self, key: str, found: Any, options: Options, negative_ttl: float | None, timeout: float | None
    ) -> Attempt:
        """Return an attempt to load a key, of which `_find` has found this much."""
        shelf = Shelf(
            self._live_data,
            self._revision,
            self._decode,
            functools.partial(encoded, self._codec),
            self._store_loaded,
            self._store_refreshed,
            self._put_inside,
            self._is_due,
            self._postpone,
            self._loads,
            self._failures,
            self._counts,
        )
        inside = self._keeper.current_transaction() is not None
        self._index_tags(options)
        if type(found) is Stale:
            return Refresh(shelf, key, options, found.value, not inside)
        if inside:
            return LoadInside(shelf, key, options)
        deadline = None if timeout is None else time.monotonic() + timeout
        return LoadOutside(shelf, key, options, negative_ttl, deadline)

    def _put_inside(self, load: Load, data: bytes, options: Options) -> bytes | None:
        """Set what was loaded in a transaction; return what the loader itself has set."""
        if load.kept_out:
            return self._live_data(load.key)
        self._put_if_it_fits(load.key, data, options)
        return None

    def _put_if_it_fits(self, key: str, data: bytes, options: Options) -> None:
        try:
            self._put(key, data, options)
        except EntryTooLargeError as error:
            logger.debug("%s: returned and not kept", str(error))

    def _revision(self, key: str) -> int:
        value = self._keeper.value(key)
        return 0 if value is None else value.revision or 0

    def _store_loaded(self, load: Load, data: bytes, options: Options, begun_at: int) -> bytes | None:
        """Keep what was loaded, unless the key was set or deleted meanwhile; return what was set.

        1. A key that is there with another revision was set. One that is not there was deleted, unless the
           load began with none, or with one that had expired and was swept since.
        2. Who sets or deletes a key that is being loaded marks the load in a transaction. So is this, and
           of the two one comes after the other.
        """
        key = load.key
        with self._keeper.transaction(f"load {key!r}"):
            if load.kept_out or self._revision(key) not in (0, begun_at):
                return self._live_data(key)
            self._put_if_it_fits(key, data, options)
        return None

    def _store_refreshed(self, load: Load, data: bytes, options: Options, begun_at: int) -> bool:
        """Put what was loaded in the place of the old value; return whether that was still there."""
        with self._keeper.transaction(f"refresh {load.key!r}"):
            kept = self._revision(load.key) == begun_at and not load.kept_out
            if kept:
                self._put(load.key, data, options)
        return kept

    def _postpone(self, key: str, options: Options) -> None:
        """Have a refresh that has failed tried again later, and not at each hit."""
        node = self._nodes.get(key)
        if node is not None:
            node.refresh = self._clock() + (options.refresh_after or _TRY_AGAIN)

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
        found = {key: value for key in wanted if (value := self._present(key)) is not MISSING}
        deadline = None if timeout is None else time.monotonic() + timeout
        missing = [key for key in wanted if key not in found]
        inside = self._keeper.current_transaction() is not None
        self._index_tags(checked)
        while missing:
            run = Run()
            loads = [Load(key, run, checked.tags) for key in missing]
            try:
                # All of ours are loaded before any other is waited for: so no circle can close here.
                done = self._claim_and_load_many(loads, loader, checked, inside, found)
            finally:
                run.over = True
                self._loads.end(loads)
                self._loads.end_inside()
            others = [key for key in missing if key not in done]
            missing = [key for key in others if not self._wait_for_other(key, found, deadline)]
        return {key: found[key] for key in wanted if key in found}

    def _present(self, key: str) -> Any:
        """Return the value of a key, also if it is to be refreshed; `MISSING` if there is none."""
        found = self._find(key)
        return found.value if type(found) is Stale else found

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
            self._loads.begin_inside(mine)
        else:
            mine = [load for load in loads if self._loads.claim(load) is load]
        found.update(self._load_many(mine, loader, options, inside))
        return [load.key for load in mine]

    def _wait_for_other(self, key: str, found: dict[str, Any], deadline: float | None) -> bool:
        """Wait for another thread's load of a key; return whether that has settled it."""
        load = self._loads.running(key)
        if load is None:
            value = self._present(key)
        else:
            outcome = self._loads.wait_if_current(load, deadline)
            if outcome.error is not None:
                raise bare_copy(outcome.error)
            if outcome.absent:
                return True
            value = MISSING if outcome.data is None else self._decode(key, outcome.data)
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
        except MemoryError:
            raise  # no failure of the loader's: those who wait try
        except Exception as error:
            kept = kept_failure(loads[0].key, error) if loads else None
            for load in loads:
                if kept is not None or load.key in data:
                    self._loads.finish(load, _outcome_of_many(data.get(load.key), kept))
            raise
        for load in loads:
            self._loads.finish(load, _outcome_of_many(data.get(load.key), None))
        return values

    def _still_missing(self, loads: list[Load], values: dict[str, Any], data: dict[str, bytes]) -> list[Load]:
        """Note what is there by now, and return the other loads."""
        for load in loads:
            already = self._live_data(load.key)
            value = MISSING if already is None else self._decode(load.key, already, noted=True)
            if already is not None and value is not MISSING:
                data[load.key] = already
                values[load.key] = value
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
        loaded = self._loaded_many([load.key for load in loads], loader)
        fresh = {
            load.key: encoded(self._codec, load.key, loaded[load.key]) for load in loads if load.key in loaded
        }
        given = [load for load in loads if load.key in fresh]
        with self._keeper.transaction("load many"):
            kept = {
                load.key: self._store_loaded(load, fresh[load.key], options, begun_at[load.key])
                for load in given
            }
        for key, by_others in kept.items():
            theirs = MISSING if by_others is None else self._decode(key, by_others)
            values[key] = loaded[key] if theirs is MISSING else theirs
            data[key] = fresh[key] if theirs is MISSING or by_others is None else by_others

    def _loaded_many(
        self, keys: list[str], loader: Callable[[list[str]], Mapping[str, Any]]
    ) -> Mapping[str, Any]:
        counts = self._counts.mine
        begun = time.perf_counter()
        try:
            loaded = loader(keys)
        except BaseException:
            counts.load_failures += 1
            raise
        else:
            counts.loads += 1
        finally:
            counts.load_seconds += time.perf_counter() - begun
        if not isinstance(loaded, Mapping):
            raise TypeError(f"loader must return a mapping of keys to values, got {describe(loaded)}")
        return loaded

    @overload
    def memoize(self, function: Callable[P, R], /) -> Memoized[P, R]: ...

    @overload
    def memoize(
        self,
        /,
        *,
        ttl: float | None = None,
        key: Callable[..., object] | None = None,
        tags: Iterable[str] | Callable[..., Iterable[str]] = (),
        name: str | None = None,
        idle: float | None = None,
        refresh_after: float | None = None,
        negative_ttl: float | None = None,
        weight: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Callable[[Callable[P, R]], Memoized[P, R]]: ...

    def memoize(
        self,
        function: Any = MISSING,
        /,
        *,
        ttl: float | None = None,
        key: Callable[..., object] | None = None,
        tags: Iterable[str] | Callable[..., Iterable[str]] = (),
        name: str | None = None,
        idle: float | None = None,
        refresh_after: float | None = None,
        negative_ttl: float | None = None,
        weight: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Keep what a function or method returns, by its arguments: ``@cache.memoize``, or with options.

        What is returned is called, bound, copied and pickled as the function is. It has
        ``invalidate(*args)``, which forgets the result of a call, ``cache_key(*args)``, and ``cache_info()``
        and ``cache_clear()`` like those of ``functools.lru_cache``.

        Results are those of this decorated function: another one of the same name, or the same one
        decorated again, has its own. Those in a store that is saved, or that processes share, are found
        by another process only with a `name`.

        Parameters
        ----------
        ttl : float, optional
            Seconds for which a result is kept; the cache's own if None.
        key : callable, optional
            Called with the arguments, returns what tells one call from another. Without it all arguments must
            be plain values: strings, numbers, bytes, None, enums, dates, UUID, Decimal, Path, classes, and
            tuples, lists, dicts, sets and frozen dataclasses of those. The instance of a method is told from
            others by its identity.
        tags : iterable of str, or callable
            What results can be invalidated by; a callable gets the arguments.
        name : str, optional
            What its keys begin with; no other function of the cache may have it.
        idle, refresh_after, negative_ttl, weight, metadata, timeout
            As for `get_or_load`.

        Raises
        ------
        TypeError, ValueError
            If an option is wrong, or the function is one whose results cannot be kept.
        """
        if key is not None:
            check_callable(key, "key")
        options = checked_options(
            self._ttl, ttl, idle, refresh_after, weight, () if callable(tags) else tags, metadata
        )
        results = Results(
            self,
            self._find,
            self._attempt,
            options,
            checked_seconds(negative_ttl, "negative_ttl"),
            checked_timeout(timeout),
            key,
            tags if callable(tags) else None,
            None if name is None else checked_key(name, "name"),
        )
        decorate = functools.partial(Memoized, results)
        return decorate if function is MISSING else decorate(function)

    # -- facts ------------------------------------------------------------------------------------

    @property
    def max_entries(self) -> int | None:
        """How many entries there may be; None if there is no bound."""
        return self._max_entries

    @property
    def max_bytes(self) -> int | None:
        """What they may weigh together; None if there is no bound."""
        return self._max_bytes

    def stats(self) -> dict[str, Any]:
        """Return what the cache has done since it was made.

        Returns
        -------
        stats : dict
            ``hits``, ``misses``, ``hit_ratio`` (None before the first read), ``loads``, ``load_failures``,
            ``load_seconds`` (what both have taken), ``mean_load_seconds`` (None before the first),
            ``undecodable`` (entries that were loaded again as they could not be decoded),
            ``evictions`` (a dict: how many by cause), ``entries``, ``bytes`` (what they weigh).
        """
        counts = self._register.total()
        reads = counts.hits + counts.misses
        attempts = counts.loads + counts.load_failures
        return {
            "hits": counts.hits,
            "misses": counts.misses,
            "hit_ratio": counts.hits / reads if reads else None,
            "loads": counts.loads,
            "load_failures": counts.load_failures,
            "load_seconds": counts.load_seconds,
            "mean_load_seconds": counts.load_seconds / attempts if attempts else None,
            "undecodable": counts.undecodable,
            "evictions": dict(self._keeper.ledger.evictions),
            "entries": len(self._nodes),
            "bytes": self._keeper.ledger.weight,
        }

    def close(self, timeout: float | None = 30.0) -> None:
        """Close the store, if it is the cache's own; else only stop following it.

        Parameters
        ----------
        timeout : float or None
            Seconds that closing the store may take.
        """
        timeout = checked_timeout(timeout)
        self._keeper.stop()
        if self._owns_store:
            self.store.close(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            "a cache cannot be pickled or copied: save(path) of its store writes what it holds, load(path) "
            "reads it back"
        )

    def __repr__(self) -> str:
        bounds = [
            f"{name}={bound}"
            for name, bound in (("max_entries", self._max_entries), ("max_bytes", self._max_bytes))
            if bound is not None
        ]
        return f"<Cache {len(self._nodes)} entries, {', '.join(bounds) or 'no bound'}>"

    def _renew_in_child(self) -> None:
        self._loads.renew()


def _outcome_of_many(data: bytes | None, error: BaseException | None) -> Outcome:
    """Return how the load of one of many keys has ended."""
    return Outcome(data, None if data is not None else error, data is None and error is None)


# Every cache alive, for children that this process forks; by identity, as caches are equal by what they hold.
_caches: weakref.WeakValueDictionary[int, Cache] = weakref.WeakValueDictionary()


def _renew_caches_in_child() -> None:
    for cache in list(_caches.values()):
        cache._renew_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_caches_in_child)
