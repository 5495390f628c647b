"""The events of stores, and the progress events of long operations.

Every event is an instance of :class:`BaseEvent`. Its class is the kind of event, its instance
attributes are the facts. A listener of a class is called for its subclasses as well.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from operator import attrgetter
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self

from latchstore.contract.copying import copied_event, without_source

__all__ = [
    "BaseEvent",
    "Emitter",
    "EventsLost",
    "HasMetadata",
    "ProgressEndEvent",
    "ProgressEvent",
    "ProgressManager",
    "ProgressStartEvent",
    "ProgressStepEvent",
    "StoreDeleteEvent",
    "StoreEvent",
    "StoreEvictEvent",
    "StoreKeyEvent",
    "StoreModificationEvent",
    "StoreProgressEndEvent",
    "StoreProgressEvent",
    "StoreProgressManager",
    "StoreProgressStartEvent",
    "StoreProgressStepEvent",
    "StoreSetEvent",
    "StoreTransactionEndEvent",
    "StoreTransactionEvent",
    "StoreTransactionStartEvent",
    "StoreUpdateEvent",
]

logger: logging.Logger = logging.getLogger("latchstore")

# The attributes that a repr shows, in order. Data and metadata may be large or secret, so they are left out.
_SHOWN_IN_REPR = ("key", "action", "cause", "revision", "state", "first_revision", "last_revision")


class HasMetadata(Protocol):
    """A value, of which an event needs the metadata, a fresh copy on each read."""

    @property
    def metadata(self) -> dict[str, Any]: ...


class Emitter(Protocol):
    """An event manager, of which a progress manager needs `emit`."""

    def emit(self, event: BaseEvent, /) -> object: ...


class BaseEvent:
    """Something that has happened.

    Parameters
    ----------
    source : object, optional
        The object in which the event happened.
    **attributes
        Each becomes an instance attribute of the event.
    """

    source: Any
    _handled = False

    def __init__(self, /, source: Any = None, **attributes: Any) -> None:
        attributes["source"] = source
        attributes["_handled"] = False
        # hot path: the dict of the keywords is new and unshared, so it is not copied.
        self.__dict__ = attributes

    def mark_as_handled(self) -> None:
        """Skip the listeners that come after the current one."""
        self._handled = True

    def pre_emit(self) -> None:
        """Prepare the event; called once, before the first listener. For subclasses."""

    def post_emit(self) -> None:
        """Finish the event; called once, after the last listener. For subclasses."""

    def __repr__(self) -> str:
        shown = [
            f" {name}={value!r}"
            for name in _SHOWN_IN_REPR
            if (value := getattr(self, name, None)) is not None
        ]
        return f"<{type(self).__name__}{''.join(shown)}>"


#: Returns whether an event was marked as handled. hot path: written in C, called after each listener.
is_handled: Callable[[BaseEvent], bool] = attrgetter("_handled")


class StoreEvent(BaseEvent):
    """An event of a key-value store.

    Attributes
    ----------
    source : AbstractReadOnlyStore
        The store; None in a pickled copy. An event can be pickled if its values can.
    revision : int or None
        The revision of the commit that made the event; None if no commit made it.
    transaction : object or None
        The transaction that made the event; None if there was none.
    """

    revision: int | None = None
    transaction: object | None = None

    __getstate__: ClassVar[Callable[..., dict[str, Any]]] = without_source
    __copy__: ClassVar[Callable[..., Any]] = copied_event


class StoreTransactionEvent(StoreEvent):
    """A transaction of this process has begun or ended; other processes' commits have change events only."""


class StoreTransactionStartEvent(StoreTransactionEvent):
    """A transaction has begun."""


class StoreTransactionEndEvent(StoreTransactionEvent):
    """A transaction has ended.

    Attributes
    ----------
    state : str
        ``"done"`` if it was committed, ``"failed"`` if it was rolled back.
    """

    state: str


class StoreKeyEvent(StoreEvent):
    """An event that concerns one key.

    Attributes
    ----------
    key : str
        The key.
    metadata : dict
        The metadata of the key. All listeners of the event share this one dictionary, which
        never aliases the store. If it was not passed to the constructor, it is copied at the first
        read, so an event whose metadata is not read costs no copy.
    """

    key: str

    # Not functools.cached_property: that takes a lock on Python 3.11.
    @property
    def metadata(self) -> dict[str, Any]:
        attributes = self.__dict__
        if "metadata" not in attributes:
            # Two threads may both get here; setdefault makes the first copy the one for both.
            attributes.setdefault("metadata", self._copy_metadata())
        metadata: dict[str, Any] = attributes["metadata"]
        return metadata

    @metadata.setter
    def metadata(self, metadata: dict[str, Any]) -> None:
        self.__dict__["metadata"] = metadata

    def _copy_metadata(self) -> dict[str, Any]:
        return {}


class StoreModificationEvent(StoreKeyEvent):
    """A key has been set or deleted.

    Attributes
    ----------
    action : str
        ``"set"``, ``"update"`` or ``"delete"``.
    value : HasMetadata or None
        The value that the key has now; None after a delete, or if it was not given.
    previous : HasMetadata or None
        The value that the key had before; None if it had none, or if it was not given.

    Notes
    -----
    Metadata that was not passed is taken from `value`, or else, as after a delete, from `previous`.
    """

    action: str
    value: HasMetadata | None = None
    previous: HasMetadata | None = None

    def _copy_metadata(self) -> dict[str, Any]:
        origin = self.previous if self.value is None else self.value
        return {} if origin is None else origin.metadata


class StoreSetEvent(StoreModificationEvent):
    """A key has been set; the event of an existing key is the subclass :class:`StoreUpdateEvent`."""

    action = "set"


class StoreUpdateEvent(StoreSetEvent):
    """A key that existed has been set: its value or its metadata has been replaced."""

    action = "update"


class StoreDeleteEvent(StoreModificationEvent):
    """A key has been deleted; `metadata` is the last metadata that it had."""

    action = "delete"


class StoreEvictEvent(StoreDeleteEvent):
    """A key has been evicted by a cache, to make room or because it expired.

    Attributes
    ----------
    cause : str
        ``"size"``, ``"expired"`` or ``"idle"``.
    """

    action = "evict"
    cause: str


class EventsLost(StoreEvent):
    """Changes are missing from a watch; never emitted.

    The watch was read too slowly, the log no longer has the changes, or a server lost commits. To recover,
    read the store in a snapshot whose revision is at least `last_revision`.

    Attributes
    ----------
    first_revision, last_revision : int
        The first and the last commit whose changes are missing.
    """

    first_revision: int
    last_revision: int


class ProgressEvent(BaseEvent):
    """The progress of a long operation; a pickled copy has no source.

    Attributes
    ----------
    operation_id : object
        Identifies the operation: its events have the same id, those of other operations do not.
    message : str
        A description for people.
    """

    operation_id: Any
    message: str

    __getstate__: ClassVar[Callable[..., dict[str, Any]]] = without_source
    __copy__: ClassVar[Callable[..., Any]] = copied_event


class ProgressStartEvent(ProgressEvent):
    """An operation has begun.

    Attributes
    ----------
    steps : int
        The number of steps; -1 if it is unknown.
    """

    steps: int


class ProgressStepEvent(ProgressEvent):
    """An operation has come one step further.

    Attributes
    ----------
    step : int
        The number of the step, counted from 0; -1 if that is unknown.
    """

    step: int


class ProgressEndEvent(ProgressEvent):
    """An operation has ended.

    Attributes
    ----------
    exit_state : str
        ``"normal"``, ``"warning"``, ``"error"`` or ``"exception"``.
    """

    exit_state: str


class StoreProgressEvent(ProgressEvent, StoreKeyEvent):
    """The progress of a long operation on one key of a store."""


class StoreProgressStartEvent(ProgressStartEvent, StoreProgressEvent):
    """An operation on one key of a store has begun."""


class StoreProgressStepEvent(ProgressStepEvent, StoreProgressEvent):
    """An operation on one key of a store has come one step further."""


class StoreProgressEndEvent(ProgressEndEvent, StoreProgressEvent):
    """An operation on one key of a store has ended."""


_operation_ids = itertools.count(1)


class ProgressManager:
    """Emits the progress events of a long operation, which runs in one thread.

    As a context manager it emits the start event on entry and the end event on exit, whatever
    happens between; each call emits a step event::

        with ProgressManager(event_manager, store, message="Copying", steps=3) as progress:
            for step in range(3):
                ...
                progress(f"Copied part {step}")

    `start`, `step` and `end` emit the same events one by one. If the block calls `end` itself, leaving
    the block emits nothing more.

    Parameters
    ----------
    event_manager : Emitter
        Emits the events: any object with a method ``emit(event)``.
    source : object, optional
        The source of the events; by default this progress manager.
    operation_id : object, optional
        Identifies the operation; by default an integer, unique in this process.
    message : str, optional
        The default message of every event.
    steps : int, optional
        The number of steps; -1 if it is unknown.
    **attributes
        Further attributes of every event.

    Attributes
    ----------
    StartEventType, StepEventType, EndEventType : type
        The event classes; subclasses may use others.
    """

    StartEventType: ClassVar[type[ProgressStartEvent]] = ProgressStartEvent
    StepEventType: ClassVar[type[ProgressStepEvent]] = ProgressStepEvent
    EndEventType: ClassVar[type[ProgressEndEvent]] = ProgressEndEvent

    def __init__(
        self,
        event_manager: Emitter,
        source: Any = None,
        operation_id: Any = None,
        message: str = "Performing operation",
        steps: int = -1,
        **attributes: Any,
    ) -> None:
        self.event_manager = event_manager
        self.source: Any = self if source is None else source
        # A counter, since uuid4 costs more than many operations do.
        self.operation_id: Any = next(_operation_ids) if operation_id is None else operation_id
        self.message = message
        self.steps = steps
        self.attributes = attributes
        self._running = False
        self._step_numbers = itertools.count()

    def start(self, **extra: Any) -> None:
        """Emit the start event.

        Parameters
        ----------
        **extra
            Further attributes of this event.
        """
        self._running = True
        self._step_numbers = itertools.count()
        self._emit(self.StartEventType, message=self.message, steps=self.steps, extra=extra)

    def step(self, message: str | None = None, step: int | None = None, **extra: Any) -> None:
        """Emit a step event.

        Parameters
        ----------
        message : str, optional
            By default the message of the operation.
        step : int, optional
            By default the number of steps emitted before.
        **extra
            Further attributes of this event.

        Raises
        ------
        RuntimeError
            If the operation has not been started, or has ended.
        """
        self._require_running("step")
        number = next(self._step_numbers)
        self._emit(
            self.StepEventType,
            message=self.message if message is None else message,
            step=number if step is None else step,
            extra=extra,
        )

    def end(self, message: str | None = None, exit_state: str = "normal", **extra: Any) -> None:
        """Emit the end event.

        Parameters
        ----------
        message : str, optional
            By default the message of the operation.
        exit_state : str, optional
            ``"normal"``, ``"warning"``, ``"error"`` or ``"exception"``.
        **extra
            Further attributes of this event.

        Raises
        ------
        RuntimeError
            If the operation has not been started, or has ended.
        """
        self._require_running("end")
        # Before the emit: if it fails, there must be no second end event.
        self._running = False
        self._emit(
            self.EndEventType,
            message=self.message if message is None else message,
            exit_state=exit_state,
            extra=extra,
        )

    def __call__(self, message: str | None = None, step: int | None = None, **extra: Any) -> None:
        """Emit a step event; emit a start event first if the operation has not been started."""
        if not self._running:
            self.start()
        self.step(message, step, **extra)

    def __enter__(self) -> Self:
        if not self._running:
            self.start()
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._running:
            return
        if exception is None:
            self.end()
            return
        try:
            self.end(str(exception), "exception")
        except Exception:
            # The exception that ended the operation is raised; this one is only logged.
            logger.exception("the end event of operation %r could not be emitted", self.operation_id)

    def _require_running(self, method: str) -> None:
        if not self._running:
            raise RuntimeError(f"{type(self).__name__}.{method}() needs a started operation: call start()")

    def _emit(self, event_type: type[ProgressEvent], /, *, extra: dict[str, Any], **own: Any) -> None:
        merged = {
            "source": self.source,
            "operation_id": self.operation_id,
            **own,
            **self.attributes,
            **extra,
        }
        self.event_manager.emit(event_type(**merged))


class StoreProgressManager(ProgressManager):
    """Emits the progress events of a long operation on one key of a store.

    The same as :class:`ProgressManager`, for one thread; give it the attributes ``key`` and ``metadata``.
    """

    StartEventType: ClassVar[type[ProgressStartEvent]] = StoreProgressStartEvent
    StepEventType: ClassVar[type[ProgressStepEvent]] = StoreProgressStepEvent
    EndEventType: ClassVar[type[ProgressEndEvent]] = StoreProgressEndEvent
