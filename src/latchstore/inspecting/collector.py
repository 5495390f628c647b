"""The data for the page of ``top``: the last changes of a store, and its activity, gathered by one thread.

1. One thread reads the store, for any number of browsers. It empties a watch of its own with a small buffer,
   a few times a second. So the cost for a busy store is that of those events, not of all; commits in between
   are one gap, with their revisions.
2. Without a browser, only the changes are read.
3. Work in proportion to the keys of the store, which is counting queues, takes at most a twentieth of the
   time.
4. The thread raises no errors: errors of the store are shown on the page.

Thread safety: the thread publishes its data by one assignment of an immutable tuple. Threads of browsers read
it, and sleep until there is another one. There is no lock.
"""

from __future__ import annotations

import json
import logging
import reprlib
import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from latchstore.cache.shared import Cache
from latchstore.contract.errors import StoreError, WaitTimeoutError, WatchClosedError
from latchstore.contract.events import EventsLost, StoreEvictEvent, StoreModificationEvent
from latchstore.delivery.waiting import Waiters
from latchstore.delivery.watch import Watch
from latchstore.engine.transactional_store import TransactionalStore
from latchstore.inspecting import report

logger: logging.Logger = logging.getLogger("latchstore")

#: Number of changes that are kept, for browsers that come later or read slowly; and the buffer of the watch,
#: which is smaller, so that a gap is not dropped at once.
MOST_CHANGES, _IN_WATCH = 200, 100

#: Seconds between two reads of the watch, with and without a browser.
_PAUSE, _IDLE_PAUSE = 0.2, 1.0

#: Minimum seconds between two counts of the queues, and minimum as a multiple of the time for a count.
_QUEUES_PAUSE, _QUEUES_SHARE = 2.0, 20.0

_short = reprlib.Repr()
_short.maxdict = _short.maxlist = _short.maxtuple = _short.maxset = _short.maxfrozenset = 8
_short.maxstring = _short.maxother = 80


class Gathered(NamedTuple):
    """The data of a page, at one moment.

    Attributes
    ----------
    changes : tuple of dict
        The last changes, in order; each has a ``number``.
    total : int
        Number of changes so far: the number of the last one.
    state : str or None
        The state as JSON; None before the first state.
    version : int
        Number of states so far.
    """

    changes: tuple[dict[str, Any], ...] = ()
    total: int = 0
    state: str | None = None
    version: int = 0


class News(NamedTuple):
    """Data that a browser does not have yet.

    Attributes
    ----------
    changes : list of dict
        In order; each has a ``number``, counted from 1.
    missed : bool
        Whether there were other changes before these, after those that the browser has.
    state : str or None
        The state as JSON, if there is a newer one.
    version : int
        Version of the state.
    """

    changes: list[dict[str, Any]]
    missed: bool
    state: str | None
    version: int


class Collector:
    """Gathers the data of a store for a page.

    Parameters
    ----------
    store : TransactionalStore
    caches : mapping of str to Cache
        Caches whose statistics are shown, by the names to show.
    interval : float
        Seconds between two reads of the store's activity.
    """

    def __init__(self, store: TransactionalStore, caches: Mapping[str, Cache[Any]], interval: float) -> None:
        self._store = store
        self._caches = dict(caches)
        self._interval = interval
        self._gathered = Gathered()
        self._waiters = Waiters()
        # Connected browsers, changed by single operations.
        self._browsers: set[object] = set()
        # Set when a browser connects, and at the end: the thread then reads at once.
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._watch: Watch | None = None
        self._queues: list[dict[str, Any]] = []
        self._queues_next = 0.0
        self._open_watch()  # here, so that commits from now on are shown
        self._thread = threading.Thread(target=self._run, name="latchstore-top", daemon=True)
        self._thread.start()

    # -- for browsers -----------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether gathering has ended."""
        return self._ended.is_set()

    def pause(self, seconds: float) -> None:
        """Wait for this many seconds, or until the end."""
        self._ended.wait(seconds)

    def enter(self, browser: object) -> None:
        """Register a browser."""
        self._browsers.add(browser)
        self._wake.set()

    def leave(self, browser: object) -> None:
        """Unregister a browser."""
        self._browsers.discard(browser)

    def news_after(self, number: int, version: int, timeout: float) -> News:
        """Return the news after a change and a state; wait for some, at most `timeout` seconds."""
        self._waiters.wait(
            lambda: self._gathered.total > number or self._gathered.version > version or self.ended,
            timeout,
            yields=0,
            look_again=timeout,
        )
        now = self._gathered
        changes = [change for change in now.changes if change["number"] > number]
        missed = now.total - number > len(changes)
        return News(changes, missed, now.state if now.version > version else None, now.version)

    def state_now(self) -> str:
        """Return the present state, as JSON."""
        return json.dumps(self._state_of(count_queues=True))

    def close(self) -> None:
        """End the thread and close its watch; closing twice is harmless."""
        self._ended.set()
        self._wake.set()
        self._waiters.ring_all()
        self._thread.join()
        if self._watch is not None:
            self._watch.close()

    # -- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        next_state = 0.0
        while not self.ended:
            try:
                self._take_changes()
                if self._browsers and time.monotonic() >= next_state:
                    next_state = time.monotonic() + self._interval
                    self._publish_state()
            except Exception:
                logger.exception("the data for the page of latchstore.top cannot be gathered")
            self._wake.wait(_PAUSE if self._browsers else _IDLE_PAUSE)
            if self._wake.is_set():
                self._wake.clear()
                next_state = 0.0

    def _open_watch(self) -> None:
        try:
            self._watch = self._store.watch(max_buffer=_IN_WATCH)
        except (StoreError, OSError):
            self._watch = None  # closed, or unreachable: tried again later

    def _take_changes(self) -> None:
        if self._watch is None:
            self._open_watch()
        if self._watch is None:
            return
        taken: list[dict[str, Any]] = []
        try:
            # At most the size of the buffer, or a busy store would keep the thread here.
            for _ in range(_IN_WATCH + 1):
                taken.append(_summary(self._watch.get(0)))
        except WaitTimeoutError:
            pass
        except WatchClosedError:
            self._watch = None
        if taken:
            now = self._gathered
            for number, change in enumerate(taken, now.total + 1):
                change["number"] = number
            changes = (*now.changes, *taken)[-MOST_CHANGES:]
            self._publish(now._replace(changes=changes, total=now.total + len(taken)))

    def _publish_state(self) -> None:
        state = json.dumps(self._state_of(count_queues=False))
        now = self._gathered
        self._publish(now._replace(state=state, version=now.version + 1))

    def _publish(self, gathered: Gathered) -> None:
        self._gathered = gathered
        self._waiters.ring_all()

    def _state_of(self, count_queues: bool) -> dict[str, Any]:
        store = self._store
        state: dict[str, Any] = {"store": repr(store), "time": time.time(), "error": None}
        try:
            info = store.info()
            state["info"] = {**info, "indexes": [report.index_name(each) for each in info.get("indexes", [])]}
            state["stats"] = store.stats()
            state["activity"] = store.activity()
            state["caches"] = [_cache_state(name, cache) for name, cache in self._caches.items()]
            state["queues"] = self._queues_now(count_queues)
        except (StoreError, OSError) as error:
            state["error"] = f"{type(error).__name__}: {error}"
        return state

    def _queues_now(self, at_once: bool) -> list[dict[str, Any]]:
        begun = time.monotonic()
        if at_once or begun >= self._queues_next:
            self._queues = report.queues(self._store, time.time())
            taken = time.monotonic() - begun
            self._queues_next = begun + max(_QUEUES_PAUSE, _QUEUES_SHARE * taken)
        return self._queues


def _cache_state(name: str, cache: Cache[Any]) -> dict[str, Any]:
    return {
        "name": name,
        "max_entries": cache.max_entries,
        "max_bytes": cache.max_bytes,
        **cache.stats(),
    }


def _summary(event: StoreModificationEvent | EventsLost) -> dict[str, Any]:
    """Return the displayed form of a change: without data, and with metadata cut."""
    if isinstance(event, EventsLost):
        return {
            "action": "gap",
            "time": time.time(),
            "first": event.first_revision,
            "last": event.last_revision,
        }
    size = getattr(event.value, "size", None)
    return {
        "action": f"evict ({event.cause})" if isinstance(event, StoreEvictEvent) else event.action,
        "time": time.time(),
        "revision": event.revision,
        "key": event.key if len(event.key) <= 200 else f"{event.key[:200]}…",
        "size": size if isinstance(size, int) else None,
        "metadata": _short.repr(event.metadata) if event.metadata else "",
        "transaction": getattr(event.transaction, "notes", None),
    }
