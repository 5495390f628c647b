"""Mutants whose work queues are broken, for the workload `queue` to find; part of the catalogue.

Thread safety: as what they break, as a rule without it.
"""

from __future__ import annotations

from typing import Any

from latchstore.contract.values import Entry
from latchstore.engine.edits import IfItems
from latchstore.engine.first_entry import FirstEntry, NothingFoundError
from latchstore.engine.heads import Head
from latchstore.engine.inspection import table_of
from latchstore.queue import WorkQueue, places
from latchstore.queue.claiming import Claims
from tests.mutants.mutant import mutant, replaces


@mutant("queue")
def claim_in_two_sections() -> None:
    """A claim finds its job in one section, and leases it in another without looking again."""

    @replaces(FirstEntry, "commit")
    def commit(original: Any, self: Any, prefix: str, unless: tuple[str, str], purpose: str) -> None:
        table = table_of(self._store)
        table.exclusively(purpose, self._find, prefix, unless)
        try:
            table.commit(self, purpose)
        except KeyError:
            raise NothingFoundError from None  # another has ended the job meanwhile


@mutant("queue")
def ack_without_fencing() -> None:
    """A worker ends the job whoever has it by then."""

    @replaces(IfItems, "revise")
    def revise(original: Any, self: IfItems, key: str, current: Entry | None, *now: Any) -> Entry | None:
        if current is None:
            missing: Entry | None = original(self, key, current, *now)
            return missing
        return self.edit.revise(key, current, *now)


@mutant("queue")
def lease_that_never_ends() -> None:
    """A job whose lease has run out is leased on, for ever."""

    @replaces(Claims, "_items_when_due")
    def items_when_due(original: Any, self: Any, place: places.Place, attempts: int) -> Any:
        if place.state == "leased":
            return {places.PLACE: places.leased(place.queue, 1e9, place.rank)}
        return original(self, place, attempts)


@mutant("queue")
def promotion_drops_a_job() -> None:
    """A job whose lease has run out is put into another queue."""

    @replaces(Claims, "_items_when_due")
    def items_when_due(original: Any, self: Any, place: places.Place, attempts: int) -> Any:
        return {places.PLACE: places.ready("another", place.rank)}


@mutant("queue")
def last_in_first_out() -> None:
    """A claim takes the last of the jobs that are ready."""

    @replaces(Head, "first")
    def first(original: Any, self: Any, name: str, entries: dict[str, Entry], garbage: Any) -> Any:
        found = original(self, name, entries, garbage)
        if found is None or "/ready/" not in self.prefix:
            return found
        there = (*self._line, *self._heap)
        return max((value, key) for value, key in there if key in entries and entries[key][name] == value)


@mutant("queue")
def priority_ignored() -> None:
    """All jobs stand in one line, whatever their priority."""

    @replaces(places, "rank_of")
    def rank_of(original: Any, priority: int, number: int) -> Any:
        return original(0, number)


@mutant("queue")
def put_although_rolled_back() -> None:
    """A job that was put in a transaction is there, whether that is committed or not."""

    @replaces(WorkQueue, "_put")
    def put(original: Any, self: Any, *arguments: Any) -> None:
        original(self, *arguments)
        transaction = self.store.current_transaction()
        if transaction is not None:
            transaction.on_rollback(lambda: original(self, *arguments))
