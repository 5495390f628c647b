"""Checks the results of a cache over a database, and its bound.

Every value that a call writes or loads has a unique name, ``"0.3/1"``, which begins with the token of the
call. So the origin and the age of each value that was read are known.

A loaded value is as old as the moment at which its load had read the database; a value that was set or
modified is as old as that call. A *barrier* is a call that removes or replaces the value of a key. A call
that begins after a barrier has returned must not get a value older than the barrier: one that was settled
before it began.

Times are those of the history. Calls of the history advance the clock by which entries expire, so readings of
it are bounds on its value at a time.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import Any, NamedTuple

from latchstore.stress.history import Operation
from latchstore.stress.verdict import VALID, Verdict, all_of

#: Calls that return a value or None.
_READS = frozenset({"get", "get_or_load", "call memoized"})

#: Calls that replace or remove the value of a key.
_BARRIERS = frozenset({"set", "modify"})


class _Load(NamedTuple):
    """One call of a loader: when it began, when it had read the database, when it ended."""

    key: str
    name: str
    begin: int
    read: int
    end: int
    inside: bool


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of the cache, alone or as a step of a transaction, whose time and outcome it has."""

    name: str
    key: str
    argument: dict[str, Any]
    result: Any
    operation: Operation
    place: int

    @property
    def removed(self) -> Sequence[str]:
        """The keys whose value the call replaces or removes."""
        return (self.key,) if self.name in _BARRIERS else self.argument.get("keys", ())

    @property
    def end(self) -> float:
        """When the call was over; infinity if it was interrupted."""
        end = self.operation.end
        return inf if end is None or self.operation.outcome == "info" else end

    @property
    def value_read(self) -> list[Any] | None:
        """The value that the call found or loaded."""
        if self.operation.outcome != "ok":
            return None
        found = self.result if self.name in _READS else self.result[0] if self.name == "modify" else None
        return found if found is None else list(found)


def _calls_of(operation: Operation) -> Iterator[_Call]:
    """Return the calls of an operation."""
    steps = operation.argument.get("steps")
    if steps is None:
        yield _Call(operation.name, str(operation.key), operation.argument, operation.result, operation, 0)
        return
    results = operation.result or [None] * len(steps)
    for place, ((name, key, argument), result) in enumerate(zip(steps, results, strict=True)):
        yield _Call(name, key, argument, result, operation, place)


class _Barriers:
    """The calls that remove or replace the value of one key."""

    def __init__(self, calls: Iterable[_Call]) -> None:
        done = sorted((each for each in calls if each.operation.outcome == "ok"), key=lambda each: each.end)
        self._ends = [each.end for each in done]
        # Of the barriers that had returned when a call began, the one that began last matters.
        self._latest: list[_Call] = []
        for each in done:
            before = self._latest[-1] if self._latest else each
            self._latest.append(max(before, each, key=lambda call: call.operation.begin))

    def before(self, time: int) -> _Call | None:
        """Return the barrier that began last, of those that had returned by a time."""
        count = bisect_left(self._ends, time)
        return self._latest[count - 1] if count else None


class CacheLog:
    """The calls of all threads on a cache, and the loads.

    Parameters
    ----------
    operations : iterable of Operation
    loads : iterable of lists
        For each load: key, name of the value, begin, time after reading, end, whether in a transaction.
    start : float
        Value of the clock before it is first advanced by a second.
    """

    def __init__(
        self, operations: Iterable[Operation], loads: Iterable[Sequence[Any]], start: float = 0.0
    ) -> None:
        self._calls = [call for operation in operations for call in _calls_of(operation)]
        self._by_token = {call.argument["token"]: call for call in self._calls}
        self._loads = {load.name: load for load in (_Load(*each) for each in loads)}
        barriers: dict[str, list[_Call]] = {}
        touches: dict[str, list[_Call]] = {}
        for call in self._calls:
            for key in call.removed:
                barriers.setdefault(key, []).append(call)
            if call.name == "touch":
                touches.setdefault(call.key, []).append(call)
        self._barriers = {key: _Barriers(calls) for key, calls in barriers.items()}
        self._touches = {
            key: sorted(calls, key=lambda each: each.operation.begin) for key, calls in touches.items()
        }
        advances = [call for call in self._calls if call.name == "advance clock"]
        self._start = start
        self._advances_begun = sorted(call.operation.begin for call in advances)
        self._advances_done = sorted(call.end for call in advances if call.operation.outcome == "ok")

    def _reads(self) -> Iterator[tuple[_Call, list[Any]]]:
        for call in self._calls:
            value = call.value_read
            if value is not None:
                yield call, value

    # -- stale values -----------------------------------------------------------------------------

    def no_stale_value(self) -> Verdict:
        """No call returns a value that was removed or replaced before it began, or that was rolled back."""
        return all_of(self._check_age(call, value) for call, value in self._reads())

    def _check_age(self, call: _Call, value: list[Any]) -> Verdict:
        name = value[0]
        source = self._source(name)
        if source is None or source.key != call.key:
            return _invalid(f"({call.operation}) returned {value}, which no call has set or loaded", call)
        own = source.operation is call.operation
        if source.operation.outcome == "fail" and not own and self._is_part_of(source, name):
            return _invalid(
                f"({call.operation}) returned {value} of ({source.operation}), which was refused or rolled "
                "back",
                call,
                source,
            )
        removal = self._own_barrier(call)
        if removal is not None:
            if own and source.place >= removal.place:
                return VALID
            gave = f"step {call.place + 1} of ({call.operation}) returned {value}"
            return _invalid(f"{gave}, which its own step {removal.place + 1} had removed or replaced", call)
        barriers = self._barriers.get(call.key)
        barrier = None if barriers is None else barriers.before(call.operation.begin)
        if barrier is None or self._settled(name, source) >= barrier.operation.begin:
            return VALID
        return _invalid(
            f"({call.operation}) returned {value}, which is older than ({barrier.operation}); that had "
            "returned before the call began",
            call,
            barrier,
            source,
        )

    def _source(self, name: str) -> _Call | None:
        """Return the call that wrote or loaded a value."""
        return self._by_token.get(name.partition("/")[0])

    def _is_part_of(self, source: _Call, name: str) -> bool:
        """Return whether a value is undone with its call: a value loaded outside of transactions is not."""
        load = self._loads.get(name)
        return load is None or load.inside

    def _settled(self, name: str, source: _Call) -> float:
        """Return the time that counts as the age of a value."""
        load = self._loads.get(name)
        return source.end if load is None else load.read

    def _own_barrier(self, call: _Call) -> _Call | None:
        """Return the last step before this one, in the same transaction, that removes the key's value."""
        steps = call.operation.argument.get("steps", ())
        for _, _, argument in reversed(steps[: call.place]):
            step = self._by_token[argument["token"]]
            if call.key in step.removed:
                return step
        return None

    # -- time -------------------------------------------------------------------------------------

    def nothing_expired(self) -> Verdict:
        """No call returns a value that had expired before the call began."""
        return all_of(self._check_time(call, value) for call, value in self._reads())

    def _check_time(self, call: _Call, value: list[Any]) -> Verdict:
        deadline = self._deadline(value[0], call)
        least = self._start + bisect_left(self._advances_done, call.operation.begin)
        if least < deadline:
            return VALID
        source = self._source(value[0])
        return _invalid(
            f"({call.operation}) returned {value}, which had expired at {deadline:g}; the clock was at "
            f"{least:g} when the call began",
            call,
            *(() if source is None else (source,)),
        )

    def _deadline(self, name: str, reader: _Call) -> float:
        """Return the latest time at which a value that was read expires."""
        source = self._source(name)
        # `modify` keeps the time of expiry.
        while source is not None and source.name == "modify" and source.result and source.result[0]:
            source = self._source(source.result[0][0])
        if source is None or (source.name == "modify" and source.result is None):
            return inf
        deadline = self._latest_clock(source.end) + (source.argument.get("ttl") or inf)
        last = reader.end
        for touch in self._touches.get(reader.key, ()):
            if touch.operation.begin > last:
                break
            done = touch.operation.outcome != "fail" and touch.result is not False
            if done and touch.end >= source.operation.begin:
                deadline = max(deadline, self._latest_clock(touch.end) + touch.argument["ttl"])
        return deadline

    def _latest_clock(self, time: float) -> float:
        """Return the highest possible value of the clock at a time."""
        return inf if time == inf else self._start + bisect_right(self._advances_begun, time)

    # -- loads, changes and the bound -------------------------------------------------------------

    def one_load_at_a_time(self) -> Verdict:
        """No two loads of one key run at once, outside of transactions."""
        loads: dict[str, list[_Load]] = {}
        for load in self._loads.values():
            if not load.inside:
                loads.setdefault(load.key, []).append(load)
        for key, each in loads.items():
            each.sort(key=lambda load: load.begin)
            for load, following in pairwise(each):
                if following.begin < load.end:
                    callers = [self._source(load.name), self._source(following.name)]
                    told = " and by ".join(f"({caller.operation})" for caller in callers if caller)
                    reason = f"{key!r} was loaded twice at once: by {told}"
                    return _invalid(reason, *(caller for caller in callers if caller))
        return VALID

    def no_lost_update(self) -> Verdict:
        """No two modifications replace the same value."""
        replaced: dict[str, _Call] = {}
        for call, value in self._reads():
            if call.name != "modify":
                continue
            other = replaced.setdefault(value[0], call)
            if other is not call:
                reason = f"({call.operation}) and ({other.operation}) replaced the same value {value}"
                return _invalid(reason, call, other)
        return VALID

    def bound(self, changes: Sequence[Sequence[Any]], most_entries: int, most_bytes: int) -> Verdict:
        """No commit leaves more entries or bytes than the bound.

        Parameters
        ----------
        changes : sequence of lists
            In the order of commits: revision, key, and the entry's weight, None if it was removed.
        most_entries, most_bytes : int
        """
        held: dict[str, int] = {}
        for number, (revision, key, weight) in enumerate(changes):
            if weight is None:
                held.pop(key, None)
            else:
                held[key] = weight
            if number + 1 < len(changes) and changes[number + 1][0] == revision:
                continue
            weighs = sum(held.values())
            if len(held) > most_entries or weighs > most_bytes:
                return Verdict(
                    "invalid",
                    f"revision {revision} left {len(held)} entries of {weighs} bytes, above the bound of "
                    f"{most_entries} entries and {most_bytes} bytes: {held}",
                )
        return VALID


def _invalid(reason: str, *calls: _Call) -> Verdict:
    operations = dict.fromkeys(id(call.operation) for call in calls)
    by_identity = {id(call.operation): call.operation for call in calls}
    return Verdict("invalid", reason, tuple(by_identity[each] for each in operations))
