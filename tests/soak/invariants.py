"""What must hold while nothing goes on, and what must not grow."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.soak.scene import SIDES, TIMEOUT, Mirror, Scene

#: Bytes that memory may have grown by since the first rest.
GROWTH = 500_000


def check_at_rest(scene: Scene, mirrors: Sequence[Mirror], watches: int) -> None:
    """Look at a store that nobody uses just now, with nothing in it but what always is."""
    store, expect = scene.store, scene.expect
    store.flush(TIMEOUT)
    scene.expect_one_instant(store)
    for key in [*store.glob("churn/*"), *store.glob("pair/*")]:
        store.delete(key)
    store.multiset(SIDES, [(b"", {"kind": "pair"})] * 2)
    store.flush(TIMEOUT)
    store._table.check()
    expect(store._latches.writer.claim is None, f"the writer mutex is {store._latches.writer.describe()}")
    expect(store._gate is None, f"the gate is shut: {store._gate}")
    expect(not store._open_transactions, f"transactions are open: {store._open_transactions}")
    expect(store._committing is None, f"a commit is under way: {store._committing}")
    info, stats = store.info(), store.stats()
    for name in ("pending_events", "snapshots", "pinned_entries", "pinned_bytes"):
        expect(info[name] == 0, f"{name} is {info[name]}")
    expect(stats["watches"] == watches, f"{stats['watches']} watches are open, not {watches}")
    revisions = {key: store.get(key).revision for key in store.glob("*")}
    for mirror in mirrors:
        wrong = mirror.revisions.items() ^ revisions.items()
        expect(not wrong, f"what was told and what is there differ: {sorted(wrong)[:6]}")


@dataclass
class Measures:
    """Memory and threads at each rest.

    Attributes
    ----------
    memory : list of int
        Bytes that Python has allocated (tracemalloc).
    threads : list of int
    """

    memory: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)

    def take(self, scene: Scene) -> None:
        """Measure, and compare with the first rest."""
        gc.collect()
        own = scene.store._dispatcher._thread
        for thread in threading.enumerate():
            # Of stores that are gone: they end by themselves, soon.
            if thread.name == "latchstore-events" and thread is not own:
                thread.join(TIMEOUT)
        gc.collect()
        self.memory.append(tracemalloc.get_traced_memory()[0])
        self.threads.append(threading.active_count())
        scene.expect(self.threads[-1] == self.threads[0], f"threads: {self.threads}")
        grown = self.memory[-1] - self.memory[0]
        scene.expect(grown < GROWTH, f"memory has grown by {grown:,} bytes: {self.memory[-10:]}")
