"""From a commit to the queue of its store: events for the dispatcher, changes for the feed.

Thread safety: an engine calls these methods under its lock, in the order of its commits. None of them blocks
or runs user code: the calls of listeners are queued.
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

#: The events that a commit may have, including that of a transaction's end.
COMMIT_EVENTS = MODIFICATION_EVENTS | {StoreTransactionEndEvent}


class Author(Protocol):
    """The author of a commit: a `Claim`, or a `LoggedAuthor`."""

    @property
    def info(self) -> TransactionInfo | None:
        """The `TransactionInfo` for events; None if it was not a transaction."""

    @property
    def here(self) -> bool:
        """Whether it was a transaction of this store object, so its end is an event."""


class LoggedAuthor(NamedTuple):
    """The author of a commit that an engine has found in its log.

    Transactions have start and end events only in the process that runs them; other processes have the events
    of the changes, with the info as their `transaction`.
    """

    info: TransactionInfo | None
    here: bool = False


class Publisher:
    """Queues the commits of an engine for the listeners and watches of its store.

    Parameters
    ----------
    source : object
        The store, referenced weakly; the source of its events.
    manager : BaseEventManager
    dispatcher : EventDispatcher
    history : int
        The number of commits that the feed keeps.

    Attributes
    ----------
    dispatcher : EventDispatcher
    feed : ChangeFeed
    garbage : deque
        Objects dropped under the engine's lock; the engine clears it after releasing the lock.
    has_listeners : callable
        Returns whether any of some event classes has listeners. Never user code.
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
        """Whether there are listeners for commits, or watches."""
        return self.feed.active or self.has_listeners(COMMIT_EVENTS)

    def deliveries_of(
        self, changes: Sequence[Change], revision: int, author: Author | None
    ) -> Sequence[Delivery]:
        """Return the deliveries of a commit; called before the commit is decided, so it may raise.

        Parameters
        ----------
        changes : sequence of Change
        revision : int
        author : Author or None
            The transaction that makes the commit, if any.
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
        # Changes of the log are not decoded for listeners to ends of transactions alone.
        if has_listeners(MODIFICATION_EVENTS):
            late = late_of(changes)
            if any(map(has_listeners, map(event_class_of, late))):
                deliveries.append(CommitDelivery(self._manager, self._source(), late, revision, info))
        return deliveries

    def publish(
        self,
        changes: Sequence[Change],
        revision: int,
        author: Author | None,
        deliveries: Sequence[Delivery],
    ) -> None:
        """Queue a visible commit for listeners and watches; may be repeated with the same arguments.

        Commits are published in order. After the engine has released its lock, `dispatcher.start_if_needed`
        must be called; the store does that after each of its own commits.
        """
        for delivery in deliveries:
            self.dispatcher.submit(delivery)
        if self.feed.active and changes:
            self.feed.publish(Commit(revision, changes, None if author is None else author.info))

    def lose(self, first_revision: int, last_revision: int) -> None:
        """Mark a gap in watches: these commits were made, but the engine no longer has their changes.

        Listeners are not notified of the gap. May be repeated.
        """
        self.feed.lose(first_revision, last_revision)

    def begin(self, claim: Claim) -> None:
        """Queue the event of a transaction's start."""
        event = StoreTransactionStartEvent(self._source(), transaction=claim.info)
        claim.start = EventDelivery(self._manager, event)
        self.dispatcher.submit(claim.start)

    def roll_back(self, claim: Claim) -> None:
        """Queue the event of a transaction's rollback; may be repeated."""
        if claim.start is not None:
            self.dispatcher.submit(claim.start)  # an exception may have interrupted before it was queued
        if claim.failure is None and claim.info is not None and self.has_listeners(StoreTransactionEndEvent):
            event = StoreTransactionEndEvent(self._source(), transaction=claim.info, state="failed")
            claim.failure = EventDelivery(self._manager, event)
        if claim.failure is not None:
            self.dispatcher.submit(claim.failure)

    def refuse(self, purpose: str) -> None:
        """Raise StoreClosedError, since the store is closed, unless a listener calls."""
        if not self.dispatcher.on_dispatcher_thread():
            raise StoreClosedError(f"{purpose}: the store is closed; connect() opens it again")
