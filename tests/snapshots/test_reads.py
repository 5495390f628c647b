"""A snapshot shows one commit, whole, as long as it is open."""

# What raises is often the end of a block, so `pytest.raises` has to stand around more than one statement.

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from latchstore import (
    DictMemoryStore,
    EventManager,
    SnapshotClosedError,
)
from latchstore.engine import preimages
from latchstore.engine.inspection import replace_entries, table_of
from tests.contract.snapshots import READS, change_everything
from tests.snapshots.reads import assert_nothing_pinned


class EntriesNotToBeGoneThrough(dict[str, Any]):
    """The table's dict, which refuses whatever takes the longer, the more it holds."""

    refusing = True

    def _refuse(self, *arguments: object) -> Any:
        if self.refusing:
            raise AssertionError("the entries are gone through")
        return None

    def __iter__(self) -> Iterator[str]:
        return self._refuse() or super().__iter__()

    def copy(self) -> dict[str, Any]:
        return self._refuse() or super().copy()

    def keys(self) -> Any:
        return self._refuse() or super().keys()

    def values(self) -> Any:
        return self._refuse() or super().values()

    def items(self) -> Any:
        return self._refuse() or super().items()


def lines_run(step: Callable[[], object]) -> int:
    """Count the lines of Python that a step runs, and not those of finalizers of others."""
    count = 0
    gc.collect()
    gc.disable()

    def trace(frame: object, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        step()
    finally:
        sys.settrace(previous)
        gc.enable()
    return count


def bytes_allocated(step: Callable[[], object]) -> int:
    """Return how many bytes a step has held at the most."""
    tracemalloc.start()
    try:
        step()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_opening_and_closing_cost_the_same_whatever_the_size() -> None:
    """Neither goes through the entries, by Python or by C: same lines, few bytes, no iteration."""
    lines: dict[int, int] = {}
    for size in (10, 20_000):
        with DictMemoryStore(EventManager()) as store:
            keys = [f"key {number}" for number in range(size)]
            store.multiset_data(keys, [b""] * size)
            entries = EntriesNotToBeGoneThrough(table_of(store).entries)
            replace_entries(store, entries)

            def open_and_close(store: DictMemoryStore = store) -> None:
                view = store.snapshot()
                assert view.to_bytes("key 1") == b""
                store.from_bytes("key 1", b"")  # so that something is pinned
                view.close()
                store.from_bytes("key 1", b"")  # and given up

            open_and_close()  # whatever is made once is made
            lines[size] = lines_run(open_and_close)
            assert bytes_allocated(open_and_close) < 20_000, "a copy of the dict takes 600,000"
            with pytest.raises(AssertionError, match="gone through"):
                list(store.glob("*"))
            entries.refusing = False
            assert bytes_allocated(entries.copy) > 20_000 or size == 10
            assert_nothing_pinned(store)
    assert lines[10] == lines[20_000]


@pytest.mark.parametrize("read", ["get", "to_bytes", "multiget", "query", "glob", "len"])
def test_a_read_that_meets_the_close_is_refused(
    store: DictMemoryStore, read: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closed while it is read, a snapshot may have missed a commit: what was found is not given out."""
    view = store.snapshot()

    def closing(find: Callable[..., Any]) -> Callable[..., Any]:
        def found(*arguments: Any) -> Any:
            view.close()
            change_everything(store)
            return find(*arguments)

        return found

    for name in ("entry_at", "entries_at"):
        monkeypatch.setattr(preimages, name, closing(getattr(preimages, name)))
    with pytest.raises(SnapshotClosedError):
        READS[read][0](view)
    monkeypatch.undo()
    assert_nothing_pinned(store)
