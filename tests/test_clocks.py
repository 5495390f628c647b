"""Every wait ends, and not too early, whatever a test has done to the clocks."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest import mock

import pytest

from latchstore import Cache, DictMemoryStore, EventManager, StoreSetEvent, TransactionConflictError
from latchstore.engine.transactional_store import TransactionalStore

TIMEOUT = 20.0
SHORT = 0.05

#: The functions of `time` that tests replace.
NAMES = ("time", "monotonic", "perf_counter", "time_ns", "monotonic_ns", "perf_counter_ns")


@contextmanager
def replaced(reading: Callable[[str, Callable[[], Any]], Callable[[], Any]]) -> Iterator[None]:
    """Replace them in the module, as mocks and time libraries do."""
    with pytest.MonkeyPatch.context() as patches:
        for name in NAMES:
            patches.setattr(time, name, reading(name, getattr(time, name)))
        yield


def frozen() -> AbstractContextManager[Any]:
    def reading(name: str, real: Callable[[], Any]) -> Callable[[], Any]:
        now = real()
        return lambda: now

    return replaced(reading)


def jumping(seconds: float) -> AbstractContextManager[Any]:
    """Have each look at a clock find it so many seconds on."""

    def reading(name: str, real: Callable[[], Any]) -> Callable[[], Any]:
        now, step = [real()], int(seconds * 10**9) if name.endswith("_ns") else seconds

        def read() -> Any:
            now[0] += step
            return now[0]

        return read

    return replaced(reading)


def freezegun() -> AbstractContextManager[Any]:
    library = pytest.importorskip("freezegun")
    context: AbstractContextManager[Any] = library.freeze_time("2024-01-01")
    return context


def no_sleep() -> AbstractContextManager[Any]:
    return mock.patch("time.sleep")


CLOCKS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "frozen": frozen,
    "jumping on": lambda: jumping(3600),
    "jumping back": lambda: jumping(-3600),
    "freezegun": freezegun,
    "no sleep": no_sleep,
}


class Scene:
    """A store in which nothing that is waited for comes: a writer stays, a listener, a load.

    Parameters
    ----------
    store : TransactionalStore, optional
        One of another engine, whose waits for locks are `SHORT`, and which may have two pending events.
    other : TransactionalStore, optional
        Another one with the same contents, as another process has it, in which the writer and the load are.
    """

    def __init__(
        self, store: TransactionalStore | None = None, other: TransactionalStore | None = None
    ) -> None:
        self.store: Any = store or DictMemoryStore(EventManager(), lock_timeout=SHORT, max_pending_events=2)
        self.cache: Cache[Any] = Cache(self.store, codec="raw")
        self._other = other
        self.over = threading.Event()
        self._threads: list[threading.Thread] = []

    def hold(self) -> None:
        """Have another thread in a transaction."""

        def run(inside: threading.Event) -> None:
            with (self._other or self.store).transaction("hold"):
                inside.set()
                self.over.wait(TIMEOUT)

        self._start(run)

    def load(self) -> None:
        def run(inside: threading.Event) -> None:
            def loader(key: str) -> bytes:
                inside.set()
                self.over.wait(TIMEOUT)
                return b""

            cache = Cache(self._other, codec="raw") if self._other else self.cache
            cache.get_or_load("loaded", loader)

        self._start(run)

    def listen(self) -> None:
        """Have a listener that does not return, and as many events as may wait."""
        inside = threading.Event()

        def listener(event: object) -> None:
            inside.set()
            self.over.wait(TIMEOUT)

        self.store.event_manager.connect(StoreSetEvent, listener)
        self.store.from_bytes("a", b"")
        assert inside.wait(TIMEOUT)
        self.store.from_bytes("b", b"")

    def _start(self, run: Callable[[threading.Event], None]) -> None:
        inside = threading.Event()
        thread = threading.Thread(target=run, args=(inside,), daemon=True)
        thread.start()
        self._threads.append(thread)
        assert inside.wait(TIMEOUT)

    def end(self) -> None:
        self.over.set()
        for thread in self._threads:
            thread.join(TIMEOUT)
        self.store.close(TIMEOUT)
        if self._other is not None:
            self._other.close(TIMEOUT)


def conflicting(scene: Scene) -> None:
    """Meet a conflict in each attempt until the time is over."""
    with scene.store.transaction():
        scene.store.from_bytes("n", b"")
    for attempt in scene.store.attempts(timeout=SHORT, tries=1_000_000):
        with attempt as tx:
            tx.to_bytes("n")
            writer = threading.Thread(target=scene.store.from_bytes, args=("n", b""))
            writer.start()
            writer.join(TIMEOUT)
            tx.from_bytes("m", b"")


def ringing(wait: Callable[[Scene], object]) -> Callable[[Scene], object]:
    """Have the wait woken again and again, by commits that do not bring what it waits for."""

    def run(scene: Scene) -> None:
        def commit() -> None:
            while not scene.over.is_set():
                scene.store.from_bytes("other", b"")

        writer = threading.Thread(target=commit, daemon=True)
        writer.start()
        try:
            wait(scene)
        finally:
            scene.over.set()
            writer.join(TIMEOUT)

    return run


def never(scene: Scene) -> None:
    scene.store.wait_for(lambda: False, SHORT)


def nothing(scene: Scene) -> None:
    pass


#: All that waits with a timeout: what it is kept waiting by, and the wait.
WAITS: dict[str, tuple[Callable[[Scene], None], Callable[[Scene], object]]] = {
    "write": (Scene.hold, lambda scene: scene.store.from_bytes("a", b"")),
    "multiset": (Scene.hold, lambda scene: scene.store.multiset_data(["a"], [b""])),
    "transaction": (Scene.hold, lambda scene: scene.store.transaction().__enter__()),
    "transaction's own": (Scene.hold, lambda scene: scene.store.transaction(timeout=SHORT).__enter__()),
    "add_index": (Scene.hold, lambda scene: scene.store.add_index("kind")),
    "cache.set": (Scene.hold, lambda scene: scene.cache.set("a", b"")),
    "close beside a writer": (Scene.hold, lambda scene: scene.store.close(SHORT)),
    "flush": (Scene.listen, lambda scene: scene.store.flush(SHORT)),
    "flush of a revision": (Scene.listen, lambda scene: scene.store.flush(SHORT, revision=2)),
    "close": (Scene.listen, lambda scene: scene.store.close(SHORT)),
    "back-pressure": (Scene.listen, lambda scene: scene.store.from_bytes("c", b"")),
    "wait_for_key": (nothing, lambda scene: scene.store.wait_for_key("z", SHORT)),
    "wait_for": (nothing, never),
    "watch.get": (nothing, lambda scene: scene.store.watch().get(SHORT)),
    "watch.get while others write": (nothing, ringing(lambda scene: scene.store.watch("z").get(SHORT))),
    "wait_for while others write": (
        nothing,
        ringing(never),
    ),
    "load": (Scene.load, lambda scene: scene.cache.get_or_load("loaded", str.encode, timeout=SHORT)),
    "attempts": (nothing, conflicting),
}


#: Those of them that wait for another process where there is one.
FOR_OTHERS = ("write", "multiset", "transaction", "cache.set", "load")


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.end()


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("wait", WAITS)
def test_every_wait_ends(scene: Scene, wait: str, clock: str) -> None:
    ends(scene, wait, clock)


def ends(scene: Scene, wait: str, clock: str) -> None:
    """Look whether a wait ends while the clocks are replaced."""
    prepare, call = WAITS[wait]
    prepare(scene)
    ends_with_an_error(lambda: call(scene), clock)


def ends_with_an_error(call: Callable[[], object], clock: str) -> None:
    """Look whether a call ends in time, and by an error, while the clocks are replaced."""
    ended: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except (TimeoutError, TransactionConflictError) as error:
            ended.append(error)

    with CLOCKS[clock]():
        waiting = threading.Thread(target=run, daemon=True)
        waiting.start()
        waiting.join(TIMEOUT)
    assert not waiting.is_alive()
    assert len(ended) == 1


@contextmanager
def long_signals() -> Iterator[None]:
    """Have the main thread handle one signal after another, each for longer than any wait here may take."""
    main, over = threading.main_thread().ident, threading.Event()
    assert main is not None
    handled = threading.Semaphore(0)

    def handle(*_: object) -> None:
        threading.Event().wait(4 * SHORT)
        handled.release()

    def send() -> None:
        while not over.wait(SHORT / 2):  # the wait of the main thread has begun by then
            signal.pthread_kill(main, signal.SIGUSR1)
            assert handled.acquire(timeout=TIMEOUT)

    old = signal.signal(signal.SIGUSR1, handle)
    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    try:
        yield
    finally:
        over.set()
        sender.join(TIMEOUT)
        signal.signal(signal.SIGUSR1, old)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals for a thread here")
@pytest.mark.parametrize("wait", WAITS)
def test_every_wait_ends_after_a_signal_whose_handler_takes_longer(scene: Scene, wait: str) -> None:
    prepare, call = WAITS[wait]
    prepare(scene)
    with long_signals(), pytest.raises((TimeoutError, TransactionConflictError)):
        call(scene)


ENOUGH: dict[str, tuple[Callable[[Scene], None], Callable[[DictMemoryStore, Cache[Any]], object]]] = {
    "write": (Scene.hold, lambda store, cache: store.from_bytes("z", b"")),
    "transaction": (Scene.hold, lambda store, cache: store.transaction().__enter__().rollback()),
    "close": (Scene.listen, lambda store, cache: store.close(TIMEOUT)),
    "flush": (Scene.listen, lambda store, cache: store.flush(TIMEOUT)),
    "back-pressure": (Scene.listen, lambda store, cache: store.from_bytes("z", b"")),
    "load": (Scene.load, lambda store, cache: cache.get_or_load("loaded", str.encode, timeout=TIMEOUT)),
}


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("wait", ENOUGH)
def test_no_wait_ends_too_early(scene: Scene, wait: str, clock: str) -> None:
    """What is waited for comes while the thread waits, far within its time."""
    prepare, call = ENOUGH[wait]
    scene.store = DictMemoryStore(EventManager(), lock_timeout=TIMEOUT, max_pending_events=2)
    scene.cache = Cache(scene.store)
    prepare(scene)
    failed: list[BaseException] = []
    begun = threading.Event()

    def run() -> None:
        begun.set()
        try:
            call(scene.store, scene.cache)
        except BaseException as error:
            failed.append(error)

    with CLOCKS[clock]():
        waiting = threading.Thread(target=run, daemon=True)
        waiting.start()
        assert begun.wait(TIMEOUT)
        waiting.join(SHORT)  # it waits by now, and has looked at its clock
        scene.over.set()
        waiting.join(TIMEOUT)
    assert not waiting.is_alive()
    assert failed == []
