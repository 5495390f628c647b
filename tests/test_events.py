"""What events carry, when their metadata is copied, and what progress managers emit."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from latchstore.contract import events
from latchstore.contract.events import (
    BaseEvent,
    ProgressEndEvent,
    ProgressEvent,
    ProgressManager,
    ProgressStartEvent,
    ProgressStepEvent,
    StoreDeleteEvent,
    StoreEvent,
    StoreKeyEvent,
    StoreModificationEvent,
    StoreProgressEndEvent,
    StoreProgressEvent,
    StoreProgressManager,
    StoreProgressStartEvent,
    StoreProgressStepEvent,
    StoreSetEvent,
    StoreTransactionEndEvent,
    StoreTransactionEvent,
    StoreTransactionStartEvent,
    StoreUpdateEvent,
    is_handled,
)

TIMEOUT = 30


class CountingValue:
    """A value that counts the copies of its metadata."""

    def __init__(self, **metadata: Any) -> None:
        self.original = metadata
        self.copies = 0

    @property
    def metadata(self) -> dict[str, Any]:
        self.copies += 1
        return dict(self.original)


class UnreadableValue:
    """A value that nobody may ask for anything."""

    @property
    def metadata(self) -> dict[str, Any]:
        raise AssertionError("the metadata has been read")

    def __repr__(self) -> str:
        raise AssertionError("the value has been shown")


class RecordingEmitter:
    """An event manager that only writes down what it is given."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def emit(self, event: BaseEvent) -> None:
        self.events.append(event)


class TestBaseEvent:
    def test_attributes_become_instance_attributes(self) -> None:
        event = BaseEvent("here", colour="red", size=3)
        assert event.source == "here"
        assert vars(event).items() >= {"colour": "red", "size": 3}.items()

    def test_source_is_none_by_default(self) -> None:
        assert BaseEvent().source is None

    def test_source_by_keyword(self) -> None:
        assert BaseEvent(source="here").source == "here"

    def test_any_name_will_do_for_an_attribute(self) -> None:
        assert vars(BaseEvent(self=1))["self"] == 1

    def test_starts_unhandled_whatever_the_attributes(self) -> None:
        assert is_handled(BaseEvent(_handled=True)) is False

    def test_mark_as_handled(self) -> None:
        event = BaseEvent()
        event.mark_as_handled()
        assert is_handled(event) is True

    def test_hooks_do_nothing(self) -> None:
        event = BaseEvent(colour="red")
        before = dict(vars(event))
        event.pre_emit()
        event.post_emit()
        assert vars(event) == before


class TestRepr:
    @pytest.mark.parametrize(
        ("event", "expected"),
        [
            (BaseEvent("here"), "<BaseEvent>"),
            (StoreKeyEvent(key="a"), "<StoreKeyEvent key='a'>"),
            (
                StoreSetEvent(key="a", revision=7),
                "<StoreSetEvent key='a' action='set' revision=7>",
            ),
            (
                StoreTransactionEndEvent(state="done", revision=0),
                "<StoreTransactionEndEvent revision=0 state='done'>",
            ),
        ],
    )
    def test_shows_what_is_there(self, event: BaseEvent, expected: str) -> None:
        assert repr(event) == expected

    def test_never_shows_data_nor_reads_metadata(self) -> None:
        event = StoreUpdateEvent(key="a", value=UnreadableValue(), previous=UnreadableValue(), data=b"secret")
        assert repr(event) == "<StoreUpdateEvent key='a' action='update'>"
        assert "metadata" not in vars(event)


class TestHierarchy:
    @pytest.mark.parametrize(
        ("cls", "bases"),
        [
            (StoreEvent, (BaseEvent,)),
            (StoreTransactionEvent, (StoreEvent,)),
            (StoreTransactionStartEvent, (StoreTransactionEvent,)),
            (StoreTransactionEndEvent, (StoreTransactionEvent,)),
            (StoreKeyEvent, (StoreEvent,)),
            (StoreModificationEvent, (StoreKeyEvent,)),
            (StoreSetEvent, (StoreModificationEvent,)),
            (StoreUpdateEvent, (StoreSetEvent,)),
            (StoreDeleteEvent, (StoreModificationEvent,)),
            (ProgressEvent, (BaseEvent,)),
            (ProgressStartEvent, (ProgressEvent,)),
            (ProgressStepEvent, (ProgressEvent,)),
            (ProgressEndEvent, (ProgressEvent,)),
            (StoreProgressEvent, (ProgressEvent, StoreKeyEvent)),
            (StoreProgressStartEvent, (ProgressStartEvent, StoreProgressEvent)),
            (StoreProgressStepEvent, (ProgressStepEvent, StoreProgressEvent)),
            (StoreProgressEndEvent, (ProgressEndEvent, StoreProgressEvent)),
        ],
    )
    def test_bases(self, cls: type, bases: tuple[type, ...]) -> None:
        assert cls.__bases__ == bases

    def test_all_names_exist(self) -> None:
        assert [name for name in events.__all__ if not hasattr(events, name)] == []

    @pytest.mark.parametrize(
        ("cls", "action"),
        [(StoreSetEvent, "set"), (StoreUpdateEvent, "update"), (StoreDeleteEvent, "delete")],
    )
    def test_actions(self, cls: type[StoreModificationEvent], action: str) -> None:
        assert cls(key="a").action == action

    def test_revision_and_transaction_default_to_none(self) -> None:
        event = StoreTransactionStartEvent()
        assert event.revision is None
        assert event.transaction is None

    def test_value_and_previous_default_to_none(self) -> None:
        event = StoreDeleteEvent(key="a")
        assert event.value is None
        assert event.previous is None


class TestMetadata:
    def test_is_not_copied_until_asked_for(self) -> None:
        value = CountingValue(colour="red")
        StoreSetEvent(key="a", value=value)
        assert value.copies == 0

    def test_is_copied_once_and_shared_by_all_who_ask(self) -> None:
        value = CountingValue(colour="red")
        event = StoreSetEvent(key="a", value=value)
        first = event.metadata
        first["seen"] = True
        assert event.metadata is first
        assert value.copies == 1
        assert value.original == {"colour": "red"}

    def test_is_that_of_the_new_value(self) -> None:
        previous = CountingValue(colour="red")
        event = StoreUpdateEvent(key="a", value=CountingValue(colour="blue"), previous=previous)
        assert event.metadata == {"colour": "blue"}
        assert previous.copies == 0

    def test_of_a_delete_is_that_of_the_previous_value(self) -> None:
        event = StoreDeleteEvent(key="a", previous=CountingValue(colour="red"))
        assert event.metadata == {"colour": "red"}

    @pytest.mark.parametrize("cls", [StoreKeyEvent, StoreSetEvent, StoreProgressStepEvent])
    def test_is_empty_if_there_is_none(self, cls: type[StoreKeyEvent]) -> None:
        event = cls(key="a")
        assert event.metadata == {}
        assert event.metadata is event.metadata
        assert event.metadata is not cls(key="a").metadata

    @pytest.mark.parametrize("cls", [StoreKeyEvent, StoreSetEvent, StoreProgressStepEvent])
    def test_can_be_given(self, cls: type[StoreKeyEvent]) -> None:
        metadata = {"colour": "red"}
        assert cls(key="a", metadata=metadata, value=UnreadableValue()).metadata is metadata

    def test_can_be_set_before_and_after_it_is_read(self) -> None:
        event = StoreSetEvent(key="a", value=UnreadableValue())
        event.metadata = {"colour": "red"}
        assert event.metadata == {"colour": "red"}
        event.metadata = {"colour": "blue"}
        assert event.metadata == {"colour": "blue"}

    def test_is_one_copy_for_threads_that_ask_at_once(self) -> None:
        barrier = threading.Barrier(2)

        class SlowValue:
            @property
            def metadata(self) -> dict[str, Any]:
                # Both threads are inside the copy before either has stored its own.
                barrier.wait(TIMEOUT)
                return {}

        event = StoreSetEvent(key="a", value=SlowValue())
        seen: list[dict[str, Any]] = []
        threads = [threading.Thread(target=lambda: seen.append(event.metadata)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
        assert len(seen) == 2
        assert seen[0] is seen[1] is event.metadata


@pytest.fixture
def emitter() -> RecordingEmitter:
    return RecordingEmitter()


class TestProgressManager:
    def test_emits_start_steps_and_end(self, emitter: RecordingEmitter) -> None:
        with ProgressManager(emitter, "here", "copy 1", "Copying", 2, colour="red") as progress:
            progress("First")
            progress(step=5, size=3)
            progress()
        start, first, second, third, end = emitter.events
        assert [type(event) for event in emitter.events] == [
            ProgressStartEvent,
            *[ProgressStepEvent] * 3,
            ProgressEndEvent,
        ]
        assert all(event.source == "here" for event in emitter.events)
        assert all(event.operation_id == "copy 1" for event in emitter.events)
        assert all(event.colour == "red" for event in emitter.events)
        assert (start.message, start.steps) == ("Copying", 2)
        assert (first.message, first.step) == ("First", 0)
        assert (second.message, second.step, second.size) == ("Copying", 5, 3)
        assert third.step == 2
        assert (end.message, end.exit_state) == ("Copying", "normal")

    def test_defaults(self, emitter: RecordingEmitter) -> None:
        progress = ProgressManager(emitter)
        progress.start()
        (start,) = emitter.events
        assert start.source is progress
        assert (start.message, start.steps) == ("Performing operation", -1)

    def test_operation_ids_are_unique_integers(self, emitter: RecordingEmitter) -> None:
        first, second = ProgressManager(emitter), ProgressManager(emitter)
        assert isinstance(first.operation_id, int)
        assert first.operation_id != second.operation_id

    def test_event_manager_is_required(self) -> None:
        with pytest.raises(TypeError):
            ProgressManager()  # type: ignore[call-arg]

    @pytest.mark.parametrize("error", [ValueError("disk full"), KeyboardInterrupt("disk full")])
    def test_exception_is_told_and_passes(self, emitter: RecordingEmitter, error: BaseException) -> None:
        with pytest.raises(type(error)) as caught, ProgressManager(emitter):
            raise error
        assert caught.value is error
        end = emitter.events[-1]
        assert isinstance(end, ProgressEndEvent)
        assert (end.message, end.exit_state) == ("disk full", "exception")

    def test_exception_passes_even_if_the_end_cannot_be_emitted(
        self, emitter: RecordingEmitter, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(event: BaseEvent) -> None:
            raise RuntimeError("no more events")

        progress = ProgressManager(emitter)
        progress.start()
        emitter.emit = fail  # type: ignore[method-assign]
        with pytest.raises(ValueError, match="disk full"), progress:
            raise ValueError("disk full")
        assert "no more events" in caplog.text

    def test_start_step_end_by_hand(self, emitter: RecordingEmitter) -> None:
        progress = ProgressManager(emitter, colour="red")
        progress.start(size=1)
        progress.step("Half", 1, size=2)
        progress.end("Nearly", "warning", size=3, colour="blue")
        start, step, end = emitter.events
        assert [event.size for event in emitter.events] == [1, 2, 3]
        assert (step.message, step.step) == ("Half", 1)
        assert (end.message, end.exit_state) == ("Nearly", "warning")
        assert (start.colour, end.colour) == ("red", "blue")

    def test_a_call_starts_the_operation(self, emitter: RecordingEmitter) -> None:
        ProgressManager(emitter)()
        assert [type(event) for event in emitter.events] == [ProgressStartEvent, ProgressStepEvent]

    def test_entering_a_started_operation_starts_it_no_second_time(self, emitter: RecordingEmitter) -> None:
        progress = ProgressManager(emitter)
        progress.start()
        with progress:
            pass
        assert [type(event) for event in emitter.events] == [ProgressStartEvent, ProgressEndEvent]

    def test_ending_inside_the_block_is_the_only_end(self, emitter: RecordingEmitter) -> None:
        with ProgressManager(emitter) as progress:
            progress.end("Given up", "error")
        assert [type(event) for event in emitter.events] == [ProgressStartEvent, ProgressEndEvent]
        assert emitter.events[-1].exit_state == "error"

    @pytest.mark.parametrize("method", ["step", "end"])
    def test_needs_a_running_operation(self, emitter: RecordingEmitter, method: str) -> None:
        progress = ProgressManager(emitter)
        with pytest.raises(RuntimeError, match=method):
            getattr(progress, method)()
        with progress:
            pass
        with pytest.raises(RuntimeError, match=method):
            getattr(progress, method)()

    def test_steps_count_from_zero_after_each_start(self, emitter: RecordingEmitter) -> None:
        progress = ProgressManager(emitter)
        for _ in range(2):
            with progress:
                progress()
        steps = [event.step for event in emitter.events if isinstance(event, ProgressStepEvent)]
        assert steps == [0, 0]

    def test_subclass_names_other_event_classes(self, emitter: RecordingEmitter) -> None:
        class CopyStartEvent(ProgressStartEvent):
            pass

        class CopyProgress(ProgressManager):
            StartEventType = CopyStartEvent

        CopyProgress(emitter).start()
        assert type(emitter.events[0]) is CopyStartEvent

    def test_store_twin(self, emitter: RecordingEmitter) -> None:
        with StoreProgressManager(emitter, key="a", metadata={"colour": "red"}) as progress:
            progress()
        assert [type(event) for event in emitter.events] == [
            StoreProgressStartEvent,
            StoreProgressStepEvent,
            StoreProgressEndEvent,
        ]
        assert all(event.key == "a" for event in emitter.events)
        assert all(event.metadata == {"colour": "red"} for event in emitter.events)
