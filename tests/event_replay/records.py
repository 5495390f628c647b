"""What writers have written and listeners have got, written down."""

from __future__ import annotations

from typing import Any, NamedTuple

#: Seconds after which a wait has failed.
TIMEOUT = 200.0

KEYS = [f"k{number}" for number in range(100)]

#: What data begins with that is never committed.
ROLLED_BACK = b"rolled back"

#: Data and metadata of one key.
State = tuple[bytes, dict[str, Any]]


class Heard(NamedTuple):
    """One event, as the steady listener has written it down."""

    revision: int
    key: str
    action: str
    value: State | None
    previous: State | None


class Written(NamedTuple):
    """What one thread knows to have committed."""

    #: The data of each set, each of its own.
    data: list[bytes]
    #: The marks that updates of metadata have left, each of its own.
    marks: list[str]
    #: The keys that transactions have changed, by revision.
    keys: dict[int, list[str]]
    #: The revisions of transactions, and one None for every other commit.
    commits: list[int | None]


def update(revision: int, key: str, value: State, previous: State) -> Heard:
    return Heard(revision, key, "update", value, previous)


A1: State = (b"a1", {})
A2: State = (b"a1", {"mark": "m"})
B1: State = (b"b1", {})
B2: State = (b"b2", {})
C1: State = (b"c1", {})

#: Six commits: set a; set b; a transaction of a, b and c; delete b; b again; delete c.
RIGHT = [
    Heard(1, "a", "set", A1, None),
    Heard(2, "b", "set", B1, None),
    update(3, "a", A2, A1),
    update(3, "b", B2, B1),
    Heard(3, "c", "set", C1, None),
    Heard(4, "b", "delete", None, B2),
    Heard(5, "b", "set", (b"b3", {}), None),
    Heard(6, "c", "delete", None, C1),
]


def changed(place: int, **facts: Any) -> list[Heard]:
    return [*RIGHT[:place], RIGHT[place]._replace(**facts), *RIGHT[place + 1 :]]
