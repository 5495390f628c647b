"""A clock that tests set, and ways to look at a cache."""

from __future__ import annotations

from typing import Any

from latchstore import StoreDeleteEvent, Watch

#: Seconds after which a wait in a test has failed.
TIMEOUT = 20.0


class Clock:
    """Seconds that go by only when they are told to."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def worst_of(watch: Watch, weights: dict[str, int] | None = None) -> tuple[int, int]:
    """Replay a watch; return how many entries there were at once at the most, and bytes of key and data."""
    held: dict[str, int] = {}
    revision, entries, weight = 0, 0, 0
    while len(watch):
        event: Any = watch.get(0)
        if event.revision != revision:
            entries, weight = max(entries, len(held)), max(weight, sum(held.values()))
            revision = event.revision or 0
        assert hasattr(event, "key"), event
        if isinstance(event, StoreDeleteEvent):
            del held[event.key]
        else:
            held[event.key] = len(event.key) + event.value.size
    return max(entries, len(held)), max(weight, sum(held.values()))
