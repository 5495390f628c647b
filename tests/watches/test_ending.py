"""The end of a store's feed, and of a watch that nobody has any more."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest

from latchstore import (
    Watch,
    WatchClosedError,
)
from latchstore.delivery.change_feed import ChangeFeed
from latchstore.delivery.try_latch import TryLatch
from latchstore.engine.inspection import feed_of
from tests.watches.reading import TIMEOUT, T, Ts, commit_of, new_buffer, new_store


@pytest.mark.parametrize("timeout", [0, TIMEOUT])
def test_what_is_committed_between_a_look_and_the_end_is_still_given(timeout: float) -> None:
    feed, buffer = ChangeFeed(0), new_buffer()
    changes = Watch(None, buffer, "*")
    feed.add(buffer, 0)

    class Looking(TryLatch):
        """The commit comes, and the end, when a reader has found nothing."""

        def during(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
            buffer.latch = TryLatch()
            found = buffer.latch.during(function, *arguments)
            assert found is None
            feed.publish(commit_of(1))
            feed.end()
            return found

    buffer.latch = Looking()
    assert changes.get(timeout).key == "k0"  # type: ignore[union-attr]
    with pytest.raises(WatchClosedError, match="all changes have been read"):
        changes.get(timeout)
    assert feed.watches == 0


def test_a_watch_that_nobody_has_any_more_is_forgotten_at_the_next_commit() -> None:
    store = new_store()
    changes = store.watch()
    (buffer,) = feed_of(store).buffers
    del changes
    gc.collect()
    assert buffer.closed
    store.from_bytes("a", b"")
    assert feed_of(store).buffers == ()
    assert not feed_of(store).active
    assert len(buffer) == 0
