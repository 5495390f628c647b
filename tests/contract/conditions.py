"""Conditions: a write with `if_revision` is made on the revision that it names, or not at all."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latchstore import AbstractStore, RevisionMismatchError
from tests.contract.stores import StoreContract, contents, facts, fill, stream

Write = Callable[..., object]

#: Each method that takes a condition, and can make a key.
MAKING: dict[str, Write] = {
    "set": lambda store, key, **condition: store.set(key, (stream(b"x"), {}), **condition),
    "set_data": lambda store, key, **condition: store.set_data(key, stream(b"x"), **condition),
    "set_metadata": lambda store, key, **condition: store.set_metadata(key, {"n": 1}, **condition),
    "from_bytes": lambda store, key, **condition: store.from_bytes(key, b"x", **condition),
    "from_file": lambda store, key, **condition: store.from_file(key, __file__, **condition),
}

#: Each method that takes a condition.
ALL: dict[str, Write] = {
    **MAKING,
    "update_metadata": lambda store, key, **condition: store.update_metadata(key, {"n": 1}, **condition),
    "delete": lambda store, key, **condition: store.delete(key, **condition),
    "evict": lambda store, key, **condition: store.evict(key, "size", **condition),
}

all_writes = pytest.mark.parametrize("write", ALL.values(), ids=ALL)
making_writes = pytest.mark.parametrize("write", MAKING.values(), ids=MAKING)


class ConditionContract(StoreContract):
    """`if_revision`."""

    @pytest.fixture(autouse=True)
    def filled(self, store: AbstractStore) -> None:
        fill(store, a=b"1", b=b"2")

    @all_writes
    def test_the_right_revision(self, store: AbstractStore, write: Write) -> None:
        before = facts(store)
        write(store, "a", if_revision=store.get("a").revision)
        after = facts(store)
        assert before.pop("a") != after.pop("a", None)
        assert after == before

    @all_writes
    def test_none_is_no_condition(self, store: AbstractStore, write: Write) -> None:
        before = facts(store)
        write(store, "a", if_revision=None)
        assert facts(store).get("a") != before["a"]

    @all_writes
    def test_a_revision_that_is_past(self, store: AbstractStore, write: Write) -> None:
        past = store.get("a").revision
        store.update_metadata("a", {})
        before = facts(store)
        with pytest.raises(RevisionMismatchError) as caught:
            write(store, "a", if_revision=past)
        error = caught.value
        assert (error.key, error.expected, error.actual) == ("a", past, store.get("a").revision)
        for shown in ("'a'", str(past), str(error.actual), "if_revision"):
            assert shown in str(error)
        assert facts(store) == before

    @all_writes
    def test_a_key_that_is_gone(self, store: AbstractStore, write: Write) -> None:
        revision = store.get("a").revision
        store.delete("a")
        before = facts(store)
        with pytest.raises(RevisionMismatchError) as caught:
            write(store, "a", if_revision=revision)
        assert (caught.value.expected, caught.value.actual) == (revision, 0)
        assert facts(store) == before

    @making_writes
    def test_a_key_that_must_not_exist(self, store: AbstractStore, write: Write) -> None:
        write(store, "new", if_revision=0)
        assert "new" in store
        before = facts(store)
        with pytest.raises(RevisionMismatchError) as caught:
            write(store, "new", if_revision=0)
        assert (caught.value.expected, caught.value.actual) == (0, store.get("new").revision)
        assert facts(store) == before

    @pytest.mark.parametrize("method", ["update_metadata", "delete"])
    def test_what_needs_a_key_needs_it_still(self, store: AbstractStore, method: str) -> None:
        with pytest.raises(KeyError) as caught:
            ALL[method](store, "nowhere", if_revision=0)
        assert caught.value.args == ("nowhere",)
        with pytest.raises(RevisionMismatchError):
            ALL[method](store, "a", if_revision=0)

    @all_writes
    @pytest.mark.parametrize(
        ("wrong", "error"), [(-1, ValueError), ("1", TypeError), (1.0, TypeError), (True, TypeError)]
    )
    def test_bad_conditions(
        self, store: AbstractStore, write: Write, wrong: Any, error: type[Exception]
    ) -> None:
        before = facts(store)
        with pytest.raises(error, match="if_revision") as caught:
            write(store, "a", if_revision=wrong)
        assert str(wrong) in str(caught.value)
        assert facts(store) == before

    def test_a_condition_that_fails_in_a_block(self, store: AbstractStore) -> None:
        past = store.get("a").revision
        with store.transaction():
            store.set_data("a", stream(b"x"))
            with pytest.raises(RevisionMismatchError):
                store.set_data("a", stream(b"y"), if_revision=past)
            store.set_data("b", stream(b"x"))
        assert contents(store) == {"a": (b"x", {"name": "a"}), "b": (b"x", {"name": "b"})}

    def test_a_missing_file_comes_before_the_condition(self, store: AbstractStore, tmp_path: Path) -> None:
        before = facts(store)
        with pytest.raises(FileNotFoundError):
            store.from_file("a", tmp_path / "missing", if_revision=store.get("a").revision)
        assert facts(store) == before

    def test_the_error_can_be_pickled(self, store: AbstractStore) -> None:
        with pytest.raises(RevisionMismatchError) as caught:
            store.delete("a", if_revision=0)
        copied = pickle.loads(pickle.dumps(caught.value))
        assert (copied.key, copied.expected, copied.actual) == ("a", 0, store.get("a").revision)
        assert str(copied) == str(caught.value)
