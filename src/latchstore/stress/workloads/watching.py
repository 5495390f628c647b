"""A watch on a store during a run, and the events it has at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from latchstore.contract.errors import WaitTimeoutError, WatchClosedError
from latchstore.contract.events import EventsLost, StoreModificationEvent
from latchstore.contract.store import AbstractStore

#: More changes than any run makes: the watch must lose none.
_ENDLESS = 2**31


def watch_all(store: AbstractStore, pattern: str = "*", metadata: Mapping[str, Any] | None = None) -> Any:
    """Open a watch that loses no events; None if the store has no watches."""
    watch = getattr(store, "watch", None)
    return watch(pattern, metadata, max_buffer=_ENDLESS) if callable(watch) else None


def read_to_the_end(
    watch: Any, written_down: Callable[[StoreModificationEvent], Any], lost: Callable[[EventsLost], Any]
) -> tuple[list[Any], bool]:
    """Return the events of a watch, and whether it is still open: not if its store was closed meanwhile."""
    found: list[Any] = []
    while True:
        try:
            event = watch.get(timeout=0)
        except WaitTimeoutError:
            return found, True
        except WatchClosedError:
            return found, False
        found.append(lost(event) if isinstance(event, EventsLost) else written_down(event))
