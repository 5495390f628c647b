"""A store's thread ends with the store or with the interpreter, and what was committed is delivered before.

What happens at the end of the interpreter is shown by scripts that are run in a process of their own.
"""

from __future__ import annotations

import gc
import re
import threading
import time
import weakref
from pathlib import Path

import pytest

from latchstore import DictMemoryStore, EventManager, StoreSetEvent
from tests.dispatcher.calls import TIMEOUT
from tests.dispatcher.scripts import run_script

# -- the store and its thread ----------------------------------------------------------------------


def events_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "latchstore-events"]


def test_a_store_without_listeners_has_no_thread() -> None:
    before = events_threads()
    store = DictMemoryStore(EventManager())
    store.from_bytes("k", b"")
    with store.transaction():
        store.delete("k")
    store.flush()
    assert events_threads() == before


def test_a_store_that_nobody_uses_is_freed_and_its_thread_ends() -> None:
    heard: list[str] = []
    manager = EventManager()
    manager.connect(StoreSetEvent, lambda event: heard.append(event.key))
    before = events_threads()
    store = DictMemoryStore(manager)
    store.from_bytes("k", b"")
    store.flush()
    (thread,) = [thread for thread in events_threads() if thread not in before]
    gone = weakref.ref(store)
    del store
    gc.collect()
    assert gone() is None
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert heard == ["k"]


def test_a_store_with_events_on_the_way_lives_until_they_are_heard() -> None:
    heard: list[bytes] = []
    begun, let_go = threading.Event(), threading.Event()

    def listener(event: StoreSetEvent) -> None:
        begun.set()
        assert let_go.wait(TIMEOUT)
        heard.append(event.source.to_bytes(event.key))

    manager = EventManager()
    manager.connect(StoreSetEvent, listener)
    before = events_threads()
    store = DictMemoryStore(manager)
    store.from_bytes("a", b"first")
    store.from_bytes("b", b"second")
    assert begun.wait(TIMEOUT)
    (thread,) = [thread for thread in events_threads() if thread not in before]
    gone = weakref.ref(store)
    del store
    gc.collect()
    let_go.set()
    # In short waits: without the GIL an object that another thread lets go of is freed by the thread that
    # made it, when that runs.
    deadline = time.monotonic() + TIMEOUT
    while thread.is_alive() and time.monotonic() < deadline:
        thread.join(0.01)
    assert not thread.is_alive()
    assert heard == [b"first", b"second"]
    gc.collect()
    assert gone() is None


# -- the end of the interpreter -------------------------------------------------------------------


KEYS = [f"k{number}" for number in range(500)]


def test_at_exit_everything_is_heard_without_a_flush(tmp_path: Path) -> None:
    script = """
        store = new_store()
        for number in range(500):
            store.from_bytes(f"k{number}", b"")
    """
    assert run_script(script, tmp_path / "heard") == (0, "", "", KEYS)


def test_at_exit_by_an_exception_everything_is_heard(tmp_path: Path) -> None:
    script = """
        store = new_store()
        store.multiset_data([f"k{number}" for number in range(500)], [b""] * 500)
        raise RuntimeError("on purpose")
    """
    code, out, err, heard = run_script(script, tmp_path / "heard")
    assert (code, out, heard) == (1, "", KEYS)
    assert err.splitlines()[-1] == "RuntimeError: on purpose"
    assert err.count("Traceback") == 1


def test_at_exit_by_sys_exit_everything_is_heard(tmp_path: Path) -> None:
    script = """
        store = new_store()
        with store.transaction():
            for number in range(500):
                store.from_bytes(f"k{number}", b"")
        sys.exit(3)
    """
    assert run_script(script, tmp_path / "heard") == (3, "", "", KEYS)


def test_at_exit_several_stores_are_heard(tmp_path: Path) -> None:
    script = """
        stores = [new_store() for _ in range(5)]
        for number in range(500):
            stores[number % 5].from_bytes(f"k{number}", b"")
    """
    code, out, err, heard = run_script(script, tmp_path / "heard")
    assert (code, out, err) == (0, "", "")
    assert sorted(heard) == sorted(KEYS)


def test_at_exit_a_listener_that_never_ends_is_given_up(tmp_path: Path) -> None:
    script = """
        import threading
        at_exit.EXIT_TIMEOUT = 0.05
        store = new_store()
        store.event_manager.connect(StoreSetEvent, lambda event: threading.Event().wait())
        store.from_bytes("k0", b"")
        store.from_bytes("k1", b"")
    """
    code, out, err, heard = run_script(script, tmp_path / "heard")
    assert (code, out, heard) == (0, "", ["k0"])
    assert re.fullmatch(
        r"at exit: events not delivered in 0\.\d+ s: listener __main__\.<lambda> has had <StoreSetEvent .*> "
        r"for \d\.\d{3} s, 2 events pending\n",
        err,
    )


@pytest.mark.parametrize("flush", ["store.flush()", "pass"])
def test_at_exit_a_store_that_is_gone_is_not_waited_for(tmp_path: Path, flush: str) -> None:
    script = f"""
        def main():
            store = new_store()
            for number in range(500):
                store.from_bytes(f"k{{number}}", b"")
            {flush}
        main()
    """
    assert run_script(script, tmp_path / "heard") == (0, "", "", KEYS)


def test_a_closed_store_holds_up_nothing(tmp_path: Path) -> None:
    script = """
        with new_store() as store:
            for number in range(500):
                store.from_bytes(f"k{number}", b"")
    """
    assert run_script(script, tmp_path / "heard") == (0, "", "", KEYS)
