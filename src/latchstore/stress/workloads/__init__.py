"""What threads do to a store while they are watched: the catalogue of workloads."""

from __future__ import annotations

from collections.abc import Callable

from latchstore.stress.workloads.action import Action, PlainWorkload, RolledBackError, Workload
from latchstore.stress.workloads.list_append import ListAppend
from latchstore.stress.workloads.registers import KeyAction, Registers

__all__ = [
    "WORKLOADS",
    "Action",
    "KeyAction",
    "ListAppend",
    "PlainWorkload",
    "Registers",
    "RolledBackError",
    "Workload",
]

#: The workloads, by name. The first line of the docstring of each says what it does.
WORKLOADS: dict[str, Callable[[], Workload]] = {
    Registers.name: Registers,
    ListAppend.name: ListAppend,
}
