"""Checks a work queue: no job is lost, none is done twice while leases last, and claims are in order.

The conditions are necessary ones, each about a few operations, so the check is fast for long histories. If
the outcome of an operation is unknown, any possible outcome is allowed.

Thread safety: one thread uses a log.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from latchstore.stress.history import Operation
from latchstore.stress.verdict import VALID, Verdict

#: The end of an operation that never returned.
_FOREVER = float("inf")


class _OfJob(NamedTuple):
    """An operation on a job, at one attempt."""

    token: str
    attempts: int
    operation: Operation


def _end_of(operation: Operation) -> float:
    return _FOREVER if operation.end is None or operation.outcome == "info" else operation.end


class QueueLog:
    """The operations on one queue.

    Parameters
    ----------
    operations : sequence of Operation
        ``put...`` with token and priority as argument and the number as result; ``claim`` with token and
        attempts as result, or None; ``ack...``, ``retry`` and ``extend`` with token, attempts, and ``"done"``
        or ``"lost"`` as result; ``tick``, after which all leases have expired; ``die``.
    initial : mapping
        Priority and number of each job that existed before, by token.
    """

    def __init__(self, operations: Sequence[Operation], initial: Mapping[str, Sequence[int]]) -> None:
        self._initial = initial
        self._puts = [each for each in operations if each.name.startswith("put")]
        self._ticks = [each for each in operations if each.name == "tick"]
        # Claims whose job is unknown.
        self._unknown_claims = [
            each for each in operations if each.name == "claim" and each.outcome == "info"
        ]
        self._unknown_ends = [
            each
            for each in operations
            if each.outcome == "info" and each.name.startswith(("ack", "retry", "extend"))
        ]
        self._claims = [
            _OfJob(each.result[0], each.result[1], each)
            for each in operations
            if each.name == "claim" and each.outcome == "ok" and each.result is not None
        ]
        self._empty = [
            each
            for each in operations
            if each.name == "claim" and each.outcome == "ok" and each.result is None
        ]
        ends = [
            (_OfJob(each.result[0], each.result[1], each), each.result[2])
            for each in operations
            if each.name.startswith(("ack", "retry", "extend")) and each.outcome == "ok"
        ]
        self._done = [end for end, outcome in ends if outcome == "done"]
        self._lost = [end for end, outcome in ends if outcome == "lost"]

    def _acked(self) -> list[_OfJob]:
        return [end for end in self._done if end.operation.name.startswith("ack")]

    # -- nothing lost -----------------------------------------------------------------------------

    def nothing_lost(self, left: Sequence[str], dead: Sequence[str]) -> Verdict:
        """Check that each job is acknowledged or left exactly once, unless its put was rolled back."""
        acked: dict[str, Operation] = {}
        for end in self._acked():
            if end.token in acked:
                reason = (
                    f"job {end.token!r} was acknowledged twice: ({acked[end.token]}) and ({end.operation})"
                )
                return Verdict("invalid", reason, (acked[end.token], end.operation))
            acked[end.token] = end.operation
        there = [*left, *dead]
        for token in there:
            if there.count(token) > 1:
                return Verdict("invalid", f"job {token!r} is left {there.count(token)} times")
            if token in acked:
                return Verdict("invalid", f"job {token!r} is left, after ({acked[token]})", (acked[token],))
        for token, put in self._tokens():
            if token not in acked and token not in there and not self._unknown_ends:
                why = "at the beginning" if put is None else f"by ({put})"
                return Verdict("invalid", f"job {token!r}, put {why}, is lost", (put,) if put else ())
        return self._nothing_undone(there)

    def _tokens(self) -> Iterable[tuple[str, Operation | None]]:
        for token in self._initial:
            yield token, None
        for put in self._puts:
            if put.outcome == "ok":
                yield put.argument[0], put

    def _nothing_undone(self, there: Sequence[str]) -> Verdict:
        undone = {put.argument[0]: put for put in self._puts if put.outcome == "fail"}
        for claim in self._claims:
            if claim.token in undone:
                put = undone[claim.token]
                reason = f"({claim.operation}) got the job of ({put}), which was rolled back"
                return Verdict("invalid", reason, (put, claim.operation))
        for token in there:
            if token in undone:
                return Verdict(
                    "invalid", f"job {token!r} is left, although its put was rolled back", (undone[token],)
                )
        return VALID

    # -- leases -----------------------------------------------------------------------------------

    def leases_are_kept(self) -> Verdict:
        """Check that one worker at a time has a job, and that a worker who lost it changes nothing."""
        by_token: dict[str, list[_OfJob]] = {}
        for claim in self._claims:
            by_token.setdefault(claim.token, []).append(claim)
        for claims in by_token.values():
            claims.sort(key=lambda claim: claim.attempts)
            for earlier, later in pairwise(claims):
                wrong = self._wrong_pair(earlier, later)
                if wrong is not None:
                    both = earlier.operation, later.operation
                    return Verdict("invalid", f"({both[0]}) and ({both[1]}): {wrong}", both)
        for end in self._done:
            later_claims = [each for each in by_token.get(end.token, ()) if each.attempts > end.attempts]
            for claim in later_claims:
                both = claim.operation, end.operation
                if claim.operation.precedes(end.operation):
                    return Verdict("invalid", f"({both[1]}) came after ({both[0]})", both)
                if end.operation.name.startswith("ack") and end.operation.precedes(claim.operation):
                    return Verdict("invalid", f"({both[0]}) got the job that ({both[1]}) had ended", both)
        return self._none_lost_for_nothing(by_token)

    def _wrong_pair(self, earlier: _OfJob, later: _OfJob) -> str | None:
        if earlier.attempts == later.attempts:
            return "both are the same attempt"
        if later.operation.precedes(earlier.operation):
            return "the later attempt came first"
        begin, end = earlier.operation.begin, _end_of(later.operation)
        reasons = [*self._ticks, *self._unknown_ends, *self._unknown_claims]
        reasons += [each.operation for each in self._done if each.token == earlier.token]
        if any(each.begin < end and _end_of(each) > begin for each in reasons):
            return None
        return "the lease was valid, and the job was not released"

    def _none_lost_for_nothing(self, by_token: Mapping[str, Sequence[_OfJob]]) -> Verdict:
        for end in self._lost:
            others = [each.operation for each in by_token.get(end.token, ()) if each.attempts > end.attempts]
            others += [*self._unknown_claims, *self._unknown_ends]
            if not any(other.begin < _end_of(end.operation) for other in others):
                reason = f"({end.operation}) was refused, but no other worker claimed the job"
                return Verdict("invalid", reason, (end.operation,))
        return VALID

    # -- order ------------------------------------------------------------------------------------

    def order_is_kept(self) -> Verdict:
        """Check that no claim skipped a job that was ready and not claimed before."""
        ranks = {token: (-priority, number) for token, (priority, number) in self._initial.items()}
        since: dict[str, Operation | None] = dict.fromkeys(self._initial)
        for put in self._puts:
            if put.outcome == "ok":
                token, priority = put.argument
                ranks[token], since[token] = (-priority, put.result), put
        first_claim: dict[str, float] = {}
        for claim in self._claims:
            begin = claim.operation.begin
            first_claim[claim.token] = min(begin, first_claim.get(claim.token, begin))
        first_unknown = min((each.begin for each in self._unknown_claims), default=_FOREVER)
        got: list[tuple[Operation, str | None]] = [(each.operation, each.token) for each in self._claims]
        got += [(each, None) for each in self._empty]
        for operation, token in got:
            end = _end_of(operation)
            if first_unknown < end or (token is not None and token not in ranks):
                continue
            for other, rank in ranks.items():
                source = since[other]
                is_there = source is None or source.precedes(operation)
                if (
                    is_there
                    and first_claim.get(other, _FOREVER) > end
                    and (token is None or rank < ranks[token])
                ):
                    reason = f"({operation}) skipped job {other!r}, which was ready"
                    return Verdict("invalid", reason, (operation, *((source,) if source else ())))
        return VALID
