"""A snapshot shows one commit, whole, as long as it is open."""

# What raises is often the end of a block, so `pytest.raises` has to stand around more than one statement.
# ruff: noqa: PT012

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from latchstore import (
    AbstractReadOnlyStore,
    AbstractStore,
    DictMemoryStore,
    EventManager,
    SnapshotClosedError,
)
from latchstore.engine import preimages
from latchstore.engine.inspection import replace_entries, table_of
from tests.snapshots.reads import (
    READS,
    BrokenBlockError,
    assert_nothing_pinned,
    change_everything,
    every_read,
    fill,
    whole,
)


@every_read
def test_reads_show_the_commit_it_was_opened_at(store: DictMemoryStore, read: str) -> None:
    ask, answer = READS[read]
    with store.snapshot() as view:
        assert ask(view) == answer
        change_everything(store)
        assert ask(view) == answer
        assert ask(store) != answer, "the change is one that can be seen"
    assert_nothing_pinned(store)


def test_to_file(store: DictMemoryStore, tmp_path: Path) -> None:
    with store.snapshot() as view:
        change_everything(store)
        view.to_file("doc/1", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"one"


def test_a_snapshot_of_an_empty_store_stays_empty() -> None:
    with DictMemoryStore(EventManager()) as empty, empty.snapshot() as view:
        fill(empty)
        assert whole(view) == {}
        assert view.revision == 0
        for key in empty.glob("*"):
            with pytest.raises(KeyError, match=key):
                view.get(key)
            with pytest.raises(KeyError, match=key):
                view.multiget([key])


def test_a_snapshot_is_read_only(store: DictMemoryStore) -> None:
    with store.snapshot() as view:
        assert isinstance(view, AbstractReadOnlyStore)
        assert not isinstance(view, AbstractStore)
        assert not hasattr(view, "set")
        assert view.info()["readonly"] is True


def test_what_is_handed_out_is_a_copy(store: DictMemoryStore) -> None:
    with store.snapshot() as view:
        view.get_metadata("image")["tags"].append("y")
        next(iter(view.query(kind="image")))[1]["tags"].append("z")
        assert view.get_metadata("image")["tags"] == ["x"]
    assert store.get_metadata("image")["tags"] == ["x"]


def test_keys_are_checked(store: DictMemoryStore) -> None:
    with store.snapshot() as view:
        with pytest.raises(TypeError, match="key must be a str"):
            view.get(3)  # type: ignore[arg-type]
        with pytest.raises(KeyError, match="none"):
            view.get("none")


@pytest.mark.parametrize("optimistic", [False, True], ids=["exclusive", "optimistic"])
def test_opened_inside_a_transaction_it_shows_the_last_commit(
    store: DictMemoryStore, optimistic: bool
) -> None:
    before = whole(store)
    with store.transaction(optimistic=optimistic):
        change_everything(store)
        with store.snapshot() as view:
            assert whole(view) == before
            assert view.revision == 1
            change_everything(store)
            assert whole(view) == before
        kept = store.snapshot()
    assert whole(kept) == before
    kept.close()
    assert_nothing_pinned(store)


def test_a_transaction_that_is_rolled_back_pins_nothing(store: DictMemoryStore) -> None:
    before = whole(store)
    with store.snapshot() as view:
        with pytest.raises(BrokenBlockError), store.transaction():
            change_everything(store)
            raise BrokenBlockError
        assert store.info()["pinned_entries"] == 0
        assert whole(view) == before


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
