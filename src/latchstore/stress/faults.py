"""Faults that a run can put in."""

from __future__ import annotations

from typing import Protocol

from latchstore.store import AbstractStore
from latchstore.stress.scheduler import Scheduler


class InjectedError(BaseException):
    """Put in by the harness: what it has broken off may or may not have had its effect."""


class Injector(Protocol):
    """Puts faults into runs."""

    def begin(self, scheduler: Scheduler, store: AbstractStore, seed: int) -> None:
        """Prepare the faults of one run, before its threads go on."""

    def end(self, scheduler: Scheduler) -> None:
        """Take them back."""
