"""Evicting a key: deleting it, as far as anybody can see but those who listen."""

from __future__ import annotations

import contextlib

import pytest

from latchstore import AbstractStore
from tests.contract.stores import StoreContract, contents, facts, fill
from tests.contract.transactions import failing_block


class EvictContract(StoreContract):
    """`evict`; its `if_revision` is in `ConditionContract`."""

    @pytest.fixture(autouse=True)
    def filled(self, store: AbstractStore) -> None:
        fill(store, a=b"1", b=b"2")

    @pytest.mark.parametrize("cause", ["size", "expired", "idle", "a cause of one's own"])
    def test_removes_the_key(self, store: AbstractStore, cause: str) -> None:
        store.evict("a", cause)
        assert "a" not in store
        assert list(contents(store)) == ["b"]
        with pytest.raises(KeyError):
            store.get("a")

    def test_the_cause_can_be_left_out(self, store: AbstractStore) -> None:
        store.evict("a")
        assert list(contents(store)) == ["b"]

    def test_a_missing_key(self, store: AbstractStore) -> None:
        before = facts(store)
        with pytest.raises(KeyError, match="missing"):
            store.evict("missing", "size")
        assert facts(store) == before

    @pytest.mark.parametrize("key", [1, None, b"a", ("a",)])
    def test_a_key_that_is_no_string(self, store: AbstractStore, key: object) -> None:
        with pytest.raises(TypeError, match="key"):
            store.evict(key, "size")  # type: ignore[arg-type]

    def test_a_key_that_is_set_again_is_new(self, store: AbstractStore) -> None:
        before = store.get("a")
        store.evict("a", "size")
        fill(store, a=b"3")
        after = store.get("a")
        assert after.data.read() == b"3"
        assert after.revision != before.revision

    def test_in_a_transaction(self, store: AbstractStore) -> None:
        with store.transaction("evict"):
            store.evict("a", "size")
            assert "a" not in store
            with pytest.raises(KeyError):
                store.evict("a", "size")
        assert list(contents(store)) == ["b"]

    def test_is_rolled_back(self, store: AbstractStore) -> None:
        before = facts(store)
        with failing_block(store):
            store.evict("a", "size")
        assert facts(store) == before

    def test_a_missing_key_in_a_transaction_does_not_end_it(self, store: AbstractStore) -> None:
        with store.transaction("evict"):
            with contextlib.suppress(KeyError):
                store.evict("missing", "size")
            store.evict("b", "size")
        assert list(contents(store)) == ["a"]
