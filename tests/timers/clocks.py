"""A clock that tests set, and calls that are written down."""

from __future__ import annotations

import threading
from collections.abc import Callable

from latchstore import DictMemoryStore

#: Seconds after which a wait in a test has failed.
TIMEOUT = 20.0


class Clock:
    """The dispatcher's seconds, which go by only when they are told to."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def pass_by(self, store: DictMemoryStore, seconds: float) -> None:
        """Let time go by, and have the store's thread see that: it looks up twice, once for each flush."""
        self.now += seconds
        store.flush(TIMEOUT)
        store.flush(TIMEOUT)


class Calls:
    """Notes what was called, and by which thread."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.threads: set[threading.Thread] = set()

    def __call__(self, name: str) -> Callable[[], None]:
        def call() -> None:
            self.names.append(name)
            self.threads.add(threading.current_thread())

        return call
