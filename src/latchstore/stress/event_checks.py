"""Whether the events of a store told the truth, by the guarantees that etcd gives of its watches.

Each check takes what one listener, or one watch, has heard, in the order in which it did, and says what is
wrong. A run must have had one listener from its beginning to its end, after a flush.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from latchstore.stress.verdict import VALID, Verdict


@dataclass(frozen=True, slots=True)
class HeardEvent:
    """One event, as a listener has written it down when it heard it.

    Attributes
    ----------
    revision : int
    key : str
    value, previous : hashable
        What the key has after the change and had before; None for no key.
    transaction : hashable
        Which transaction made it; None if there was none.
    """

    revision: int
    key: str
    value: Hashable
    previous: Hashable
    transaction: Hashable = None

    def __str__(self) -> str:
        return f"revision {self.revision}, {self.key!r}: {self.previous!r} -> {self.value!r}"


def ordered(heard: Sequence[HeardEvent]) -> str | None:
    """Events come in the order of commits: revisions never step back."""
    for event, following in pairwise(heard):
        if following.revision < event.revision:
            return f"({following}) was heard after ({event})"
    return None


def unique(heard: Sequence[HeardEvent]) -> str | None:
    """No commit tells of a key twice."""
    known: set[tuple[int, str]] = set()
    for event in heard:
        if (event.revision, event.key) in known:
            return f"({event}) was heard for the second time"
        known.add((event.revision, event.key))
    return None


def atomic(heard: Sequence[HeardEvent]) -> str | None:
    """No event of another commit stands between two of one commit."""
    finished: set[int] = set()
    for event, following in pairwise(heard):
        if following.revision != event.revision:
            finished.add(event.revision)
            if following.revision in finished:
                return f"({following}) belongs to a commit that others have followed"
    return None


def none_lost(heard: Sequence[HeardEvent], commits: Mapping[int, Collection[str]]) -> str | None:
    """Every change of every commit was heard, and nothing else.

    Parameters
    ----------
    commits : mapping
        The revision of each commit, and the keys that it has changed.
    """
    told: dict[int, set[str]] = {}
    for event in heard:
        told.setdefault(event.revision, set()).add(event.key)
    for revision, keys in commits.items():
        missing = set(keys) - told.get(revision, set())
        if missing:
            return f"revision {revision} has changed {sorted(missing)}, which nobody heard"
    for revision, keys in told.items():
        surplus = keys - set(commits.get(revision, ()))
        if surplus:
            return f"revision {revision} was heard to change {sorted(surplus)}, which it did not"
    return None


def none_rolled_back(heard: Iterable[HeardEvent], rolled_back: Collection[Hashable]) -> str | None:
    """Nothing that was rolled back was heard.

    Parameters
    ----------
    rolled_back : collection
        The transactions that were.
    """
    for event in heard:
        if event.transaction is not None and event.transaction in rolled_back:
            return f"({event}) is of transaction {event.transaction!r}, which was rolled back"
    return None


def right_previous(heard: Iterable[HeardEvent], initial: Mapping[str, Hashable]) -> str | None:
    """Each event says what the event of the key before it has left."""
    state = dict(initial)
    for event in heard:
        before = state.get(event.key)
        if event.previous != before:
            return f"({event}) says so, where the last event of the key has left {before!r}"
        state[event.key] = event.value
    return None


def rebuilds(
    heard: Iterable[HeardEvent], initial: Mapping[str, Hashable], final: Mapping[str, Hashable]
) -> str | None:
    """Replayed, the events lead from what the store had at the beginning to what it has at the end."""
    state = dict(initial)
    for event in heard:
        if event.value is None:
            state.pop(event.key, None)
        else:
            state[event.key] = event.value
    for key in sorted(state.keys() | final.keys()):
        if state.get(key) != final.get(key):
            return f"{key!r} is {state.get(key)!r} by the events, and {final.get(key)!r} in the store"
    return None


def check_events(
    heard: Sequence[HeardEvent],
    commits: Mapping[int, Collection[str]],
    rolled_back: Collection[Hashable],
    initial: Mapping[str, Hashable],
    final: Mapping[str, Hashable],
) -> Verdict:
    """Make all checks; the first that objects gives the verdict."""
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
