"""Which calls can lead to the states that other calls require, for a search for an order.

A model of registers makes two facts known: the only state in which a call can have its answer, and the state
after it. With these a search

- ends if a call requires a state to which no call can have led just before it, such as a stale read;
- abandons a place if a call requires another state than the present one, and no remaining call that can come
  before it leads there;
- takes a call that overwrites the state at once if no remaining call can require the state after it: in an
  order that has it later, it can as well come directly before the next call that overwrites the state.

Thread safety: one search uses an object.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import accumulate, chain
from math import inf
from typing import Any

from latchstore.stress.models import UNKNOWN


class Sources:
    """The calls of one search. Raises TypeError if a state cannot be hashed.

    Parameters
    ----------
    initial : object
        The initial state.
    begins, ends : sequence of float
        Of the calls, in the order of their beginnings; those that returned come first, only they have an end.
    required, given : sequence of object
        For each call, the state that it requires, and the state after it; UNKNOWN if there is not one.
    overwrites : sequence of bool
        Whether the state after the call is the same after every state before.
    """

    def __init__(
        self,
        initial: Any,
        begins: Sequence[float],
        ends: Sequence[float],
        required: Sequence[Any],
        given: Sequence[Any],
        overwrites: Sequence[bool],
    ) -> None:
        self._begins = begins
        self._ends = ends
        self._required = required
        self._given = given
        self._overwrites = overwrites
        self._givers: dict[Hashable, list[int]] = {}
        self._pending: dict[Hashable, list[int]] = {}
        for number, state in enumerate(given):
            if state is not UNKNOWN:
                where = self._givers if number < len(ends) else self._pending
                where.setdefault(state, []).append(number)
        self._users = self._users_of(given)
        #: The calls that require a state to which no call can have led just before them.
        self.impossible: frozenset[int] = frozenset(self._impossible(initial, given))
        # Another call may depend on the state in another way, such as one that has found another state.
        self._depends = not all(
            over or state is not UNKNOWN for over, state in zip(overwrites, required, strict=True)
        )

    def _users_of(self, given: Sequence[Any]) -> list[Sequence[int]]:
        """Return for each call that returned those that may require the state after it."""
        begins, ends = self._begins, self._ends
        users: dict[Hashable, list[int]] = {}
        for number, state in enumerate(self._required[: len(ends)]):
            if state is not UNKNOWN:
                users.setdefault(state, []).append(number)
        begun = {state: [begins[each] for each in members] for state, members in users.items()}
        # The latest end of each and of those before it: those which ended too soon are left out at once.
        ended = {
            state: [*accumulate((ends[each] for each in members), max)] for state, members in users.items()
        }
        # From each call on, the first end of one that leads to a state.
        leads = [inf if given[number] is UNKNOWN else end for number, end in enumerate(ends)]
        first_end = [*accumulate(reversed(leads), min)][::-1]
        certain = begins[: len(ends)]
        found: list[Sequence[int]] = []
        for number, end in enumerate(ends):
            members = users.get(given[number], ())
            if not members or given[number] is UNKNOWN:
                found.append(())
                continue
            # What begins after the end of a call that came in between does not see the state after this one.
            following = bisect_right(certain, end)
            reach = first_end[following] if following < len(ends) else inf
            first = bisect_left(ended[given[number]], begins[number])
            seen = members[first : bisect_right(begun[given[number]], reach)]
            found.append([each for each in seen if each != number and ends[each] >= begins[number]])
        return found

    def _impossible(self, initial: Any, given: Sequence[Any]) -> Iterator[int]:
        possible = set(chain.from_iterable(self._users))
        first_end = min(
            (end for end, state in zip(self._ends, given, strict=False) if state is not UNKNOWN), default=inf
        )
        for number, state in enumerate(self._required[: len(self._ends)]):
            if (
                state is UNKNOWN
                or number in possible
                or (state == initial and self._begins[number] <= first_end)
                or any(self._begins[each] <= self._ends[number] for each in self._pending.get(state, ()))
            ):
                continue
            yield number

    def due(self, moves: Sequence[int]) -> dict[int, float]:
        """Return for each of the next calls when it has to be taken at the latest, also for others."""
        ends, required, given = self._ends, self._required, self._given
        due = {move: ends[move] for move in moves}
        wanted: dict[Hashable, float] = {}
        changed = True
        while changed:
            changed = False
            for move in moves:
                state = required[move]
                if state is not UNKNOWN and due[move] < wanted.get(state, inf):
                    wanted[state] = due[move]
                    changed = True
            for move in moves:
                if wanted and wanted.get(given[move], inf) < due[move]:
                    due[move] = wanted[given[move]]
                    changed = True
        return due

    def is_missing(self, state: Any, moves: Iterable[int], done: int, ahead: int, used: int) -> bool:
        """Return whether one of the next calls requires a state to which no remaining call can lead."""
        begins, ends, count = self._begins, self._ends, len(self._ends)
        for move in moves:
            if move >= count:
                continue
            required = self._required[move]
            if required is UNKNOWN or required == state:
                continue
            end = ends[move]
            if not self._is_given(required, move, end, done, ahead) and not any(
                begins[giver] <= end and not used >> giver - count & 1
                for giver in self._pending.get(required, ())
            ):
                return True
        return False

    def _is_given(self, state: Any, move: int, end: float, done: int, ahead: int) -> bool:
        """Return whether a remaining call that returned leads to a state, and may precede another call."""
        givers = self._givers.get(state, [])
        for place in range(bisect_left(givers, done), len(givers)):
            giver = givers[place]
            if self._begins[giver] > end:
                return False
            if giver != move and not ahead >> giver - done & 1:
                return True
        return False

    def narrowed(self, moves: list[int], done: int, ahead: int) -> list[int] | None:
        """Return the next calls, with one of those that overwrite the state if it can be taken at once."""
        users, overwrites, count = self._users, self._overwrites, len(self._ends)
        if self._depends:
            return None
        for move in reversed(moves):
            if (
                move < count
                and overwrites[move]
                and not any(each >= done and not ahead >> each - done & 1 for each in users[move])
            ):
                # The last is tried first: those that leave the state as it is.
                return [move, *(each for each in moves if not overwrites[each])]
        return None
