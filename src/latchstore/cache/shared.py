"""`Cache`: a bounded, expiring cache that threads share, on a store that enforces the bound in its commits.

Reading is in ``reading.py``, writing in ``writing.py``, loading in ``loader.py``.

Thread safety: see those modules.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, Unpack, overload

from latchstore.cache.attempts import Attempt, Stale
from latchstore.cache.load import MISSING
from latchstore.cache.loader import CacheLoader
from latchstore.cache.memoizing import Memoized, Results
from latchstore.cache.naming import Naming
from latchstore.cache.options import (
    MemoizeOptions,
    NamespaceOptions,
    Options,
    SetOptions,
    check_names,
    checked_options,
)
from latchstore.cache.reading import CacheReader
from latchstore.cache.writing import CacheWriter
from latchstore.contract.arguments import checked_key, describe, document_as
from latchstore.contract.codec import V
from latchstore.contract.errors import CodecError
from latchstore.engine.bounded import EveryThread

P = ParamSpec("P")
R = TypeVar("R")


class Cache(CacheLoader[V]):
    """A cache of Python objects with string keys, shared by any number of threads.

    A value is stored by reference and shared with every caller, as by ``functools.lru_cache`` and cachetools:
    ``cache[key] is value``, and a caller who mutates it mutates it for all. With ``codec="pickle"`` each
    caller gets a copy of its own. On a given store, name a codec; otherwise values are bytes.

    A cache is a mapping: ``cache[key] = value``, ``cache.get(key)``, ``del cache[key]``. Its entries are
    entries of a store, so they can be watched, listened to, read in snapshots and changed in transactions.
    Without a bound it grows without limit.

    For type checkers, ``Cache[User]`` has values of type User; a plain `Cache` is a ``Cache[Any]``. A cache
    is always true, even when it is empty, so that ``cache or default`` is the cache.

    Parameters
    ----------
    store : AbstractStore, optional
        The store of the entries; a new DictMemoryStore if None. It must enforce bounds in its own commits, as
        DictMemoryStore, SqliteStore and RedisStore do; other stores are refused. All entries of the store
        belong to the cache, whoever writes them; if several caches use one store, the narrowest bound
        applies.
    max_entries : int, optional
        Maximum number of entries.
    max_bytes : int, optional
        Maximum total weight of the entries, which is about the memory that they use. An entry weighs the
        length of its key, data, and metadata names and values, plus an overhead of about 440 bytes, or 680
        with metadata (a ttl is metadata); or the `weight` with which it is set. For an object stored by
        reference, the result of `sizeof`, or 1, replaces the length of data. A single entry that weighs more
        is refused.
    ttl : Seconds, optional
        Seconds after which an entry expires, unless it is set with its own ttl; None or infinity: never.
    idle : Seconds, optional
        Seconds without a hit after which an entry expires; for entries of other writers and of transactions,
        counted from when the cache first reads them.
    policy : str or callable
        The eviction policy: ``"sieve"``, ``"s3-fifo"`` or ``"lru"``, or a callable that returns an
        EvictionPolicy. On a SqliteStore or RedisStore only ``"sieve"``, as processes share the order.
    codec : str or Codec, optional
        ``"reference"`` stores the objects themselves, so also locks, connections and open files; it is the
        default without a `store`. Other codecs convert objects to bytes, and bytes to copies: ``"pickle"``,
        ``"json"``, ``"msgpack"``, ``"raw"`` (bytes), or a codec of your own. With a DictMemoryStore as
        `store` the default takes and returns bytes and refuses other types, as unpickling data of other
        writers can run arbitrary code. On a SqliteStore or RedisStore it is ``"json"``, and ``"pickle"`` is a
        UserWarning.
    sizeof : callable, optional
        With ``"reference"``: called, with no lock held, with each value that is set without a `weight`;
        returns its weight, an int. Without it bytes weigh their length, other objects 1.
    clock : callable
        Returns seconds; by default ``time.monotonic``, looked up at each call. On a SqliteStore it is
        ``time.time``, which all processes share; on a RedisStore the clock of the server, which all machines
        share. If it returns less than it did when the store was saved, as after a reboot, loaded entries that
        expire are dropped.
    near : NearCache, optional
        For a store that processes share: `get`, ``[]``, `get_many`, loads and memoized functions return
        copies in the memory of this process, no older than `near` allows; all other methods read the store.

    Attributes
    ----------
    store : AbstractStore
        The store of the entries.

    Notes
    -----
    Each commit enforces the bound: a commit that would exceed it evicts entries as well, with a
    StoreEvictEvent that has the cause, and never a key that it writes unless there is no other. A transaction
    shows its own evictions, and a rollback undoes them. An entry that an exclusive transaction has read or
    written stays until the transaction ends. For an optimistic transaction, an eviction is a conflicting
    change like any other.

    Events, watches, snapshots and transactions have an object stored by reference as the ``content`` of their
    values. Methods that read bytes (``store.to_bytes``, ``to_file``, ``mapping``) raise KeptByReferenceError,
    which names the key; so does ``store.save``, except for strings, 64-bit integers and finite floats. Code
    that runs when an object is freed, such as ``__del__``, runs with no lock held.

    The cache never returns an expired entry, not even in transactions. The store, its snapshots, queries and
    watches show it until it is evicted: by later commits of the cache, a few entries each, or by `sweep`.

    Processes share a cache on a `SqliteStore`, and machines share one on a `RedisStore`: each process opens
    the store and makes its own `Cache` on it.

    * Each process enforces the bound of its own cache in all of its commits. The order of eviction and the
      weight of each entry (data, key, metadata as they are written, and the overhead above) are in the file
      or on the server. Entries that a process without a cache writes are evicted by the next commit of a
      process with one.
    * A hit is a read. The next commit of its process records it for the policy and for `idle`, or a commit of
      its own within an eighth of the idle time. Of different idle times that processes give, the last one
      applies.
    * `get_or_load` and the others load a missing key once for all processes, if the load takes less than 30
      seconds. After that another process may load the key as well, and the result of the first load is not
      stored. If a process is killed while it loads, the next process of its machine loads at once, processes
      of other machines or containers after the 30 seconds: a `timeout` limits their wait, and `delete` of the
      key ends it. Each process keeps its own failures (also with a `negative_ttl`) and values that are not
      stored. Loaders of several processes that wait for each other get a RecursiveLoadError, which names the
      keys and a process.
    * With `near` a read may return a value that is some milliseconds old, but never an older one than its
      thread has read or written before with this cache. Commits of this process are visible at once; so are
      commits of others once a listener or a watch of this process is notified. Copies expire like their
      entries. A hit is recorded as a use within a second, or an eighth of the idle time. Immutable values
      (str, bytes, numbers, None, flat tuples and frozensets of those) are decoded once, others for each
      caller.
    * ``stats()`` counts the evictions of all processes, but everything else of this process only. A
      transaction evicts in its commit, so its evictions are not visible before. `sweep` spares keys that are
      being loaded.

    Thread safety
    -------------
    Any number of threads may use a cache at the same time. A hit takes no lock. Loaders, codecs,
    ``sizeof``, ``keep`` and ``weight`` run with no lock held.

    Examples
    --------
    >>> from latchstore import Cache
    >>> cache = Cache(max_entries=1_000, ttl=60)
    >>> cache.get_or_load("answer", lambda key: 42)
    42
    >>> cache["answer"], cache.get("question", "none")
    (42, 'none')
    """

    def namespace(self, name: str, **options: Unpack[NamespaceOptions]) -> Cache[V]:
        """Return a cache of the keys that begin with a name and a colon, in the same store.

        Its methods affect these keys only: `clear`, `delete_glob`, `invalidate_tag`, iteration, `stats`. It
        has the cache's codec and clock, and may have narrower limits of its own; the cache's limits apply to
        all keys together. Each name has one namespace, which lives as long as the cache. Each namespace adds
        some time to every commit of the store, so make few: one per kind of object, not one per user.

        Parameters
        ----------
        name : str
            Without a colon. Namespaces can be nested.
        ttl, idle, max_entries, max_bytes, policy
            As for `Cache`; the cache's own ttl and policy if None. If both the cache and its namespace have
            an `idle` time, the shorter one applies.

        Raises
        ------
        TypeError, ValueError
            If an option is invalid, the name is empty or has a colon, or the namespace was made with other
            options.

        Examples
        --------
        >>> from latchstore import Cache
        >>> cache = Cache(max_entries=1_000)
        >>> users = cache.namespace("users", ttl=60)
        >>> users["anna"] = 1
        >>> list(cache), list(users), users is cache.namespace("users")
        (['users:anna'], ['anna'], True)
        """
        name = checked_key(name, "name")
        if not name or ":" in name:
            raise ValueError(f"name must be a non-empty string without a colon, got {describe(name)}")
        check_names(NamespaceOptions, options)
        made: Namespace[V] | None = self._namespaces.get(name)
        if made is None:
            # Not under a lock, as this may call the user's policy. If two threads make one, one of them is
            # kept.
            fresh = Namespace(self, name, options)
            made = self._namespaces.setdefault(name, fresh)
            if made is not fresh:
                fresh.close()
        if options and options != made.made_with:
            raise ValueError(f"namespace {name!r} exists already, with other options: {made.made_with!r}")
        return made

    @overload
    def memoize(self, function: Callable[P, R], /) -> Memoized[P, R]: ...

    @overload
    def memoize(self, /, **options: Unpack[MemoizeOptions]) -> Callable[[Callable[P, R]], Memoized[P, R]]: ...

    def memoize(self, function: Any = MISSING, /, **options: Unpack[MemoizeOptions]) -> Any:
        """Cache the results of a function or method by its arguments: ``@cache.memoize``, or with options.

        The result is called, bound, copied and pickled like the function. It has ``invalidate(*args)``, which
        removes the result of a call, ``cache_key(*args)``, and ``cache_info()`` and ``cache_clear()`` like
        those of ``functools.lru_cache``.

        Results belong to this decorated function: another function of the same name, or the same function
        decorated again, has its own. Results in a store that is saved, or that processes share, are found by
        other processes only with a `name`.

        Parameters
        ----------
        key : callable, optional
            Called with the arguments, returns a plain value that identifies the call. Without it all
            arguments must be plain values: strings, numbers, bytes, None, enums, dates, UUID, Decimal, Path,
            classes, and tuples, lists, dicts, sets and frozen dataclasses of those. The instance of a method
            is identified by its identity.
        tags : iterable of str, or callable
            Tags by which results can be invalidated; a callable gets the arguments.
        name : str, optional
            Prefix of the function's keys; unique among the functions of the cache.
        ttl, idle, refresh_after, weight, metadata, keep, negative_ttl, stale_on_error, timeout
            As for `get_or_load`.

        Raises
        ------
        TypeError, ValueError
            If an option is invalid, or the results of the function cannot be cached.
        """
        checked = checked_options(MemoizeOptions, options, self._defaults)
        decorate = functools.partial(Memoized, Results(self, self._find, self._attempt, checked))
        return decorate if function is MISSING else decorate(function)


class Namespace(Cache[V]):
    """A part of a cache: the keys that begin with a name and a colon. `Cache.namespace` makes it.

    It shares the loads and failures of the cache, under the store's keys; errors name those keys as well.

    Attributes
    ----------
    made_with : mapping
        The options it was made with.

    Thread safety
    -------------
    As `Cache`.
    """

    def __init__(self, parent: Cache[V], name: str, options: NamespaceOptions) -> None:
        self._parent = parent
        self._naming = Naming(f"{parent._naming.prefix}{name}:")
        self.made_with = options
        super().__init__(
            parent.store,
            max_entries=options.get("max_entries"),
            max_bytes=options.get("max_bytes"),
            idle=options.get("idle"),
            policy=options.get("policy") or parent._policy,
            codec=parent._codec,
            sizeof=parent._sizeof,
            clock=parent._bounded.clock,
        )
        given: SetOptions = {"ttl": options.get("ttl")}
        self._defaults = checked_options(SetOptions, given, parent._defaults)
        self._bounded.outer = parent._bounded
        # A hit also counts for the parent, so it does more than set a field.
        self._detours = self._hit_detours = EveryThread()

    def get(self, key: str, default: Any = None) -> Any:
        return super().get(self._naming.stored(key), default)

    def set(self, key: str, value: V, **options: Unpack[SetOptions]) -> None:
        super().set(self._naming.stored(key), value, **options)

    def _find(self, key: str) -> Any:
        try:
            found = self.get(key, MISSING)
        except CodecError as error:
            return self._missed(error)
        return Stale(found) if found is not MISSING and self._seems_due(self._naming.stored(key)) else found

    def _attempt(self, key: str, found: Any, options: Options) -> Attempt:
        return super()._attempt(self._naming.stored(key), found, options)


document_as("Cache", CacheReader, CacheWriter, CacheLoader)
