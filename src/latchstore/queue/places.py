"""Where a job stands in its queue: one metadata item, whose order is the order of the queue.

The item `PLACE` of a job is a string. Its parts are separated by slashes, which no name of a queue has:

=========================================== ======================================================
``{queue}/dead/{time}/{rank}``              a dead letter, since that time
``{queue}/due/{time}/delayed/{rank}``       not to be claimed before that time
``{queue}/due/{time}/leased/{rank}``        claimed by a worker, whose lease ends then
``{queue}/ready/{rank}``                    can be claimed
=========================================== ======================================================

Times are microseconds since the epoch, with leading zeros. The rank is the priority, the highest one first,
and then the number of the job, which grows from job to job. So the first of the ready ones is the next job,
the first of the due ones the next that becomes ready, and all but dead letters stand side by side.

Thread safety: nothing here keeps anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from latchstore.contract.arguments import describe

#: What the names of the metadata items of a queue begin with. A user's own must not.
PREFIX = "queue."

#: Where the job stands.
PLACE = "queue.place"

#: How often it was claimed; missing before the first time.
ATTEMPTS = "queue.attempts"

#: Why the last attempt failed; missing before the first failure.
REASON = "queue.reason"

#: The highest priority; the lowest is its negative.
HIGHEST_PRIORITY = 10**9

#: The latest time that is told from others, in microseconds: in some thousand years.
_LATEST = 10**17

#: From when to when a time in microseconds has sixteen digits, with a second at either end: 2001 to 2286.
_FIRST, _LAST = 10**9 + 1, 10**10 - 1


class Place(NamedTuple):
    """What `PLACE` holds, taken apart.

    Attributes
    ----------
    queue : str
    state : str
        ``"ready"``, ``"delayed"``, ``"leased"`` or ``"dead"``.
    time : int
        Microseconds since the epoch; 0 if it is ready.
    rank : str
    """

    queue: str
    state: str
    time: int
    rank: str

    @property
    def priority(self) -> int:
        """The priority of the job."""
        return HIGHEST_PRIORITY - int(self.rank.partition("-")[0])

    @property
    def number(self) -> int:
        """The number of the job: nanoseconds since the epoch when it was put, or a little more."""
        return int(self.rank.partition("-")[2])


def parsed(place: str) -> Place:
    """Take a place apart."""
    queue, state, *rest = place.split("/")
    if state == "ready":
        return Place(queue, state, 0, rest[0])
    if state == "dead":
        return Place(queue, state, int(rest[0]), rest[1])
    return Place(queue, rest[1], int(rest[0]), rest[2])


def rank_of(priority: int, number: int) -> str:
    """Return the rank of a job."""
    return f"{HIGHEST_PRIORITY - priority:010d}-{number:020d}"


def rank_in(place: str) -> str:
    """Return the rank of the job that has a place."""
    return place[place.rindex("/") + 1 :]


def microseconds(seconds: float) -> int:
    """Return a time as places have it."""
    return min(max(int(seconds * 1_000_000), 0), _LATEST)


def time_of(begins: str, seconds: float) -> str:
    """Return the part of a place that ends with a time."""
    # hot path: those of our time have sixteen digits, and take no format.
    if _FIRST <= seconds < _LAST:
        return f"{begins}0000{int(seconds * 1_000_000)}"
    return f"{begins}{microseconds(seconds):020d}"


def ready(queue: str, rank: str) -> str:
    """Return the place of a job that can be claimed."""
    return f"{queue}/ready/{rank}"


def due(queue: str) -> str:
    """Return what the places begin with of jobs that become ready at a time."""
    return f"{queue}/due/"


def delayed(queue: str, until: float, rank: str) -> str:
    """Return the place of a job that is not to be claimed before a time."""
    return f"{queue}/due/{microseconds(until):020d}/delayed/{rank}"


def leased(queue: str, until: float, rank: str) -> str:
    """Return the place of a job that a worker has until a time."""
    return f"{time_of(f'{queue}/due/', until)}/leased/{rank}"


def dead(queue: str, since: float, rank: str) -> str:
    """Return the place of a dead letter."""
    return f"{queue}/dead/{microseconds(since):020d}/{rank}"


def place_of(metadata: Mapping[str, Any] | None, queue: str) -> str | None:
    """Return the place that a job of a queue has; None if this is none. Runs builtin code alone."""
    if metadata is None or PLACE not in metadata:
        return None
    place = metadata[PLACE]
    return place if type(place) is str and place.startswith(f"{queue}/") else None


def own_items(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata that is the user's."""
    return {name: item for name, item in metadata.items() if not name.startswith(PREFIX)}


def checked_items(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a user's metadata for a job as a dictionary.

    Raises
    ------
    TypeError
        If it is no mapping with strings for keys.
    ValueError
        If it has an item of ours.
    """
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata must be a mapping with str keys, got {describe(metadata)}")
    items = dict(metadata)
    for name in items:
        if isinstance(name, str) and name.startswith(PREFIX):
            raise ValueError(f"metadata must have no item whose name begins with {PREFIX!r}, got {name!r}")
    return items
