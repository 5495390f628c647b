"""Copies: of metadata on their way in, and of events for other processes.

Thread safety: the functions keep nothing. They run the ``__deepcopy__`` of users' objects, so they are called
with no lock held.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def copied_items(items: Mapping[str, Any], argument: str, key: str | None) -> dict[str, Any]:
    """Return a deep copy of metadata; what two items share, their copies share.

    Parameters
    ----------
    items : mapping
    argument : str
        What errors name it by.
    key : str or None
        The key that it is for, which they name as well.

    Raises
    ------
    TypeError
        If an item cannot be copied; names it.
    ValueError
        If it is nested too deeply for that.
    """
    copied: dict[str, Any] = {}
    memo: dict[int, Any] = {}
    for name, item in items.items():
        try:
            copied[name] = copy.deepcopy(item, memo)
        except MemoryError:
            raise  # that is no fault of the item's
        except Exception as error:
            where = (
                f"{argument}: item {name!r}" if key is None else f"{argument} for key {key!r}: item {name!r}"
            )
            if isinstance(error, RecursionError):
                raise ValueError(f"{where} is nested too deeply to be copied") from None
            raise TypeError(f"{where} cannot be copied: {_shown(error)}") from error
    return copied


def _shown(error: Exception) -> str:
    """Show an error, whose own ``__str__`` may fail as well."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


def without_source(event: Any) -> dict[str, Any]:
    """Return what is pickled of an event: its source is an object of this process."""
    return {**event.__dict__, "source": None}


def copied_event(event: T) -> T:
    """Return a shallow copy of an event, in this process, where its source is the same."""
    copied = type(event).__new__(type(event))
    copied.__dict__ = dict(event.__dict__)
    return copied
