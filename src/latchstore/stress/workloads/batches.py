"""Calls on several keys at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from latchstore.stress.workloads.action import TransactionalWorkload
from latchstore.stress.workloads.calling import Calls


class Batches(TransactionalWorkload, Calls):
    """Many keys read and written by one call, and single ones meanwhile: linearizable."""

    name = "batches"
    weight: ClassVar[float] = 3
    writes: ClassVar[Sequence[str]] = (
        "multiset",
        "multiset_data",
        "multiset_metadata",
        "multiupdate_metadata",
        "set",
        "update_metadata",
        "delete",
    )
    reads: ClassVar[Sequence[str]] = ("multiget", "multiget_data", "multiget_metadata", "get")
    keys = 3
