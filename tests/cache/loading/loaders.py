"""Loaders that a test holds up, and threads that load."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from latchstore import Cache
from tests.cache.clocks import TIMEOUT


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
