"""The catalogue of workloads: the operations that threads run on a store under test."""

from __future__ import annotations

from collections.abc import Callable

from latchstore.stress.workloads.action import (
    Action,
    PlainWorkload,
    RolledBackError,
    Workload,
    outcome_of,
    prepare,
    shares,
    store_for,
    supported_by,
)
from latchstore.stress.workloads.bank import Bank
from latchstore.stress.workloads.batches import Batches
from latchstore.stress.workloads.cache import CacheWorkload
from latchstore.stress.workloads.compare_and_set import CompareAndSet, Removals
from latchstore.stress.workloads.delivery import Delivery
from latchstore.stress.workloads.entries import Entries
from latchstore.stress.workloads.events import Events
from latchstore.stress.workloads.files import Files
from latchstore.stress.workloads.indexes import Indexes
from latchstore.stress.workloads.list_append import ListAppend
from latchstore.stress.workloads.loading import Loading
from latchstore.stress.workloads.mappings import Mappings
from latchstore.stress.workloads.near import Near
from latchstore.stress.workloads.optimistic import Optimistic
from latchstore.stress.workloads.phantoms import Phantoms
from latchstore.stress.workloads.queues import QueueWorkload
from latchstore.stress.workloads.registers import KeyAction, Registers
from latchstore.stress.workloads.resuming import Resuming
from latchstore.stress.workloads.scans import Scans
from latchstore.stress.workloads.several_keys import SeveralKeys
from latchstore.stress.workloads.sizes import Sizes
from latchstore.stress.workloads.snapshots import Snapshots
from latchstore.stress.workloads.transactions import Transactions
from latchstore.stress.workloads.waiting import Waiting
from latchstore.stress.workloads.ycsb import YcsbA, YcsbB, YcsbC, YcsbD, YcsbE, YcsbF

__all__ = [
    "WORKLOADS",
    "Action",
    "KeyAction",
    "ListAppend",
    "PlainWorkload",
    "Registers",
    "RolledBackError",
    "Workload",
    "outcome_of",
    "prepare",
    "shares",
    "store_for",
    "supported_by",
]

#: The workloads, by name. The first line of each docstring is the description.
WORKLOADS: dict[str, Callable[[], Workload]] = {
    Registers.name: Registers,
    Entries.name: Entries,
    Batches.name: Batches,
    Transactions.name: Transactions,
    SeveralKeys.name: SeveralKeys,
    Bank.name: Bank,
    ListAppend.name: ListAppend,
    Optimistic.name: Optimistic,
    Phantoms.name: Phantoms,
    Scans.name: Scans,
    Indexes.name: Indexes,
    Sizes.name: Sizes,
    Mappings.name: Mappings,
    CompareAndSet.name: CompareAndSet,
    Removals.name: Removals,
    Snapshots.name: Snapshots,
    Events.name: Events,
    Delivery.name: Delivery,
    Resuming.name: Resuming,
    Waiting.name: Waiting,
    Files.name: Files,
    YcsbA.name: YcsbA,
    YcsbB.name: YcsbB,
    YcsbC.name: YcsbC,
    YcsbD.name: YcsbD,
    YcsbE.name: YcsbE,
    YcsbF.name: YcsbF,
    CacheWorkload.name: CacheWorkload,
    Near.name: Near,
    Loading.name: Loading,
    QueueWorkload.name: QueueWorkload,
}
