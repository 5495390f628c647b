"""What is checked while the store works: by readers, by a listener, and in one transaction."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from queue import SimpleQueue

from latchstore.contract.events import StoreDeleteEvent, StoreModificationEvent, StoreUpdateEvent
from latchstore.demo.files import File, suffix_of
from latchstore.demo.pool import one_line
from latchstore.engine.memory import DictMemoryStore

#: Seconds that readers may take for one look at the store before they count as blocked.
PATIENCE = 30.0
#: The names of the checks, in the order of the table.
CHECKS = ("stored", "values", "queries", "retag", "events", "counts", "disk")


@dataclass(slots=True)
class Check:
    """One thing that must hold; `detail` says in figures what was checked. Any thread may call `fail`."""

    name: str
    detail: str = ""
    problems: list[str] = field(default_factory=list)

    def fail(self, problem: str) -> None:
        """Note something that is wrong."""
        self.problems.append(problem)

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    @property
    def result(self) -> str:
        """The one word for the table."""
        return "ok" if self.passed else "FAILED"

    @property
    def explanation(self) -> str:
        """What was checked or, if something is wrong, the first problem."""
        if self.passed:
            return self.detail
        more = len(self.problems) - 1
        return self.problems[0] + (f" (and {more:,} more)" if more else "")


class SuffixCounter:
    """A listener that knows how many files of each suffix there are, from events alone.

    Its check fails if an event is out of order or does not fit the one before.
    """

    def __init__(self, check: Check) -> None:
        self._check = check
        self.events = 0  # changed by the store's event thread only
        # Guards the counts: changed by the store's event thread, read by any.
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._revision = 0

    def connect(self, store: DictMemoryStore) -> None:
        """Listen to a store from now on."""
        store.event_manager.connect(StoreModificationEvent, self.hear)

    def hear(self, event: StoreModificationEvent) -> None:
        """Count a key that is new, has got another suffix, or has gone."""
        try:
            self._count(event)
        except Exception as error:
            # The event manager would only log it.
            self._check.fail(f"a listener failed: {one_line(error)}")

    def _count(self, event: StoreModificationEvent) -> None:
        previous, revision = event.previous, event.revision or 0
        if isinstance(event, StoreUpdateEvent | StoreDeleteEvent) == (previous is None):
            self._check.fail(f"{event!r} does not say right whether the key is new")
        old = None if previous is None else previous.metadata.get("suffix", "")
        new = None if isinstance(event, StoreDeleteEvent) else event.metadata.get("suffix", "")
        if revision < self._revision:
            self._check.fail(f"{event!r} was heard after a later one")
        self._revision = revision
        self.events += 1
        with self._lock:
            if old is not None:
                self._counts[old] -= 1
            if new is not None:
                self._counts[new] += 1

    def counts(self) -> dict[str, int]:
        """Return the number of files of each suffix, as heard so far."""
        with self._lock:
            counts = self._counts.copy()
        return {suffix: count for suffix, count in counts.items() if count}


@dataclass(slots=True)
class Reader:
    """Reads each file as soon as it is stored, and now and then queries for all files of its suffix.

    A query costs what it returns. So it is followed by a twentieth as many reads of single files, and the
    whole takes time in proportion to the number of files.
    """

    store: DictMemoryStore
    checks: dict[str, Check]
    reads: int = 0
    queries: int = 0
    rows: int = 0
    until_query: int = 0

    def follow(self, stored: SimpleQueue[File | None]) -> None:
        """Check what comes out of the queue, up to the None that ends it."""
        while (file := stored.get()) is not None:
            self.check_value(file.key)
            if self.until_query:
                self.until_query -= 1
            else:
                self.until_query = self.check_query(file.key) // 20

    def check_value(self, key: str) -> None:
        """Check that a value's data and metadata belong together."""
        check = self.checks["values"]
        self.reads += 1
        try:
            value = self.store.get(key)
        except KeyError:
            check.fail(f"{key} was stored, but cannot be read")
            return
        with value as stream:
            data = stream.read()
        metadata = value.metadata
        if len(data) != metadata.get("size"):
            check.fail(f"{key} has {len(data):,} bytes, its metadata says {metadata.get('size')}")
        elif sha256(data) != metadata.get("sha256"):
            check.fail(f"{key} does not have the sha256 that its metadata says")

    def check_query(self, key: str) -> int:
        """Check that a query finds this key and only files of its suffix; return how many it finds."""
        check = self.checks["queries"]
        suffix = suffix_of(key)
        answer = dict(self.store.query(suffix=suffix))
        self.queries += 1
        self.rows += len(answer)
        if key not in answer:
            check.fail(f"{key} was stored, but a query for {suffix!r} does not find it")
        for found, metadata in answer.items():
            if suffix_of(found) != suffix or metadata.get("suffix") != suffix:
                check.fail(f"a query for {suffix!r} finds {found}")
        return len(answer)


#: How far the retagging is: nothing may be seen yet; is about to be committed; is committed.
BEFORE, COMMITTING, COMMITTED = range(3)


class RetagWatch:
    """One transaction that turns a suffix into another, and readers that count both again and again.

    `total` files have the old suffix. The check fails if a reader sees a part of the transaction, or sees it
    too early or too late, or is blocked.
    """

    def __init__(
        self, store: DictMemoryStore, old: str, new: str, total: int, readers: int, check: Check
    ) -> None:
        self._store = store
        self._old, self._new, self._total = old, new, total
        self._check = check
        # Set by the thread that retags, before and after what it does; read by the readers. No lock: one
        # assignment, and a reader asks before and after each query.
        self._stage = BEFORE
        self.stopped = threading.Event()
        # Guards the looks: how often each reader that still runs has looked, and how often all have.
        # Nothing is called under it.
        self._looked = threading.Condition()
        self._looks = dict.fromkeys(range(readers), 0)
        self.looks = 0

    def retag(self) -> float:
        """Change the suffix while readers follow; return the seconds it took without the waiting for them."""
        self.wait_for_looks()
        started = time.perf_counter()
        with self._store.transaction(f"retag {self._old}"):
            keys = list(self._store.query_keys(suffix=self._old))
            self._store.multiupdate_metadata(keys, [{"suffix": self._new}] * len(keys))
            seconds = time.perf_counter() - started
            self.wait_for_looks()
            self._stage = COMMITTING
            started = time.perf_counter()
        seconds += time.perf_counter() - started
        self._stage = COMMITTED
        self.wait_for_looks()
        return seconds

    def follow(self, number: int) -> None:
        """Look at the store until `stopped` is set; for one reader thread."""
        try:
            self._look_until_stopped(number)
        finally:
            with self._looked:
                del self._looks[number]
                self._looked.notify_all()

    def _look_until_stopped(self, number: int) -> None:
        while not self.stopped.is_set():
            self._look()
            with self._looked:
                self._looks[number] += 1
                self.looks += 1
                self._looked.notify_all()

    def _look(self) -> None:
        """Count both suffixes in the answer of one query, and check the counts."""
        earliest = self._stage
        answer = self._store.query(("suffix",))
        latest = self._stage
        counts = Counter(metadata["suffix"] for _, metadata in answer)
        old, new = counts[self._old], counts[self._new]
        if (old, new) not in ((self._total, 0), (0, self._total)):
            self._check.fail(f"a reader saw {old:,} of {self._old} and {new:,} of {self._new} at once")
        elif latest == BEFORE and new:
            self._check.fail("a reader saw the change before it was committed")
        elif earliest == COMMITTED and old:
            self._check.fail("a reader did not see the change after it was committed")

    def wait_for_looks(self) -> None:
        """Wait until each reader has looked once more, from the start to the end."""
        with self._looked:
            # The look that is under way may have begun earlier, so it takes two.
            goals = {number: looks + 2 for number, looks in self._looks.items()}
            # A reader that broke down has no looks any more, and keeps nobody waiting.
            done = self._looked.wait_for(
                lambda: all(looks >= goals[number] for number, looks in self._looks.items()), PATIENCE
            )
        if not done:
            self._check.fail(f"readers were blocked for {PATIENCE:g} s during a transaction")


def sha256(data: bytes) -> str:
    """Return the digest of the data in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
