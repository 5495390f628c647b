"""`wait_for` and `wait_for_key`, where waiting is refused, and arguments of watches that are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from latchstore import DictMemoryStore, TransactionError, WaitTimeoutError, Watch, WatchClosedError
from latchstore.engine.transactional_store import TransactionalStore
from tests.contract.stores import TIMEOUT
from tests.contract.watches import SHORT, WatchStoreContract

WAITS: dict[str, Callable[[TransactionalStore, Watch], object]] = {
    "wait_for": lambda store, watch: store.wait_for(lambda: True),
    "wait_for_key": lambda store, watch: store.wait_for_key("k"),
    "flush": lambda store, watch: store.flush(),
    "close": lambda store, watch: store.close(),
    "get": lambda store, watch: watch.get(),
    "get for some time": lambda store, watch: watch.get(TIMEOUT),
    "next": lambda store, watch: next(watch),
    "for": lambda store, watch: list(watch),
    "zip": lambda store, watch: list(zip(range(3), watch, strict=False)),
}


class WaitForContract(WatchStoreContract):
    """Waiting for what others commit."""

    @pytest.fixture
    def frozen_clock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have the clock stand, as tests do that freeze time."""
        monkeypatch.setattr(time, "monotonic", lambda: 1.0)

    def test_wait_for_returns_what_the_predicate_gives(
        self, store: TransactionalStore, pool: ThreadPoolExecutor
    ) -> None:
        assert store.wait_for(lambda: "at once", 0) == "at once"
        asked = threading.Event()

        def enough() -> int:
            asked.set()
            return len(store) if len(store) >= 2 else 0

        waiting = pool.submit(store.wait_for, enough)
        assert asked.wait(TIMEOUT)
        for number in range(50):
            store.from_bytes(f"k{number}", b"")
        assert waiting.result(TIMEOUT) >= 2

    def test_wait_for_key(self, store: TransactionalStore, pool: ThreadPoolExecutor) -> None:
        for key in ("plain", "a*", "[b]?"):
            waiting = pool.submit(store.wait_for_key, key, TIMEOUT)
            store.from_bytes("another", b"")
            store.set(key, (b"data", {"n": 1}))
            value = waiting.result(TIMEOUT)
            assert (value.data.read(), value.metadata) == (b"data", {"n": 1})
        assert store.wait_for_key("plain", 0).size == 4

    def test_waiting_ends_with_the_time_or_with_the_store(
        self, store: TransactionalStore, pool: ThreadPoolExecutor
    ) -> None:
        def never() -> bool:
            return False

        with pytest.raises(WaitTimeoutError, match=r"never did not become true in 0\.02 s"):
            store.wait_for(never, SHORT)
        with pytest.raises(WaitTimeoutError, match=r"key 'k' did not appear in 0\.02 s"):
            store.wait_for_key("k", SHORT)
        asked = threading.Event()

        def ask() -> bool:
            asked.set()
            return False

        waiting = pool.submit(store.wait_for, ask)
        assert asked.wait(TIMEOUT)
        store.close()
        with pytest.raises(WatchClosedError, match=r"the store was closed during the wait for .*ask"):
            waiting.result(TIMEOUT)
        assert store.stats()["watches"] == 0

    @pytest.mark.usefixtures("frozen_clock")
    def test_waiting_ends_though_the_clock_stands(self, store: TransactionalStore) -> None:
        with store.watch() as changes, pytest.raises(WaitTimeoutError, match=r"no change in 0\.02 s"):
            changes.get(SHORT)
        with pytest.raises(WaitTimeoutError):
            store.wait_for(lambda: False, SHORT)
        with pytest.raises(WaitTimeoutError):
            store.wait_for_key("k", SHORT)

    @pytest.mark.parametrize("optimistic", [False, True])
    @pytest.mark.parametrize("wait", WAITS)
    def test_waiting_is_refused_where_nothing_could_come_of_it(
        self, store: TransactionalStore, wait: str, optimistic: bool
    ) -> None:
        watch = store.watch()
        with store.transaction(optimistic=optimistic):
            store.from_bytes("k", b"own")
            with pytest.raises(TransactionError, match=r"\w+\(\) cannot be called inside"):
                WAITS[wait](store, watch)
            with store.transaction("inner"), pytest.raises(TransactionError, match="cannot be called inside"):
                WAITS[wait](store, watch)
            with pytest.raises(WaitTimeoutError):
                watch.get(0)  # waits for nothing
        assert watch.get(TIMEOUT).key == "k"  # type: ignore[union-attr]

    def test_a_watch_of_another_store_can_be_waited_for_in_a_transaction(
        self, store: TransactionalStore, other: DictMemoryStore
    ) -> None:
        watch = other.watch()
        with store.transaction():
            other.from_bytes("k", b"")
            change = watch.get(TIMEOUT)
        assert change.source is other

    def test_what_a_predicate_raises_passes_through(self, store: TransactionalStore) -> None:
        with pytest.raises(ZeroDivisionError):
            store.wait_for(lambda: 1 // 0)
        assert store.stats()["watches"] == 0

    @pytest.mark.parametrize(
        ("call", "error", "message"),
        [
            (lambda s: s.watch(1), TypeError, "glob must be a str, got int 1"),
            (lambda s: s.watch(filter=[]), TypeError, "filter must be a mapping with str keys, got list"),
            (lambda s: s.watch(filter={1: 2}), TypeError, "filter must have str keys, got the key int 1"),
            (lambda s: s.watch(since="1"), TypeError, "since must be an int, got str '1'"),
            (lambda s: s.watch(since=-1), ValueError, "since must be at least 0, got -1"),
            (lambda s: s.watch(max_buffer=0), ValueError, "max_buffer must be at least 1, got 0"),
            (lambda s: s.watch(max_buffer=True), TypeError, "max_buffer must be an int, got bool True"),
            (
                lambda s: s.watch(on_overflow="x"),
                ValueError,
                "on_overflow must be 'drop' or 'coalesce', got str 'x'",
            ),
            (
                lambda s: s.watch().get("1"),
                TypeError,
                "timeout must be a number of seconds, a timedelta or None, got str '1'",
            ),
            (lambda s: s.wait_for(1), TypeError, "predicate must be callable, got int 1"),
            (lambda s: s.wait_for(print, -1), ValueError, "timeout must not be negative, got -1 seconds"),
            (lambda s: s.wait_for_key(1), TypeError, "key must be a str, got int 1"),
        ],
    )
    def test_bad_arguments(
        self, store: TransactionalStore, call: Callable[[Any], object], error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=f"^{message}"):
            call(store)
