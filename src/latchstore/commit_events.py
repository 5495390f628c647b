"""From a commit to its events: what is queued at commit, and becomes events on the dispatcher's thread.

Thread safety: a delivery is built by one thread, queued, and delivered once by the dispatcher's thread.
It refers to entries, which never change, so building the events can wait until then and the writer
pays for one small object a commit.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from latchstore.dispatcher import Delivery, EventDispatcher
from latchstore.event_manager import BaseEventManager, EventManager
from latchstore.events import (
    BaseEvent,
    StoreDeleteEvent,
    StoreEvictEvent,
    StoreModificationEvent,
    StoreSetEvent,
    StoreUpdateEvent,
)
from latchstore.values import Change, StoredValue, cause_of

logger = logging.getLogger("latchstore")


#: The events that a commit may have.
MODIFICATION_EVENTS = frozenset({StoreSetEvent, StoreUpdateEvent, StoreDeleteEvent, StoreEvictEvent})


def event_class_of(change: Change) -> type[StoreModificationEvent]:
    """Return the class of the event that tells of a change."""
    _, old, new = change
    if new is None:
        return StoreDeleteEvent if cause_of(change) is None else StoreEvictEvent
    return StoreSetEvent if old is None else StoreUpdateEvent


def event_of(
    change: Change, source: object, revision: int, transaction: object | None
) -> StoreModificationEvent:
    """Build the event that tells of a change.

    Parameters
    ----------
    change : Change
    source : object
        The store.
    revision : int
        The commit's revision.
    transaction : object or None
        What the event is to say of the transaction.
    """
    _, old, new = change
    cause = cause_of(change)
    return event_class_of(change)(
        source,
        key=change[0],
        value=None if new is None else StoredValue(new),
        previous=None if old is None else StoredValue(old),
        revision=revision,
        transaction=transaction,
        **({} if cause is None else {"cause": cause}),
    )


def emit_guarded(manager: BaseEventManager, event: BaseEvent, dispatcher: EventDispatcher) -> None:
    """Emit an event; whatever a listener raises is logged and does not keep others from theirs."""
    dispatcher.delivered += 1
    try:
        if isinstance(manager, EventManager) and type(manager).emit is EventManager.emit:
            manager.deliver(event, dispatcher)
        else:
            _emit_observed(manager, event, dispatcher)
    except BaseException:
        # What comes here is no listener's: a trace function, pre_emit, or a foreign manager.
        logger.exception("the delivery of %r was broken off", event)


def _emit_observed(manager: BaseEventManager, event: BaseEvent, dispatcher: EventDispatcher) -> None:
    """Have a foreign manager emit, all of whose listeners count as one."""
    failed = True
    dispatcher.calling(manager.emit, event)
    try:
        manager.emit(event)
        failed = False
    finally:
        dispatcher.returned(failed)


class EventDelivery(Delivery):
    """One event that is ready, to be emitted when its turn comes."""

    __slots__ = ("_event", "_manager")

    def __init__(self, manager: BaseEventManager, event: BaseEvent) -> None:
        super().__init__()
        self._manager = manager
        self._event = event

    def deliver(self, dispatcher: EventDispatcher) -> None:
        emit_guarded(self._manager, self._event, dispatcher)

    def __repr__(self) -> str:
        return repr(self._event)


class CommitDelivery(Delivery):
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
        What the events are to say of the transaction.
    """

    __slots__ = ("_changes", "_manager", "_source", "_transaction")

    def __init__(
        self,
        manager: BaseEventManager,
        source: object,
        changes: Sequence[Change],
        revision: int,
        transaction: object | None,
    ) -> None:
        super().__init__(len(changes), revision)
        self._manager = manager
        self._source = source
        self._changes = changes
        self._transaction = transaction

    def events(self) -> Iterator[StoreModificationEvent]:
        """Build the events that have listeners, one at a time."""
        heard = getattr(self._manager, "has_listeners", None)
        revision = self.revision
        assert revision is not None
        for change in self._changes:
            if heard is None or heard(event_class_of(change)):
                yield event_of(change, self._source, revision, self._transaction)

    def deliver(self, dispatcher: EventDispatcher) -> None:
        for event in self.events():
            if not self.count:
                return
            emit_guarded(self._manager, event, dispatcher)

    def __repr__(self) -> str:
        return f"<commit {self.revision}: {len(self._changes)} events>"
