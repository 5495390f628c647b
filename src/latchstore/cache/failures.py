"""Failures of loaders: copies for the waiters of a load, kept for a while with ``negative_ttl``.

A kept failure is a copy of the exception without traceback and context, which would keep the caller's local
variables alive. Each call that gets the failure raises a copy of its own, as raising an exception changes it.

Thread safety: single operations of a dict change a `Failures`. Copying runs code of the exception's class, so
no lock is held.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from types import FrameType, GetSetDescriptorType, MemberDescriptorType, TracebackType
from typing import Any, NamedTuple, TypeVar

from latchstore.cache.load import Load
from latchstore.contract.arguments import describe

logger: logging.Logger = logging.getLogger("latchstore")

E = TypeVar("E", bound=BaseException)

#: The maximum number of failures that are kept.
_MANY = 1_000

#: Py_TPFLAGS_HEAPTYPE: not set for classes written in C.
_HEAP_TYPE = 1 << 9

#: Members that every exception has, and AttributeError's reference to the object that lacks the attribute.
_NOT_COPIED = frozenset(
    ("__cause__", "__context__", "__dict__", "__suppress_context__", "__traceback__", "__weakref__", "args")
)
_UNSET = object()
_LACKING = vars(AttributeError).get("obj")

#: Sets an attribute even if the class allows none, as a frozen dataclass.
_set = object.__setattr__

#: The methods by which a class defines how it is copied.
_COPYING = frozenset(
    ("__copy__", "__getnewargs__", "__getnewargs_ex__", "__getstate__", "__reduce__", "__reduce_ex__")
)


def bare_copy(error: E) -> E:
    """Return a copy of an exception, and of the exceptions in it, without traceback and context.

    The cause is copied likewise. ``__init__`` is not called, as it often does not accept ``args``.

    Raises
    ------
    Exception
        If the exception cannot be copied.
    """
    return _copied(error, {})


def kept_failure(key: str, error: Exception) -> Exception | None:
    """Return a copy of a failure to keep; None, and a logged warning, if it cannot be copied."""
    try:
        return bare_copy(error)
    except Exception as problem:
        # Log text only: a log that stores the record must keep no frames, which may hold a transaction.
        logger.warning(
            "the failure of loading key %r is not passed to other callers, as its %s cannot be copied: %s",
            key,
            type(error).__qualname__,
            describe(problem),
        )
        return None


def _copied(error: E, memo: dict[int, Any]) -> E:
    if id(error) in memo:
        found: E = memo[id(error)]
        return found
    twin = _by_its_class(error, memo)
    if twin is None:
        twin = _by_its_parts(error, memo)
    if error.__cause__ is not None:
        _set(twin, "__cause__", _copied(error.__cause__, memo))
    _set(twin, "__suppress_context__", error.__suppress_context__)
    return twin


def _by_its_class(error: E, memo: dict[int, Any]) -> E | None:
    """Return a copy made by the class itself; None if the class defines no copying, or that fails."""
    kind = type(error)
    if not any(cls.__flags__ & _HEAP_TYPE and _COPYING & vars(cls).keys() for cls in kind.__mro__):
        return None
    try:
        twin = copy.copy(error)
    except Exception:
        return None  # `_by_its_parts` copies it
    if type(twin) is not kind or twin is error:
        return None
    memo[id(error)] = memo[id(twin)] = twin
    attributes = vars(twin)
    if "__notes__" in vars(error):
        attributes["__notes__"] = vars(error)["__notes__"]
    attributes.update({name: _bare(value, memo) for name, value in attributes.items()})
    _set(twin, "args", _bare(twin.args, memo))
    _set(twin, "__traceback__", None)
    _set(twin, "__context__", None)
    return twin


def _by_its_parts(error: E, memo: dict[int, Any]) -> E:
    """Return a copy with the same arguments, attributes and members."""
    kind: Any = type(error)
    if isinstance(error, BaseExceptionGroup):
        inner = [_copied(each, memo) for each in error.exceptions]
        twin: Any = BaseExceptionGroup.__new__(kind, error.message, inner)
    else:
        args = _bare(error.args, memo)
        twin = _made(kind, args)
        _set(twin, "args", args)
    memo[id(error)] = twin
    for cls in kind.__mro__:
        for name, member in list(vars(cls).items()):
            is_data = isinstance(member, (MemberDescriptorType, GetSetDescriptorType))
            if is_data and name not in _NOT_COPIED and member is not _LACKING:
                _copy_member(member, error, twin, memo)
    vars(twin).update({name: _bare(value, memo) for name, value in vars(error).items()})
    return twin  # type: ignore[no-any-return]


def _made(kind: type[E], args: tuple[Any, ...]) -> E:
    """Return a new exception; of several base classes written in C, the one that accepts it creates it."""
    bases = [cls for cls in kind.__mro__ if not cls.__flags__ & _HEAP_TYPE and issubclass(cls, BaseException)]
    for base in bases[:-1]:
        try:
            return base.__new__(kind, *args)
        except TypeError:
            continue  # "... is not safe, use ...": another base class must create it
    return bases[-1].__new__(kind, *args)


def _copy_member(member: Any, error: BaseException, twin: BaseException, memo: dict[int, Any]) -> None:
    """Copy a member outside of arguments and dict: a slot, or a member of a class written in C."""
    try:
        value = member.__get__(error)
        if getattr(twin, member.__name__, _UNSET) is not value:  # keep unset members unset
            member.__set__(twin, _bare(value, memo))
    except (AttributeError, TypeError):
        return  # unset, or derived from other members


def _bare(value: Any, memo: dict[int, Any]) -> Any:
    """Return a value with bare copies of the exceptions in it, in new lists and dicts."""
    if isinstance(value, BaseException):
        return _copied(value, memo)
    if isinstance(value, (TracebackType, FrameType)):
        return None
    kind = type(value)
    if kind not in (list, tuple, dict) or id(value) in memo:
        return memo.get(id(value), value)
    if kind is tuple:
        return tuple(_bare(each, memo) for each in value)
    twin = memo[id(value)] = kind()
    if kind is list:
        twin.extend(_bare(each, memo) for each in value)
    else:
        twin.update((name, _bare(each, memo)) for name, each in value.items())
    return twin


class Failure(NamedTuple):
    """A failure that is raised again until a time, in seconds of the cache's clock."""

    error: Exception
    until: float
    tags: frozenset[str]


class Failures(dict[str, Failure]):
    """The failures that are raised again for a while instead of loading, by key.

    Parameters
    ----------
    clock : callable
        Returns seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock

    def note(self, load: Load, error: Exception, seconds: float) -> None:
        """Keep the failure of a load; `error` is a bare copy."""
        now = self._clock()
        if len(self) >= _MANY:
            self._make_room(now)
        self[load.key] = Failure(error, now + seconds, load.tags)
        if load.kept_out:
            # Check after noting: a delete marks the load first, so one of the two sees the other.
            self.pop(load.key, None)

    def _make_room(self, now: float) -> None:
        failures = list(self.items())
        over = [key for key, failure in failures if failure.until <= now]
        for key in over or [key for key, _ in failures[: len(failures) - _MANY + 1]]:
            self.pop(key, None)

    def kept(self, key: str) -> BaseException | None:
        """Return the failure of a key that is still to be raised; None if there is none."""
        failure = self.get(key)
        if failure is not None:
            if self._clock() < failure.until:
                return failure.error
            self.pop(key, None)
        return None

    def forget(self, covers: Callable[[str, frozenset[str]], object]) -> None:
        """Remove the failures for which a function, called with key and tags, returns true."""
        for key, failure in list(self.items()):
            if covers(key, failure.tags):
                self.pop(key, None)
