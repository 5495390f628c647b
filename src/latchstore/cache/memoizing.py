"""Functions whose results a cache keeps.

A memoized function is told from all others by a number of its own, never by its name. It is used as a
function: called, bound to instances and classes, copied (it stays itself), pickled (by its name).

Thread safety: what a memoized function has does not change; its counts are kept by each thread for itself.
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
# Of a method without its instance; those of the class itself stand for the whole function.
Q = ParamSpec("Q")
S = TypeVar("S")
C = TypeVar("C", contravariant=True)

#: Longer keys are shortened to a digest of what they say, in characters.
_LONGEST_KEY = 250

#: How many frames of decorators, `Cache.memoize` and others, may be between a class body and `Memoized`.
_DECORATORS = 6

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class ResultCache(Protocol):
    """What a memoized function needs of a cache."""

    @property
    def max_entries(self) -> int | None: ...

    def delete(self, key: str) -> bool: ...

    def delete_glob(self, pattern: str) -> int: ...

    def __iter__(self) -> Iterator[str]: ...


class Results(NamedTuple):
    """Where and how results are kept.

    Attributes
    ----------
    cache : ResultCache
    find : callable
        Called with a key; returns its value, a `Stale` one, or `MISSING`.
    attempt : callable
        Called with key, what `find` has returned, and options; returns an Attempt.
    options : Options
    """

    cache: ResultCache
    find: Callable[[str], Any]
    attempt: Callable[[str, Any, Options], Attempt]
    options: Options

    def options_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Options:
        """Return how the result of a call is kept."""
        options = self.options
        if options.tags_of is None:
            return options
        return options._replace(tags=checked_tags(options.tags_of(*args, **kwargs)))


class CacheInfo(NamedTuple):
    """What ``cache_info()`` returns, as that of ``functools.lru_cache``.

    Attributes
    ----------
    hits, misses : int
        Calls that found their result, and that called the function.
    maxsize : int or None
        How many entries the cache may have, of all its functions together.
    currsize : int
        How many results of this function it has.
    """

    hits: int
    misses: int
    maxsize: int | None
    currsize: int


class FunctionKeys:
    """What a memoized function shares with its bound methods: how calls become keys, and the counts."""

    def __init__(self, results: Results, function: Callable[..., Any]) -> None:
        self.results: Results = results
        self.function: Callable[..., Any] = function
        self.title: str = f"{getattr(function, '__module__', None)}.{_qualname_of(function)}"
        self.name: str = (
            f"{self.title}{numbers.new()}" if results.options.name is None else results.options.name
        )
        #: Whether it is bound to an instance, as functions are, and callable objects are not.
        self.binds = hasattr(type(function), "__get__") and not isinstance(function, MethodType)
        #: Whether its first argument is an instance, whatever it is called.
        self.is_method = False
        self._signature: inspect.Signature | None = None
        with contextlib.suppress(ValueError, TypeError):  # some that are written in C have none
            self._signature = inspect.signature(function)
        parameters = [] if self._signature is None else list(self._signature.parameters.values())
        self._names = [parameter.name for parameter in parameters]
        self._defaults = tuple(parameter.default for parameter in parameters)
        self._required = sum(default is inspect.Parameter.empty for default in self._defaults)
        self._all_positional = all(parameter.kind in _POSITIONAL for parameter in parameters)
        self.reset()

    def reset(self) -> None:
        """Begin to count."""
        self.register = CountRegister()
        self.counts = ThreadCounts(self.register)

    def key_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Return the key of a call."""
        if self.results.options.key is not None:
            text = text_of(self.results.options.key(*args, **kwargs), "what key returns")
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
            # hot path: most calls are like that, and binding takes longer than all the rest
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
        """Return the counts; goes through the keys of the whole cache."""
        counts, cache = self.register.total(), self.results.cache
        return CacheInfo(counts.hits, counts.misses, cache.max_entries, sum(map(self.is_result, cache)))

    def is_result(self, key: str) -> bool:
        """Tell whether a key is that of a result of this function."""
        return key.startswith(f"{self.name}(")


class _Remembering(Generic[P, R]):
    """A function whose results are kept, or a method of one instance, which is its first argument."""

    __slots__ = ("_first", "_own")

    _own: FunctionKeys
    _first: tuple[object, ...]

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        # Recursion: this is the one frame between the caller and the function. So the steps of `get_or_load`
        # stand here once more.
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
            If an argument is no plain value, and no `key` was given.
        """
        return self._own.key_of((*self._first, *args), kwargs)

    def invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the result of a call; return whether there was one."""
        return self._own.results.cache.delete(self._own.key_of((*self._first, *args), kwargs))

    def cache_info(self) -> CacheInfo:
        """Return how often calls have found their result; of a method, all instances together.

        It goes through the keys of the whole cache.
        """
        return self._own.info()

    def cache_clear(self) -> None:
        """Forget all results of the function, and the counts; calls that run do not bring theirs back."""
        self._own.results.cache.delete_glob(f"{escape(self._own.name)}(*")
        self._own.reset()


class _Taking(Protocol[C, Q, R]):
    """What is called with something first, to which it can be bound."""

    def __call__(self, first: C, /, *args: Q.args, **kwargs: Q.kwargs) -> R: ...


class Memoized(_Remembering[P, R]):
    """A function whose results are kept in a cache, by its arguments; ``Cache.memoize`` makes it."""

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

    # Type checkers do not see @classmethod and @staticmethod over a Memoized, so the first parameter decides:
    # one that takes the owner or an instance is bound, and any other is not.
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
        # So it is pickled by its name, and its copy is itself.
        return self.__qualname__

    def __repr__(self) -> str:
        return f"<memoized {self._own.title}>"


class BoundMemoized(_Remembering[P, R]):
    """A memoized method, of one instance or class; other attributes are those of the memoized function."""

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
    """``@classmethod`` over a memoized function, whose `invalidate` and so on know the class."""

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return BoundMemoized(self.__func__, type(instance) if owner is None else owner)  # type: ignore[arg-type]


class _ClassBodyWatch:
    """Stands in the body of a class until that is made, and then puts our class methods in their places.

    From Python 3.13 on ``classmethod`` binds what it is given by a plain bound method, whose attributes know
    nothing of the class; and nothing tells a function that it is given to ``classmethod``.
    """

    NAME = "_latchstore_class_methods"

    def __get__(self, instance: object, owner: type | None = None) -> _ClassBodyWatch:
        return self  # as it is a descriptor, it is no member of an enum

    def __set_name__(self, owner: type, name: str) -> None:
        type.__delattr__(owner, name)
        for attribute, value in list(vars(owner).items()):
            if type(value) is classmethod and isinstance(value.__func__, Memoized):
                type.__setattr__(owner, attribute, _MemoizedClassMethod(value.__func__))


def _watch_class_body(function: object) -> None:
    """Be told when the class is made in whose body a function is being decorated, if it is."""
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
            # As of a dict: that of an enum, say, has a __setitem__ of its own.
            dict.setdefault(namespace, _ClassBodyWatch.NAME, _ClassBodyWatch())
            return
        frame = frame.f_back


def _qualname_of(function: Any) -> str:
    name = getattr(function, "__qualname__", None)
    return name if isinstance(name, str) else type(function).__qualname__


def _refuse_unfit(function: object) -> None:
    """Raise TypeError if a function's results cannot be kept."""
    if isinstance(function, (classmethod, staticmethod)):
        kind = type(function).__name__
        raise TypeError(f"memoize must stand below @{kind}, got a {kind} object")
    if not callable(function) or isinstance(function, type):
        raise TypeError(f"memoize takes a function or method, got {describe(function)}")
    call = function if inspect.isroutine(function) else type(function).__call__
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call):
        raise TypeError(
            f"{_qualname_of(function)} is a coroutine function, whose results are used once: "
            "latchstore.aio.AsyncCache(cache).memoize keeps what they come to"
        )
    if any(
        is_used_once(each)
        for each in (function, call)
        for is_used_once in (inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    ):
        raise TypeError(
            f"{_qualname_of(function)} returns something that can be used once: it cannot be kept"
        )
