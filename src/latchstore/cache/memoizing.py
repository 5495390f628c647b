"""Functions whose results a cache keeps."""

from __future__ import annotations

import functools
import hashlib
import inspect
import itertools
import os
import weakref
from collections.abc import Callable, Iterable
from enum import Enum, Flag
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from latchstore.contract.arguments import describe
from latchstore.delivery.waiting import Latch

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
T = TypeVar("T")
# Of a method without its instance; those of the class itself stand for the whole function.
Q = ParamSpec("Q")
S = TypeVar("S")

#: Longer keys are shortened to a digest of what they say, in characters.
_LONGEST_KEY = 250

#: Whose repr says all that there is to them.
_PLAIN = (str, bytes, int, float, complex, bool, type(None))


class ResultCache(Protocol):
    """What a memoized function needs of a cache."""

    @property
    def get_or_load(self) -> Callable[..., Any]: ...

    def delete(self, key: str) -> bool: ...


class Memoized(Generic[P, R]):
    """A function whose results are kept in a cache, by its arguments.

    Parameters
    ----------
    cache : Cache
    function : callable
    key : callable, optional
        Called with the arguments, returns what tells one call from another. Without it the arguments must be
        plain values (strings, numbers, bytes, None, enums, and tuples, lists, dicts and sets of those); the
        instance of a method is told from others by a number of its own.
    tags : iterable of str, or callable
        What the results can be invalidated by; a callable gets the arguments.
    options
        How long results are kept, as for ``get_or_load``.
    """

    def __init__(
        self,
        cache: ResultCache,
        function: Callable[P, R],
        key: Callable[..., object] | None,
        tags: Iterable[str] | Callable[..., Iterable[str]],
        options: dict[str, Any],
    ) -> None:
        _refuse_unfit(function)
        # First, as it copies the attributes of the function, which may be a memoized one itself.
        functools.update_wrapper(self, function)
        self._cache = cache
        self._function = function
        self._key = key
        self._tags = tags if callable(tags) else tuple(tags)
        self._options = options
        self._signature = inspect.signature(function)
        self._name = _name_of(function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        tags = self._tags(*args, **kwargs) if callable(self._tags) else self._tags
        result: R = self._cache.get_or_load(
            self.cache_key(*args, **kwargs),
            lambda key: self._function(*args, **kwargs),
            tags=tags,
            **self._options,
        )
        return result

    def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the key of a call's result.

        Raises
        ------
        TypeError
            If an argument is no plain value, and no `key` was given.
        """
        if self._key is not None:
            told = _told(self._key(*args, **kwargs), "what key returns")
        else:
            bound = self._signature.bind(*args, **kwargs)
            bound.apply_defaults()
            told = ", ".join(
                f"{name}={self._told_argument(name, position, value)}"
                for position, (name, value) in enumerate(bound.arguments.items())
            )
        key = f"{self._name}({told})"
        if len(key) <= _LONGEST_KEY:
            return key
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{self._name}(sha256={digest})"

    def _told_argument(self, name: str, position: int, value: object) -> str:
        if position == 0 and name in ("self", "cls"):
            return _told_instance(value)
        return _told(value, f"argument {name!r} of {self._name}")

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the result of a call; return whether there was one."""
        return self._cache.delete(self.cache_key(*args, **kwargs))

    @overload
    def __get__(self, instance: None, owner: type) -> Memoized[P, R]: ...

    @overload
    def __get__(
        self: Memoized[Concatenate[T, Q], S], instance: T, owner: type | None = None
    ) -> BoundMemoized[Q, S]: ...

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else BoundMemoized(self, instance)

    def __repr__(self) -> str:
        return f"<memoized {self._name}>"


class BoundMemoized(Generic[P, R]):
    """A memoized method, of one instance."""

    def __init__(self, memoized: Memoized[..., R], instance: object) -> None:
        functools.update_wrapper(self, memoized._function)
        self._memoized = memoized
        self._instance = instance

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._memoized(self._instance, *args, **kwargs)

    def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the key of a call's result."""
        return self._memoized.cache_key(self._instance, *args, **kwargs)

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the result of a call; return whether there was one."""
        return self._memoized.invalidate(self._instance, *args, **kwargs)


def _refuse_unfit(function: object) -> None:
    """Raise TypeError if a function's results cannot be kept."""
    if isinstance(function, (classmethod, staticmethod)):
        kind = type(function).__name__
        raise TypeError(f"memoize must stand below @{kind}, got a {kind} object")
    if not callable(function) or isinstance(function, type):
        raise TypeError(f"memoize takes a function or method, got {describe(function)}")
    if (
        inspect.iscoroutinefunction(function)
        or inspect.isgeneratorfunction(function)
        or inspect.isasyncgenfunction(function)
    ):
        raise TypeError(f"{_name_of(function)} returns something that can be used once: it cannot be kept")


def _name_of(named: Any) -> str:
    """Tell a function or class from all others; those made again and again, by a number of each."""
    name = f"{named.__module__}.{named.__qualname__}"
    return f"{name}{_number_of(named)}" if "<" in name else name


def _told(value: object, what: str) -> str:
    """Say all of a plain value, so that different ones are told apart: 1, 1.0 and True, too."""
    kind = type(value)
    if kind in _PLAIN:
        return repr(value)
    if isinstance(value, Enum):
        # Flags may be of several members, or of none, and have no name then.
        return f"{_name_of(kind)}.{value.value if isinstance(value, Flag) else value.name}"
    if kind is tuple or kind is list:
        told = ", ".join(_told(item, what) for item in value)  # type: ignore[attr-defined]
        return f"({told},)" if kind is tuple else f"[{told}]"
    if kind is dict:
        pairs = ((_told(name, what), _told(item, what)) for name, item in value.items())  # type: ignore[attr-defined]
        return "{" + ", ".join(f"{name}: {item}" for name, item in sorted(pairs)) + "}"
    if kind is set or kind is frozenset:
        return f"{kind.__name__}(" + ", ".join(sorted(_told(item, what) for item in value)) + ")"  # type: ignore[attr-defined]
    raise TypeError(
        f"{what} must be a plain value to make a key of, got {describe(value)}; give memoize a key="
    )


_instance_numbers = itertools.count(1)
# Instances by identity. An entry goes when its instance does; should one of a new instance at the same
# address go with it, that gets another number, which costs a load and no more.
_instances: dict[int, tuple[weakref.ref[object], int]] = {}
# Guards that an instance gets one number; nothing of the instance's own is called under it.
_instances_latch = Latch()


def _renew_in_child() -> None:
    global _instances_latch
    _instances_latch = Latch()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_in_child)


def _told_instance(instance: object) -> str:
    """Tell an instance from all others that there are or were: by a number, as its address is used again."""
    return f"<class {_name_of(instance)}>" if isinstance(instance, type) else _number_of(instance)


def _number_of(instance: object) -> str:
    address = id(instance)
    known = _instances.get(address)
    if known is None or known[0]() is not instance:
        try:
            reference = weakref.ref(instance, lambda gone: _forget(address, gone))
        except TypeError:
            raise TypeError(
                f"self must allow weak references to be told from others, got {describe(instance)}; "
                "give memoize a key="
            ) from None
        known = _instances_latch.during(_numbered, address, reference)
    return f"#{known[1]}"


def _numbered(address: int, reference: weakref.ref[object]) -> tuple[weakref.ref[object], int]:
    known = _instances.get(address)
    if known is None or known[0]() is not reference():
        known = _instances[address] = (reference, next(_instance_numbers))
    return known


def _forget(address: int, gone: weakref.ref[object]) -> None:
    # Wherever the collector runs: so it takes no lock.
    known = _instances.get(address)
    if known is not None and known[0] is gone:
        _instances.pop(address, None)
