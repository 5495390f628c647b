"""Listeners, what they are connected with, and threads that start at once."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

from latchstore.contract.events import (
    BaseEvent,
    StoreSetEvent,
)
from latchstore.delivery.registry import Connection, Receiver, identity_of

TIMEOUT = 30


class OtherEvent(BaseEvent):
    """An event that is no store event."""


class Calls(list[str]):
    """A list of the names of listeners, in the order of their calls."""

    def listener(self, name: str) -> Callable[[BaseEvent], None]:
        def call(event: BaseEvent) -> None:
            self.append(name)

        call.__qualname__ = name
        return call


class Owner:
    """An object with listener methods."""

    def __init__(self, calls: list[str] | None = None) -> None:
        self.calls: list[str] = [] if calls is None else calls

    def on_event(self, event: BaseEvent) -> None:
        self.calls.append("on_event")

    def on_other(self, event: BaseEvent) -> None:
        self.calls.append("on_other")


def connections_of(cls: type[Owner]) -> int:
    """Return how many connections of the methods of a class there are, the dead ones included."""
    functions = {cls.on_event, cls.on_other}
    return sum(type(each) is Connection and each.function in functions for each in gc.get_objects())


def connection_of(owner: Owner) -> Connection:
    """Return a connection of an object's listener to `StoreSetEvent`."""
    identity = identity_of(owner.on_event)
    receiver = Receiver(owner)
    receiver.cls, receiver.identity = StoreSetEvent, identity
    return Connection(identity, Owner.on_event, receiver, ())


class Counter:
    """Equal to what it is told to be equal to; counts the comparisons."""

    def __init__(self, equal: object = None) -> None:
        self.equal = equal
        self.comparisons = 0

    def __eq__(self, other: object) -> bool:
        self.comparisons += 1
        return other == self.equal

    __hash__ = None  # type: ignore[assignment]


def run_in_threads(*functions: Callable[[], object]) -> None:
    """Run functions at once, each in a thread; fail if one fails or does not come to an end."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(functions))

    def run(function: Callable[[], object]) -> None:
        try:
            barrier.wait(TIMEOUT)
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(f,), daemon=True) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]
