"""Glob patterns for keys: ``*``, ``?``, ``[seq]`` and ``[!seq]``, as in :mod:`fnmatch`.

Matching is case-sensitive on every platform, and ``/`` is an ordinary character.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Callable, Iterable
from operator import methodcaller

from latchstore.contract.arguments import describe, exact_string

_SPECIAL = re.compile(r"[*?\[]")

#: The most characters of a pattern with ``?``, ``[`` or an inner ``*``, since compiling a regular expression
#: takes microseconds for each. Other patterns may be as long as keys.
LONGEST = 10_000


def matching_keys(pattern: str, keys: Iterable[str]) -> list[str]:
    """Return those of `keys` that match `pattern`, in their order.

    Raises
    ------
    TypeError
        If `pattern` is not a string.
    ValueError
        If it is longer than `LONGEST`, and has ``?``, ``[`` or an inner ``*``.
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
    return list(filter(_compiled(pattern), keys))


def matcher(pattern: str) -> Callable[[str], object]:
    """Return a function that returns a true object for a key that matches; it runs builtin code only."""
    literal = pattern.strip("*")
    if _SPECIAL.search(literal) is not None:
        return _compiled(pattern)
    if literal == pattern:
        return pattern.__eq__
    if not pattern.startswith("*"):
        return methodcaller("startswith", literal)
    if not pattern.endswith("*"):
        return methodcaller("endswith", literal)
    return methodcaller("__contains__", literal)


def prefix_of(pattern: str) -> str:
    """Return the longest prefix that all keys which match the pattern have."""
    special = _SPECIAL.search(pattern)
    return pattern if special is None else pattern[: special.start()]


def checked_pattern(pattern: str, argument: str = "pattern") -> str:
    """Return the pattern as a plain string; raises as `matching_keys` does."""
    if not isinstance(pattern, str):
        raise TypeError(f"{argument} must be a str, got {describe(pattern)}")
    pattern = exact_string(pattern)
    if len(pattern) > LONGEST and _SPECIAL.search(pattern.strip("*")) is not None:
        raise ValueError(
            f"{argument} must have at most {LONGEST} characters if it has ?, [ or an inner *, "
            f"got {len(pattern)}: {describe(pattern)}"
        )
    return pattern


def has_wildcards(pattern: str) -> bool:
    """Return whether a pattern has a wildcard, so that it may match other keys than the one equal to it."""
    return _SPECIAL.search(pattern) is not None


def escaped(key: str) -> str:
    """Return a pattern that matches exactly one key, whatever characters the key has."""
    return _SPECIAL.sub(r"[\g<0>]", key)


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str) -> Callable[[str], object]:
    return re.compile(fnmatch.translate(pattern)).match
