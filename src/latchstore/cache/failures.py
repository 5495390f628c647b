"""Failures of loaders: what is kept of them for those who wait, and for a while (``negative_ttl``).

What is kept is a copy of the exception without its traceback and context, which would keep alive all that the
caller had in its local variables. Each call that gets the failure raises a copy of its own, as raising an
exception changes it.

Thread safety: a `Failures` is changed by single operations of a dict. Copying runs code of the exception's
class, so it is done with no lock held.
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

#: How many failures are kept at the most.
_MANY = 1_000

#: Py_TPFLAGS_HEAPTYPE: not set for classes that are written in C.
_HEAP_TYPE = 1 << 9

#: Members that every exception has, and AttributeError's reference to the object that lacks the attribute.
_NOT_COPIED = frozenset(
    ("__cause__", "__context__", "__dict__", "__suppress_context__", "__traceback__", "__weakref__", "args")
)
_UNSET = object()
_LACKING = vars(AttributeError).get("obj")

#: Sets an attribute though the class itself allows none, as that of a frozen dataclass.
_set = object.__setattr__

#: The methods by which a class says itself how it is copied.
_COPYING = frozenset(
    ("__copy__", "__getnewargs__", "__getnewargs_ex__", "__getstate__", "__reduce__", "__reduce_ex__")
)


def bare_copy(error: E) -> E:
    """Return a copy of an exception, and of those in it, that has no traceback and no context.

    It has the cause, copied likewise. ``__init__`` is not called, as few of them take ``args`` back.

    Raises
    ------
    Exception
        If it cannot be copied.
    """
    return _copied(error, {})


def kept_failure(key: str, error: Exception) -> Exception | None:
    """Return what is kept of a failure of a key's loader; None, and a warning, if it cannot be copied."""
    try:
        return bare_copy(error)
    except Exception as problem:
        # Text alone: a log that keeps the record is to keep no frames, which may have a transaction.
        logger.warning(
            "the failure of key %r is not passed on, as a %s cannot be copied: %s",
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
    """Return the copy that the class itself makes, if it says how; None else, or if that fails."""
    kind = type(error)
    if not any(cls.__flags__ & _HEAP_TYPE and _COPYING & vars(cls).keys() for cls in kind.__mro__):
        return None
    try:
        twin = copy.copy(error)
    except Exception:
        return None  # it is made of its parts
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
    """Return a copy that has the same arguments, attributes and members."""
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
    """Return a new exception; of several bases that are written in C the one that fits makes it."""
    bases = [cls for cls in kind.__mro__ if not cls.__flags__ & _HEAP_TYPE and issubclass(cls, BaseException)]
    for base in bases[:-1]:
        try:
            return base.__new__(kind, *args)
        except TypeError:
            continue  # "is not safe, use another one's"
    return bases[-1].__new__(kind, *args)


def _copy_member(member: Any, error: BaseException, twin: BaseException, memo: dict[int, Any]) -> None:
    """Copy what is neither in the arguments nor in the dict: slots, and the members of classes in C."""
    try:
        value = member.__get__(error)
        if getattr(twin, member.__name__, _UNSET) is not value:  # or what is not set would be set to None
            member.__set__(twin, _bare(value, memo))
    except (AttributeError, TypeError):
        return  # it is not set, or it is derived from the others


def _bare(value: Any, memo: dict[int, Any]) -> Any:
    """Return a value with bare copies of the exceptions in it; its lists and dicts are its own."""
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
    """The failures that are raised again for a while, instead of loading again, by their keys.

    Parameters
    ----------
    clock : callable
        Returns seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock

    def note(self, load: Load, error: Exception, seconds: float) -> None:
        """Keep the failure of a load; its error is a bare copy."""
        now = self._clock()
        if len(self) >= _MANY:
            self._make_room(now)
        self[load.key] = Failure(error, now + seconds, load.tags)
        if load.kept_out:
            # Looked at after it is noted, as who deletes a key first marks its load: one of the two sees it.
            self.pop(load.key, None)

    def _make_room(self, now: float) -> None:
        failures = list(self.items())
        over = [key for key, failure in failures if failure.until <= now]
        for key in over or [key for key, _ in failures[: len(failures) - _MANY + 1]]:
            self.pop(key, None)

    def kept(self, key: str) -> BaseException | None:
        """Return the failure of a key of which a copy is still to be raised; None if there is none."""
        failure = self.get(key)
        if failure is not None:
            if self._clock() < failure.until:
                return failure.error
            self.pop(key, None)
        return None

    def forget(self, covers: Callable[[str, frozenset[str]], object]) -> None:
        """Forget the failures of which a function, called with key and tags, returns something true."""
        for key, failure in list(self.items()):
            if covers(key, failure.tags):
                self.pop(key, None)
