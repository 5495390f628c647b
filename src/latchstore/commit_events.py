"""From a commit to its events: what is queued at commit, and becomes events on the dispatcher's thread.

Thread safety: a delivery is built by one thread, queued, and delivered once by the dispatcher's thread.
It refers to entries, which never change, so building the events can wait until then and the writer
pays for one small object a commit.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from latchstore.event_manager import BaseEventManager
from latchstore.events import (
    BaseEvent,
    StoreDeleteEvent,
    StoreModificationEvent,
    StoreSetEvent,
    StoreUpdateEvent,
)
from latchstore.values import Change, StoredValue

logger = logging.getLogger("latchstore")


#: The events that a commit may have.
MODIFICATION_EVENTS = frozenset({StoreSetEvent, StoreUpdateEvent, StoreDeleteEvent})


def event_class_of(change: Change) -> type[StoreModificationEvent]:
    """Return the class of the event that tells of a change."""
    _, old, new = change
    if new is None:
        return StoreDeleteEvent
    return StoreSetEvent if old is None else StoreUpdateEvent


def emit_guarded(manager: BaseEventManager, event: BaseEvent) -> None:
    """Emit an event; whatever a listener raises is logged and does not keep others from theirs."""
    try:
        manager.emit(event)
    except BaseException:
        # An event manager deals with Exception itself; SystemExit and KeyboardInterrupt, and errors
        # of a foreign manager, end here.
        logger.exception("the delivery of %r was broken off", event)


class EventDelivery:
    """One event that is ready, to be emitted when its turn comes."""

    __slots__ = ("_event", "_manager")

    def __init__(self, manager: BaseEventManager, event: BaseEvent) -> None:
        self._manager = manager
        self._event = event

    def deliver(self) -> None:
        emit_guarded(self._manager, self._event)

    def __repr__(self) -> str:
        return repr(self._event)


class CommitDelivery:
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

    __slots__ = ("_changes", "_manager", "_revision", "_source", "_transaction")

    def __init__(
        self,
        manager: BaseEventManager,
        source: object,
        changes: Sequence[Change],
        revision: int,
        transaction: object | None,
    ) -> None:
        self._manager = manager
        self._source = source
        self._changes = changes
        self._revision = revision
        self._transaction = transaction

    def events(self) -> Iterator[StoreModificationEvent]:
        """Build the events that have listeners, one at a time."""
        heard = getattr(self._manager, "has_listeners", None)
        for change in self._changes:
            event_class = event_class_of(change)
            if heard is not None and not heard(event_class):
                continue
            key, old, new = change
            attributes: dict[str, Any] = {
                "key": key,
                "value": None if new is None else StoredValue(new),
                "previous": None if old is None else StoredValue(old),
                "revision": self._revision,
                "transaction": self._transaction,
            }
            yield event_class(self._source, **attributes)

    def deliver(self) -> None:
        for event in self.events():
            emit_guarded(self._manager, event)

    def __repr__(self) -> str:
        return f"<commit {self._revision}: {len(self._changes)} events>"
