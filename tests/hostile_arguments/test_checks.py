"""The checks of arguments: what passes comes back plain; what is refused stands in the table."""

from __future__ import annotations

import array
import io
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from latchstore import DictMemoryStore, EventManager
from latchstore.contract.arguments import (
    DEFAULT_BUFFER_SIZE,
    as_bytes,
    checked_buffer_size,
    checked_key,
    checked_keys,
    checked_path,
    checked_range,
    checked_select,
    checked_timeout,
    describe,
    exact_string,
    read_all,
)


class Text(str):
    """A string that does not want to be looked at."""

    __slots__ = ()

    def __hash__(self) -> int:
        pytest.fail("a method of the caller's string was called")

    def __eq__(self, other: object) -> bool:
        pytest.fail("a method of the caller's string was called")

    def __str__(self) -> str:
        pytest.fail("a method of the caller's string was called")

    def __len__(self) -> int:
        pytest.fail("a method of the caller's string was called")


class BrokenRepr:
    def __repr__(self) -> str:
        raise ValueError("on purpose")


# -- describe -------------------------------------------------------------------------------------


def test_describe_names_the_type_and_shows_a_little() -> None:
    assert describe(3) == "int 3"
    assert describe("a") == "str 'a'"
    assert describe(None) == "NoneType None"
    assert describe(BrokenRepr()) == "BrokenRepr"
    assert describe(b"x" * 57) == f"bytes {b'x' * 57!r}"
    assert describe(b"x" * 58) == "bytes b'" + "x" * 55 + "..."
    assert len(describe("long" * 10_000)) == len("str ") + 60


# -- strings --------------------------------------------------------------------------------------


def test_strings_come_back_plain() -> None:
    key = "a key that is not interned"
    assert exact_string(key) is checked_key(key) is key
    for plain in (exact_string(Text(key)), checked_key(Text(key)), checked_keys([Text(key)])[0]):
        assert type(plain) is str
        assert plain == key


def test_keys_may_be_any_iterable() -> None:
    expected = ["a", "b"]
    for keys in (
        ["a", "b"],
        ("a", "b"),
        {"a": 1, "b": 2},
        iter("ab"),
        (key for key in "ab"),
        dict.fromkeys("ab"),
    ):
        assert checked_keys(keys) == expected


def test_a_bad_key_is_named_by_its_position() -> None:
    with pytest.raises(TypeError, match=r"^names\[2\] must be a str, got int 3$"):
        checked_keys(["a", "b", 3], "names")  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("kind", "indexes must be an iterable of items, got str 'kind': did you mean ['kind']?"),
        (b"kind", "indexes must be an iterable of items, got bytes b'kind'"),
        (5, "indexes must be an iterable, got int 5"),
    ],
    ids=["a string", "bytes", "a number"],
)
def test_a_single_item_for_many(given: Any, message: str) -> None:
    with pytest.raises(TypeError) as raised:
        DictMemoryStore(EventManager(), indexes=given)
    assert str(raised.value) == message


def test_select() -> None:
    assert checked_select(None) is None
    assert checked_select([]) == ()
    assert checked_select(name for name in "ab") == ("a", "b")


# -- numbers --------------------------------------------------------------------------------------


def test_the_default_buffer_is_one_mebibyte() -> None:
    assert DEFAULT_BUFFER_SIZE == 1024 * 1024
    assert checked_buffer_size(DEFAULT_BUFFER_SIZE) == 1024 * 1024
    assert checked_buffer_size(1) == 1
    assert checked_buffer_size(2**70) == 2**70


@pytest.mark.parametrize(
    ("timeout", "expected"),
    [
        (None, None),
        (0, 0),
        (1, 1),
        (0.5, 0.5),
        (float("inf"), threading.TIMEOUT_MAX),
        (1e300, threading.TIMEOUT_MAX),
    ],
)
def test_timeouts(timeout: float | None, expected: float | None) -> None:
    assert checked_timeout(timeout) == expected
    if expected is not None:
        # So the lock takes it, where it would not take infinity.
        lock = threading.Lock()
        assert lock.acquire(timeout=expected)


def test_ranges() -> None:
    assert checked_range(None, None) == slice(None, None)
    assert checked_range(-3, 2**70) == slice(-3, 2**70)


# -- paths ----------------------------------------------------------------------------------------


def test_paths() -> None:
    assert checked_path("a/b") == "a/b"
    assert checked_path(Path("a")) == "a"
    assert checked_path(PurePosixPath("a/b")) == "a/b"
    assert checked_path(os.fsencode("a")) == "a"  # type: ignore[arg-type]


# -- data -----------------------------------------------------------------------------------------


class Bytes(bytes):
    """Bytes with a mind of their own."""

    def __len__(self) -> int:
        pytest.fail("a method of the caller's bytes was called")


def test_data_comes_back_as_plain_bytes() -> None:
    data = b"some data that is not interned"
    assert as_bytes(data) is data
    for given in (
        bytearray(data),
        memoryview(data),
        memoryview(bytearray(data)),
        array.array("B", data),
        Bytes(data),
    ):
        plain = as_bytes(given)  # type: ignore[arg-type]
        assert type(plain) is bytes
        assert plain == data
    # Whatever the shape and the size of the items: the bytes that are in memory, in order.
    assert as_bytes(memoryview(b"abcdef")[::2]) == b"ace"
    assert as_bytes(memoryview(b"abcdef").cast("H")) == b"abcdef"


class Stream:
    """Gives what it is told to, and notes how much it was asked for."""

    def __init__(self, *blocks: Any) -> None:
        self.blocks = list(blocks)
        self.sizes: list[int] = []

    def read(self, size: int = -1, /) -> Any:
        self.sizes.append(size)
        block = self.blocks.pop(0) if self.blocks else b""
        if isinstance(block, BaseException):
            raise block
        return block


def test_a_stream_is_read_to_its_end_a_buffer_at_a_time() -> None:
    stream = Stream(b"ab", bytearray(b"c"), memoryview(b"def"))
    assert read_all(stream, 7) == b"abcdef"
    assert stream.sizes == [7] * 4


def test_one_block_is_not_copied() -> None:
    block = b"one block that is not interned"
    assert read_all(Stream(block), 100) is block
    assert read_all(io.BytesIO(block), 1) is block
    assert read_all(block, 1) is block
    assert read_all(Stream(), 1) == b""


def test_progress_is_told_after_each_block() -> None:
    steps: list[int] = []

    def progress(step: int) -> None:
        steps.append(step)

    assert read_all(Stream(b"ab", b"c"), 2, progress) == b"abc"
    assert steps == [2, 3, 3]
    steps.clear()
    assert read_all(io.BytesIO(b"abc"), 2, progress) == b"abc"
    assert steps == [2, 3, 3]


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (Stream(b"a", 3), TypeError, "d.read() must return bytes, got int 3"),
        (Stream(b"a", None), BlockingIOError, "d is a non-blocking stream without data to read"),
        (Stream(b"a", OSError("disk")), OSError, "disk"),
    ],
    ids=["numbers", "non-blocking", "fails"],
)
def test_bad_streams(data: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        read_all(data, 10, None, "d")


def test_an_empty_text_stream_yields_no_bytes() -> None:
    with pytest.raises(TypeError, match=r"^data\.read\(\) must return bytes, got str ''"):
        read_all(io.StringIO(""), 10)  # type: ignore[arg-type]


@pytest.mark.parametrize("check", [checked_buffer_size, checked_timeout])
def test_numbers_of_the_callers_own_kind(check: Callable[[Any], Any]) -> None:
    class Number(int):
        pass

    assert check(Number(5)) == 5
