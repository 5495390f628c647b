"""Errors that say nothing about the values that are compared: a query does not take them for a mismatch."""

from __future__ import annotations

from typing import Any

import pytest

from latchstore import Contains, DictMemoryStore, EventManager, In


class Failing:
    """A value whose comparisons and copies fail."""

    def __init__(self, error: type[Exception]) -> None:
        self.error = error
        self.copies = True

    def __eq__(self, other: object) -> bool:
        raise self.error

    def __hash__(self) -> int:
        return 1

    def __deepcopy__(self, memo: Any) -> Failing:
        if self.copies:
            return self
        raise self.error


@pytest.mark.parametrize("error", [MemoryError, RecursionError, SystemError])
@pytest.mark.parametrize("copies", [True, False])
def test_they_are_raised(error: type[Exception], copies: bool) -> None:
    store = DictMemoryStore(EventManager())
    value = Failing(error)
    store.set("k", (b"", {"item": value, "items": [value]}))
    value.copies = copies
    with pytest.raises(error):
        list(store.query_keys(item=1))
    with pytest.raises(error):
        list(store.query_keys(item=In([1, Contains(1)])))
    with pytest.raises(error):
        list(store.query_keys(items=Contains(1)))
    store.close()
