"""Functions whose results a cache keeps.

A memoized function is identified by a number of its own, never by its name. It behaves like a function: it
can be called, bound to instances and classes, copied (the copy is itself) and pickled (by name).

Thread safety: the attributes of a memoized function do not change; each thread counts for itself.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from glob import escape
from types import FrameType, FunctionType, MethodType
from typing import Any, Generic, NamedTuple, ParamSpec, Protocol, TypeVar, overload

from latchstore.cache.argument_keys import numbers, text_of, text_of_instance
from latchstore.cache.attempts import Attempt, Stale
from latchstore.cache.counting import CountRegister, ThreadCounts
from latchstore.cache.load import MISSING
from latchstore.cache.options import Options, checked_tags
from latchstore.contract.arguments import describe

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
T = TypeVar("T")
# The parameters of a method without its instance; those of the class itself are for the whole function.
Q = ParamSpec("Q")
S = TypeVar("S")
C = TypeVar("C", contravariant=True)

#: The length of a key, in characters, above which a digest replaces its text.
_LONGEST_KEY = 250

#: The maximum number of decorator frames between a class body and `Memoized`.
_DECORATORS = 6

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class ResultCache(Protocol):
    """The parts of a cache that a memoized function uses."""

    @property
    def max_entries(self) -> int | None: ...

    def delete(self, key: str) -> bool: ...

    def delete_glob(self, pattern: str) -> int: ...

    def __iter__(self) -> Iterator[str]: ...


class Results(NamedTuple):
    """Where and how results are stored.

    Attributes
    ----------
    cache : ResultCache
    find : callable
        Called with a key; returns its value, a `Stale` value, or `MISSING`.
    attempt : callable
        Called with the key, the result of `find`, and options; returns an Attempt.
    options : Options
    """

    cache: ResultCache
    find: Callable[[str], Any]
    attempt: Callable[[str, Any, Options], Attempt]
    options: Options

    def options_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Options:
        """Return the options of a call's result."""
        options = self.options
        if options.tags_of is None:
            return options
        return options._replace(tags=checked_tags(options.tags_of(*args, **kwargs)))


class CacheInfo(NamedTuple):
    """The result of ``cache_info()``, like that of ``functools.lru_cache``.

    Attributes
    ----------
    hits, misses : int
        Calls that found a result, and calls that ran the function.
    maxsize : int or None
        The maximum number of entries of the whole cache.
    currsize : int
        The number of results of this function in the cache.
    """

    hits: int
    misses: int
    maxsize: int | None
    currsize: int


class FunctionKeys:
    """The parts that a memoized function shares with its bound methods: key making and counts."""

    def __init__(self, results: Results, function: Callable[..., Any]) -> None:
        self.results: Results = results
        self.function: Callable[..., Any] = function
        self.title: str = f"{getattr(function, '__module__', None)}.{_qualname_of(function)}"
        self.name: str = (
            f"{self.title}{numbers.new()}" if results.options.name is None else results.options.name
        )
        #: Whether access through an instance binds it: true for functions, false for callable objects.
        self.binds: bool = hasattr(type(function), "__get__") and not isinstance(function, MethodType)
        #: Whether its first argument is an instance, whatever its name.
        self.is_method = False
        self._signature: inspect.Signature | None = None
        with contextlib.suppress(ValueError, TypeError):  # some functions written in C have no signature
            self._signature = inspect.signature(function)
        parameters = [] if self._signature is None else list(self._signature.parameters.values())
        self._names = [parameter.name for parameter in parameters]
        self._defaults = tuple(parameter.default for parameter in parameters)
        self._required = sum(default is inspect.Parameter.empty for default in self._defaults)
        self._all_positional = all(parameter.kind in _POSITIONAL for parameter in parameters)
        self.reset()

    def reset(self) -> None:
        """Reset the counts."""
        self.register: CountRegister = CountRegister()
        self.counts: ThreadCounts = ThreadCounts(self.register)

    def key_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Return the key of a call."""
        if self.results.options.key is not None:
            text = text_of(self.results.options.key(*args, **kwargs), "the result of key")
        elif self._signature is None:
            text = text_of((args, kwargs), f"an argument of {self.title}")
        else:
            text = ", ".join([self._text_of(*item) for item in self._items(self._signature, args, kwargs)])
        key = f"{self.name}({text})"
        if len(key) <= _LONGEST_KEY:
            return key
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{self.name}(sha256={digest})"

    def _items(
        self, signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Iterable[tuple[int, str, Any]]:
        if self._all_positional and not kwargs and self._required <= len(args) <= len(self._names):
            # hot path: most calls have this form, and binding takes longer than the rest of a hit
            values = args + self._defaults[len(args) :]
            return zip(range(len(values)), self._names, values, strict=True)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return ((position, name, value) for position, (name, value) in enumerate(bound.arguments.items()))

    def _text_of(self, position: int, name: str, value: object) -> str:
        if position == 0 and (self.is_method or name in ("self", "cls")):
            return f"{name}={text_of_instance(value, name)}"
        return f"{name}={text_of(value, f'argument {name!r} of {self.title}')}"

    def info(self) -> CacheInfo:
        """Return the counts; scans the keys of the whole cache."""
        counts, cache = self.register.total(), self.results.cache
        return CacheInfo(counts.hits, counts.misses, cache.max_entries, sum(map(self.is_result, cache)))

    def is_result(self, key: str) -> bool:
        """Return whether a key is that of a result of this function."""
        return key.startswith(f"{self.name}(")


class _Remembering(Generic[P, R]):
    """A memoized function, or a memoized method with its instance as the first argument."""

    __slots__ = ("_first", "_own")

    _own: FunctionKeys
    _first: tuple[object, ...]

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        # Recursion: this is the only frame between the caller and the function, so the steps of `get_or_load`
        # are repeated here.
        own = self._own
        arguments = (*self._first, *args)
        key = own.key_of(arguments, kwargs)
        found = own.results.find(key)
        if found is not MISSING and type(found) is not Stale:
            own.counts.mine.hits += 1
            return found  # type: ignore[no-any-return]
        attempt = own.results.attempt(key, found, own.results.options_of(arguments, kwargs))
        try:
            if attempt.begin():
                own.counts.mine.misses += 1
                try:
                    value = own.function(*arguments, **kwargs)
                except BaseException as error:
                    if attempt.failed(error):
                        raise
                else:
                    attempt.loaded(value)
            else:
                own.counts.mine.hits += 1
            return attempt.value  # type: ignore[no-any-return]
        finally:
            attempt.run.over = True
            attempt.end()

    def cache_key(self, /, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the key of a call's result.

        Raises
        ------
        TypeError
            If an argument is not a plain value and no `key` was given.
        """
        return self._own.key_of((*self._first, *args), kwargs)

    def invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Remove the result of a call; return whether there was one."""
        return self._own.results.cache.delete(self._own.key_of((*self._first, *args), kwargs))

    def cache_info(self) -> CacheInfo:
        """Return the hits and misses; for a method, those of all instances.

        Scans the keys of the whole cache.
        """
        return self._own.info()

    def cache_clear(self) -> None:
        """Remove all results of the function, and reset the counts; running calls store no results."""
        self._own.results.cache.delete_glob(f"{escape(self._own.name)}(*")
        self._own.reset()


class _Taking(Protocol[C, Q, R]):
    """A callable with a first parameter to which it can be bound."""

    def __call__(self, first: C, /, *args: Q.args, **kwargs: Q.kwargs) -> R: ...


class Memoized(_Remembering[P, R]):
    """A function whose results are cached by its arguments; ``Cache.memoize`` makes it."""

    __slots__ = ("__dict__", "__weakref__")

    def __init__(self, results: Results, function: Callable[P, R]) -> None:
        _refuse_unfit(function)
        functools.update_wrapper(self, function)
        self.__qualname__ = _qualname_of(function)
        self._own = FunctionKeys(results, function)
        self._first = ()
        _watch_class_body(function)

    def __set_name__(self, owner: type, name: str) -> None:
        self._own.is_method = self._own.binds

    # Type checkers do not see @classmethod and @staticmethod over a Memoized, so the type of the first
    # parameter decides: the owner or an instance is bound, anything else is not.
    @overload
    def __get__(self: _Taking[type[T], Q, S], instance: T | None, owner: type[T]) -> BoundMemoized[Q, S]: ...

    @overload
    def __get__(self, instance: None, owner: type) -> Memoized[P, R]: ...

    @overload
    def __get__(self: _Taking[T, Q, S], instance: T, owner: type | None = None) -> BoundMemoized[Q, S]: ...

    @overload
    def __get__(self, instance: object, owner: type | None = None) -> Memoized[P, R]: ...

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return BoundMemoized(self, instance) if self._own.binds and instance is not None else self

    def __reduce__(self) -> str:
        # Pickled by name; a copy is the object itself.
        return self.__qualname__

    def __repr__(self) -> str:
        return f"<memoized {self._own.title}>"


class BoundMemoized(_Remembering[P, R]):
    """A memoized method bound to an instance or class; other attributes are those of the function."""

    __slots__ = ("__func__", "__weakref__")

    def __init__(self, memoized: Memoized[..., R], instance: object) -> None:
        self.__func__: Memoized[..., R] = memoized
        self._own = memoized._own
        self._first = (instance,)

    @property
    def __self__(self) -> object:
        return self._first[0]

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(MethodType(self._own.function, self._first[0]))

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return self.__func__.__doc__

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__func__, name)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BoundMemoized):
            return NotImplemented
        return self.__func__ is other.__func__ and self._first[0] is other._first[0]

    def __hash__(self) -> int:
        return hash((id(self.__func__), id(self._first[0])))

    def __reduce__(self) -> Any:
        return BoundMemoized, (self.__func__, self._first[0])

    def __repr__(self) -> str:
        return f"<memoized {self._own.title} of {describe(self._first[0])}>"


class _MemoizedClassMethod(classmethod):  # type: ignore[type-arg]
    """``@classmethod`` over a memoized function; its `invalidate` and other methods get the class."""

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return BoundMemoized(self.__func__, type(instance) if owner is None else owner)  # type: ignore[arg-type]


class _ClassBodyWatch:
    """Is in the namespace of a class body until the class is made; then wraps memoized class methods.

    From Python 3.13 on, ``classmethod`` binds its function by a plain bound method, whose attributes do not
    have the class; and a function gets no notice that ``classmethod`` wraps it.
    """

    NAME = "_latchstore_class_methods"

    def __get__(self, instance: object, owner: type | None = None) -> _ClassBodyWatch:
        return self  # a descriptor does not become a member of an enum

    def __set_name__(self, owner: type, name: str) -> None:
        type.__delattr__(owner, name)
        for attribute, value in list(vars(owner).items()):
            if type(value) is classmethod and isinstance(value.__func__, Memoized):
                type.__setattr__(owner, attribute, _MemoizedClassMethod(value.__func__))


def _watch_class_body(function: object) -> None:
    """Get notified when the class is made in whose body a function is being decorated, if there is one."""
    if sys.version_info < (3, 13) or not isinstance(function, FunctionType):
        return
    body, _, name = function.__qualname__.rpartition(".")
    if name != function.__name__ or not body or body.endswith("<locals>"):
        return
    frame: FrameType | None = sys._getframe(2)
    for _ in range(_DECORATORS):
        if frame is None:
            return
        namespace = frame.f_locals
        if isinstance(namespace, dict) and namespace.get("__qualname__") == body:
            # dict's own method: the namespace of an enum, for one, overrides __setitem__.
            dict.setdefault(namespace, _ClassBodyWatch.NAME, _ClassBodyWatch())
            return
        frame = frame.f_back


def _qualname_of(function: Any) -> str:
    name = getattr(function, "__qualname__", None)
    return name if isinstance(name, str) else type(function).__qualname__


def _refuse_unfit(function: object) -> None:
    """Raise TypeError if a function's results cannot be cached."""
    if isinstance(function, (classmethod, staticmethod)):
        kind = type(function).__name__
        raise TypeError(f"memoize must be placed below @{kind}, got a {kind} object")
    if not callable(function) or isinstance(function, type):
        raise TypeError(f"memoize takes a function or method, got {describe(function)}")
    call = function if inspect.isroutine(function) else type(function).__call__
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call):
        raise TypeError(
            f"{_qualname_of(function)} is a coroutine function, whose coroutines can be awaited only once: "
            "use latchstore.aio.AsyncCache(cache).memoize, which caches their results"
        )
    if any(
        is_used_once(each)
        for each in (function, call)
        for is_used_once in (inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    ):
        raise TypeError(
            f"{_qualname_of(function)} is a generator function, whose results can be iterated only once: "
            "they cannot be cached"
        )
