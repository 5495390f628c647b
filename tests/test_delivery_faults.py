"""No event is lost, and no thread is left, where memory fails or a thread is gone at the wrong moment."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from latchstore import DictMemoryStore, EventManager, StoreSetEvent
from latchstore.delivery.deliveries import DeliveryQueue, End, Mark
from latchstore.delivery.dispatcher import Delivery, EventDispatcher
from latchstore.delivery.threads import Deliverer, Post, calling_deliverer
from latchstore.delivery.waiting import Life
from latchstore.engine.inspection import dispatcher_of

TIMEOUT = 30.0


def with_failing_requests(number: int, call: Callable[[], object]) -> bool:
    """Call something while all requests for memory fail but for the first ones; return whether one has."""
    import _testcapi  # type: ignore[import-not-found]

    _testcapi.set_nomemory(number, 0)
    try:
        call()
    except MemoryError:
        return True
    finally:
        _testcapi.remove_mem_hooks()
    return False


# -- memory ---------------------------------------------------------------------------------------


def test_a_watch_counts_what_is_left_though_memory_fails() -> None:
    """Each change is read with each request failing, until none does; what was read may be lost by that."""
    pytest.importorskip("_testcapi")
    store = DictMemoryStore(EventManager())
    with store.watch() as changes:
        store.multiset([f"k{each}" for each in range(100)], [(b"", {})] * 100)
        while len(changes) > 5:
            number = 0
            while with_failing_requests(number, lambda: changes.get(0)) and len(changes):
                number += 1
        left, read = len(changes), 0
        with suppress(TimeoutError):
            while True:
                changes.get(0)
                read += 1
        assert read == left
    store.close(TIMEOUT)


def test_no_delivery_is_lost_between_the_queue_and_the_thread_though_memory_fails() -> None:
    """Every request for memory of each step fails, until none does."""
    pytest.importorskip("_testcapi")
    queue = DeliveryQueue()
    marks = [Mark(queue) for _ in range(500)]
    for mark in marks:
        queue.put_mark(mark)
    taken: list[Delivery] = []
    while not queue.is_empty():
        number = 0
        while with_failing_requests(number, partial(next, queue.moves)):
            number += 1
        taken.append(queue.taken.popleft())
    assert taken == marks


# -- wake-ups -------------------------------------------------------------------------------------


def queue_with_bell(monkeypatch: pytest.MonkeyPatch, ring: Callable[[DeliveryQueue], None]) -> DeliveryQueue:
    """Return a queue whose thread sleeps; what rings is called with it."""
    bell = SimpleNamespace()
    with monkeypatch.context() as patches:
        patches.setattr("latchstore.delivery.deliveries.Bell", lambda: bell)
        queue = DeliveryQueue()
    bell.release = partial(ring, queue)
    queue.asleep = True
    return queue


def test_no_wake_up_is_lost_to_a_thread_that_sleeps_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread wakes up, takes what is there and sleeps again before whoever has woken it goes on."""
    rung: list[int] = []

    def ring(queue: DeliveryQueue) -> None:
        queue.asleep = True
        rung.append(1)

    queue = queue_with_bell(monkeypatch, ring)
    for _ in range(3):
        queue.put_mark(Mark(queue))
    assert len(rung) == 3


def test_a_wake_up_that_fails_for_memory_is_made_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    rung: list[int] = []

    def ring(queue: DeliveryQueue) -> None:
        rung.append(1)
        if len(rung) == 1:
            raise MemoryError

    queue = queue_with_bell(monkeypatch, ring)
    with pytest.raises(MemoryError):
        queue.put_mark(Mark(queue))
    assert queue.asleep
    queue.put_mark(Mark(queue))
    assert not queue.asleep
    assert len(rung) == 2


def test_a_thread_that_was_woken_once_is_not_woken_again() -> None:
    queue = DeliveryQueue()
    queue.asleep = True
    for _ in range(3):
        queue.put_mark(Mark(queue))
    assert not queue.asleep


# -- threads --------------------------------------------------------------------------------------


def test_a_thread_ends_with_its_store_though_the_finalizer_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finalizer may be struck, or find no memory, and is not called again."""
    monkeypatch.setattr("latchstore.delivery.dispatcher.IDLE", 0.01)
    raised: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", raised.append)
    put_mark = DeliveryQueue.put_mark
    gc.collect()  # stores of other tests, whose ends would fail as well

    def fail_at_the_end(queue: DeliveryQueue, mark: Mark) -> None:
        if type(mark) is End:
            raise MemoryError
        put_mark(queue, mark)

    store = DictMemoryStore(EventManager())
    heard: list[str] = []
    store.event_manager.connect(StoreSetEvent, lambda event: heard.append(event.key))
    store.from_bytes("k", b"")
    store.flush(TIMEOUT)
    thread = dispatcher_of(store).thread
    assert thread is not None
    with monkeypatch.context() as patches:
        patches.setattr(DeliveryQueue, "put_mark", fail_at_the_end)
        del store
        gc.collect()
    assert raised
    raised.clear()
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert heard == ["k"]


class FailsOnce(Delivery):
    """A delivery that fails the first time, as if an exception had struck."""

    __slots__ = ("__weakref__", "_tries")

    def __init__(self) -> None:
        super().__init__()
        self._tries = 0

    def deliver(self, dispatcher: EventDispatcher) -> None:
        self._tries += 1
        if self._tries == 1:
            raise MemoryError


def test_a_delivery_that_has_failed_is_not_kept() -> None:
    """It has the store, which has the thread that would keep it."""
    dispatcher = EventDispatcher()
    delivery = FailsOnce()
    gone = weakref.ref(delivery)
    dispatcher.submit(delivery)
    del delivery
    dispatcher.flush(TIMEOUT)
    gc.collect()
    assert gone() is None
    dispatcher.stop(TIMEOUT)


def test_one_that_has_ended_is_taken_from_the_post() -> None:
    post, life = Post(), Life()
    thread = threading.current_thread()
    post[1] = Deliverer(thread, weakref.ref(life))
    post[threading.get_ident()] = calling_deliverer()
    assert post.holder() is thread
    assert list(post) == [1, threading.get_ident()]
    del life
    assert post.holder() is thread
    assert list(post) == [threading.get_ident()]


def test_the_life_of_a_thread_ends_with_it() -> None:
    deliverers: list[Deliverer] = []
    thread = threading.Thread(target=lambda: deliverers.append(calling_deliverer()))
    thread.start()
    thread.join(TIMEOUT)
    assert deliverers[0].thread is thread
    assert deliverers[0].life() is None
    assert calling_deliverer().life() is not None


class NeverLeft(Post):
    """A post that threads do not take themselves away from."""

    def pop(self, ident: int, default: Any = None) -> Any:
        left = self.get(ident)
        return super().pop(ident, default) if left is not None and left.life() is None else None


@pytest.mark.parametrize("wait", ["flush", "stop"])
def test_who_waits_misses_a_thread_that_is_noted_and_gone(monkeypatch: pytest.MonkeyPatch, wait: str) -> None:
    monkeypatch.setattr("latchstore.delivery.dispatcher.Post", NeverLeft)
    store = DictMemoryStore(EventManager())
    heard: list[Any] = []
    store.event_manager.connect(StoreSetEvent, heard.append)
    dispatcher = dispatcher_of(store)
    store.from_bytes("k0", b"")
    dispatcher.flush(TIMEOUT)
    dispatcher.stop(TIMEOUT)
    assert not dispatcher.running
    store.from_bytes("k1", b"")
    getattr(dispatcher, wait)(TIMEOUT)
    assert [event.key for event in heard] == ["k0", "k1"]
    store.close(TIMEOUT)
