"""docs/explanation/reading-the-source.md lists what calls pass; here they are traced and compared."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import latchstore
from latchstore import Cache, DictMemoryStore, EventManager, StoreSetEvent

PACKAGE = Path(latchstore.__file__).parent
PAGE = Path(__file__).parent.parent / "docs" / "explanation" / "reading-the-source.md"

#: From top to bottom.
ROOMS = ("cache", "engine", "delivery", "contract")

TIMEOUT = 20.0

VALUE = (b"data", {"kind": "a"})


class Trace:
    """Functions of the package that a thread enters; for ``sys.setprofile``."""

    def __init__(self) -> None:
        #: Depth and name of each, in order.
        self.entered: list[tuple[int, str]] = []

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and (name := name_of(frame)) is not None:
            callers = 0
            outer = frame.f_back
            while outer is not None:
                callers += name_of(outer) is not None
                outer = outer.f_back
            self.entered.append((callers, name))

    def lines(self) -> list[str]:
        """Return them as the page has them."""
        least = min(depth for depth, _ in self.entered)
        return [f"{'    ' * (depth - least)}{name}" for depth, name in self.entered]


def name_of(frame: FrameType) -> str | None:
    path = Path(frame.f_code.co_filename)
    # Comprehensions are functions on Python 3.11 only. The name of a listener is asked for by the slowest
    # alone.
    if not path.is_relative_to(PACKAGE) or frame.f_code.co_name.startswith(("<", "listener_name")):
        return None
    module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    # By which 3.14 alone takes locks: the page has a sentence on it.
    return None if module == "contract.with_lock" else f"{module}: {frame.f_code.co_qualname}"


def trace(call: Callable[[], object]) -> list[str]:
    traced = Trace()
    before = sys.getprofile()
    sys.setprofile(traced)
    try:
        call()
    finally:
        sys.setprofile(before)
    return traced.lines()


@pytest.fixture
def store() -> Iterator[DictMemoryStore]:
    with DictMemoryStore(EventManager()) as store:
        store.set("k", VALUE)
        yield store


@pytest.fixture(autouse=True)
def _no_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a program that does not use what has tasks, which other tests may have loaded."""
    for library in ("asyncio", "trio", "greenlet"):
        monkeypatch.delitem(sys.modules, library, raising=False)


def traced_get(store: DictMemoryStore) -> list[str]:
    return trace(lambda: store.get("k"))


def traced_set(store: DictMemoryStore) -> list[str]:
    return trace(lambda: store.set("k", VALUE))


def traced_set_in_a_transaction(store: DictMemoryStore) -> list[str]:
    with store.transaction():
        store.set("other", VALUE)
        return trace(lambda: store.set("k", VALUE))


def traced_end(store: DictMemoryStore) -> list[str]:
    with store.transaction():  # what this has the event manager remember is not asked for again
        store.set("k", VALUE)
    transaction = store.transaction()
    transaction.__enter__()
    store.set("k", VALUE)
    return trace(lambda: transaction.__exit__(None, None, None))


def listener(event: object) -> None:
    """Hear of a set."""


def traced_heard_set(store: DictMemoryStore) -> list[str]:
    store.event_manager.connect(StoreSetEvent, listener)
    store.set("k", VALUE)
    store.flush(TIMEOUT)
    lines = trace(lambda: store.set("k", VALUE))
    # The thread is woken if it sleeps already.
    return [line for line in lines if not line.endswith("DeliveryQueue.wake")]


def traced_event(store: DictMemoryStore) -> list[str]:
    traced: Any = Trace()
    threading.setprofile(traced)
    try:
        store.event_manager.connect(StoreSetEvent, listener)
        store.set("k", VALUE)
        store.flush(TIMEOUT)
        # What the first event has made the manager remember is not made again. The thread is back at its
        # queue.
        store.flush(TIMEOUT)
        traced.entered.clear()
        store.set("k", VALUE)
        store.flush(TIMEOUT)
        entered = list(traced.entered)
    finally:
        threading.setprofile(None)
    begin = next(place for place, (_, name) in enumerate(entered) if name.endswith("EmittedDelivery.deliver"))
    depth = entered[begin][0]
    within = entered[begin + 1 :]
    end = next((place for place, (each, _) in enumerate(within) if each <= depth), len(within))
    traced.entered = [entered[begin], *within[:end]]
    lines: list[str] = traced.lines()
    return lines


def full_cache() -> Cache:
    cache: Cache = Cache(max_entries=2)
    cache.set_many({"k": 1, "other": 2})
    cache.get("k")
    cache.set("new", 3)  # what the first time only has to be made
    return cache


def traced_hit(store: DictMemoryStore) -> list[str]:
    with full_cache() as cache:
        return trace(lambda: cache.get("new"))


def traced_evicting(store: DictMemoryStore) -> list[str]:
    with full_cache() as cache:
        return trace(lambda: cache.set("newer", 4))


#: What a cache hands down, as users do with listeners.
POLICY = "cache.policies: "

TRACES: dict[str, Callable[[DictMemoryStore], list[str]]] = {
    "get": traced_get,
    "set": traced_set,
    "set in a transaction": traced_set_in_a_transaction,
    "end of a transaction": traced_end,
    "set, heard": traced_heard_set,
    "event": traced_event,
    "cache: get": traced_hit,
    "cache: set, evicting": traced_evicting,
}


def written(name: str) -> list[str]:
    """Return what the page has for a call."""
    found = re.search(rf"<!-- {re.escape(name)} -->\n```text\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert found is not None, name
    return found[1].splitlines()


@pytest.mark.parametrize("name", TRACES)
def test_the_page_has_what_a_call_passes(name: str, store: DictMemoryStore) -> None:
    assert written(name) == TRACES[name](store)


def edges(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Find the rooms of each caller and callee."""
    callers: list[str] = []
    for line in lines:
        depth = (len(line) - len(line.lstrip())) // 4
        room = line.strip().partition(".")[0]
        if depth:
            yield callers[depth - 1], room
        callers[depth:] = [room]


@pytest.mark.parametrize("name", TRACES)
def test_no_call_goes_up(name: str) -> None:
    up = [
        (caller, callee)
        for caller, callee in edges([line for line in written(name) if POLICY not in line])
        if ROOMS.index(callee) < ROOMS.index(caller)
    ]
    assert up == []


def test_a_set_passes_few_functions() -> None:
    assert len({line.strip() for line in written("set")}) <= 8
