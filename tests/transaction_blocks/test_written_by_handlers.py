"""A key that a signal handler or finalizer writes while its thread writes or reads it in a transaction."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from latchstore import DictMemoryStore, EventManager
from tests.transaction_blocks.handlers import Handler

CALLS: dict[str, Callable[[Any], object]] = {
    "set_data": lambda store: store.set_data("k", b"1"),
    "update_metadata": lambda store: store.update_metadata("k", {"m": 1}),
    "get": lambda store: store.get("k"),
}


def write(store: DictMemoryStore) -> None:
    store.set_metadata("k", {**store.get_metadata("k"), "n": 1})


def begin(store: DictMemoryStore, optimistic: bool, nested: bool, known: bool) -> ExitStack:
    """Begin a block that has written the key."""
    blocks = ExitStack()
    blocks.enter_context(store.transaction(optimistic=optimistic))
    store.set("k", (b"0", {"first": 1}))
    if known:
        store.get("k")
    if nested:
        blocks.enter_context(store.transaction())
    return blocks


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("optimistic", [False, True])
def test_neither_write_is_lost(optimistic: bool, nested: bool, known: bool, call: str) -> None:
    place = 0
    while True:
        place += 1
        store = DictMemoryStore(EventManager())
        handler = Handler(place, partial(write, store))
        with begin(store, optimistic, nested, known):
            sys.setprofile(handler)
            try:
                CALLS[call](store)
            finally:
                sys.setprofile(None)
        metadata = {"first": 1}
        if call == "update_metadata":
            metadata["m"] = 1
        if handler.called:
            metadata["n"] = 1
        assert store.to_bytes("k") == (b"1" if call == "set_data" else b"0")
        assert store.get_metadata("k") == metadata
        store.close()
        if not handler.called:
            break
    assert place > 10
