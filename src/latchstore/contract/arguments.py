"""Argument checks: each error names the argument and the value that was passed.

The checks run the caller's code (streams, iterables, ``__index__``), so none is called under a lock.
"""

from __future__ import annotations

import functools
import io
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from latchstore.contract.seconds import Seconds

Init = TypeVar("Init", bound=Callable[..., None])

#: Bytes read from a stream at a time by default: 1 MiB, as in the specification.
DEFAULT_BUFFER_SIZE = 1048576

#: The largest number of seconds that counts as finite.
_LONGEST = sys.float_info.max

#: The number of characters that `describe` shows of a value.
_SHOWN = 60


def alike(name: str, known: Iterable[str]) -> str:
    """Return the advice of an error about an unknown name: the known one that is like it, or all of them."""
    from difflib import get_close_matches  # loaded late: only errors need it

    names = sorted(known)
    close = get_close_matches(name, names, 1)
    return f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(names)}"


def advising(init: Init) -> Init:
    """Make a constructor refuse what it has no parameter for in the name of the class that is called.

    Python names the class that defines ``__init__``, which may be a base that no page mentions; until 3.13 it
    does not say which parameter is like an unknown one.
    """
    code = init.__code__
    count = code.co_argcount
    positional = code.co_varnames[1:count]
    known = frozenset(code.co_varnames[1 : count + code.co_kwonlyargcount])

    @functools.wraps(init)
    def checked(self: object, *args: Any, **kwargs: Any) -> None:
        if not known.issuperset(kwargs):
            name = min(kwargs.keys() - known)
            raise TypeError(f"{type(self).__name__}() has no parameter {name!r}; {alike(name, known)}")
        if len(args) > len(positional):
            raise TypeError(
                f"{type(self).__name__}() takes {', '.join(positional) or 'nothing'} by position, got "
                f"{len(args)} arguments; name the others"
            )
        init(self, *args, **kwargs)

    return checked  # type: ignore[return-value]


def document_as(name: str, *classes: type) -> None:
    """Make Python's errors about the arguments of public methods name the class that documents them."""
    for cls in classes:
        for method, each in vars(cls).items():
            if isinstance(each, FunctionType) and not method.startswith("_"):
                each.__qualname__ = f"{name}.{method}"
                # `help` finds the text of a base by the class in the name.
                documented = (getattr(base, method).__doc__ for base in cls.__mro__ if hasattr(base, method))
                each.__doc__ = next(filter(None, documented), None)


class Readable(Protocol):
    """A binary stream with the one method that the store calls."""

    def read(self, size: int = ..., /) -> bytes: ...


def describe(value: object) -> str:
    """Return a value's type and the beginning of its repr, for error messages; a failing repr is left out."""
    try:
        text = repr(value)
    except Exception:
        return type(value).__name__
    if len(text) > _SHOWN:
        text = text[: _SHOWN - 3] + "..."
    return f"{type(value).__name__} {text}"


def describe_error(error: BaseException) -> str:
    """Show an error as the last line of a traceback does; its own ``__str__`` may fail as well."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


def exact_string(text: str) -> str:
    """Return `text` as a plain ``str``, so that no ``__hash__`` or ``__eq__`` of a subclass runs later."""
    return text if type(text) is str else str.__str__(text)


def exact_integer(number: int) -> int:
    """Return `number` as a plain ``int``, so that no method of a subclass runs later."""
    return number if type(number) is int else int.__int__(number)


_ONLY_STR = frozenset({str})


def checked_key(key: str, argument: str = "key") -> str:
    """Return the key as a plain string; raise TypeError if it is not a string."""
    if type(key) is str:
        return key
    if isinstance(key, str):
        return exact_string(key)
    raise TypeError(f"{argument} must be a str, got {describe(key)}")


def check_callable(function: object, argument: str) -> None:
    """Raise TypeError if `function` is not callable."""
    if not callable(function):
        raise TypeError(f"{argument} must be callable, got {describe(function)}")


#: The code flag of coroutine functions, ``inspect.CO_COROUTINE``; importing inspect would be slow.
_CO_COROUTINE = 0x80


def is_coroutine_function(function: Any) -> bool:
    """Return whether a function, method, partial or callable object is a coroutine function."""
    while isinstance(function, functools.partial):
        function = function.func
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    if code is None:
        code = getattr(getattr(type(function), "__call__", None), "__code__", None)  # noqa: B004
    return bool(getattr(code, "co_flags", 0) & _CO_COROUTINE)


def check_function(function: Any, argument: str, advice: str) -> None:
    """Raise TypeError unless `function` is callable and runs when it is called: no coroutine function."""
    check_callable(function, argument)
    if is_coroutine_function(function):
        raise TypeError(
            f"{argument} must return a value, not a coroutine, got {describe(function)}: use {advice}"
        )


def checked_iterable(items: Iterable[Any], argument: str) -> Iterable[Any]:
    """Return an iterator over `items`; raise TypeError if it is not iterable, or is a string or bytes."""
    if isinstance(items, (str, bytes, bytearray)):
        advice = f": did you mean [{describe(exact_string(items))[4:]}]?" if isinstance(items, str) else ""
        raise TypeError(f"{argument} must be an iterable of items, got {describe(items)}{advice}")
    try:
        return iter(items)
    except TypeError:
        raise TypeError(f"{argument} must be an iterable, got {describe(items)}") from None


def checked_keys(keys: Iterable[str], argument: str = "keys") -> list[str]:
    """Return the keys as a list of plain strings; raise TypeError if one is not a string."""
    found = list(checked_iterable(keys, argument))
    if not _ONLY_STR.issuperset(map(type, found)):
        found = [checked_key(key, f"{argument}[{position}]") for position, key in enumerate(found)]
    return found


def checked_select(select: Iterable[str] | None) -> tuple[str, ...] | None:
    """Return the names of metadata items to select, or None for all of them."""
    if select is None:
        return None
    if isinstance(select, Mapping):
        raise TypeError(f"select must be names of items, got {describe(select)}: pass terms as where=")
    return tuple(checked_keys(select, "select"))


def checked_buffer_size(buffer_size: int) -> int:
    """Return the buffer size in bytes; it must be a positive integer."""
    if buffer_size is DEFAULT_BUFFER_SIZE:
        return buffer_size
    if not isinstance(buffer_size, int) or isinstance(buffer_size, bool):
        raise TypeError(f"buffer_size must be an int, got {describe(buffer_size)}")
    if buffer_size < 1:
        raise ValueError(f"buffer_size must be at least 1 byte, got {buffer_size}")
    return buffer_size


def checked_count(count: int, argument: str, least: int) -> int:
    """Return the count; it must be an integer from `least` to ``sys.maxsize``."""
    if not isinstance(count, int) or isinstance(count, bool):
        raise TypeError(f"{argument} must be an int, got {describe(count)}")
    count = exact_integer(count)
    if count < least:
        raise ValueError(f"{argument} must be at least {least}, got {count}")
    if count > sys.maxsize:
        raise ValueError(f"{argument} must be at most {sys.maxsize}, got {describe(count)}")
    return count


def given(**arguments: Any) -> dict[str, Any]:
    """Return the arguments that are not None, so that a store that lacks an option need not accept it."""
    return {name: value for name, value in arguments.items() if value is not None}


def checked_timeout(timeout: Seconds | None, argument: str = "timeout") -> float | None:
    """Return the timeout in seconds: None waits forever, zero does not wait, infinity is allowed."""
    if timeout is None:
        return None
    number = exact_seconds(timeout, argument)
    if not number >= 0:
        raise ValueError(f"{argument} must not be negative, got {number} seconds")
    return min(number, threading.TIMEOUT_MAX)


def checked_seconds(seconds: Seconds | None, argument: str) -> float | None:
    """Return a positive number of seconds; None stands for infinity and numbers beyond a float's range."""
    if seconds is None:
        return None
    number = exact_seconds(seconds, argument)
    if not number > 0:
        raise ValueError(f"{argument} must be positive, got {number} seconds")
    return float(number) if number <= _LONGEST else None


def exact_seconds(seconds: object, argument: str) -> float:
    """Return a number of seconds as a plain number: under locks, no code of a subclass may run."""
    if isinstance(seconds, float):
        return float.__float__(seconds)
    if isinstance(seconds, int) and not isinstance(seconds, bool):
        return int.__int__(seconds)
    # hot path: datetime is slow to import, and a caller that passes a timedelta has imported it.
    timedelta = getattr(sys.modules.get("datetime"), "timedelta", None)
    if timedelta is not None and isinstance(seconds, timedelta):
        number: float = timedelta.total_seconds(seconds)
        return number
    raise TypeError(f"{argument} must be a number of seconds, a timedelta or None, got {describe(seconds)}")


def checked_revision(if_revision: int | None) -> int | None:
    """Return the revision that a key must have: None for any, 0 for a key that must not exist."""
    if if_revision is None:
        return None
    if not isinstance(if_revision, int) or isinstance(if_revision, bool):
        raise TypeError(f"if_revision must be an int or None, got {describe(if_revision)}")
    if_revision = exact_integer(if_revision)  # the table compares it under the writer mutex
    if if_revision < 0:
        raise ValueError(f"if_revision must not be negative, got {if_revision}")
    return if_revision


def checked_range(start: int | None, end: int | None) -> slice:
    """Return the slice from `start` to `end`, each an integer or None."""
    for bound, argument in ((start, "start"), (end, "end")):
        if bound is not None and (not isinstance(bound, int) or isinstance(bound, bool)):
            raise TypeError(f"{argument} must be an int or None, got {describe(bound)}")
    return slice(start, end)


def checked_path(path: str | os.PathLike[str], argument: str = "path") -> str:
    """Return the path as a string."""
    try:
        text = os.fsdecode(path)
    except TypeError:
        raise TypeError(f"{argument} must be a str or os.PathLike, got {describe(path)}") from None
    if "\0" in text:
        raise ValueError(f"{argument} must not contain NUL characters, got {describe(text)}")
    return text


def as_bytes(data: bytes | bytearray | memoryview, argument: str = "data") -> bytes:
    """Return any bytes-like object as immutable bytes; a ``bytes`` object is returned as it is."""
    if type(data) is bytes:
        return data
    try:
        return bytes(memoryview(data))
    except TypeError:
        raise TypeError(f"{argument} must be bytes-like, got {describe(data)}") from None


def read_all(
    data: Readable | bytes | bytearray | memoryview,
    buffer_size: int,
    progress: Callable[..., object] | None = None,
    argument: str = "data",
) -> bytes:
    """Read a binary stream to its end, `buffer_size` bytes at a time.

    Parameters
    ----------
    data : binary stream or bytes-like
        A ``BytesIO`` at its start returns its bytes without a copy.
    progress : callable, optional
        Called as ``progress(step=bytes_so_far)`` after each block.

    Raises
    ------
    TypeError
        If `data` has no ``read`` method, or ``read`` returns anything but bytes.
    BlockingIOError
        If `data` is a non-blocking stream without data to read.
    """
    if isinstance(data, (bytes, bytearray, memoryview)):
        return as_bytes(data, argument)
    read = getattr(data, "read", None)
    if not callable(read):
        raise TypeError(f"{argument} must be a readable binary stream, got {describe(data)}")
    if progress is None and type(data) is io.BytesIO:
        return data.read()
    blocks = []
    done = 0
    buffer_size = min(buffer_size, sys.maxsize)  # streams accept no larger size
    while True:
        block = _checked_block(read(buffer_size), argument)
        done += len(block)
        if progress is not None:
            progress(step=done)
        if not block:
            break
        blocks.append(block)
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)


def _checked_block(block: object, argument: str) -> bytes:
    if type(block) is bytes:
        return block
    if block is None:
        raise BlockingIOError(f"{argument} is a non-blocking stream without data to read: use a blocking one")
    if isinstance(block, (bytes, bytearray, memoryview)):
        return as_bytes(block, argument)
    raise TypeError(f"{argument}.read() must return bytes, got {describe(block)}: open it in binary mode")
