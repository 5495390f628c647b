"""From a commit to its events: what is queued at commit, and becomes events on the dispatcher's thread.

Thread safety: a delivery is built by one thread, queued, and delivered once by the dispatcher's thread.
It refers to entries, which never change, so building the events can wait until then and the writer
pays for one small object a commit.
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
from latchstore.contract.late_values import LateChange, late_of
from latchstore.contract.values import Change, Entry, StoredValue, cause_of
from latchstore.delivery.dispatcher import Delivery, EventDispatcher
from latchstore.delivery.emission import Emission, ForeignEmission
from latchstore.delivery.event_manager import EventManager
from latchstore.delivery.registry import Connection, identity_of

logger: logging.Logger = logging.getLogger("latchstore")

_new_object = object.__new__

#: The events that a commit may have.
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
    # hot path: as `BaseEvent.__init__` would, whose call with so many keywords takes longer.
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
    """Return what a store calls under its lock to find out whether anybody listens: never code of users.

    It is the manager's own `has_listeners` if that is ours. If not, every event is taken to have listeners.
    """
    ours = EventManager.has_listeners
    if isinstance(manager, EventManager) and type(manager).has_listeners is ours:
        return MethodType(ours, manager)
    return _always


def _always(cls: object) -> bool:
    return True


def _may_have_listeners(manager: BaseEventManager, cls: type[BaseEvent]) -> bool:
    """Ask a manager, of whatever class, whether anybody listens; no lock is held."""
    try:
        has_listeners = getattr(manager, "has_listeners", None)
        return has_listeners is None or bool(has_listeners(cls))
    except Exception:
        logger.debug("has_listeners of %s failed", type(manager), exc_info=True)
        return True


def emission_of(manager: BaseEventManager, event: BaseEvent) -> Emission | None:
    """Return the calling of the listeners of an event; all those of a foreign manager count as one."""
    if isinstance(manager, EventManager) and manager.emits_itself():
        return manager._emission(event)
    return ForeignEmission(event, [Connection(identity_of(manager.emit), manager.emit, None, ())])


class EmittedDelivery(Delivery):
    """Events that are emitted one after another, once each, whatever strikes the thread meanwhile.

    A subclass sets `_manager`, `_position` to 0 and `_emission` to None.
    """

    __slots__ = ("_emission", "_manager", "_position")

    # hot path: no constructor.
    _manager: BaseEventManager
    # Which event's turn it is, and its emission once that has begun.
    _position: int
    _emission: Emission | None

    @abstractmethod
    def event(self, position: int) -> BaseEvent | None:
        """Build an event; None if nobody listens to it."""

    def deliver(self, dispatcher: EventDispatcher) -> None:
        # The count is read each time: in a child that a listener has forked there are no more events.
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
        # No exception strikes between the two.
        self._emission = None
        self._position = following


class EventDelivery(EmittedDelivery):
    """One event that is ready, to be emitted when its turn comes."""

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
    """The events of one commit, one per changed key, in the order of the changes.

    Parameters
    ----------
    manager : BaseEventManager
    source : object
        The store.
    changes : sequence of Change
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
        changes: Sequence[Change],
        revision: int,
        transaction: object | None,
    ) -> None:
        Delivery.__init__(self, len(changes), revision)  # hot path: super() takes longer
        self._position = 0
        self._emission = None
        self._manager = manager
        self._source = source
        self._changes = late_of(changes)
        self._transaction = transaction

    def event(self, position: int) -> StoreModificationEvent | None:
        change, revision = self._changes[position], self.revision
        cls = event_class_of(change)
        # hot path: a lone one had a listener at the commit.
        if self.count > 1 and not _may_have_listeners(self._manager, cls):
            return None
        assert revision is not None
        return event_of(cls, change, self._source, revision, self._transaction)

    def __repr__(self) -> str:
        return f"<commit {self.revision}: {len(self._changes)} events>"
