"""From a commit to the queue of its store: events for the dispatcher, changes for the feed.

Thread safety: an engine calls these methods under its lock, in the order of its commits. None of them waits
or runs user code: what listeners are to be called with is queued.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from latchstore.contract.errors import StoreClosedError
from latchstore.contract.event_manager import BaseEventManager
from latchstore.contract.events import StoreTransactionEndEvent, StoreTransactionStartEvent
from latchstore.contract.late_values import late_of
from latchstore.contract.values import Change
from latchstore.delivery.change_buffer import Commit
from latchstore.delivery.change_feed import ChangeFeed
from latchstore.delivery.commit_events import (
    MODIFICATION_EVENTS,
    CommitDelivery,
    EventDelivery,
    event_class_of,
    has_listeners_of,
)
from latchstore.delivery.dispatcher import Delivery, EventDispatcher
from latchstore.engine.owner import Claim, TransactionInfo

#: The events that a commit may have, that of a transaction's end among them.
COMMIT_EVENTS = MODIFICATION_EVENTS | {StoreTransactionEndEvent}


class Author(Protocol):
    """Who has made a commit: a `Claim`, or a `LoggedAuthor`."""

    @property
    def info(self) -> TransactionInfo | None:
        """What events have of the transaction; None if it was none."""

    @property
    def here(self) -> bool:
        """Whether it was a transaction of this store object, whose end is an event."""


class LoggedAuthor(NamedTuple):
    """Who has made a commit that an engine finds in its log.

    Beginnings and ends of transactions are events in the process that runs them; in others there are the
    changes, and what their events have as `transaction`.
    """

    info: TransactionInfo | None
    here: bool = False


class Publisher:
    """Queues what an engine commits for its store's listeners and watches.

    Parameters
    ----------
    source : object
        The store, referred to weakly; its events have it as their source.
    manager : BaseEventManager
    dispatcher : EventDispatcher
    history : int
        How many of the last commits the feed keeps.

    Attributes
    ----------
    dispatcher : EventDispatcher
    feed : ChangeFeed
    garbage : deque
        What is dropped under the lock of the engine, which clears it when it has given the lock back.
    has_listeners : callable
        Tells whether any of some event classes has listeners. Never user code.
    """

    __slots__ = ("_manager", "_source", "dispatcher", "feed", "garbage", "has_listeners")

    def __init__(
        self, source: object, manager: BaseEventManager, dispatcher: EventDispatcher, history: int
    ) -> None:
        self._source = weakref.ref(source)
        self._manager = manager
        self.dispatcher: EventDispatcher = dispatcher
        self.garbage: deque[object] = deque()
        self.feed: ChangeFeed = ChangeFeed(history, self.garbage)
        self.has_listeners: Callable[[Any], bool] = has_listeners_of(manager)

    @property
    def is_followed(self) -> bool:
        """Whether anybody listens to what is committed, or watches it."""
        return self.feed.active or self.has_listeners(COMMIT_EVENTS)

    def deliveries_of(
        self, changes: Sequence[Change], revision: int, author: Author | None
    ) -> Sequence[Delivery]:
        """Return what is queued if this is committed; called before it is decided, so that it may fail.

        Parameters
        ----------
        changes : sequence of Change
        revision : int
        author : Author or None
            The transaction that makes the commit, if it is one.
        """
        has_listeners = self.has_listeners
        info = None if author is None else author.info
        deliveries: list[Delivery] = []
        if (
            author is not None
            and author.here
            and info is not None
            and has_listeners(StoreTransactionEndEvent)
        ):
            event = StoreTransactionEndEvent(self._source(), transaction=info, state="done")
            deliveries.append(EventDelivery(self._manager, event))
        if has_listeners(MODIFICATION_EVENTS) and any(
            map(has_listeners, map(event_class_of, late_of(changes)))
        ):
            deliveries.append(CommitDelivery(self._manager, self._source(), changes, revision, info))
        return deliveries

    def publish(
        self,
        changes: Sequence[Change],
        revision: int,
        author: Author | None,
        deliveries: Sequence[Delivery],
    ) -> None:
        """Queue what is to be heard of a commit that can be seen; may be done again, with the same arguments.

        Commits are published in their order. When the engine's lock was given back, `dispatcher` is to
        `start_if_needed`; the store does that after each commit of its own.
        """
        for delivery in deliveries:
            self.dispatcher.submit(delivery)
        if self.feed.active and changes:
            self.feed.publish(Commit(revision, changes, None if author is None else author.info))

    def lose(self, first_revision: int, last_revision: int) -> None:
        """Mark a gap for watches: these commits were made, and the engine has their changes no more.

        Listeners are told nothing of them. May be called again.
        """
        self.feed.lose(first_revision, last_revision)

    def begin(self, claim: Claim) -> None:
        """Queue the event of a transaction's beginning."""
        event = StoreTransactionStartEvent(self._source(), transaction=claim.info)
        claim.start = EventDelivery(self._manager, event)
        self.dispatcher.submit(claim.start)

    def roll_back(self, claim: Claim) -> None:
        """Queue the event of a transaction's end without a commit; may be called again."""
        if claim.start is not None:
            self.dispatcher.submit(claim.start)  # an exception may have struck before it was
        if claim.failure is None and claim.info is not None and self.has_listeners(StoreTransactionEndEvent):
            event = StoreTransactionEndEvent(self._source(), transaction=claim.info, state="failed")
            claim.failure = EventDelivery(self._manager, event)
        if claim.failure is not None:
            self.dispatcher.submit(claim.failure)

    def refuse(self, purpose: str) -> None:
        """Raise StoreClosedError, as the store is closed; but let listeners go on to the end."""
        if not self.dispatcher.on_dispatcher_thread():
            raise StoreClosedError(f"{purpose}: the store is closed; connect() opens it again")
