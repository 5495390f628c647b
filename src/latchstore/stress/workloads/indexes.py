"""Queries answered by an index, while entries and indexes change."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from latchstore.contract.store import AbstractStore
from latchstore.stress.history import History
from latchstore.stress.verdict import VALID, Verdict
from latchstore.stress.workloads.action import facts_of
from latchstore.stress.workloads.calling import Calls
from latchstore.stress.workloads.calls import keys_with

_INDEX = "colour"

#: How the indexes of a beginning change; each thread does it in this order, and then queries the new index.
_REMADE = ("remove_index", "add_index")
_CHANGES = ((), _REMADE, _REMADE, ("index made again",))


class Indexes(Calls):
    """Queries by indexed metadata items, with indexes made and removed meanwhile: linearizable."""

    name = "indexes"
    weight: ClassVar[float] = 5
    length: ClassVar[int | None] = 7
    writes: ClassVar[Sequence[str]] = ("set", "set_metadata", "update_metadata", "delete")
    reads: ClassVar[Sequence[str]] = ("query", "query_keys", "add_index", "remove_index", "index made again")
    keys = 3
    # The others are missing, so that keys come and go while there is no index.
    first_keys = 1

    def supports(self, store: AbstractStore) -> bool:
        """Return whether the store has indexes."""
        return all(callable(getattr(store, name, None)) for name in ("add_index", "remove_index"))

    def prepare(self, store: Any) -> None:
        """Make the index."""
        super().prepare(store)
        store.add_index(_INDEX)

    def attach(self, store: Any, handed: Any) -> None:
        """Make the index, which each process has by itself."""
        store.add_index(_INDEX)

    def _few(self, chance: random.Random) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
        # Without a query, indexes are not tested.
        writes, _, blocks = super()._few(chance)
        changes = chance.choice(_CHANGES)
        return writes, (chance.choice(self.reads[:2]), *changes), blocks

    def call(self, chance: random.Random, group: str, value: str, method: str) -> tuple[str, Any, Any]:
        """Return a call of a method."""
        if method in self.reads[2:]:
            return method, group, _INDEX
        return super().call(chance, group, value, method)

    def metadata(self, chance: random.Random, value: str) -> dict[str, str]:
        """Return a colour, and the value that identifies the write."""
        return {_INDEX: chance.choice(("red", "blue")), "by": value}

    def first_metadata(self) -> dict[str, str]:
        """Return a colour."""
        return {_INDEX: "red"}

    def finish(self, store: AbstractStore) -> Any:
        """Return the final entries of the keys, and the results of queries by each colour."""
        terms: list[dict[str, Any]] = [{_INDEX: colour} for colour in ("red", "blue")]
        found = {each[_INDEX]: keys_with(store.query_keys(**each), self.name) for each in terms}
        return {**super().finish(store), "by colour": found}

    def verdicts(self, history: History) -> dict[str, Verdict]:
        """Check each group; compare the final index with the entries."""
        facts = facts_of(self.name, history)
        verdict = VALID if facts is None else _check_index(facts)
        return {**super().verdicts(history), "index": verdict}

    def terms(self, chance: random.Random) -> dict[str, str]:
        """Return a colour."""
        return {_INDEX: chance.choice(("red", "blue"))}


def _check_index(facts: Mapping[str, Any]) -> Verdict:
    for colour, found in facts["by colour"].items():
        right = sorted(
            key
            for key, entry in facts.items()
            if key != "by colour" and entry is not None and entry[1].get(_INDEX) == colour
        )
        if found != right:
            return Verdict("invalid", f"at the end a query of {colour} finds {found}, but {right} have it")
    return VALID
