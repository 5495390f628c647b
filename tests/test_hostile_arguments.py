"""Wrong and hostile arguments: a clear error or what is documented; nothing is lost, no lock is kept.

Each argument that is offered is known to be good, bad, or one that the call may take or leave. A call with
good ones succeeds, one with a bad one fails and changes nothing, and says which argument it was, unless the
error is the argument's own.
"""

from __future__ import annotations

import io
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from readerwriterlock import rwlock

from latchstore import (
    BaseEvent,
    DictMemoryStore,
    EventManager,
    StoreError,
    StoreEvent,
    StoreModificationEvent,
    StoreSetEvent,
)
from latchstore.contract.codec import RawCodec
from latchstore.engine.inspection import check, check_idle, feed_of, table_of
from latchstore.engine.locks import ReadWriteLock

TIMEOUT = 20.0

#: Examples of each call; more for a long run.
EXAMPLES = int(os.environ.get("LATCHSTORE_FUZZ_EXAMPLES", "60"))


class HostileError(Exception):
    """Raised by what was handed in."""


class Raising:
    """Raises whatever is done with it, but a deep copy."""

    def _raise(self, *arguments: object) -> Any:
        raise HostileError("raised by an argument")

    __eq__ = __hash__ = __bool__ = __len__ = __iter__ = __index__ = __repr__ = __fspath__ = _raise

    def __deepcopy__(self, memo: object) -> Raising:
        return self


class Calling:
    """Uses the store from the inside of it, and has another thread use it, which must not be kept waiting."""

    #: Whether one is at work: what it calls may come to another one.
    busy = False

    def __init__(self, store: DictMemoryStore) -> None:
        self._store = store

    def call(self) -> None:
        if Calling.busy:
            return
        Calling.busy = True
        try:
            use(self._store)
            in_another_thread(lambda: use(self._store))
        finally:
            Calling.busy = False

    def __eq__(self, other: object) -> bool:
        self.call()
        return self is other

    def __hash__(self) -> int:
        self.call()
        return 1

    def __deepcopy__(self, memo: object) -> Calling:
        self.call()
        return self


def called(store: DictMemoryStore, result: Any) -> Any:
    Calling(store).call()
    return result


def use(store: DictMemoryStore) -> None:
    """Read in every way that may need a lock."""
    store.exists("kept")
    with suppress(HostileError):  # of the ``==`` of what was put in
        list(store.query(kind="kept"))
    with suppress(KeyError):
        list(store.multiget_metadata(["kept", "missing"]))
    store.info()


def in_another_thread(call: Callable[[], object]) -> None:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    assert not thread.is_alive(), "user code runs under a lock"
    assert failures == []


class OddString(str):
    """A str whose hash and equality raise."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        raise HostileError("==")

    def __hash__(self) -> int:
        raise HostileError("hash")


class OddInteger(int):
    """An int that raises when it is compared or used."""

    def _raise(self, *arguments: object) -> Any:
        raise HostileError("raised by an int")

    __eq__ = __ne__ = __hash__ = __lt__ = __le__ = __gt__ = __ge__ = __add__ = __radd__ = _raise


class OddStream(io.RawIOBase):
    """Gives what it is told to, one after the other, whatever it is asked for."""

    def __init__(self, *gives: Any) -> None:
        super().__init__()
        self._gives = list(gives)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> Any:
        given = self._gives.pop(0) if self._gives else b""
        if isinstance(given, BaseException):
            raise given
        return given() if callable(given) else given


def in_itself() -> dict[str, Any]:
    metadata: dict[str, Any] = {"kind": "loop"}
    metadata["itself"] = [metadata]
    return metadata


def deep(kind: Callable[[Any], Any]) -> dict[str, Any]:
    item: Any = 1
    for _ in range(5_000):
        item = kind(item)
    return {"kind": item}


def closed_stream() -> io.BytesIO:
    stream = io.BytesIO(b"data")
    stream.close()
    return stream


def broken_off() -> Iterator[str]:
    yield "fine"
    raise HostileError("an iterable breaks off")


@dataclass(frozen=True)
class Offer:
    """An argument: what it is, how it is made for a store, whether it may be taken, and as what."""

    name: str
    make: Callable[[DictMemoryStore], Any]
    #: None: the call may take or leave it.
    good: bool | None
    value: Any = None

    def __repr__(self) -> str:
        return self.name


def good(name: str, value: Any) -> Offer:
    return Offer(name, lambda store: value, True, value)


def bad(name: str, value: Any) -> Offer:
    return Offer(name, lambda store: value, False)


RAISING = Offer("raising", lambda store: Raising(), False)
KEYS = (
    good("'fine'", "fine"),
    good("'kept'", "kept"),
    good("empty", ""),
    good("NUL", "a\0b"),
    good("surrogate", "\ud800"),
    good("1 MB", "x" * 1_000_000),
    Offer("odd str", lambda store: OddString("odd"), None, "odd"),
    bad("bytes", b"bytes"),
    bad("None", None),
    bad("a list", []),
    bad("nan", math.nan),
    Offer("calling", Calling, False),
    RAISING,
)
METADATA = (
    good("{}", {}),
    good("flat", {"kind": "kept", "n": 1}),
    Offer("in itself", lambda store: in_itself(), True),
    Offer("a raising value", lambda store: {"kind": Raising()}, True),
    Offer("a calling value", lambda store: {"kind": Calling(store)}, True),
    bad("no str for a name", {1: 2}),
    bad("None", None),
    bad("text", "text"),
    bad("pairs", [("kind", 1)]),
    Offer("deep lists", lambda store: deep(lambda item: [item]), False),
    Offer("deep tuples", lambda store: deep(lambda item: (item,)), False),
    Offer("a generator", lambda store: (pair for pair in [("kind", 1)]), False),
    RAISING,
)
BYTES = (
    good("b'data'", b"data"),
    Offer("bytearray", lambda store: bytearray(b"data"), True, b"data"),
    Offer("memoryview of floats", lambda store: memoryview(b"12345678").cast("d"), True, b"12345678"),
    bad("text", "text"),
    bad("None", None),
    bad("7", 7),
    RAISING,
)
DATA = (
    *BYTES,
    Offer("a stream", lambda store: io.BytesIO(b"data"), True, b"data"),
    Offer("too much", lambda store: OddStream(b"x" * 3_000_000, b"y"), True, b"x" * 3_000_000 + b"y"),
    Offer("bytearrays", lambda store: OddStream(bytearray(b"x"), memoryview(b"y")), True, b"xy"),
    Offer("calling", lambda store: OddStream(lambda: called(store, b"x")), True, b"x"),
    Offer("a text stream", lambda store: io.StringIO("text"), False),
    Offer("None at once", lambda store: OddStream(None), False),
    Offer("None late", lambda store: OddStream(b"x", None), False),
    Offer("str late", lambda store: OddStream(b"x", "y"), False),
    Offer("a number", lambda store: OddStream(7), False),
    Offer("raises late", lambda store: OddStream(b"x", HostileError("read")), False),
    Offer("a closed stream", lambda store: closed_stream(), False),
)
ODD = (bad("text", "1"), bad("a list", []), bad("half", 0.5), bad("True", True), RAISING)
SIZES = (
    good("1", 1),
    good("7", 7),
    bad("0", 0),
    bad("-1", -1),
    good("10**30", 10**30),
    bad("None", None),
    *ODD,
)
COUNTS = (good("1", 1), good("7", 7), bad("0", 0), bad("10**30", 10**30), bad("-1", -1), *ODD)
TRIES = (good("1", 1), bad("0", 0), bad("-1", -1), bad("None", None), *ODD)
REVISIONS = (good("None", None), bad("-1", -1), *ODD)
BOUNDS = (good("None", None), good("-2", -2), good("10**30", 10**30), *ODD)
SECONDS = (
    good("0", 0),
    good("0.01", 0.01),
    bad("-1", -1),
    bad("nan", math.nan),
    bad("text", "1"),
    bad("True", True),
    RAISING,
)
NOTES = (good("''", ""), good("'1'", "1"), Offer("odd str", lambda store: OddString("odd"), True), *ODD[1:])

key, metadata, data, content, size, count, tries, revision, bound, seconds, notes = map(
    st.sampled_from, (KEYS, METADATA, DATA, BYTES, SIZES, COUNTS, TRIES, REVISIONS, BOUNDS, SECONDS, NOTES)
)


def both(first: Offer, second: Offer) -> Offer:
    """Return a pair: a value."""
    name = f"({first}, {second})"
    return Offer(
        name, lambda store: (first.make(store), second.make(store)), all_of((first, second)), first.value
    )


value = st.builds(both, data, metadata) | st.sampled_from((bad("None", None), bad("3", (1, 2, 3)), RAISING))


def all_of(offers: Iterable[Offer]) -> bool | None:
    """Tell whether all are good, or one is bad, or else one may be either."""
    verdicts = {offer.good for offer in offers}
    return False if False in verdicts else None if None in verdicts else True


def listed(offers: list[Offer]) -> Offer:
    return Offer(f"{offers}", lambda store: [each.make(store) for each in offers], all_of(offers), offers)


def several(one: st.SearchStrategy[Offer]) -> st.SearchStrategy[Offer]:
    wrong = (bad("text", "ab"), bad("bytes", b"ab"), bad("7", 7), RAISING)
    return st.lists(one, max_size=3).map(listed) | st.sampled_from((*wrong, BROKEN_OFF))


BROKEN_OFF = Offer("broken off", lambda store: broken_off(), False)
keys = several(key)
names = st.just(good("None", None)) | keys

#: What is called: the method, and what each argument is drawn from.
READS: dict[str, dict[str, st.SearchStrategy[Offer]]] = {
    "get": {"key": key},
    "get_data": {"key": key},
    "get_data_range": {"key": key, "start": bound, "end": bound},
    "get_metadata": {"key": key, "select": names},
    "exists": {"key": key},
    "to_bytes": {"key": key},
    "multiget": {"keys": keys},
    "multiget_data": {"keys": keys},
    "multiget_metadata": {"keys": keys, "select": names},
    "query": {"select": names},
    "glob": {"pattern": key},
}
WRITES: dict[str, dict[str, st.SearchStrategy[Offer]]] = {
    "set": {"key": key, "value": value, "buffer_size": size, "if_revision": revision},
    "set_data": {"key": key, "data": data, "buffer_size": size, "if_revision": revision},
    "set_metadata": {"key": key, "metadata": metadata, "if_revision": revision},
    "update_metadata": {"key": key, "metadata": metadata, "if_revision": revision},
    "delete": {"key": key, "if_revision": revision},
    "evict": {"key": key, "cause": key, "if_revision": revision},
    "from_bytes": {"key": key, "data": content, "buffer_size": size, "if_revision": revision},
    "multiset": {"keys": keys, "values": several(value), "buffer_size": size},
    "multiset_data": {"keys": keys, "datas": several(data), "buffer_size": size},
    "multiset_metadata": {"keys": keys, "metadatas": several(metadata)},
    "multiupdate_metadata": {"keys": keys, "metadatas": several(metadata)},
}
OTHERS: dict[str, dict[str, st.SearchStrategy[Offer]]] = {
    "add_index": {"name": key},
    "remove_index": {"name": key},
    "transaction": {"notes": notes, "timeout": seconds},
    "attempts": {"notes": notes, "tries": tries, "timeout": seconds},
    "transactional": {"notes": notes, "tries": tries, "timeout": seconds},
    "watch": {
        "glob": key,
        "filter": metadata | st.just(good("None", None)),
        "since": revision,
        "max_buffer": count,
        "on_overflow": st.sampled_from((good("drop", "drop"), good("coalesce", "coalesce"), *ODD)),
    },
    "wait_for_key": {"key": key, "timeout": st.sampled_from(SECONDS)},
    "wait_for": {
        "predicate": st.sampled_from(
            (
                good("yes", lambda: True),
                good("no", lambda: False),
                bad("None", None),
                Offer("calling", lambda store: lambda: called(store, True), True),
                RAISING,
            )
        ),
        "timeout": st.sampled_from(SECONDS),
    },
    "flush": {"timeout": st.just(good("20", 20)) | st.sampled_from(SECONDS[2:]), "revision": revision},
    "close": {"timeout": st.just(good("20", 20)) | st.sampled_from(SECONDS[2:])},
    "call_later": {
        "seconds": seconds,
        "function": st.sampled_from(
            (
                good("one", lambda: None),
                Offer("calling", lambda store: Calling(store).call, True),
                Offer("one that raises", lambda store: Raising().__eq__, True),
                bad("None", None),
                RAISING,
            )
        ),
    },
    "mapping": {
        "codec": st.sampled_from(
            (
                good("'json'", "json"),
                Offer("one", lambda store: RawCodec(), True),
                bad("no name", "none"),
                bad("a class", RawCodec),
                bad("None", None),
                RAISING,
            )
        )
    },
    "save": {"path": st.sampled_from((bad("None", None), bad("7.0", 7.0), bad("NUL", "a\0b"), RAISING))},
    "from_file": {"key": key, "path": st.sampled_from((bad("None", None), bad("7.0", 7.0), RAISING))},
    "to_file": {"key": key, "path": st.sampled_from((bad("None", None), bad("7.0", 7.0), RAISING))},
}
CALLS = {**READS, **WRITES, **OTHERS}


def test_every_public_method_is_called() -> None:
    public = {name for name in dir(DictMemoryStore) if not name.startswith("_")}
    attributes = {"event_manager"}
    without_arguments = {"current_transaction", "disconnect", "info", "is_connected", "snapshot", "stats"}
    elsewhere = {"connect", "load", "query_keys"}
    assert public - attributes - without_arguments - elsewhere == set(CALLS)


class Case:
    """A store in which something is there, and what is to be kept of it."""

    def __init__(self) -> None:
        self.store = DictMemoryStore(EventManager(), indexes=["kind"], lock_timeout=5.0)
        self.heard: list[str] = []
        self.store.set("kept", (b"kept", {"kind": "kept"}))
        self.store.set("nested", (b"nested", {"kind": ["kept"]}))
        self.store.event_manager.connect(StoreModificationEvent, self._hear)
        self.entries = dict(table_of(self.store).entries)
        self.revision = self.store.info()["revision"]

    def _hear(self, event: Any) -> None:
        self.heard.append(event.key)

    def call(self, method: str, arguments: dict[str, Offer], inside: bool) -> BaseException | None:
        """Make a call, perhaps in a transaction; return what it has raised."""
        try:
            given = {name: offer.make(self.store) for name, offer in arguments.items()}
            if inside:
                with self.store.transaction("fuzz"):
                    exhaust(getattr(self.store, method)(**given))
            else:
                exhaust(getattr(self.store, method)(**given))
        except Exception as error:
            return error
        return None

    def check_untouched(self) -> None:
        """Look whether nothing was changed, and nothing told."""
        table = table_of(self.store)
        assert table.entries.keys() == self.entries.keys()
        assert all(table.entries[key] is entry for key, entry in self.entries.items())
        assert table.revision == self.revision
        self.store.connect()
        self.store.flush(TIMEOUT)
        assert self.heard == []

    def check_changed(self, changed: set[str]) -> None:
        """Look whether only what was named was changed, and all of it told."""
        table = table_of(self.store)
        self.store.flush(TIMEOUT)
        assert set(self.heard) == changed
        assert len(self.heard) == len(changed)
        for key, entry in self.entries.items():
            assert key in changed or table.entries[key] is entry, f"{key} was lost"
        assert table.revision == self.revision + bool(changed)

    def check_use(self, other: ThreadPoolExecutor) -> None:
        """Look whether everything is free and as it should be, from another thread and this one."""
        store = self.store
        store.connect()

        def run() -> None:
            check(store)
            use(store)
            store.from_bytes("after", b"1")
            with store.transaction():
                store.delete("after")
            store.flush(TIMEOUT)

        Calling.busy = True  # it has done what it is for
        try:
            other.submit(run).result(TIMEOUT)
            store.from_bytes("after", b"2")
        finally:
            Calling.busy = False
        check_idle(store)
        info = store.info()
        assert (info["snapshots"], info["pinned_entries"]) == (0, 0)
        store.close(TIMEOUT)


def exhaust(result: Any) -> None:
    """Read what was returned to its end."""
    if isinstance(result, (io.IOBase, Iterator)) and not hasattr(result, "close"):
        for _ in result:
            pass
    elif hasattr(result, "read"):
        result.read()
    elif hasattr(result, "close"):
        result.close()  # a watch


def check_error(error: BaseException, arguments: dict[str, Offer]) -> None:
    """Look whether an error is the argument's own, or says clearly what is wrong."""
    if isinstance(error, (HostileError, StoreError, KeyError, OSError)):
        return
    assert type(error) in (TypeError, ValueError), repr(error)
    if "closed file" not in str(error):  # what a stream says of itself
        assert any(name in str(error) for name in arguments), f"names no argument: {error}"


def named_keys(method: str, arguments: dict[str, Offer]) -> list[str]:
    """Return the keys that a write, all of whose arguments are good, is to change."""
    if "key" in arguments:
        return [arguments["key"].value]
    others = next(offer for name, offer in arguments.items() if name not in ("keys", "buffer_size"))
    return [each.value for each, _ in zip(arguments["keys"].value, others.value, strict=False)]


def relevant(arguments: dict[str, Offer]) -> list[Offer]:
    """Return what a call looks at: of two iterables only what stands beside something in the other."""
    paired = [arguments[name] for name in ("keys", "values", "datas", "metadatas") if name in arguments]
    others = [offer for offer in arguments.values() if offer not in paired]
    lists = [offer for offer in paired if isinstance(offer.value, list) or offer is BROKEN_OFF]
    if len(lists) < 2:
        return list(arguments.values())
    if BROKEN_OFF in lists:
        return [*others, Offer("broken off, if it is looked at", BROKEN_OFF.make, None)]
    return others + [each for pair in zip(*(offer.value for offer in lists), strict=False) for each in pair]


def told_beforehand(method: str, arguments: dict[str, Offer], existing: set[str]) -> bool | None:
    """Tell whether a call is to succeed; None if it may or may not."""
    verdict = all_of(relevant(arguments))
    if verdict is not True:
        return verdict
    if method in OTHERS or (method.endswith("get_metadata") and arguments["select"].value):
        return None
    if method in ("delete", "evict", "update_metadata", "multiupdate_metadata"):
        return set(named_keys(method, arguments)) <= existing
    if method in WRITES or method in ("exists", "query", "glob"):
        return True
    wanted = (
        [arguments["key"].value] if "key" in arguments else [each.value for each in arguments["keys"].value]
    )
    return set(wanted) <= existing


@pytest.fixture(scope="module")
def other() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


fuzzing = settings(
    max_examples=EXAMPLES,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("method", CALLS)
@fuzzing
@given(st.data())
def test_whatever_is_handed_in(other: ThreadPoolExecutor, method: str, chosen: st.DataObject) -> None:
    arguments = chosen.draw(st.fixed_dictionaries(CALLS[method]), "arguments")
    inside = chosen.draw(st.booleans(), "inside a transaction")
    case = Case()
    error = case.call(method, arguments, inside)
    if error is not None:
        check_error(error, arguments)
        case.check_untouched()
    expected = told_beforehand(method, arguments, set(case.entries))
    if expected is not None:
        assert (error is None) == expected, repr(error)
    if error is None and method in WRITES and expected:
        case.check_changed(set(named_keys(method, arguments)))
        check_written(case.store, method, arguments)
    case.check_use(other)


def check_written(store: DictMemoryStore, method: str, arguments: dict[str, Offer]) -> None:
    """Look whether the data are what was handed in, where there was any."""
    if method in ("delete", "evict"):
        assert not store.exists(arguments["key"].value)
    elif method in ("set", "set_data", "from_bytes"):
        wanted = arguments["value" if method == "set" else "data"].value
        assert store.to_bytes(arguments["key"].value) == wanted
    elif method in ("multiset", "multiset_data"):
        wanted = arguments["values" if method == "multiset" else "datas"].value
        last = dict(zip((each.value for each in arguments["keys"].value), wanted, strict=False))
        for each, offer in last.items():
            assert store.to_bytes(each) == offer.value


@pytest.mark.timeout(600)
@pytest.mark.parametrize("method", [*READS, *WRITES])
@fuzzing
@given(st.data())
def test_whatever_is_handed_to_a_transaction(
    other: ThreadPoolExecutor, method: str, chosen: st.DataObject
) -> None:
    """What fails inside a block leaves the block as it was, and the block goes on."""
    arguments = chosen.draw(st.fixed_dictionaries(CALLS[method]), "arguments")
    optimistic = chosen.draw(st.booleans(), "optimistic")
    case = Case()
    with case.store.transaction("fuzz", optimistic=optimistic) as block:
        before = {name: block.to_bytes(name) for name in block.query_keys()}
        try:
            exhaust(
                getattr(block, method)(**{name: each.make(case.store) for name, each in arguments.items()})
            )
        except Exception as error:
            check_error(error, arguments)
            assert {name: block.to_bytes(name) for name in block.query_keys()} == before
        block.from_bytes("goes on", b"1")
    assert case.store.to_bytes("goes on") == b"1"
    case.check_use(other)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("method", READS)
@fuzzing
@given(st.data())
def test_whatever_is_handed_to_a_snapshot(
    other: ThreadPoolExecutor, method: str, chosen: st.DataObject
) -> None:
    arguments = chosen.draw(st.fixed_dictionaries(READS[method]), "arguments")
    case = Case()
    with case.store.snapshot() as view:
        case.store.delete("kept")
        try:
            exhaust(
                getattr(view, method)(**{name: each.make(case.store) for name, each in arguments.items()})
            )
        except Exception as error:
            check_error(error, arguments)
        assert view.to_bytes("kept") == b"kept"
    case.check_use(other)


CONSTRUCTOR: dict[str, st.SearchStrategy[Offer]] = {
    "event_manager": st.sampled_from(
        (
            good("None", None),
            Offer("one", lambda store: EventManager(), True),
            bad("7", 7),
            bad("''", ""),
            RAISING,
        )
    ),
    "indexes": keys,
    "lock_timeout": seconds | st.just(bad("None", None)),
    "lock_class": st.sampled_from(
        (
            good("ours", ReadWriteLock),
            good("a library's", rwlock.RWLockWrite),
            bad("makes 7", lambda: 7),
            *ODD[:3],
        )
    ),
    "max_pending_events": count | st.just(good("None", None)),
    "history": st.sampled_from((good("0", 0), good("3", 3), bad("-1", -1), bad("10**30", 10**30), *ODD)),
}


@pytest.mark.parametrize("argument", CONSTRUCTOR)
@fuzzing
@given(st.data())
def test_whatever_the_constructor_is_handed(argument: str, chosen: st.DataObject) -> None:
    offer = chosen.draw(CONSTRUCTOR[argument], argument)
    given_manager = {} if argument == "event_manager" else {"event_manager": EventManager()}
    try:
        made = DictMemoryStore(**{**given_manager, argument: offer.make(None)})  # type: ignore[arg-type]
    except Exception as error:
        assert not offer.good
        check_error(error, {argument: offer})
        return
    if argument != "indexes":
        assert offer.good is not False
    made.from_bytes("k", b"1")
    made.close(TIMEOUT)


CLASSES = (
    good("events", StoreSetEvent),
    bad("None", None),
    bad("int", int),
    bad("an event", BaseEvent()),
    RAISING,
)
FUNCTIONS = (
    Offer("a function", lambda store: lambda event: None, True),
    Offer("one that raises", lambda store: Raising().__eq__, True),
    Offer("one that calls", lambda store: lambda event: Calling(store).call(), True),
    bad("None", None),
    bad("text", "text"),
    RAISING,
)
FILTERS = (
    good("None", None),
    good("a key", {"key": "new"}),
    good("a path", {"source.name..": 1, "": 2}),
    Offer("an odd key", lambda store: {"key": OddString("new")}, True),
    Offer("a raising value", lambda store: {"metadata": Raising()}, True),
    Offer("a calling value", lambda store: {"key": Calling(store)}, True),
    bad("text", "text"),
    bad("no str for a path", {1: 2}),
    RAISING,
)
MANAGER: dict[str, dict[str, st.SearchStrategy[Offer]]] = {
    "connect": {
        "cls": st.sampled_from(CLASSES),
        "func": st.sampled_from(FUNCTIONS),
        "filter": st.sampled_from(FILTERS),
        "priority": st.sampled_from(
            (good("0", 0), good("10**30", 10**30), good("True", True), *ODD[:3], RAISING)
        ),
    },
    "disconnect": {"cls": st.sampled_from(CLASSES), "func": st.sampled_from(FUNCTIONS)},
    "emit": {
        "event": st.sampled_from((Offer("one", lambda store: StoreEvent(store), True), bad("None", None)))
    },
    "disable": {"cls": st.sampled_from(CLASSES)},
    "enable": {"cls": st.sampled_from(CLASSES)},
    "is_enabled": {"cls": st.sampled_from(CLASSES)},
    "register": {"cls": st.sampled_from(CLASSES)},
    "set_trace": {"func": st.sampled_from((good("None", None), bad("7", 7), RAISING))},
}


@pytest.mark.parametrize("method", MANAGER)
@fuzzing
@given(st.data())
def test_whatever_an_event_manager_is_handed(
    other: ThreadPoolExecutor, method: str, chosen: st.DataObject
) -> None:
    """Others are heard all the same."""
    arguments = chosen.draw(st.fixed_dictionaries(MANAGER[method]), "arguments")
    case = Case()
    manager = case.store.event_manager
    try:
        getattr(manager, method)(**{name: offer.make(case.store) for name, offer in arguments.items()})
    except Exception as error:
        assert not all(offer.good for offer in arguments.values()) or method in ("disconnect", "register")
        check_error(error, arguments)
    else:
        assert all(offer.good is not False for offer in arguments.values()) or method == "disconnect"
    manager.enable(StoreSetEvent)
    case.store.from_bytes("new", b"1")
    case.store.flush(TIMEOUT)
    assert case.heard == ["new"]
    manager.check()  # type: ignore[attr-defined]
    case.check_use(other)


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
