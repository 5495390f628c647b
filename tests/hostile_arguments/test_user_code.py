"""Arguments whose code is run, compared or blocks: never under a lock."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from latchstore import (
    DictMemoryStore,
    EventManager,
    StoreError,
    StoreEvent,
    StoreModificationEvent,
)
from latchstore.engine.inspection import feed_of
from tests.hostile_arguments.offers import (
    TIMEOUT,
    Calling,
    HostileError,
    OddStream,
    OddString,
    Raising,
    in_another_thread,
    in_itself,
    use,
)


class OddInTerms(str):
    """A name of a metadata item that comes as the name of a keyword argument."""

    __slots__ = ("calling",)

    calling: Calling

    def __eq__(self, other: object) -> bool:
        self.calling.call()
        return str.__eq__(self, other)

    __hash__ = str.__hash__


@pytest.mark.parametrize("method", ["query", "query_keys"])
def test_the_name_of_a_keyword_argument_runs_no_code_under_a_lock(method: str) -> None:
    store = DictMemoryStore(EventManager(), indexes=["kind"], lock_timeout=2.0)
    store.set("kept", (b"", {"kind": "kept"}))
    # Not the same object as the index's name, so that the two are compared.
    name = OddInTerms("".join(["ki", "nd"]))
    name.calling = WritingToo(store)
    assert len(list(getattr(store, method)(**{name: "kept"}))) == 1
    with store.snapshot() as view:
        assert len(list(getattr(view, method)(**{name: "kept"}))) == 1


class WritingToo(Calling):
    """Has another thread write, which readers' locks keep out."""

    def call(self) -> None:
        if not Calling.busy:
            Calling.busy = True
            try:
                in_another_thread(lambda: self._store.from_bytes("written", b""))
            finally:
                Calling.busy = False


@pytest.mark.parametrize("method", ["query", "query_keys"])
@pytest.mark.parametrize("wanted", [Raising, lambda: OddString("kept"), dict, WritingToo])
def test_a_query_for_hostile_values(method: str, wanted: Callable[..., Any]) -> None:
    store = DictMemoryStore(EventManager(), indexes=["kind"], lock_timeout=2.0)
    store.set("kept", (b"", {"kind": "kept"}))
    store.set("odd", (b"", {"kind": ["list"]}))
    found: list[object] = []
    with suppress(HostileError):
        found = list(getattr(store, method)(kind=wanted(store) if wanted is WritingToo else wanted()))
    assert found == []
    store.set("after", (b"", {"kind": "kept"}))
    assert sorted(store.query_keys(kind="kept")) == ["after", "kept"]


class ComparedUnderALock(int):
    """An int with an ``==`` of its own, and how often it ran."""

    ran = 0

    def _note(self, other: Any) -> Any:
        type(self).ran += 1
        raise HostileError("compared")

    __eq__ = __ne__ = __le__ = __lt__ = __gt__ = __ge__ = _note
    __hash__ = int.__hash__


@pytest.mark.parametrize(
    "call",
    [
        lambda store, odd: store.from_bytes("kept", b"2", if_revision=odd),
        lambda store, odd: store.set("kept", (b"2", {}), if_revision=odd),
        lambda store, odd: store.delete("kept", if_revision=odd),
        lambda store, odd: store.watch(since=odd).close(),
        lambda store, odd: store.flush(TIMEOUT, odd),
    ],
    ids=["from_bytes", "set", "delete", "watch", "flush"],
)
def test_a_subclass_of_int_is_a_plain_number(call: Callable[[DictMemoryStore, int], object]) -> None:
    store = DictMemoryStore(EventManager(), history=3)
    store.event_manager.connect(StoreModificationEvent, lambda event: None)
    store.from_bytes("kept", b"1")
    ComparedUnderALock.ran = 0
    call(store, ComparedUnderALock(1))
    assert ComparedUnderALock.ran == 0
    store.flush(TIMEOUT)


class Blocking:
    """Blocks, in whatever way it is used, until it is told to go on."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go_on = threading.Event()

    def block(self, *arguments: object) -> Any:
        self.entered.set()
        assert self.go_on.wait(TIMEOUT)
        return False

    __eq__ = block

    def __hash__(self) -> int:
        self.block()
        return 1

    def __deepcopy__(self, memo: object) -> Blocking:
        self.block()
        return self

    def __fspath__(self) -> str:
        self.block()
        return os.devnull

    def __iter__(self) -> Iterator[Any]:
        self.block()
        return iter(())

    def stream(self) -> OddStream:
        return OddStream(b"x", lambda: self.block() or b"y")


BLOCKED: dict[str, Callable[[DictMemoryStore, Blocking], object]] = {
    "a stream": lambda store, it: store.set_data("new", it.stream()),
    "the stream of a value": lambda store, it: store.set("new", (it.stream(), {})),
    "one stream of many": lambda store, it: store.multiset_data(["new"], [it.stream()]),
    "metadata": lambda store, it: store.set_metadata("new", {"kind": it}),
    "metadata of many": lambda store, it: store.multiset_metadata(["new"], [{"kind": it}]),
    "metadata that is merged": lambda store, it: store.update_metadata("kept", {"kind": it}),
    "a key": lambda store, it: store.exists(it),  # type: ignore[arg-type]
    "keys": lambda store, it: list(store.multiget(it)),
    "a path": lambda store, it: store.from_file("new", it),
    "a query": lambda store, it: list(store.query(kind=it)),
    "a query for keys": lambda store, it: list(store.query_keys(kind=it)),
    "the names of indexes": lambda store, it: DictMemoryStore(store.event_manager, indexes=it),
    "a predicate": lambda store, it: store.wait_for(lambda: it.block() or True),
    "the filter of a listener": lambda store, it: filtered(store, it),
    "an emit": lambda store, it: emitted(store, it),
    "a watch's filter": lambda store, it: watched(store, it),
    "on_commit": lambda store, it: committed(store, it),
}


def filtered(store: DictMemoryStore, blocking: Blocking) -> None:
    store.event_manager.connect(StoreModificationEvent, lambda event: None, {"key": blocking})
    store.from_bytes("filtered", b"")
    store.flush(TIMEOUT)


def emitted(store: DictMemoryStore, blocking: Blocking) -> None:
    store.event_manager.connect(StoreEvent, blocking.block)
    store.event_manager.emit(StoreEvent(store))


def watched(store: DictMemoryStore, blocking: Blocking) -> None:
    with store.watch(filter={"kind": Raising()}) as changes:
        feed_of(store).buffers[-1].interest.terms["kind"] = blocking
        store.set("watched", (b"", {"kind": "b"}))
        with suppress(TimeoutError, StoreError):
            changes.get(0.0)


def committed(store: DictMemoryStore, blocking: Blocking) -> None:
    with store.transaction() as block:
        block.from_bytes("committed", b"")
        block.on_commit(blocking.block)


@pytest.mark.parametrize("place", BLOCKED)
def test_what_blocks_holds_up_nobody(place: str) -> None:
    store = DictMemoryStore(EventManager(), indexes=["kind"], lock_timeout=5.0)
    store.set("kept", (b"", {"kind": ["not a plain value"]}))
    blocking = Blocking()
    with ThreadPoolExecutor(1) as executor:
        blocked = executor.submit(BLOCKED[place], store, blocking)
        try:
            assert blocking.entered.wait(TIMEOUT), blocked.exception(0)
            use(store)
            store.from_bytes("meanwhile", b"1")
            with store.transaction():
                store.delete("meanwhile")
            store.add_index("n")
            store.snapshot().close()
            store.watch().close()
            assert blocked.running()
        finally:
            blocking.go_on.set()
        with suppress(TypeError):  # a key or a path that it was none
            blocked.result(TIMEOUT)
    store.close(TIMEOUT)


def test_metadata_in_itself_is_no_file_of_ours(tmp_path: Path) -> None:
    store = DictMemoryStore(EventManager())
    store.set_metadata("loop", in_itself())
    with pytest.raises(ValueError, match=r"'loop'.*'itself'"):
        store.save(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []
