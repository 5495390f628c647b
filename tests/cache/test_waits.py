"""A load that waits for itself by way of other threads ends in an error, or at least in a warning."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import pytest

from latchstore import Cache, LoadTimeoutError, RecursiveLoadError
from latchstore.cache import load as loads
from latchstore.cache import loading
from latchstore.cache.inspection import loads_of
from tests.builds import WITHOUT_GIL
from tests.cache.clocks import TIMEOUT


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(loading, "SECOND_PAUSE", 0.02)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


Step = Callable[[], Any]


def by_result(step: Step, pool: ThreadPoolExecutor) -> Any:
    return pool.submit(step).result()


def by_exception(step: Step, pool: ThreadPoolExecutor) -> Any:
    error = pool.submit(step).exception()
    assert error is not None
    raise error


def by_map(step: Step, pool: ThreadPoolExecutor) -> Any:
    return list(pool.map(lambda number: step(), range(1)))


def by_wait(step: Step, pool: ThreadPoolExecutor) -> Any:
    done, _ = wait([pool.submit(step), pool.submit(str)], return_when=ALL_COMPLETED)
    return [future.result() for future in done]


def by_a_pool_of_its_own(step: Step, pool: ThreadPoolExecutor) -> Any:
    with ThreadPoolExecutor(1) as own:
        future = own.submit(step)
    return future.result()


def by_join(step: Step, pool: ThreadPoolExecutor) -> Any:
    ended: Future[Any] = Future()

    def body() -> None:
        try:
            ended.set_result(step())
        except Exception as error:
            ended.set_exception(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    return ended.result()


def by_two_threads(step: Step, pool: ThreadPoolExecutor) -> Any:
    return by_result(lambda: by_join(step, pool), pool)


WAYS = [by_result, by_exception, by_map, by_wait, by_a_pool_of_its_own, by_join, by_two_threads]


#: Stacks of other threads are not read without the GIL.
needs_gil = pytest.mark.skipif(WITHOUT_GIL, reason="there is a warning only")


@needs_gil
@pytest.mark.parametrize("way", WAYS)
def test_a_loader_that_asks_for_its_key_in_another_thread(
    cache: Cache, pool: ThreadPoolExecutor, way: Callable[[Step, ThreadPoolExecutor], Any]
) -> None:
    def load(key: str) -> Any:
        return way(lambda: cache.get_or_load(key, lambda key: 1), pool)

    with pytest.raises(RecursiveLoadError, match=r"'key' is being loaded by thread .* it is in .*by_"):
        cache.get_or_load("key", load)
    assert cache.get_or_load("key", lambda key: 1) == 1


@needs_gil
def test_many_keys_and_memoized_functions(cache: Cache, pool: ThreadPoolExecutor) -> None:
    @cache.memoize
    def function() -> Any:
        return by_result(lambda: function(), pool)

    with pytest.raises(RecursiveLoadError):
        function()
    with pytest.raises(RecursiveLoadError):
        cache.get_many_or_load(
            ["a", "b"],
            lambda keys: by_result(lambda: cache.get_many_or_load(["b"], lambda keys: {}), pool),
        )


@needs_gil
def test_by_way_of_another_load(cache: Cache, pool: ThreadPoolExecutor) -> None:
    """The loader of a waits for a thread that waits for b, whose loader waits for a."""
    other_loads = threading.Event()
    first_waits = threading.Event()

    def load_b(key: str) -> Any:
        other_loads.set()
        assert first_waits.wait(TIMEOUT)
        return cache.get_or_load("a", lambda key: 1)

    def load_a(key: str) -> Any:
        assert other_loads.wait(TIMEOUT)
        future = pool.submit(cache.get_or_load, "b", lambda key: 1)
        first_waits.set()
        return future.result()

    future = pool.submit(cache.get_or_load, "b", load_b)
    errors = []
    steps: list[Step] = [lambda: cache.get_or_load("a", load_a), future.result]
    for step in steps:
        try:
            step()
        except RecursiveLoadError as error:
            errors.append(error)
    assert errors


def test_a_circle_through_two_caches(cache: Cache, pool: ThreadPoolExecutor) -> None:
    both = threading.Barrier(2)
    with Cache() as other:

        def load(inner: Cache, key: str) -> Any:
            both.wait(TIMEOUT)
            return inner.get_or_load(key, lambda key: 1)

        futures = [
            pool.submit(cache.get_or_load, "a", lambda key: load(other, "b")),
            pool.submit(other.get_or_load, "b", lambda key: load(cache, "a")),
        ]
        assert any(type(future.exception(TIMEOUT)) is RecursiveLoadError for future in futures)


def first_of(futures: list[Future[Any]]) -> Any:
    done, _ = wait(futures, return_when=FIRST_COMPLETED)
    return done.pop().result()


class Ways:
    """Loaders that wait for other threads, and not in vain."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.go_on = threading.Event()
        self.pool = pool

    def work(self) -> str:
        assert self.go_on.wait(TIMEOUT)
        return "loaded"

    def ways(self) -> list[Step]:
        return [
            self.work,
            lambda: self.pool.submit(self.work).result(),
            lambda: first_of([self.pool.submit(self.work), self.pool.submit(self.work)]),
            lambda: by_join(self.work, self.pool),
        ]


@pytest.mark.parametrize("number", range(4))
def test_a_loader_that_takes_long_is_waited_for_with_a_warning(
    cache: Cache,
    pool: ThreadPoolExecutor,
    number: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(loading, "LONG", 0.02)
    ways, looks = Ways(pool), threading.Semaphore(0)
    look = loading.LoadTable.refuse_hidden_circle

    def looking(self: loading.LoadTable, load: loads.Load) -> None:
        look(self, load)
        looks.release()

    monkeypatch.setattr(loading.LoadTable, "refuse_hidden_circle", looking)
    with ThreadPoolExecutor(2) as callers:
        futures = [
            callers.submit(cache.get_or_load, "key", lambda key: ways.ways()[number]()) for _ in range(2)
        ]
        for _ in range(6):  # of the second and the later ones one warns
            assert looks.acquire(timeout=TIMEOUT)
        assert not any(future.done() for future in futures)
        ways.go_on.set()
        assert [future.result(TIMEOUT) for future in futures] == ["loaded"] * 2
    (record,) = caplog.records
    assert "has waited for key 'key'" in record.message
    assert "test_waits.py" in record.message


def test_a_load_whose_end_is_struck(
    cache: Cache, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays in the table; those who wait for it, and the next who ask, load the key themselves."""
    entered, go_on = threading.Event(), threading.Event()

    def load(key: str) -> None:
        entered.set()
        assert go_on.wait(TIMEOUT)
        raise KeyboardInterrupt

    def struck(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loading.LoadTable, "end", struck)
        first = pool.submit(cache.get_or_load, "key", load)
        assert entered.wait(TIMEOUT)
        running = loads_of(cache).running("key")
        assert running is not None
        waiting = pool.submit(loads_of(cache).wait_if_current, running, None)
        go_on.set()
        with pytest.raises(KeyboardInterrupt):
            first.result(TIMEOUT)
        assert waiting.result(TIMEOUT) == loads.Outcome(loads.MISSING, None)
    assert loads_of(cache).running("key") is not None
    assert cache.get_or_load("key", lambda key: "loaded") == cache["key"] == "loaded"


def test_a_load_in_a_transaction_whose_end_is_struck(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def struck(*arguments: object) -> None:
        raise KeyboardInterrupt

    with cache.store.transaction():
        with monkeypatch.context() as patch:
            patch.setattr(loading.LoadTable, "end_inside", struck)
            with pytest.raises(KeyboardInterrupt):
                cache.get_or_load("key", lambda key: "lost")
        cache.delete("key")
        assert cache.get_or_load("key", lambda key: "loaded") == "loaded"


def test_a_timeout_that_is_longer_than_the_first_looks(cache: Cache, pool: ThreadPoolExecutor) -> None:
    ways = Ways(pool)
    entered = threading.Event()

    def load(key: str) -> str:
        entered.set()
        return ways.work()

    future = pool.submit(cache.get_or_load, "key", load)
    assert entered.wait(TIMEOUT)
    with pytest.raises(LoadTimeoutError, match=r"after 0\.1 s"):
        cache.get_or_load("key", load, timeout=0.1)
    ways.go_on.set()
    assert future.result(TIMEOUT) == "loaded"
