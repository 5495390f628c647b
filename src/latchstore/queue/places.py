"""The place of a job in its queue: one metadata item, whose order is the order of the queue.

The item `PLACE` of a job is a string. Slashes separate its parts; a queue's name has no slash:

=========================================== ======================================================
``{queue}/dead/{time}/{rank}``              a dead letter since that time
``{queue}/due/{time}/delayed/{rank}``       cannot be claimed before that time
``{queue}/due/{time}/leased/{rank}``        claimed by a worker; the lease ends at that time
``{queue}/ready/{rank}``                    can be claimed
=========================================== ======================================================

Times are microseconds since the epoch, with leading zeros. The rank is the priority, highest first, followed
by the number of the job, which increases from job to job. So the first ready place is the next job, the first
due place is the job that becomes ready next, and all places other than those of dead letters are adjacent.

Thread safety: this module has no state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from latchstore.contract.arguments import describe

#: Prefix of the names of a queue's metadata items; reserved for them.
PREFIX = "queue."

#: The place of a job.
PLACE = "queue.place"

#: Number of claims; missing before the first.
ATTEMPTS = "queue.attempts"

#: Reason of the last failure; missing before the first.
REASON = "queue.reason"

#: The name under which jobs of each state of a place are counted.
COUNTED = {"ready": "waiting", "delayed": "delayed", "leased": "leased", "dead": "dead"}

#: The highest priority; the lowest is its negative.
HIGHEST_PRIORITY = 10**9

#: The latest representable time, in microseconds: in some thousand years.
_LATEST = 10**17

#: The range of seconds whose microseconds have sixteen digits, less a second at either end: 2001 to 2286.
_FIRST, _LAST = 10**9 + 1, 10**10 - 1


class Place(NamedTuple):
    """A `PLACE` string, parsed.

    Attributes
    ----------
    queue : str
    state : str
        ``"ready"``, ``"delayed"``, ``"leased"`` or ``"dead"``.
    time : int
        Microseconds since the epoch; 0 for a ready job.
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
        """The number of the job: nanoseconds since the epoch at the put, or slightly more."""
        return int(self.rank.partition("-")[2])


def parsed(place: str) -> Place:
    """Parse a place."""
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
    """Return the rank in a place."""
    return place[place.rindex("/") + 1 :]


def microseconds(seconds: float) -> int:
    """Return a time in the unit of places."""
    return min(max(int(seconds * 1_000_000), 0), _LATEST)


def time_of(begins: str, seconds: float) -> str:
    """Return the beginning of a place, with a time at its end."""
    # hot path: present times have sixteen digits and need no formatting.
    if _FIRST <= seconds < _LAST:
        return f"{begins}0000{int(seconds * 1_000_000)}"
    return f"{begins}{microseconds(seconds):020d}"


def ready(queue: str, rank: str) -> str:
    """Return the place of a ready job."""
    return f"{queue}/ready/{rank}"


def due(queue: str) -> str:
    """Return the prefix of the places of delayed and leased jobs."""
    return f"{queue}/due/"


def delayed(queue: str, until: float, rank: str) -> str:
    """Return the place of a job that cannot be claimed before a time."""
    return f"{queue}/due/{microseconds(until):020d}/delayed/{rank}"


def leased(queue: str, until: float, rank: str) -> str:
    """Return the place of a job that a worker holds until a time."""
    return f"{time_of(f'{queue}/due/', until)}/leased/{rank}"


def dead(queue: str, since: float, rank: str) -> str:
    """Return the place of a dead letter."""
    return f"{queue}/dead/{microseconds(since):020d}/{rank}"


def place_of(metadata: Mapping[str, Any] | None, queue: str) -> str | None:
    """Return the place of a queue's job; None for anything else. Runs builtin code only."""
    if metadata is None or PLACE not in metadata:
        return None
    place = metadata[PLACE]
    return place if type(place) is str and place.startswith(f"{queue}/") else None


def own_items(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the user's part of the metadata."""
    return {name: item for name, item in metadata.items() if not name.startswith(PREFIX)}


def checked_items(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a user's metadata for a job as a dictionary.

    Raises
    ------
    TypeError
        If it is not a mapping with str keys.
    ValueError
        If an item's name has the queue's prefix.
    """
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata must be a mapping with str keys, got {describe(metadata)}")
    items = dict(metadata)
    for name in items:
        if isinstance(name, str) and name.startswith(PREFIX):
            raise ValueError(f"metadata must not have names that begin with {PREFIX!r}, got {name!r}")
    return items
