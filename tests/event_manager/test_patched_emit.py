"""What is emitted goes through the `emit` that is there: overridden in a class, or patched by a test."""

from __future__ import annotations

import io
from typing import Any
from unittest import mock

import pytest

from latchstore import (
    BaseEvent,
    DictMemoryStore,
    EventManager,
    StoreDeleteEvent,
    StoreEvictEvent,
    StoreProgressEndEvent,
    StoreSetEvent,
    StoreTransactionEndEvent,
    StoreTransactionStartEvent,
    StoreUpdateEvent,
)

TIMEOUT = 20.0


def use(store: DictMemoryStore) -> None:
    """Make an event of every class."""
    store.set("a", (io.BytesIO(b"1"), {}))
    store.set("a", (b"2", {}))
    store.evict("a")
    with store.transaction("t"):
        store.from_bytes("b", b"")
    store.delete("b")
    store.multiset_data(["c", "d"], [b"", b""])
    store.flush(TIMEOUT)


def kinds(emit: Any) -> set[type[BaseEvent]]:
    return {type(call.args[0]) for call in emit.call_args_list}


CLASSES = {
    StoreSetEvent,
    StoreUpdateEvent,
    StoreDeleteEvent,
    StoreEvictEvent,
    StoreTransactionStartEvent,
    StoreTransactionEndEvent,
    StoreProgressEndEvent,
}


@pytest.mark.parametrize("connected", [False, True], ids=["no listeners", "a listener"])
@pytest.mark.parametrize("of_class", [False, True], ids=["of the manager", "of its class"])
def test_a_patched_emit_gets_every_event_and_its_listeners_none(connected: bool, of_class: bool) -> None:
    manager = EventManager()
    store, heard = DictMemoryStore(manager), list[BaseEvent]()
    use(store)  # what was found out about listeners before is not the answer
    if connected:
        manager.connect(BaseEvent, heard.append)
    with mock.patch.object(EventManager if of_class else manager, "emit") as emit:
        use(store)
    assert kinds(emit) >= CLASSES
    assert heard == []
    emit.reset_mock()
    use(store)
    assert not emit.called
    assert bool(heard) == connected


def test_a_patched_emit_that_passes_on_calls_listeners() -> None:
    manager = EventManager()
    store, heard = DictMemoryStore(manager), list[str]()
    manager.connect(StoreSetEvent, lambda event: heard.append(event.key))
    with mock.patch.object(manager, "emit", wraps=manager.emit) as emit:
        store.from_bytes("a", b"")
        store.flush(TIMEOUT)
    assert heard == ["a"]
    assert emit.called


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_what_a_patched_emit_raises_is_logged_and_harms_no_other_event(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    manager = EventManager()
    store = DictMemoryStore(manager)
    with mock.patch.object(manager, "emit", side_effect=error("on purpose")) as emit:
        store.from_bytes("a", b"")
        store.from_bytes("b", b"")
        store.flush(TIMEOUT)
    keys = [call.args[0].key for call in emit.call_args_list if isinstance(call.args[0], StoreSetEvent)]
    assert keys == ["a", "b"]
    assert all(record.exc_info and record.exc_info[0] is error for record in caplog.records)
    assert len(caplog.records) == emit.call_count


def test_an_emit_that_is_patched_in_the_middle_of_a_commits_events_gets_the_next_one() -> None:
    manager = EventManager()
    store, heard = DictMemoryStore(manager), list[str]()

    def listen(event: StoreSetEvent) -> None:
        heard.append(event.key)
        vars(manager)["emit"] = lambda event: heard.append(f"patched {event.key}")

    manager.connect(StoreSetEvent, listen)
    store.multiset_data(["a", "b"], [b"", b""])
    store.flush(TIMEOUT)
    assert heard == ["a", "patched b"]


def test_an_emit_of_a_subclass_gets_every_event() -> None:
    emitted: list[BaseEvent] = []

    class Recording(EventManager):
        def emit(self, event: BaseEvent, block: bool = True) -> None:
            emitted.append(event)

    store = DictMemoryStore(Recording())
    use(store)
    assert {type(event) for event in emitted} >= CLASSES


def test_an_emit_of_the_class_that_is_patched() -> None:
    manager = EventManager()
    store = DictMemoryStore(manager)
    manager.connect(StoreSetEvent, lambda event: pytest.fail("the patch is passed over"))
    with mock.patch.object(EventManager, "emit") as emit:
        store.from_bytes("a", b"")
        store.flush(TIMEOUT)
    assert StoreSetEvent in kinds(emit)


def test_an_emit_that_the_constructor_of_a_subclass_has_set_first() -> None:
    emitted: list[BaseEvent] = []

    class Recording(EventManager):
        def __init__(self) -> None:
            self.emit = emitted.append  # type: ignore[method-assign,assignment]
            super().__init__()

    store = DictMemoryStore(Recording())
    use(store)
    assert {type(event) for event in emitted} >= CLASSES


def test_an_emit_that_was_taken_back_is_not_called_any_more() -> None:
    manager, emitted = EventManager(), list[BaseEvent]()
    store = DictMemoryStore(manager)
    with mock.patch.object(manager, "emit", emitted.append):
        assert manager.has_listeners(StoreSetEvent)
        store.from_bytes("a", b"")
        store.flush(TIMEOUT)
    count = len(emitted)
    assert count
    assert not manager.has_listeners(StoreSetEvent)
    store.from_bytes("b", b"")
    store.flush(TIMEOUT)
    assert len(emitted) == count
