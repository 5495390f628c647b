"""A store whose commits are heard, and which is opened, closed and forked.

Thread safety: the store's own fields are single assignments; what they guard is verified again by the
engine, in the section that makes a commit.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from latchstore.contract.arguments import check_callable, checked_count, checked_timeout, describe
from latchstore.contract.errors import (
    FlushTimeoutError,
    LockTimeoutError,
    StoreClosedError,
)
from latchstore.contract.event_manager import BaseEventManager
from latchstore.contract.events import BaseEvent, StoreProgressManager
from latchstore.contract.values import Entry
from latchstore.delivery.commit_events import EventDelivery
from latchstore.delivery.dispatcher import EventDispatcher, Timer
from latchstore.delivery.event_manager import EventManager, call_when_connected, listener_name
from latchstore.delivery.waiting import clock, warn_if_patched_later
from latchstore.engine.entry_store import EntryStore, Progress
from latchstore.engine.interface import Engine
from latchstore.engine.publishing import Publisher

if TYPE_CHECKING:
    from latchstore.contract.seconds import Seconds


class DeliveredStore(EntryStore):
    """A store that delivers its commits to listeners and watches, by a thread of its own.

    Parameters
    ----------
    event_manager : BaseEventManager or None
    max_pending_events : int or None
        How many events may wait for their listeners before writers have to.
    history : int
        How many of the last commits are kept for watches.
    make_engine : callable
        Called with the `Publisher`, returns the engine.

    Attributes
    ----------
    _engine : Engine
    _has_listeners : callable
        Tells whether any of some event classes has listeners; runs no user code.
    """

    __slots__ = ("_engine",)

    def __init__(
        self,
        event_manager: BaseEventManager | None,
        max_pending_events: int | None,
        history: int,
        make_engine: Callable[[Publisher], Engine],
    ) -> None:
        if event_manager is not None and not callable(getattr(event_manager, "emit", None)):
            raise TypeError(f"event_manager must have an emit method, got {describe(event_manager)}")
        super().__init__(event_manager)
        warn_if_patched_later()
        limit = (
            None if max_pending_events is None else checked_count(max_pending_events, "max_pending_events", 1)
        )
        history = checked_count(history, "history", 0)
        self._dispatcher = EventDispatcher(limit=limit, listener_name=listener_name)
        publisher = Publisher(self, self.event_manager, self._dispatcher, history)
        self._feed = publisher.feed
        self._has_listeners = publisher.has_listeners
        self._engine = engine = make_engine(publisher)
        # The revision at which the store began.
        self._first_revision = engine.revision
        if isinstance(self.event_manager, EventManager) and type(engine).follow is not Engine.follow:
            call_when_connected(self.event_manager, engine.follow)
        self._connected = False
        self._closed = False
        _stores.add(self)
        # The dispatcher's thread does not keep the store alive; when nobody does, it ends the thread.
        self._dispatcher.end_with(self)

    # -- lifecycle --------------------------------------------------------------------------------

    def connect(self, credentials: object = None) -> None:
        """Connect to the store, and open it again if it was closed.

        Parameters
        ----------
        credentials : object, optional
            Ignored: the store does not authenticate.
        """
        self._engine.reopen()
        self._closed = False
        self._connected = True
        self._dispatcher.resume()

    def disconnect(self) -> None:
        """Disconnect from the store; there is nothing to give up, and everything still works."""
        self._connected = False

    def is_connected(self) -> bool:
        return self._connected

    def close(self, timeout: Seconds | None = 30.0) -> None:
        """Let all pending events be heard, end the thread, refuse changes until ``connect()``.

        What the store holds can still be read. Closing twice is harmless. If other processes share what it
        holds, what they commit until ``connect()`` is not heard; ``watch(since=...)`` has it.

        Parameters
        ----------
        timeout : Seconds or None
            Seconds that this may take; None for as long as it needs.

        Raises
        ------
        FlushTimeoutError
            If events are still waiting then; it has their number and the listener. The store is closed, and
            they will be delivered yet.
        DispatcherThreadError
            If a listener calls it.
        TransactionError
            If it is called inside a transaction of this thread.
        """
        timeout = checked_timeout(timeout)
        self._refuse_in_transaction("close")
        self._dispatcher.refuse_on_own_thread("close")
        self._closed = True
        self._connected = False
        self._dispatcher.hold_timers()
        begun = clock()
        try:
            self._engine.close(timeout)
            if timeout is not None:
                timeout = max(0.0, begun + timeout - clock())
            self._engine.between_commits(self._end_watches)
            self._dispatcher.stop(timeout)
        except LockTimeoutError as error:
            raise FlushTimeoutError(str(error), self._dispatcher.pending, None) from error

    def flush(self, timeout: Seconds | None = 30.0, revision: int | None = None) -> None:
        """Wait until all events of what was committed before the call, by any process, have been heard.

        Watches have these changes then as well.

        Parameters
        ----------
        timeout : Seconds or None
            Seconds; None for as long as it takes.
        revision : int, optional
            Wait for the events of commits up to this one only, such as the ``revision`` of a transaction.

        Raises
        ------
        FlushTimeoutError
            If that takes longer; it has the number of pending events, and the listener's name.
        DispatcherThreadError
            If a listener calls it, which would wait for itself.
        TransactionError
            If it is called inside a transaction of this thread.
        """
        timeout = checked_timeout(timeout)
        revision = None if revision is None else checked_count(revision, "revision", 0)
        self._refuse_in_transaction("flush")
        self._dispatcher.refuse_on_own_thread("flush")
        committed = self._engine.revision
        if revision is not None and revision > committed:
            raise ValueError(f"revision must not be above the last commit's, {committed}, got {revision}")
        # All that can be seen is queued after this: a commit is published in the section that makes it.
        begun = clock()
        try:
            self._engine.settle("flush", timeout)
            if timeout is not None:
                timeout = max(0.0, begun + timeout - clock())
            self._dispatcher.flush(timeout, revision)
        except LockTimeoutError as error:
            raise FlushTimeoutError(str(error), self._dispatcher.pending, None) from error

    def _end_watches(self, revision: int) -> None:
        self._feed.end()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __enter__(self) -> Self:
        self.connect()
        return self

    def call_later(self, seconds: Seconds, function: Callable[[], object]) -> Timer:
        """Have the store's own thread call a function once, between two events.

        It may use the store as a listener may. What it raises is logged. A closed store calls it when it is
        open again; a store that is freed, and a forked child, do not.

        Parameters
        ----------
        seconds : Seconds
            From now.
        function : callable
            Called without arguments.

        Returns
        -------
        timer : Timer
            It has ``cancel()``, and ``active``, whether the call is still to come.
        """
        checked = checked_timeout(seconds, "seconds")
        if checked is None:
            raise TypeError("seconds must be a number of seconds, got None")
        check_callable(function, "function")
        return self._dispatcher.call_later(checked, function)

    # -- facts ------------------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        """Return facts about the store.

        Returns
        -------
        info : dict
            ``readonly`` (False), ``connected``, ``closed``, ``keys`` (how many) and ``revision`` (of the last
            commit), both of one instant, ``pending_events`` (events not yet heard), and what else the engine
            has. That of `DictMemoryStore` has, of the same instant, ``indexes`` (as the constructor takes
            them), ``snapshots`` (how many are open), ``oldest_snapshot`` (its age in seconds), and
            ``pinned_entries`` and ``pinned_bytes`` (what they keep of the past).
        """
        return {
            "readonly": False,
            "connected": self._connected,
            "closed": self._closed,
            **self._engine.facts(),
            "pending_events": self._dispatcher.pending,
        }

    def stats(self) -> dict[str, Any]:
        """Return how busy the store and its listeners have been since it was made.

        Returns
        -------
        stats : dict
            ``commits`` (how many, those of other processes included), ``revision`` (of the last one),
            ``events_delivered`` (given to the event manager), ``events_pending`` (waiting for that or being
            heard), ``events_dropped`` (changes that full buffers of watches have dropped),
            ``listener_errors`` (calls of listeners that raised something), ``slowest_listener`` (the name of
            the one that has taken longest in one call, or None), ``slowest_listener_seconds`` (how long),
            ``watches`` (how many are open).
        """
        dispatcher, revision = self._dispatcher, self._engine.revision
        slowest, seconds = dispatcher.slowest
        return {
            "commits": revision - self._first_revision,
            "revision": revision,
            "events_delivered": dispatcher.delivered,
            "events_pending": dispatcher.pending,
            "events_dropped": self._feed.dropped,
            "listener_errors": dispatcher.listener_errors,
            "slowest_listener": slowest,
            "slowest_listener_seconds": seconds,
            "watches": self._feed.watches,
        }

    def activity(self) -> dict[str, Any]:
        """Return what goes on in the store at this moment: who writes, who waits for that, who is called.

        It waits for no writer, and keeps none waiting. The calls of listeners are timed from the first call
        of this method on.

        Returns
        -------
        activity : dict
            ``writer``: the one that keeps other writers out, or None; a dict with ``thread``, ``purpose``,
            ``seconds``, ``process`` (its number) and ``host`` (of a `RedisStore`, else None). That of another
            process is found on a `RedisStore`, and on a `SqliteStore` where the system is Linux.
            ``waiting``: the threads of this process that wait to write, each with ``thread``, ``purpose`` and
            ``seconds``. ``waiting_for_listeners``: how many wait as too many events are pending.
            ``transactions``: those open in this process, each with ``number``, ``notes``, ``thread``,
            ``seconds`` and ``optimistic``. ``listener``: the one that is being called, with ``name``,
            ``event`` (the name of its class), ``key`` (None if the event has none) and ``seconds``; or None.
            ``listeners``: all that were called, those that took longest first, each with ``name``, ``calls``,
            ``errors``, ``seconds`` (together) and ``longest``.
        """
        dispatcher, engine = self._dispatcher, self._engine
        writer, waiting = engine.activity()
        times = sorted(dispatcher.count_times().items(), key=lambda item: -item[1].seconds)
        return {
            "writer": None if writer is None else writer._asdict(),
            "waiting": [each._asdict() for each in waiting],
            "waiting_for_listeners": len(dispatcher.room.bells),
            "transactions": [each._asdict() for each in engine.routes.transactions()],
            "listener": dispatcher.call_in_progress(),
            "listeners": [{"name": name, **each._asdict()} for name, each in times],
        }

    # -- what transactions need: `Host` ------------------------------------------------------------

    def _check_door(self, purpose: str, timeout: float | None = None) -> None:
        """Let a writer in, before it needs a lock. Listeners always are: nothing waits for itself.

        Raises
        ------
        StoreClosedError
            If the store is closed.
        BackpressureError
            If too many events are waiting for listeners, and still are when the time is over.
        """
        dispatcher = self._dispatcher
        if not (self._closed or dispatcher.throttled) or dispatcher.on_dispatcher_thread():
            return
        if self._closed:
            raise StoreClosedError(f"{purpose}: the store is closed; connect() opens it again")
        dispatcher.wait_for_room(purpose, self._engine.timeout if timeout is None else timeout)

    def _deliver(self) -> None:
        """Have what is queued be heard; no lock is held."""
        self._dispatcher.start_if_needed()

    def _progress(self, key: str, metadata: Entry | None, steps: int) -> AbstractContextManager[Progress]:
        """Return what reports the reading of a stream, in bytes."""
        if self._dispatcher.throttled and self._engine.routes.current() is None:
            self._check_door(f"reading the stream of {key!r}")
        return StoreProgressManager(
            _QueuedEvents(self.event_manager, self._dispatcher),
            source=self,
            steps=steps,
            message=f"Storing {key!r}",
            key=key,
            metadata={} if metadata is None else metadata.isolated_metadata(),
        )

    def _refuse_in_transaction(self, operation: str) -> None:
        self._engine.routes.refuse(operation)

    # -- the rest ---------------------------------------------------------------------------------

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            "a store cannot be pickled or copied: save(path) writes what it holds, load(path) reads it back"
        )

    def _renew_in_child(self) -> None:
        """Make of a forked child's copy a store of its own: whole, with free locks, and nothing under way.

        Other threads of the parent may have been anywhere, and are not here. This one is alone.
        """
        for transaction in self._engine.routes.blocks():
            transaction._forget_in_child()  # type: ignore[attr-defined]
        # In this order: what a commit that was cut in two has queued is the parent's to deliver.
        self._engine.renew_in_child()
        self._dispatcher.renew_in_child()


class _QueuedEvents:
    """Emits by way of the store's queue, so that progress is heard in order with everything else."""

    __slots__ = ("_dispatcher", "_manager")

    def __init__(self, manager: BaseEventManager, dispatcher: EventDispatcher) -> None:
        self._manager = manager
        self._dispatcher = dispatcher

    def emit(self, event: BaseEvent, /) -> None:
        self._dispatcher.submit(EventDelivery(self._manager, event))
        self._dispatcher.start_if_needed()


# Every store alive, for children that this process forks.
_stores: weakref.WeakSet[DeliveredStore] = weakref.WeakSet()


def _renew_stores_in_child() -> None:
    failures = []
    for store in list(_stores):
        try:
            store._renew_in_child()
        except Exception as error:  # a lock_class that fails, say, which is to harm no other store
            failures.append(error)
    if failures:
        raise ExceptionGroup("stores that cannot be used in this forked child", failures)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_stores_in_child)
