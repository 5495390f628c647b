"""Reading one key: values, streams, ranges, metadata, and what a store says of itself."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest

from latchstore import AbstractStore, StringValue, Value
from tests.contract.stores import StoreContract, facts, fill, stream

#: Each way to ask for one key.
READS: dict[str, Callable[[AbstractStore, str], object]] = {
    "get": lambda store, key: store.get(key),
    "get_data": lambda store, key: store.get_data(key),
    "get_data_range": lambda store, key: store.get_data_range(key),
    "get_metadata": lambda store, key: store.get_metadata(key),
    "get_metadata_select": lambda store, key: store.get_metadata(key, ["name"]),
    "get_metadata_select_nothing": lambda store, key: store.get_metadata(key, []),
    "to_bytes": lambda store, key: store.to_bytes(key),
}

NESTED = {"list": [1, [2]], "dict": {"inner": {"x": 1}}, "tuple": ([3],), "set": {4}}


def spoil(metadata: dict[str, Any]) -> None:
    """Change nested metadata in every place."""
    metadata["list"][1].append("spoilt")
    metadata["list"].append("spoilt")
    metadata["dict"]["inner"]["x"] = "spoilt"
    metadata["dict"]["y"] = "spoilt"
    metadata["tuple"][0].append("spoilt")
    metadata["set"].add("spoilt")
    metadata["more"] = "spoilt"


def fresh_nested() -> dict[str, Any]:
    """Return metadata like `NESTED` that shares nothing with it."""
    return {"list": [1, [2]], "dict": {"inner": {"x": 1}}, "tuple": ([3],), "set": {4}}


class ReadingContract(StoreContract):
    """One key at a time."""

    @pytest.fixture(autouse=True)
    def filled(self, store: AbstractStore) -> None:
        store.set("a", (stream(b"0123456789"), {"name": "a", "number": 1, "flag": True}))
        store.set("empty", (stream(b""), {}))

    # -- get --------------------------------------------------------------------------------------

    def test_get_gives_data_and_metadata(self, store: AbstractStore) -> None:
        value = store.get("a")
        assert isinstance(value, Value)
        assert value.data.read() == b"0123456789"
        assert value.metadata == {"name": "a", "number": 1, "flag": True}
        assert value.size == 10
        assert value.content == b"0123456789"

    def test_get_unpacks_as_a_pair(self, store: AbstractStore) -> None:
        data, metadata = store.get("a")
        assert data.read() == b"0123456789"
        assert metadata == {"name": "a", "number": 1, "flag": True}

    def test_a_value_is_a_sequence_of_two(self, store: AbstractStore) -> None:
        value = store.get("a")
        assert len(value) == 2
        assert value[0] is value.data
        assert value[1] == value.metadata

    def test_get_of_a_key_with_nothing(self, store: AbstractStore) -> None:
        value = store.get("empty")
        assert (value.data.read(), value.metadata, value.size) == (b"", {}, 0)

    def test_a_value_has_one_stream(self, store: AbstractStore) -> None:
        value = store.get("a")
        assert value.data is value.data
        assert value.data.read(4) == b"0123"
        assert value.data.read() == b"456789"

    def test_each_get_has_a_stream_of_its_own(self, store: AbstractStore) -> None:
        first, second = store.get("a"), store.get("a")
        assert first.data is not second.data
        assert first.data.read() == second.data.read() == b"0123456789"

    def test_a_value_is_of_one_moment(self, store: AbstractStore) -> None:
        value = store.get("a")
        times = value.created, value.modified, value.revision
        store.set("a", (stream(b"new"), {"new": True}))
        assert value.data.read() == b"0123456789"
        assert value.metadata == {"name": "a", "number": 1, "flag": True}
        assert value.size == 10
        assert (value.created, value.modified, value.revision) == times

    def test_a_value_outlives_its_key(self, store: AbstractStore) -> None:
        value, data = store.get("a"), store.get_data("a")
        store.delete("a")
        assert value.data.read() == data.read() == b"0123456789"

    def test_a_value_gives_its_stream_as_a_context_manager(self, store: AbstractStore) -> None:
        value = store.get("a")
        with value as data:
            assert data is value.data
            assert data.read() == b"0123456789"
        assert data.closed

    def test_times_are_seconds_since_the_epoch(
        self, store: AbstractStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("time.time", lambda: 1234567890.5)
        store.set("b", (stream(b""), {}))
        assert (store.get("b").created, store.get("b").modified) == (1234567890.5, 1234567890.5)

    def test_range_of_a_value_leaves_its_stream(self, store: AbstractStore) -> None:
        value = store.get("a")
        value.data.read(3)
        assert value.range(2, 5).read() == b"234"
        assert value.range().read() == b"0123456789"
        assert value.data.read() == b"3456789"

    def test_iterdata_gives_blocks_and_tells_progress(self, store: AbstractStore) -> None:
        steps: list[int] = []
        blocks = list(store.get("a").iterdata(4, lambda step: steps.append(step)))
        assert blocks == [b"0123", b"4567", b"89"]
        assert steps == [4, 8, 10]

    def test_iterdata_goes_on_where_the_stream_stands(self, store: AbstractStore) -> None:
        value = store.get("a")
        value.data.read(8)
        assert list(value.iterdata()) == [b"89"]

    def test_a_value_does_not_show_its_data(self, store: AbstractStore) -> None:
        store.set("secret", (stream(b"hidden-data"), {"hidden-name": "hidden-item"}))
        assert "hidden" not in repr(store.get("secret"))

    # -- streams ----------------------------------------------------------------------------------

    def test_get_data_is_a_readable_binary_stream(self, store: AbstractStore) -> None:
        data = store.get_data("a")
        assert data.readable()
        assert data.read(2) == b"01"
        assert data.read() == b"23456789"
        assert data.read() == b""

    @pytest.mark.parametrize("method", ["get_data", "get_data_range"])
    def test_streams_are_context_managers(self, store: AbstractStore, method: str) -> None:
        with getattr(store, method)("a") as data:
            assert data.read() == b"0123456789"
        assert data.closed
        assert store.to_bytes("a") == b"0123456789"

    def test_get_data_is_fresh_each_time(self, store: AbstractStore) -> None:
        store.get_data("a").read()
        assert store.get_data("a").read() == b"0123456789"

    def test_writing_to_a_stream_does_not_reach_the_store(self, store: AbstractStore) -> None:
        for data in (store.get_data("a"), store.get("a").data, store.get_data_range("a")):
            assert isinstance(data, io.BytesIO)
            data.write(b"spoilt")
            data.truncate(3)
        assert store.to_bytes("a") == b"0123456789"
        assert store.get("a").size == 10

    @pytest.mark.parametrize(
        ("bounds", "expected"),
        [
            ((), b"0123456789"),
            ((None, None), b"0123456789"),
            ((3,), b"3456789"),
            ((3, None), b"3456789"),
            ((None, 3), b"012"),
            ((2, 5), b"234"),
            ((-3,), b"789"),
            ((None, -3), b"0123456"),
            ((-4, -2), b"67"),
            ((0, 0), b""),
            ((5, 2), b""),
            ((8, 100), b"89"),
            ((100, 200), b""),
            ((-100, 2), b"01"),
        ],
    )
    def test_get_data_range(
        self, store: AbstractStore, bounds: tuple[int | None, ...], expected: bytes
    ) -> None:
        assert store.get_data_range("a", *bounds).read() == expected

    def test_get_data_range_by_name(self, store: AbstractStore) -> None:
        assert store.get_data_range("a", end=4, start=1).read() == b"123"

    def test_to_bytes(self, store: AbstractStore) -> None:
        data = store.to_bytes("a")
        assert type(data) is bytes
        assert data == b"0123456789"
        assert store.to_bytes("a", buffer_size=3) == b"0123456789"

    # -- metadata ---------------------------------------------------------------------------------

    def test_get_metadata(self, store: AbstractStore) -> None:
        assert store.get_metadata("a") == {"name": "a", "number": 1, "flag": True}
        assert type(store.get_metadata("a")) is dict
        assert store.get_metadata("empty") == {}

    @pytest.mark.parametrize("select", [["name", "flag"], ("flag", "name"), {"name", "flag"}])
    def test_get_metadata_select(self, store: AbstractStore, select: Any) -> None:
        assert store.get_metadata("a", select) == {"name": "a", "flag": True}
        assert store.get_metadata("a", select=iter(select)) == {"name": "a", "flag": True}

    def test_get_metadata_select_nothing(self, store: AbstractStore) -> None:
        assert store.get_metadata("a", []) == {}

    def test_get_metadata_select_of_a_missing_name(self, store: AbstractStore) -> None:
        with pytest.raises(KeyError) as caught:
            store.get_metadata("a", ["name", "nowhere"])
        assert caught.value.args == ("nowhere",)

    # -- missing keys -----------------------------------------------------------------------------

    @pytest.mark.parametrize("read", READS.values(), ids=READS)
    def test_a_missing_key(self, store: AbstractStore, read: Callable[[AbstractStore, str], object]) -> None:
        with pytest.raises(KeyError) as caught:
            read(store, "nowhere")
        assert caught.value.args == ("nowhere",)

    @pytest.mark.parametrize("read", READS.values(), ids=READS)
    def test_a_deleted_key(self, store: AbstractStore, read: Callable[[AbstractStore, str], object]) -> None:
        fill(store, gone=b"x")
        read(store, "gone")
        store.delete("gone")
        with pytest.raises(KeyError) as caught:
            read(store, "gone")
        assert caught.value.args == ("gone",)

    def test_exists(self, store: AbstractStore) -> None:
        assert store.exists("a") is True
        assert store.exists("empty") is True
        assert store.exists("nowhere") is False
        store.delete("a")
        assert store.exists("a") is False

    def test_in(self, store: AbstractStore) -> None:
        assert "a" in store
        assert "empty" in store
        assert "nowhere" not in store

    @pytest.mark.parametrize("key", ["", "a/b", "ä€𝄞", "a\0b", " ", "*", "\n", "x" * 10_000])
    def test_any_string_is_a_key(self, store: AbstractStore, key: str) -> None:
        store.set(key, (stream(b"data"), {"is": key}))
        assert store.to_bytes(key) == b"data"
        terms: dict[str, Any] = {"is": key}
        assert list(store.query_keys(**terms)) == [key]
        store.delete(key)
        assert key not in store

    # -- isolation --------------------------------------------------------------------------------

    def test_metadata_handed_out_is_isolated_in_depth(self, store: AbstractStore) -> None:
        store.set("nested", (stream(b""), fresh_nested()))
        value = store.get("nested")
        spoil(value.metadata)
        spoil(value[1])
        assert value.metadata == NESTED, "each access gives a copy"
        spoil(store.get_metadata("nested"))
        spoil(store.get_metadata("nested", ["list", "dict", "tuple", "set"]))
        for metadata in store.multiget_metadata(["nested"]):
            spoil(metadata)
        for metadata in store.multiget_metadata(["nested"], ["list", "dict", "tuple", "set"]):
            spoil(metadata)
        for each in store.multiget(["nested"]):
            spoil(each.metadata)
        for _, metadata in store.query():
            if metadata == NESTED:
                spoil(metadata)
        for _, metadata in store.query(["list", "dict", "tuple", "set"], list=[1, [2]]):
            spoil(metadata)
        for _, metadata in store.query(list=[1, [2]]):
            spoil(metadata)
        assert store.get_metadata("nested") == NESTED

    def test_flat_metadata_handed_out_is_isolated(self, store: AbstractStore) -> None:
        for metadata in (
            store.get("a").metadata,
            store.get_metadata("a"),
            next(store.multiget_metadata(["a"])),
            next(metadata for _, metadata in store.query(name="a")),
        ):
            metadata["name"] = "spoilt"
            metadata["more"] = "spoilt"
        assert store.get_metadata("a") == {"name": "a", "number": 1, "flag": True}

    def test_a_value_that_is_asked_for_gets_no_hold_of_the_metadata(self, store: AbstractStore) -> None:
        class Spoiler:
            def __eq__(self, other: object) -> bool:
                if isinstance(other, list):
                    other.append("spoilt")
                return False

            __hash__ = None  # type: ignore[assignment]

        store.set("nested", (stream(b""), fresh_nested()))
        assert list(store.query(list=Spoiler())) == []
        assert list(store.query_keys(list=Spoiler())) == []
        assert store.get_metadata("nested") == NESTED

    # -- the store itself -------------------------------------------------------------------------

    def test_reading_changes_nothing(self, store: AbstractStore) -> None:
        before = facts(store)
        for read in READS.values():
            read(store, "empty" if read is not READS["get_metadata_select"] else "a")
        assert facts(store) == before

    def test_len(self, store: AbstractStore) -> None:
        assert len(store) == 2
        store.delete("a")
        assert len(store) == 1
        store.delete("empty")
        assert len(store) == 0

    def test_info(self, store: AbstractStore) -> None:
        assert store.info()["readonly"] is False

    def test_info_is_a_copy(self, store: AbstractStore) -> None:
        store.info()["readonly"] = True
        assert store.info()["readonly"] is False

    def test_connecting(self, store: AbstractStore) -> None:
        store.disconnect()
        assert store.is_connected() is False
        store.disconnect()
        assert store.is_connected() is False
        store.connect()
        assert store.is_connected() is True
        store.connect(credentials={"user": "anybody"})
        assert store.is_connected() is True
        assert store.to_bytes("a") == b"0123456789"

    def test_with_connects_and_closes(self, store: AbstractStore) -> None:
        store.disconnect()
        with store as entered:
            assert entered is store
            assert store.is_connected() is True
        assert store.is_connected() is False

    def test_with_closes_after_an_exception(self, store: AbstractStore) -> None:
        with pytest.raises(ZeroDivisionError), store:
            raise ZeroDivisionError
        assert store.is_connected() is False

    def test_closing_disconnects_and_may_be_repeated(self, store: AbstractStore) -> None:
        store.connect()
        store.close()
        assert store.is_connected() is False
        store.close()
        store.close(timeout=None)
        assert store.is_connected() is False

    def test_flush_with_nothing_to_wait_for(self, store: AbstractStore) -> None:
        store.flush()
        store.flush(timeout=None)
        store.flush(0)


class ValueContract(StoreContract):
    """Values that are in no store, and values of one store in another."""

    def test_a_string_value_can_be_set(self, store: AbstractStore) -> None:
        store.set("a", StringValue(b"data", {"n": 1}))
        assert store.to_bytes("a") == b"data"
        assert store.get_metadata("a") == {"n": 1}

    def test_the_defaults_of_a_string_value(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("time.time", lambda: 99.5)
        value = StringValue()
        assert (value.data.read(), value.metadata, value.size) == (b"", {}, 0)
        assert (value.created, value.modified, value.revision) == (99.5, 99.5, None)

    def test_the_times_of_a_string_value(self) -> None:
        value = StringValue(b"", None, 1.5, 2.5)
        assert (value.created, value.modified) == (1.5, 2.5)

    def test_times_are_the_stores_own(self, store: AbstractStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("time.time", lambda: 99.5)
        store.set("a", StringValue(b"", {}, created=1.5, modified=2.5))
        assert (store.get("a").created, store.get("a").modified) == (99.5, 99.5)

    @pytest.mark.parametrize("kind", [bytearray, memoryview])
    def test_a_string_value_copies_what_can_change(self, kind: type) -> None:
        source = bytearray(b"data")
        metadata = fresh_nested()
        value = StringValue(kind(source), metadata)
        source[:] = b"xxxx"
        spoil(metadata)
        assert value.data.read() == b"data"
        assert value.metadata == NESTED

    def test_copying_in(self, store: AbstractStore, other: AbstractStore) -> None:
        self.check_copying(other, store)

    def test_copying_out(self, store: AbstractStore, other: AbstractStore) -> None:
        self.check_copying(store, other)

    def test_copying_within(self, store: AbstractStore) -> None:
        self.check_copying(store, store)

    def check_copying(self, source: AbstractStore, target: AbstractStore) -> None:
        source.set("a", (stream(b"0123456789"), fresh_nested()))
        target.set("b", source.get("a"))
        assert target.to_bytes("b") == b"0123456789"
        assert target.get_metadata("b") == NESTED
        source.set("a", (stream(b"changed"), {}))
        assert target.to_bytes("b") == b"0123456789"
        assert target.get_metadata("b") == NESTED

    def test_a_value_whose_stream_was_read_gives_the_rest(
        self, store: AbstractStore, other: AbstractStore
    ) -> None:
        other.set("a", (stream(b"0123456789"), {"n": 1}))
        value = other.get("a")
        value.data.read(4)
        store.set("b", value)
        assert store.to_bytes("b") == b"456789"
        assert store.get_metadata("b") == {"n": 1}
        assert value.data.read() == b"", "the stream has been read to its end"

    def test_a_value_whose_stream_was_asked_for_gives_all(
        self, store: AbstractStore, other: AbstractStore
    ) -> None:
        other.set("a", (stream(b"0123456789"), {"n": 1}))
        value = other.get("a")
        assert value.data.readable()
        store.set("b", value)
        assert store.to_bytes("b") == b"0123456789"

    def test_a_value_gives_the_same_to_two_keys(self, store: AbstractStore, other: AbstractStore) -> None:
        other.set("a", (stream(b"data"), fresh_nested()))
        store.set("b", other.get("a"))
        store.set("c", store.get("b"))
        spoil(store.get_metadata("b"))
        store.update_metadata("b", {"list": "other"})
        assert store.get_metadata("c") == NESTED
        assert store.to_bytes("c") == b"data"

    def test_copying_many(self, store: AbstractStore, other: AbstractStore) -> None:
        fill(other, a=b"1", b=b"2", c=b"3")
        store.multiset(["a", "b", "c"], other.multiget(["a", "b", "c"]))
        assert [store.to_bytes(key) for key in "abc"] == [b"1", b"2", b"3"]
        assert list(store.multiget_metadata("abc"[i] for i in range(3))) == [
            {"name": "a"},
            {"name": "b"},
            {"name": "c"},
        ]

    def test_the_pair_that_a_value_unpacks_to_can_be_set(
        self, store: AbstractStore, other: AbstractStore
    ) -> None:
        fill(other, a=b"1")
        data, metadata = other.get("a")
        store.set("a", (data, metadata))
        assert store.to_bytes("a") == b"1"
        assert store.get_metadata("a") == {"name": "a"}
