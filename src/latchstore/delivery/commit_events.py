"""Deliveries of a commit's events: queued at the commit, turned into events on the dispatcher's thread.

Thread safety: one thread builds a delivery and queues it; the dispatcher's thread delivers it once. It refers
to entries, which never change, so the events are built on that thread and the writer pays for one small
object per commit.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any

from latchstore.contract.event_manager import BaseEventManager
from latchstore.contract.events import (
    BaseEvent,
    StoreDeleteEvent,
    StoreEvictEvent,
    StoreModificationEvent,
    StoreSetEvent,
    StoreUpdateEvent,
)
from latchstore.contract.late_values import LateChange
from latchstore.contract.values import Change, Entry, StoredValue, cause_of
from latchstore.delivery.dispatcher import Delivery, EventDispatcher
from latchstore.delivery.emission import Emission, ForeignEmission
from latchstore.delivery.event_manager import EventManager
from latchstore.delivery.registry import Connection, identity_of

logger: logging.Logger = logging.getLogger("latchstore")

_new_object = object.__new__

#: The event classes that a commit can have.
MODIFICATION_EVENTS = frozenset({StoreSetEvent, StoreUpdateEvent, StoreDeleteEvent, StoreEvictEvent})


def event_class_of(change: Change | LateChange) -> type[StoreModificationEvent]:
    """Return the class of the event for a change."""
    _, old, new = change
    if new is None:
        return StoreDeleteEvent if cause_of(change) is None else StoreEvictEvent
    return StoreSetEvent if old is None else StoreUpdateEvent


def event_of(
    cls: type[StoreModificationEvent],
    change: Change | LateChange,
    source: object,
    revision: int,
    transaction: object | None,
) -> StoreModificationEvent:
    """Build the event for a change.

    Parameters
    ----------
    cls : type
        From `event_class_of`.
    change : Change or LateChange
    source : object
        The store.
    revision : int
        The commit's revision.
    transaction : object or None
        The event's `transaction`.
    """
    _, old, new = change
    # hot path: like `BaseEvent.__init__`, whose call with so many keywords is slower.
    event = _new_object(cls)
    event.__dict__ = {
        "source": source,
        "key": change[0],
        "value": None if new is None else StoredValue(new) if isinstance(new, Entry) else new,
        "previous": None if old is None else StoredValue(old) if isinstance(old, Entry) else old,
        "revision": revision,
        "transaction": transaction,
    }
    if new is None and (cause := cause_of(change)) is not None:
        event.cause = cause  # type: ignore[attr-defined]
    return event


def has_listeners_of(manager: BaseEventManager) -> Callable[[Any], bool]:
    """Return the function that a store calls under its lock to check for listeners; it runs no user code.

    It is the manager's own `has_listeners` if that is ours. For any other manager it always returns true.
    """
    ours = EventManager.has_listeners
    if isinstance(manager, EventManager) and type(manager).has_listeners is ours:
        return MethodType(ours, manager)
    return _always


def _always(cls: object) -> bool:
    return True


def _may_have_listeners(manager: BaseEventManager, cls: type[BaseEvent]) -> bool:
    """Return whether a manager of any class may have listeners; no lock is held."""
    try:
        has_listeners = getattr(manager, "has_listeners", None)
        return has_listeners is None or bool(has_listeners(cls))
    except Exception:
        logger.debug("has_listeners of %s failed", type(manager), exc_info=True)
        return True


def emission_of(manager: BaseEventManager, event: BaseEvent) -> Emission | None:
    """Return an emission that calls the listeners of an event; a foreign manager counts as one listener."""
    if isinstance(manager, EventManager) and manager.emits_itself():
        return manager._emission(event)
    return ForeignEmission(event, [Connection(identity_of(manager.emit), manager.emit, None, ())])


class EmittedDelivery(Delivery):
    """Events that are emitted one after another, once each, even if exceptions interrupt the thread.

    A subclass sets `_manager`, `_position` to 0 and `_emission` to None.
    """

    __slots__ = ("_emission", "_manager", "_position")

    # hot path: no constructor.
    _manager: BaseEventManager
    # The position of the current event, and its emission once that has begun.
    _position: int
    _emission: Emission | None

    @abstractmethod
    def event(self, position: int) -> BaseEvent | None:
        """Build an event; return None if it has no listeners."""

    def deliver(self, dispatcher: EventDispatcher) -> None:
        # The count is read each time: in a child that a listener forks it becomes 0.
        while self._position < self.count:
            emission = self._emission
            if emission is None:
                event = self.event(self._position)
                if event is not None:
                    emission = self._emission = emission_of(self._manager, event)
                    dispatcher.delivered += 1
            if emission is not None:
                emission.run(dispatcher)
            self.skip()

    @property
    def progress(self) -> object:
        emission = self._emission
        return self._position, 0 if emission is None else emission.position

    def skip(self) -> None:
        """Go on to the next event."""
        following = self._position + 1
        # No exception can come between the two assignments.
        self._emission = None
        self._position = following


class EventDelivery(EmittedDelivery):
    """One event that is already built."""

    __slots__ = ("_event",)

    def __init__(self, manager: BaseEventManager, event: BaseEvent) -> None:
        Delivery.__init__(self)
        self._position = 0
        self._emission = None
        self._manager = manager
        self._event = event

    def event(self, position: int) -> BaseEvent:
        return self._event

    def __repr__(self) -> str:
        return repr(self._event)


class CommitDelivery(EmittedDelivery):
    """The events of one commit, one for each changed key, in the order of the changes.

    Parameters
    ----------
    manager : BaseEventManager
    source : object
        The store.
    changes : sequence of Change or LateChange
    revision : int
        The commit's revision.
    transaction : object or None
        The events' `transaction`.
    """

    __slots__ = ("_changes", "_source", "_transaction")

    def __init__(
        self,
        manager: BaseEventManager,
        source: object,
        changes: Sequence[Change | LateChange],
        revision: int,
        transaction: object | None,
    ) -> None:
        Delivery.__init__(self, len(changes), revision)  # hot path: super() takes longer
        self._position = 0
        self._emission = None
        self._manager = manager
        self._source = source
        self._changes = changes
        self._transaction = transaction

    def event(self, position: int) -> StoreModificationEvent | None:
        change, revision = self._changes[position], self.revision
        cls = event_class_of(change)
        # hot path: a single change had a listener at the commit.
        if self.count > 1 and not _may_have_listeners(self._manager, cls):
            return None
        assert revision is not None
        return event_of(cls, change, self._source, revision, self._transaction)

    def __repr__(self) -> str:
        return f"<commit {self.revision}: {len(self._changes)} events>"
