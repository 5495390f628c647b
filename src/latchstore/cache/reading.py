"""The reading part of a cache.

Thread safety: a hit reads the entry without a lock (rule 4 of ``engine/table.py``), checks the metadata in
the same entry, and writes one field of a node (rule 3 of ``engine/bounds.py``). Codecs and the clock are
called with no lock held, unless the caller has opened a transaction around the call.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from latchstore.cache.counting import CountRegister, ThreadCounts
from latchstore.cache.failures import Failures
from latchstore.cache.load import MISSING
from latchstore.cache.loading import LoadTable
from latchstore.cache.naming import Naming
from latchstore.cache.near import UNSHARED, Copies, Copy, NearCache
from latchstore.cache.options import DEFAULT_OPTIONS, Options, checked_clock
from latchstore.cache.policies import EvictionPolicy, checked_policy
from latchstore.contract.arguments import (
    advising,
    check_callable,
    checked_count,
    checked_key,
    checked_keys,
    checked_seconds,
    checked_timeout,
    describe,
)
from latchstore.contract.codec import Codec, RawCodec, ReferenceCodec, UnnamedCodec, V, decoded
from latchstore.contract.errors import CodecError
from latchstore.contract.mapping import StoreMapping
from latchstore.contract.store import AbstractStore
from latchstore.contract.values import Entry
from latchstore.delivery.event_manager import EventManager
from latchstore.engine.bounded import EveryThread, Traits, bounded, traits_of
from latchstore.engine.entry_facts import EXPIRES, number
from latchstore.engine.limits import Limits
from latchstore.engine.memory import DictMemoryStore

if TYPE_CHECKING:
    from latchstore.contract.seconds import Seconds

T = TypeVar("T")

#: Whether no other thread runs between the bytecodes of a hit, so that the hit can increment its node's
#: count.
_HAS_GIL: bool = getattr(sys, "_is_gil_enabled", lambda: True)()


def monotonic() -> float:
    """Return ``time.monotonic()``, looked up at each call, as tests replace it."""
    return time.monotonic()


class CacheReader(StoreMapping[V]):
    """The part of a `Cache` that writes nothing; parameters as for `Cache`."""

    _codec: Codec[Any]  # of the mapping

    # Only for a namespace: the cache that it is a part of.
    _parent: CacheReader[Any] | None = None
    _naming = Naming("")

    @advising
    def __init__(
        self,
        store: AbstractStore | None = None,
        *,
        max_entries: int | None = None,
        max_bytes: int | None = None,
        ttl: Seconds | None = None,
        idle: Seconds | None = None,
        policy: str | Callable[[], EvictionPolicy] = "sieve",
        codec: str | Codec[V] | None = None,
        sizeof: Callable[[Any], int] | None = None,
        clock: Callable[[], float] | None = None,
        near: NearCache | None = None,
    ) -> None:
        if near is not None and not isinstance(near, NearCache):
            raise TypeError(f"near must be a NearCache or None, got {describe(near)}")
        if store is not None and not isinstance(store, AbstractStore):
            raise TypeError(f"store must be an AbstractStore or None, got {describe(store)}")
        self._max_entries = None if max_entries is None else checked_count(max_entries, "max_entries", 1)
        self._max_bytes = None if max_bytes is None else checked_count(max_bytes, "max_bytes", 1)
        ttl = checked_seconds(ttl, "ttl")
        # The options of an entry without any of its own.
        self._defaults = DEFAULT_OPTIONS if ttl is None else Options(ttl)
        self._owns_store = store is None
        self.store: AbstractStore = DictMemoryStore(EventManager()) if store is None else store
        traits = traits_of(self.store)
        if clock is None:
            clock = monotonic if traits is None else traits.clock
        super().__init__(self.store, _codec_of(codec, self._owns_store, traits))
        # hot path: read at each hit.
        self._shares = type(self._codec) is ReferenceCodec
        self._is_raw = type(self._codec) in (RawCodec, UnnamedCodec)
        self._sizeof = sizeof
        if sizeof is not None:
            check_callable(sizeof, "sizeof")
            if not self._shares:
                raise TypeError(
                    "sizeof is for codec='reference' only: encoded values weigh the length of their bytes"
                )
        parent = self._parent
        # One load per key in all namespaces, which a `clear` of the parent overtakes as well.
        self._loads: LoadTable = LoadTable() if parent is None else parent._loads
        self._failures: Failures = Failures(clock) if parent is None else parent._failures
        self._policy = policy
        # By name; `Cache.namespace` adds them.
        self._namespaces: dict[str, Any] = {}
        limits = Limits(
            self._max_entries,
            self._max_bytes,
            checked_seconds(idle, "idle"),
            checked_policy(policy),
            checked_clock(clock),
            self._loads,
            self._naming.prefix,
        )
        self._bounded = bounded(self.store, limits)
        if self._shares and not self._bounded.keeps_references:
            raise TypeError(
                f"codec='reference' stores objects in the memory of this process, which a "
                f"{type(self.store).__name__} cannot; name another codec"
            )
        self._near: Copies | None = None if parent is None else parent._near
        self._routes = self._bounded.routes
        # Hits that no thread has counted for itself.
        self._near_hits = 0
        if near is not None:
            self._near = Copies(near)
            self._bounded.observe(self._near)
        # hot path: each hit reads these.
        self._entries: Mapping[str, Any] = self._bounded.entries
        if self._near is not None:
            self._entries = self._near.copies
        self._nodes = self._bounded.nodes
        self._detours = self._bounded.detours
        self._hits = self._bounded.hits
        self._idles = limits.idle is not None
        # The detours that a hit checks: those of every thread if a hit does more than set one field.
        plain = not self._idles and self._hits is None and _HAS_GIL
        self._hit_detours = self._detours if plain else EveryThread()
        self._register = CountRegister()
        self._counts = ThreadCounts(self._register)
        _caches[id(self)] = self

    @overload
    def get(self, key: str, default: None = None) -> V | None: ...

    @overload
    def get(self, key: str, default: V) -> V: ...

    @overload
    def get(self, key: str, default: T) -> V | T: ...

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, or the default if it is missing or expired.

        Raises
        ------
        CodecError
            If the data cannot be decoded; the error names the key.
        """
        # hot path: an entry without metadata does not expire. Order: rule 4 of table.py.
        try:
            entry = self._entries[key]
            detour = self._hit_detours.detour
            if entry or (detour is not None and get_ident() in detour):
                return self._use(key, entry, default)
            node = self._nodes[key]
        except (KeyError, TypeError):
            return self._look(key, default)
        node.hits += 1
        # hot path: two reads of the attribute, so that CPython specialises each for one class.
        if self._shares:
            return entry.content
        content = entry.content
        return content if self._is_raw and type(content) is bytes else self._decoded(key, content)

    def _use(self, key: str, entry: Any, default: Any) -> Any:
        """Return the value of an entry that may have expired, or whose hits must be recorded."""
        if type(entry) is Copy:
            # hot path: only the clock is called if a use of the entry was recorded a moment ago.
            near: Any = self._near
            now = near.tick()
            # Check last that the copy is still there: rule 1 of near.py. If it is not, `get` reads the store.
            if (
                now < near.fresh_until
                and (not self._routes or get_ident() not in self._routes)
                and (
                    (now < entry.until and entry.noted is self._bounded)
                    or near.serves(entry, self._bounded, now)
                )
                and self._entries[key] is entry
            ):
                entry.visited = True
                if _HAS_GIL:
                    self._near_hits += 1  # no call comes between read and write
                else:
                    self._counts.mine.near_hits += 1
                value = entry.value
                return value if value is not UNSHARED else entry.decode(self._decoded)
            return self._look(key, default)
        detour = self._detours.detour
        if not _HAS_GIL or (detour is not None and get_ident() in detour):
            return self._look(key, default)
        if (entry or self._idles) and not self._bounded.begin_use(entry, self._nodes[key]):
            self._counts.mine.misses += 1
            return default
        # Only now: no call may come between this read and the count.
        node = self._nodes[key]
        node.hits += 1
        if self._hits is not None:
            self._hits.append(node)
        content = entry.content
        if self._shares or (self._is_raw and type(content) is bytes):
            return content
        return self._decoded(key, content)

    def _look(self, key: str, default: Any) -> Any:
        """Do what `get` does, with every check that may be needed."""
        if type(key) is str and key not in self._entries:
            # hot path: most calls are misses. The detour is read after the entry, as in `get`.
            detour = self._detours.detour
            if detour is None or get_ident() not in detour:
                self._counts.mine.misses += 1
                return default
        entry = self._asked(checked_key(key))
        return default if entry is None else self._decoded(key, entry.content)

    def _value_of(self, key: str, found: Entry) -> Any:
        return self._decoded(self._naming.stored(key), found.content)

    def _decoded(self, key: str, content: Any) -> Any:
        """Return the value of an entry's content; CodecError if it cannot be decoded."""
        if self._shares:
            return content
        if type(content) is not bytes:
            raise CodecError(
                key,
                f"cannot be decoded: another cache has a {type(content).__name__} there by reference, with "
                "codec='reference'",
            )
        return content if self._is_raw else decoded(self._codec, key, content)

    def __getitem__(self, key: str) -> V:
        found: V = self.get(key, MISSING)
        if found is MISSING:
            raise KeyError(key)
        return found

    def _read(self, key: str) -> Entry | None:
        return self._asked(self._naming.stored(key))

    def _asked(self, key: str) -> Entry | None:
        """Return the entry of a requested key; None if it is missing or expired."""
        entry = self._live_entry(key)
        counts = self._counts.mine
        if entry is None:
            counts.misses += 1
        else:
            counts.hits += 1
        return entry

    def _entry(self, key: str) -> Entry | None:
        """Return the entry of a key as the calling thread sees it in the store, expired or not."""
        near = self._near
        return self._bounded.entry(key) if near is None else near.read(key, self._bounded)

    def _live_entry(self, key: str) -> Entry | None:
        """Return the entry of a key, None if it is missing or expired; this counts as a use."""
        entry = self._entry(key)
        return entry if entry is not None and self._bounded.use(key, entry) else None

    def get_many(self, keys: Iterable[str]) -> dict[str, V]:
        """Return the values of those keys that exist and have not expired."""
        found = {key: self.get(key, MISSING) for key in checked_keys(keys)}
        return {key: value for key, value in found.items() if value is not MISSING}

    def __bool__(self) -> bool:
        """Return True, also for an empty cache, so that ``cache or default`` is the cache."""
        return True

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._live_entry(self._naming.stored(key)) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._live_keys())

    def __len__(self) -> int:
        return len(self._live_keys())

    def _live_keys(self) -> list[str]:
        """Return the keys of one instant, without expired ones."""
        if not self._bounded.may_expire and self._bounded.current_transaction() is None:
            keys = list(self.store.query_keys())
        else:
            is_expired, now = self._bounded.is_expired, self._bounded.now()
            keys = [key for key, entry in self._bounded.items() if not is_expired(key, entry, now)]
        return list(map(self._naming.shown, self._naming.own(keys))) if self._naming.prefix else keys

    def remaining(self, key: str) -> float | None:
        """Return the seconds until a key expires; None if it does not expire.

        Raises
        ------
        KeyError
            If it is missing or expired.
        """
        stored = self._naming.stored(key)
        entry = self._entry(stored)
        if entry is None or self._bounded.is_expired(stored, entry):
            raise KeyError(key)
        deadline = number(entry.get(EXPIRES))
        return None if deadline is None else deadline - self._bounded.now()

    # -- facts ------------------------------------------------------------------------------------

    @property
    def max_entries(self) -> int | None:
        """Maximum number of entries; None if there is no bound."""
        return self._max_entries

    @property
    def max_bytes(self) -> int | None:
        """Maximum total weight of the entries in bytes; None if there is no bound."""
        return self._max_bytes

    def stats(self) -> dict[str, Any]:
        """Return statistics since the cache was made.

        Returns
        -------
        stats : dict
            ``hits``, ``near_hits`` (hits that a near cache has served), ``misses``, ``hit_ratio`` (None
            before the first read), ``loads``, ``load_failures``, ``load_seconds`` (duration of all loads,
            failed ones included), ``mean_load_seconds`` (None before the first), ``undecodable`` (entries
            that could not be decoded and were loaded again), ``stale_served`` (expired values returned after
            a failed load), ``evictions`` (a dict: number by cause), ``entries``, ``bytes`` (total weight).
        """
        counts, totals = self._register.total(), self._bounded.totals()
        near_hits = self._near_hits + counts.near_hits
        hits = counts.hits + near_hits + totals.hits
        reads = hits + counts.misses
        attempts = counts.loads + counts.load_failures
        return {
            "hits": hits,
            "near_hits": near_hits,
            "misses": counts.misses,
            "hit_ratio": hits / reads if reads else None,
            "loads": counts.loads,
            "load_failures": counts.load_failures,
            "load_seconds": counts.load_seconds,
            "mean_load_seconds": counts.load_seconds / attempts if attempts else None,
            "undecodable": counts.undecodable,
            "stale_served": counts.stale_served,
            "evictions": totals.evictions,
            "entries": totals.entries,
            "bytes": totals.weight,
        }

    def close(self, timeout: Seconds | None = 30.0) -> None:
        """Close the store if the cache made it; otherwise stop enforcing the bound on the store.

        A cache on a given store that is used again after that enforces its bound again.

        Parameters
        ----------
        timeout : Seconds or None
            Maximum seconds for closing the store.
        """
        timeout = checked_timeout(timeout)
        if self._owns_store:
            self.store.close(timeout)
        else:
            if self._near is not None and self._parent is None:
                self._bounded.unobserve(self._near)
                self._near.close()
            self._bounded.close()

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
            "a cache cannot be pickled or copied: cache.store.save(path) writes its entries to a file, "
            "cache.store.load(path) reads them back"
        )

    def __repr__(self) -> str:
        bounds = [
            f"{name}={bound}"
            for name, bound in (("max_entries", self._max_entries), ("max_bytes", self._max_bytes))
            if bound is not None
        ]
        prefix = self._naming.prefix
        title = f"{type(self).__name__} {prefix!r}" if prefix else "Cache"
        return f"<{title} {self._bounded.count()} entries, {', '.join(bounds) or 'no bound'}>"

    def _renew_in_child(self) -> None:
        self._loads.renew()
        self._register.renew()


def _codec_of(codec: str | Codec | None, owns_store: bool, traits: Traits | None) -> str | Codec:
    """Return the codec of a cache; a cache on a given store without a named one has none."""
    if codec is None:
        if traits is not None:
            return traits.codec
        return ReferenceCodec() if owns_store else UnnamedCodec()
    if traits is not None and isinstance(codec, str) and codec in traits.trusting:
        warnings.warn(
            f"codec={codec!r} on a store that processes share runs arbitrary code from its entries: anyone "
            f"who can {traits.access} can run code in every process that reads it; use 'json' or 'raw'",
            UserWarning,
            stacklevel=4,  # the caller of `Cache`, whose constructor is wrapped by `advising`
        )
    return ReferenceCodec() if isinstance(codec, str) and codec == "reference" else codec


# All live caches, for forked children; by identity, as caches compare equal by their contents.
_caches: weakref.WeakValueDictionary[int, CacheReader[Any]] = weakref.WeakValueDictionary()


def _renew_caches_in_child() -> None:
    for cache in list(_caches.values()):
        cache._renew_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_caches_in_child)
