"""What must hold while nothing goes on, and what must not grow."""

from __future__ import annotations

import gc
import sys
import threading
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass, field

from latchstore.engine.inspection import check_idle, dispatcher_of
from tests.soak.scene import SIDES, TIMEOUT, Mirror, Scene

#: Bytes that a round may leave: what the store holds has been replaced, and the worker threads are new.
LEFT = 500_000

#: Of which rest the memory is what later ones are compared with, and how many blocks may be added to it.
SETTLED = 1
MORE_BLOCKS = 5_000


def clear(scene: Scene) -> None:
    """Leave in the store what is always there, so that rests can be compared, and have all of it told."""
    store = scene.store
    scene.expect_one_instant(store)
    for key in [*store.glob("churn/*"), *store.glob("pair/*")]:
        store.delete(key)
    store.multiset(SIDES, [(b"", {"kind": "pair"})] * 2)
    store.flush(TIMEOUT)


def check_at_rest(scene: Scene, mirrors: Sequence[Mirror], watches: int) -> None:
    """Look at a store that nobody uses just now, with nothing in it but what always is."""
    store, expect = scene.store, scene.expect
    check_idle(store)
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
    blocks : list of int
        How many blocks of memory Python's own allocator has given out.
    left : list of int
        Bytes that were allocated since the rest before and are still held (tracemalloc), of the rounds in
        which that was traced. What is there in place of something older is among them.
    threads : list of int
    """

    blocks: list[int] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)

    def take(self, scene: Scene) -> None:
        """Measure, and compare with the first rests."""
        gc.collect()
        own = dispatcher_of(scene.store).thread
        deadline = time.monotonic() + TIMEOUT
        for thread in threading.enumerate():
            # Of stores that are gone: they end by themselves, soon.
            if thread.name == "latchstore-events" and thread is not own:
                thread.join(max(0.0, deadline - time.monotonic()))
        gc.collect()
        if tracemalloc.is_tracing():
            self.left.append(tracemalloc.get_traced_memory()[0])
            tracemalloc.stop()
            scene.expect(self.left[-1] < LEFT, f"memory has grown by {self.left[-1]:,} bytes in a round")
        self.threads.append(threading.active_count())
        scene.expect(self.threads[-1] == self.threads[0], f"threads: {self.threads}")
        self.blocks.append(sys.getallocatedblocks())
        # The first rounds import and cache things.
        grown = self.blocks[-1] - self.blocks[min(SETTLED, len(self.blocks) - 1)]
        scene.expect(grown < MORE_BLOCKS, f"memory has grown by {grown:,} blocks: {self.blocks[-10:]}")
