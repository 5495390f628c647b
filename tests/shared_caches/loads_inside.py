"""Loads inside optimistic transactions.

A test module derives from the class, and has the fixtures `store` and `cache`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from latchstore import Cache, TransactionConflictError
from tests.cache.transactions.blocks import elsewhere, kinds
from tests.fork.children import in_child, needs_fork
from tests.schedules import Actor


def set_and_delete(cache: Cache) -> None:
    cache.set("c", "newer")
    cache.delete("c")


def delete_in_a_transaction(cache: Cache) -> None:
    with cache.store.transaction():
        cache.delete("c")


#: Ways to remove a key that is missing afterwards, as it was before.
removals = pytest.mark.parametrize(
    "remove",
    [
        lambda cache: cache.delete("c"),
        lambda cache: cache.invalidate_tag("tag"),
        lambda cache: cache.delete_glob("c*"),
        lambda cache: cache.clear(),
        set_and_delete,
        delete_in_a_transaction,
    ],
    ids=["delete", "tag", "glob", "clear", "set and delete", "transaction"],
)
loads = pytest.mark.parametrize("many", [False, True], ids=["one", "many"])


def load(cache: Cache, many: bool, meanwhile: Callable[[], object] = str) -> object:
    """Load "c" in the calling thread's transaction, while something else is done."""

    def loader(key: str) -> str:
        meanwhile()
        return "old"

    if many:
        return cache.get_many_or_load(["c"], lambda keys: {"c": loader("c")}, tags=("tag",))["c"]
    return cache.get_or_load("c", loader, tags=("tag",))


class LoadsInsideContract:
    """What others remove while it is loaded, or before that is committed, is not put back."""

    @pytest.fixture(autouse=True)
    def empty(self, cache: Cache) -> None:
        cache.clear()  # so that nothing has to be evicted, which would be a conflict of its own

    @loads
    @removals
    def test_that_are_not_committed_yet(
        self, store: Any, cache: Cache, remove: Callable[[Cache], None], many: bool
    ) -> None:
        def block() -> None:
            with store.transaction(optimistic=True):
                assert load(cache, many) == "old"
                assert cache.get("c") == "old"
                elsewhere(remove, cache)

        with pytest.raises(TransactionConflictError, match="'c' was set or deleted") as raised:
            block()
        assert raised.value.keys == ("c",)
        assert "c" not in cache

    @loads
    @removals
    def test_that_run(self, store: Any, cache: Cache, remove: Callable[[Cache], None], many: bool) -> None:
        with store.transaction(optimistic=True):
            # The block goes on with what it has, and does not keep it.
            assert load(cache, many, lambda: elsewhere(remove, cache)) == "old"
            assert cache.get("c") is None
        assert "c" not in cache

    @loads
    def test_that_begin_before_a_removal_is_committed(self, store: Any, cache: Cache, many: bool) -> None:
        with Actor(store) as other:
            other.begin(optimistic=True)
            other.do(lambda: cache.delete("c"))
            with store.transaction(optimistic=True):
                assert load(cache, many) == "old"
            other.commit()
        assert "c" not in cache

    @loads
    @removals
    def test_that_have_been_rolled_back(
        self, store: Any, cache: Cache, remove: Callable[[Cache], None], many: bool
    ) -> None:
        with store.transaction(optimistic=True):
            with store.transaction(optimistic=True) as inner:
                load(cache, many)
                inner.doom()
            elsewhere(remove, cache)
            cache.set("d", 4)
        assert cache["d"] == 4

    @kinds
    @loads
    def test_after_the_transaction_has_removed_the_key_itself(
        self, store: Any, cache: Cache, optimistic: bool, many: bool
    ) -> None:
        with store.transaction(optimistic=optimistic):
            cache.delete("c")
            assert load(cache, many) == "old"
        assert cache["c"] == "old"

    @needs_fork
    def test_in_a_child_that_is_forked_in_a_block_which_has_removed_the_key(
        self, store: Any, cache: Cache
    ) -> None:
        """The block goes on in the parent alone, and so does its removal."""

        def be_child() -> None:
            assert load(cache, False) == "old"
            assert cache["c"] == "old"

        with store.transaction(optimistic=True) as block:
            cache.clear()
            assert in_child(be_child) == ""
            block.doom()  # what the child has loaded may be the parent's as well: a conflict

    @kinds
    @loads
    def test_of_other_keys_are_kept(self, store: Any, cache: Cache, optimistic: bool, many: bool) -> None:
        with store.transaction(optimistic=optimistic):
            load(cache, many, lambda: None if not optimistic else elsewhere(cache.delete, "x"))
        assert cache["c"] == "old"
