"""Every time that a public method takes may be a number of seconds or a timedelta.

Those that are options of a cache: tests/cache/test_options.py.
"""

from __future__ import annotations

import inspect
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import timedelta
from typing import Any

import pytest

import latchstore
from latchstore import Cache, DictMemoryStore, EventManager, Seconds, Transaction, Watch
from latchstore.contract.arguments import checked_seconds, checked_timeout

HOUR = timedelta(hours=1)

#: Calls with a time, by the class, the method and the parameter; the store or cache has "key".
CALLS: dict[str, Callable[[Any, Any], object]] = {
    "DictMemoryStore.__init__.lock_timeout": lambda store, time: DictMemoryStore(
        EventManager(), lock_timeout=time
    ),
    "DictMemoryStore.close.timeout": lambda store, time: store.close(time),
    "DictMemoryStore.flush.timeout": lambda store, time: store.flush(time),
    "DictMemoryStore.call_later.seconds": lambda store, time: store.call_later(time, print).cancel(),
    "DictMemoryStore.transaction.timeout": lambda store, time: block(store.transaction(timeout=time)),
    "DictMemoryStore.attempts.timeout": lambda store, time: attempted(store, time),
    "DictMemoryStore.transactional.timeout": lambda store, time: store.transactional(timeout=time)(print)(),
    "DictMemoryStore.wait_for.timeout": lambda store, time: store.wait_for(lambda: True, time),
    "DictMemoryStore.wait_for_key.timeout": lambda store, time: store.wait_for_key("key", time),
    "Transaction.transaction.timeout": lambda store, time: inner_block(store, time),
    "Watch.get.timeout": lambda store, time: watched(store, time),
    "Snapshot.close.timeout": lambda store, time: store.snapshot().close(time),
    "Cache.__init__.ttl": lambda cache, time: Cache(ttl=time),
    "Cache.__init__.idle": lambda cache, time: Cache(idle=time),
    "Cache.close.timeout": lambda cache, time: cache.close(time),
    "Cache.touch.ttl": lambda cache, time: cache.touch("key", time),
}

#: Those that refuse nothing: the close of a snapshot never waits, and a transaction is never flushed.
UNCHECKED = {"Snapshot.close.timeout"}


def block(transaction: Any) -> None:
    with transaction:
        pass


def attempted(store: DictMemoryStore, time: Any) -> None:
    for attempt in store.attempts(timeout=time):
        block(attempt)


def inner_block(store: DictMemoryStore, time: Any) -> None:
    with store.transaction() as transaction, transaction.transaction(timeout=time):
        pass


def watched(store: DictMemoryStore, time: Any) -> None:
    with closing(store.watch()) as changes:
        store.from_bytes("other", b"")
        changes.get(time)


@pytest.fixture
def subjects() -> Iterator[dict[str, Any]]:
    with ExitStack() as stack:
        store = stack.enter_context(DictMemoryStore(EventManager()))
        store.from_bytes("key", b"data")
        cache: Cache = stack.enter_context(Cache())
        cache["key"] = 1
        yield {"cache": cache, "store": store}


def parameters_of(cls: type) -> Iterator[str]:
    for name, method in inspect.getmembers(cls, inspect.isfunction):
        if not name.startswith("_") or (name == "__init__" and cls in (DictMemoryStore, Cache)):
            for parameter in inspect.signature(method).parameters.values():
                if re.search(r"\bSeconds\b", str(parameter.annotation)):
                    yield f"{cls.__name__}.{name}.{parameter.name}"


def test_all_are_here() -> None:
    """Nothing takes bare seconds, and what takes `Seconds` is tested below."""
    classes = [DictMemoryStore, latchstore.Snapshot, Watch, Cache, Transaction]
    found = {parameter for cls in classes for parameter in parameters_of(cls)}
    assert found - set(CALLS) <= {"Transaction.flush.timeout", "Transaction.close.timeout"}
    assert set(CALLS) <= found
    for cls in classes:
        for name, method in inspect.getmembers(cls, inspect.isfunction):
            if not name.startswith("_"):
                annotations = [str(each.annotation) for each in inspect.signature(method).parameters.values()]
                assert not any("float" in each for each in annotations), (cls, name)


@pytest.mark.parametrize("name", CALLS)
def test_a_timedelta_is_as_good_as_seconds(name: str, subjects: dict[str, Any]) -> None:
    subject = subjects["cache" if name.startswith("Cache.") else "store"]
    CALLS[name](subject, HOUR)
    if name not in UNCHECKED:
        with pytest.raises(ValueError, match=f"{name.rpartition('.')[2]} must .*, got -1.0 seconds"):
            CALLS[name](subject, timedelta(seconds=-1))
        with pytest.raises(TypeError, match=f"{name.rpartition('.')[2]} must be a number of seconds, a time"):
            CALLS[name](subject, "1")


def test_what_they_are() -> None:
    assert checked_timeout(HOUR) == checked_seconds(HOUR, "ttl") == 3600.0
    assert checked_timeout(timedelta(0)) == 0
    assert checked_timeout(timedelta.max) == min(timedelta.max.total_seconds(), threading.TIMEOUT_MAX)
    assert checked_seconds(timedelta.max, "ttl") == timedelta.max.total_seconds()
    assert checked_seconds(timedelta(microseconds=1), "ttl") == 1e-6
    with pytest.raises(ValueError, match="ttl must be positive"):
        checked_seconds(timedelta(0), "ttl")
    wait: Seconds | None = HOUR
    assert checked_timeout(wait) == 3600


def test_a_method_of_a_subclass_is_not_called() -> None:
    class Odd(timedelta):
        def total_seconds(self) -> float:
            pytest.fail("a method of the caller's was called")

    assert checked_timeout(Odd(seconds=2)) == 2.0
