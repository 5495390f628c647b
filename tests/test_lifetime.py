"""Stores that come and go leave no thread and no memory behind, and say nothing at the end of the process."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import threading
import weakref

import pytest

from latchstore import DictMemoryStore, EventManager, StoreSetEvent

TIMEOUT = 20.0


def store_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("latchstore-events")]


def wait_for_threads_to_end() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("latchstore-events"):
            thread.join(TIMEOUT)


def used_store() -> DictMemoryStore:
    """Return a store whose thread runs."""
    store = DictMemoryStore(EventManager(), indexes=["kind"], history=5)
    store.event_manager.connect(StoreSetEvent, lambda event: None)
    store.set("k", (b"", {"kind": "x"}))
    with store.transaction(), store.snapshot() as view:
        store.delete("k")
        assert view.exists("k")
    watch = store.watch()
    store.from_bytes("k", b"")
    assert len(watch) == 1
    return store


def test_a_store_that_is_dropped_frees_its_thread_and_memory() -> None:
    store = used_store()
    assert store_threads()
    references: list[weakref.ref[object]] = [weakref.ref(store), weakref.ref(store._dispatcher)]
    store.flush(TIMEOUT)
    del store
    gc.collect()
    wait_for_threads_to_end()
    gc.collect()
    assert [reference() for reference in references] == [None, None]
    assert store_threads() == []


@pytest.mark.timeout(180)
@pytest.mark.parametrize("closing", [True, False], ids=["closed", "dropped"])
def test_many_stores_leave_no_thread_behind(closing: bool) -> None:
    for number in range(5_000):
        store = DictMemoryStore(EventManager())
        if number % 10 == 0:
            store.event_manager.connect(StoreSetEvent, lambda event: None)
        store.from_bytes("k", b"")
        if closing:
            store.close(TIMEOUT)
    del store
    gc.collect()
    wait_for_threads_to_end()
    assert store_threads() == []


ENDS = {
    "end of the script": "",
    "an exception": "raise RuntimeError('on purpose')",
    "sys.exit": "sys.exit(3)",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "inside a transaction": "tx = store.transaction('open'); tx.__enter__(); store.from_bytes('lost', b'')",
    "an exception in a transaction": "with store.transaction(): raise RuntimeError('on purpose')",
    "a thread that writes on": (
        "import threading\n"
        "write = lambda: [store.from_bytes('k', b'') for _ in iter(int, 1)]\n"
        "threading.Thread(target=write, daemon=True).start()"
    ),
    "a finalizer that writes": (
        "class Late:\n    def __del__(self, store=store): store.from_bytes('late', b'')\nlate = Late()"
    ),
    "an exit handler that writes": "import atexit; atexit.register(store.from_bytes, 'late', b'')",
}


@pytest.mark.parametrize("end", ENDS)
def test_at_the_end_of_the_process_pending_events_are_heard(end: str) -> None:
    script = textwrap.dedent(
        """
        import sys, time
        from latchstore import DictMemoryStore, EventManager, StoreSetEvent
        store = DictMemoryStore(EventManager())
        def listen(event):
            if event.key.startswith("slow"):
                time.sleep(0.02)
                print(event.key, flush=True)
        store.event_manager.connect(StoreSetEvent, listen)
        for number in range(5):
            store.from_bytes(f"slow {number}", b"")
        """
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script + ENDS[end]], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split("\n")[:5] == [f"slow {number}" for number in range(5)]
    # What Python itself tells of an exception is all there is.
    told = [line for line in done.stderr.splitlines() if not line.startswith((" ", "Traceback"))]
    wanted = {
        "an exception": ["RuntimeError: on purpose"],
        "KeyboardInterrupt": ["KeyboardInterrupt"],
        "an exception in a transaction": ["RuntimeError: on purpose"],
    }
    assert told == wanted.get(end, []), done.stderr
