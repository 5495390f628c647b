"""A batch keeps changes apart from what they are made on, and returns to any of its savepoints."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latchstore.contract.requests import Request
from latchstore.contract.values import Entry, entry_from_metadata
from latchstore.engine.batch import WriteBatch
from latchstore.engine.edits import Combined, Delete, Edit, IfRevision, MergeMetadata, SetData, SetMetadata
from latchstore.engine.interface import Engine

PROFILE = settings(max_examples=4 * settings().max_examples)


def entry(data: bytes, **metadata: Any) -> Entry:
    new = entry_from_metadata(metadata)
    new.data = data
    new.created, new.modified, new.revision = 10.0, 20.0, 3
    return new


def fresh(data: bytes, **metadata: Any) -> Entry:
    """An entry as an edit: without times and revision."""
    new = entry_from_metadata(metadata)
    new.data = data
    return new


class Base(dict[str, Entry]):
    """What a batch needs of an engine, over a dict that nobody else changes."""

    check_edit = None

    def __init__(self) -> None:
        super().__init__({"a": entry(b"a", n=1), "b": entry(b"b", n=2)})

    def entry(self, key: str) -> Entry | None:
        return self.get(key)

    def entries_of(self, keys: Sequence[str]) -> dict[str, Entry | None]:
        return {key: self.entry(key) for key in keys}

    def candidates(self, terms: Mapping[str, Any]) -> Iterable[tuple[str, Entry]]:
        return list(self.items())

    def select(self, request: Request, overlay: object) -> None:
        return None


def batch_on(base: Base) -> WriteBatch:
    return WriteBatch(cast(Engine, base), 4)


def committed(batch: WriteBatch, base: Base) -> dict[str, tuple[Entry | None, Entry | None]]:
    """Return the changes that the edits of a batch come to, as a commit makes them."""
    edits = batch.edits()
    assert len({key for key, _ in edits}) == len(edits), "one for each key"
    changes = {key: (base.get(key), edit.revise(key, base.get(key), 4, 100.0)) for key, edit in edits}
    return {key: change for key, change in changes.items() if change != (None, None)}


# -- what an edit makes of an entry ---------------------------------------------------------------


def test_a_new_entry_is_created_now() -> None:
    new = fresh(b"data", n=1).revise("k", None, 7, 100.0)
    assert new is not None
    assert (new.data, dict(new), new.created, new.modified, new.revision) == (
        b"data",
        {"n": 1},
        100.0,
        100.0,
        7,
    )


def test_an_entry_that_is_replaced_keeps_when_it_was_created() -> None:
    old = entry(b"old")
    new = SetData(b"new").revise("k", old, 7, 100.0)
    assert new is not None
    assert (new.created, new.modified, new.revision) == (10.0, 100.0, 7)
    # The old one is as it was: others hold it.
    assert (old.data, old.created, old.modified, old.revision) == (b"old", 10.0, 20.0, 3)


@pytest.mark.parametrize("now", [20.0, 19.0, 0.0, -5.0])
def test_modified_moves_on_when_the_clock_does_not(now: float) -> None:
    new = SetMetadata(entry_from_metadata({})).revise("k", entry(b""), 7, now)
    assert new is not None
    assert new.modified == math.nextafter(20.0, math.inf) > 20.0


def test_a_deletion_makes_nothing() -> None:
    edit: Edit = Delete()
    assert edit.revise("k", entry(b""), 7, 100.0) is None


@pytest.mark.parametrize("edit", [Delete(), MergeMetadata(entry_from_metadata({}))])
def test_some_edits_need_an_entry(edit: Any) -> None:
    with pytest.raises(KeyError) as raised:
        edit.revise("missing", None, 7, 100.0)
    assert raised.value.args == ("missing",)


def test_edits_of_one_key_are_done_one_after_the_other() -> None:
    merge = MergeMetadata(entry_from_metadata({"m": 1}))
    both = Combined(SetData(b"new"), merge)
    new = both.revise("k", entry(b"old", n=1), 7, 100.0)
    assert new is not None
    assert (new.data, dict(new), new.created, new.revision) == (b"new", {"n": 1, "m": 1}, 10.0, 7)
    assert (both.blind, both.whole) == (False, False)
    assert Combined(Delete(), fresh(b"")).whole
    assert Combined(SetData(b""), fresh(b"")).blind
    with pytest.raises(KeyError):
        Combined(Delete(), merge).revise("k", entry(b"old"), 7, 100.0)


# -- a batch --------------------------------------------------------------------------------------


def test_a_batch_leaves_its_base_alone() -> None:
    below = Base()
    before = dict(below)
    batch = batch_on(below)
    batch.put("a", SetData(b"A"))
    batch.put("b", Delete())
    batch.put("c", fresh(b"c"))
    assert below == before
    assert all(below[key] is before[key] for key in before)


def test_blind_edits_need_nothing_of_the_base() -> None:
    class Unreadable(Base):
        def entry(self, key: str) -> Entry | None:
            raise AssertionError(f"{key} is read")

    batch = batch_on(Unreadable())
    batch.put("a", SetData(b"A"))
    batch.put("a", SetMetadata(entry_from_metadata({"n": 3})))
    batch.put("b", fresh(b"B"))
    savepoint = batch.savepoint()
    batch.put("b", SetData(b"again"))
    batch.rollback_to(savepoint)
    assert [key for key, _ in batch.edits()] == ["a", "b"]
    for edit in (Delete(), MergeMetadata(entry_from_metadata({})), IfRevision(SetData(b""), 3)):
        with pytest.raises(AssertionError, match="c is read"):
            batch.put("c", edit)
    assert [key for key, _ in batch.edits()] == ["a", "b"]


def test_a_batch_shows_its_own_changes_on_top() -> None:
    below = Base()
    batch = batch_on(below)
    assert batch.current("a") is below["a"]
    assert batch.current("c") is None
    batch.put("a", SetData(b"A"))
    batch.put("b", Delete())
    batch.put("c", fresh(b"c", n=3))
    batch.put("c", MergeMetadata(entry_from_metadata({"m": 4})))
    current = batch.current("a")
    assert current is not None
    assert (current.data, dict(current), current.revision) == (b"A", {"n": 1}, 4)
    assert batch.current("b") is None
    created = batch.current("c")
    assert created is not None
    assert (created.data, dict(created)) == (b"c", {"n": 3, "m": 4})
    with pytest.raises(KeyError):
        batch.put("b", Delete())


def test_a_commit_makes_one_change_of_each_key() -> None:
    below = Base()
    batch = batch_on(below)
    batch.put("a", SetData(b"1"))
    batch.put("a", SetData(b"2"))
    batch.put("b", SetData(b"3"))
    batch.put("b", Delete())
    batch.put("came and went", fresh(b""))
    batch.put("came and went", Delete())
    batch.put("new", fresh(b"new"))
    changes = committed(batch, below)
    assert len(changes) == 3
    old, new = changes["a"]
    assert old is below["a"]
    assert new is not None
    assert new.data == b"2"
    assert changes["b"] == (below["b"], None)
    assert changes["new"][0] is None


def test_a_key_that_was_deleted_and_set_again_is_new() -> None:
    below = Base()
    batch = batch_on(below)
    batch.put("a", Delete())
    batch.put("a", SetData(b"again"))
    current = batch.current("a")
    assert current is not None
    assert dict(current) == {}
    assert current.created > 10.0
    assert committed(batch, below) == {"a": (below["a"], current)}


def test_what_is_found_has_the_batch_s_own_changes_in_place() -> None:
    below = Base()
    batch = batch_on(below)
    assert list(batch.candidates({})) == list(batch.found(Request({}))) == list(below.items())
    batch.put("a", Delete())
    batch.put("b", SetData(b"B"))
    batch.put("c", fresh(b"c"))
    for found in (batch.candidates({}), batch.found(Request({}))):
        assert [(key, found.data) for key, found in found] == [("b", b"B"), ("c", b"c")]


def test_a_savepoint_is_returned_to() -> None:
    below = Base()
    batch = batch_on(below)
    batch.put("a", SetData(b"before"))
    first = batch.savepoint()
    batch.put("a", SetData(b"after"))
    batch.put("b", Delete())
    second = batch.savepoint()
    batch.put("c", fresh(b""))
    batch.put("b", SetData(b"again"))
    batch.rollback_to(second)
    assert batch.current("c") is None
    assert batch.current("b") is None
    batch.put("d", fresh(b""))
    batch.rollback_to(first)
    current = batch.current("a")
    assert current is not None
    assert current.data == b"before"
    assert batch.current("b") is below["b"]
    assert list(committed(batch, below)) == ["a"]
    batch.rollback_to(first)
    assert list(committed(batch, below)) == ["a"]


@PROFILE
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.sampled_from(("set", "data", "delete", "merge", "look")), st.sampled_from("abc")),
            st.tuples(st.sampled_from(("savepoint", "rollback", "release")), st.just("")),
        ),
        max_size=40,
    )
)
def test_savepoints_against_copies_of_a_dict(steps: list[tuple[str, str]]) -> None:
    below = Base()
    batch = batch_on(below)
    model: dict[str, Any] = {key: (found.data, dict(found)) for key, found in below.items()}
    saved: list[tuple[int, dict[str, Any]]] = []
    for number, (kind, key) in enumerate(steps):
        if kind == "set":
            batch.put(key, fresh(b"%d" % number, n=number))
            model[key] = (b"%d" % number, {"n": number})
        elif kind == "data":
            batch.put(key, SetData(b"%d" % number))
            model[key] = (b"%d" % number, model[key][1] if key in model else {})
        elif kind == "look":
            current = batch.current(key)
            assert (None if current is None else (current.data, dict(current))) == model.get(key)
        elif kind == "savepoint":
            saved.append((batch.savepoint(), dict(model)))
        elif kind in ("rollback", "release"):
            if saved:
                savepoint, before = saved.pop()
                if kind == "rollback":
                    batch.rollback_to(savepoint)
                    model = before
        elif key in model:
            if kind == "delete":
                batch.put(key, Delete())
                del model[key]
            else:
                batch.put(key, MergeMetadata(entry_from_metadata({"m": number})))
                model[key] = (model[key][0], {**model[key][1], "m": number})
    after: dict[str, Any] = below | {key: new for key, (_, new) in committed(batch, below).items()}
    assert {key: (found.data, dict(found)) for key, found in after.items() if found is not None} == model
    assert [(key, found.data) for key, found in sorted(batch.candidates({}))] == [
        (key, data) for key, (data, _) in sorted(model.items())
    ]


# -- finalizers -----------------------------------------------------------------------------------


def test_a_write_that_comes_while_the_edits_are_looked_through() -> None:
    """A finalizer writes in the transaction of the thread that it runs in, wherever that is."""
    batch = batch_on(Base())

    class Interrupted(SetData):
        def revise(self, key: str, current: Entry | None, revision: int, now: float) -> Entry:
            batch.put("finalizer's", SetData(b""))
            return super().revise(key, current, revision, now)

    batch.put("c", Interrupted(b"c"))
    found = dict(batch.candidates({}))
    assert found.keys() == {"a", "b", "c"}
    assert batch.has_edit("finalizer's")
