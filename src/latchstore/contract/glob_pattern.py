"""Glob-style patterns over keys: ``*``, ``?``, ``[seq]`` and ``[!seq]``, as in :mod:`fnmatch`.

Upper and lower case differ on every platform, and ``/`` is a character like any other.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Callable, Iterable

from latchstore.contract.arguments import describe, exact_string

_SPECIAL = re.compile(r"[*?\[]")


def matching_keys(pattern: str, keys: Iterable[str]) -> list[str]:
    """Return those of `keys` that match `pattern`, in their order.

    Raises
    ------
    TypeError
        If `pattern` is not a string.
    """
    pattern = checked_pattern(pattern)
    literal = pattern.strip("*")
    if _SPECIAL.search(literal) is None:
        # hot path: part, part*, *part and *part* are most patterns, and string methods match them faster than
        # a compiled expression (benchmarks/README.md).
        if literal == pattern:
            return [key for key in keys if key == pattern]
        if not pattern.startswith("*"):
            return [key for key in keys if key.startswith(literal)]
        if not pattern.endswith("*"):
            return [key for key in keys if key.endswith(literal)]
        return [key for key in keys if literal in key]
    return list(filter(compiled(pattern), keys))


def checked_pattern(pattern: str, argument: str = "pattern") -> str:
    """Return the pattern as a plain string; TypeError if it is none."""
    if not isinstance(pattern, str):
        raise TypeError(f"{argument} must be a str, got {describe(pattern)}")
    return exact_string(pattern)


def literal_key(pattern: str) -> str | None:
    """Return the one key that a pattern matches, or None if it may match others."""
    return pattern if _SPECIAL.search(pattern) is None else None


def escaped(key: str) -> str:
    """Return a pattern that matches one key alone, whatever characters it has."""
    return _SPECIAL.sub(r"[\g<0>]", key)


@functools.lru_cache(maxsize=256)
def compiled(pattern: str) -> Callable[[str], object]:
    """Return a function whose result is true for a key that matches."""
    return re.compile(fnmatch.translate(pattern)).match
