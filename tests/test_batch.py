"""A batch keeps changes apart from what they are made on, and returns to any of its savepoints."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latchstore.contract.values import Entry, entry_from_metadata
from latchstore.engine.batch import WriteBatch
from latchstore.engine.entry_store import Delete, Edit, MergeMetadata, SetData, SetMetadata

PROFILE = settings(max_examples=400)


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


def base() -> dict[str, Entry | None]:
    return {"a": entry(b"a", n=1), "b": entry(b"b", n=2)}


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


# -- a batch --------------------------------------------------------------------------------------


def test_a_batch_leaves_its_base_alone() -> None:
    below = base()
    before = dict(below)
    batch = WriteBatch(below, 4)
    batch.put("a", SetData(b"A"))
    batch.put("b", Delete())
    batch.put("c", fresh(b"c"))
    assert below == before
    assert all(below[key] is before[key] for key in before)


def test_a_batch_shows_its_own_changes_on_top() -> None:
    below = base()
    batch = WriteBatch(below, 4)
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


def test_net_changes_are_one_for_each_key() -> None:
    below = base()
    batch = WriteBatch(below, 4)
    batch.put("a", SetData(b"1"))
    batch.put("a", SetData(b"2"))
    batch.put("b", SetData(b"3"))
    batch.put("b", Delete())
    batch.put("came and went", fresh(b""))
    batch.put("came and went", Delete())
    batch.put("new", fresh(b"new"))
    changes = {key: (old, new) for key, old, new in batch.net_changes()}
    assert len(changes) == len(batch.net_changes()) == 3
    old, new = changes["a"]
    assert old is below["a"]
    assert new is not None
    assert new.data == b"2"
    assert changes["b"] == (below["b"], None)
    assert changes["new"][0] is None


def test_a_key_that_was_deleted_and_set_again_is_new() -> None:
    batch = WriteBatch(base(), 4)
    batch.put("a", Delete())
    batch.put("a", SetData(b"again"))
    current = batch.current("a")
    assert current is not None
    assert dict(current) == {}
    assert current.created > 10.0
    ((key, old, new),) = batch.net_changes()
    assert (key, old is not None, new is current) == ("a", True, True)


def test_overlay_puts_the_batch_in_place_of_what_was_found() -> None:
    below = base()
    batch = WriteBatch(below, 4)
    found = [(key, found) for key, found in below.items() if found is not None]
    assert batch.overlay(found) == found
    batch.put("a", Delete())
    batch.put("b", SetData(b"B"))
    batch.put("c", fresh(b"c"))
    assert [(key, found.data) for key, found in batch.overlay(found)] == [("b", b"B"), ("c", b"c")]
    assert [key for key, _ in batch.overlay([])] == ["b", "c"]


def test_a_savepoint_is_returned_to() -> None:
    below = base()
    batch = WriteBatch(below, 4)
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
    assert [key for key, _, _ in batch.net_changes()] == ["a"]
    batch.rollback_to(first)
    assert [key for key, _, _ in batch.net_changes()] == ["a"]


@PROFILE
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.sampled_from(("set", "delete", "merge")), st.sampled_from("abc")),
            st.tuples(st.sampled_from(("savepoint", "rollback", "release")), st.just("")),
        ),
        max_size=40,
    )
)
def test_savepoints_against_copies_of_a_dict(steps: list[tuple[str, str]]) -> None:
    below = base()
    batch = WriteBatch(below, 4)
    model: dict[str, Any] = {
        key: (found.data, dict(found)) for key, found in below.items() if found is not None
    }
    saved: list[tuple[int, dict[str, Any]]] = []
    for number, (kind, key) in enumerate(steps):
        if kind == "set":
            batch.put(key, fresh(b"%d" % number, n=number))
            model[key] = (b"%d" % number, {"n": number})
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
        for name in "abc":
            current = batch.current(name)
            assert (None if current is None else (current.data, dict(current))) == model.get(name)
