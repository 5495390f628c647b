"""What all threads of a soak share."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

from latchstore import DictMemoryStore, StoreDeleteEvent, StoreModificationEvent
from latchstore.contract.store import AbstractReadOnlyStore

ACCOUNTS = [f"account/{number}" for number in range(20)]
TOTAL = 100 * len(ACCOUNTS)
SIDES = ["pair/left", "pair/right"]

#: Seconds after which a wait has failed.
TIMEOUT = 60.0


@dataclass
class Scene:
    """One soak.

    Attributes
    ----------
    store : DictMemoryStore
    seed : int
    directory : Path
        For what is saved.
    violations : list of str
        What must not be, and was.
    """

    store: DictMemoryStore
    seed: int
    directory: Path
    violations: list[str] = field(default_factory=list)

    def expect(self, true: bool, what: str) -> None:
        """Note a violation if something is not true."""
        if not true:
            self.violations.append(f"{threading.current_thread().name}: {what}")

    def expect_one_instant(self, view: AbstractReadOnlyStore) -> None:
        """Look at what holds between any two commits."""
        total = sum(metadata["balance"] for metadata in view.multiget_metadata(ACCOUNTS))
        self.expect(total == TOTAL, f"the accounts have {total}, not {TOTAL}")
        sides = [view.to_bytes(side) for side in SIDES if view.exists(side)]
        self.expect(sides in ([], sides[:1] * 2), f"half a commit: {sides}")


class Mirror:
    """The revisions that a store's keys must have, going by what was told of it."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.revisions: dict[str, int] = {}
        self.last = 0
        self.events = 0

    def hear(self, event: StoreModificationEvent) -> None:
        """Be told of a change."""
        revision = event.revision or 0
        self._scene.expect(revision >= self.last, f"revision {revision} was told after {self.last}")
        self.last = revision
        self.events += 1
        if isinstance(event, StoreDeleteEvent):
            known = self.revisions.pop(event.key, None)
            self._scene.expect(known is not None, f"{event.key!r} went and was not there")
        else:
            self.revisions[event.key] = revision
