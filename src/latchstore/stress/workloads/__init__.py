"""What threads do to a store while they are watched: the catalogue of workloads."""

from __future__ import annotations

from collections.abc import Callable

from latchstore.stress.workloads.action import Action, PlainWorkload, RolledBackError, Workload, prepare
from latchstore.stress.workloads.bank import Bank
from latchstore.stress.workloads.cache import CacheWorkload
from latchstore.stress.workloads.compare_and_set import CompareAndSet
from latchstore.stress.workloads.events import Events
from latchstore.stress.workloads.list_append import ListAppend
from latchstore.stress.workloads.registers import KeyAction, Registers
from latchstore.stress.workloads.scans import Scans
from latchstore.stress.workloads.several_keys import SeveralKeys
from latchstore.stress.workloads.snapshots import Snapshots
from latchstore.stress.workloads.transactions import Transactions
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
    "prepare",
]

#: The workloads, by name. The first line of the docstring of each says what it does.
WORKLOADS: dict[str, Callable[[], Workload]] = {
    Registers.name: Registers,
    Transactions.name: Transactions,
    SeveralKeys.name: SeveralKeys,
    Bank.name: Bank,
    ListAppend.name: ListAppend,
    Scans.name: Scans,
    CompareAndSet.name: CompareAndSet,
    Snapshots.name: Snapshots,
    Events.name: Events,
    YcsbA.name: YcsbA,
    YcsbB.name: YcsbB,
    YcsbC.name: YcsbC,
    YcsbD.name: YcsbD,
    YcsbE.name: YcsbE,
    YcsbF.name: YcsbF,
    CacheWorkload.name: CacheWorkload,
}
