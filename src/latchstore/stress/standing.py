"""Replaces locks that exist before the run: in globals, attributes of classes, and parts of such objects.

It finds them in the modules under test and in ``concurrent.futures``. A lock that a thread holds or waits for
is left unchanged.

Thread safety: called by one thread while no other is in the code under test.
"""

from __future__ import annotations

import _thread
import functools
import sys
import threading
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from types import BuiltinMethodType, FunctionType, MethodType, ModuleType
from typing import Any

from latchstore.contract.with_lock import WithLock

#: Modules of the standard library that hold locks of their own while they start or wake threads.
ALSO = ("concurrent.futures.thread", "concurrent.futures._base")

#: The modules of classes whose objects consist of locks.
_MADE_OF_LOCKS = ("threading", "queue", "concurrent.futures.thread")

#: The maximum number of objects searched.
_MOST = 50_000

StandIn = Callable[[Any, str], Any]


#: Types whose methods block in C.
REAL = _thread.LockType | _thread.RLock | SimpleQueue  # type: ignore[type-arg]


def replace_standing(
    modules: Iterable[ModuleType], stand_in: StandIn, kinds: Any = REAL
) -> list[Callable[[], None]]:
    """Replace the locks of modules; return a function that restores them.

    Parameters
    ----------
    modules : iterable of module
    stand_in : callable
        Called with a lock and its name; returns the replacement, or None to keep the lock.
    kinds : type or union of types
        The types to replace.
    """
    search = _Search({module.__name__ for module in modules} | set(_MADE_OF_LOCKS), stand_in, kinds)
    for name in (*sorted(search.modules), *ALSO):
        module = sys.modules.get(name)
        if module is not None and name not in ("threading", "queue"):
            search.look_into(module, name)
    return search.undo


class _Search:
    """One search of the objects that modules refer to."""

    def __init__(self, modules: set[str], stand_in: StandIn, kinds: Any) -> None:
        self.modules = modules
        self._kinds = kinds
        self.undo: list[Callable[[], None]] = []
        self._stand_in = stand_in
        # By identity, with the original, so that no identity is reused.
        self._known: dict[int, tuple[object, object]] = {}
        self._seen: set[int] = set()

    def look_into(self, owner: Any, name: str) -> None:
        """Replace locks in an object's attributes, and search these."""
        waiting: list[tuple[Any, str]] = [(owner, name)]
        while waiting and len(self._seen) < _MOST:
            owner, name = waiting.pop()
            if id(owner) in self._seen or _is_waited_for(owner):
                continue
            self._seen.add(id(owner))
            attributes = self._attributes(owner)
            if any(isinstance(value, threading.Thread) and value.is_alive() for _, value in attributes):
                continue  # a thread may wait for the lock that would be replaced
            for attribute, value in attributes:
                new = self._new(value, f"{name}.{attribute}")
                if new is not None:
                    self._put(owner, attribute, value, new)
                elif self._is_of_interest(value):
                    waiting.append((value, f"{name}.{attribute}"))

    def _new(self, value: Any, name: str) -> Any:
        known = self._known.get(id(value))
        if known is not None:
            return known[1]
        if isinstance(value, BuiltinMethodType | MethodType) and id(value.__self__) in self._known:
            # The attributes of a condition include methods of its lock.
            return getattr(self._known[id(value.__self__)][1], value.__name__, None)
        # On CPython 3.14 locks of ours are in one that `with` never leaves acquired.
        lock = getattr(value.acquire, "__self__", value) if isinstance(value, WithLock) else value
        if not isinstance(lock, self._kinds):
            return None
        new = self._stand_in(lock, name)
        if new is not None:
            if lock is not value:
                new = WithLock(new)
            self._known[id(value)] = (value, new)
        return new

    def _is_of_interest(self, value: Any) -> bool:
        if isinstance(value, threading.Thread | threading.local | ModuleType | FunctionType):
            return False
        kind = value if isinstance(value, type) else type(value)
        return kind.__module__ in self.modules or isinstance(value, functools.cached_property)

    def _put(self, owner: Any, attribute: str, old: object, new: object) -> None:
        try:
            setattr(owner, attribute, new)
        except (AttributeError, TypeError):
            return  # read-only: it stays, and threads that block on it are reported

        def put_back() -> None:
            # Not if the code under test has assigned something else meanwhile.
            if getattr(owner, attribute, None) is new:
                setattr(owner, attribute, old)

        self.undo.append(put_back)

    def _attributes(self, owner: Any) -> list[tuple[str, Any]]:
        """Return the attributes of an object: locks first, as others may contain them."""
        own = _own_attributes(owner)
        return sorted(own.items(), key=lambda item: not isinstance(item[1], self._kinds))


def _own_attributes(owner: Any) -> dict[str, Any]:
    own = dict(getattr(owner, "__dict__", {}))
    for cls in type(owner).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__"):
                try:
                    own[name] = object.__getattribute__(owner, name)
                except AttributeError:
                    continue
    return own


def _is_waited_for(value: object) -> bool:
    """Return whether a real thread waits in a condition, or holds its lock."""
    waiters = getattr(value, "_waiters", None) if isinstance(value, threading.Condition) else None
    return bool(waiters)
