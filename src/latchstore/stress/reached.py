"""The memory of a search for an order of calls, see `latchstore.stress.linearizability`.

Thread safety: one search uses it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import islice
from typing import Any

#: The maximum number of places of a search that are remembered, which take some hundred bytes each.
_MOST_PLACES = 2_000_000


class Reached:
    """The places entered: for each set of calls and state, the sets of pending calls.

    The oldest are removed when there are too many: that costs time, and changes no answer.
    """

    def __init__(self) -> None:
        # The pending calls of a place: one bit set, or a list of those of which none is a part of another.
        self._hashed: dict[tuple[int, int, Hashable], int | list[int]] = {}
        self._compared: dict[tuple[int, int], list[tuple[Any, int]]] = {}

    def enter(self, done: int, ahead: int, used: int, state: Any) -> bool:
        """Record a place; return False if it was entered with the same or fewer pending calls."""
        place = done, ahead, state
        count = len(self._hashed)
        try:
            known = self._hashed.setdefault(place, used)
        except TypeError:
            return self._enter_compared(done, ahead, used, state)
        if len(self._hashed) > count:
            if count >= _MOST_PLACES:
                for old in list(islice(self._hashed, _MOST_PLACES // 2)):
                    del self._hashed[old]
            return True
        if isinstance(known, int):
            if known & used == known:
                return False
            self._hashed[place] = used if known & used == used else [known, used]
            return True
        for other in known:
            if other & used == other:
                return False
        known[:] = [other for other in known if other & used != used]
        known.append(used)
        return True

    def _enter_compared(self, done: int, ahead: int, used: int, state: Any) -> bool:
        known = self._compared.setdefault((done, ahead), [])
        for other_state, other in known:
            if other & used == other and other_state == state:
                return False
        known.append((state, used))
        return True


def groups_of(calls: Sequence[Any]) -> list[list[int]]:
    """Return the numbers of equal calls, each group in their order."""
    groups: dict[Hashable, list[list[int]]] = {}
    for number, operation in enumerate(calls):
        asked = operation
        try:
            hash(asked)
        except TypeError:
            asked = repr(asked)
        similar = groups.setdefault(asked, [])
        for members in similar:
            if calls[members[0]] == operation:
                members.append(number)
                break
        else:
            similar.append([number])
    return [members for similar in groups.values() for members in similar]


def alike(pending: Sequence[Any], first: int) -> list[tuple[list[int], int]]:
    """Return the groups of pending calls with equal operations: their numbers, from `first` on, and bits.

    In a group the first call begins first. The group that begins last comes first.
    """
    return [
        ([first + number for number in members], sum(1 << number for number in members))
        for members in sorted(groups_of(pending), reverse=True)
    ]
