"""Listeners that write down what they get, fail, and come and go."""

from __future__ import annotations

import gc
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from latchstore import StoreModificationEvent, StoreSetEvent
from tests.event_replay.records import KEYS, TIMEOUT, Heard, State


def state_of(value: Any) -> State | None:
    return None if value is None else (value.data.read(), value.metadata)


class SteadyListener:
    """Writes down all that it hears, as cheaply as can be; what that was is read from it later."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def on_event(self, event: StoreModificationEvent) -> None:
        self.events.append((event.revision, event.key, event.action, event.value, event.previous))

    def heard(self) -> list[Heard]:
        # Each value has one stream; an entry's events need one for themselves.
        return [
            Heard(revision, key, action, state_of(value), state_of(previous))
            for revision, key, action, value, previous in self.events
        ]


class Raising:
    """Raises an error of each kind, one key for each."""

    def __init__(self, errors: Iterable[type[BaseException]]) -> None:
        self.errors = dict(zip(KEYS, errors, strict=False))
        self.raised = 0

    def on_event(self, event: StoreModificationEvent) -> None:
        self.raised += 1
        raise self.errors[event.key]("on purpose")

    def connect_to(self, manager: Any, priority: int) -> list[Callable[[Any], None]]:
        """Connect one function for each key; return them, as a method is held weakly."""
        functions: list[Callable[[Any], None]] = []
        for key in self.errors:
            functions.append(lambda event: self.on_event(event))
            manager.connect(StoreModificationEvent, functions[-1], {"key": key}, priority)
        return functions


class Mortal:
    """A listener in a reference cycle, so that it lives until the garbage collector comes by."""

    def __init__(self, count: Counter[str]) -> None:
        self.cycle = self
        self.count = count

    def on_event(self, event: StoreModificationEvent) -> None:
        self.count["mortal"] += 1


class ComeAndGo(threading.Thread):
    """Connects and disconnects listeners, and lets others die, at each tick of the writers."""

    def __init__(self, manager: Any, mortals: bool) -> None:
        super().__init__(name="listeners come and go", daemon=True)
        self.manager = manager
        self.mortals = mortals
        self.count: Counter[str] = Counter()
        self._ticks = threading.Semaphore(0)
        self._over = False
        self.error: BaseException | None = None

    def tick(self) -> None:
        self._ticks.release()

    def end(self) -> None:
        self._over = True
        # A round waits for two ticks.
        self._ticks.release(2)
        self.join(TIMEOUT)
        assert not self.is_alive()
        assert self.error is None

    def run(self) -> None:
        try:
            while self._ticks.acquire(timeout=TIMEOUT) and not self._over:
                self._one_round()
        except BaseException as error:
            self.error = error

    def _one_round(self) -> None:
        self.count["rounds"] += 1
        number = self.count["rounds"]
        listener, other = self._new_listener(), self._new_listener()
        self.manager.connect(StoreSetEvent, listener, {"key": KEYS[number % len(KEYS)]}, number % 3 - 1)
        self.manager.connect(StoreModificationEvent, other, priority=number % 5 - 2)
        if self.mortals:
            self.manager.connect(StoreModificationEvent, Mortal(self.count).on_event, priority=number % 2)
        # So that they hear something.
        self._ticks.acquire(timeout=TIMEOUT)
        self.manager.disconnect(StoreSetEvent, listener)
        self.manager.disconnect(StoreModificationEvent, other)
        if self.mortals:
            gc.collect(1)

    def _new_listener(self) -> Callable[[StoreModificationEvent], None]:
        def listener(event: StoreModificationEvent) -> None:
            self.count["brief"] += 1

        return listener
