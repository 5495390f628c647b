"""What is set or deleted during a load stays so; an older value never comes back."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from latchstore import Cache, RecursiveLoadError
from latchstore.cache.inspection import check, loads_of
from latchstore.cache.loading import Removal
from latchstore.engine.table import Table
from tests.cache.clocks import TIMEOUT, Clock
from tests.cache.loading.loaders import Loader, Loading, await_waiters
from tests.schedules import in_another_thread, run_threads


class Undone(Exception):
    """Rolls a block back."""


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

    def test_a_removal_whose_end_fails(self, cache: Cache, pool: ThreadPoolExecutor) -> None:
        """As without memory, when CPython forgets to give the removal back."""
        answers = iter([False])

        def covers(key: str, tags: frozenset[str]) -> bool:
            for answer in answers:
                return answer
            raise MemoryError

        loads = loads_of(cache)
        removal = Removal(covers)
        with Loading(cache, pool, Loader()) as loading:
            loads.begin_removal(removal)
            with pytest.raises(MemoryError):
                loads.end_removal(removal, committed=True)
        assert loading.result() == "loaded"
        loads.check_idle()

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
