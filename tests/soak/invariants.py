"""What must hold while nothing goes on, and what must not grow."""

from __future__ import annotations

import ctypes
import gc
import mmap
import sys
import threading
import time
import tracemalloc
from dataclasses import dataclass, field
from pathlib import Path

from latchstore import DictMemoryStore, Watch
from latchstore.cache.inspection import loads_of
from latchstore.cache.loading import Removal
from latchstore.contract.frames import frames_of_threads
from latchstore.engine.inspection import check_idle, dispatcher_of
from latchstore.engine.preimages import LayerView
from latchstore.engine.snapshot import Snapshot
from tests.soak.leaks import leaked
from tests.soak.scene import CACHED, SIDES, TIMEOUT, Mirrors, Scene

#: Bytes that a round may leave: what the store holds has been replaced, and the worker threads are new.
LEFT = 500_000

#: Of which rest the memory is what later ones are compared with, and how many blocks may be added to it.
SETTLED = 1
MORE_BLOCKS = 5_000

#: How many bytes more may be in use than at that rest.
MORE_BYTES = 50_000_000


def clear(scene: Scene) -> None:
    """Leave in the stores what is always there, so that rests can be compared, and have all of it told."""
    store = scene.store
    scene.expect_one_instant(store)
    for key in [*store.glob("churn/*"), *store.glob("pair/*")]:
        store.delete(key)
    store.multiset(SIDES, [(b"", {"kind": "pair"})] * 2)
    store.flush(TIMEOUT)
    scene.expect_bound()
    scene.cache.clear()
    for number in range(CACHED):
        key = f"key/{number}"
        scene.cache.get_or_load(key, lambda key: (key, 0), timeout=TIMEOUT)
    scene.expect_bound()
    scene.cached.flush(TIMEOUT)


def check_at_rest(scene: Scene, mirrors: Mirrors) -> None:
    """Look at a store that nobody uses just now, with nothing in it but what always is."""
    store, expect = mirrors.store, scene.expect
    check_idle(store)
    info, stats = store.info(), store.stats()
    for name in ("pending_events", "snapshots", "pinned_entries", "pinned_bytes"):
        expect(info[name] == 0, f"{name} is {info[name]}")
    expect(stats["watches"] == 1, f"{stats['watches']} watches are open, not 1")
    thread = dispatcher_of(store).thread
    expect(thread is None or thread.is_alive(), f"{thread} has ended and is noted as running")
    revisions = {key: store.get(key).revision for key in store.glob("*")}
    for mirror in (mirrors.heard, mirrors.read):
        expect(mirror.last == info["revision"], f"told of revision {mirror.last} of {info['revision']}")
        wrong = mirror.revisions.items() ^ revisions.items()
        expect(not wrong, f"what was told and what is there differ: {sorted(wrong)[:6]}")


def close_leaked(scene: Scene) -> None:
    """Close what the interpreter leaks when memory fails, and count it."""
    found = leaked(Snapshot, LayerView, Watch, DictMemoryStore, Removal)
    scene.leaked = len(found)  # those of earlier rounds among them
    for each in found:
        if isinstance(each, Removal):
            loads_of(scene.cache).end_removal(each, committed=False)
        elif not isinstance(each, DictMemoryStore) or is_made(each):
            each.close()


def is_made(store: DictMemoryStore) -> bool:
    """Tell whether the constructor of a store has come to its end."""
    try:
        store.is_connected()
    except AttributeError:
        return False
    return True


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
    resident : list of int
        Bytes of the process that are in memory, 0 where the system does not tell.
    used : list of int
        Those of them that the C library does not keep free in its arenas, to give them out again. It keeps
        more with each thread that comes and goes.
    threads : list of int
        How many threads run.
    """

    blocks: list[int] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    used: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    # Of other stores of the process, which may be kept.
    _before: frozenset[threading.Thread] = field(default_factory=lambda: frozenset(threading.enumerate()))

    def take(self, scene: Scene) -> None:
        """Measure, and compare with the first rests."""
        gc.collect()
        others = [dispatcher_of(store).thread for store in scene.stores] + [*self._before]
        deadline = time.monotonic() + TIMEOUT
        for thread in threading.enumerate():
            # Of stores that are gone: they end by themselves, soon.
            if thread.name == "latchstore-events" and thread not in others and thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))
                scene.expect(not thread.is_alive(), "a thread runs whose store is gone")
        gc.collect()
        if tracemalloc.is_tracing():
            self.left.append(tracemalloc.get_traced_memory()[0])
            tracemalloc.stop()
            scene.expect(self.left[-1] < LEFT, f"memory has grown by {self.left[-1]:,} bytes in a round")
        # Not those that `threading` lists: one that was struck at its very end stays there for ever.
        self.threads.append(len(frames_of_threads()))
        scene.expect(self.threads[-1] == self.threads[0], f"threads: {self.threads}")
        self.blocks.append(sys.getallocatedblocks())
        self.resident.append(resident())
        self.used.append(self.resident[-1] - free_in_arenas())
        # The first rounds import and cache things.
        grown = self.blocks[-1] - self.blocks[min(SETTLED, len(self.blocks) - 1)]
        # CPython leaks where memory fails.
        scene.expect(
            scene.storm.starves or grown < MORE_BLOCKS,
            f"memory has grown by {grown:,} blocks: {self.blocks[-10:]}",
        )
        grown = self.used[-1] - self.used[min(SETTLED, len(self.used) - 1)]
        # Where all memory was taken in small pieces, what is used since lies between them.
        most = MORE_BYTES * (4 if scene.storm.starves else 1)
        scene.expect(grown < most, f"{grown:,} more bytes are in use: {self.used[-10:]}")


def resident() -> int:
    """Return how many bytes of this process are in memory."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except OSError:
        return 0
    return pages * mmap.PAGESIZE


class _Arenas(ctypes.Structure):
    """What ``mallinfo2`` returns."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def free_in_arenas() -> int:
    """Return how many bytes the C library has free; 0 where it does not tell."""
    try:
        function = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError, TypeError):
        return 0
    function.restype = _Arenas
    return int(function().fordblks)
