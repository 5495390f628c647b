"""Gaps: commits that an engine knows were made, and whose changes it has no more."""

from __future__ import annotations

import itertools
from collections import deque

import pytest

from latchstore import EventsLost, Watch
from latchstore.delivery.change_buffer import ChangeBuffer, Lost
from latchstore.delivery.change_feed import ChangeFeed
from latchstore.delivery.commit_signal import CommitSignal
from latchstore.delivery.waiting import Bell
from tests.watches.reading import Strike, commit_of, new_buffer, taken_from

Options = tuple[int, bool]


def read(buffer: ChangeBuffer) -> list[object]:
    """Return what is there to be read: revisions, and gaps."""
    return [each if isinstance(each, Lost) else each.revision for each in taken_from(buffer)]


def feed_of(buffer: ChangeBuffer, garbage: deque[object] | None = None) -> ChangeFeed:
    feed = ChangeFeed(0, garbage)
    feed.add(buffer, 0)
    return feed


def test_a_gap_is_marked_where_it_is() -> None:
    buffer = new_buffer()
    feed = feed_of(buffer)
    feed.publish(commit_of(1, 2))
    feed.lose(2, 5)
    feed.lose(2, 5)
    feed.publish(commit_of(6))
    assert len(buffer) == 4
    buffer.check()
    assert read(buffer) == [1, 1, Lost(2, 5), 6]
    assert buffer.dropped == 0
    buffer.check()


def test_a_full_buffer_drops_a_gap_with_what_was_before_it() -> None:
    buffer = new_buffer(2)
    feed = feed_of(buffer)
    feed.lose(1, 3)
    feed.publish(commit_of(4))
    feed.publish(commit_of(5))
    assert read(buffer) == [Lost(1, 3), 4, 5]
    feed.publish(commit_of(6))
    feed.lose(7, 9)
    feed.publish(commit_of(10))
    feed.publish(commit_of(11))
    assert read(buffer) == [Lost(6, 9), 10, 11]
    assert buffer.dropped == 1


def test_a_coalescing_buffer_merges_nothing_over_a_gap() -> None:
    buffer = new_buffer(2, coalesce=True)
    feed = feed_of(buffer)
    for revision in (1, 2, 3):
        feed.publish(commit_of(revision, 2))
    feed.lose(4, 5)
    feed.publish(commit_of(6, 3))
    first, *others = taken_from(buffer)
    assert first == Lost(3, 5)
    assert [(record.revision, record.change[0], record.change[1]) for record in others] == [
        (6, f"k{each}", None) for each in range(3)
    ]
    buffer.check()


def test_a_gap_is_an_event_and_wakes_all_who_wait() -> None:
    source = object()
    buffer = new_buffer()
    feed, watch = feed_of(buffer), Watch(source, buffer, "*")
    signal, bells = CommitSignal(lambda change: 0), [Bell(), Bell()]
    feed.add_signal(signal)
    signal.waiters.bells.extend(bells)
    feed.lose(1, 7)
    lost = watch.get(0)
    assert isinstance(lost, EventsLost)
    assert (lost.source, lost.first_revision, lost.last_revision) == (source, 1, 7)
    assert all(bell.is_rung() for bell in bells)


@pytest.mark.parametrize("options", [(10, False), (2, False), (1, True)])
def test_a_gap_that_an_exception_strikes_is_given_once(options: Options) -> None:
    """It is marked again, and what is there is read in between or not."""
    buffer = new_buffer(*options)
    feed = feed_of(buffer)
    feed.publish(commit_of(1, 2))
    feed.lose(2, 4)
    feed.publish(commit_of(5, 2))
    expected = taken_from(buffer)
    assert any(isinstance(each, Lost) for each in expected)
    for number in itertools.count(1):
        buffer = new_buffer(*options)
        feed = feed_of(buffer, deque())
        feed.publish(commit_of(1, 2))
        with Strike(number) as strike:
            feed.lose(2, 4)
        feed.lose(2, 4)
        feed.publish(commit_of(5, 2))
        assert taken_from(buffer) == expected
        if strike.left > 0:
            break
    assert number > 5
