"""Wrong arguments: the error names the argument and shows what it got, and nothing has changed.

What is wrong for which argument stands in the table of tests/hostile_arguments.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from latchstore import AbstractStore
from tests.contract.stores import StoreContract, facts, fill
from tests.hostile_arguments.offers import NOTES, HostileError, Kind, bound, exhaust, key, size, wrong
from tests.hostile_arguments.table import DELIVERED, OF_ANY_STORE

#: What is no method that is called by its name.
OTHER_CALLS: dict[str, tuple[Callable[..., object], dict[str, Kind]]] = {
    "in": (lambda store, key: key in store, {"key": key}),
    "range": (lambda store, **bounds: store.get("kept").range(**bounds), {"start": bound, "end": bound}),
    "iterdata": (lambda store, **sizes: store.get("kept").iterdata(**sizes), {"buffer_size": size}),
    "enter": (lambda store, notes: store.transaction(notes).__enter__(), {"notes": Kind(NOTES)}),
}

#: What writes a key that was not there.
NEW = ("set", "set_data", "set_metadata", "from_bytes", "from_file")


def calls(table: dict[str, dict[str, Kind]]) -> list[Any]:
    """Return the calls of a table: the method, its arguments, and which one is wrong."""
    return [
        pytest.param(method, arguments, argument, id=f"{method}-{argument}")
        for method, arguments in table.items()
        for argument in arguments
    ]


def check(
    store: AbstractStore, call: Callable[..., object], arguments: dict[str, Kind], argument: str, key: str
) -> None:
    """Make a call with all that may be wrong with one argument."""
    before = facts(store)
    fine = {name: kind.offers[0].make(store) for name, kind in arguments.items()}
    if "key" in fine:
        fine["key"] = key
    for offer in wrong(arguments[argument].offers):
        with pytest.raises(offer.error or Exception) as caught:
            exhaust(call(**{**fine, argument: offer.make(store)}))
        told = str(caught.value)
        if offer.error:
            named = arguments[argument].named or argument.rstrip("s") + "s?"
            assert re.search(rf"\b({named})\b", told), f"{offer}: names no argument: {told}"
            assert offer.shown in told, f"{offer}: {told}"
        assert offer.error or isinstance(caught.value, (HostileError, TypeError, ValueError, OSError))
        assert facts(store) == before, offer
    # And the locks are free.
    store.set_data("after", b"works")


class BadInputContract(StoreContract):
    """Every method, with every argument wrong."""

    @pytest.fixture(autouse=True)
    def filled(self, store: AbstractStore) -> None:
        fill(store, kept=b"1", b=b"2")

    @pytest.mark.parametrize(("method", "arguments", "argument"), calls(OF_ANY_STORE))
    def test_a_wrong_argument(
        self, store: AbstractStore, method: str, arguments: dict[str, Kind], argument: str
    ) -> None:
        for name in ("kept", "new") if method in NEW else ("kept",):
            check(store, getattr(store, method), arguments, argument, name)

    @pytest.mark.parametrize(
        ("name", "argument"), [(name, each) for name, (_, kinds) in OTHER_CALLS.items() for each in kinds]
    )
    def test_a_wrong_argument_of_what_is_no_method(
        self, store: AbstractStore, name: str, argument: str
    ) -> None:
        call, arguments = OTHER_CALLS[name]
        check(store, lambda **given: call(store, **given), arguments, argument, "kept")

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

    @pytest.mark.parametrize(("method", "arguments", "argument"), calls(DELIVERED))
    def test_a_wrong_timeout(
        self, store: AbstractStore, method: str, arguments: dict[str, Kind], argument: str
    ) -> None:
        check(store, getattr(store, method), arguments, argument, "kept")
        assert store.is_connected()
