"""Stores that are broken on purpose: each lets one kind of anomaly through."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from latchstore import DictMemoryStore, EventManager
from latchstore.contract.values import Entry
from latchstore.engine.edits import Edit, IfRevision
from latchstore.engine.inspection import table_of
from latchstore.engine.interface import Engine, View
from latchstore.engine.owner import Claim
from latchstore.engine.table import Table
from tests.tables import NobodyOwns, with_table


class ForgetsEdits(NobodyOwns):
    """Ends a transaction as if it had changed nothing."""

    __slots__ = ()

    def commit(
        self,
        edits: Collection[tuple[str, Edit]],
        operation: str | Claim,
        check: Callable[[], None] | None = None,
        timeout: float | None = None,
    ) -> bool:
        return super().commit(edits if isinstance(operation, str) else (), operation, None, timeout)


class ChecksNothing(Table):
    """Commits without a look at what the transaction has read."""

    __slots__ = ()

    def commit(
        self,
        edits: Collection[tuple[str, Edit]],
        operation: str | Claim,
        check: Callable[[], None] | None = None,
        timeout: float | None = None,
    ) -> bool:
        return super().commit(edits, operation, None, timeout)


class LiveView(View):
    """Whatever is in the engine just now."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.revision = engine.revision

    def entry(self, key: str) -> Entry | None:
        return self._engine.entry(key)

    def items(self) -> Iterable[tuple[str, Entry]]:
        return self._engine.candidates({})

    def changed(self) -> dict[str, tuple[Entry | None, Entry | None]]:
        return {}

    @property
    def is_open(self) -> bool:
        return True

    def close(self) -> None:
        pass


class GivesLiveViews(ChecksNothing):
    """Has no past to show."""

    __slots__ = ()

    def view(self) -> View:
        return LiveView(self)

    def begin(self, claim: Claim, exclusive: bool, timeout: float | None = None) -> View | None:
        view = super().begin(claim, exclusive, timeout)
        if view is None:
            return None
        view.close()
        return LiveView(self)


class Broken(DictMemoryStore):
    """A store with another engine."""

    engine_class: type[Table]

    def __init__(self, event_manager: EventManager) -> None:
        super().__init__(event_manager)
        with_table(self, self.engine_class)


class WithoutOwner(Broken):
    """Exclusive blocks do not exclude each other."""

    engine_class = NobodyOwns


class WritingThrough(Broken):
    """What a block writes is in the table at once, and stays there."""

    engine_class = ForgetsEdits

    def _write_one(self, key: str, edit: Edit, purpose: str) -> None:
        super()._write_one(key, edit, purpose)
        if self.current_transaction() is not None:
            table_of(self).entries[key] = self._entry(key)


class WithoutValidation(Broken):
    """Optimistic blocks are committed whatever others have done meanwhile."""

    engine_class = ChecksNothing


class WithoutSnapshots(Broken):
    """Snapshots, and optimistic blocks with them, show whatever is in the table just now."""

    engine_class = GivesLiveViews


class WithoutConditions(DictMemoryStore):
    """`if_revision` is taken, and not looked at."""

    def _write_one(self, key: str, edit: Edit, purpose: str) -> None:
        super()._write_one(key, edit.edit if isinstance(edit, IfRevision) else edit, purpose)
