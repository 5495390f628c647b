"""Deliveries that a test can hold up, and what the tests of the dispatcher wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable

from latchstore.delivery.dispatcher import Delivery, EventDispatcher

TIMEOUT = 30.0

#: Seconds that a wait takes which is meant to fail.
SHORT = 0.05


class OneEvent(Delivery):
    """A delivery that counts as one event, of no commit."""


class Call(OneEvent):
    """A delivery that calls a function."""

    def __init__(self, function: Callable[[], object]) -> None:
        super().__init__()
        self.function = function

    def deliver(self, dispatcher: EventDispatcher) -> None:
        self.function()

    def __repr__(self) -> str:
        return "<a call>"


class Blocking(OneEvent):
    """A delivery that is under way until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.let_go = threading.Event()

    def deliver(self, dispatcher: EventDispatcher) -> None:
        self.begun.set()
        assert self.let_go.wait(TIMEOUT)

    def __repr__(self) -> str:
        return "<a slow one>"


def submit(dispatcher: EventDispatcher, function: Callable[[], object]) -> None:
    dispatcher.submit(Call(function))
    dispatcher.ensure_running()
