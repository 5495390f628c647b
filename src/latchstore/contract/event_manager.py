"""The interface of event managers, and the default event manager of this process.

Thread safety: the default is set once, under a lock, and read without it.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from latchstore.contract.arguments import describe
from latchstore.contract.events import BaseEvent
from latchstore.contract.with_lock import for_with

__all__ = ["BaseEventManager", "get_event_manager", "set_event_manager"]

Event = TypeVar("Event", bound=BaseEvent)
Listener = Callable[[Any], object]
Trace = Callable[[str, Callable[..., Any], tuple[Any, ...]], object]


class BaseEventManager(ABC):
    """The interface of an event manager: what stores call, and the guarantees for listeners.

    Thread safety
    -------------
    Any thread may call any method, also a listener, a finalizer or a signal handler.
    """

    @abstractmethod
    def connect(
        self,
        cls: type[Event],
        func: Callable[[Event], object],
        filter: Mapping[str, object] | None = None,
        priority: int = 0,
    ) -> None:
        """Have `func` called with every event of class `cls` or of a subclass.

        Connecting the same function again to the same class replaces its filter and priority and
        puts it behind the others of its priority.

        Parameters
        ----------
        cls : type
            A subclass of `BaseEvent`.
        func : callable
            Called with the event as the only argument. A bound method is held by a weak reference:
            when its object goes, so does the connection. Any other callable is held strongly, and
            so is a method of an object that cannot be weakly referenced.
        filter : mapping of str to object, optional
            Dotted paths, and the value or `Condition` that each must match for `func` to be called. A path
            leads through attributes and the items of mappings: ``{"metadata.state": "done"}``,
            ``{"source.name": "jobs"}``. An event that lacks the attribute or the item does not match. A
            ``"key"`` with ``*``, ``?`` or ``[`` is a pattern as in `AbstractStore.glob`; ``In([key])`` is for
            such a key itself. The values are held strongly. Filters on one key or on ``"source"`` are looked
            up, so that listeners with another key or source cost an emit nothing.
        priority : int, optional
            Listeners with a higher priority are called earlier, those with the same priority in
            the order of connection.

        Raises
        ------
        TypeError
            If an argument is not of the type above, or a value of `filter` can never be matched: a key that
            is not a string, a function as a metadata item.
        ValueError
            If a path of `filter` begins with an attribute that no event of class `cls` has, has an empty
            part, or names an action of other classes.
        """

    @abstractmethod
    def disconnect(self, cls: type[Event], func: Callable[[Event], object]) -> None:
        """Stop calling `func` with events of class `cls`.

        An emit that has already begun still calls it.

        Parameters
        ----------
        cls : type
            The class that was given to `connect`.
        func : callable
            The listener that was given to `connect`.

        Raises
        ------
        KeyError
            If `func` is not connected to `cls`.
        TypeError
            If `cls` is not a subclass of `BaseEvent`.
        """

    @abstractmethod
    def emit(self, event: BaseEvent, block: bool = True) -> threading.Thread | None:
        """Call the listeners of an event.

        These are the ones connected to its class or to one of its bases whose filters the event
        matches when the call begins, ordered by priority over all these classes. The event's
        ``pre_emit`` is called before the first and its ``post_emit`` after the last. A listener that
        calls ``mark_as_handled`` is the last one. Nothing is called if the class is disabled.

        A listener that raises an `Exception` is logged on the logger ``latchstore``, and the next
        one is called. Anything else, such as KeyboardInterrupt, leaves `emit` at once: the
        listeners after it and ``post_emit`` are not called.

        Parameters
        ----------
        event : BaseEvent
            The event.
        block : bool, optional
            If false, return at once and do all this in a new thread. It is a daemon thread: the
            interpreter does not wait for it at exit.

        Returns
        -------
        threading.Thread or None
            None, or if `block` is false an object with ``join(timeout=None)`` and ``is_alive()``.

        Raises
        ------
        TypeError
            If `event` is not a `BaseEvent`.
        """

    @abstractmethod
    def disable(self, cls: type[BaseEvent]) -> None:
        """Switch off events of class `cls` and of its subclasses: emitting them does nothing.

        Parameters
        ----------
        cls : type
            A subclass of `BaseEvent`.
        """

    @abstractmethod
    def enable(self, cls: type[BaseEvent]) -> None:
        """Switch events of class `cls` on again.

        Parameters
        ----------
        cls : type
            A subclass of `BaseEvent`. One whose base is disabled stays off all the same.
        """

    @abstractmethod
    def is_enabled(self, cls: type[BaseEvent]) -> bool:
        """Return whether neither `cls` nor any of its bases is disabled.

        Parameters
        ----------
        cls : type
            A subclass of `BaseEvent`.
        """

    def has_listeners(self, cls: type[BaseEvent] | frozenset[type[BaseEvent]]) -> bool:
        """Return whether an event of exactly this class could reach any listener now.

        Filters are not considered. If the result is false, the caller may skip the emit and need not build
        the event. A manager that cannot find out returns true, as this default does.

        Parameters
        ----------
        cls : type or frozenset of type
            A subclass of `BaseEvent`, or several: true if any of them has a listener.
        """
        return True

    def register(self, cls: type[BaseEvent]) -> None:
        """Register a class before it has listeners. `connect` and `disable` register it themselves.

        Parameters
        ----------
        cls : type
            A subclass of `BaseEvent`.

        Raises
        ------
        ValueError
            If the class is registered already.
        """
        raise NotImplementedError(f"{type(self).__name__} has no register()")

    def get_event(self, cls: type[BaseEvent] | None = None) -> Any:
        """Return information on one event class, or on all.

        Parameters
        ----------
        cls : type, optional
            A subclass of `BaseEvent`.

        Returns
        -------
        EventInfo or dict of type to EventInfo
            For `cls`; without it a new dictionary of all registered classes.

        Raises
        ------
        KeyError
            If the class is not registered.
        """
        raise NotImplementedError(f"{type(self).__name__} has no get_event()")

    def get_listeners(
        self, event_or_class: BaseEvent | type[BaseEvent], cls: type[BaseEvent] | None = None
    ) -> list[Listener]:
        """Return listeners in the order in which they would be called.

        Disabled classes are not considered.

        Parameters
        ----------
        event_or_class : BaseEvent or type
            An event: the listeners whose filters match it. A class: its listeners, whatever
            their filters.
        cls : type, optional
            The class whose listeners are returned, if not the class of the event.
        """
        raise NotImplementedError(f"{type(self).__name__} has no get_listeners()")

    def get_event_hierarchy(self, cls: type[BaseEvent]) -> tuple[type, ...]:
        """Return the classes whose listeners are called with an event of class `cls`.

        Parameters
        ----------
        cls : type
            A subclass of `BaseEvent`.

        Returns
        -------
        tuple of type
            Its method resolution order up to and including `BaseEvent`.
        """
        check_event_class(cls)
        order = cls.__mro__
        return order[: order.index(BaseEvent) + 1]

    def set_trace(self, func: Trace | None) -> None:
        """Set a function that is called before each action of this manager and may veto it.

        Parameters
        ----------
        func : callable or None
            Called as ``func(name, method, args)``, where ``name`` is ``"connect"``,
            ``"disconnect"``, ``"emit"`` or ``"listen"``, ``method`` what is about to be called (a
            method of the manager or, for ``"listen"``, the listener), and ``args`` a tuple: ``(cls,
            func, filter, priority)``, ``(cls, func)`` or ``(event,)``. If the result is true the
            action does not take place. None removes the function that was set.

        Raises
        ------
        TypeError
            If `func` is neither callable nor None.
        """
        raise NotImplementedError(f"{type(self).__name__} has no set_trace()")


def check_event_class(cls: object) -> None:
    """Raise TypeError unless `cls` is a class of events."""
    if not (isinstance(cls, type) and issubclass(cls, BaseEvent)):
        raise TypeError(f"cls must be a subclass of BaseEvent, got {describe(cls)}")


# The default of this process. Assigned under `_default_lock`, read without it.
_event_manager: BaseEventManager | None = None

# Guards the first assignment of `_event_manager`: two threads that make a default get the same one.
# Nothing is called while it is held.
_default_lock = for_with(threading.Lock())

# Makes the default. The room that has the event manager sets it (`set_default_class`).
_default_class: Callable[[], BaseEventManager] | None = None


def _renew_lock_in_child() -> None:
    """Replace the lock in a forked child: the thread that held it may not exist there."""
    global _default_lock
    _default_lock = for_with(threading.Lock())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock_in_child)


def set_default_class(make: Callable[[], BaseEventManager]) -> None:
    """Set the factory that `get_event_manager` calls; done once, when the package is imported."""
    global _default_class
    _default_class = make


def get_event_manager() -> BaseEventManager:
    """Return the event manager of this process; make one if none has been set."""
    if _event_manager is None:
        assert _default_class is not None, "importing latchstore sets it"
        _set_default(_default_class())
    # The manager of the first thread; once set it stays.
    assert _event_manager is not None
    return _event_manager


def set_event_manager(manager: BaseEventManager) -> None:
    """Set the event manager of this process.

    Parameters
    ----------
    manager : BaseEventManager
        Or any object whose type has an ``emit`` method.

    Raises
    ------
    ValueError
        If there is one already, set or made by `get_event_manager`. The listeners connected to it
        would lose their events.
    TypeError
        If the type of `manager` has no ``emit`` method.
    """
    if not callable(getattr(type(manager), "emit", None)):
        raise TypeError(f"manager must have a method emit, got {describe(manager)}")
    if not _set_default(manager):
        raise ValueError(
            "the event manager of this process is already set: call set_event_manager() before the first "
            "store or get_event_manager() makes one, or pass the manager to each store"
        )


def _set_default(manager: BaseEventManager) -> bool:
    """Make `manager` the default if there is none, and return whether it was made so."""
    global _event_manager
    with _default_lock:
        if _event_manager is not None:
            return False
        _event_manager = manager
    return True
