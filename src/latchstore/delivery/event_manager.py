"""Who listens to what: the registry of listeners, and the calling of them.

Thread safety
-------------
1. Every method may be called from any thread, from inside listeners, filters and trace functions,
   and from finalizers and signal handlers at any point, also in the middle of another call.
2. All that a manager knows is in one `_Table`. A published table never changes. A change builds the
   next table, sharing what stays the same, and publishes it by making it the one that follows. (The other
   mutable parts of a table are memos, which depend on nothing else than the table itself.)
3. There is no lock. Which table follows is one ``dict.setdefault``, atomic in CPython with and without the
   GIL: whoever comes second finds what the first has published, and builds again on that. So it does not
   matter where an exception strikes, or in the middle of what a finalizer or a signal handler calls.
   `EventManager._table` is where to begin looking for the newest one; it may be some steps behind.
4. Those who read take the newest table once and go on with that one. So an
   `emit` calls the listeners that were connected when it began, whatever happens meanwhile.
5. Callables are compared by identity alone; filter values are compared only to match an event, on the
   thread that emits it.
6. The callback of a weak reference is the `append` of a deque. It takes no lock and runs no Python
   code, so it does not matter when and on which thread the garbage collector calls it. The next
   change, or the next emit, takes the dead connections out of the table. Until then they are passed
   over: a listener that is dead is never called and never returned.
7. Event classes are dictionary keys here and are expected to hash and compare as classes do.
"""

from __future__ import annotations

import itertools
import logging
import operator
import threading
import time
import weakref
from bisect import bisect, bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import length_hint
from types import BuiltinMethodType, MethodType, MethodWrapperType
from typing import Any, Protocol

from latchstore.contract.event_manager import (
    BaseEventManager,
    Event,
    Listener,
    Trace,
    check_event_class,
    set_default_class,
)
from latchstore.contract.events import BaseEvent

__all__ = ["EventInfo", "EventManager"]

logger = logging.getLogger("latchstore")


class ListenerObserver(Protocol):
    """What is told of each call of a listener that an `Emission` makes, on its thread.

    Attributes
    ----------
    calling : tuple of callable, BaseEvent and float, or None
        The listener that is being called, with what, and since when, in seconds of the monotonic clock.
    """

    calling: tuple[Listener, BaseEvent, float] | None

    def returned(self, failed: bool) -> float:
        """Note that it has returned, or raised something; return the time, at which the next one is called.

        So each listener costs one call and one reading of the clock. Two of each made a commit that 100 hear
        1.12 times as dear as encore's, and not 0.96 times (benchmarks/events.py).
        """


# What makes two callables the same listener; built of ids and names, so that to hash and compare
# it runs no user code.
_Identity = tuple[int | str, ...]
_Conditions = tuple[tuple[tuple[str, ...], object], ...]


class _Missing:
    """The type of the value of an attribute that is not there."""


_MISSING = _Missing()
_KEY = ("key",)
_SOURCE = ("source",)


def _attribute(event: BaseEvent, path: tuple[str, ...]) -> object:
    """Return what a path of attributes leads to, or `_MISSING`."""
    value: object = event
    try:
        for name in path:
            value = getattr(value, name)
    except AttributeError:
        return _MISSING
    except Exception:
        logger.debug("Cannot read %s of %s", ".".join(path), type(event), exc_info=True)
        return _MISSING
    return value


def _compares_by_identity(value: object) -> bool:
    """Tell whether the type of `value` leaves `==` to mean `is`."""
    return type(value).__eq__ is object.__eq__


class _Receiver(weakref.ref[Any]):
    """A weak reference to the object of a bound method, which knows the connection it is for."""

    __slots__ = ("cls", "identity")
    cls: type[BaseEvent]
    identity: _Identity


class _Connection:
    """One listener of one class. Does not change once its table has been published."""

    __slots__ = ("conditions", "function", "identity", "index", "order", "receiver", "value")

    # Sorts the connections of a manager; no two have the same. Set when the table is built.
    order: tuple[int, int]

    def __init__(
        self,
        identity: _Identity,
        function: Callable[..., object],
        receiver: _Receiver | None,
        conditions: _Conditions,
    ) -> None:
        self.identity = identity
        self.function = function
        self.receiver = receiver
        self.conditions = conditions
        self.index, self.value = _place(conditions)

    def listener(self) -> Listener | None:
        """Return what to call, or None if it is dead."""
        if self.receiver is None:
            return self.function
        instance = self.receiver()
        return None if instance is None else MethodType(self.function, instance)

    def matches(self, event: BaseEvent) -> bool:
        """Tell whether an event passes the filter."""
        for path, value in self.conditions:
            attribute = _attribute(event, path)
            if attribute is _MISSING:
                return False
            try:
                matched = bool(attribute == value)
            except Exception:
                logger.debug("Cannot compare %s in a filter", ".".join(path), exc_info=True)
                return False
            if not matched:
                return False
        return True


_order = operator.attrgetter("order")

# The connections of a class stand in three indexes. One that filters on a key is found by the key,
# one that filters on a source by the identity of the source, all others under None.
_ANY, _BY_KEY, _BY_SOURCE = range(3)
_Index = dict[Any, tuple[_Connection, ...]]
_Indexes = tuple[_Index, ...]


def _place(conditions: _Conditions) -> tuple[int, object]:
    """Return in which index, and under which value, a connection with these conditions stands."""
    values = dict(conditions)
    # Only exact strings: a subclass might compare in its own way.
    if type(key := values.get(_KEY)) is str:
        return _BY_KEY, key
    if _SOURCE in values and _compares_by_identity(source := values[_SOURCE]):
        # The conditions keep the source alive, so its id stays its own.
        return _BY_SOURCE, id(source)
    return _ANY, None


def _inserted(bucket: tuple[_Connection, ...], connection: _Connection) -> tuple[_Connection, ...]:
    position = bisect(bucket, connection.order, key=_order)
    return (*bucket[:position], connection, *bucket[position:])


class EventInfo:
    """What an event manager knew of one event class at the moment it was asked. Read only.

    Attributes
    ----------
    cls : type
        The event class.
    enabled : bool
        Whether this class itself is switched on; its bases are not considered.
    listeners : tuple of callable
        The listeners connected to this class itself that are still alive, in calling order.
    """

    __slots__ = ("_cls", "_connections", "_enabled", "_indexes")

    # No dataclass: 3 of 60 ms of an import of latchstore.
    def __init__(
        self,
        cls: type[BaseEvent],
        enabled: bool = True,
        _connections: dict[_Identity, _Connection] | None = None,
        _indexes: _Indexes | None = None,
    ) -> None:
        self._cls = cls
        self._enabled = enabled
        self._connections = {} if _connections is None else _connections
        self._indexes: _Indexes = ({}, {}, {}) if _indexes is None else _indexes

    @property
    def cls(self) -> type[BaseEvent]:
        return self._cls

    @property
    def enabled(self) -> bool:
        return self._enabled

    @property
    def listeners(self) -> tuple[Listener, ...]:
        return tuple(_listeners(sorted(self._connections.values(), key=_order)))

    def __repr__(self) -> str:
        state = "enabled" if self.enabled else "disabled"
        return f"<EventInfo {self.cls.__name__}: {state}, {len(self.listeners)} listeners>"

    def _switched(self, enabled: bool) -> EventInfo:
        """Return a copy that is switched on or off."""
        return EventInfo(self._cls, enabled, self._connections, self._indexes)

    def _with(self, connection: _Connection) -> EventInfo:
        """Return a copy with one more connection, or with another of the same listener."""
        replaced = self._connections.get(connection.identity)
        base = self if replaced is None else self._without([replaced])
        # Only what changes is copied. Not by dict(): copy() alone stays fast after deletions.
        index = base._indexes[connection.index].copy()
        index[connection.value] = _inserted(index.get(connection.value, ()), connection)
        indexes = list(base._indexes)
        indexes[connection.index] = index
        connections = base._connections.copy()
        connections[connection.identity] = connection
        return EventInfo(self._cls, self._enabled, connections, tuple(indexes))

    def _without(self, gone: Iterable[_Connection]) -> EventInfo:
        """Return a copy that lacks some connections, all of which must be there."""
        connections = self._connections.copy()
        indexes = tuple(index.copy() for index in self._indexes)
        # One list per bucket that changes, so that many can go at the price of one.
        shrunk: dict[tuple[int, object], list[_Connection]] = {}
        for connection in gone:
            del connections[connection.identity]
            place = (connection.index, connection.value)
            if place not in shrunk:
                shrunk[place] = list(indexes[connection.index][connection.value])
            bucket = shrunk[place]
            del bucket[bisect_left(bucket, connection.order, key=_order)]
        for (index, value), bucket in shrunk.items():
            if bucket:
                indexes[index][value] = tuple(bucket)
            else:
                del indexes[index][value]
        return EventInfo(self._cls, self._enabled, connections, indexes)

    def _candidates(self, event: BaseEvent) -> list[_Connection]:
        """Return those connections that may match an event: far fewer than all, if indexed."""
        anything, by_key, by_source = self._indexes
        candidates = list(anything.get(None, ()))
        if by_key:
            key = _attribute(event, _KEY)
            if type(key) is str:
                candidates += by_key.get(key, ())
            elif key is not _MISSING:
                # Whatever this is, it may equal a string in its own way.
                candidates += (each for bucket in by_key.values() for each in bucket)
        if by_source:
            source = _attribute(event, _SOURCE)
            if _compares_by_identity(source):
                candidates += by_source.get(id(source), ())
            else:
                candidates += (each for bucket in by_source.values() for each in bucket)
        return candidates

    def _check(self) -> None:
        """Check the invariants of this structure; for tests."""
        found = 0
        for number, index in enumerate(self._indexes):
            for value, bucket in index.items():
                found += len(bucket)
                assert bucket, "an empty bucket has been left behind"
                assert list(bucket) == sorted(bucket, key=_order), "a bucket is out of order"
                for connection in bucket:
                    assert (connection.index, connection.value) == (number, value)
                    assert self._connections[connection.identity] is connection
        assert found == len(self._connections), "the indexes do not hold all connections"
        assert len({each.order for each in self._connections.values()}) == found


class _Route:
    """What an event of one class meets on its way: is it let through, and who may listen."""

    __slots__ = ("_unfiltered", "enabled", "infos", "reachable")

    def __init__(self, infos: list[EventInfo]) -> None:
        # A memo, as those of the table: all connections, if none has a filter; empty if one has.
        self._unfiltered: list[_Connection] | None = None
        self.enabled = all(info.enabled for info in infos)
        self.infos = [info for info in infos if info._connections]
        self.reachable = self.enabled and any(
            connection.listener() is not None
            for info in self.infos
            for connection in info._connections.values()
        )

    def connections(self) -> list[_Connection]:
        """Return all connections in calling order."""
        return sorted((c for info in self.infos for c in info._connections.values()), key=_order)

    def matching(self, event: BaseEvent) -> list[_Connection]:
        """Return the connections whose filters an event passes, in calling order; not to be changed."""
        # Without filters it is the same for each event: 0.15 of 0.5 us for each of 10,000 listeners.
        unfiltered = self._unfiltered
        if unfiltered is None:
            connections = self.connections()
            filtered = any(connection.conditions for connection in connections)
            unfiltered = self._unfiltered = [] if filtered else connections
        if unfiltered:
            return unfiltered
        found = [
            connection
            for info in self.infos
            for connection in info._candidates(event)
            if not connection.conditions or connection.matches(event)
        ]
        # A merge: the parts are in order already, and such runs are what the sort looks for.
        found.sort(key=_order)
        return found


class _Table:
    """All that a manager knows at one moment. Does not change once it is published."""

    __slots__ = ("following", "infos", "reachable", "routes", "sequence")

    def __init__(self, infos: dict[type[BaseEvent], EventInfo] | None = None, sequence: int = 0) -> None:
        self.infos = {} if infos is None else infos
        # Item 0 is the table that has been published after this one; see rule 3.
        self.following: dict[int, _Table] = {}
        # How many connections have ever been made; numbers the next one.
        self.sequence = sequence
        # A memo of what follows from the above, filled by whoever needs it. Two threads that fill
        # in the same class at once write the same.
        self.routes: dict[type[BaseEvent], _Route] = {}
        # Another, of classes and sets of classes: whether there is anybody to reach.
        self.reachable: dict[object, bool] = {}

    def info(self, cls: type[BaseEvent]) -> EventInfo:
        """Return what is known of a class, known or not."""
        return self.infos.get(cls) or EventInfo(cls)

    def with_info(self, info: EventInfo) -> _Table:
        """Return a table in which this is what is known of one class."""
        return _Table({**self.infos, info.cls: info}, self.sequence)

    def with_connection(self, cls: type[BaseEvent], connection: _Connection, priority: int) -> _Table:
        """Return a table with one more connection, the last one of its priority."""
        connection.order = (-priority, self.sequence)
        table = self.with_info(self.info(cls)._with(connection))
        table.sequence += 1
        return table

    def connection(self, cls: type[BaseEvent], identity: _Identity) -> _Connection | None:
        """Return the connection of a listener to a class, or None if there is none alive."""
        connection = self.info(cls)._connections.get(identity)
        # A dead one may be there under the identity of a new object at the same address.
        return None if connection is None or connection.listener() is None else connection

    def without_dead(self, receivers: list[_Receiver]) -> _Table:
        """Return a table without the connections that these were for; some may be gone before."""
        dead: dict[type[BaseEvent], list[_Connection]] = {}
        for receiver in receivers:
            connection = self.info(receiver.cls)._connections.get(receiver.identity)
            if connection is not None and connection.receiver is receiver:
                dead.setdefault(receiver.cls, []).append(connection)
        table = self
        for cls, connections in dead.items():
            table = table.with_info(table.info(cls)._without(connections))
        return table


class EventManager(BaseEventManager):
    """An event manager for many threads; see the rules at the top of this file."""

    def __init__(self) -> None:
        # See rule 3; read by way of `_newest`.
        self._table = _Table()
        # Weak references that have died since the table was built; the collector appends to it.
        self._dead: deque[Any] = deque()
        self._trace: Trace | None = None

    def connect(
        self,
        cls: type[Event],
        func: Callable[[Event], object],
        filter: Mapping[str, object] | None = None,
        priority: int = 0,
    ) -> None:
        check_event_class(cls)
        if not callable(func):
            raise TypeError(f"func must be callable, not {func!r}")
        conditions = _conditions(filter)
        if not isinstance(priority, int):
            raise TypeError(f"priority must be an int, not {priority!r}")
        if self._vetoes("connect", self.connect, (cls, func, filter, priority)):
            return
        connection = self._connection(cls, func, conditions)
        exact_priority = operator.index(priority)
        self._change(lambda table: table.with_connection(cls, connection, exact_priority))

    def disconnect(self, cls: type[Event], func: Callable[[Event], object]) -> None:
        check_event_class(cls)
        if self._vetoes("disconnect", self.disconnect, (cls, func)):
            return
        identity = _identity(func)

        def without_connection(table: _Table) -> _Table:
            connection = table.connection(cls, identity)
            if connection is None:
                raise KeyError(f"{listener_name(func)} is not connected to {cls.__name__}")
            return table.with_info(table.info(cls)._without([connection]))

        self._change(without_connection)

    def emit(self, event: BaseEvent, block: bool = True) -> threading.Thread | None:
        if not isinstance(event, BaseEvent):
            raise TypeError(f"event must be a BaseEvent, not {event!r}")
        if not block:
            name = f"latchstore emit {type(event).__name__}"
            thread = threading.Thread(target=self.emit, args=(event,), name=name, daemon=True)
            thread.start()
            return thread
        self._emit(event)
        return None

    def emission(self, event: BaseEvent) -> Emission | None:
        """Begin to emit an event on a thread that no listener may end; for a store's dispatcher.

        The same as `emit`, but that the listeners are called by the `Emission`, and that whatever one raises
        is logged, SystemExit and KeyboardInterrupt too, and the listeners after it are called.

        Parameters
        ----------
        event : BaseEvent

        Returns
        -------
        emission : Emission or None
            None if nothing is to be called.
        """
        # Once for the whole emission, so that set_trace cannot take effect in the middle of it.
        trace = self._trace
        connections = self._begin(event, trace)
        return None if connections is None else Emission(event, _listeners(connections), trace)

    def _emit(self, event: BaseEvent) -> None:
        trace = self._trace  # once, as in `emission`
        connections = self._begin(event, trace)
        if connections is not None:
            _call_listeners(connections, trace, event)
            event.post_emit()

    def _begin(self, event: BaseEvent, trace: Trace | None) -> list[_Connection] | None:
        """Return whom to call; None if the event is not to be emitted."""
        if trace is not None and trace("emit", self.emit, (event,)):
            return None
        if self._dead:
            self._change(_unchanged)
        route = self._newest_route(type(event))
        if not route.enabled:
            return None
        connections = route.matching(event)
        event.pre_emit()
        return connections

    def disable(self, cls: type[BaseEvent]) -> None:
        check_event_class(cls)
        self._change(lambda table: table.with_info(table.info(cls)._switched(enabled=False)))

    def enable(self, cls: type[BaseEvent]) -> None:
        check_event_class(cls)
        self._change(lambda table: table.with_info(table.info(cls)._switched(enabled=True)))

    def is_enabled(self, cls: type[BaseEvent]) -> bool:
        return self._newest_route(cls).enabled

    def has_listeners(self, cls: type[BaseEvent] | frozenset[type[BaseEvent]]) -> bool:
        # The store asks this on every commit: no call on the usual way.
        table = self._table
        if table.following:
            table = self._newest()
        try:
            reachable = table.reachable[cls]
        except KeyError:
            reachable = None
        # The one thing that can change under a published table: listeners die.
        if reachable is None or (reachable and self._dead):
            classes = cls if isinstance(cls, frozenset) else (cls,)
            reachable = any(self._new_route(table, each).reachable for each in classes)
            table.reachable[cls] = reachable
        return reachable

    def register(self, cls: type[BaseEvent]) -> None:
        check_event_class(cls)

        def with_class(table: _Table) -> _Table:
            if cls in table.infos:
                raise ValueError(f"{cls.__name__} is already registered")
            return table.with_info(EventInfo(cls))

        self._change(with_class)

    def get_event(self, cls: type[BaseEvent] | None = None) -> Any:
        infos = self._newest().infos
        return dict(infos) if cls is None else infos[cls]

    def get_listeners(
        self, event_or_class: BaseEvent | type[BaseEvent], cls: type[BaseEvent] | None = None
    ) -> list[Listener]:
        if isinstance(event_or_class, BaseEvent):
            event_class = type(event_or_class) if cls is None else cls
            return _listeners(self._newest_route(event_class).matching(event_or_class))
        event_class = event_or_class if cls is None else cls
        return _listeners(self._newest_route(event_class).connections())

    def set_trace(self, func: Trace | None) -> None:
        if func is not None and not callable(func):
            raise TypeError(f"func must be callable or None, not {func!r}")
        self._trace = func

    def _vetoes(self, name: str, method: Callable[..., Any], args: tuple[Any, ...]) -> bool:
        trace = self._trace
        return trace is not None and bool(trace(name, method, args))

    def _connection(self, cls: type[BaseEvent], func: Listener, conditions: _Conditions) -> _Connection:
        identity = _identity(func)
        if type(func) is MethodType:
            try:
                receiver = _Receiver(func.__self__, self._dead.append)
            except TypeError:
                # It cannot be weakly referenced.
                return _Connection(identity, func, None, conditions)
            receiver.cls = cls
            receiver.identity = identity
            return _Connection(identity, func.__func__, receiver, conditions)
        return _Connection(identity, func, None, conditions)

    def _change(self, change: Callable[[_Table], _Table]) -> None:
        """Publish what `change` makes of the table, and take the dead out of it on the way.

        `change` is called again on a newer table if another one has been published meanwhile: by
        another thread, or on this thread by a finalizer or a signal handler.
        """
        dead: list[_Receiver] = []
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
            # Those of a change that failed are still in the table; that of one taken out is passed
            # over when its turn comes again.
            self._dead.extend(dead)
            raise

    def _newest(self) -> _Table:
        table = self._table
        while table.following:
            table = table.following[0]
        return table

    def _newest_route(self, cls: type[BaseEvent]) -> _Route:
        table = self._table
        if table.following:
            table = self._newest()
        return table.routes.get(cls) or self._new_route(table, cls)

    def _new_route(self, table: _Table, cls: type[BaseEvent]) -> _Route:
        known = [table.infos[base] for base in self.get_event_hierarchy(cls) if base in table.infos]
        route = table.routes[cls] = _Route(known)
        return route

    def _check(self) -> None:
        """Check the invariants of the newest table; for tests."""
        table = self._newest()
        for cls, info in table.infos.items():
            assert info.cls is cls
            info._check()
            for connection in info._connections.values():
                assert connection.order[1] < table.sequence


def _unchanged(table: _Table) -> _Table:
    return table


def _move(source: deque[Any], target: list[_Receiver]) -> None:
    """Move all from a deque to which others append meanwhile, so that it cannot be iterated."""
    while source:
        try:
            target.append(source.popleft())
        except IndexError:
            # Another thread took the last one.
            return


def _listeners(connections: Iterable[_Connection]) -> list[Listener]:
    """Return what is still alive of some connections."""
    return [func for each in connections if (func := each.listener()) is not None]


def _call_listeners(connections: list[_Connection], trace: Trace | None, event: BaseEvent) -> None:
    """Call listeners one after another until the event is handled; log those that fail."""
    for connection in connections:
        listener = connection.listener()
        if listener is None:
            continue
        try:
            if trace is not None and trace("listen", listener, (event,)):
                continue
            listener(event)
        except Exception:
            logger.exception("Listener %s failed on %r", listener_name(listener), event)
        if event._handled:
            return


class Emission:
    """The calling of the listeners of one event, each of them once.

    If an exception strikes `run` outside of them, it can be called again and goes on where it was: to take
    the next listener and to call it is one step in C, with no bytecode in between.

    Parameters
    ----------
    event : BaseEvent
        Its `pre_emit` was called.
    listeners : list of callable
    trace : callable, optional
        As for `BaseEventManager.set_trace`.
    """

    __slots__ = ("_calls", "_event", "_left", "_listeners", "_trace")

    def __init__(self, event: BaseEvent, listeners: list[Listener], trace: Trace | None = None) -> None:
        self._event = event
        self._listeners = listeners
        self._trace = trace
        self._left = iter(listeners)
        self._calls: Iterator[object] = map(operator.call, self._left, itertools.repeat(event))

    def run(self, observer: ListenerObserver) -> None:
        """Call the listeners that are left, until the event is handled.

        Parameters
        ----------
        observer : ListenerObserver
            Told of each call.
        """
        event, trace, listeners, calls = self._event, self._trace, self._listeners, self._calls
        every, left = len(listeners), length_hint(self._left)
        since = time.monotonic()
        while left and (left == every or not event._handled):
            listener = listeners[-left]
            if trace is not None and self._passes_over(trace, listener):
                left -= 1
                continue
            failed = True
            observer.calling = (listener, event, since)
            try:
                next(calls)
                left -= 1
                failed = False
            except BaseException:
                logger.exception("Listener %s failed on %r", listener_name(listener), event)
                left = length_hint(self._left)  # what has struck may have been anything, before the call, too
            finally:
                since = observer.returned(failed)
        event.post_emit()

    def _passes_over(self, trace: Trace, listener: Listener) -> bool:
        """Ask the trace function; pass over the next listener if it says so, or fails."""
        try:
            if not trace("listen", listener, (self._event,)):
                return False
        except Exception:
            logger.exception("Listener %s failed on %r", listener_name(listener), self._event)
        next(self._left)
        return True


def _identity(func: Callable[..., object]) -> _Identity:
    """Return what makes two callables the same listener. Runs no code of theirs.

    Python makes a new object each time a method is looked up, so methods are told by what they are
    made of. Ids are safe here: of all that is connected, what they denote is alive, or the
    connection is dead.
    """
    if type(func) is MethodType:
        return id(func.__self__), id(func.__func__)
    if type(func) is BuiltinMethodType or type(func) is MethodWrapperType:
        return id(func.__self__), func.__name__
    return (id(func),)


def listener_name(func: object) -> str:
    """Return the name of a callable, without its repr, which may show data."""
    name = getattr(func, "__qualname__", None)
    if not isinstance(name, str):
        return f"an instance of {type(func).__qualname__}"
    return f"{getattr(func, '__module__', None)}.{name}"


def _conditions(filter: Mapping[str, object] | None) -> _Conditions:
    """Return a copy of a filter, checked, with its paths split."""
    if filter is None:
        return ()
    if not isinstance(filter, Mapping):
        raise TypeError(f"filter must be a mapping, not {filter!r}")
    items = list(filter.items())
    for path, _ in items:
        if not isinstance(path, str):
            raise TypeError(f"filter must have attribute paths (str) as keys, not {path!r}")
    return tuple((tuple(path.split(".")), value) for path, value in items)


set_default_class(EventManager)
