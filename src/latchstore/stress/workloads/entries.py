"""The parts of one entry, written by some threads and read by others."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import ClassVar

from latchstore.stress.history import History, Operation
from latchstore.stress.verdict import VALID, Verdict, all_of
from latchstore.stress.workloads.action import operations_of
from latchstore.stress.workloads.calling import Calls
from latchstore.stress.workloads.stages import check_stages


class Entries(Calls):
    """Data and metadata of one key, written and read in part: linearizable, with increasing revisions."""

    name = "entries"
    weight: ClassVar[float] = 8
    writes: ClassVar[Sequence[str]] = (
        "set",
        "set_data",
        "from_bytes",
        "set_metadata",
        "update_metadata",
        "delete",
        "evict",
    )
    reads: ClassVar[Sequence[str]] = (
        "get",
        "get",
        "get_data",
        "get_data_range",
        "to_bytes",
        "get_metadata",
        "get_metadata, selected",
        "exists",
        "in",
    )
    keys = first_keys = 1

    def few_writes(self, chance: random.Random) -> Sequence[str]:
        """Return a method that writes data, one that writes metadata, and any other, often a removal."""
        data = chance.choice(("set", "set_data", "from_bytes"))
        metadata = chance.choice(("set_metadata", "update_metadata"))
        return data, metadata, chance.choice((*self.writes, "delete", "evict", "evict"))

    def verdicts(self, history: History) -> dict[str, Verdict]:
        """Check each key, and the revisions read from it."""
        keys: dict[str | None, list[Operation]] = {}
        for each in operations_of(self.name, history):
            if each.name == "get" and each.result is not None and each.revision is not None:
                keys.setdefault(each.key, []).append(each)
        return {**super().verdicts(history), "revisions": all_of(map(check_revisions, keys.values()))}


def check_revisions(reads: Sequence[Operation]) -> Verdict:
    """Check that each revision of a key belongs to one entry and vice versa, and that revisions increase.

    No two writes have the same value, so equal entries come from the same commit.
    """
    by_revision: dict[int, list[Operation]] = {}
    by_entry: dict[str, Operation] = {}
    for read in reads:
        assert read.revision is not None, "other reads are filtered out"
        same = by_revision.setdefault(read.revision, [])
        same.append(read)
        first = by_entry.setdefault(repr(read.result), read)
        other = same[0] if same[0].result != read.result else first
        if other.result != read.result or other.revision != read.revision:
            reason = f"({other}) has the revision {other.revision}, ({read}) has {read.revision}"
            return Verdict("invalid", reason, (other, read))
    verdict = check_stages(by_revision[revision] for revision in sorted(by_revision))
    if verdict.answer == "valid":
        return VALID
    return Verdict("invalid", f"a revision decreases: {verdict.reason}", verdict.operations)
