"""The part of a store that delivers events, and opens, closes and forks it.

Thread safety: the store's own fields are single assignments; the engine checks their conditions again in the
section that makes a commit.
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
from latchstore.delivery.awaiting import in_thread
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
        The most pending events; more block writers.
    history : int
        The number of commits to keep for watches.
    make_engine : callable
        Called with the `Publisher`; returns the engine.

    Attributes
    ----------
    _engine : Engine
    _has_listeners : callable
        Returns whether any of some event classes has listeners; runs no user code.
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
            file = isinstance(event_manager, (str, os.PathLike))
            advice = ": for a store in a file, use SqliteStore(path)" if file else ""
            raise TypeError(f"event_manager must have a method emit, got {describe(event_manager)}{advice}")
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
        # The revision at which this store was opened.
        self._first_revision = engine.revision
        if isinstance(self.event_manager, EventManager) and type(engine).follow is not Engine.follow:
            call_when_connected(self.event_manager, engine.follow)
        self._connected = False
        self._closed = False
        _stores.add(self)
        # The dispatcher's thread does not keep the store alive; it ends when the store is freed.
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
        """Disconnect from the store; it has no connection, so everything still works."""
        self._connected = False

    def is_connected(self) -> bool:
        return self._connected

    def close(self, timeout: Seconds | None = 30.0) -> None:
        """Deliver all pending events, end the thread, and refuse writes until ``connect()``.

        A closed store can still be read. Repeated calls do nothing. If other processes share the entries,
        what they commit until ``connect()`` is not delivered to listeners; ``watch(since=...)`` returns it.

        Parameters
        ----------
        timeout : Seconds or None
            The most seconds to wait; None for no limit.

        Raises
        ------
        FlushTimeoutError
            If events are still pending then; it has their number and the listener. The store is closed, and
            the events will still be delivered.
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
        """Wait until the events of all commits before the call, by any process, have been delivered.

        Watches have these changes then as well.

        Parameters
        ----------
        timeout : Seconds or None
            The most seconds to wait; None for no limit.
        revision : int, optional
            Wait only for the commits up to this revision, such as the ``revision`` of a transaction.

        Raises
        ------
        FlushTimeoutError
            If the timeout expires; it has the number of pending events, and the listener's name.
        DispatcherThreadError
            If a listener calls it, since it would wait for itself.
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
        # All visible commits are queued after this: a commit is published in the section that makes it.
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

        The function may use the store like a listener. An exception that it raises is logged. A closed store
        calls it when it is open again; a store that is freed, and a forked child, do not call it.

        Parameters
        ----------
        seconds : Seconds
            The time from now.
        function : callable
            Called without arguments.

        Returns
        -------
        timer : Timer
            It has ``cancel()``, and ``active``: whether the call will still be made.
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
            ``readonly`` (False), ``connected``, ``closed``, ``keys`` (their number) and ``revision`` (of the
            last commit), both of one instant, ``pending_events`` (events not yet delivered), and facts of the
            engine. Those of `DictMemoryStore` are, of the same instant, ``indexes`` (as passed to the
            constructor), ``snapshots`` (how many are open), ``oldest_snapshot`` (its age in seconds), and
            ``pinned_entries`` and ``pinned_bytes`` (old entries that snapshots keep).
        """
        return {
            "readonly": False,
            "connected": self._connected,
            "closed": self._closed,
            **self._engine.facts(),
            "pending_events": self._dispatcher.pending,
        }

    def stats(self) -> dict[str, Any]:
        """Return statistics of the store and its listeners since it was created.

        Returns
        -------
        stats : dict
            ``commits`` (their number, including those of other processes), ``revision`` (of the last one),
            ``events_delivered`` (passed to the event manager), ``events_pending`` (queued or being
            delivered), ``events_dropped`` (changes that full buffers of watches have dropped),
            ``listener_errors`` (calls of listeners that raised), ``slowest_listener`` (the name of the one
            with the longest call, or None), ``slowest_listener_seconds`` (of that call), ``watches`` (how
            many are open).
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
        """Return the current activity of the store: the writer, the waiting threads, the running listener.

        It neither waits for writers nor delays them. The calls of listeners are timed from the first call of
        this method on.

        Returns
        -------
        activity : dict
            ``writer``: the writer that blocks all others, or None; a dict with ``thread``, ``purpose``,
            ``seconds``, ``process`` (its number) and ``host`` (of a `RedisStore`, else None). A writer of
            another process is shown for a `RedisStore`, and on Linux for a `SqliteStore`. ``waiting``: the
            threads of this process that wait to write, each with ``thread``, ``purpose`` and ``seconds``.
            ``waiting_for_listeners``: the number of threads that wait because too many events are pending.
            ``transactions``: the open transactions of this process, each with ``number``, ``notes``,
            ``thread``, ``seconds`` and ``optimistic``. ``listener``: the running listener with ``name``,
            ``event`` (the name of its class), ``key`` (None if the event has none) and ``seconds``; or None.
            ``listeners``: all listeners called so far, the slowest first, each with ``name``, ``calls``,
            ``errors``, ``seconds`` (of all calls) and ``longest``.
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

    def _admit_writer(self, purpose: str, timeout: float | None = None) -> None:
        """Admit a writer, before it needs a lock. A listener is always admitted, or it would wait for itself.

        Raises
        ------
        StoreClosedError
            If the store is closed.
        BackpressureError
            If too many events are pending, and still are when the timeout expires.
        """
        dispatcher = self._dispatcher
        if not (self._closed or dispatcher.throttled) or dispatcher.on_dispatcher_thread():
            return
        if self._closed:
            raise StoreClosedError(f"{purpose}: the store is closed; connect() opens it again")
        seconds = self._engine.timeout if timeout is None else timeout
        in_thread(lambda: dispatcher.wait_for_room(purpose, seconds), to_its_end=False)

    def _deliver(self) -> None:
        """Make sure that queued events are delivered; no lock is held."""
        self._dispatcher.start_if_needed()

    def _progress(self, key: str, metadata: Entry | None, steps: int) -> AbstractContextManager[Progress]:
        """Return a context manager that reports the progress of reading a stream, in bytes."""
        if self._dispatcher.throttled and self._engine.routes.current() is None:
            self._admit_writer(f"reading the stream of {key!r}")
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
            "a store cannot be pickled or copied: save(path) writes its entries, load(path) reads them"
        )

    def _renew_in_child(self) -> None:
        """Make the copy in a forked child an independent store: consistent, idle, with free locks.

        Other threads of the parent may have been at any point, and do not exist here.
        """
        for transaction in self._engine.routes.blocks():
            transaction._forget_in_child()  # type: ignore[attr-defined]
        # In this order: what an interrupted commit has queued is the parent's to deliver.
        self._engine.renew_in_child()
        self._dispatcher.renew_in_child()


class _QueuedEvents:
    """Emits through the store's queue, so that progress is delivered in order with all other events."""

    __slots__ = ("_dispatcher", "_manager")

    def __init__(self, manager: BaseEventManager, dispatcher: EventDispatcher) -> None:
        self._manager = manager
        self._dispatcher = dispatcher

    def emit(self, event: BaseEvent, /) -> None:
        self._dispatcher.submit(EventDelivery(self._manager, event))
        self._dispatcher.start_if_needed()


# All existing stores, for forked children.
_stores: weakref.WeakSet[DeliveredStore] = weakref.WeakSet()


def _renew_stores_in_child() -> None:
    failures = []
    for store in list(_stores):
        try:
            store._renew_in_child()
        except Exception as error:  # such as a failing lock_class, which must not affect other stores
            failures.append(error)
    if failures:
        raise ExceptionGroup("stores that are unusable in this forked child", failures)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_stores_in_child)
