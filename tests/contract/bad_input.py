"""Wrong arguments: the error names the argument and shows what it got, and nothing has changed.

The tables say which calls are wrong. A row is the name of the argument, the type of the error, and the
method with its arguments; what is wrong is the value that the message has to show.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from latchstore import AbstractStore
from tests.contract.stores import StoreContract, facts, fill
from tests.contract.streams import YieldingStream

#: The argument, the error, what is wrong, and the call with it.
Row = tuple[str, type[Exception], Any, Callable[[AbstractStore, Any], object]]


class NotShown:
    """An object whose repr fails: the message names its type alone."""

    def __repr__(self) -> str:
        raise ZeroDivisionError


def pair() -> tuple[io.BytesIO, dict[str, Any]]:
    return io.BytesIO(b"new"), {"new": True}


NOT_STRINGS = (5, None, b"a", ["a"], ("a",), NotShown())

KEY_CALLS: dict[str, Callable[[AbstractStore, Any], object]] = {
    "get": lambda store, key: store.get(key),
    "get_data": lambda store, key: store.get_data(key),
    "get_data_range": lambda store, key: store.get_data_range(key, 0, 1),
    "get_metadata": lambda store, key: store.get_metadata(key),
    "get_metadata_select": lambda store, key: store.get_metadata(key, ["name"]),
    "exists": lambda store, key: store.exists(key),
    "in": lambda store, key: key in store,
    "to_bytes": lambda store, key: store.to_bytes(key),
    "to_file": lambda store, key: store.to_file(key, "nowhere/at/all"),
    "set": lambda store, key: store.set(key, pair()),
    "delete": lambda store, key: store.delete(key),
    "set_data": lambda store, key: store.set_data(key, io.BytesIO(b"new")),
    "set_metadata": lambda store, key: store.set_metadata(key, {"new": True}),
    "update_metadata": lambda store, key: store.update_metadata(key, {"new": True}),
    "from_bytes": lambda store, key: store.from_bytes(key, b"new"),
    "from_file": lambda store, key: store.from_file(key, __file__),
}

KEYS_CALLS: dict[str, Callable[[AbstractStore, Any], object]] = {
    "multiget": lambda store, keys: store.multiget(keys),
    "multiget_data": lambda store, keys: store.multiget_data(keys),
    "multiget_metadata": lambda store, keys: store.multiget_metadata(keys),
    "multiset": lambda store, keys: store.multiset(keys, [pair(), pair()]),
    "multiset_data": lambda store, keys: store.multiset_data(keys, [b"new", b"new"]),
    "multiset_metadata": lambda store, keys: store.multiset_metadata(keys, [{}, {}]),
    "multiupdate_metadata": lambda store, keys: store.multiupdate_metadata(keys, [{}, {}]),
}

METADATA_CALLS: dict[str, Callable[[AbstractStore, Any], object]] = {
    "set": lambda store, metadata: store.set("a", (io.BytesIO(b"new"), metadata)),
    "set_new": lambda store, metadata: store.set("new", (io.BytesIO(b"new"), metadata)),
    "set_metadata": lambda store, metadata: store.set_metadata("a", metadata),
    "set_metadata_new": lambda store, metadata: store.set_metadata("new", metadata),
    "update_metadata": lambda store, metadata: store.update_metadata("a", metadata),
    "multiset": lambda store, metadata: store.multiset(["b", "a"], [pair(), (b"new", metadata)]),
    "multiset_metadata": lambda store, metadata: store.multiset_metadata(["b", "a"], [{}, metadata]),
    "multiupdate_metadata": lambda store, metadata: store.multiupdate_metadata(["b", "a"], [{}, metadata]),
}

VALUE_CALLS: dict[str, Callable[[AbstractStore, Any], object]] = {
    "set": lambda store, value: store.set("a", value),
    "set_new": lambda store, value: store.set("new", value),
    "multiset": lambda store, value: store.multiset(["b", "a"], [pair(), value]),
}

DATA_CALLS: dict[str, Callable[[AbstractStore, Any], object]] = {
    "set": lambda store, data: store.set("a", (data, {})),
    "set_data": lambda store, data: store.set_data("a", data),
    "set_data_new": lambda store, data: store.set_data("new", data),
    "multiset": lambda store, data: store.multiset(["b", "a"], [pair(), (data, {})]),
    "multiset_data": lambda store, data: store.multiset_data(["b", "a"], [b"new", data]),
    "from_bytes": lambda store, data: store.from_bytes("a", data),
}

BUFFER_CALLS: dict[str, Callable[[AbstractStore, Any], object]] = {
    "set": lambda store, size: store.set("a", pair(), size),
    "set_data": lambda store, size: store.set_data("a", io.BytesIO(b"new"), size),
    "from_bytes": lambda store, size: store.from_bytes("a", b"new", size),
    "from_file": lambda store, size: store.from_file("a", __file__, size),
    "to_file": lambda store, size: store.to_file("a", "nowhere/at/all", size),
    "multiset": lambda store, size: store.multiset(["a"], [pair()], size),
    "multiset_data": lambda store, size: store.multiset_data(["a"], [b"new"], size),
    "iterdata": lambda store, size: store.get("a").iterdata(size),
}

SELECT_CALLS: dict[str, Callable[[AbstractStore, Any], object]] = {
    "get_metadata": lambda store, select: store.get_metadata("a", select),
    "multiget_metadata": lambda store, select: store.multiget_metadata(["a"], select),
    "query": lambda store, select: store.query(select),
}


def rows(
    argument: str,
    error: type[Exception],
    bad: Iterable[Any],
    calls: dict[str, Callable[[AbstractStore, Any], object]],
) -> list[Any]:
    """Return a row for each wrong value in each call."""
    return [
        pytest.param(argument, error, value, call, id=f"{name}-{argument}-{shown(value)[:30]}")
        for value in bad
        for name, call in calls.items()
    ]


def shown(value: object) -> str:
    """Return what a message has to show of a value."""
    return type(value).__name__ if isinstance(value, NotShown) else repr(value)


ONE_KEY_ROWS = [
    *rows("key", TypeError, NOT_STRINGS, KEY_CALLS),
    *rows("metadata", TypeError, [5, None, "text", [("n", 1)], {"n"}], METADATA_CALLS),
    *rows("value", TypeError, [5, None, "text", b"bytes", {"data": b"", "metadata": {}}], VALUE_CALLS),
    *rows("value", ValueError, [(), (b"data",), (b"data", {}, 3)], VALUE_CALLS),
    *rows("data", TypeError, [5, None, "text", [1, 2], {}], DATA_CALLS),
    *rows("buffer_size", ValueError, [0, -1], BUFFER_CALLS),
    *rows("buffer_size", TypeError, [1.5, "1", None, True], BUFFER_CALLS),
    *rows("select", TypeError, [5, "name", b"name"], SELECT_CALLS),
    *rows(
        "path",
        TypeError,
        [None, 5, ["file"]],
        {
            "to_file": lambda store, path: store.to_file("a", path),
            "from_file": lambda store, path: store.from_file("a", path),
        },
    ),
    *rows(
        "start",
        TypeError,
        [1.5, "1", True],
        {
            "get_data_range": lambda store, start: store.get_data_range("a", start),
            "range": lambda store, start: store.get("a").range(start),
        },
    ),
    *rows(
        "end",
        TypeError,
        [1.5, "1", True],
        {
            "get_data_range": lambda store, end: store.get_data_range("a", 0, end),
            "range": lambda store, end: store.get("a").range(None, end),
        },
    ),
    *rows("pattern", TypeError, [5, None, b"*", ["*"]], {"glob": lambda store, bad: store.glob(bad)}),
    *rows(
        "notes",
        TypeError,
        [5, None, b"notes"],
        {"transaction": lambda store, notes: store.transaction(notes).__enter__()},
    ),
]

#: What is wrong is one item of the argument, which is the one to be shown.
ITEM_ROWS = [
    *rows(
        "key",
        TypeError,
        NOT_STRINGS,
        {
            name: lambda store, key, call=call: call(store, iter(["a", key]))  # type: ignore[misc]
            for name, call in KEYS_CALLS.items()
        },
    ),
    *rows(
        "metadata",
        TypeError,
        [5, None, b"name", ("n", 1)],
        {
            name: lambda store, bad, call=call: call(store, {"good": 1, bad: 2})  # type: ignore[misc]
            for name, call in METADATA_CALLS.items()
        },
    ),
    *rows(
        "select",
        TypeError,
        [5, None, b"name", ["name"]],
        {
            name: lambda store, bad, call=call: call(store, ["name", bad])  # type: ignore[misc]
            for name, call in SELECT_CALLS.items()
        },
    ),
    *rows(
        "data",
        TypeError,
        ["text", 5, ["block"]],
        {
            name: lambda store, block, call=call: call(store, YieldingStream([b"some", block]))  # type: ignore[misc]
            for name, call in DATA_CALLS.items()
            if name != "from_bytes"
        },
    ),
]

#: What should be many is one: a string of keys is a mistake, although it can be iterated over.
ITERABLE_ROWS = [
    *rows("keys", TypeError, [5, None, "ab", b"ab"], KEYS_CALLS),
    *rows("values", TypeError, [5, None, "xy"], {"multiset": lambda store, bad: store.multiset(["a"], bad)}),
    *rows(
        "datas",
        TypeError,
        [5, None, "xy", b"xy"],
        {"multiset_data": lambda store, bad: store.multiset_data(["a"], bad)},
    ),
    *rows(
        "metadatas",
        TypeError,
        [5, None, "xy"],
        {
            "multiset_metadata": lambda store, bad: store.multiset_metadata(["a"], bad),
            "multiupdate_metadata": lambda store, bad: store.multiupdate_metadata(["a"], bad),
        },
    ),
]


class BadInputContract(StoreContract):
    """Every method, with every argument wrong."""

    @pytest.fixture(autouse=True)
    def filled(self, store: AbstractStore) -> None:
        fill(store, a=b"1", b=b"2")

    @pytest.mark.parametrize(("argument", "error", "wrong", "call"), [*ONE_KEY_ROWS, *ITEM_ROWS])
    def test_bad_input(
        self,
        store: AbstractStore,
        argument: str,
        error: type[Exception],
        wrong: Any,
        call: Callable[[AbstractStore, Any], object],
    ) -> None:
        check(store, argument, error, wrong, call)

    @pytest.mark.parametrize(("argument", "error", "wrong", "call"), ITERABLE_ROWS)
    def test_no_iterable(
        self,
        store: AbstractStore,
        argument: str,
        error: type[Exception],
        wrong: Any,
        call: Callable[[AbstractStore, Any], object],
    ) -> None:
        check(store, argument, error, wrong, call)

    @pytest.mark.parametrize("size", [0, -1, 1.5])
    @pytest.mark.parametrize("method", ["multiset", "multiset_data"])
    def test_the_buffer_size_is_checked_though_nothing_is_read(
        self, store: AbstractStore, method: str, size: Any
    ) -> None:
        with pytest.raises((TypeError, ValueError), match="buffer_size"):
            getattr(store, method)([], [], size)

    def test_long_values_are_cut_short(self, store: AbstractStore) -> None:
        with pytest.raises(TypeError) as caught:
            store.get(["x" * 10_000])  # type: ignore[arg-type]
        assert len(str(caught.value)) < 200

    def test_a_key_of_a_string_subclass_is_a_string(self, store: AbstractStore) -> None:
        class Shout(str):
            def __eq__(self, other: object) -> bool:
                return NotImplemented

            def __hash__(self) -> int:
                return 5

            def __str__(self) -> str:
                return self.upper()

        key = Shout("new")
        store.set(key, (b"data", {Shout("name"): 1}))
        assert {type(key) for key in store.query_keys()} == {str}
        assert {type(name) for name in store.get_metadata("new")} == {str}
        assert store.to_bytes("new") == store.to_bytes(key) == b"data"
        assert key in store
        assert store.get_metadata(key, [Shout("name")]) == {"name": 1}
        assert [value.size for value in store.multiget([key])] == [4]
        assert list(store.glob(Shout("new"))) == ["new"]
        store.delete(key)
        assert "new" not in store


class BadTimeoutContract(StoreContract):
    """Timeouts of `flush` and `close`, in stores that have something to wait for."""

    @pytest.mark.parametrize("method", ["flush", "close"])
    @pytest.mark.parametrize(
        ("timeout", "error"),
        [("1", TypeError), ([1], TypeError), (True, TypeError), (-1, ValueError), (float("nan"), ValueError)],
    )
    def test_bad_timeout(
        self, store: AbstractStore, method: str, timeout: Any, error: type[Exception]
    ) -> None:
        with pytest.raises(error, match="timeout") as caught:
            getattr(store, method)(timeout)
        assert str(timeout) in str(caught.value)
        assert store.is_connected()
        store.set_data("still open", io.BytesIO())


def check(
    store: AbstractStore,
    argument: str,
    error: type[Exception],
    wrong: Any,
    call: Callable[[AbstractStore, Any], object],
) -> None:
    """Check one row."""
    before = facts(store)
    with pytest.raises(error) as caught:
        call(store, wrong)
    message = str(caught.value)
    assert re.search(rf"\b{argument}", message)
    assert shown(wrong) in message
    assert facts(store) == before
    # And the locks are free.
    store.set_data("a", io.BytesIO(b"works"))
