"""What is offered as an argument: good, bad, or what a call may take or leave."""

from __future__ import annotations

import io
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from latchstore import (
    Between,
    DictMemoryStore,
    Item,
    StoreError,
)

TIMEOUT = 20.0

#: Examples of each call; more for a long run.
EXAMPLES = int(os.environ.get("LATCHSTORE_FUZZ_EXAMPLES", "30"))


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
    yield "kept"
    raise HostileError("an iterable breaks off")


@dataclass(frozen=True)
class Offer:
    """An argument: what it is, how it is made for a store, whether it may be taken, and as what.

    Attributes
    ----------
    good : bool or None
        None: the call may take or leave it.
    error, shown
        What a call raises that does not take it, and what the message shows of it; anything if None.
    """

    name: str
    make: Callable[[Any], Any]
    good: bool | None
    value: Any = None
    error: type[Exception] | None = None
    shown: str = ""

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Kind:
    """What an argument may be: what is tried one after the other, and what examples are drawn from.

    Attributes
    ----------
    offers : tuple of Offer
        Those that are tried alone; the first one is good.
    named : str
        How an error names the argument, as a regular expression; by its own name if empty.
    drawn : strategy
        Of offers; one of those above if None.
    """

    offers: tuple[Offer, ...]
    named: str = ""
    drawn: st.SearchStrategy[Offer] | None = None

    @property
    def strategy(self) -> st.SearchStrategy[Offer]:
        return st.sampled_from(self.offers) if self.drawn is None else self.drawn


def good(name: str, value: Any) -> Offer:
    return Offer(name, lambda store: value, True, value)


def bad(name: str, value: Any, error: type[Exception] = TypeError) -> Offer:
    return Offer(name, lambda store: value, False, error=error, shown=repr(value))


RAISING = Offer("raising", lambda store: Raising(), False)
KEYS = (
    good("'kept'", "kept"),
    good("'fine'", "fine"),
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
    Offer("no str for a name", lambda store: {"n": 1, 7.5: 2}, False, error=TypeError, shown="7.5"),
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
    bad("0", 0, ValueError),
    bad("-1", -1, ValueError),
    good("10**30", 10**30),
    bad("None", None),
    *ODD,
)
COUNTS = (
    good("1", 1),
    good("7", 7),
    bad("0", 0, ValueError),
    bad("10**30", 10**30, ValueError),
    bad("-1", -1, ValueError),
    *ODD,
)
LIMITS = (
    good("None", None),
    good("0", 0),
    good("7", 7),
    bad("-1", -1, ValueError),
    bad("10**30", 10**30, ValueError),
    *ODD,
)
ORDERS = (
    good("'kind'", "kind"),
    good("'key'", "key"),
    good("'revision'", "revision"),
    good("an item", Item("key")),
    Offer("odd str", lambda store: OddString("kind"), True),
    *ODD[1:],
    bad("bytes", b"kind"),
)
DIRECTIONS = (good("False", False), good("True", True), bad("1", 1), bad("None", None), RAISING)
WHERE = (
    good("None", None),
    good("{}", {}),
    good("flat", {"kind": "kept", "n": Between(0, 2)}),
    Offer("a raising value", lambda store: {"kind": Raising()}, True),
    Offer("a calling value", lambda store: {"kind": Calling(store)}, True),
    Offer("no str for a name", lambda store: {7.5: 2}, False, error=TypeError, shown="7.5"),
    bad("text", "text"),
    bad("pairs", [("kind", 1)]),
    RAISING,
)
TRIES = (good("1", 1), bad("0", 0, ValueError), bad("-1", -1, ValueError), bad("None", None), *ODD)
REVISIONS = (good("None", None), bad("-1", -1, ValueError), *ODD)
BOUNDS = (good("None", None), good("-2", -2), good("10**30", 10**30), *ODD)
SECONDS = (
    good("0", 0),
    good("0.01", 0.01),
    bad("-1", -1, ValueError),
    bad("nan", math.nan, ValueError),
    bad("text", "1"),
    bad("True", True),
    RAISING,
)
NOTES = (good("''", ""), good("'1'", "1"), Offer("odd str", lambda store: OddString("odd"), True), *ODD[1:])

limit, order, direction, where = map(Kind, (LIMITS, ORDERS, DIRECTIONS, WHERE))
key, metadata, data, content, size, count, tries, revision, bound, seconds, notes = map(
    Kind, (KEYS, METADATA, DATA, BYTES, SIZES, COUNTS, TRIES, REVISIONS, BOUNDS, SECONDS, NOTES)
)


def all_of(offers: Iterable[Offer]) -> bool | None:
    """Tell whether all are good, or one is bad, or else one may be either."""
    verdicts = {offer.good for offer in offers}
    return False if False in verdicts else None if None in verdicts else True


def wrong(offers: Iterable[Offer]) -> Iterator[Offer]:
    """Yield those that are not taken."""
    return (offer for offer in offers if offer.good is False)


def both(first: Offer, second: Offer) -> Offer:
    """Return a pair: a value."""
    culprit = next(wrong((first, second)), first)
    return Offer(
        f"({first}, {second})",
        lambda store: (first.make(store), second.make(store)),
        all_of((first, second)),
        first.value,
        culprit.error,
        culprit.shown,
    )


NO_VALUES = (
    bad("None", None),
    bad("bytes", b"bytes"),
    bad("a dict", {"data": b"", "metadata": {}}),
    bad("()", (), ValueError),
    bad("one", (b"data",), ValueError),
    bad("three", (b"data", {}, 3), ValueError),
    RAISING,
)
value = Kind(
    (
        both(DATA[0], METADATA[0]),
        *(both(each, METADATA[0]) for each in wrong(DATA)),
        *(both(DATA[0], each) for each in wrong(METADATA)),
        *NO_VALUES,
    ),
    "value|data|metadata",
    st.builds(both, data.strategy, metadata.strategy) | st.sampled_from(NO_VALUES),
)

BROKEN_OFF = Offer("broken off", lambda store: broken_off(), False)
NO_ITERABLES = (bad("text", "ab"), bad("bytes", b"ab"), bad("7", 7), RAISING, BROKEN_OFF)


def listed(offers: list[Offer]) -> Offer:
    culprit = next(wrong(offers), BROKEN_OFF)
    make = lambda store: [each.make(store) for each in offers]  # noqa: E731
    return Offer(f"{offers}", make, all_of(offers), offers, culprit.error, culprit.shown)


def several(one: Kind, named: str = "") -> Kind:
    """Return what an iterable of such things may be: two good ones, one with something wrong, or none."""
    fine = one.offers[0]
    return Kind(
        (listed([fine, fine]), *(listed([fine, each]) for each in wrong(one.offers)), *NO_ITERABLES),
        named,
        st.lists(one.strategy, max_size=3).map(listed) | st.sampled_from(NO_ITERABLES),
    )


keys = several(key)
values = several(value, "values?|datas?|metadatas?")
names = Kind((good("None", None), *keys.offers), "", st.just(good("None", None)) | keys.strategy)


def drawn(chosen: st.DataObject, kinds: dict[str, Kind]) -> dict[str, Offer]:
    """Draw an offer for each argument."""
    return chosen.draw(
        st.fixed_dictionaries({name: kind.strategy for name, kind in kinds.items()}), "arguments"
    )


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


fuzzing = settings(
    max_examples=EXAMPLES,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
