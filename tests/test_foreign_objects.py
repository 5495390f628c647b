"""Objects of other libraries in metadata: that cannot be compared, copied or pickled as CPython's own can."""

from __future__ import annotations

import contextlib
import copy
import pickle
import threading
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

import pytest

from latchstore import (
    Cache,
    Contains,
    DictMemoryStore,
    EventManager,
    EventsLost,
    StoreDeleteEvent,
    StoreEvent,
    StoreModificationEvent,
    StoreProgressEvent,
    StoreTransactionEvent,
    StoreUpdateEvent,
    WaitTimeoutError,
    set_event_manager,
)

TIMEOUT = 20.0


class ElementWise:
    """An array: ``==`` gives another one, which has no truth value, or a misleading one."""

    def __init__(self, *items: object) -> None:
        self.items = items

    def __eq__(self, other: object) -> Any:
        return ElementWise(*(item == other for item in self.items))

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self.items)

    def __bool__(self) -> bool:
        if len(self.items) != 1:
            raise ValueError("the truth value of an array with more than one element is ambiguous")
        return bool(self.items[0])


class Missing:
    """As ``pandas.NA``: whatever it is compared with, the answer is not known."""

    def __eq__(self, other: object) -> Any:
        return self

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")


class Raising:
    """Compares to nothing at all."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")

    __hash__ = None  # type: ignore[assignment]


class RaisingOnceCopied(Raising):
    """Can be copied once, and so be put into the store, and not again."""

    def __init__(self, copies: int = 1) -> None:
        self.copies = copies

    def __deepcopy__(self, memo: object) -> RaisingOnceCopied:
        if not self.copies:
            raise RuntimeError("not again")
        return RaisingOnceCopied(self.copies - 1)


STRANGERS: dict[str, Callable[[], Any]] = {
    "array": lambda: ElementWise(1, 2),
    "array of one, which equals": lambda: ElementWise("user"),
    "empty array": ElementWise,
    "missing": Missing,
    "raising": Raising,
    "raising, no more copies": RaisingOnceCopied,
    "signalling NaN": lambda: Decimal("sNaN"),
    "in a list": lambda: [Raising()],
    "in a dict": lambda: {"user": ElementWise(1, 2)},
}


@pytest.fixture(params=[(), ("kind",)], ids=["scan", "index"])
def store(request: pytest.FixtureRequest) -> DictMemoryStore:
    return DictMemoryStore(EventManager(), indexes=request.param)


@pytest.fixture(params=STRANGERS)
def stranger(request: pytest.FixtureRequest) -> Any:
    return STRANGERS[request.param]()


def in_transaction(store: DictMemoryStore, optimistic: bool) -> list[str]:
    with store.transaction(optimistic=optimistic) as tx:
        tx.set("own", (b"", {"kind": "user"}))
        found = list(tx.query_keys(kind="user"))
        tx.delete("own")
    found.remove("own")
    return found


def in_snapshot(store: DictMemoryStore) -> list[str]:
    with store.snapshot() as view:
        return list(view.query_keys(kind="user"))


QUERIES: dict[str, Callable[[DictMemoryStore], Iterable[str]]] = {
    "query": lambda store: [key for key, _ in store.query(select=["n"], kind="user")],
    "query_keys": lambda store: store.query_keys(kind="user"),
    "two terms": lambda store: store.query_keys(kind="user", n=1),
    "snapshot": in_snapshot,
    "exclusive": lambda store: in_transaction(store, False),
    "optimistic": lambda store: in_transaction(store, True),
    "mapping": lambda store: (key for key in store.query_keys(kind="user") if key in store.mapping()),
}


@pytest.mark.parametrize("query", QUERIES)
def test_what_cannot_be_compared_does_not_match_and_others_do(
    store: DictMemoryStore, stranger: Any, query: str
) -> None:
    store.set("first", (b"", {"kind": "user", "n": 1}))
    store.set("stranger", (b"", {"kind": stranger, "n": 1}))
    store.set("last", (b"", {"kind": "user", "n": 1}))
    assert sorted(QUERIES[query](store)) == ["first", "last"]


def test_a_query_for_what_cannot_be_compared_finds_nothing(store: DictMemoryStore, stranger: Any) -> None:
    store.set("plain", (b"", {"kind": "user"}))
    assert list(store.query_keys(kind=stranger)) == []
    assert list(store.query_keys(kind=Contains(stranger))) == []


def test_a_collection_with_what_cannot_be_compared(store: DictMemoryStore, stranger: Any) -> None:
    store.set("tagged", (b"", {"kind": [stranger, "user"]}))
    if isinstance(stranger, RaisingOnceCopied):
        pytest.skip("the list cannot be copied again, so it is not compared")
    assert list(store.query_keys(kind=Contains("user"))) == ["tagged"]
    assert list(store.query_keys(kind=Contains("other"))) == []


@pytest.mark.parametrize("options", [{}, {"max_buffer": 1}, {"max_buffer": 1, "on_overflow": "coalesce"}])
def test_a_watch_goes_on_past_what_cannot_be_compared(
    store: DictMemoryStore, stranger: Any, options: dict[str, Any]
) -> None:
    watch = store.watch("*", {"kind": "user"}, **options)
    store.set("stranger", (b"", {"kind": stranger}))
    with pytest.raises(WaitTimeoutError):
        watch.get(0)
    store.set("user", (b"", {"kind": "user"}))
    change = watch.get(TIMEOUT)
    assert isinstance(change, StoreModificationEvent)
    assert change.key == "user"


def test_a_filter_of_what_cannot_be_compared(store: DictMemoryStore, stranger: Any) -> None:
    watch = store.watch("*", {"kind": stranger})
    store.set("user", (b"", {"kind": "user"}))
    with pytest.raises(WaitTimeoutError):
        watch.get(0)


@pytest.mark.parametrize(
    "wanted", [{"metadata": "stranger"}, {"metadata": {"kind": "other"}}, {"key": "stranger"}]
)
def test_a_filter_of_a_listener(store: DictMemoryStore, stranger: Any, wanted: dict[str, Any]) -> None:
    heard: list[str] = []
    terms = {name: stranger if value == "stranger" else value for name, value in wanted.items()}
    connect = store.event_manager.connect
    connect(StoreModificationEvent, lambda event: heard.append("filtered"), filter=terms)
    connect(StoreModificationEvent, lambda event: heard.append("all"))
    store.set("a", (b"", {"kind": stranger}))
    store.flush(TIMEOUT)
    assert heard == ["all"]


def test_a_query_has_no_answer_where_there_is_no_room(store: DictMemoryStore) -> None:
    class Deep:
        def __init__(self, error: type[Exception]) -> None:
            self.error = error

        def __eq__(self, other: object) -> bool:
            raise self.error

        __hash__ = None  # type: ignore[assignment]

    for error in (MemoryError, RecursionError):
        store.set("deep", (b"", {"kind": Deep(error)}))
        with pytest.raises(error):
            list(store.query_keys(kind="user"))


CHANGES_OF_A_VALUE: dict[str, Callable[[Cache[Any]], object]] = {
    "modify": lambda cache: cache.modify("n", lambda n: n + 1),
    "touch": lambda cache: cache.touch("n", 10),
    "pop": lambda cache: cache.pop("n"),
    "popitem": lambda cache: cache.popitem(),
    "invalidate_tag": lambda cache: cache.invalidate_tag("t"),
    "add": lambda cache: cache.add("other", 1),
    "setdefault": lambda cache: cache.setdefault("n", 2),
    "get_or_load": lambda cache: cache.get_or_load("other", lambda key: 1),
    "values": lambda cache: list(cache.values()),
}


@pytest.mark.parametrize("change", CHANGES_OF_A_VALUE)
@pytest.mark.parametrize("codec", ["reference", "pickle"])
def test_a_cache_with_what_cannot_be_compared(stranger: Any, change: str, codec: str) -> None:
    cache: Cache[Any] = Cache(max_entries=10, codec=codec)
    if not isinstance(stranger, RaisingOnceCopied):
        cache.set("n", 1, tags=["t"], metadata={"shape": stranger})
        CHANGES_OF_A_VALUE[change](cache)
    if codec == "reference" and change not in ("modify", "popitem"):
        cache.set("n", stranger, tags=["t"])
        CHANGES_OF_A_VALUE[change](cache)


def test_numpy_and_its_scalars() -> None:
    numpy = pytest.importorskip("numpy")
    store = DictMemoryStore(EventManager(), indexes=["kind"])
    store.set("scalar", (b"", {"kind": numpy.int64(1)}))
    store.set("array", (b"", {"kind": numpy.array([1, 2])}))
    store.set("one", (b"", {"kind": numpy.array([1])}))
    store.set("none", (b"", {"kind": numpy.array([])}))
    store.set("plain", (b"", {"kind": 1}))
    assert sorted(store.query_keys(kind=1)) == ["plain", "scalar"]
    assert sorted(store.query_keys(kind=numpy.int64(1))) == ["plain", "scalar"]
    assert list(store.query_keys(kind=numpy.array([1, 2]))) == []


# -- what cannot be copied -----------------------------------------------------------------------------------


class Uncopyable:
    """Its copying fails with anything at all."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __deepcopy__(self, memo: object) -> object:
        raise self.error


class Unshowable(Exception):
    """An error that cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("not shown")


UNCOPYABLE: dict[str, Callable[[], Any]] = {
    "lock": threading.Lock,
    "generator": lambda: (number for number in range(1)),
    "raising": lambda: Uncopyable(RuntimeError("no")),
    "KeyError, as of a key that is missing": lambda: Uncopyable(KeyError("a")),
    "unshowable": lambda: Uncopyable(Unshowable()),
    "in a list": lambda: [[threading.Lock()]],
}

WRITES: dict[str, Callable[[DictMemoryStore, dict[str, Any]], object]] = {
    "set": lambda store, metadata: store.set("bad", (b"", metadata)),
    "set_metadata": lambda store, metadata: store.set_metadata("bad", metadata),
    "update_metadata": lambda store, metadata: store.update_metadata("bad", metadata),
    "multiset": lambda store, metadata: store.multiset(["good", "bad"], [(b"", {}), (b"", metadata)]),
    "multiset_metadata": lambda store, metadata: store.multiset_metadata(["good", "bad"], [{}, metadata]),
    "multiupdate_metadata": lambda store, metadata: store.multiupdate_metadata(
        ["good", "bad"], [{}, metadata]
    ),
}


@pytest.mark.parametrize("inside", [False, True], ids=["", "in a transaction"])
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("kind", UNCOPYABLE)
def test_metadata_that_cannot_be_copied_is_refused(kind: str, write: str, inside: bool) -> None:
    """By key and item, and nothing is written."""
    store = DictMemoryStore(EventManager())
    store.multiset(["good", "bad"], [(b"", {"n": 1}), (b"", {"n": 2})])
    metadata = {"fine": [1], "guard": UNCOPYABLE[kind]()}
    refused = pytest.raises(TypeError, match=r"for key 'bad': item 'guard' cannot be copied: \w+")
    with store.transaction() if inside else contextlib.nullcontext(), refused:
        WRITES[write](store, metadata)
    assert [store.get_metadata(key) for key in ("good", "bad")] == [{"n": 1}, {"n": 2}]
    assert store.info()["revision"] == 1


def test_metadata_without_a_key_is_refused_by_item() -> None:
    store, cache = DictMemoryStore(EventManager()), Cache[int]()
    for call in (
        lambda: store.watch("*", {"guard": threading.Lock()}),
        lambda: cache.set("a", 1, metadata={"guard": threading.Lock()}),
    ):
        with pytest.raises(TypeError, match="item 'guard' cannot be copied"):
            call()


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_what_strikes_from_outside_while_metadata_is_copied_passes(error: type[BaseException]) -> None:
    with pytest.raises(error):
        DictMemoryStore(EventManager()).set_metadata("a", {"item": Uncopyable(error())})


def test_what_is_nested_too_deeply_is_named() -> None:
    store = DictMemoryStore(EventManager())
    deep: Any = ()
    for _ in range(100_000):
        deep = (deep,)
    with pytest.raises(ValueError, match="metadata for key 'a': item 'deep' is nested too deeply"):
        store.set_metadata("a", {"deep": deep})


def test_items_that_share_an_object_share_its_copy() -> None:
    store, shared = DictMemoryStore(EventManager()), ["shared"]
    store.set_metadata("a", {"one": shared, "two": [shared]})
    metadata = store.get_metadata("a")
    assert metadata["one"] is metadata["two"][0]
    assert metadata["one"] is not shared


# -- what is sent to another process -------------------------------------------------------------------------


def facts(event: Any) -> dict[str, Any]:
    """Return what an event has, its values by what they have, but for its source."""
    found = {name: value for name, value in vars(event).items() if name not in ("source", "operation_id")}
    for name in ("value", "previous"):
        value = found.get(name)
        if value is not None:
            found[name] = (value.content, value.metadata, value.created, value.modified, value.revision)
    return found


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_event_and_change_can_be_pickled(protocol: int) -> None:
    store, heard = DictMemoryStore(EventManager()), list[StoreEvent]()
    store.event_manager.connect(StoreEvent, heard.append)
    watch, full = store.watch("*"), store.watch("*", max_buffer=1)
    with store.transaction("noted"):
        store.set("a", (b"1", {"n": 1, "list": [1]}))
    store.set("a", (b"2", {}))
    store.evict("a")
    store.set("a", (b"3", {}))
    store.delete("a")
    cache: Cache[Any] = Cache(store=store, codec="reference")
    cache.set("r", {"an": "object"})
    store.flush(TIMEOUT)
    events = [*heard, *(watch.get(0) for _ in range(len(watch))), *(full.get(0) for _ in range(2))]
    kinds = [StoreUpdateEvent, StoreDeleteEvent, StoreTransactionEvent, StoreProgressEvent, EventsLost]
    assert all(any(isinstance(event, kind) for event in events) for kind in kinds)
    for event in events:
        again = pickle.loads(pickle.dumps(event, protocol))
        assert type(again) is type(event)
        assert again.source is None
        assert facts(again) == facts(event)
        assert event.source is store
        deep = copy.deepcopy(event)
        assert deep.source is None
        assert facts(deep) == facts(event)


def test_a_pickled_value_is_whole_and_apart() -> None:
    store = DictMemoryStore(EventManager())
    watch = store.watch("*")
    store.set("a", (b"data", {"list": [1]}))
    change = pickle.loads(pickle.dumps(watch.get(0)))
    assert change.value.data.read() == b"data"
    change.value.metadata["list"].append(2)
    change.metadata["list"].append(2)
    assert store.get_metadata("a") == {"list": [1]}


def test_a_copy_of_an_event_in_the_same_process_keeps_its_source() -> None:
    store = DictMemoryStore(EventManager())
    watch = store.watch("*")
    store.from_bytes("a", b"data")
    change = watch.get(0)
    again = copy.copy(change)
    assert again is not change
    assert vars(again) == vars(change)
    assert again.source is store


def test_an_event_of_users_keeps_what_it_has() -> None:
    from latchstore import BaseEvent

    again = pickle.loads(pickle.dumps(BaseEvent("source", extra=1)))
    assert (again.source, again.extra) == ("source", 1)


# -- objects that cannot be shown ------------------------------------------------------------------


class Unshown:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


@pytest.mark.parametrize(
    "call",
    [
        lambda manager, thing: manager.connect(thing, print),
        lambda manager, thing: manager.connect(StoreEvent, thing),
        lambda manager, thing: manager.connect(StoreEvent, print, filter=thing),
        lambda manager, thing: manager.connect(StoreEvent, print, filter={thing: 1}),
        lambda manager, thing: manager.connect(StoreEvent, print, priority=thing),
        lambda manager, thing: manager.emit(thing),
        lambda manager, thing: manager.set_trace(thing),
        lambda manager, thing: set_event_manager(thing),
    ],
)
def test_an_argument_whose_repr_fails_is_refused_by_its_type(call: Callable[[Any, Any], object]) -> None:
    with pytest.raises(TypeError, match=r"got Unshown$"):
        call(EventManager(), Unshown())
