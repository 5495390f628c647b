"""Writing one key: what is replaced, what is left, the facts kept of it, and failures half way."""

from __future__ import annotations

import mmap
from array import array
from collections import OrderedDict, UserDict
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from latchstore import AbstractStore
from tests.contract.reading import NESTED, fresh_nested, spoil
from tests.contract.stores import StoreContract, contents, facts, fill, stream
from tests.contract.streams import RecordingStream, WatchingStream, YieldingStream

Write = Callable[[AbstractStore, str], object]

#: Each way to change one key that is there.
CHANGES: dict[str, Write] = {
    "set": lambda store, key: store.set(key, (stream(b"new"), {"new": 1})),
    "set_data": lambda store, key: store.set_data(key, stream(b"new")),
    "set_metadata": lambda store, key: store.set_metadata(key, {"new": 1}),
    "update_metadata": lambda store, key: store.update_metadata(key, {"new": 1}),
    "from_bytes": lambda store, key: store.from_bytes(key, b"new"),
    "multiset": lambda store, key: store.multiset([key], [(stream(b"new"), {"new": 1})]),
    "multiset_data": lambda store, key: store.multiset_data([key], [stream(b"new")]),
    "multiset_metadata": lambda store, key: store.multiset_metadata([key], [{"new": 1}]),
    "multiupdate_metadata": lambda store, key: store.multiupdate_metadata([key], [{"new": 1}]),
}

#: Each way to write the data of a stream to a key.
STREAM_WRITES: dict[str, Callable[..., object]] = {
    "set": lambda store, key, data, *size: store.set(key, (data, {"new": 1}), *size),
    "set_data": lambda store, key, data, *size: store.set_data(key, data, *size),
    "multiset": lambda store, key, data, *size: store.multiset([key], [(data, {"new": 1})], *size),
    "multiset_data": lambda store, key, data, *size: store.multiset_data([key], [data], *size),
}

#: Each way to write metadata to a key that is there.
METADATA_WRITES: dict[str, Callable[[AbstractStore, str, dict[str, Any]], object]] = {
    "set": lambda store, key, metadata: store.set(key, (stream(b""), metadata)),
    "set_metadata": lambda store, key, metadata: store.set_metadata(key, metadata),
    "update_metadata": lambda store, key, metadata: store.update_metadata(key, metadata),
    "multiset": lambda store, key, metadata: store.multiset([key], [(stream(b""), metadata)]),
    "multiset_metadata": lambda store, key, metadata: store.multiset_metadata([key], [metadata]),
    "multiupdate_metadata": lambda store, key, metadata: store.multiupdate_metadata([key], [metadata]),
}

changes = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
stream_writes = pytest.mark.parametrize("write", STREAM_WRITES.values(), ids=STREAM_WRITES)
metadata_writes = pytest.mark.parametrize("write", METADATA_WRITES.values(), ids=METADATA_WRITES)


class WritingContract(StoreContract):
    """One key at a time."""

    @pytest.fixture(autouse=True)
    def filled(self, store: AbstractStore) -> None:
        store.set("a", (stream(b"old"), {"name": "a", "number": 1}))

    # -- what is written --------------------------------------------------------------------------

    def test_set_a_new_key(self, store: AbstractStore) -> None:
        store.set("b", (stream(b"data"), {"n": 1}))
        assert contents(store) == {"a": (b"old", {"name": "a", "number": 1}), "b": (b"data", {"n": 1})}

    def test_set_replaces_data_and_metadata(self, store: AbstractStore) -> None:
        store.set("a", (stream(b"data"), {"n": 1}))
        assert contents(store) == {"a": (b"data", {"n": 1})}

    def test_set_by_name(self, store: AbstractStore) -> None:
        store.set(key="a", value=(stream(b"data"), {"n": 1}), buffer_size=10)
        assert contents(store) == {"a": (b"data", {"n": 1})}

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_the_data_of_a_pair_may_be_bytes(self, store: AbstractStore, kind: type) -> None:
        store.set("a", (kind(b"data"), {}))
        assert store.to_bytes("a") == b"data"
        store.set_data("a", kind(b"other"))
        assert store.to_bytes("a") == b"other"

    def test_set_data_leaves_metadata(self, store: AbstractStore) -> None:
        store.set_data("a", stream(b"data"))
        assert contents(store) == {"a": (b"data", {"name": "a", "number": 1})}

    def test_set_data_of_a_new_key(self, store: AbstractStore) -> None:
        store.set_data("b", stream(b"data"))
        assert contents(store)["b"] == (b"data", {})

    def test_set_metadata_leaves_data(self, store: AbstractStore) -> None:
        store.set_metadata("a", {"n": 1})
        assert contents(store) == {"a": (b"old", {"n": 1})}

    def test_set_metadata_of_a_new_key(self, store: AbstractStore) -> None:
        store.set_metadata("b", {"n": 1})
        assert contents(store)["b"] == (b"", {"n": 1})

    def test_set_no_metadata(self, store: AbstractStore) -> None:
        store.set_metadata("a", {})
        assert contents(store) == {"a": (b"old", {})}

    def test_update_metadata(self, store: AbstractStore) -> None:
        store.update_metadata("a", {"number": 2, "more": True})
        assert contents(store) == {"a": (b"old", {"name": "a", "number": 2, "more": True})}

    def test_update_metadata_with_nothing(self, store: AbstractStore) -> None:
        store.update_metadata("a", {})
        assert contents(store) == {"a": (b"old", {"name": "a", "number": 1})}

    def test_update_metadata_does_not_reach_into_items(self, store: AbstractStore) -> None:
        store.set_metadata("a", {"d": {"x": 1}})
        store.update_metadata("a", {"d": {"y": 2}})
        assert store.get_metadata("a") == {"d": {"y": 2}}

    @pytest.mark.parametrize(
        "write",
        [
            lambda store: store.delete("nowhere"),
            lambda store: store.update_metadata("nowhere", {"n": 1}),
            lambda store: store.multiupdate_metadata(["a", "nowhere"], [{"n": 1}, {"n": 1}]),
        ],
        ids=["delete", "update_metadata", "multiupdate_metadata"],
    )
    def test_a_missing_key(self, store: AbstractStore, write: Callable[[AbstractStore], object]) -> None:
        before = facts(store)
        with pytest.raises(KeyError) as caught:
            write(store)
        assert caught.value.args == ("nowhere",)
        assert facts(store) == before

    def test_delete(self, store: AbstractStore) -> None:
        fill(store, b=b"x")
        store.delete("a")
        assert contents(store) == {"b": (b"x", {"name": "b"})}
        assert list(store.query(name="a")) == []
        assert list(store.glob("a")) == []
        with pytest.raises(KeyError):
            store.delete("a")

    def test_a_key_set_again_after_its_deletion_is_new(
        self, store: AbstractStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.delete("a")
        monkeypatch.setattr("time.time", lambda: 99.5)
        store.set_data("a", stream(b"new"))
        assert contents(store) == {"a": (b"new", {})}
        assert store.get("a").created == 99.5

    @changes
    def test_writing_returns_nothing(self, store: AbstractStore, change: Write) -> None:
        assert change(store, "a") is None

    @changes
    def test_other_keys_stay(self, store: AbstractStore, change: Write) -> None:
        fill(store, b=b"x", c=b"y")
        before = facts(store)
        change(store, "b")
        after = facts(store)
        assert before.pop("b") != after.pop("b")
        assert before == after

    # -- from_bytes -------------------------------------------------------------------------------

    def test_from_bytes(self, store: AbstractStore) -> None:
        store.from_bytes("a", b"data")
        assert contents(store) == {"a": (b"data", {"name": "a", "number": 1})}
        store.from_bytes("b", b"more", buffer_size=2)
        assert contents(store)["b"] == (b"more", {})

    @pytest.mark.parametrize("kind", [bytearray, memoryview])
    def test_from_bytes_copies_what_can_change(self, store: AbstractStore, kind: type) -> None:
        source = bytearray(b"data")
        store.from_bytes("a", kind(source))
        source[:] = b"xxxx"
        assert store.to_bytes("a") == b"data"
        assert type(store.to_bytes("a")) is bytes

    def test_from_bytes_takes_any_bytes_like_object(self, store: AbstractStore) -> None:
        store.from_bytes("array", array("H", [258, 772]))  # type: ignore[arg-type]
        assert store.to_bytes("array") == array("H", [258, 772]).tobytes()
        store.from_bytes("strided", memoryview(b"abcdef")[::2])
        assert store.to_bytes("strided") == b"ace"
        with mmap.mmap(-1, 4) as mapped:
            mapped[:] = b"abcd"
            store.from_bytes("mapped", mapped)  # type: ignore[arg-type]
        assert store.to_bytes("mapped") == b"abcd"

    def test_from_bytes_keeps_a_subclass_out(self, store: AbstractStore) -> None:
        class Tagged(bytes):
            pass

        store.from_bytes("a", Tagged(b"data"))
        assert type(store.to_bytes("a")) is bytes

    # -- from_file --------------------------------------------------------------------------------

    @pytest.mark.parametrize("kind", [str, Path])
    def test_from_file(self, store: AbstractStore, tmp_path: Path, kind: type) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"of the file\r\n\x00")
        store.from_file("a", kind(path))
        assert contents(store) == {"a": (b"of the file\r\n\x00", {"name": "a", "number": 1})}
        store.from_file("b", kind(path), buffer_size=2)
        assert contents(store)["b"] == (b"of the file\r\n\x00", {})
        assert path.read_bytes() == b"of the file\r\n\x00"

    def test_from_a_missing_file(self, store: AbstractStore, tmp_path: Path) -> None:
        before = facts(store)
        for key in ("a", "b"):
            with pytest.raises(FileNotFoundError):
                store.from_file(key, tmp_path / "missing")
            with pytest.raises(OSError, match="directory"):
                store.from_file(key, tmp_path)
        assert facts(store) == before

    # -- streams in -------------------------------------------------------------------------------

    @stream_writes
    @pytest.mark.parametrize("size", [1, 3, 1000])
    def test_streams_are_read_a_buffer_at_a_time(
        self, store: AbstractStore, write: Callable[..., object], size: int
    ) -> None:
        source = RecordingStream(b"0123456789")
        write(store, "a", source, size)
        assert store.to_bytes("a") == b"0123456789"
        assert set(source.sizes) == {size}
        assert len(source.sizes) == -(-10 // size) + 1, "read until nothing comes"

    @stream_writes
    def test_the_default_buffer_is_one_mebibyte(
        self, store: AbstractStore, write: Callable[..., object]
    ) -> None:
        source = RecordingStream(b"0123456789")
        write(store, "a", source)
        assert set(source.sizes) == {1048576}

    @stream_writes
    def test_streams_may_give_less_than_asked(
        self, store: AbstractStore, write: Callable[..., object]
    ) -> None:
        write(store, "a", RecordingStream(b"0123456789", at_most=3))
        assert store.to_bytes("a") == b"0123456789"

    @stream_writes
    def test_streams_are_read_from_where_they_stand(
        self, store: AbstractStore, write: Callable[..., object]
    ) -> None:
        source = stream(b"0123456789")
        source.seek(4)
        write(store, "a", source)
        assert store.to_bytes("a") == b"456789"
        assert not source.closed

    @stream_writes
    def test_streams_may_yield_any_bytes(self, store: AbstractStore, write: Callable[..., object]) -> None:
        block = bytearray(b"ab")
        write(store, "a", YieldingStream([block, memoryview(b"cd"), b"ef"]))
        block[:] = b"xx"
        assert store.to_bytes("a") == b"abcdef"
        assert type(store.to_bytes("a")) is bytes
        write(store, "a", YieldingStream([block]))
        block[:] = b"yy"
        assert store.to_bytes("a") == b"xx"
        assert type(store.to_bytes("a")) is bytes

    @stream_writes
    def test_an_empty_stream(self, store: AbstractStore, write: Callable[..., object]) -> None:
        write(store, "a", RecordingStream(b""))
        assert store.to_bytes("a") == b""

    @stream_writes
    def test_what_happens_to_a_stream_later_does_not_matter(
        self, store: AbstractStore, write: Callable[..., object]
    ) -> None:
        source = stream(b"0123456789")
        write(store, "a", source)
        source.seek(0)
        source.write(b"spoilt")
        assert store.to_bytes("a") == b"0123456789"

    @stream_writes
    def test_an_open_file(self, store: AbstractStore, write: Callable[..., object], tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"line\r\n" * 10_000)
        with open(path, "rb") as file:
            write(store, "a", file, 4096)
        assert store.to_bytes("a") == b"line\r\n" * 10_000

    @stream_writes
    @pytest.mark.parametrize("key", ["a", "b"])
    def test_a_stream_is_read_before_anything_changes(
        self, store: AbstractStore, write: Callable[..., object], key: str
    ) -> None:
        before = facts(store)
        seen = []
        write(store, key, WatchingStream(b"data", lambda: seen.append(facts(store))))
        assert seen == [before, before]
        assert store.to_bytes(key) == b"data"

    @stream_writes
    @pytest.mark.parametrize("key", ["a", "b"])
    @pytest.mark.parametrize(
        ("blocks", "error"),
        [
            ([OSError("disk")], OSError),
            ([b"some", ZeroDivisionError("later")], ZeroDivisionError),
            ([b"some", KeyboardInterrupt()], KeyboardInterrupt),
            ([b"some", MemoryError()], MemoryError),
            (["text"], TypeError),
            ([b"some", "text"], TypeError),
            ([""], TypeError),
            ([5], TypeError),
            ([b"some", [1]], TypeError),
            ([None], BlockingIOError),
            ([b"some", None], BlockingIOError),
        ],
        ids=repr,
    )
    def test_a_stream_that_fails_changes_nothing(
        self,
        store: AbstractStore,
        write: Callable[..., object],
        key: str,
        blocks: list[object],
        error: type[BaseException],
    ) -> None:
        before = facts(store)
        with pytest.raises(error):
            write(store, key, YieldingStream(blocks))
        assert facts(store) == before
        write(store, key, stream(b"works"))
        assert store.to_bytes(key) == b"works"

    def test_a_closed_stream_changes_nothing(self, store: AbstractStore) -> None:
        before = facts(store)
        source = stream(b"data")
        source.close()
        with pytest.raises(ValueError, match="closed"):
            store.set("a", (source, {}))
        assert facts(store) == before

    # -- metadata in ------------------------------------------------------------------------------

    @metadata_writes
    def test_metadata_handed_in_is_isolated_in_depth(
        self, store: AbstractStore, write: Callable[..., object]
    ) -> None:
        store.set_metadata("a", {})
        metadata = fresh_nested()
        write(store, "a", metadata)
        assert metadata == NESTED, "what was handed in is left as it is"
        spoil(metadata)
        assert store.get_metadata("a") == NESTED

    @metadata_writes
    def test_flat_metadata_handed_in_is_isolated(
        self, store: AbstractStore, write: Callable[..., object]
    ) -> None:
        store.set_metadata("a", {})
        metadata: dict[str, Any] = {"n": 1}
        write(store, "a", metadata)
        metadata["n"] = "spoilt"
        metadata["more"] = "spoilt"
        assert store.get_metadata("a") == {"n": 1}

    @metadata_writes
    @pytest.mark.parametrize("kind", [OrderedDict, MappingProxyType, UserDict])
    def test_metadata_may_be_any_mapping(
        self, store: AbstractStore, write: Callable[..., object], kind: Callable[..., Any]
    ) -> None:
        store.set_metadata("a", {})
        write(store, "a", kind({"n": 1, "list": [1]}))
        assert store.get_metadata("a") == {"n": 1, "list": [1]}
        assert type(store.get_metadata("a")) is dict

    @metadata_writes
    def test_metadata_that_cannot_be_copied_changes_nothing(
        self, store: AbstractStore, write: Callable[..., object]
    ) -> None:
        class Uncopyable:
            def __deepcopy__(self, memo: object) -> None:
                raise ZeroDivisionError

        before = facts(store)
        with pytest.raises(TypeError, match=r"'a'.*'bad'") as caught:
            write(store, "a", {"n": 2, "bad": Uncopyable()})
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert facts(store) == before

    def test_updates_keep_nested_items_apart(self, store: AbstractStore) -> None:
        store.set_metadata("a", fresh_nested())
        store.update_metadata("a", {"n": 1})
        store.set("b", store.get("a"))
        spoil(store.get_metadata("a"))
        assert store.get_metadata("a") == {**NESTED, "n": 1}
        assert store.get_metadata("b") == {**NESTED, "n": 1}

    def test_names_of_items_may_be_any_strings(self, store: AbstractStore) -> None:
        metadata = {"select": 1, "self": 2, "not an identifier": 3, "": 4}
        store.set_metadata("a", metadata)
        assert store.get_metadata("a") == metadata

    # -- created, modified, revision --------------------------------------------------------------

    @changes
    def test_created_stays_and_modified_moves_on(
        self, store: AbstractStore, change: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = store.get("a")
        later = before.modified + 100
        monkeypatch.setattr("time.time", lambda: later)
        change(store, "a")
        assert store.get("a").created == before.created
        assert store.get("a").modified == later

    @changes
    @pytest.mark.parametrize("back", [0, 1000], ids=["stands still", "goes back"])
    def test_modified_moves_on_when_the_clock_does_not(
        self, store: AbstractStore, change: Write, back: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = store.get("a")
        monkeypatch.setattr("time.time", lambda: before.modified - back)
        change(store, "a")
        between = store.get("a")
        change(store, "a")
        assert before.modified < between.modified < store.get("a").modified
        assert store.get("a").created == before.created

    @changes
    def test_the_revision_grows(self, store: AbstractStore, change: Write) -> None:
        revisions = [store.get("a").revision]
        for _ in range(3):
            change(store, "a")
            revisions.append(store.get("a").revision)
        numbers = [revision for revision in revisions if revision is not None]
        assert numbers == sorted(set(numbers))
        assert len(numbers) == 4

    def test_the_revision_grows_over_all_keys(self, store: AbstractStore) -> None:
        store.set_data("b", stream(b""))
        store.set_data("a", stream(b""))
        first, second = store.get("b").revision, store.get("a").revision
        assert first is not None
        assert second is not None
        assert first < second
        store.delete("a")
        store.set_data("a", stream(b""))
        third = store.get("a").revision
        assert third is not None
        assert second < third

    def test_a_change_that_changes_nothing_is_one_all_the_same(self, store: AbstractStore) -> None:
        before = store.get("a")
        store.update_metadata("a", {})
        assert store.get("a").modified > before.modified
