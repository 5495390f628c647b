"""A commit becomes events when its turn comes: only those that are heard, each for itself, in order."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from latchstore import (
    BaseEvent,
    DictMemoryStore,
    EventManager,
    StoreDeleteEvent,
    StoreModificationEvent,
    StoreSetEvent,
    StoreUpdateEvent,
)
from latchstore.contract.events import is_handled
from latchstore.contract.values import Change, Entry, entry_from_metadata
from latchstore.delivery.commit_events import (
    MODIFICATION_EVENTS,
    CommitDelivery,
    EventDelivery,
    event_class_of,
    event_of,
    has_listeners_of,
)
from latchstore.delivery.dispatcher import EventDispatcher


def entry(data: bytes, **metadata: Any) -> Entry:
    new = entry_from_metadata(metadata)
    new.data = data
    new.created = new.modified = 1.0
    new.revision = 1
    return new


OLD, NEW = entry(b"old", n=1), entry(b"new", n=2)
CREATED: Change = ("created", None, NEW)
UPDATED: Change = ("updated", OLD, NEW)
DELETED: Change = ("deleted", OLD, None)


class ForeignManager:
    """An event manager that cannot tell who listens, and may fail."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.heard: list[BaseEvent] = []
        self.error = error

    def emit(self, event: BaseEvent, block: bool = True) -> None:
        self.heard.append(event)
        if self.error is not None:
            raise self.error


def delivery(manager: Any, *changes: Change) -> CommitDelivery:
    return CommitDelivery(manager, "the store", changes, 7, "the transaction")


def events_of(commit: CommitDelivery) -> list[StoreModificationEvent]:
    return [event for position in range(commit.count) if (event := commit.event(position)) is not None]


def test_the_class_of_the_event() -> None:
    assert event_class_of(CREATED) is StoreSetEvent
    assert event_class_of(UPDATED) is StoreUpdateEvent
    assert event_class_of(DELETED) is StoreDeleteEvent
    # An entry without metadata is false, and there all the same.
    assert event_class_of(("k", Entry(), Entry())) is StoreUpdateEvent


def test_what_events_say() -> None:
    created, updated, deleted = events_of(delivery(ForeignManager(), CREATED, UPDATED, DELETED))
    for event, key, metadata in (
        (created, "created", {"n": 2}),
        (updated, "updated", {"n": 2}),
        (deleted, "deleted", {"n": 1}),
    ):
        assert event.source == "the store"
        assert event.key == key
        assert event.metadata == metadata
        assert event.revision == 7
        assert event.transaction == "the transaction"
    assert [type(event) for event in (created, updated, deleted)] == [
        StoreSetEvent,
        StoreUpdateEvent,
        StoreDeleteEvent,
    ]
    assert created.previous is None
    old: Any = updated.previous
    new: Any = updated.value
    assert (old.data.read(), new.data.read()) == (b"old", b"new")
    assert deleted.value is None


@pytest.mark.parametrize("change", [CREATED, UPDATED, DELETED])
def test_an_event_is_what_its_constructor_would_have_made(change: Change) -> None:
    built = event_of(event_class_of(change), change, "the store", 7, "the transaction")
    made = type(built)(
        "the store",
        key=built.key,
        value=built.value,
        previous=built.previous,
        revision=7,
        transaction="the transaction",
    )
    assert is_handled(built) is is_handled(made) is False
    # What marks it as handled stands in the class until it is.
    assert vars(built) == {name: value for name, value in vars(made).items() if name in vars(built)}


def test_an_event_is_built_when_its_turn_comes() -> None:
    class Looking(ForeignManager):
        def emit(self, event: BaseEvent, block: bool = True) -> None:
            super().emit(event)
            built.append(commit.progress)

    built: list[Any] = []
    commit = delivery(Looking(), CREATED, UPDATED)
    commit.deliver(EventDispatcher())
    assert [position for position, _ in built] == [0, 1]


def test_what_has_been_heard_is_not_heard_again() -> None:
    manager = ForeignManager()
    commit = delivery(manager, CREATED, UPDATED)
    commit.deliver(EventDispatcher())
    commit.deliver(EventDispatcher())
    assert len(manager.heard) == 2


def test_only_what_is_heard_is_built() -> None:
    manager = EventManager()
    heard: list[str] = []
    manager.connect(StoreDeleteEvent, lambda event: heard.append(event.key))
    commit = delivery(manager, CREATED, UPDATED, DELETED)
    assert [event.key for event in events_of(commit)] == ["deleted"]
    commit.deliver(EventDispatcher())
    assert heard == ["deleted"]
    manager.connect(StoreSetEvent, lambda event: heard.append(event.key))
    delivery(manager, CREATED, UPDATED, DELETED).deliver(EventDispatcher())
    assert heard == ["deleted", "created", "updated", "deleted"]


def test_a_manager_that_cannot_tell_is_given_everything() -> None:
    manager = ForeignManager()
    delivery(manager, CREATED, UPDATED, DELETED).deliver(EventDispatcher())
    assert [getattr(event, "key", None) for event in manager.heard] == ["created", "updated", "deleted"]


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(), KeyboardInterrupt(), GeneratorExit()])
def test_an_event_that_fails_keeps_no_other_from_its_listeners(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    manager: Any = ForeignManager(error)
    delivery(manager, CREATED, DELETED).deliver(EventDispatcher())
    assert len(manager.heard) == 2
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert all("ForeignManager.emit failed on" in record.getMessage() for record in caplog.records)
    caplog.clear()
    EventDelivery(manager, BaseEvent("source")).deliver(EventDispatcher())
    assert len(caplog.records) == 1


def test_what_fails_before_any_listener_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """What has struck the thread comes once, a trace function or a filter that is broken again and again."""
    manager = EventManager()
    heard: list[str] = []
    manager.connect(StoreModificationEvent, lambda event: heard.append(event.key))
    traced: list[str] = []

    def trace(name: str, method: object, arguments: tuple[Any, ...]) -> None:
        if name == "emit":
            traced.append(arguments[0].key)
            if arguments[0].key == "updated" or len(traced) == 1:
                raise SystemExit

    manager.set_trace(trace)
    dispatcher = EventDispatcher()
    dispatcher.submit(delivery(manager, CREATED, UPDATED, DELETED))
    dispatcher.stop(30.0)
    assert heard == ["created", "deleted"]
    assert traced == ["created", "created", *["updated"] * 10, "deleted"]
    assert ["was skipped" in record.getMessage() for record in caplog.records] == [True]


# -- who is asked whether anybody listens -----------------------------------------------------------


class Asked(EventManager):
    """Notes who asks it whether anybody listens."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error
        self.threads: set[threading.Thread] = set()

    def has_listeners(self, cls: Any) -> bool:
        self.threads.add(threading.current_thread())
        if self.error is not None:
            raise self.error
        return super().has_listeners(cls)


def test_a_manager_of_ours_is_asked_under_the_lock() -> None:
    class Inheriting(EventManager):
        """Has nothing of its own that would be asked."""

    for manager in (EventManager(), Inheriting()):
        asked = has_listeners_of(manager)
        assert not asked(StoreSetEvent)
        manager.connect(StoreModificationEvent, print)
        assert asked(StoreSetEvent)
        assert asked(MODIFICATION_EVENTS)
        assert not asked(BaseEvent)


def test_a_manager_of_the_users_is_not() -> None:
    patched: Any = EventManager()
    patched.has_listeners = patched.get_event_hierarchy = pytest.fail
    assert not has_listeners_of(patched)(StoreSetEvent)
    asked = Asked()
    for manager in (asked, Asked(ValueError()), ForeignManager()):
        assert has_listeners_of(manager)(StoreSetEvent)  # type: ignore[arg-type]
    assert asked.threads == set()


@pytest.mark.parametrize("error", [None, ValueError("on purpose")])
def test_it_is_asked_by_the_dispatchers_thread(
    error: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "latchstore")
    manager = Asked(error)
    heard: list[str] = []
    manager.connect(StoreSetEvent, lambda event: heard.append(event.key))
    with DictMemoryStore(manager) as store:
        store.set("a", (b"", {}))
        with store.transaction():
            store.multiset_data(["b", "c"], [b"", b""])
            store.delete("a")
    assert heard == ["a", "b", "c"]
    assert threading.current_thread() not in manager.threads
    assert len(manager.threads) == 1
    failures = [record for record in caplog.records if "has_listeners" in record.getMessage()]
    assert len(failures) == (0 if error is None else 3)
    assert {record.levelno for record in failures} <= {logging.DEBUG}


def test_post_emit_of_a_foreign_manager_is_its_own() -> None:
    calls: list[str] = []

    class Telling(BaseEvent):
        def post_emit(self) -> None:
            calls.append("post")

    class Foreign(ForeignManager):
        def emit(self, event: BaseEvent, block: bool = True) -> None:
            event.post_emit()

    manager: Any = Foreign()
    EventDelivery(manager, Telling()).deliver(EventDispatcher())
    assert calls == ["post"]


def test_deliveries_say_what_they_are() -> None:
    assert repr(delivery(ForeignManager(), CREATED, DELETED)) == "<commit 7: 2 events>"
    event = BaseEvent("source")
    assert repr(EventDelivery(EventManager(), event)) == repr(event)
