"""Wrong and hostile arguments of a cache: as test_store.py says of a store.

After each call the cache's books are what its store has, and it goes on to work.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchstore import (
    Cache,
    CodecError,
    DictMemoryStore,
    EntryTooLargeError,
    EventManager,
    EvictionPolicy,
    LockTimeoutError,
)
from latchstore.cache.inspection import bounded_of, check, loads_of
from latchstore.cache.memoizing import Memoized
from latchstore.cache.policies import LRU
from latchstore.contract.codec import RawCodec
from latchstore.engine import inspection
from latchstore.engine.inspection import table_of
from tests.cache.clocks import TIMEOUT, Clock
from tests.hostile_arguments.offers import (
    RAISING,
    Calling,
    HostileError,
    OddInteger,
    Offer,
    all_of,
    bad,
    check_error,
    fuzzing,
    good,
    in_another_thread,
)
from tests.hostile_arguments.table import CACHE_CALLS, CACHE_CONSTRUCTOR, CACHE_READS, MAPPINGS, OPTIONS, fail


class Case:
    """A cache that is full, and what is to be kept of it."""

    def __init__(self, **options: Any) -> None:
        # The store is another's, so that the cache has to hear of what is written.
        self.store = DictMemoryStore(EventManager(), lock_timeout=5.0)
        self.clock = Clock()
        self.cache = Cache(self.store, codec="pickle", **{"max_entries": 3, "clock": self.clock, **options})
        self.cache.set_many({"kept": 1, "fine": 2, "also": 3}, tags=["tag"], metadata={"kind": "kept"})
        self.entries = dict(table_of(self.store).entries)

    def check_untouched(self) -> None:
        """Look whether nothing was changed but by evictions."""
        for name, entry in table_of(self.store).entries.items():
            assert self.entries[name] is entry

    def check_use(self, other: ThreadPoolExecutor) -> None:
        """Look whether the books are right, nothing is held, and the cache goes on, in both threads."""
        Calling.busy = True  # it has done what it is for
        try:
            self.check_books()
            other.submit(self._use).result(TIMEOUT)
            self._use()
        finally:
            Calling.busy = False
        inspection.check_idle(self.store)
        self.cache.close()
        self.store.close(TIMEOUT)

    def check_books(self) -> None:
        self.store.flush(TIMEOUT)
        check(self.cache)
        assert len(self.store) <= 3
        loads_of(self.cache).check_idle()

    def _use(self) -> None:
        self.cache.set("after", "value")
        assert self.cache["after"] == "value"
        with self.store.transaction():
            self.cache["after"] = 2
        assert self.cache.pop("after") == 2
        assert self.cache.get_or_load("after", lambda key: 3, timeout=TIMEOUT) == 3
        assert self.cache.delete("after")
        self.check_books()


#: What may fail though its arguments are good: keys that are missing, what comes back as an error.
MAY_FAIL = (KeyError, CodecError)


def uses(method: str, arguments: dict[str, Offer]) -> list[Offer]:
    """Return what a call looks at."""
    return [arguments["key"]] if method == "pop" else list(arguments.values())


@pytest.mark.timeout(600)
@pytest.mark.parametrize("method", CACHE_CALLS)
@fuzzing
@given(st.data())
def test_whatever_is_handed_in(other: ThreadPoolExecutor, method: str, chosen: st.DataObject) -> None:
    optional = {name: CACHE_CALLS[method][name] for name in CACHE_CALLS[method] if name in OPTIONS}
    # Most calls have few options, and one wrong one is enough.
    few = chosen.draw(st.sets(st.sampled_from(sorted(optional)), max_size=2)) if optional else set()
    arguments = {
        name: chosen.draw(kind.strategy, name)
        for name, kind in CACHE_CALLS[method].items()
        if name not in OPTIONS or name in few
    }
    inside = chosen.draw(st.booleans(), "inside a transaction") and method != "close"
    case = Case()
    error: BaseException | None = None
    try:
        given = {name: offer.make(case.store) for name, offer in arguments.items()}
        if inside:
            with case.store.transaction("fuzz"):
                getattr(case.cache, method)(**given)
        else:
            getattr(case.cache, method)(**given)
    except Exception as raised:
        error = raised
    if error is not None:
        check_error(error, {**arguments, "returns": RAISING, "positional": RAISING})
        case.check_untouched()
        assert isinstance(error, MAY_FAIL) or all_of(uses(method, arguments)) is not True, repr(error)
    elif method in (
        "set",
        "touch",
        "delete",
        "delete_glob",
        "invalidate_tag",
        "get",
        "remaining",
        "memoize",
        "close",
    ):
        assert all_of(uses(method, arguments)) is not False
    if method in CACHE_READS:
        case.check_untouched()
    case.check_use(other)


@pytest.mark.parametrize(
    ("argument", "offer"),
    [(name, offer) for name, offers in CACHE_CONSTRUCTOR.items() for offer in offers],
    ids=repr,
)
def test_whatever_the_constructor_is_handed(argument: str, offer: Offer) -> None:
    if not offer.good:
        with pytest.raises((HostileError, TypeError, ValueError)) as caught:
            Cache(**{argument: offer.make(None)})
        check_error(caught.value, {argument: offer})
        return
    made = Cache(**{argument: offer.make(None)})
    with suppress(EntryTooLargeError):
        made["key"] = "1" if argument == "codec" and offer.value == "json" else b"1"
    assert made.stats()["entries"] <= 1
    check(made)
    made.close(TIMEOUT)


@pytest.mark.parametrize("offer", MAPPINGS, ids=repr)
def test_whatever_is_updated_with(other: ThreadPoolExecutor, offer: Offer) -> None:
    case = Case()
    with nullcontext() if offer.good else pytest.raises((HostileError, CodecError, TypeError)):
        case.cache.update(offer.make(case.store))
    if not offer.good:
        case.check_untouched()
    case.check_use(other)


# -- policies, clocks and codecs that go wrong later ----------------------------------------------


class Wrong(LRU):
    """A policy that does as it is told when one of its methods is called, from some time on."""

    def __init__(self, method: str, act: Callable[[Any], Any], state: dict[str, Any]) -> None:
        super().__init__()
        self._method, self._act, self._state = method, act, state
        self.on_hit = self._hit

    def _wrong(self, method: str) -> bool:
        return bool(self._state.get("on")) and method == self._method

    def _hit(self, node: Any) -> None:
        if self._wrong("on_hit"):
            self._act(self._state)

    def add(self, node: Any) -> None:
        if self._wrong("add"):
            self._act(self._state)
        super().add(node)

    def remove(self, node: Any) -> None:
        if self._wrong("remove"):
            self._act(self._state)
        super().remove(node)

    def choose(self) -> Any:
        if self._wrong("choose"):
            return self._act(self._state)
        return super().choose()


def same_again(state: dict[str, Any]) -> Any:
    return bounded_of(state["cache"]).nodes["also"]


def use_the_cache(state: dict[str, Any]) -> Any:
    return state["cache"].set("inside", 1)


ACTS: dict[str, Callable[[Any], Any]] = {
    "raises": fail,
    "calls the cache": use_the_cache,
    "reads the cache": lambda state: state["cache"].get("kept"),
    "returns text": lambda state: "text",
    "returns None": lambda state: None,
    "returns the same again": same_again,
}


@pytest.mark.parametrize("method", ["add", "remove", "choose", "on_hit"])
@pytest.mark.parametrize("act", ACTS)
def test_policies_that_go_wrong(other: ThreadPoolExecutor, method: str, act: str) -> None:
    """What they raise comes out of the call, or an error that says what is wrong; then all goes on."""
    state: dict[str, Any] = {}
    case = Case(policy=lambda: Wrong(method, ACTS[act], state))
    state["cache"] = case.cache
    state["on"] = True
    told: list[str] = []
    for call in (
        lambda: case.cache.set("also", 1),
        lambda: case.cache.get("fine"),
        lambda: case.cache.set("new", 1),
        lambda: case.cache.delete("fine"),
        lambda: case.cache.set("newer", 1),
    ):
        try:
            other.submit(call).result(TIMEOUT)
        except (HostileError, RecursionError):
            pass
        except (TypeError, RuntimeError, LockTimeoutError) as error:
            told.append(str(error))
    assert all(re.search(r"choose\(\) of the policy|this thread is in the middle", text) for text in told)
    state["on"] = False
    case.cache.set("mended", 1)
    case.check_use(other)


@pytest.mark.parametrize("tells", [None, "now", HostileError("clock")], ids=repr)
@pytest.mark.parametrize("call", ["set", "touch", "get", "delete", "sweep", "get_or_load", "set_many"])
def test_clocks_that_go_wrong(other: ThreadPoolExecutor, call: str, tells: Any) -> None:
    """The call may fail, at whatever the clock has told; nothing is held, the next call mends the books."""
    case = Case(idle=100.0)
    now = case.clock.now

    def clock() -> Any:
        if isinstance(tells, Exception):
            raise tells
        return tells

    bounded_of(case.cache).clock = clock
    arguments: dict[str, tuple[Any, ...]] = {
        "set": ("new", 1),
        "touch": ("kept", 7.0),
        "get": ("kept",),
        "delete": ("kept",),
        "sweep": (),
        "get_or_load": ("new", lambda key: 1),
        "set_many": ({"new": 1, "newer": 2},),
    }
    try:
        getattr(case.cache, call)(*arguments[call])
    except (HostileError, TypeError):
        assert len(case.store) <= 4
    bounded_of(case.cache).clock = lambda: now
    case.cache.set("mended", 1)
    case.check_use(other)


class Coding(RawCodec):
    """A codec that does something on the way."""

    def __init__(self, encode: Callable[[Any], Any], decode: Callable[[Any], Any]) -> None:
        self._encode, self._decode = encode, decode

    def encode(self, value: Any) -> Any:
        return self._encode(value)

    def decode(self, data: bytes) -> Any:
        return self._decode(data)


@pytest.mark.parametrize(
    "returned", [None, "text", 7, bytearray(b"1"), memoryview(b"1")], ids=lambda value: type(value).__name__
)
def test_what_a_codec_returns(other: ThreadPoolExecutor, returned: Any) -> None:
    fine = isinstance(returned, (bytearray, memoryview))
    with Cache(max_entries=3, codec=Coding(lambda value: returned, bytes)) as cache:
        if fine:
            cache["key"] = 1
            assert cache["key"] == b"1"
        else:
            with pytest.raises(CodecError, match=r"'key'.*the result of encode"):
                cache["key"] = 1
            assert len(cache) == 0
        check(cache)


def test_memory_that_a_codec_cannot_have_is_no_fault_of_the_value() -> None:
    def exhausted(value: object) -> Any:
        raise MemoryError

    with Cache(codec=Coding(exhausted, bytes)) as cache, pytest.raises(MemoryError):
        cache["key"] = b"1"
    with Cache(codec=Coding(bytes, exhausted)) as cache:
        cache["key"] = b"1"
        for call in (cache.get, cache.pop):
            with pytest.raises(MemoryError):
                call("key")
        assert cache.store.to_bytes("key") == b"1"
        check(cache)


def test_a_policy_that_keeps_back_what_it_has_is_not_waited_for() -> None:
    """What is set is put past the bound, at once."""
    with Cache(max_entries=1, policy=lambda: Wrong("choose", lambda state: None, {"on": True})) as cache:
        cache["first"] = 1
        cache["second"] = 2
        assert dict(cache) == {"first": 1, "second": 2}


def writing(cache: Cache) -> Any:
    in_another_thread(lambda: cache.store.from_bytes("written", b"1"))


@pytest.mark.parametrize(
    "call",
    [
        lambda cache: cache.set("new", b"1"),
        lambda cache: cache.set_many({"new": b"1", "newer": b"1"}),
        lambda cache: cache.add("new", b"1"),
        lambda cache: cache.setdefault("new", b"1"),
        lambda cache: cache.setdefault("kept", b"1"),
        lambda cache: cache.update(new=b"1"),
        lambda cache: cache.modify("kept", lambda value: value),
        lambda cache: cache.get("kept"),
        lambda cache: cache.pop("kept"),
        lambda cache: cache.popitem(),
        lambda cache: dict(cache.items()),
        lambda cache: cache.get_or_load("new", lambda key: writing(cache) or b"1"),
        lambda cache: cache.get_many_or_load(["kept", "new"], lambda keys: {"new": writing(cache) or b"1"}),
        lambda cache: cache.memoize()(lambda: writing(cache) or b"1")(),
    ],
)
def test_codecs_and_loaders_hold_up_no_writer(call: Callable[[Cache], object]) -> None:
    ran: list[Any] = []

    def code(value: Any) -> Any:
        if ran:
            writing(cache)
            ran.append(value)
        return bytes(value)

    store = DictMemoryStore(EventManager())
    with Cache(store, max_entries=10, codec=Coding(code, code)) as cache:
        cache["kept"] = b"1"
        ran.append(None)
        call(cache)
        assert len(ran) > 1
        cache.set("after", b"1")
        store.flush(TIMEOUT)  # the cache hears of what was written
        check(cache)
    store.close(TIMEOUT)


def test_what_cannot_be_decoded_stays() -> None:
    with Cache(codec="json") as cache:
        cache.store.from_bytes("key", b"no JSON")
        for call in (cache.get, cache.pop, cache.setdefault, lambda key: cache.popitem()):
            with pytest.raises(CodecError, match="'key'"):
                call("key")
        assert cache.store.to_bytes("key") == b"no JSON"


# -- memoize --------------------------------------------------------------------------------------

FUNCTIONS_TO_KEEP = (
    good("one", lambda *arguments: 1),
    bad("a class", int),
    bad("a generator function", lambda: (yield)),
    bad("a class method", classmethod(fail)),
    bad("None", None),
    RAISING,
)


@pytest.mark.parametrize("offer", FUNCTIONS_TO_KEEP, ids=repr)
def test_whatever_is_memoized(other: ThreadPoolExecutor, offer: Offer) -> None:
    case = Case()
    with (
        nullcontext()
        if offer.good
        else pytest.raises(TypeError, match=r"memoize|returns something|generator function")
    ):
        kept = case.cache.memoize()(offer.make(case.store))
        assert isinstance(kept, Memoized)
        assert kept(1) == 1
    case.check_use(other)


ARGUMENTS = (
    good("1", 1),
    good("NUL", "a\0"),
    good("surrogate", "\ud800"),
    good("1 MB", "x" * 10**6),
    good("nested", [(1, {"a": {2}})]),
    bad("an object", object()),
    Offer("an odd int", lambda store: OddInteger(1), False),
    Offer("calling", Calling, False),
    RAISING,
)


@pytest.mark.parametrize("offer", ARGUMENTS, ids=repr)
def test_whatever_a_memoized_function_is_called_with(other: ThreadPoolExecutor, offer: Offer) -> None:
    case = Case()
    kept = case.cache.memoize()(lambda argument: 1)
    with nullcontext() if offer.good else pytest.raises(TypeError, match="argument"):
        assert kept(offer.make(case.store)) == 1
        assert kept.invalidate(offer.make(case.store))
    case.check_use(other)


@pytest.mark.parametrize("given", [{"key": fail}, {"tags": fail}, {"tags": lambda: 7}, {"tags": lambda: [7]}])
def test_functions_of_memoize_that_go_wrong(other: ThreadPoolExecutor, given: dict[str, Any]) -> None:
    case = Case()
    kept = case.cache.memoize(**given)(lambda: 1)
    with pytest.raises((HostileError, TypeError), match=r"raised by a function|tags"):
        kept()
    case.check_untouched()
    case.check_use(other)


def test_a_policy_that_is_abstract() -> None:
    with pytest.raises(TypeError):
        Cache(policy=EvictionPolicy)
