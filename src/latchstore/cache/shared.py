"""`Cache`: a bounded, expiring cache that threads share, on a store that keeps the bound in its commits.

Reading is in ``reading.py``, writing in ``writing.py``, loading in ``loader.py``.

Thread safety: that of those.
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
from latchstore.contract.arguments import checked_key, describe
from latchstore.contract.codec import V
from latchstore.contract.errors import CodecError
from latchstore.engine.bounded import EveryThread

P = ParamSpec("P")
R = TypeVar("R")


class Cache(CacheLoader[V]):
    """A cache of Python objects, by string keys, that any number of threads share.

    A value is kept as it is and shared with every caller, as by ``functools.lru_cache`` and cachetools:
    ``cache[key] is value``, and who changes it changes it for all. With ``codec="pickle"`` each caller gets
    a copy of its own. On a store that is given a codec is to be named, or values are bytes.

    It is a mapping: ``cache[key] = value``, ``cache.get(key)``, ``del cache[key]``. What it holds are entries
    of a store, so they can be watched, listened to, read in snapshots and changed in transactions. Without a
    bound it grows for ever.

    ``Cache[User]`` is one whose values are users, for type checkers; a `Cache` alone is a ``Cache[Any]``. A
    cache is true, also while it is empty, so that ``cache or default`` is the cache.

    Parameters
    ----------
    store : AbstractStore, optional
        Where the entries are; a DictMemoryStore of its own if None. It must keep bounds in its own commits,
        as DictMemoryStore, SqliteStore and RedisStore do; others are refused. All that the store holds
        belongs to the cache, whoever writes it; of several caches on one store the narrowest bound holds.
    max_entries : int, optional
        How many entries there may be.
    max_bytes : int, optional
        How much they may weigh together, which is about the memory that they take: for each the length of
        key and data, and of the metadata's names and values, and some 440 bytes of the cache's own, 680 with
        metadata (a ttl is in them); or the `weight` given with it alone. In place of data an object that is
        kept by reference counts what `sizeof` returns, or 1. The store itself refuses an entry that weighs
        more alone.
    ttl : Seconds, optional
        Seconds after which an entry expires, unless it is set with a ttl of its own; None or infinity: never.
    idle : Seconds, optional
        Seconds without a hit after which an entry expires; for what others write, and what a transaction
        sets, from the first time on that the cache looks at it.
    policy : str or callable
        Which entry is evicted when the cache is full: ``"sieve"``, ``"s3-fifo"`` or ``"lru"``, or what makes
        an EvictionPolicy. On a SqliteStore or RedisStore ``"sieve"`` alone, as processes share the order.
    codec : str or Codec, optional
        ``"reference"`` keeps the objects themselves, so it takes locks, connections and open files as well;
        it is the default without a `store`. Others say how objects become bytes, and copies of them again:
        ``"pickle"``, ``"json"``, ``"msgpack"``, ``"raw"`` (bytes), or one's own. With a `store` the default
        takes and returns bytes, and refuses all else: to unpickle what others wrote runs what they please. On
        a SqliteStore or RedisStore it is ``"json"``, and ``"pickle"`` is a UserWarning.
    sizeof : callable, optional
        With ``"reference"``: called with each value that is set without a `weight`, with no lock held;
        returns what it weighs, an int. Without it bytes weigh their length, all else 1.
    clock : callable
        Returns seconds; ``time.monotonic``, looked up at each call, if it is not given. On a SqliteStore
        it is ``time.time``, which is that of all processes; on a RedisStore the clock of the server, which is
        that of all machines. If it tells less than it did when the store was saved, as after a boot, what is
        loaded with a time of its own is dropped.
    near : NearCache, optional
        On a store that processes share: `get`, ``[]``, `get_many`, the loads and memoized functions return
        copies in the memory of this process, no older than that allows; all else reads the store.

    Attributes
    ----------
    store : AbstractStore

    Notes
    -----
    The bound holds at each commit: one that would exceed it evicts in the same commit, with a StoreEvictEvent
    that tells the cause, never a key that it writes itself if there is another one. A transaction shows what
    it evicts, and a rollback brings it back. An entry that an exclusive transaction has read or written stays
    until that ends; for an optimistic one eviction is a change like any other, so it conflicts.

    Events, watches, snapshots and transactions carry an object that is kept by reference as the ``content``
    of their values. What reads bytes (``store.to_bytes``, ``to_file``, ``mapping``) raises
    KeptByReferenceError, which names the key; so does ``store.save``, but for strings, integers of 64 bits
    and finite floats. What objects do as they are freed, in ``__del__`` say, they do with no lock held.

    The cache never returns an expired entry, in a transaction neither. The store, its snapshots, queries and
    watches show it until it is evicted: by later commits of the cache, a few by each, or by `sweep`.

    Processes share a cache on a `SqliteStore`, and machines one on a `RedisStore`: each process opens the
    store, and makes its own `Cache` on it.

    * Each process keeps to the bound of its own cache, in all of its commits; the order of eviction, and what
      each entry weighs (data, key, metadata as they are written, and the overhead above), are in the file or
      on the server. What a process without a cache writes is evicted by the next commit of one with a cache.
    * A hit is a read. It is noted for the policy, and for `idle`, by the next commit of its process, or
      within an eighth of the idle time. Of the idle times that processes have given the last one counts.
    * `get_or_load` and the others load a missing key once for all processes, if that takes less than
      30 seconds; then the next may load it as well, and what the first one loads is not kept. The key of a
      process that was killed is loaded by the next process of its machine at once, by those of others after
      the 30 seconds. A failure, with a `negative_ttl` as well, and
      what is not kept are those of one process. On a SqliteStore loaders of several
      processes that wait for one another get a RecursiveLoadError, which names the keys and a process; on a
      RedisStore they wait until a lease is over: give them a `timeout`.
    * With `near` a read may return what the key had some milliseconds ago, but never less than its thread has
      read or written before, by this cache; what this process commits is seen at once, and so is what others
      have committed when a listener or a watch of this process is told. Copies expire as their entries do. A
      hit counts as a use within a second, or an eighth of the idle time. What cannot be changed (str, bytes,
      numbers, None, flat tuples and frozensets of those) is decoded once, all else for each caller.
    * ``stats()`` counts the evictions of all processes, all else of this one. Evictions that a transaction
      needs are made by its commit, and not to be seen before. `sweep` leaves out what is being loaded.

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
        """Return a cache of the keys that begin with a name and a colon, without these, in the same store.

        Whatever it does is about these keys alone: `clear`, `delete_glob`, `invalidate_tag`, iterating,
        `stats`. It has the cache's codec and clock, and limits of its own beside the cache's, which hold for
        all keys together. It is made once for each name, and kept as long as the cache; each costs every
        commit of the store some time, so there are to be few: of kinds of things, not one for each user.

        Parameters
        ----------
        name : str
            Without a colon. A namespace has namespaces.
        ttl, idle, max_entries, max_bytes, policy
            As for `Cache`; the cache's own ttl and policy if None. Where a cache and its namespace both say
            `idle`, the shorter time holds.

        Raises
        ------
        TypeError, ValueError
            If an option is wrong, the name is empty or has a colon, or the namespace was made with other
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
            raise ValueError(f"name must be a word without a colon, got {describe(name)}")
        check_names(NamespaceOptions, options)
        made: Namespace[V] | None = self._namespaces.get(name)
        if made is None:
            # Not under a lock: a policy of the user's is made. Of two that are made at once one is kept.
            fresh = Namespace(self, name, options)
            made = self._namespaces.setdefault(name, fresh)
            if made is not fresh:
                fresh.close()
        if options and options != made.made_with:
            raise ValueError(f"namespace {name!r} was made with other options: {made.made_with!r}")
        return made

    @overload
    def memoize(self, function: Callable[P, R], /) -> Memoized[P, R]: ...

    @overload
    def memoize(self, /, **options: Unpack[MemoizeOptions]) -> Callable[[Callable[P, R]], Memoized[P, R]]: ...

    def memoize(self, function: Any = MISSING, /, **options: Unpack[MemoizeOptions]) -> Any:
        """Keep what a function or method returns, by its arguments: ``@cache.memoize``, or with options.

        What is returned is called, bound, copied and pickled as the function is. It has
        ``invalidate(*args)``, which forgets the result of a call, ``cache_key(*args)``, and ``cache_info()``
        and ``cache_clear()`` like those of ``functools.lru_cache``.

        Results are those of this decorated function: another one of the same name, or the same one
        decorated again, has its own. Those in a store that is saved, or that processes share, are found
        by another process only with a `name`.

        Parameters
        ----------
        key : callable, optional
            Called with the arguments, returns what tells one call from another. Without it all arguments must
            be plain values: strings, numbers, bytes, None, enums, dates, UUID, Decimal, Path, classes, and
            tuples, lists, dicts, sets and frozen dataclasses of those. The instance of a method is told from
            others by its identity.
        tags : iterable of str, or callable
            What results can be invalidated by; a callable gets the arguments.
        name : str, optional
            What its keys begin with; no other function of the cache may have it.
        ttl, idle, refresh_after, weight, metadata, keep, negative_ttl, stale_on_error, timeout
            As for `get_or_load`.

        Raises
        ------
        TypeError, ValueError
            If an option is wrong, or the function is one whose results cannot be kept.
        """
        checked = checked_options(MemoizeOptions, options, self._defaults)
        decorate = functools.partial(Memoized, Results(self, self._find, self._attempt, checked))
        return decorate if function is MISSING else decorate(function)


class Namespace(Cache[V]):
    """A part of a cache: the keys that begin with a name and a colon. `Cache.namespace` makes it.

    Loads and failures are the cache's, under the keys of the store; so are keys in the errors of these.

    Attributes
    ----------
    made_with : mapping
        Its options.
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
        # A hit is one of the parent's as well, so it is more than setting a field.
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
