"""Stores that go wrong in one of the processes that use them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.stress.processes.file_store import Files, FileStore

#: The variable with a path that each process which attaches writes its number to.
ATTACHED = "LATCHSTORE_TEST_ATTACHED"


class NoIsolation(FileStore):
    """Has transactions that keep nobody out and take nothing back."""

    @contextmanager
    def transaction(self, notes: str = "") -> Iterator[None]:
        yield


class NoIsolationFiles(Files):
    store = NoIsolation


class OfOneProcess(FileStore):
    """Does something besides in the first process that attaches after the parent."""

    is_chosen = False

    def exists(self, key: str) -> bool:
        if self.is_chosen:
            self.misbehave()
        return super().exists(key)

    def misbehave(self) -> None:
        raise NotImplementedError


class OfOneProcessFiles(Files):
    @classmethod
    def attach(cls, where: str, lock_timeout: float = 30.0) -> FileStore:
        store = super().attach(where, lock_timeout)
        with open(f"{where}.attached", "a+b") as file:
            # The parent is the first, the one that is chosen the second.
            assert isinstance(store, OfOneProcess)
            store.is_chosen = file.tell() == 1
            file.write(b".")
        return store


class Dying(OfOneProcess):
    def misbehave(self) -> None:
        signal.raise_signal(signal.SIGSEGV)


class DyingFiles(OfOneProcessFiles):
    store = Dying


class Stuck(OfOneProcess):
    def misbehave(self) -> None:
        self.wait_for_nothing()

    def wait_for_nothing(self) -> None:
        threading.Event().wait()


class StuckFiles(OfOneProcessFiles):
    store = Stuck


class Raising(OfOneProcess):
    def misbehave(self) -> None:
        raise ZeroDivisionError("nobody divides here")


class RaisingFiles(OfOneProcessFiles):
    store = Raising


class TellingFiles(StuckFiles):
    """Tells the number of each process that attaches."""

    @classmethod
    def attach(cls, where: str, lock_timeout: float = 30.0) -> Any:
        with open(os.environ[ATTACHED], "ab", buffering=0) as pipe:
            pipe.write(f"{os.getpid()}\n".encode())
        return super().attach(where, lock_timeout)


class NotPickled(Files):
    """An object that cannot be sent to another process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


not_pickled = NotPickled()
