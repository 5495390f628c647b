"""Finds misspelt options and methods of a test, which would have no effect.

Thread safety: the functions have no state.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from types import CodeType, FunctionType
from typing import Any

from latchstore.stress.testing.definition import Definition

#: Similarity from which a name counts as misspelt; for methods higher, as tests have helpers of their own.
_CLOSE, _CLOSE_METHOD = 0.8, 0.9

_MEMBERS = {name: value for name, value in vars(Definition).items() if not name.startswith("_")}
_METHODS = [name for name, value in _MEMBERS.items() if inspect.isfunction(value)]
_OPTIONS = [name for name in _MEMBERS if name not in _METHODS]


def check_spelling(kind: type[Definition], declared: Sequence[str]) -> None:
    """Raise TypeError if a test has an attribute that is probably a misspelt one of `Test`.

    An attribute that the test's own methods use, or whose value the option could not have, is the user's own.

    Parameters
    ----------
    kind : type
        The class of the test.
    declared : sequence of str
        The names of its operations and invariants.
    """
    used = set(_names_used(kind))
    for cls in kind.__mro__:
        if not issubclass(cls, Definition) or cls.__module__.startswith("latchstore."):
            continue
        for name, value in vars(cls).items():
            if name.startswith("_") or name in _MEMBERS or name in declared or name in used:
                continue
            meant = _meant(name, value)
            # The class of the model may stand in the test beside it.
            is_kind = isinstance(value, type) and meant and isinstance(getattr(kind, meant), value)
            if meant is not None and not is_kind:
                raise TypeError(
                    f"{cls.__qualname__}.{name} has no effect: Test has no {name!r}, did you mean {meant!r}? "
                    "If it is your own, use it in a method, or begin its name with an underscore"
                )


def _meant(name: str, value: object) -> str | None:
    """Return the option or method that was probably meant."""
    if inspect.isfunction(value):
        found = get_close_matches(name, _METHODS, 1, _CLOSE_METHOD)
        return found[0] if found and _parameters(value) == _parameters(_MEMBERS[found[0]]) else None
    found = get_close_matches(name, _OPTIONS, 1, _CLOSE)
    # Compounds such as max_threads are names of the user's.
    if found and found[0] not in name.split("_") and _suits(found[0], value):
        return found[0]
    return None


def _parameters(function: FunctionType) -> int:
    return len(inspect.signature(function).parameters)


def _suits(option: str, value: Any) -> bool:
    """Return whether an option could have this value."""
    if option == "model":
        return hasattr(value, "step")
    if option == "modules":
        return isinstance(value, str | list | tuple) and all(isinstance(each, str) for each in value)
    if option == "schedules" and value is None:
        return True
    return isinstance(value, int | float) and not isinstance(value, bool)


def _names_used(kind: type[Definition]) -> Iterator[str]:
    """Return the names that the test's own methods use."""
    for cls in kind.__mro__:
        if cls is not object and not cls.__module__.startswith("latchstore."):
            for value in vars(cls).values():
                function = getattr(value, "fget", None) or getattr(value, "__func__", value)
                if inspect.isfunction(function):
                    yield from _names_in(function.__code__)


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)
