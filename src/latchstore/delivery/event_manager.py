"""The event manager: it keeps the connections of listeners and calls the listeners of an event.

Thread safety
-------------
1. Any thread may call any method, also from listeners, filters and trace functions, and from finalizers and
   signal handlers at any point, including the middle of another call.
2. The whole state of a manager is one `Table`. A published table never changes. A change builds the next
   table, which shares unchanged parts, and publishes it as the one that follows. (The only mutable parts of a
   table are memos, which depend on nothing but the table itself.)
3. There is no lock. The next table is set by one ``dict.setdefault``, atomic in CPython with and without the
   GIL: the second of two threads finds the table of the first, and builds on that. So an exception, a
   finalizer or a signal handler may interrupt a change at any point. `EventManager._table` is where the
   search for the newest table begins; it may be some steps behind.
4. A reader takes the newest table once and uses it to the end. So an `emit` calls the listeners that were
   connected when it began, whatever changes meanwhile.
5. Callables are compared by identity only. Filter values are compared only to match an event, on the thread
   that emits it.
6. The callback of a weak reference is the `append` of a deque. It acquires no lock and runs no Python code,
   so the garbage collector may call it at any time on any thread. The next change or emit removes dead
   connections from the table. Until then they are skipped: a dead listener is never called or returned.
7. Event classes are dictionary keys here and must hash and compare as classes do.
"""

from __future__ import annotations

import operator
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any

from latchstore.contract.arguments import describe, is_coroutine_function
from latchstore.contract.event_manager import (
    BaseEventManager,
    Event,
    Listener,
    Trace,
    check_event_class,
    set_default_class,
)
from latchstore.contract.events import BaseEvent
from latchstore.delivery.emission import Emission, listener_name
from latchstore.delivery.filters import Conditions, checked_filter
from latchstore.delivery.registry import (
    Connection,
    EventInfo,
    Receiver,
    Table,
    identity_of,
    listeners_of,
)

__all__ = ["EventInfo", "EventManager", "listener_name"]


class EventManager(BaseEventManager):
    """An event manager for many threads, without a lock.

    Thread safety
    -------------
    As `BaseEventManager`. Listeners run with no lock held.
    """

    # hot path: stores call `has_listeners` before each commit.
    __slots__ = ("_dead", "_has_own_emit", "_table", "_trace")

    def __init__(self) -> None:
        # See rule 3; read through `_newest`.
        self._table = Table()
        # Weak references that have died since the table was built; the collector appends to it.
        self._dead: deque[Any] = deque()
        self._trace: Trace | None = None
        # Whether an `emit` of this object alone is in place of the method. hot path: kept here, since reading
        # ``__dict__`` takes longer than all else that `has_listeners` does.
        self._has_own_emit: bool = "emit" in self.__dict__
        # The arguments of `call_when_connected`: functions, by weak references to their arguments. Changed by
        # single operations; a dead reference removes itself, by one call in C.
        self._followers: dict[weakref.ref[Any], Callable[[Any], object]] = {}

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name == "emit":
            super().__setattr__("_has_own_emit", True)

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        if name == "emit":
            super().__setattr__("_has_own_emit", False)

    def connect(
        self,
        cls: type[Event],
        func: Callable[[Event], object],
        filter: Mapping[str, object] | None = None,
        priority: int = 0,
    ) -> None:
        check_event_class(cls)
        if not callable(func):
            raise TypeError(f"func must be callable, got {describe(func)}")
        conditions = checked_filter(cls, filter)
        if not isinstance(priority, int):
            raise TypeError(f"priority must be an int, got {describe(priority)}")
        if self._vetoes("connect", self.connect, (cls, func, filter, priority)):
            return
        connection = self._connection(cls, func, conditions)
        if is_coroutine_function(func):
            self._run_on_loop(cls, func, connection)
        exact_priority = operator.index(priority)
        self._change(lambda table: table.with_connection(cls, connection, exact_priority))
        self._call_followers()

    def _call_followers(self) -> None:
        for receiver, function in list(self._followers.items()):
            follower = receiver()
            if follower is not None:
                function(follower)

    def disconnect(self, cls: type[Event], func: Callable[[Event], object]) -> None:
        check_event_class(cls)
        if self._vetoes("disconnect", self.disconnect, (cls, func)):
            return
        identity = identity_of(func)

        def without_connection(table: Table) -> Table:
            connection = table.connection(cls, identity)
            if connection is None:
                raise KeyError(f"{listener_name(func)} is not connected to {cls.__name__}")
            return table.without(cls, [connection])

        self._change(without_connection)

    def emit(self, event: BaseEvent, block: bool = True) -> threading.Thread | None:
        if not isinstance(event, BaseEvent):
            raise TypeError(f"event must be a BaseEvent, got {describe(event)}")
        if not block:
            name = f"latchstore emit {type(event).__name__}"
            thread = threading.Thread(target=self.emit, args=(event,), name=name, daemon=True)
            thread.start()
            return thread
        emission = self._emission(event)
        if emission is not None:
            emission.run()
        return None

    def _emission(self, event: BaseEvent) -> Emission | None:
        """Begin to emit an event; the caller then runs the emission.

        Parameters
        ----------
        event : BaseEvent

        Returns
        -------
        emission : Emission or None
            None if no listener is to be called.
        """
        # Read once, so that set_trace does not take effect in the middle of an emission.
        trace = self._trace
        if trace is not None and trace("emit", self.emit, (event,)):
            return None
        if self._dead:
            self._change(_unchanged)
        route = self._newest().route(type(event))
        if not route.enabled:
            return None
        connections = route.matching(event)
        event.pre_emit()
        return Emission(event, connections, trace)

    def disable(self, cls: type[BaseEvent]) -> None:
        check_event_class(cls)
        self._change(lambda table: table.switched(cls, enabled=False))

    def enable(self, cls: type[BaseEvent]) -> None:
        check_event_class(cls)
        self._change(lambda table: table.switched(cls, enabled=True))
        self._call_followers()

    def is_enabled(self, cls: type[BaseEvent]) -> bool:
        return self._newest().route(cls).enabled

    def has_listeners(self, cls: type[BaseEvent] | frozenset[type[BaseEvent]]) -> bool:
        # Stores call this at every commit, under their lock, so it runs no user code. hot path: mostly no
        # call.
        table = self._table
        if table.following:
            table = self._newest()
        try:
            reachable = table.reachable[cls]
        except KeyError:
            reachable = table.find_reachable(cls)
        # The only thing that changes under a published table: listeners die.
        if reachable and (not self._dead or table.find_reachable(cls)):
            return True
        # Like `emits_itself`, inlined. An `emit` in place of ours may itself be a listener.
        return type(self).emit is not _EMIT or self._has_own_emit

    def emits_itself(self) -> bool:
        """Return whether `emit` is the method of this class, neither overridden nor patched."""
        return type(self).emit is _EMIT and "emit" not in self.__dict__

    def register(self, cls: type[BaseEvent]) -> None:
        check_event_class(cls)

        def with_class(table: Table) -> Table:
            if cls in table.infos:
                raise ValueError(f"{cls.__name__} is already registered")
            return table.with_class(cls)

        self._change(with_class)

    def get_event(self, cls: type[BaseEvent] | None = None) -> Any:
        infos = self._newest().infos
        return dict(infos) if cls is None else infos[cls]

    def get_listeners(
        self, event_or_class: BaseEvent | type[BaseEvent], cls: type[BaseEvent] | None = None
    ) -> list[Listener]:
        if isinstance(event_or_class, BaseEvent):
            event_class = type(event_or_class) if cls is None else cls
            return listeners_of(self._newest().route(event_class).matching(event_or_class))
        event_class = event_or_class if cls is None else cls
        return listeners_of(self._newest().route(event_class).connections())

    def set_trace(self, func: Trace | None) -> None:
        if func is not None and not callable(func):
            raise TypeError(f"func must be callable or None, got {describe(func)}")
        self._trace = func

    def _vetoes(self, name: str, method: Callable[..., Any], args: tuple[Any, ...]) -> bool:
        trace = self._trace
        return trace is not None and bool(trace(name, method, args))

    def _connection(self, cls: type[BaseEvent], func: Listener, conditions: Conditions) -> Connection:
        identity = identity_of(func)
        if type(func) is MethodType:
            try:
                receiver = Receiver(func.__self__, self._dead.append)
            except TypeError:
                # The object does not support weak references.
                return Connection(identity, func, None, conditions)
            receiver.cls = cls
            receiver.identity = identity
            return Connection(identity, func.__func__, receiver, conditions)
        return Connection(identity, func, None, conditions)

    def _run_on_loop(self, cls: type[BaseEvent], func: Any, connection: Connection) -> None:
        """Make a connection call a coroutine function on the event loop of this thread."""
        # Imported here, since it imports asyncio.
        from latchstore.delivery.loop_listeners import LoopListener

        identity = connection.identity

        def without(table: Table) -> Table:
            found = table.connection(cls, identity)
            # The function may have been connected again, from another loop.
            return table if found is None or found.function is not listener else table.without(cls, [found])

        function: Callable[..., Any] = connection.function
        listener = LoopListener(function, listener_name(func), lambda: self._change(without))
        connection.function = listener

    def _change(self, change: Callable[[Table], Table]) -> None:
        """Publish the table that `change` returns, without dead connections.

        `change` is called again with a newer table if another one has been published meanwhile: by another
        thread, or on this thread by a finalizer or a signal handler.
        """
        dead: list[Receiver] = []
        try:
            _move(self._dead, dead)
            while True:
                before = self._newest()
                after = change(before.without_dead(dead))
                if after is before:
                    return
                if before.following.setdefault(0, after) is after:
                    self._table = after
                    return
        except BaseException:
            # The change failed, so their connections are still in the table; if one was removed before, the
            # next change skips it.
            self._dead.extend(dead)
            raise

    def _newest(self) -> Table:
        table = self._table
        while table.following:
            table = table.following[0]
        return table

    def check(self) -> None:
        """Check the invariants of the newest table; for tests."""
        self._newest().check()


def _unchanged(table: Table) -> Table:
    return table


def _move(source: deque[Any], target: list[Receiver]) -> None:
    """Move all items of a deque; it cannot be iterated, since other threads append to it."""
    while source:
        try:
            target.append(source.popleft())
        except IndexError:
            # Another thread took the last one.
            return


#: hot path: compared with the `emit` of a manager's class.
_EMIT: Callable[..., Any] = EventManager.emit

set_default_class(EventManager)


def call_when_connected(manager: EventManager, method: Callable[[], object]) -> None:
    """Have a bound method called after each `connect` and `enable`, after which there may be listeners.

    Its object is held weakly and can have only one such method. It must not raise. Any thread may call it,
    also in finalizers and signal handlers.
    """
    assert isinstance(method, MethodType)
    followers = manager._followers
    followers[weakref.ref(method.__self__, followers.pop)] = method.__func__
