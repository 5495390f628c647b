"""The state of an event manager at one moment: the connections of listeners to event classes.

Thread safety: a published table and its parts never change, except for memos of derived facts. A change
builds the next table, which shares unchanged parts.
"""

from __future__ import annotations

import operator
import weakref
from bisect import bisect, bisect_left
from collections.abc import Callable, Iterable
from types import BuiltinMethodType, MethodType, MethodWrapperType
from typing import Any

from latchstore.contract.event_manager import Listener, check_event_class
from latchstore.contract.events import BaseEvent
from latchstore.delivery.filters import KEY, MISSING, SOURCE, Conditions, attribute, passes

# Identifies a listener; made of ids and names, so that hashing and comparing run no user code.
Identity = tuple[int | str, ...]


def _compares_by_identity(value: object) -> bool:
    """Return whether the type of `value` compares by identity."""
    return type(value).__eq__ is object.__eq__


class Receiver(weakref.ref[Any]):
    """A weak reference to the object of a bound method, and the identity of its connection."""

    __slots__ = ("cls", "identity")
    cls: type[BaseEvent]
    identity: Identity


class Connection:
    """One listener of one class. Does not change once its table has been published."""

    __slots__ = ("conditions", "function", "identity", "index", "order", "original", "receiver", "value")

    # Sorts the connections of a manager; no two have the same. Set when the table is built.
    order: tuple[int, int]

    def __init__(
        self,
        identity: Identity,
        function: Callable[..., object],
        receiver: Receiver | None,
        conditions: Conditions,
    ) -> None:
        self.identity: Identity = identity
        self.function: Callable[..., object] = function
        self.original: Callable[..., object] = function
        self.receiver: Receiver | None = receiver
        self.conditions: Conditions = conditions
        self.index: int
        self.value: object
        self.index, self.value = _place(conditions)

    def listener(self) -> Listener | None:
        """Return the function to call, or None if the object of the method was freed."""
        if self.receiver is None:
            return self.function
        instance = self.receiver()
        return None if instance is None else MethodType(self.function, instance)

    def connected(self) -> Listener | None:
        """Return the listener as it was connected, before any wrapping; None if its object was freed."""
        if self.receiver is None:
            return self.original
        instance = self.receiver()
        return None if instance is None else MethodType(self.original, instance)

    def matches(self, event: BaseEvent) -> bool:
        """Return whether an event passes the filter."""
        return passes(event, self.conditions)


_order = operator.attrgetter("order")

# The connections of a class are in three indexes. One that filters on a key is indexed by the key, one
# that filters on a source by the identity of the source, all others under None.
_ANY, _BY_KEY, _BY_SOURCE = range(3)
_Index = dict[Any, tuple[Connection, ...]]
_Indexes = tuple[_Index, ...]


def _place(conditions: Conditions) -> tuple[int, object]:
    """Return the index, and the value in it, for a connection with these conditions."""
    values = dict(conditions)
    # Exact strings only: a subclass may have its own comparison.
    if type(key := values.get(KEY)) is str:
        return _BY_KEY, key
    if SOURCE in values and _compares_by_identity(source := values[SOURCE]):
        # The conditions keep the source alive, so its id stays unique.
        return _BY_SOURCE, id(source)
    return _ANY, None


def _inserted(bucket: tuple[Connection, ...], connection: Connection) -> tuple[Connection, ...]:
    position = bisect(bucket, connection.order, key=_order)
    return (*bucket[:position], connection, *bucket[position:])


class EventInfo:
    """The state of one event class in an event manager, at the moment of the call. Read only.

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

    # Not a dataclass: creating one takes time at each import of latchstore.
    def __init__(
        self,
        cls: type[BaseEvent],
        enabled: bool = True,
        _connections: dict[Identity, Connection] | None = None,
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
        return tuple(listeners_of(sorted(self._connections.values(), key=_order)))

    def __repr__(self) -> str:
        state = "enabled" if self.enabled else "disabled"
        return f"<EventInfo {self.cls.__name__}: {state}, {len(self.listeners)} listeners>"

    def _switched(self, enabled: bool) -> EventInfo:
        """Return a copy that is switched on or off."""
        return EventInfo(self._cls, enabled, self._connections, self._indexes)

    def _with(self, connection: Connection) -> EventInfo:
        """Return a copy with one more connection, which replaces an earlier one of the same listener."""
        replaced = self._connections.get(connection.identity)
        base = self if replaced is None else self._without([replaced])
        # Only the changed parts are copied, and not by dict(): only copy() stays fast after deletions.
        index = base._indexes[connection.index].copy()
        index[connection.value] = _inserted(index.get(connection.value, ()), connection)
        indexes = list(base._indexes)
        indexes[connection.index] = index
        connections = base._connections.copy()
        connections[connection.identity] = connection
        return EventInfo(self._cls, self._enabled, connections, tuple(indexes))

    def _without(self, gone: Iterable[Connection]) -> EventInfo:
        """Return a copy that lacks some connections, all of which must be there."""
        connections = self._connections.copy()
        indexes = tuple(index.copy() for index in self._indexes)
        # One list per bucket that changes, so that many can go at the price of one.
        shrunk: dict[tuple[int, object], list[Connection]] = {}
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

    def _candidates(self, event: BaseEvent) -> list[Connection]:
        """Return the connections that may match an event; far fewer than all if they are indexed."""
        anything, by_key, by_source = self._indexes
        candidates = list(anything.get(None, ()))
        if by_key:
            key = attribute(event, KEY)
            if type(key) is str:
                candidates += by_key.get(key, ())
            elif key is not MISSING:
                # An object of any other type may equal a string by its own comparison.
                candidates += (each for bucket in by_key.values() for each in bucket)
        if by_source:
            source = attribute(event, SOURCE)
            if _compares_by_identity(source):
                candidates += by_source.get(id(source), ())
            else:
                candidates += (each for bucket in by_source.values() for each in bucket)
        return candidates

    def check(self) -> None:
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


class Route:
    """The path of events of one class: whether the class is enabled, and its connections."""

    __slots__ = ("_unfiltered", "enabled", "infos", "reachable")

    def __init__(self, infos: list[EventInfo]) -> None:
        # A memo, like those of the table: all connections, if none has a filter; else empty.
        self._unfiltered: list[Connection] | None = None
        # No generators in code that stores call: CPython 3.12 and 3.13 crash if memory for one is missing.
        self.enabled: bool = False not in [info.enabled for info in infos]
        self.infos: list[EventInfo] = [info for info in infos if info._connections]
        self.reachable: bool = self.enabled and self._has_live_connection()

    def _has_live_connection(self) -> bool:
        for info in self.infos:
            for connection in info._connections.values():
                if connection.listener() is not None:
                    return True
        return False

    def connections(self) -> list[Connection]:
        """Return all connections in calling order."""
        found = [each for info in self.infos for each in info._connections.values()]
        found.sort(key=_order)
        return found

    def matching(self, event: BaseEvent) -> list[Connection]:
        """Return the connections whose filters an event passes, in calling order; not to be changed."""
        # Without filters it is the same for each event: hot path where there are thousands.
        unfiltered = self._unfiltered
        if unfiltered is None:
            connections = self.connections()
            filtered = [connection for connection in connections if connection.conditions]
            unfiltered = self._unfiltered = [] if filtered else connections
        if unfiltered:
            return unfiltered
        found = [
            connection
            for info in self.infos
            for connection in info._candidates(event)
            if not connection.conditions or connection.matches(event)
        ]
        # The sort merges the parts, which are sorted already.
        found.sort(key=_order)
        return found


class Table:
    """The whole state of a manager at one moment. Does not change once it is published."""

    __slots__ = ("_routes", "_sequence", "following", "infos", "reachable")

    def __init__(self, infos: dict[type[BaseEvent], EventInfo] | None = None, sequence: int = 0) -> None:
        self.infos: dict[type[BaseEvent], EventInfo] = {} if infos is None else infos
        # Item 0 is the table that was published after this one; see rule 3 of event_manager.py.
        self.following: dict[int, Table] = {}
        # The number of connections made so far; numbers the next one.
        self._sequence = sequence
        # Memos of facts derived from the above. Two threads that compute the same memo write equal values.
        self._routes: dict[type[BaseEvent], Route] = {}
        # Results of `find_reachable`, by class or set of classes.
        self.reachable: dict[object, bool] = {}

    def route(self, cls: type[BaseEvent]) -> Route:
        """Return the route of events of exactly this class."""
        return self._routes.get(cls) or self._new_route(cls)

    def _new_route(self, cls: type[BaseEvent]) -> Route:
        check_event_class(cls)
        route = Route([self.infos[base] for base in cls.__mro__ if base in self.infos])
        self._routes[cls] = route
        return route

    def find_reachable(self, cls: type[BaseEvent] | frozenset[type[BaseEvent]]) -> bool:
        """Return whether an event of this class, or of one of these, could reach a live listener."""
        classes = cls if isinstance(cls, frozenset) else (cls,)
        found = self.reachable[cls] = True in [self._new_route(each).reachable for each in classes]
        return found

    def connection(self, cls: type[BaseEvent], identity: Identity) -> Connection | None:
        """Return the connection of a listener to a class, or None if there is no live one."""
        connection = self._info(cls)._connections.get(identity)
        # A dead one may have the identity of a new object at the same address.
        return None if connection is None or connection.listener() is None else connection

    # -- the next table ---------------------------------------------------------------------------

    def with_class(self, cls: type[BaseEvent]) -> Table:
        """Return a table with one more class."""
        return self._with_info(EventInfo(cls))

    def switched(self, cls: type[BaseEvent], enabled: bool) -> Table:
        """Return a table in which a class is switched on or off."""
        return self._with_info(self._info(cls)._switched(enabled))

    def with_connection(self, cls: type[BaseEvent], connection: Connection, priority: int) -> Table:
        """Return a table with one more connection, the last one of its priority."""
        connection.order = (-priority, self._sequence)
        table = self._with_info(self._info(cls)._with(connection))
        table._sequence += 1
        return table

    def without(self, cls: type[BaseEvent], connections: Iterable[Connection]) -> Table:
        """Return a table without some connections of a class, all of which must be in it."""
        return self._with_info(self._info(cls)._without(connections))

    def without_dead(self, receivers: list[Receiver]) -> Table:
        """Return a table without the connections of these receivers; some may be removed already."""
        dead: dict[type[BaseEvent], list[Connection]] = {}
        for receiver in receivers:
            connection = self._info(receiver.cls)._connections.get(receiver.identity)
            if connection is not None and connection.receiver is receiver:
                dead.setdefault(receiver.cls, []).append(connection)
        table = self
        for cls, connections in dead.items():
            table = table.without(cls, connections)
        return table

    def _info(self, cls: type[BaseEvent]) -> EventInfo:
        return self.infos.get(cls) or EventInfo(cls)

    def _with_info(self, info: EventInfo) -> Table:
        return Table({**self.infos, info.cls: info}, self._sequence)

    def check(self) -> None:
        """Check the invariants of this structure; for tests."""
        for cls, info in self.infos.items():
            assert info.cls is cls
            info.check()
            for connection in info._connections.values():
                assert connection.order[1] < self._sequence


def identity_of(func: Callable[..., object]) -> Identity:
    """Return the identity of a listener, equal for equal methods. Runs no code of the callable.

    Python creates a new object each time a method is looked up, so methods are identified by their parts.
    Ids are safe here: the identified objects of a connection are alive, or the connection is dead.
    """
    if type(func) is MethodType:
        return id(func.__self__), id(func.__func__)
    if type(func) is BuiltinMethodType or type(func) is MethodWrapperType:
        return id(func.__self__), func.__name__
    return (id(func),)


def listeners_of(connections: Iterable[Connection]) -> list[Listener]:
    """Return the listeners of the live connections, as they were connected."""
    return [func for each in connections if (func := each.connected()) is not None]
