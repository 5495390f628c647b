"""Threads that wait for a key which another thread sets."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Collection, Iterator
from typing import Any, ClassVar

from latchstore.contract.errors import StoreError, WaitTimeoutError
from latchstore.contract.store import AbstractStore
from latchstore.stress.history import History, Operation
from latchstore.stress.verdict import VALID, Verdict, all_of
from latchstore.stress.workloads.action import (
    Action,
    PlainWorkload,
    RolledBackError,
    chance_of,
    operations_of,
)

#: Seconds that a thread waits. Under a scheduler no wait times out while another thread can run.
_PATIENCE = 8.0

#: Maximum number of attempts to set a key that the store refuses.
_TRIES = 1_000

#: How often a thread waits; how often only one of so many does, with its first action.
_WAITING, _ALONE, _THREADS = 0.7, 0.8, 3

_LOOK, _SET = "look for another key", "set another key"

#: The ways to wait, and how often each is drawn.
_WAYS = {"wait_for_key": 3, "wait_for": 2, "watch and get": 1}
_IN_TIME, _LATE, _NEVER, _EARLY = "in time", "when the time was over", "never", "before the key was set"


class _HandOver:
    """Waits for a key that another thread sets meanwhile.

    The wait is the operation, so that strategies stop it in its middle.
    """

    __slots__ = ("_error", "_is_set", "argument", "key", "name")

    def __init__(self, name: str, key: str) -> None:
        self.name = name
        self.key = key
        self.argument = None
        self._is_set = False
        # What the store must not raise, in the other thread.
        self._error: Exception | None = None

    def run(self, store: Any) -> str:
        """Return when the key was found."""
        setter = threading.Thread(target=self._set, args=(store,), daemon=True)
        setter.start()
        try:
            found = self._find(store)
        finally:
            setter.join()
        if self._error is not None:
            raise self._error
        if not self._is_set:
            raise RolledBackError
        return found

    def _set(self, store: AbstractStore) -> None:
        for _ in range(_TRIES):
            try:
                store.from_bytes(self.key, b"")
            except StoreError:
                time.sleep(0.001)
            except Exception as error:
                self._error = error
                return
            else:
                self._is_set = True
                return

    def _find(self, store: Any) -> str:
        begun = time.monotonic()
        try:
            self._wait(store)
        except WaitTimeoutError:
            return _NEVER
        except StoreError as error:
            # For example as the store was closed.
            raise RolledBackError from error
        waited = time.monotonic() - begun
        if not store.exists(self.key):
            return _EARLY  # it is set once, and stays
        return _IN_TIME if waited < _PATIENCE else _LATE

    def _wait(self, store: Any) -> None:
        match self.name:
            case "wait_for_key":
                store.wait_for_key(self.key, timeout=_PATIENCE)
            case "wait_for":
                store.wait_for(lambda: store.exists(self.key), timeout=_PATIENCE)
            case _:
                with store.watch(self.key) as changes:
                    if not store.exists(self.key):
                        changes.get(timeout=_PATIENCE)


class _Other:
    """Writes another key, which must not end the waits, or looks for it."""

    __slots__ = ("argument", "key", "name")

    def __init__(self, name: str, key: str) -> None:
        self.name = name
        self.key = key
        self.argument = None

    def run(self, store: AbstractStore) -> None:
        """Do it."""
        if self.name == _LOOK:
            store.exists(self.key)
        else:
            store.from_bytes(self.key, b"")


def _drawn(chance: random.Random) -> str:
    (way,) = chance.choices(tuple(_WAYS), tuple(_WAYS.values()))
    return way


class Waiting(PlainWorkload):
    """Threads that wait for a key while another sets it: no wake-up is lost, and none comes too early."""

    name = "waiting"
    weight: ClassVar[float] = 10
    # The writes of further operations would wake up a waiter that has missed its own.
    length: ClassVar[int | None] = 1
    in_tasks = False
    # It starts threads; after an interruption `threading.Thread.start` may hang.
    left_out_with: ClassVar[Collection[str]] = ("async",)

    def supports(self, store: AbstractStore) -> bool:
        """Return whether the store has waits for changes."""
        return all(callable(getattr(store, name, None)) for name in ("watch", "wait_for", "wait_for_key"))

    def actions(self, thread: int, seed: int) -> Iterator[Action]:
        """Yield waits for keys that are each set once, and writes of others.

        In most schedules one thread waits, and the others do next to nothing: they would run while the
        waiter is stopped, instead of the thread that sets its key, or end its wait by a write.
        """
        chance = chance_of(self.name, seed, thread)
        shared = chance_of(self.name, seed, -1)
        way, alone = _drawn(shared), shared.random() < _ALONE
        if alone and thread % _THREADS:
            yield _Other(_LOOK, f"{self.name}/other")
        else:
            yield _HandOver(way, f"{self.name}/{thread}.1")
        for number in itertools.count(2):
            if chance.random() < _WAITING:
                yield _HandOver(_drawn(chance), f"{self.name}/{thread}.{number}")
            else:
                yield _Other(_SET, f"{self.name}/other")

    def verdicts(self, history: History) -> dict[str, Verdict]:
        """Check that each wait found its key, and in time."""
        return {"woken": all_of(map(_check, operations_of(self.name, history)))}


def _check(operation: Operation) -> Verdict:
    if operation.name not in _WAYS or operation.outcome != "ok" or operation.result == _IN_TIME:
        return VALID
    if operation.result == _EARLY:
        return Verdict("invalid", f"({operation}): the wait ended, but the key was not set", (operation,))
    reason = f"lost wake-up: ({operation}): the key was set, but the waiter did not wake up"
    return Verdict("invalid", reason, (operation,))
