"""Many keys at once: reads of one instant, queries, glob, and writes of all keys or none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import GeneratorType
from typing import Any

import pytest

from latchstore import AbstractStore, Value
from tests.contract.stores import StoreContract, contents, facts, fill, stream
from tests.contract.streams import RecordingStream, YieldingStream

#: Each way to read many keys, as a list of what tells one key's answer from another's.
READS: dict[str, Callable[[AbstractStore, Iterable[str]], Iterator[Any]]] = {
    "multiget": lambda store, keys: store.multiget(keys),
    "multiget_data": lambda store, keys: store.multiget_data(keys),
    "multiget_metadata": lambda store, keys: store.multiget_metadata(keys),
    "multiget_metadata_select": lambda store, keys: store.multiget_metadata(keys, ["name"]),
}

#: Each way to write many keys, and an item that it takes.
WRITES: dict[str, Callable[[bytes], Any]] = {
    "multiset": lambda data: (stream(data), {"name": data.decode()}),
    "multiset_data": stream,
    "multiset_metadata": lambda data: {"name": data.decode()},
    "multiupdate_metadata": lambda data: {"name": data.decode()},
}

reads = pytest.mark.parametrize("read", READS.values(), ids=READS)
writes = pytest.mark.parametrize(("method", "item"), WRITES.items(), ids=WRITES)


def plain(answer: object) -> object:
    """Return what can be compared of one answer."""
    if isinstance(answer, Value):
        return answer.data.read(), answer.metadata
    return answer if isinstance(answer, dict) else answer.read()  # type: ignore[attr-defined]


class ManyKeysReadingContract(StoreContract):
    """Reading many keys at once."""

    @pytest.fixture(autouse=True)
    def filled(self, store: AbstractStore) -> None:
        store.set("a", (stream(b"1"), {"name": "a", "kind": "x", "number": 1}))
        store.set("b", (stream(b"2"), {"name": "b", "kind": "x", "number": 2, "none": None}))
        store.set("c", (stream(b"3"), {"name": "c", "kind": "y", "number": 1}))
        store.set("d", (stream(b""), {}))

    # -- multiget* --------------------------------------------------------------------------------

    def test_multiget(self, store: AbstractStore) -> None:
        values = list(store.multiget(["c", "a"]))
        assert all(isinstance(value, Value) for value in values)
        assert [value.data.read() for value in values] == [b"3", b"1"]
        assert [value.metadata["name"] for value in values] == ["c", "a"]

    def test_multiget_unpacks_as_pairs(self, store: AbstractStore) -> None:
        assert [(data.read(), metadata["name"]) for data, metadata in store.multiget(["a", "b"])] == [
            (b"1", "a"),
            (b"2", "b"),
        ]

    def test_multiget_data(self, store: AbstractStore) -> None:
        found = []
        for each in store.multiget_data(["b", "a"]):
            with each as data:
                found.append(data.read())
        assert found == [b"2", b"1"]

    def test_multiget_metadata(self, store: AbstractStore) -> None:
        assert list(store.multiget_metadata(["d", "c"])) == [{}, {"name": "c", "kind": "y", "number": 1}]

    @pytest.mark.parametrize("select", [["none", "name"], ("name", "none"), {"name", "none"}])
    def test_multiget_metadata_leaves_out_what_is_missing(self, store: AbstractStore, select: Any) -> None:
        expected = [{"name": "a"}, {"name": "b", "none": None}, {}]
        assert list(store.multiget_metadata(["a", "b", "d"], select)) == expected
        assert list(store.multiget_metadata(["a", "b", "d"], select=iter(select))) == expected

    def test_multiget_metadata_select_nothing(self, store: AbstractStore) -> None:
        assert list(store.multiget_metadata(["a", "d"], [])) == [{}, {}]

    @reads
    @pytest.mark.parametrize("kind", [tuple, iter, dict.fromkeys, lambda keys: (key for key in keys)])
    def test_keys_may_be_any_iterable(
        self,
        store: AbstractStore,
        read: Callable[..., Iterator[Any]],
        kind: Callable[[list[str]], Iterable[str]],
    ) -> None:
        expected = [plain(each) for each in read(store, ["b", "a", "c"])]
        assert len(expected) == 3
        assert [plain(each) for each in read(store, kind(["b", "a", "c"]))] == expected

    @reads
    def test_no_keys(self, store: AbstractStore, read: Callable[..., Iterator[Any]]) -> None:
        assert list(read(store, [])) == []

    @reads
    def test_the_answer_is_an_iterator(
        self, store: AbstractStore, read: Callable[..., Iterator[Any]]
    ) -> None:
        answer = read(store, ["a", "b"])
        assert iter(answer) is answer
        assert len(list(answer)) == 2
        assert list(answer) == []

    @reads
    def test_a_key_may_be_asked_for_twice(
        self, store: AbstractStore, read: Callable[..., Iterator[Any]]
    ) -> None:
        first, second = read(store, ["a", "a"])
        assert first is not second
        assert plain(first) == plain(second)

    @reads
    def test_a_missing_key_is_told_by_the_call(
        self, store: AbstractStore, read: Callable[..., Iterator[Any]]
    ) -> None:
        with pytest.raises(KeyError) as caught:
            read(store, iter(["a", "nowhere", "b"]))
        assert caught.value.args == ("nowhere",)

    @reads
    def test_the_answer_is_fixed_at_the_call(
        self, store: AbstractStore, read: Callable[..., Iterator[Any]]
    ) -> None:
        expected = [plain(each) for each in read(store, ["a", "b", "c"])]
        answer = read(store, ["a", "b", "c"])
        found = [plain(next(answer))]
        store.set("b", (stream(b"changed"), {"name": "changed"}))
        store.delete("c")
        found += [plain(each) for each in answer]
        assert found == expected

    def test_a_generator_of_keys_may_use_the_store(self, store: AbstractStore) -> None:
        def keys() -> Iterator[str]:
            for key in store.glob("[ab]"):
                store.update_metadata(key, {"seen": True})
                yield key

        assert [metadata["seen"] for metadata in store.multiget_metadata(keys())] == [True, True]

    # -- query ------------------------------------------------------------------------------------

    def test_query_everything(self, store: AbstractStore) -> None:
        assert dict(store.query()) == {key: store.get_metadata(key) for key in "abcd"}
        assert sorted(store.query_keys()) == ["a", "b", "c", "d"]

    def test_query_an_empty_store(self, store: AbstractStore) -> None:
        for key in "abcd":
            store.delete(key)
        assert list(store.query()) == []
        assert list(store.query_keys()) == []
        assert list(store.query_keys(name="a")) == []

    @pytest.mark.parametrize(
        ("terms", "expected"),
        [
            ({"name": "b"}, ["b"]),
            ({"kind": "x"}, ["a", "b"]),
            ({"kind": "x", "number": 1}, ["a"]),
            ({"number": 1, "kind": "y"}, ["c"]),
            ({"kind": "x", "name": "c"}, []),
            ({"kind": "nothing"}, []),
            ({"nothing": "x"}, []),
            ({"number": True}, ["a", "c"]),
            ({"number": 1.0}, ["a", "c"]),
            ({"number": "1"}, []),
            ({"number": [1]}, []),
        ],
        ids=repr,
    )
    def test_query(self, store: AbstractStore, terms: dict[str, Any], expected: list[str]) -> None:
        assert {key: store.get_metadata(key) for key in expected} == dict(store.query(**terms))
        assert sorted(store.query_keys(**terms)) == expected

    def test_a_missing_item_equals_nothing(self, store: AbstractStore) -> None:
        assert list(store.query_keys(none=None)) == ["b"]
        assert [key for key, _ in store.query(none=None)] == ["b"]
        assert list(store.query_keys(nowhere=None)) == []
        assert list(store.query(nowhere=None)) == []

        class EqualToAll:
            def __eq__(self, other: object) -> bool:
                return True

            __hash__ = None  # type: ignore[assignment]

        assert list(store.query_keys(none=EqualToAll())) == ["b"]
        assert sorted(store.query_keys(name=EqualToAll())) == ["a", "b", "c"]

    def test_query_select(self, store: AbstractStore) -> None:
        assert dict(store.query(["number"], kind="x")) == {"a": {"number": 1}, "b": {"number": 2}}
        assert dict(store.query(select=iter(["number", "none"]), kind="x")) == {
            "a": {"number": 1},
            "b": {"number": 2, "none": None},
        }
        assert dict(store.query(["nowhere"])) == {"a": {}, "b": {}, "c": {}, "d": {}}
        assert dict(store.query([], name="a")) == {"a": {}}

    def test_query_for_values_that_cannot_be_hashed(self, store: AbstractStore) -> None:
        store.update_metadata("a", {"list": [1, 2], "number": {"deep": 1}})
        assert list(store.query_keys(list=[1, 2])) == ["a"]
        assert list(store.query_keys(list=(1, 2))) == []
        assert list(store.query_keys(number={"deep": 1})) == ["a"]
        assert list(store.query_keys(number={"deep": 2})) == []

    def test_values_of_different_types_may_be_equal(self, store: AbstractStore) -> None:
        store.update_metadata("a", {"number": {1, 2}})
        store.update_metadata("b", {"number": frozenset({1, 2})})
        assert sorted(store.query_keys(number=frozenset({1, 2}))) == ["a", "b"]
        assert sorted(store.query_keys(number={1, 2})) == ["a", "b"]
        store.update_metadata("b", {"number": 3})
        assert list(store.query_keys(number=frozenset({1, 2}))) == ["a"]

    def test_queries_follow_changes(self, store: AbstractStore) -> None:
        store.update_metadata("a", {"kind": "y"})
        assert sorted(store.query_keys(kind="y")) == ["a", "c"]
        store.set_metadata("b", {})
        assert list(store.query_keys(kind="x")) == []
        store.delete("c")
        assert list(store.query_keys(kind="y")) == ["a"]
        store.set_data("a", stream(b""))
        assert list(store.query_keys(kind="y")) == ["a"]

    @pytest.mark.parametrize(
        "ask",
        [
            lambda store: store.query(),
            lambda store: store.query(kind="x"),
            lambda store: store.query(["name"], kind="x"),
            lambda store: store.query_keys(),
            lambda store: store.query_keys(kind="x"),
            lambda store: store.query_keys(number=1),
            lambda store: store.glob("*"),
            lambda store: store.glob("[a-c]"),
        ],
        ids=["query", "query_one", "query_select", "keys", "keys_kind", "keys_number", "glob", "glob_set"],
    )
    def test_answers_are_fixed_at_the_call(
        self, store: AbstractStore, ask: Callable[[AbstractStore], Iterator[Any]]
    ) -> None:
        expected = list(ask(store))
        answer = ask(store)
        assert iter(answer) is answer
        found = [next(answer)]
        for key in "abc":
            store.set(key, (stream(b"changed"), {"kind": "changed"}))
        store.delete("b")
        for number in range(100):
            store.set(f"new{number}", (stream(b""), {"kind": "x", "number": 1}))
        assert found + list(answer) == expected

    # -- glob -------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("pattern", "expected"),
        [
            ("*", ["", "B", "a", "a/b", "a/b/c", "ab", "abc", "b", "x[y]", "a\nb"]),
            ("", [""]),
            ("a", ["a"]),
            ("a*", ["a", "a/b", "a/b/c", "ab", "abc", "a\nb"]),
            ("b*", ["b"]),
            ("*a", ["a"]),
            ("*b", ["a/b", "ab", "b", "a\nb"]),
            ("*b*", ["a/b", "a/b/c", "ab", "abc", "b", "a\nb"]),
            ("a*c", ["a/b/c", "abc"]),
            ("?", ["B", "a", "b"]),
            ("a?", ["ab"]),
            ("a?b", ["a/b", "a\nb"]),
            ("??*", ["a/b", "a/b/c", "ab", "abc", "x[y]", "a\nb"]),
            ("[ab]", ["a", "b"]),
            ("[!ab]", ["B"]),
            ("[A-Z]", ["B"]),
            ("*[bc]", ["a/b", "a/b/c", "ab", "abc", "b", "a\nb"]),
            ("x[[]y]", ["x[y]"]),
            ("**", ["", "B", "a", "a/b", "a/b/c", "ab", "abc", "b", "x[y]", "a\nb"]),
            ("a*/*", ["a/b", "a/b/c"]),
            ("A", []),
            ("[", []),
            (".*", []),
        ],
    )
    def test_glob(self, store: AbstractStore, pattern: str, expected: list[str]) -> None:
        for key in "abcd":
            store.delete(key)
        keys = ["", "B", "a", "a/b", "a/b/c", "ab", "abc", "b", "x[y]", "a\nb"]
        store.multiset_data(keys, [b""] * len(keys))
        assert sorted(store.glob(pattern)) == sorted(expected)

    def test_len_counts_at_the_call(self, store: AbstractStore) -> None:
        assert len(store) == 4
        store.multiset_data(["x", "y", "a"], [b"", b"", b""])
        assert len(store) == 6


class ManyKeysWritingContract(StoreContract):
    """Writing many keys at once: all of them, or none."""

    @pytest.fixture(autouse=True)
    def filled(self, store: AbstractStore) -> None:
        fill(store, a=b"1", b=b"2", c=b"3")

    def test_multiset(self, store: AbstractStore) -> None:
        store.multiset(["a", "new"], [(stream(b"x"), {"n": 1}), (stream(b"y"), {"n": 2})])
        assert contents(store) == {
            "a": (b"x", {"n": 1}),
            "new": (b"y", {"n": 2}),
            "b": (b"2", {"name": "b"}),
            "c": (b"3", {"name": "c"}),
        }

    def test_multiset_data(self, store: AbstractStore) -> None:
        store.multiset_data(["a", "new"], [stream(b"x"), bytearray(b"y")])
        assert contents(store)["a"] == (b"x", {"name": "a"})
        assert contents(store)["new"] == (b"y", {})

    def test_multiset_metadata(self, store: AbstractStore) -> None:
        store.multiset_metadata(["a", "new"], [{"n": 1}, {"n": 2}])
        assert contents(store)["a"] == (b"1", {"n": 1})
        assert contents(store)["new"] == (b"", {"n": 2})

    def test_multiupdate_metadata(self, store: AbstractStore) -> None:
        store.multiupdate_metadata(["a", "b"], [{"n": 1}, {"name": "other"}])
        assert contents(store)["a"] == (b"1", {"name": "a", "n": 1})
        assert contents(store)["b"] == (b"2", {"name": "other"})

    @writes
    def test_both_may_be_generators(
        self, store: AbstractStore, method: str, item: Callable[[bytes], Any]
    ) -> None:
        getattr(store, method)((key for key in "ab"), (item(data) for data in (b"x", b"y")))
        generated = contents(store)
        fill(store, a=b"1", b=b"2")
        assert contents(store) != generated
        getattr(store, method)(["a", "b"], [item(b"x"), item(b"y")])
        assert contents(store) == generated

    @writes
    def test_the_shorter_one_counts(
        self, store: AbstractStore, method: str, item: Callable[[bytes], Any]
    ) -> None:
        before = facts(store)
        getattr(store, method)(["a", "b", "c"], [item(b"x")])
        getattr(store, method)(["a"], [item(b"y"), item(b"z"), item(b"z")])
        after = facts(store)
        assert after.pop("a") != before.pop("a")
        assert after == before

    @writes
    def test_excess_items_are_not_looked_at(
        self, store: AbstractStore, method: str, item: Callable[[bytes], Any]
    ) -> None:
        getattr(store, method)(["a"], [item(b"x"), 5])
        getattr(store, method)(["a", 5], [item(b"x")])

    @writes
    def test_nothing_to_write(self, store: AbstractStore, method: str, item: Callable[[bytes], Any]) -> None:
        before = facts(store)
        getattr(store, method)([], [])
        getattr(store, method)([], [item(b"x")])
        getattr(store, method)(["a"], [])
        assert facts(store) == before

    @writes
    def test_of_one_key_given_twice_the_last_counts(
        self, store: AbstractStore, method: str, item: Callable[[bytes], Any]
    ) -> None:
        getattr(store, method)(["a", "a"], [item(b"x"), item(b"y")])
        getattr(store, method)(["b"], [item(b"y")])
        found = contents(store)
        assert (found["a"][0] == b"y") or (found["a"][1]["name"] == "y")
        assert len(found) == 3

    @writes
    def test_a_bad_key_late_changes_nothing(
        self, store: AbstractStore, method: str, item: Callable[[bytes], Any]
    ) -> None:
        before = facts(store)
        with pytest.raises(TypeError, match="key"):
            getattr(store, method)(["a", "b", 5], [item(b"x"), item(b"y"), item(b"z")])
        assert facts(store) == before

    @writes
    def test_a_bad_item_late_changes_nothing(
        self, store: AbstractStore, method: str, item: Callable[[bytes], Any]
    ) -> None:
        before = facts(store)
        with pytest.raises(TypeError):
            getattr(store, method)(["a", "b", "c"], [item(b"x"), item(b"y"), 5])
        assert facts(store) == before

    @writes
    @pytest.mark.parametrize("failing", ["keys", "items"])
    @pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
    def test_an_iterable_that_fails_changes_nothing(
        self,
        store: AbstractStore,
        method: str,
        item: Callable[[bytes], Any],
        failing: str,
        error: type[BaseException],
    ) -> None:
        def broken(items: Iterable[Any]) -> Iterator[Any]:
            yield from items
            raise error

        before = facts(store)
        keys: Iterable[str] = ["a", "b", "c"]
        items: Iterable[Any] = [item(b"x"), item(b"y"), item(b"z")]
        if failing == "keys":
            keys = broken(["a", "b"])
        else:
            items = broken([item(b"x"), item(b"y")])
        with pytest.raises(error):
            getattr(store, method)(keys, items)
        assert facts(store) == before

    @pytest.mark.parametrize("method", ["multiset", "multiset_data"])
    @pytest.mark.parametrize(
        ("blocks", "error"),
        [
            ([b"some", OSError("disk")], OSError),
            ([b"some", KeyboardInterrupt()], KeyboardInterrupt),
            ([b"some", "text"], TypeError),
            ([b"some", None], BlockingIOError),
        ],
        ids=repr,
    )
    def test_a_stream_that_fails_late_changes_nothing(
        self, store: AbstractStore, method: str, blocks: list[object], error: type[BaseException]
    ) -> None:
        before = facts(store)
        datas: list[Any] = [stream(b"x"), stream(b"y"), YieldingStream(blocks)]
        items = datas if method == "multiset_data" else [(data, {}) for data in datas]
        with pytest.raises(error):
            getattr(store, method)(["a", "new", "c"], items)
        assert facts(store) == before
        with store.transaction("the locks are free"):
            store.delete("a")

    def test_a_missing_key_late_changes_nothing(self, store: AbstractStore) -> None:
        before = facts(store)
        with pytest.raises(KeyError) as caught:
            store.multiupdate_metadata(["a", "b", "nowhere"], [{"n": 1}, {"n": 2}, {"n": 3}])
        assert caught.value.args == ("nowhere",)
        assert facts(store) == before

    def test_a_failing_write_in_a_transaction_takes_back_itself_alone(self, store: AbstractStore) -> None:
        with store.transaction():
            store.set_data("a", stream(b"kept"))
            with pytest.raises(KeyError):
                store.multiupdate_metadata(["a", "b", "nowhere"], [{"n": 1}, {"n": 2}, {"n": 3}])
            assert store.get_metadata("a") == {"name": "a"}
            store.set_data("c", stream(b"kept"))
        assert contents(store) == {
            "a": (b"kept", {"name": "a"}),
            "b": (b"2", {"name": "b"}),
            "c": (b"kept", {"name": "c"}),
        }

    @pytest.mark.parametrize("method", ["multiset", "multiset_data"])
    @pytest.mark.parametrize("size", [None, 3])
    def test_streams_are_read_a_buffer_at_a_time(
        self, store: AbstractStore, method: str, size: int | None
    ) -> None:
        sources = [RecordingStream(b"0123456789"), RecordingStream(b"abcdefghij")]
        items: Iterable[Any] = sources if method == "multiset_data" else [(source, {}) for source in sources]
        arguments = {} if size is None else {"buffer_size": size}
        getattr(store, method)(["a", "b"], items, **arguments)
        assert [store.to_bytes("a"), store.to_bytes("b")] == [b"0123456789", b"abcdefghij"]
        assert {*sources[0].sizes, *sources[1].sizes} == {size or 1048576}

    def test_a_generator_of_values_may_read_the_store(self, store: AbstractStore) -> None:
        values = (store.get(key) for key in "abc")
        assert isinstance(values, GeneratorType)
        store.multiset(["x", "y", "z"], values)
        assert [store.to_bytes(key) for key in "xyz"] == [b"1", b"2", b"3"]

    def test_metadata_is_isolated(self, store: AbstractStore) -> None:
        shared: dict[str, Any] = {"shared": [1]}
        store.multiset_metadata(["a", "b"], [shared, shared])
        store.multiset(["c"], [(stream(b""), shared)])
        store.multiupdate_metadata(["a"], [shared])
        shared["shared"].append("spoilt")
        next(store.multiget_metadata(["a"]))["shared"].append("spoilt")
        assert list(store.multiget_metadata("abc"[i] for i in range(3))) == [{"shared": [1]}] * 3
