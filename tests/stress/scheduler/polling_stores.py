"""Stores with a thread that follows a log, as stores over a file or a server have, each by other waits."""

from __future__ import annotations

import os
import select
import threading
import time
from typing import Any

from latchstore import DictMemoryStore, EventManager


class Polling(DictMemoryStore):
    """Writes down each key that is set; a thread reads that, and whoever flushes waits for it."""

    def __init__(self, event_manager: EventManager | None = None, **options: Any) -> None:
        super().__init__(event_manager, **options)
        self._keys_set: list[str] = []
        self._polled = 0
        self._polled_more = threading.Condition()
        self._wake_pipe = os.pipe()
        self._polls_no_more = False
        self._poller = threading.Thread(target=self._poll_log, name="follower", daemon=True)
        self._poller.start()

    def from_bytes(self, key: str, *arguments: Any, **options: Any) -> None:
        super().from_bytes(key, *arguments, **options)
        self._keys_set.append(key)
        os.write(self._wake_pipe[1], b".")

    def flush(self, *arguments: Any, **options: Any) -> None:
        super().flush(*arguments, **options)
        written = len(self._keys_set)
        with self._polled_more:
            while self._polled < written:
                self._polled_more.wait(0.05)

    def close(self, *arguments: Any, **options: Any) -> None:
        self._polls_no_more = True
        os.write(self._wake_pipe[1], b".")
        super().close(*arguments, **options)

    def _poll_log(self) -> None:
        while not self._polls_no_more:
            while self._polled < len(self._keys_set):
                with self._polled_more:
                    self._polled += 1
                    self._polled_more.notify_all()
            self.pause()

    def pause(self) -> None:
        raise NotImplementedError


class Sleeping(Polling):
    def pause(self) -> None:
        time.sleep(0.002)


class Waiting(Polling):
    def pause(self) -> None:
        with self._polled_more:
            self._polled_more.wait(0.002)


class Busy(Polling):
    """Never waits."""

    def pause(self) -> None:
        pass


class Selecting(Polling):
    """Waits for a moment, by what is not under control."""

    def pause(self) -> None:
        select.select([self._wake_pipe[0]], [], [], 0.002)


class Reading(Polling):
    """Waits by what is not under control until something is written, as a thread that reads a connection."""

    def pause(self) -> None:
        os.read(self._wake_pipe[0], 100)
