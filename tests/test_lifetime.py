"""Stores that come and go leave no thread and no memory behind, and say nothing at the end of the process."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from typing import Any

import pytest

from latchstore import DictMemoryStore, EventManager, StoreSetEvent
from latchstore.engine.inspection import dispatcher_of
from tests.builds import skip_late_finalizer

TIMEOUT = 20.0


@pytest.fixture
def others() -> set[threading.Thread]:
    """Return the threads before the test: the stores of other tests are not its subject."""
    return set(threading.enumerate())


def store_threads(others: set[threading.Thread]) -> list[str]:
    return [
        thread.name
        for thread in set(threading.enumerate()) - others
        if thread.name.startswith("latchstore-events")
    ]


def wait_for_threads_to_end(others: set[threading.Thread]) -> None:
    """Wait for the threads of stores that are dropped.

    Without the GIL, an object that another thread has let go of last is freed by the thread that has made it,
    which is this one: so it must not wait for long in one call.
    """
    deadline = time.monotonic() + TIMEOUT
    for thread in set(threading.enumerate()) - others:
        if thread.name.startswith("latchstore-events"):
            while thread.is_alive() and time.monotonic() < deadline:
                thread.join(0.05)
                gc.collect()


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


def test_a_store_that_is_dropped_frees_its_thread_and_memory(others: set[threading.Thread]) -> None:
    store = used_store()
    assert store_threads(others)
    references: list[weakref.ref[object]] = [weakref.ref(store), weakref.ref(dispatcher_of(store))]
    store.flush(TIMEOUT)
    del store
    gc.collect()
    wait_for_threads_to_end(others)
    gc.collect()
    assert [reference() for reference in references] == [None, None]
    assert store_threads(others) == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("closing", [True, False], ids=["closed", "dropped"])
def test_many_stores_leave_no_thread_behind(closing: bool, others: set[threading.Thread]) -> None:
    """2,000 of them in the two cases together."""
    for number in range(1_000):
        store = DictMemoryStore(EventManager())
        if number % 10 == 0:
            store.event_manager.connect(StoreSetEvent, lambda event: None)
        store.from_bytes("k", b"")
        if closing:
            store.close(TIMEOUT)
    del store
    gc.collect()
    wait_for_threads_to_end(others)
    assert store_threads(others) == []


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


#: Whose finalizers are called late, in a process that has had a second thread.
LATE = {
    "a finalizer that writes",
    "a write and a flush",
    "close",
    "close while the thread runs again",
    "calls while a thread that was cut off is in a section",
    "calls while a thread that was cut off is the owner",
}


@pytest.mark.parametrize("end", ENDS)
def test_at_the_end_of_the_process_pending_events_are_heard(end: str) -> None:
    if end in LATE:
        skip_late_finalizer()
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


BEGIN = """
from latchstore import DictMemoryStore, EventManager, StoreSetEvent
import threading
store = DictMemoryStore(EventManager(), lock_timeout=60)
store.event_manager.connect(StoreSetEvent, lambda event: print(f"heard {event.key}\\n", end="", flush=True))
"""

#: The thread holds nothing of the script (no listener, no function), or its finalizers would not be called.
CUT_OFF = (
    "from latchstore.engine.inspection import table_of\n"
    "store = DictMemoryStore(EventManager(), lock_timeout=60)\n"
    "threading.Thread(daemon=True, target=table_of(store)"
)

#: What a finalizer does that needs others: it prints what waiting for them comes to.
WRITE_AND_FLUSH = """
  try: store.from_bytes('late', b'')
  except TimeoutError as error: print(type(error).__name__)
  try: store.flush(60); print('flushed')
  except TimeoutError as error: print(type(error).__name__)
"""

#: Scripts whose modules are cleared with a `Late` in them, and what is printed. Nobody else runs then.
FINALIZERS = {
    "the first write": ("", "store.from_bytes('k', b'')", []),
    "a write and a flush": (
        "store.from_bytes('k', b'')",
        "store.from_bytes('late', b'')\n  try: store.flush(60)\n  except TimeoutError as error: print(error)",
        ["heard k", "events not delivered: at interpreter exit no thread runs: 1 events pending"],
    ),
    "close": ("store.from_bytes('k', b'')", "store.close(60); print('closed')", ["heard k", "closed"]),
    "close while the thread runs again": (
        "store.from_bytes('k', b'')",
        "store.close(60); print('closed')",
        [],
    ),
    "close of a store that was not used": ("", "store.close(60); print('closed')", ["closed"]),
    "calls while a thread that was cut off is in a section": (
        f"{CUT_OFF}.exclusively, args=('cut off', threading.Event().wait)).start()\n"
        "while not table_of(store).latches.table.own.holder: pass",
        WRITE_AND_FLUSH,
        ["LockTimeoutError", "FlushTimeoutError"],
    ),
    "calls while a thread that was cut off is the owner": (
        f"{CUT_OFF}.alone, args=('cut off', 60, threading.Event().wait)).start()\n"
        "while table_of(store).latches.writer.claim is None: pass",
        WRITE_AND_FLUSH,
        ["LockTimeoutError", "flushed"],
    ),
}


@pytest.mark.parametrize("name", FINALIZERS)
def test_what_finalizers_do_at_the_very_end_neither_hangs_nor_says_anything(name: str) -> None:
    if name in LATE:
        skip_late_finalizer()
    begin, late, wanted = FINALIZERS[name]
    script = (
        f"{BEGIN}{begin}\nclass Late:\n def __del__(self, store=store, print=print):\n  {late}\nlate = Late()"
    )
    if name == "close while the thread runs again":
        # What was registered before the library is called after it has waited for its threads.
        older = "lambda: (store.from_bytes('older', b''), store.flush())"
        script = f"import atexit; atexit.register({older}){script}"
        wanted = ["heard k", "heard older", "closed"]
    # What waits for 60 s is ended before.
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=50
    )
    assert (done.stdout.splitlines(), done.stderr, done.returncode) == (wanted, "", 0)


EXITS = {
    "a listener that does not return": (
        "import latchstore.delivery.at_exit, logging; latchstore.delivery.at_exit.EXIT_TIMEOUT = 0.1\n"
        "logging.getLogger('latchstore').addHandler(logging.NullHandler())\n"
        "store.event_manager.connect(StoreSetEvent, lambda event: threading.Event().wait())\n"
        "store.from_bytes('k', b'')",
        ["heard k"],
    ),
    "a thread that Python waits for": (
        "def write(): threading.main_thread().join(); store.from_bytes('k', b'')\n"
        "threading.Thread(target=write).start()",
        ["heard k"],
    ),
    "threads that make stores": (
        "store.from_bytes('k', b'')\nstore.flush()\nmany = threading.Semaphore(0)\n"
        "def use():\n  while True:\n    other = DictMemoryStore(EventManager())\n"
        "    other.event_manager.connect(StoreSetEvent, lambda event: None)\n"
        "    with other.watch(), other.transaction(): other.from_bytes('k', b'')\n    many.release()\n"
        "for _ in range(4): threading.Thread(target=use, daemon=True).start()\n"
        "for _ in range(100): many.acquire()",
        ["heard k"],
    ),
    "an exit handler that is older than the library": (
        "store.from_bytes('k', b'')",
        ["heard k", "written"],
    ),
}


@pytest.mark.parametrize("name", EXITS)
def test_an_exit_neither_hangs_nor_says_anything(name: str) -> None:
    script, wanted = EXITS[name]
    older = ""
    if "older" in name:
        late = "lambda: (store.from_bytes('late', b''), print('written\\n', end='', flush=True))"
        older = f"import atexit; atexit.register({late})"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", older + BEGIN + script],
        capture_output=True,
        text=True,
        timeout=50,
    )
    # What the older handler writes may be heard, or not any more.
    told = [line for line in done.stdout.splitlines() if line != "heard late"]
    assert (told, done.stderr, done.returncode) == (wanted, "", 0)


def test_where_no_thread_can_be_started_any_more_the_writer_calls_the_listeners(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on Python 3.12.0 and 3.12.1 when the main thread is over."""
    store = DictMemoryStore(EventManager())
    heard: list[tuple[str, threading.Thread]] = []

    def listen(event: Any) -> None:
        heard.append((event.key, threading.current_thread()))
        if event.key == "first":
            store.from_bytes("second", b"")
            assert len(heard) == 1

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    store.event_manager.connect(StoreSetEvent, listen)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    store.from_bytes("while the main thread runs", b"")
    assert heard == []
    over = threading.Thread()
    monkeypatch.setattr(threading, "main_thread", lambda: over)
    store.from_bytes("first", b"")
    keys = ["while the main thread runs", "first", "second"]
    assert heard == [(key, threading.current_thread()) for key in keys]
    store.flush(TIMEOUT)
    store.close(TIMEOUT)
    assert not dispatcher_of(store).running
