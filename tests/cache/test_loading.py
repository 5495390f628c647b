"""A key is loaded by one thread at a time; what is set or deleted meanwhile counts more than the load."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from latchstore import Cache, LoadTimeoutError, RecursiveLoadError
from latchstore.cache.inspection import check, failures_of, loads_of, register_of
from latchstore.engine.table import Table
from latchstore.engine.transaction import Transaction
from tests.cache.clocks import TIMEOUT, Clock
from tests.schedules import in_another_thread, run_threads
from tests.test_fork import in_child


class Undone(Exception):
    """Rolls a block back."""


class Refused(Exception):
    """What a loader fails with."""


class Loader:
    """Says when it is called, and goes on when it is told to."""

    def __init__(self, value: Any = "loaded") -> None:
        self.value = value
        self.calls: list[str] = []
        self.entered, self.go_on = threading.Event(), threading.Event()

    def __call__(self, key: str) -> Any:
        self.calls.append(key)
        self.entered.set()
        assert self.go_on.wait(TIMEOUT)
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


def await_waiters(waits: threading.Semaphore, count: int) -> None:
    for _ in range(count):
        assert waits.acquire(timeout=TIMEOUT)


class Loading:
    """A load that is under way in another thread, until the block ends."""

    def __init__(self, cache: Cache, pool: ThreadPoolExecutor, loader: Loader, **options: Any) -> None:
        self.loader = loader
        self.future: Future[Any] = pool.submit(lambda: cache.get_or_load("key", loader, **options))

    def __enter__(self) -> Loading:
        assert self.loader.entered.wait(TIMEOUT)
        return self

    def __exit__(self, *_: object) -> None:
        self.loader.go_on.set()

    def result(self) -> Any:
        return self.future.result(TIMEOUT)


class TestOnce:
    def test_64_threads_ask_for_one_cold_key(
        self, cache: Cache, pool: ThreadPoolExecutor, waits: threading.Semaphore
    ) -> None:
        loader = Loader()
        futures = [pool.submit(cache.get_or_load, "key", loader) for _ in range(64)]
        await_waiters(waits, 63)
        loader.go_on.set()
        assert [future.result(TIMEOUT) for future in futures] == ["loaded"] * 64
        assert loader.calls == ["key"]
        assert cache.stats()["loads"] == 1

    def test_its_exception_reaches_all_and_is_not_kept(
        self, cache: Cache, pool: ThreadPoolExecutor, waits: threading.Semaphore
    ) -> None:
        loader = Loader(Refused("no"))
        futures = [pool.submit(cache.get_or_load, "key", loader) for _ in range(64)]
        await_waiters(waits, 63)
        loader.go_on.set()
        assert all(type(future.exception(TIMEOUT)) is Refused for future in futures)
        assert loader.calls == ["key"]
        assert cache.get_or_load("key", lambda key: "better") == "better"

    def test_1000_keys_that_expire_together_are_loaded_once_each(self, cache: Cache, clock: Clock) -> None:
        keys = [f"key{number}" for number in range(1_000)]
        cache.set_many(dict.fromkeys(keys, "old"), ttl=10.0)
        clock.now += 10
        calls: list[str] = []

        def load(key: str) -> str:
            calls.append(key)
            return "new"

        def body(first: int) -> None:
            for key in keys[first:] + keys[:first]:
                assert cache.get_or_load(key, load, ttl=10.0) == "new"

        run_threads(lambda first=first: body(first) for first in [0, 0, 0, 0, *range(12)])  # type: ignore[misc]
        assert sorted(calls) == sorted(keys)

    def test_who_asks_after_a_load_has_ended_looks_again_before_it_loads(
        self, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between its miss and its claim another may have loaded the key."""
        claim = loads_of(cache).claim

        def late(load: Any) -> Any:
            monkeypatch.undo()
            in_another_thread(lambda: cache.get_or_load("key", lambda key: "first"))
            return claim(load)

        monkeypatch.setattr(loads_of(cache), "claim", late)
        assert cache.get_or_load("key", lambda key: pytest.fail("was loaded twice")) == "first"

    def test_an_old_load_that_is_joined_after_a_delete_is_not_believed(
        self, cache: Cache, pool: ThreadPoolExecutor, waits: threading.Semaphore
    ) -> None:
        with Loading(cache, pool, Loader("old")) as old:
            cache.delete("key")
            asked = pool.submit(cache.get_or_load, "key", lambda key: "new")
            await_waiters(waits, 1)
        assert (old.result(), asked.result(TIMEOUT), cache["key"]) == ("old", "new", "new")


class TestFailures:
    def fail(self, key: str) -> None:
        raise Refused(key)

    def test_negative_ttl(self, cache: Cache, clock: Clock) -> None:
        with pytest.raises(Refused):
            cache.get_or_load("key", self.fail, negative_ttl=5.0)
        clock.now += 4.9
        with pytest.raises(Refused):
            cache.get_or_load("key", lambda key: "loaded")
        clock.now += 0.1
        assert cache.get_or_load("key", lambda key: "loaded") == "loaded"

    @pytest.mark.parametrize(
        "forget",
        [
            lambda cache: cache.delete("key"),
            lambda cache: cache.clear(),
            lambda cache: cache.invalidate_tag("tag"),
            lambda cache: (cache.set("key", 1), cache.store.evict("key", "size")),
        ],
    )
    def test_a_failure_is_forgotten(self, cache: Cache, forget: Callable[[Cache], object]) -> None:
        with pytest.raises(Refused):
            cache.get_or_load("key", self.fail, negative_ttl=5.0, tags=["tag"])
        forget(cache)
        assert cache.get_or_load("key", lambda key: "loaded") == "loaded"

    def test_other_tags_forget_nothing(self, cache: Cache) -> None:
        with pytest.raises(Refused):
            cache.get_or_load("key", self.fail, negative_ttl=5.0, tags=["tag"])
        cache.invalidate_tag("another")
        with pytest.raises(Refused):
            cache.get_or_load("key", lambda key: "loaded")

    @pytest.mark.parametrize("forget", [lambda c: c.delete("key"), lambda c: c.clear()])
    def test_a_delete_during_the_load_counts_more_than_its_failure(
        self, cache: Cache, pool: ThreadPoolExecutor, forget: Callable[[Cache], object]
    ) -> None:
        with Loading(cache, pool, Loader(Refused("no")), negative_ttl=5.0) as loading:
            forget(cache)
        with pytest.raises(Refused):
            loading.result()
        assert cache.get_or_load("key", lambda key: "loaded") == "loaded"

    def test_only_so_many_are_remembered(self, cache: Cache, clock: Clock) -> None:
        for number in range(1_100):
            with pytest.raises(Refused):
                cache.get_or_load(f"key{number}", self.fail, negative_ttl=5.0)
        assert len(failures_of(cache)) <= 1_000
        clock.now += 5
        with pytest.raises(Refused):
            cache.get_or_load("key", self.fail, negative_ttl=5.0)
        assert list(failures_of(cache)) == ["key"]


REMOVALS: dict[str, Callable[[Cache], object]] = {
    "delete": lambda cache: cache.delete("key"),
    "invalidate_tag": lambda cache: cache.invalidate_tag("tag"),
    "clear": lambda cache: cache.clear(),
}


class TestNoResurrection:
    @pytest.mark.parametrize("remove", REMOVALS.values(), ids=REMOVALS)
    def test_what_is_removed_during_the_load(
        self, cache: Cache, pool: ThreadPoolExecutor, remove: Callable[[Cache], object]
    ) -> None:
        with Loading(cache, pool, Loader(), tags=["tag"]) as loading:
            remove(cache)
        assert loading.result() == "loaded"
        assert "key" not in cache

    def test_what_is_set_during_the_load(self, cache: Cache, pool: ThreadPoolExecutor) -> None:
        with Loading(cache, pool, Loader()) as loading:
            cache["key"] = "set"
        assert loading.result() == cache["key"] == "set"

    def test_what_is_set_and_evicted_during_the_load(self, cache: Cache, pool: ThreadPoolExecutor) -> None:
        with Loading(cache, pool, Loader()) as loading:
            cache["key"] = "set"
            cache.store.evict("key", "size")
        assert loading.result() == "loaded"
        assert "key" not in cache

    def test_other_tags_are_nothing_to_it(self, cache: Cache, pool: ThreadPoolExecutor) -> None:
        with Loading(cache, pool, Loader(), tags=["tag"]) as loading:
            cache.invalidate_tag("another")
            cache.delete("another")
        assert loading.result() == cache["key"] == "loaded"

    @pytest.mark.parametrize("optimistic", [False, True])
    @pytest.mark.parametrize("remove", REMOVALS.values(), ids=REMOVALS)
    def test_in_a_transaction_that_is_committed(
        self, cache: Cache, pool: ThreadPoolExecutor, remove: Callable[[Cache], object], optimistic: bool
    ) -> None:
        store: Any = cache.store
        with (
            Loading(cache, pool, Loader(), tags=["tag"]) as loading,
            store.transaction(optimistic=optimistic),
        ):
            remove(cache)
        assert loading.result() == "loaded"
        assert "key" not in cache

    @pytest.mark.parametrize("optimistic", [False, True])
    @pytest.mark.parametrize("remove", REMOVALS.values(), ids=REMOVALS)
    def test_a_load_that_begins_before_the_transaction_is_committed(
        self, cache: Cache, pool: ThreadPoolExecutor, remove: Callable[[Cache], object], optimistic: bool
    ) -> None:
        """It may have read what was there before, and ends when the key has been deleted."""
        store: Any = cache.store
        loader = Loader()
        cache.set("another", 1, tags=["tag"])  # or the load would wait to have the index made
        with store.transaction(optimistic=optimistic):
            with store.transaction():
                remove(cache)
            loading = Loading(cache, pool, loader, tags=["tag"])
            assert loader.entered.wait(TIMEOUT)
        loader.go_on.set()
        assert loading.result() == "loaded"
        assert "key" not in cache
        assert cache.get_or_load("key", lambda key: "new") == cache["key"] == "new"

    @pytest.mark.parametrize("remove", REMOVALS.values(), ids=REMOVALS)
    def test_and_that_ends_as_soon_as_it_is_committed(
        self, cache: Cache, pool: ThreadPoolExecutor, remove: Callable[[Cache], object]
    ) -> None:
        """Before the cache is told of the commit."""
        store: Any = cache.store
        loader = Loader()
        cache.set("another", 1, tags=["tag"])
        values: list[Any] = []

        def end_load() -> None:
            loader.go_on.set()
            values.append(loading.result())

        with store.transaction() as transaction:
            transaction.on_commit(end_load)
            remove(cache)
            loading = Loading(cache, pool, loader, tags=["tag"])
            assert loader.entered.wait(TIMEOUT)
        assert values == ["loaded"]
        assert "key" not in cache

    @pytest.mark.parametrize("remove", REMOVALS.values(), ids=REMOVALS)
    def test_a_transaction_that_was_rolled_back_before_the_load(
        self, cache: Cache, remove: Callable[[Cache], object]
    ) -> None:
        with contextlib.suppress(Undone), cache.store.transaction():
            remove(cache)
            raise Undone
        assert cache.get_or_load("key", lambda key: "loaded", tags=["tag"]) == cache["key"] == "loaded"

    @pytest.mark.parametrize("remove", REMOVALS.values(), ids=REMOVALS)
    def test_a_transaction_that_never_came_to_its_end(
        self, cache: Cache, remove: Callable[[Cache], object]
    ) -> None:
        """As if an exception had struck its ``__exit__``, or a generator were dropped in the block."""
        transaction = cache.store.transaction()
        transaction.__enter__()
        remove(cache)
        del transaction
        cache.get_or_load("key", lambda key: "loaded", tags=["tag"])
        assert cache["key"] == "loaded"
        loads_of(cache).check_idle()

    def test_a_set_that_is_rolled_back(self, cache: Cache, pool: ThreadPoolExecutor) -> None:
        with (
            Loading(cache, pool, Loader()) as loading,
            contextlib.suppress(Undone),
            cache.store.transaction(),
        ):
            cache["key"] = "undone"
            raise Undone
        assert loading.result() == "loaded"
        assert cache.get("key", "loaded") == "loaded"

    def test_a_set_that_is_committed(self, cache: Cache, pool: ThreadPoolExecutor) -> None:
        with Loading(cache, pool, Loader()) as loading, cache.store.transaction():
            cache["key"] = "set"
        assert loading.result() == cache["key"] == "set"

    def test_who_asks_after_the_commit_does_not_get_what_was_loaded_before(
        self, cache: Cache, pool: ThreadPoolExecutor, waits: threading.Semaphore
    ) -> None:
        loader = Loader("old")
        with cache.store.transaction():
            cache.delete("key")
            loading = Loading(cache, pool, loader)
            assert loader.entered.wait(TIMEOUT)
        asked = pool.submit(cache.get_or_load, "key", lambda key: "new")
        await_waiters(waits, 1)
        loader.go_on.set()
        assert (loading.result(), asked.result(TIMEOUT), cache["key"]) == ("old", "new", "new")

    def test_an_expired_entry_that_is_swept_during_the_load(
        self, cache: Cache, clock: Clock, pool: ThreadPoolExecutor
    ) -> None:
        cache.set("key", "old", ttl=1.0)
        clock.now += 1
        with Loading(cache, pool, Loader()) as loading:
            assert cache.sweep() == 1
        assert loading.result() == cache["key"] == "loaded"


class TestNoStaleValue:
    """Who asks after a removal has returned never gets what was there before, whatever is being loaded."""

    @pytest.mark.parametrize("remove", [*REMOVALS.values(), lambda cache: cache.set("key", "new")])
    @pytest.mark.parametrize("claimed", ["before the commit", "in the middle of it"])
    def test_a_load_that_has_found_the_old_value(
        self,
        pool: ThreadPoolExecutor,
        waits: threading.Semaphore,
        monkeypatch: pytest.MonkeyPatch,
        remove: Callable[[Cache], object],
        claimed: str,
    ) -> None:
        """It had missed; another thread has loaded the key since, whose value it finds; it is put aside."""
        found, go_on = threading.Event(), threading.Event()
        finish = Table.finish
        late = threading.local()

        class Late(Cache):
            def get(self, key: str, default: Any = None) -> Any:
                return default if getattr(late, "misses", False) else super().get(key, default)

            def _live_content(self, key: str) -> Any:
                content = super()._live_content(key)
                if getattr(late, "misses", False):
                    found.set()
                    assert go_on.wait(TIMEOUT)
                return content

        def ask_late() -> Any:
            late.misses = True
            return cache.get_or_load("key", lambda key: "new", tags=["tag"])

        def finish_late(table: Table) -> None:
            monkeypatch.setattr(Table, "finish", finish)
            asked.append(pool.submit(ask_late))
            assert found.wait(TIMEOUT)
            finish(table)

        asked: list[Future[Any]] = []
        with Late() as cache:
            cache.set("key", "old", tags=["tag"])
            if claimed == "before the commit":
                asked.append(pool.submit(ask_late))
                assert found.wait(TIMEOUT)
            else:
                monkeypatch.setattr(Table, "finish", finish_late)
            remove(cache)
            assert found.is_set()
            after = pool.submit(cache.get_or_load, "key", lambda key: "new", tags=["tag"])
            if "key" not in cache:
                await_waiters(waits, 1)  # it has found the other's load
            go_on.set()
            assert after.result(TIMEOUT) == "new"
            assert asked[0].result(TIMEOUT) in ("old", "new")
            assert cache.get("key", "new") == "new"
            check(cache)

    def test_many_threads(self, clock: Clock) -> None:
        """Whoever asks gets what was the newest when it asked, or something newer."""
        newest = dict.fromkeys("abcd", 0)
        removed = dict.fromkeys("abcd", 0)
        guards = {key: threading.Lock() for key in "abcd"}

        with Cache(codec="pickle", max_entries=3, clock=clock) as cache:

            def write(first: int) -> None:
                for number in range(60):
                    key = "abcd"[(first + number) % 4]
                    with guards[key]:
                        newest[key] += 1
                        version = newest[key]
                        what = (number + first) % 6
                        if what == 0:
                            cache[key] = version
                        elif what == 1:
                            cache.invalidate_tag(key)
                        elif what == 2:
                            cache.clear()
                        elif what == 3:
                            with cache.store.transaction():
                                cache.delete(key)
                        elif what == 4:
                            cache.store.set(key, (cache.codec.encode(version), {}))
                        else:
                            cache.delete(key)
                        removed[key] = version

            def read(first: int) -> None:
                for number in range(240):
                    key = "abcd"[(first + number) % 4]
                    least = removed[key]
                    if number % 8 == 7:
                        got = cache.get_many_or_load(
                            [key], lambda keys: {k: newest[k] for k in keys}, tags=[key]
                        )
                        value = got[key]
                    else:
                        value = cache.get_or_load(key, newest.__getitem__, tags=[key])
                    assert value >= least, (key, value, least)
                    found = cache.get(key)
                    assert found is None or found >= least

            run_threads([*(partial(write, n) for n in range(4)), *(partial(read, n) for n in range(6))])
            check(cache)


class TestInsideTransactions:
    def test_what_is_loaded_goes_with_the_commit(self, cache: Cache) -> None:
        with cache.store.transaction():
            assert cache.get_or_load("key", lambda key: "loaded") == "loaded"
            assert cache["key"] == "loaded"
            assert in_another_thread(lambda: cache.get("key")) is None
        assert cache["key"] == "loaded"

    def test_or_not_at_all(self, cache: Cache) -> None:
        with contextlib.suppress(Undone), cache.store.transaction():
            cache.get_or_load("key", lambda key: "loaded")
            assert cache.get_many_or_load(["key", "a"], lambda keys: {"a": 1}) == {"key": "loaded", "a": 1}
            raise Undone
        assert len(cache) == 0

    def test_it_waits_for_no_other_thread(self, cache: Cache, pool: ThreadPoolExecutor) -> None:
        with Loading(cache, pool, Loader("outside")) as loading, cache.store.transaction():
            assert cache.get_or_load("key", lambda key: "inside") == "inside"
            assert cache.get_many_or_load(["key"], lambda keys: {}) == {"key": "inside"}
        assert loading.result() == cache["key"] == "inside"

    @pytest.mark.parametrize("many", [False, True])
    def test_what_the_loader_sets_or_deletes_counts_more(self, cache: Cache, many: bool) -> None:
        def load(step: Callable[[], object]) -> Any:
            def load_one(key: str) -> str:
                step()
                return "loaded"

            def load_many(keys: list[str]) -> Mapping[str, str]:
                step()
                return dict.fromkeys(keys, "loaded")

            return (
                cache.get_many_or_load(["key"], load_many)["key"]
                if many
                else cache.get_or_load("key", load_one)
            )

        with cache.store.transaction():
            assert load(lambda: cache.set("key", "set")) == cache["key"] == "set"
            cache.delete("key")
            assert load(lambda: cache.delete("key")) == "loaded"
            assert "key" not in cache
            assert load(lambda: None) == cache["key"] == "loaded"

    def test_recursion(self, cache: Cache) -> None:
        with cache.store.transaction():
            with pytest.raises(RecursiveLoadError, match="'key'"):
                cache.get_or_load("key", lambda key: cache.get_or_load(key, lambda key: 1))
            with pytest.raises(RecursiveLoadError, match="'key'"):
                cache.get_many_or_load(["key"], lambda keys: {"key": cache.get_or_load("key", lambda key: 1)})
            with pytest.raises(RecursiveLoadError, match="'key'"):
                cache.get_or_load("key", lambda key: cache.get_many_or_load([key], lambda keys: {}))
            assert cache.get_or_load("key", lambda key: cache.get_or_load("other", str.upper)) == "OTHER"

    def test_recursion_into_a_transaction(self, cache: Cache) -> None:
        def load(key: str) -> Any:
            with cache.store.transaction():
                return cache.get_or_load(key, lambda key: 1)

        with pytest.raises(RecursiveLoadError, match="'key'"):
            cache.get_or_load("key", load)


class TestRecursion:
    def test_the_same_thread(self, cache: Cache) -> None:
        with pytest.raises(RecursiveLoadError, match="'key'"):
            cache.get_or_load("key", lambda key: cache.get_or_load(key, lambda key: 1))
        with pytest.raises(RecursiveLoadError, match="'key'"):
            cache.get_many_or_load(["key"], lambda keys: cache.get_many_or_load(keys, lambda keys: {}))
        assert cache.get_or_load("key", lambda key: 1) == 1

    def test_a_circle_of_two_threads(self, cache: Cache) -> None:
        both = threading.Barrier(2)
        found: dict[str, Any] = {}

        def load(key: str) -> str:
            both.wait(TIMEOUT)
            other = {"a": "b", "b": "a"}[key]
            return "of " + str(cache.get_or_load(other, lambda key: "alone"))

        def body(key: str) -> None:
            try:
                found[key] = cache.get_or_load(key, load)
            except RecursiveLoadError as error:
                found[key] = error

        run_threads([lambda: body("a"), lambda: body("b")])
        # The error of one reaches the other, who waits for it; or that loads by itself.
        errors = [value for value in found.values() if isinstance(value, RecursiveLoadError)]
        assert errors
        assert len(found) == 2

    def test_a_circle_of_one_key_and_of_many(self, cache: Cache) -> None:
        both = threading.Barrier(2)

        def load_many(keys: list[str]) -> dict[str, Any]:
            both.wait(TIMEOUT)
            return {key: cache.get_or_load("c", lambda key: "alone") for key in keys}

        def load_one(key: str) -> Any:
            both.wait(TIMEOUT)
            return cache.get_or_load("b", lambda key: "alone")

        errors: list[BaseException] = []

        def body(step: Callable[[], object]) -> None:
            try:
                step()
            except RecursiveLoadError as error:
                errors.append(error)

        run_threads(
            [
                lambda: body(lambda: cache.get_many_or_load(["a", "b"], load_many)),
                lambda: body(lambda: cache.get_or_load("c", load_one)),
            ]
        )
        assert errors


class TestWaiting:
    def test_a_timeout_leaves_the_load_running(self, cache: Cache, pool: ThreadPoolExecutor) -> None:
        with Loading(cache, pool, Loader()) as loading:
            with pytest.raises(LoadTimeoutError, match="'key' is still being loaded after 0 s: by thread"):
                cache.get_or_load("key", lambda key: "another", timeout=0)
            with pytest.raises(LoadTimeoutError):
                cache.get_many_or_load(["key", "b"], lambda keys: dict.fromkeys(keys, 1), timeout=0)
            assert cache["b"] == 1
        assert loading.result() == cache["key"] == "loaded"

    def test_another_takes_over_from_a_loader_that_was_struck(
        self, cache: Cache, pool: ThreadPoolExecutor, waits: threading.Semaphore
    ) -> None:
        with Loading(cache, pool, Loader(KeyboardInterrupt())) as loading:
            others = [pool.submit(cache.get_or_load, "key", lambda key: "of another") for _ in range(3)]
            await_waiters(waits, 3)
        with pytest.raises(KeyboardInterrupt):
            loading.result()
        assert [other.result(TIMEOUT) for other in others] == ["of another"] * 3
        assert (cache.stats()["loads"], cache.stats()["load_failures"]) == (1, 1)

    def test_and_from_one_of_many_keys(
        self, cache: Cache, pool: ThreadPoolExecutor, waits: threading.Semaphore
    ) -> None:
        loader: Any = Loader(KeyboardInterrupt())
        struck = pool.submit(cache.get_many_or_load, ["a", "b"], loader)
        assert loader.entered.wait(TIMEOUT)
        other = pool.submit(cache.get_many_or_load, ["b", "c"], lambda keys: dict.fromkeys(keys, "other"))
        await_waiters(waits, 1)
        loader.go_on.set()
        with pytest.raises(KeyboardInterrupt):
            struck.result(TIMEOUT)
        assert other.result(TIMEOUT) == {"b": "other", "c": "other"}


class TestRefreshing:
    @pytest.fixture(autouse=True)
    def old(self, cache: Cache, clock: Clock) -> None:
        cache.set("key", "old", refresh_after=10.0)
        assert cache.get_or_load("key", lambda key: pytest.fail("is not due")) == "old"
        clock.now += 10

    def test_the_old_value_serves_while_one_thread_loads(
        self, cache: Cache, pool: ThreadPoolExecutor
    ) -> None:
        with Loading(cache, pool, Loader("new"), refresh_after=10.0) as loading:
            for _ in range(3):
                assert cache.get_or_load("key", lambda key: pytest.fail("is loaded twice")) == "old"
            assert cache["key"] == "old"
        assert loading.result() == cache["key"] == "new"
        assert cache.get_or_load("key", lambda key: pytest.fail("is not due")) == "new"

    def test_one_who_was_late_does_not_load_again(
        self, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        claim = loads_of(cache).claim

        def late(load: Any) -> Any:
            monkeypatch.undo()
            in_another_thread(lambda: cache.get_or_load("key", lambda key: "new", refresh_after=10.0))
            return claim(load)

        monkeypatch.setattr(loads_of(cache), "claim", late)
        assert cache.get_or_load("key", lambda key: pytest.fail("is loaded twice")) == "new"

    @pytest.mark.parametrize(("options", "seconds"), [({"refresh_after": 10.0}, 10), ({}, 1)])
    def test_a_failure_keeps_the_old_value(
        self,
        cache: Cache,
        clock: Clock,
        caplog: pytest.LogCaptureFixture,
        options: dict[str, float],
        seconds: int,
    ) -> None:
        calls: list[str] = []

        def fail(key: str) -> None:
            calls.append(key)
            raise Refused(key)

        for _ in range(3):
            assert cache.get_or_load("key", fail, **options) == "old"  # type: ignore[arg-type]
        assert len(calls) == 1  # not at each hit
        assert "refreshing key 'key' failed" in caplog.text
        clock.now += seconds
        assert cache.get_or_load("key", lambda key: "new") == "new"

    def test_a_log_that_keeps_the_failure_keeps_no_transaction_open(
        self, cache: Cache, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A strike before the first bytecode of ``__exit__`` leaves the end to whoever frees the block."""

        def struck(*arguments: object) -> None:
            raise MemoryError("struck")

        def load(key: str) -> str:
            with cache.store.transaction():
                return "new"

        with monkeypatch.context() as patch:
            patch.setattr(Transaction, "__exit__", struck)
            assert cache.get_or_load("key", load) == "old"
        assert [type(record.exc_info[1]) for record in caplog.records if record.exc_info] == [MemoryError]
        assert in_another_thread(lambda: cache.set("key", "set")) is None
        check(cache)

    @pytest.mark.parametrize("remove", [lambda c: c.delete("key"), lambda c: c.clear()])
    def test_a_delete_counts_more(
        self, cache: Cache, pool: ThreadPoolExecutor, remove: Callable[[Cache], object]
    ) -> None:
        with Loading(cache, pool, Loader("new")) as loading:
            remove(cache)
        assert loading.result() == "new"
        assert "key" not in cache

    def test_a_set_counts_more(self, cache: Cache, pool: ThreadPoolExecutor) -> None:
        with Loading(cache, pool, Loader("new")) as loading:
            cache["key"] = "set"
        assert loading.result() == cache["key"] == "set"

    def test_inside_a_transaction_the_old_value_serves(self, cache: Cache) -> None:
        with cache.store.transaction():
            assert cache.get_or_load("key", lambda key: pytest.fail("is loaded")) == "old"

    def test_the_loader_gets_the_old_value_if_it_asks(self, cache: Cache) -> None:
        assert cache.get_or_load("key", lambda key: cache.get_or_load(key, str.upper) + "er") == "older"


class TestMany:
    def test_one_call_for_what_is_missing(self, cache: Cache) -> None:
        cache["b"] = "there"
        calls: list[list[str]] = []

        def load(keys: list[str]) -> dict[str, str]:
            calls.append(keys)
            return {key: "loaded" for key in keys if key != "d"} | {"e": "not asked for"}

        found = cache.get_many_or_load(["a", "b", "c", "d", "a"], load, ttl=10.0)
        assert found == {"a": "loaded", "b": "there", "c": "loaded"}
        assert list(found) == ["a", "b", "c"]
        assert calls == [["a", "c", "d"]]
        assert sorted(cache) == ["a", "b", "c"]
        assert cache.remaining("a") == 10.0
        assert cache.get_many_or_load([], load) == {}
        assert len(calls) == 1

    def test_loads_that_run_are_waited_for_and_not_repeated(
        self, cache: Cache, pool: ThreadPoolExecutor, waits: threading.Semaphore
    ) -> None:
        calls: list[list[str]] = []

        def load(keys: list[str]) -> dict[str, str]:
            calls.append(keys)
            return dict.fromkeys(keys, "many")

        with Loading(cache, pool, Loader("one")):
            asked = pool.submit(cache.get_many_or_load, ["key", "other"], load)
            await_waiters(waits, 1)
        assert asked.result(TIMEOUT) == {"key": "one", "other": "many"}
        assert calls == [["other"]]

    def test_a_key_that_others_did_not_find_is_not_asked_for_again(
        self, cache: Cache, pool: ThreadPoolExecutor, waits: threading.Semaphore
    ) -> None:
        loader: Any = Loader({})
        first = pool.submit(cache.get_many_or_load, ["a"], loader)
        assert loader.entered.wait(TIMEOUT)
        second = pool.submit(cache.get_many_or_load, ["a"], lambda keys: pytest.fail("asked twice"))
        one = pool.submit(cache.get_or_load, "a", lambda key: "found by this one")
        await_waiters(waits, 2)
        loader.go_on.set()
        assert first.result(TIMEOUT) == second.result(TIMEOUT) == {}
        assert one.result(TIMEOUT) == "found by this one"

    def test_a_failure_reaches_those_who_wait_for_any_of_them(
        self, cache: Cache, pool: ThreadPoolExecutor, waits: threading.Semaphore
    ) -> None:
        loader: Any = Loader(Refused("no"))
        first = pool.submit(cache.get_many_or_load, ["key", "b"], loader)
        assert loader.entered.wait(TIMEOUT)
        others: list[Future[Any]] = [
            pool.submit(cache.get_or_load, "key", lambda key: 1),
            pool.submit(cache.get_many_or_load, ["b"], lambda keys: {}),
        ]
        await_waiters(waits, 2)
        loader.go_on.set()
        assert all(type(future.exception(TIMEOUT)) is Refused for future in (first, *others))

    def test_a_delete_during_the_load_counts_more(self, cache: Cache) -> None:
        def load(keys: list[str]) -> dict[str, str]:
            in_another_thread(lambda: cache.delete("a"))
            in_another_thread(lambda: cache.set("b", "set"))
            return dict.fromkeys(keys, "loaded")

        assert cache.get_many_or_load(["a", "b", "c"], load) == {"a": "loaded", "b": "set", "c": "loaded"}
        assert dict(cache) == {"b": "set", "c": "loaded"}

    def test_all_are_stored_in_one_commit(self, cache: Cache) -> None:
        store: Any = cache.store
        watch = store.watch()
        cache.get_many_or_load(["a", "b"], lambda keys: dict.fromkeys(keys, 1))
        assert watch.get(0).revision == watch.get(0).revision

    def test_what_is_no_mapping_is_refused(self, cache: Cache) -> None:
        with pytest.raises(TypeError, match="loader must return a mapping"):
            cache.get_many_or_load(["a"], lambda keys: keys)  # type: ignore[arg-type, return-value]

    def test_16_threads_with_keys_in_common_load_each_once(self, cache: Cache) -> None:
        keys = [f"key{number}" for number in range(200)]
        calls: list[str] = []

        def load(missing: list[str]) -> dict[str, str]:
            calls.extend(missing)
            return {key: key.upper() for key in missing}

        def body(first: int) -> None:
            for start in range(first % 7, 200, 5):
                wanted = keys[start : start + 10]
                assert cache.get_many_or_load(wanted, load) == {key: key.upper() for key in wanted}

        run_threads(lambda first=first: body(first) for first in range(16))  # type: ignore[misc]
        assert len(calls) == len(set(calls))


class TestTooHeavy:
    def test_what_is_too_heavy_is_returned_and_not_kept(self) -> None:
        with Cache(max_bytes=500, codec="raw") as cache:
            assert cache.get_or_load("key", lambda key: bytes(1_000)) == bytes(1_000)
            many = cache.get_many_or_load(["a", "b"], lambda keys: {"a": bytes(1_000), "b": b"1"})
            assert many == {"a": bytes(1_000), "b": b"1"}
            with cache.store.transaction():
                assert cache.get_or_load("key", lambda key: bytes(1_000)) == bytes(1_000)
            assert list(cache) == ["b"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
class TestForks:
    def test_a_child_has_no_loads_of_other_threads(self, cache: Cache, pool: ThreadPoolExecutor) -> None:
        with Loading(cache, pool, Loader()) as loading:

            def child() -> None:
                assert cache.get_or_load("key", lambda key: "of the child", timeout=0) == "of the child"

            assert in_child(child) == ""
        assert loading.result() == cache["key"] == "loaded"

    def test_a_loader_that_forks(self, cache: Cache) -> None:
        """In the child the same load goes on, and is still one."""

        def child() -> None:
            with pytest.raises(RecursiveLoadError):
                cache.get_or_load("key", lambda key: "again")
            assert in_another_thread(lambda: cache.delete("key")) is False
            assert loads_of(cache).running("key").overtaken  # type: ignore[union-attr]

        def load(key: str) -> str:
            assert in_child(child) == ""
            return "loaded"

        assert cache.get_or_load("key", load) == cache["key"] == "loaded"

    def test_the_child_of_a_loader_stores_what_it_loads(self, cache: Cache) -> None:
        read, write = os.pipe()

        def load(key: str) -> str:
            return "in the parent" if (child := os.fork()) else f"in the child {child}"

        parent = os.getpid()
        value = cache.get_or_load("key", load)
        if os.getpid() != parent:
            whole = value == cache.get("key") == "in the child 0" and loads_of(cache).running("key") is None
            os.write(write, b"whole" if whole else b"broken")
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            assert pipe.read() == b"whole"
        os.wait()
        assert value == cache["key"] == "in the parent"

    def test_counters_are_its_own(self, cache: Cache) -> None:
        cache["key"] = 1

        def child() -> None:
            before = cache.stats()["hits"]
            cache["key"]
            in_another_thread(lambda: cache["key"])
            assert cache.stats()["hits"] == before + 2

        # As another thread may have it when the fork comes.
        register_of(cache).latch.during(lambda: in_child_is_well(child))
        assert cache.stats()["hits"] == 0


def in_child_is_well(child: Callable[[], object]) -> None:
    assert in_child(child) == ""
