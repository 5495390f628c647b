"""Codecs: what goes in comes out, and what cannot says which key it was."""

from __future__ import annotations

import array
import json
import pickle
import sys
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latchstore import Cache, Codec, CodecError, DictMemoryStore, EventManager, StoreError, StoreMapping
from latchstore.contract.codec import CODECS, JSONCodec, checked_codec, decoded, encoded
from tests.mapped import store_of

#: What JSON brings back as it was.
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)

#: What MessagePack does.
PLAIN_WITH_BYTES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(0, 99) | st.binary(), inner),
)

Make = Callable[[str | Codec], StoreMapping]


def mapping_of_a_store(codec: str | Codec) -> StoreMapping:
    return DictMemoryStore(EventManager()).mapping(codec)


def cache(codec: str | Codec) -> StoreMapping:
    return Cache(codec=codec)


makes = pytest.mark.parametrize("make", [mapping_of_a_store, cache])


class Dates:
    """A codec of one's own."""

    def encode(self, value: date) -> bytes:
        return value.isoformat().encode()

    def decode(self, data: bytes) -> date:
        return date.fromisoformat(data.decode())


class TestRoundTrip:
    @given(PLAIN)
    def test_json(self, value: Any) -> None:
        codec = CODECS["json"]
        back = codec.decode(codec.encode(value))
        assert back == value
        assert type(back) is type(value)

    def test_json_takes_halves_of_surrogate_pairs(self) -> None:
        codec = CODECS["json"]
        assert codec.decode(codec.encode("\ud800 of a file's name")) == "\ud800 of a file's name"

    def test_json_is_compact_text_that_others_can_read(self) -> None:
        assert CODECS["json"].encode({"é": [1, 2]}) == '{"é":[1,2]}'.encode()

    @settings(max_examples=settings().max_examples // 2)
    @given(PLAIN_WITH_BYTES)
    def test_msgpack(self, value: Any) -> None:
        pytest.importorskip("msgpack", reason="needs latchstore[redis]")
        codec = checked_codec("msgpack")
        back = codec.decode(codec.encode(value))
        assert back == value
        assert type(back) is type(value)

    def test_msgpack_takes_halves_of_surrogate_pairs(self) -> None:
        pytest.importorskip("msgpack", reason="needs latchstore[redis]")
        codec = checked_codec("msgpack")
        assert codec.decode(codec.encode("\ud800 of a file's name")) == "\ud800 of a file's name"

    @makes
    def test_msgpack_that_is_not_installed(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "msgpack", None)
        with pytest.raises(ImportError, match=r"pip install 'latchstore\[redis\]'"):
            make("msgpack")

    @settings(max_examples=settings().max_examples // 2)
    @given(PLAIN)
    def test_pickle(self, value: Any) -> None:
        codec = CODECS["pickle"]
        assert codec.decode(codec.encode(value)) == value

    def test_pickle_takes_any_object(self) -> None:
        codec = CODECS["pickle"]
        value = {"when": date(2026, 11, 26), 3: frozenset({1})}
        assert codec.decode(codec.encode(value)) == value

    @pytest.mark.parametrize(
        "value", [b"abc", bytearray(b"abc"), memoryview(b"abc"), array.array("B", b"abc")]
    )
    def test_raw(self, value: Any) -> None:
        codec = CODECS["raw"]
        assert codec.encode(value) == b"abc"
        assert type(codec.encode(value)) is bytes

    @makes
    def test_own(self, make: Make) -> None:
        mapping = make(Dates())
        mapping["day"] = date(2026, 11, 26)
        assert mapping["day"] == mapping.get("day") == date(2026, 11, 26)

    @makes
    def test_what_is_read_is_a_new_object_each_time(self, make: Make) -> None:
        mapping = make("pickle")
        mapping["key"] = [1]
        mapping["key"].append(2)
        assert mapping["key"] == [1]


class TestErrors:
    @makes
    @pytest.mark.parametrize(
        ("codec", "value"),
        [("pickle", lambda: None), ("json", {1}), ("json", b""), ("raw", "text"), (Dates(), 1)],
    )
    def test_encoding(self, make: Make, codec: str | Codec, value: object) -> None:
        mapping = make(codec)
        writes: list[Callable[[], object]] = [
            lambda: mapping.__setitem__("the key", value),
            lambda: mapping.setdefault("the key", value),
            lambda: mapping.update({"the key": value}),
        ]
        for write in writes:
            with pytest.raises(CodecError, match="'the key' cannot be encoded") as caught:
                write()
            assert caught.value.__cause__ is not None
            assert isinstance(caught.value, StoreError)
            assert len(mapping) == 0

    @makes
    def test_update_with_one_bad_value_changes_nothing(self, make: Make) -> None:
        mapping = make("json")
        with pytest.raises(CodecError, match="'bad'"):
            mapping.update({"good": 1, "bad": {1}})
        assert len(mapping) == 0

    @makes
    @pytest.mark.parametrize("codec", ["pickle", "json", Dates()])
    def test_decoding(self, make: Make, codec: str | Codec) -> None:
        mapping = make(codec)
        store: Any = store_of(mapping)
        store.from_bytes("the key", b"\xffnonsense")
        reads: list[Callable[[], object]] = [
            lambda: mapping["the key"],
            lambda: mapping.get("the key"),
            lambda: mapping.pop("the key"),
            lambda: mapping.popitem(),
            lambda: mapping.setdefault("the key", None),
            lambda: list(mapping.items()),
        ]
        for read in reads:
            with pytest.raises(CodecError, match="'the key' cannot be decoded: 9 bytes") as caught:
                read()
            assert caught.value.__cause__ is not None
            assert store.to_bytes("the key") == b"\xffnonsense"

    def test_a_codec_that_returns_no_bytes(self) -> None:
        class Text(Dates):
            def encode(self, value: Any) -> Any:
                return "text"

        with pytest.raises(CodecError, match=r"'key'.*the result of encode"):
            encoded(Text(), "key", date(2026, 1, 1))

    def test_what_a_codec_returns_becomes_bytes(self) -> None:
        class Buffers(Dates):
            def encode(self, value: Any) -> Any:
                return bytearray(b"abc")

        assert type(encoded(Buffers(), "key", None)) is bytes

    @pytest.mark.parametrize("strike", [KeyboardInterrupt, SystemExit])
    def test_an_interrupt_is_no_error_of_the_codec(self, strike: type[BaseException]) -> None:
        class Interrupted:
            def encode(self, value: Any) -> bytes:
                raise strike

            def decode(self, data: bytes) -> Any:
                raise strike

        with pytest.raises(strike):
            encoded(Interrupted(), "key", None)
        with pytest.raises(strike):
            decoded(Interrupted(), "key", b"")

    def test_the_error_can_be_pickled(self) -> None:
        with pytest.raises(CodecError) as caught:
            decoded(JSONCodec(), "key", b"{")
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


class TestChoice:
    @makes
    @pytest.mark.parametrize("codec", [3, json, Dates, object()])
    def test_what_is_no_codec(self, make: Make, codec: Any) -> None:
        with pytest.raises(TypeError, match="codec must have the methods encode and decode"):
            make(codec)

    @makes
    def test_an_unknown_name(self, make: Make) -> None:
        with pytest.raises(ValueError, match=r"'pickle', 'json', 'raw'.*got 'yaml'"):
            make("yaml")

    def test_names(self) -> None:
        for name, codec in CODECS.items():
            assert checked_codec(name) is checked_codec(codec) is codec
