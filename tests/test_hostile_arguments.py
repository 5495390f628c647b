"""Wrong and hostile arguments: a clear error or what is documented; nothing is lost, no lock is kept."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latchstore import DictMemoryStore, EventManager, StoreError, StoreModificationEvent

TIMEOUT = 20.0


class HostileError(Exception):
    """Raised by what was handed in."""


#: What a call may raise; anything else is a defect.
CLEAR = (HostileError, TypeError, ValueError, KeyError, StoreError, OSError, RecursionError)


class Raising:
    """Raises whenever it is looked at."""

    def __eq__(self, other: object) -> bool:
        raise HostileError("==")

    def __hash__(self) -> int:
        raise HostileError("hash")

    def __deepcopy__(self, memo: object) -> Raising:
        return self


class Calling:
    """Uses the store from the inside of it, and has another thread use it, which must not be kept waiting."""

    def __init__(self, store: DictMemoryStore) -> None:
        self._store = store

    def _call(self) -> None:
        store = self._store
        store.exists("kept")
        thread = threading.Thread(target=lambda: list(store.query(kind="kept")), daemon=True)
        thread.start()
        thread.join(TIMEOUT)
        assert not thread.is_alive(), "user code runs under a lock"

    def __eq__(self, other: object) -> bool:
        self._call()
        return False

    def __hash__(self) -> int:
        self._call()
        return 1

    def __deepcopy__(self, memo: object) -> Calling:
        self._call()
        return self


class OddString(str):
    """A str whose hash and equality are its own."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        raise HostileError("==")

    def __hash__(self) -> int:
        raise HostileError("hash")


class OddStream(io.RawIOBase):
    """Gives what it is told to, one after the other."""

    def __init__(self, *gives: Any) -> None:
        super().__init__()
        self._gives = list(gives)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> Any:
        if not self._gives:
            return b""
        given = self._gives.pop(0)
        if given is HostileError:
            raise HostileError("read")
        return given


def in_itself() -> dict[str, Any]:
    metadata: dict[str, Any] = {"kind": "loop"}
    metadata["itself"] = [metadata]
    return metadata


#: Made anew for each call, with the store.
Made = Callable[[DictMemoryStore], Any]

KEYS: dict[str, Made] = {
    "fine": lambda store: "fine",
    "kept": lambda store: "kept",
    "empty": lambda store: "",
    "NUL": lambda store: "a\0b",
    "surrogate": lambda store: "\ud800",
    "1 MB": lambda store: "x" * 1_000_000,
    "odd": lambda store: OddString("odd"),
    "bytes": lambda store: b"bytes",
    "None": lambda store: None,
    "raising": lambda store: Raising(),
    "calling": Calling,
    "list": lambda store: [],
    "nan": lambda store: float("nan"),
}
METADATA: dict[str, Made] = {
    "empty": lambda store: {},
    "flat": lambda store: {"kind": "kept", "n": 1},
    "itself": lambda store: in_itself(),
    "raising": lambda store: {"kind": Raising()},
    "calling": lambda store: {"kind": Calling(store)},
    "odd name": lambda store: {OddString("kind"): 1} if False else [(OddString("kind"), 1)],
    "no names": lambda store: {1: 2},
    "None": lambda store: None,
    "text": lambda store: "text",
    "deep": lambda store: deep(),
    "generator": lambda store: (pair for pair in [("kind", 1)]),
}
DATA: dict[str, Made] = {
    "bytes": lambda store: b"data",
    "bytearray": lambda store: bytearray(b"data"),
    "text": lambda store: "text",
    "None": lambda store: None,
    "stream": lambda store: io.BytesIO(b"data"),
    "text stream": lambda store: io.StringIO("text"),
    "too much": lambda store: OddStream(b"x" * 5_000_000),
    "None at once": lambda store: OddStream(None),
    "None late": lambda store: OddStream(b"x", None),
    "str late": lambda store: OddStream(b"x", "y"),
    "raises late": lambda store: OddStream(b"x", HostileError),
    "a number": lambda store: 7,
    "raising": lambda store: Raising(),
    "closed": lambda store: closed_stream(),
}
ODD: dict[str, Made] = {
    "None": lambda store: None,
    "-1": lambda store: -1,
    "0": lambda store: 0,
    "1": lambda store: 1,
    "huge": lambda store: 10**30,
    "text": lambda store: "1",
    "nan": lambda store: float("nan"),
    "raising": lambda store: Raising(),
}


def deep() -> dict[str, Any]:
    metadata: Any = 1
    for _ in range(5_000):
        metadata = [metadata]
    return {"kind": metadata}


def closed_stream() -> io.BytesIO:
    stream = io.BytesIO(b"data")
    stream.close()
    return stream


key = st.sampled_from(sorted(KEYS)).map(KEYS.__getitem__)
metadata = st.sampled_from(sorted(METADATA)).map(METADATA.__getitem__)
data = st.sampled_from(sorted(DATA)).map(DATA.__getitem__)
odd = st.sampled_from(sorted(ODD)).map(ODD.__getitem__)


def pair_of(parts: tuple[Made, Made]) -> Made:
    return lambda store: (parts[0](store), parts[1](store))


def list_of(parts: list[Made]) -> Made:
    return lambda store: [part(store) for part in parts]


value = st.tuples(data, metadata).map(pair_of) | odd
keys = st.lists(key, max_size=3).map(list_of) | odd
select = st.none().map(lambda nothing: lambda store: nothing) | keys

#: What is called: the method, and what each argument is drawn from.
CALLS: dict[str, tuple[st.SearchStrategy[Made], ...]] = {
    "get": (key,),
    "get_data": (key,),
    "get_data_range": (key, odd, odd),
    "get_metadata": (key, select),
    "exists": (key,),
    "to_bytes": (key, odd),
    "multiget": (keys,),
    "multiget_data": (keys,),
    "multiget_metadata": (keys, select),
    "query": (select,),
    "glob": (key,),
    "set": (key, value, odd),
    "set_data": (key, data, odd),
    "set_metadata": (key, metadata),
    "update_metadata": (key, metadata),
    "delete": (key,),
    "from_bytes": (key, data, odd),
    "multiset": (keys, st.lists(value, max_size=3).map(list_of), odd),
    "multiset_data": (keys, st.lists(data, max_size=3).map(list_of), odd),
    "multiset_metadata": (keys, st.lists(metadata, max_size=3).map(list_of)),
    "multiupdate_metadata": (keys, st.lists(metadata, max_size=3).map(list_of)),
    "add_index": (key,),
    "remove_index": (key,),
    "transaction": (key,),
    "attempts": (key,),
    "watch": (key, metadata),
    "wait_for_key": (key, st.just(lambda store: 0.0)),
    "wait_for": (odd, st.just(lambda store: 0.0)),
    "flush": (odd,),
    "save": (odd,),
}


@pytest.fixture(scope="module")
def other() -> Any:
    with ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.mark.parametrize("method", CALLS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_is_handed_in(other: ThreadPoolExecutor, method: str, chosen: st.DataObject) -> None:
    made = [chosen.draw(argument) for argument in CALLS[method]]
    inside = chosen.draw(st.booleans(), "inside a transaction")
    store = DictMemoryStore(EventManager(), indexes=["kind"], lock_timeout=2.0)
    store.event_manager.connect(StoreModificationEvent, lambda event: event.metadata)
    store.set("kept", (b"kept", {"kind": "kept"}))
    before = store.info()["revision"]

    def call() -> None:
        result = getattr(store, method)(*(make(store) for make in made))
        if hasattr(result, "__next__") and method != "watch":
            list(result)

    try:
        if inside:
            with store.transaction("fuzz"):
                call()
        else:
            call()
    except CLEAR as error:
        assert str(error), "an error says what is wrong"
        if not inside and method not in ("add_index", "watch"):
            assert store.info()["revision"] == before, "an error changes nothing"

    def check() -> None:
        store._table.check()
        if method != "delete" and "set" not in method and method not in ("from_bytes", "update_metadata"):
            assert store.to_bytes("kept") == b"kept"
        store.from_bytes("after", b"")
        store.flush(TIMEOUT)

    other.submit(check).result(TIMEOUT)
    assert store._latches.writer.holder is None
    store.close(TIMEOUT)


@pytest.mark.parametrize("name", ["query", "query_keys"])
@pytest.mark.parametrize("wanted", [Raising, OddString, dict], ids=lambda kind: kind.__name__)
def test_a_query_for_hostile_values(name: str, wanted: type) -> None:
    store = DictMemoryStore(EventManager(), indexes=["kind"])
    store.set("kept", (b"", {"kind": "kept"}))
    store.set("odd", (b"", {"kind": ["list"]}))
    try:
        found = list(getattr(store, name)(kind=wanted()))
    except HostileError:
        found = []
    assert found == []
    store.set("after", (b"", {"kind": "kept"}))
    assert sorted(store.query_keys(kind="kept")) == ["after", "kept"]
