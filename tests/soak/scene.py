"""What all threads of a soak share."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latchstore import (
    Cache,
    DictMemoryStore,
    EventManager,
    EventsLost,
    StoreDeleteEvent,
    StoreModificationEvent,
)
from latchstore.contract.store import AbstractReadOnlyStore
from tests.soak.storms import CALM, Storm

ACCOUNTS = [f"account/{number}" for number in range(20)]
TOTAL = 100 * len(ACCOUNTS)
SIDES = ["pair/left", "pair/right"]

#: How many keys there are for the cache, and how many of them it may keep.
CACHED = 120
BOUND = 50

#: Seconds after which a wait has failed.
TIMEOUT = 60.0

#: How many events of a store there may be from one rest to the next.
EVENTS = 400_000


@dataclass
class Scene:
    """One soak.

    Attributes
    ----------
    store : DictMemoryStore
    cache : Cache
        On a store of its own, with a bound that its use exceeds.
    seed : int
    directory : Path
        For what is saved.
    storm : Storm
        What strikes.
    violations : list of str
        What must not be, and was.
    leaked : int
        How many snapshots, watches, stores and the like the interpreter has leaked.
    """

    store: DictMemoryStore
    seed: int
    directory: Path
    storm: Storm = CALM
    violations: list[str] = field(default_factory=list)
    leaked: int = 0

    def __post_init__(self) -> None:
        self.cached = DictMemoryStore(EventManager(), lock_timeout=TIMEOUT, max_pending_events=1_000)
        self.stores = (self.store, self.cached)
        self.cache: Cache[tuple[str, int]] = Cache(self.cached, codec="pickle", max_entries=BOUND)

    def expect(self, true: bool, what: str) -> None:
        """Note a violation if something is not true."""
        if not true:
            self.violations.append(f"{threading.current_thread().name}: {what}")

    def expect_one_instant(self, view: AbstractReadOnlyStore) -> None:
        """Look at what holds between any two commits."""
        total = sum(metadata["balance"] for metadata in view.multiget_metadata(ACCOUNTS))
        self.expect(total == TOTAL, f"the accounts have {total}, not {TOTAL}")
        sides = [view.to_bytes(side) for side in SIDES if view.exists(side)]
        self.expect(sides in ([], sides[:1] * 2), f"half a commit: {sides}")

    def expect_bound(self) -> None:
        """Look whether the cache keeps no more than it may."""
        with self.cached.snapshot() as view:
            entries = sum(1 for _ in view.query_keys())
        self.expect(entries <= BOUND, f"the cache has {entries} entries, not {BOUND}")


class Ring:
    """The events that a listener was called with, kept by one call in C that needs no memory.

    A listener that is written in Python, or that needs memory, may be broken off by what strikes the thread
    that calls it. A deque that is full keeps the blocks that it gives up for those that it needs next.
    """

    def __init__(self) -> None:
        self._events: deque[Any] = deque([None] * EVENTS, EVENTS)
        self._empty()
        #: The listener.
        self.append = self._events.append

    def _empty(self) -> None:
        self._events.extend([None] * (EVENTS + 100))

    def take(self) -> list[Any]:
        """Return the events since the last time; while none comes."""
        events = [event for event in self._events if event is not None]
        self._empty()
        return events


class Mirror:
    """The revisions that a store's keys must have, going by what was told of it."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.revisions: dict[str, int] = {}
        self.last = 0
        self.events = 0
        # The keys of the last commit: each is changed once in it.
        self._keys: set[str] = set()

    def hear(self, event: StoreModificationEvent) -> None:
        """Be told of a change."""
        revision = event.revision or 0
        expect = self._scene.expect
        expect(revision >= self.last, f"revision {revision} was told after {self.last}")
        if revision != self.last:
            expect(revision == self.last + 1, f"revision {revision} was told after {self.last}")
            self._keys.clear()
        expect(event.key not in self._keys, f"{event.key!r} was told twice of revision {revision}")
        self._keys.add(event.key)
        self.last = revision
        self.events += 1
        if isinstance(event, StoreDeleteEvent):
            known = self.revisions.pop(event.key, None)
            expect(known is not None, f"{event.key!r} went and was not there")
        else:
            self.revisions[event.key] = revision


class Mirrors:
    """What a listener and a watch are told of a store, which must be the same and add up to what is there."""

    def __init__(self, scene: Scene, store: DictMemoryStore) -> None:
        self.store = store
        self.heard, self.read = Mirror(scene), Mirror(scene)
        self._ring = Ring()
        store.event_manager.connect(StoreModificationEvent, self._ring.append)
        self.changes = store.watch(max_buffer=10_000_000)

    def catch_up(self) -> None:
        """Take what has been told; after a flush, while nobody writes."""
        events = self._ring.take()
        assert len(events) < EVENTS, "the ring is too small"
        for event in events:
            self.heard.hear(event)
        while len(self.changes):
            change = self.changes.get(0)
            assert not isinstance(change, EventsLost)
            self.read.hear(change)
