"""`Contains`: a query by what a collection has in it; an index answers it as a scan does."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchstore import AbstractStore, Contains, DictMemoryStore, EventManager, TransactionConflictError
from latchstore.contract.values import Entry, entry_from_metadata
from latchstore.engine.metadata_index import MetadataIndex
from tests.contract.reference_store import ReferenceStore

TIMEOUT = 30.0

NAN = float("nan")

#: What may be in a collection, and be asked for.
ITEMS = st.sampled_from(["new", "draft", "", 0, 1, True, 1.0, -0.0, None, NAN, b"new", Decimal(1), ("new",)])

#: What a metadata item may be; of `...` there is none.
VALUES = st.one_of(
    st.just(...),
    ITEMS,
    st.lists(ITEMS, max_size=3),
    st.lists(ITEMS, max_size=3).map(tuple),
    st.sets(ITEMS, max_size=3),
    st.frozensets(ITEMS, max_size=3),
    st.lists(st.lists(ITEMS, max_size=1), max_size=2).map(tuple),
    st.dictionaries(ITEMS, ITEMS, max_size=2),
)


def metadata_of(value: Any) -> dict[str, Any]:
    return {} if value is ... else {"tags": value}


def entry(value: Any) -> Entry:
    return entry_from_metadata(metadata_of(value))


class TestTerm:
    @pytest.mark.parametrize("make", [tuple, list, set, frozenset])
    def test_collections(self, make: Any) -> None:
        assert Contains("a") == make(["a", "b"])
        assert make(["a", "b"]) == Contains("a")
        assert Contains("c") != make(["a", "b"])
        assert Contains("a") != make([])

    @pytest.mark.parametrize("other", ["a", "abc", b"a", {"a": 1}, iter("a"), None, 5, {"a": 1}.keys()])
    def test_nothing_else_is_a_collection(self, other: object) -> None:
        assert Contains("a") != other

    def test_as_in_does(self) -> None:
        assert Contains(NAN) == (NAN,)
        assert Contains(1) == (True,)
        assert Contains(NAN) != (float("nan"),)

    @pytest.mark.parametrize("make", [tuple, list, set, frozenset])
    @pytest.mark.parametrize("item", [["a"], {"a": 1}])
    def test_an_item_that_cannot_be_in_a_set(self, make: Any, item: object) -> None:
        assert Contains(item) != make(["a", "b"])
        assert Contains(item) == [item, "b"]
        assert Contains({"a"}) == {frozenset({"a"}), "b"}
        assert Contains(bytearray(b"a")) == {b"a", b"b"}

    def test_two_terms(self) -> None:
        assert Contains("a") == Contains("a")
        assert hash(Contains("a")) == hash(Contains("a"))
        assert Contains("a") != Contains("b")
        # Not found by way of its hash: a dict has no order of hashes that would do.
        assert Contains("a") not in {("a",): 1}

    def test_is_shown_copied_and_pickled(self) -> None:
        term = Contains(("a",))
        assert repr(term) == "Contains(('a',))"
        assert pickle.loads(pickle.dumps(term)) == copy.deepcopy(term) == term


class TestIndex:
    """`MetadataIndex` by item."""

    @given(st.lists(VALUES, max_size=8), ITEMS)
    def test_candidates_are_all_that_match(self, values: list[Any], item: Any) -> None:
        index = MetadataIndex("tags")
        entries = {f"key{number}": entry(value) for number, value in enumerate(values)}
        for key, new in entries.items():
            index.replace(key, None, new)
        index.check(entries)
        term = Contains(item)
        found = index.candidates(term)
        matching = {key for key, held in entries.items() if "tags" in held and held["tags"] == term}
        if found is not None:
            keys = list(found)
            assert len(keys) == len(set(keys))
            assert matching <= set(keys)

    @given(st.lists(st.tuples(st.sampled_from("abc"), VALUES), max_size=20))
    def test_replacing(self, steps: list[tuple[str, Any]]) -> None:
        index = MetadataIndex("tags")
        entries: dict[str, Entry] = {}
        for key, value in steps:
            before = entries.pop(key, None)
            after = None if value is ... else entry(value)
            index.replace(key, before, after)
            index.replace(key, before, after)  # as after an interrupt
            if after is not None:
                entries[key] = after
            index.check(entries)
        for key, before in entries.items():
            index.replace(key, before, None)
        index.check({})

    def test_only_those_with_the_item_are_looked_at(self) -> None:
        index = MetadataIndex("tags")
        for number in range(100):
            index.replace(f"key{number}", None, entry(("all", f"tag{number}")))
        assert set(index.candidates(Contains("tag5")) or ()) == {"key5"}
        assert len(set(index.candidates(Contains("all")) or ())) == 100
        assert set(index.candidates(Contains("none")) or ()) == set()

    def test_what_can_be_changed_is_always_looked_at(self) -> None:
        index = MetadataIndex("tags")
        index.replace("list", None, entry(["new"]))
        index.replace("nested", None, entry((["new"],)))
        assert set(index.candidates(Contains("new")) or ()) == {"list", "nested"}

    def test_no_method_of_an_item_of_a_users_runs(self) -> None:
        class Item:
            def __hash__(self) -> int:
                pytest.fail("an index has hashed a user's object")

            def __eq__(self, other: object) -> bool:
                pytest.fail("an index has compared a user's object")

            def __deepcopy__(self, memo: object) -> Item:
                return self

        index = MetadataIndex("tags")
        index.replace("a", None, entry((Item(),)))
        index.replace("b", None, entry(("new",)))
        assert set(index.candidates(Contains("new")) or ()) == {"a", "b"}
        assert index.candidates(Contains(Item())) is None


def plain() -> AbstractStore:
    return DictMemoryStore(EventManager())


def indexed() -> AbstractStore:
    return DictMemoryStore(EventManager(), indexes=["tags"])


def minimal() -> AbstractStore:
    return ReferenceStore(EventManager())


@given(st.lists(VALUES, max_size=8), st.lists(VALUES, max_size=4), ITEMS)
def test_all_stores_find_what_a_scan_finds(values: list[Any], changed: list[Any], item: Any) -> None:
    final = dict(enumerate([*changed, *values[len(changed) :]]))
    expected = {
        f"key{number}"
        for number, value in final.items()
        if isinstance(value, (tuple, list, set, frozenset)) and item in value
    }
    for make in (plain, indexed, minimal):
        store = make()
        for number, value in [*enumerate(values), *enumerate(changed)]:
            store.set(f"key{number}", (b"", metadata_of(value)))
        found = list(store.query_keys(tags=Contains(item)))
        assert len(found) == len(set(found))
        assert set(found) == expected
        assert {key for key, _ in store.query(tags=Contains(item))} == expected


class TestQueries:
    @pytest.fixture(params=[plain, indexed])
    def store(self, request: pytest.FixtureRequest) -> Iterator[DictMemoryStore]:
        with request.param() as store:
            store.set("a", (b"", {"tags": ("new", "draft"), "kind": "page"}))
            store.set("b", (b"", {"tags": ("old",), "kind": "page"}))
            store.set("c", (b"", {"tags": frozenset({"new"}), "kind": "image"}))
            yield store

    @staticmethod
    def keys(found: Iterable[str]) -> str:
        return "".join(sorted(found))

    def test_with_another_term(self, store: DictMemoryStore) -> None:
        assert self.keys(store.query_keys(tags=Contains("new"))) == "ac"
        assert self.keys(store.query_keys(tags=Contains("new"), kind="page")) == "a"

    def test_an_item_that_cannot_be_in_a_set(self, store: DictMemoryStore) -> None:
        assert self.keys(store.query_keys(tags=Contains(["new"]))) == ""
        store.set("d", (b"", {"tags": [["new"]]}))
        assert self.keys(store.query_keys(tags=Contains(["new"]))) == "d"

    def test_an_index_that_is_added(self, store: DictMemoryStore) -> None:
        store.add_index("tags")
        assert self.keys(store.query_keys(tags=Contains("new"))) == "ac"

    @pytest.mark.parametrize("optimistic", [False, True])
    def test_in_a_transaction(self, store: DictMemoryStore, optimistic: bool) -> None:
        with store.transaction(optimistic=optimistic) as transaction:
            store.update_metadata("b", {"tags": ("new",)})
            store.delete("a")
            assert self.keys(store.query_keys(tags=Contains("new"))) == "bc"
            transaction.doom()
        assert self.keys(store.query_keys(tags=Contains("new"))) == "ac"

    def test_in_a_snapshot(self, store: DictMemoryStore) -> None:
        with store.snapshot() as snapshot:
            store.delete("a")
            assert self.keys(snapshot.query_keys(tags=Contains("new"))) == "ac"

    def test_is_read_by_an_optimistic_transaction(self, store: DictMemoryStore) -> None:
        def count(store: DictMemoryStore) -> None:
            with store.transaction(optimistic=True):
                store.from_bytes("count", str(len(list(store.query_keys(tags=Contains("new"))))).encode())
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(store.set, "d", (b"", {"tags": ("new",)})).result(TIMEOUT)

        with pytest.raises(TransactionConflictError, match="'d'"):
            count(store)

    def test_in_the_filter_of_a_watch(self, store: DictMemoryStore) -> None:
        with store.watch(filter={"tags": Contains("new")}) as watch:
            store.from_bytes("b", b"data")
            store.from_bytes("a", b"data")
            store.update_metadata("b", {"tags": ["old", "new"]})
            store.update_metadata("b", {"tags": ()})
            store.from_bytes("b", b"more")
            store.delete("c")
            heard = [watch.get(0) for _ in range(4)]
            assert [getattr(event, "key", None) for event in heard] == ["a", "b", "b", "c"]
            assert not len(watch)
