"""Checks the events of a store, by the guarantees of etcd's watches.

Each check takes the events that one listener or watch received, in that order, and returns a description of
the first violation. A run must have had one listener from its beginning to its end, after a flush.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from latchstore.stress.verdict import VALID, Verdict


@dataclass(frozen=True, slots=True)
class HeardEvent:
    """One event, as a listener recorded it.

    Attributes
    ----------
    revision : int
    key : str
    value, previous : hashable
        The value of the key after the change and before; None for a missing key.
    transaction : hashable
        The transaction that made it; None if there was none.
    """

    revision: int
    key: str
    value: Hashable
    previous: Hashable
    transaction: Hashable = None

    def __str__(self) -> str:
        return f"revision {self.revision}, {self.key!r}: {self.previous!r} -> {self.value!r}"


def ordered(heard: Sequence[HeardEvent]) -> str | None:
    """Events come in the order of commits: revisions never decrease."""
    for event, following in pairwise(heard):
        if following.revision < event.revision:
            return f"({following}) came after ({event})"
    return None


def unique(heard: Sequence[HeardEvent]) -> str | None:
    """No commit has two events for a key."""
    known: set[tuple[int, str]] = set()
    for event in heard:
        if (event.revision, event.key) in known:
            return f"({event}) came a second time"
        known.add((event.revision, event.key))
    return None


def atomic(heard: Sequence[HeardEvent]) -> str | None:
    """Events of different commits do not interleave."""
    finished: set[int] = set()
    for event, following in pairwise(heard):
        if following.revision != event.revision:
            finished.add(event.revision)
            if following.revision in finished:
                return f"({following}) came after events of later commits"
    return None


def none_lost(heard: Sequence[HeardEvent], commits: Mapping[int, Collection[str]]) -> str | None:
    """Every change of every commit has an event, and there are no others.

    Parameters
    ----------
    commits : mapping
        Maps the revision of each commit to the keys that it has changed.
    """
    told: dict[int, set[str]] = {}
    for event in heard:
        told.setdefault(event.revision, set()).add(event.key)
    for revision, keys in commits.items():
        missing = set(keys) - told.get(revision, set())
        if missing:
            return f"revision {revision} changed {sorted(missing)}, but no event came for them"
    for revision, keys in told.items():
        surplus = keys - set(commits.get(revision, ()))
        if surplus:
            return f"revision {revision} did not change {sorted(surplus)}, but events came for them"
    return None


def none_rolled_back(heard: Iterable[HeardEvent], rolled_back: Collection[Hashable]) -> str | None:
    """No event is of a transaction that was rolled back.

    Parameters
    ----------
    rolled_back : collection
        The transactions that were rolled back.
    """
    for event in heard:
        if event.transaction is not None and event.transaction in rolled_back:
            return f"({event}) is of transaction {event.transaction!r}, which was rolled back"
    return None


def right_previous(heard: Iterable[HeardEvent], initial: Mapping[str, Hashable]) -> str | None:
    """Each event's previous value is what the event before it left in the key."""
    state = dict(initial)
    for event in heard:
        before = state.get(event.key)
        if event.previous != before:
            return f"({event}) should have the previous value {before!r} of the key's last event"
        state[event.key] = event.value
    return None


def rebuilds(
    heard: Iterable[HeardEvent], initial: Mapping[str, Hashable], final: Mapping[str, Hashable]
) -> str | None:
    """Replaying the events on the initial state gives the final state."""
    state = dict(initial)
    for event in heard:
        if event.value is None:
            state.pop(event.key, None)
        else:
            state[event.key] = event.value
    for key in sorted(state.keys() | final.keys()):
        if state.get(key) != final.get(key):
            return f"{key!r} is {state.get(key)!r} by the events, but {final.get(key)!r} in the store"
    return None


def check_events(
    heard: Sequence[HeardEvent],
    commits: Mapping[int, Collection[str]],
    rolled_back: Collection[Hashable],
    initial: Mapping[str, Hashable],
    final: Mapping[str, Hashable],
) -> Verdict:
    """Make all checks; the first violation gives the verdict."""
    checks: dict[str, Callable[[], str | None]] = {
        "ordered": lambda: ordered(heard),
        "unique": lambda: unique(heard),
        "atomic": lambda: atomic(heard),
        "none lost": lambda: none_lost(heard, commits),
        "none for rollbacks": lambda: none_rolled_back(heard, rolled_back),
        "right old value": lambda: right_previous(heard, initial),
        "replay": lambda: rebuilds(heard, initial, final),
    }
    for name, check in checks.items():
        problem = check()
        if problem is not None:
            return Verdict("invalid", f"{name}: {problem}")
    return VALID
