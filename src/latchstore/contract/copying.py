"""Deep copies of metadata on their way in, and copies of events for pickling.

Thread safety: the functions have no state. They run the ``__deepcopy__`` of users' objects, so they are
called with no lock held.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

from latchstore.contract.arguments import describe_error

T = TypeVar("T")


def copied_items(items: Mapping[str, Any], argument: str, key: str | None) -> dict[str, Any]:
    """Return a deep copy of metadata; objects that two items share are shared by the copies.

    Parameters
    ----------
    items : mapping
    argument : str
        The name of the argument, for errors.
    key : str or None
        The key of the metadata, for errors.

    Raises
    ------
    TypeError
        If an item cannot be copied; names the key and the item.
    ValueError
        If an item is nested too deeply; names the key and the item.
    """
    copied: dict[str, Any] = {}
    memo: dict[int, Any] = {}
    for name, item in items.items():
        try:
            copied[name] = copy.deepcopy(item, memo)
        except MemoryError:
            raise  # not the item's fault
        except Exception as error:
            where = (
                f"{argument}: item {name!r}" if key is None else f"{argument} for key {key!r}: item {name!r}"
            )
            if isinstance(error, RecursionError):
                raise ValueError(f"{where} is nested too deeply to be copied") from None
            raise TypeError(f"{where} cannot be copied: {describe_error(error)}") from error
    return copied


def without_source(event: Any) -> dict[str, Any]:
    """Return the attributes of an event to pickle: all but its source, an object of this process."""
    return {**event.__dict__, "source": None}


def copied_event(event: T) -> T:
    """Return a shallow copy of an event with the same source."""
    copied = type(event).__new__(type(event))
    copied.__dict__ = dict(event.__dict__)
    return copied
