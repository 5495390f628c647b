"""Tasks that share a thread (of trio, greenlets, gevent) share no transaction, and lose no writes in one."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from latchstore import Cache, DictMemoryStore, EventManager, WrongThreadError

TIMEOUT = 20.0

#: What a task may do while another one has a transaction open; all of it is refused.
USES: dict[str, Callable[[DictMemoryStore], object]] = {
    "transaction": lambda store: store.transaction("second").__enter__(),
    "optimistic": lambda store: store.transaction("second", optimistic=True).__enter__(),
    "from_bytes": lambda store: store.from_bytes("c", b"second"),
    "set": lambda store: store.set("c", (b"", {})),
    "set_data": lambda store: store.set_data("c", b""),
    "set_metadata": lambda store: store.set_metadata("c", {}),
    "update_metadata": lambda store: store.update_metadata("old", {"n": 1}),
    "delete": lambda store: store.delete("old"),
    "evict": lambda store: store.evict("old"),
    "multiset": lambda store: store.multiset(["c"], [(b"", {})]),
    "multiset_data": lambda store: store.multiset_data(["c"], [b"second"]),
    "multiset_metadata": lambda store: store.multiset_metadata(["c"], [{}]),
    "multiupdate_metadata": lambda store: store.multiupdate_metadata(["old"], [{}]),
    "mapping": lambda store: store.mapping().update(c=b""),
    "cache.set": lambda store: Cache(store).set("c", b""),
    "cache.clear": lambda store: Cache(store).clear(),
    "exists": lambda store: store.exists("a"),
    "get": lambda store: store.get("old"),
    "multiget": lambda store: list(store.multiget(["old"])),
    "query": lambda store: list(store.query()),
    "glob": lambda store: list(store.glob("*")),
    "len": len,
}


class Steps:
    """What two tasks do, as generators that yield where they leave the thread to the other one."""

    def __init__(self, optimistic: bool) -> None:
        self.store = DictMemoryStore(EventManager(), lock_timeout=1)
        self.store.from_bytes("old", b"")
        self.optimistic = optimistic
        self.refused: list[str] = []

    def first(self) -> Any:
        with self.store.transaction("first", optimistic=self.optimistic) as tx:
            self.store.from_bytes("a", b"first")
            yield
            assert tx.to_bytes("a") == b"first"
            self.store.from_bytes("b", b"first")

    def second(self) -> Any:
        for name, use in USES.items():
            with pytest.raises(WrongThreadError, match=r"belongs to .*but was used by"):
                use(self.store)
            self.refused.append(name)
        yield

    def check(self) -> None:
        assert self.refused == list(USES)
        assert sorted(self.store.glob("*")) == ["a", "b", "old"]
        assert self.store.info()["revision"] == 2
        with self.store.transaction("third", timeout=0):
            self.store.from_bytes("d", b"")
        self.store.close(TIMEOUT)


both_kinds = pytest.mark.parametrize("optimistic", [False, True], ids=["exclusive", "optimistic"])


@both_kinds
def test_tasks_of_trio_do_not_share_a_block(optimistic: bool) -> None:
    trio = pytest.importorskip("trio")
    steps = Steps(optimistic)

    async def main() -> None:
        inside, over = trio.Event(), trio.Event()

        async def first() -> None:
            for _ in steps.first():
                inside.set()
                await over.wait()

        async def second() -> None:
            await inside.wait()
            list(steps.second())
            over.set()

        with trio.fail_after(TIMEOUT):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(first)
                nursery.start_soon(second)

    trio.run(main)
    steps.check()


@both_kinds
def test_a_block_of_a_task_of_trio_goes_on_after_it_has_waited(optimistic: bool) -> None:
    trio = pytest.importorskip("trio")
    store = DictMemoryStore(EventManager())

    async def main() -> None:
        with store.transaction(optimistic=optimistic):
            store.from_bytes("a", b"1")
            await trio.sleep(0)
            store.from_bytes("b", store.to_bytes("a"))
            # A thread of its own is another matter: it sees what is committed.
            assert not await trio.to_thread.run_sync(store.exists, "a")

    trio.run(main)
    assert sorted(store.glob("*")) == ["a", "b"]


@both_kinds
def test_greenlets_do_not_share_a_block(optimistic: bool) -> None:
    greenlet = pytest.importorskip("greenlet").greenlet
    steps = Steps(optimistic)
    here = pytest.importorskip("greenlet").getcurrent()

    def run(generator: Any) -> None:
        for _ in generator:
            here.switch()

    first, second = greenlet(lambda: run(steps.first())), greenlet(lambda: run(steps.second()))
    first.switch()
    second.switch()
    steps.refused.clear()
    for _ in steps.second():  # the thread's own first greenlet
        pass
    first.switch()
    second.switch()
    steps.check()


@both_kinds
def test_the_block_of_the_first_greenlet_is_not_anothers(optimistic: bool) -> None:
    greenlet = pytest.importorskip("greenlet").greenlet
    steps = Steps(optimistic)
    with steps.store.transaction(optimistic=optimistic):
        steps.store.from_bytes("a", b"")
        greenlet(lambda: list(steps.second())).switch()
        steps.store.from_bytes("b", b"")
    steps.check()


@both_kinds
def test_a_greenlet_that_is_dropped_in_its_block_holds_up_nobody(optimistic: bool) -> None:
    greenlet = pytest.importorskip("greenlet").greenlet
    store = DictMemoryStore(EventManager(), lock_timeout=1)
    here = pytest.importorskip("greenlet").getcurrent()

    def run() -> None:
        with store.transaction(optimistic=optimistic):
            store.from_bytes("a", b"")
            here.switch()

    gc.collect()
    gc.disable()
    try:
        dropped = greenlet(run)
        dropped.switch()
        del dropped
        store.from_bytes("b", b"")
    finally:
        gc.enable()
    assert list(store.glob("*")) == ["b"]


def test_a_greenlet_within_a_task_of_asyncio_is_that_task() -> None:
    """So SQLAlchemy runs what is not asynchronous."""
    import asyncio

    greenlet = pytest.importorskip("greenlet").greenlet
    store = DictMemoryStore(EventManager())

    async def main() -> None:
        with store.transaction():
            greenlet(lambda: store.from_bytes("a", b"")).switch()

    asyncio.run(main())
    assert store.exists("a")


def run_script(*parts: str) -> str:
    """Run a program; return what it was warned of."""
    script = "".join(map(textwrap.dedent, parts))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    return done.stderr


IMPORTS = """
    import gevent
    from latchstore import DictMemoryStore, EventManager, LockTimeoutError, StoreSetEvent, WrongThreadError
"""
PATCH = """
    import gevent.monkey
    gevent.monkey.patch_all()
"""
GREENLETS = """
    def hold():
        with store.transaction("hold"):
            store.from_bytes("a", b"")
            gevent.sleep(0.01)
            store.from_bytes("b", b"")

    def write():
        try:
            store.from_bytes("c", b"")
        except WrongThreadError:
            return "refused"
        return "written"

    store = DictMemoryStore(EventManager(), lock_timeout=5)
    heard = []
    store.event_manager.connect(StoreSetEvent, lambda event: heard.append(event.key))
    holding, writing = gevent.spawn(hold), gevent.spawn(write)
    gevent.joinall([holding, writing], timeout=20, raise_error=True)
    store.flush(20)
    found = writing.value, heard, sorted(store.glob("*"))
"""


def test_greenlets_of_gevent_that_was_patched_before_are_threads() -> None:
    pytest.importorskip("gevent")
    warned = run_script(
        PATCH,
        IMPORTS,
        GREENLETS,
        """
        assert found == ("written", ["a", "b", "c"], ["a", "b", "c"]), found
        watch = store.watch()
        reading = gevent.spawn(watch.get, 20)
        gevent.sleep(0)
        store.from_bytes("d", b"")
        assert reading.get(timeout=20).key == "d"
        store.close(20)
        print("done")
        """,
    )
    assert "latchstore" not in warned


@pytest.mark.parametrize("patch", ["", PATCH], ids=["not patched", "patched after the import"])
def test_greenlets_of_gevent_that_share_a_thread_are_refused(patch: str) -> None:
    pytest.importorskip("gevent")
    warned = run_script(
        IMPORTS,
        patch,
        GREENLETS,
        """
        assert found == ("refused", ["a", "b"], ["a", "b"]), found
        store.close(20)
        print("done")
        """,
    )
    assert warned.count("patched by gevent or eventlet after latchstore was imported") == bool(patch)


NOTICED = {
    "a new store": "DictMemoryStore(EventManager())",
    "a transaction": "with store.transaction(): store.from_bytes('a', b'')",
    "a wait": "wait()",
}


@pytest.mark.parametrize("use", NOTICED)
def test_gevent_that_is_patched_later_is_noticed_when_it_matters(use: str) -> None:
    pytest.importorskip("gevent")
    run_script(
        IMPORTS,
        """
        import warnings
        store = DictMemoryStore(EventManager())
        watch = store.watch()

        def wait():
            try:
                watch.get(0.001)
            except TimeoutError:
                pass
        """,
        PATCH,
        f"""
        for first in (True, False):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                {NOTICED[use]}
            assert [each.category for each in caught] == [RuntimeWarning] * first, caught
        print("done")
        """,
    )
