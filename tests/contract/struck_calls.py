"""An exception at any place of a call where CPython raises one: the commit is made or it is not.

Nothing is left of it then: others write at once, and all that was committed is heard, once, in order, by the
listeners of this store and of another one over the same entries.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from latchstore import StoreModificationEvent, StoreTransactionEndEvent
from latchstore.engine.transactional_store import TransactionalStore
from tests.contract.stores import TIMEOUT
from tests.interrupts.striker import Striker


class Struck(BaseException):
    """What strikes."""


class Stores:
    """Two stores over the same entries, with what their listeners have heard."""

    def __init__(self, open_store: Callable[[], TransactionalStore]) -> None:
        self.store, self.other = open_store(), open_store()
        self.heard: tuple[list[Any], list[Any]] = ([], [])
        for store, heard in zip((self.store, self.other), self.heard, strict=True):
            store.event_manager.connect(StoreModificationEvent, heard.append)
        self.ends: list[str] = []
        self.store.event_manager.connect(StoreTransactionEndEvent, self._note_end)
        self.store.multiset(["a", "b"], [(b"0", {"it": 0})] * 2)
        self.others = 0

    def _note_end(self, event: StoreTransactionEndEvent) -> None:
        self.ends.append(event.state)

    def state(self) -> dict[str, tuple[bytes, Any]]:
        """Return what the keys of the calls have."""
        found = ((key, self.other.get(key)) for key in ("a", "b", "c") if self.other.exists(key))
        return {key: (value.data.read(), value.metadata) for key, value in found}

    def write_elsewhere(self) -> None:
        """Write by another thread, and by the other store: neither is kept waiting."""
        writer = threading.Thread(target=lambda: self.store.from_bytes("thread", b"%d" % self.others))
        writer.start()
        writer.join(TIMEOUT)
        assert not writer.is_alive()
        self.other.from_bytes("other", b"%d" % self.others)
        self.others += 1

    def check(self) -> None:
        """Look whether each commit was heard once, in order, whole."""
        revision = self.store.info()["revision"]
        for store, heard in zip((self.store, self.other), self.heard, strict=True):
            store.flush()
            found = [(event.revision, event.key) for event in heard]
            assert len(set(found)) == len(found)
            assert [number for number, _ in found] == sorted(number for number, _ in found)
            assert {number for number, _ in found} == set(range(1, revision + 1))
        assert sorted(self.store.query_keys(it=0)) == sorted(
            key for key, metadata in self.store.query() if metadata.get("it") == 0
        )

    def close(self) -> None:
        """Close both."""
        self.store.close()
        self.other.close()


def set_one(store: TransactionalStore, number: int) -> None:
    """Commit one key."""
    store.set("a", (b"%d" % number, {"it": number % 2}))


def delete(store: TransactionalStore, number: int) -> None:
    """Delete a key, or set it again."""
    if number % 2:
        store.delete("b")
    else:
        store.from_bytes("b", b"%d" % number)


def set_two(store: TransactionalStore, number: int) -> None:
    """Commit two keys in a block."""
    with store.transaction("two"):
        store.set("a", (b"%d" % number, {"it": number % 2}))
        store.set("c", (b"%d" % number, {"it": number % 2}))


def read_and_set(store: TransactionalStore, number: int) -> None:
    """Commit what was read in a block that keeps nobody waiting."""
    with store.transaction("read", optimistic=True):
        store.from_bytes("a", store.to_bytes("a")[:2] + b"%d" % number)
        store.from_bytes("c", b"%d" % number)


class StruckCallContract:
    """Two stores over the same entries, of which one is struck."""

    #: Every so many places one is struck; two places beside each other seldom differ.
    stride = 5

    #: Files of a library in which the calls are struck as well.
    files: tuple[Path, ...] = ()

    @pytest.fixture
    def open_store(self) -> Callable[[], TransactionalStore]:
        """What opens a store over the entries of the test, with an index on ``it``. To be overridden."""
        raise NotImplementedError

    @pytest.fixture
    def stores(self, open_store: Callable[[], TransactionalStore]) -> Iterator[Stores]:
        """Two of them."""
        stores = Stores(open_store)
        yield stores
        stores.close()

    @pytest.mark.parametrize("call", [set_one, delete, set_two, read_and_set])
    def test_a_call_that_is_struck(
        self, stores: Stores, call: Callable[[TransactionalStore, int], None]
    ) -> None:
        place, struck = 1, 0
        while True:
            before, revision = stores.state(), stores.store.info()["revision"]
            turn = 1 if "b" in before else 2
            striker = Striker(place, Struck, files=self.files)
            raised = False
            try:
                with striker:
                    call(stores.store, turn if call is delete else place)
            except Struck:
                raised = True
            changed = stores.state() != before
            assert changed or raised
            assert stores.store.info()["revision"] - revision == changed, striker.place
            stores.write_elsewhere()
            stores.store.flush()
            if call in (set_two, read_and_set):
                # Struck before it has begun, it may have no end.
                assert stores.ends == (["done"] if changed else ["failed"][: len(stores.ends)]), striker.place
            stores.ends.clear()
            struck += striker.place is not None
            if striker.place is None:
                break
            place += self.stride
        assert struck > 10
        stores.check()

    def test_a_call_that_fails_and_is_struck(self, stores: Stores) -> None:
        """What has struck it is kept, with its traceback, whose frames have what the call held."""
        place, kept = 1, []
        while True:
            striker = Striker(place, Struck, files=self.files)
            try:
                with striker:
                    stores.store.delete("missing")
            except (Struck, KeyError) as error:
                kept.append(error)
            stores.write_elsewhere()
            if striker.place is None:
                break
            place += 1
        assert len(kept) > 20
        stores.check()
