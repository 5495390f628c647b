"""Stores that are broken on purpose, and a bench on which actions are run by hand.

Broken stores are run by one thread. Where two threads must meet, the store calls the second one's action in
the middle of the first one's, so every run is the same. Every history is written to a file and read back
before it is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from latchstore import AbstractStore, DictMemoryStore, EventManager, RevisionMismatchError
from latchstore.stress.history import History, Operation, Outcome
from latchstore.stress.verdict import Verdict
from latchstore.stress.workloads import Action, RolledBackError, Workload


def our_store() -> DictMemoryStore:
    return DictMemoryStore(EventManager())


class Bench:
    """Runs actions by hand and writes them down; one that runs inside another one overlaps it."""

    def __init__(self, store: AbstractStore, workload: Workload, path: Path) -> None:
        self.store = store
        self.workload = workload
        self._path = path
        self._sources = [workload.actions(thread, 0) for thread in range(3)]
        self._time = 0
        self.operations: list[Operation] = []
        workload.prepare(store)

    def pick(self, name: str, thread: int = 0, key: str = "", argument: Any = None) -> Action:
        """Return a thread's next action of a name."""
        return next(
            action
            for action in islice(self._sources[thread], 5_000)
            if action.name == name
            and key in str(action.key)
            and (argument is None or action.argument == argument)
        )

    def do(self, name: str, thread: int = 0, key: str = "", argument: Any = None) -> Any:
        """Do a thread's next action of a name."""
        return self.run(self.pick(name, thread, key, argument), thread)

    def run(self, action: Action, thread: int = 0) -> Any:
        """Do an action."""
        outcome: Outcome = "ok"
        result = None
        begin = self._tick()
        try:
            result = action.run(self.store)
        except (RolledBackError, RevisionMismatchError):
            outcome = "fail"
        revision = getattr(action, "revision", None)
        times = begin, self._tick()
        self.operations.append(
            Operation(
                thread, action.name, action.key, action.argument, result, *times, outcome, revision=revision
            )
        )
        return result

    def _tick(self) -> int:
        self._time += 1
        return self._time

    def verdicts(self, facts: Any = None) -> dict[str, Verdict]:
        """Look at the store for the last time, and check a copy of the history from a file."""
        facts = self.workload.finish(self.store) if facts is None else facts
        History(self.operations, {"facts": {self.workload.name: facts}}).write(self._path)
        return type(self.workload)().verdicts(History.read(self._path))

    def complaint(self) -> str:
        """Return what the invalid verdicts say; there must be one."""
        verdicts = self.verdicts()
        wrong = [f"{name}: {each.reason}" for name, each in verdicts.items() if each.answer == "invalid"]
        assert wrong, verdicts
        return "\n".join(wrong)


MakeBench = Callable[[AbstractStore, Workload], Bench]


class Hooked(DictMemoryStore):
    """Lets something else happen in the middle of what it does; `meanwhile` maps a method to that."""

    def __init__(self) -> None:
        super().__init__(EventManager())
        self.meanwhile: dict[str, Callable[[], object]] = {}

    def _interrupt(self, place: str) -> None:
        something = self.meanwhile.pop(place, None)
        if something is not None:
            something()

    def from_bytes(self, key: str, *arguments: Any, **options: Any) -> None:
        self._interrupt("before from_bytes")
        super().from_bytes(key, *arguments, **options)
        self._interrupt("after from_bytes")

    def set(self, key: str, *arguments: Any, **options: Any) -> None:
        super().set(key, *arguments, **options)
        self._interrupt("after set")

    def set_metadata(self, key: str, *arguments: Any, **options: Any) -> None:
        super().set_metadata(key, *arguments, **options)
        self._interrupt("after set_metadata")

    def update_metadata(self, key: str, *arguments: Any, **options: Any) -> None:
        super().update_metadata(key, *arguments, **options)
        self._interrupt("after update_metadata")


class NoTransactions(Hooked):
    """Has blocks that hold up nobody and take back nothing."""

    @contextmanager
    def transaction(self, notes: str = "", **options: Any) -> Iterator[None]:  # type: ignore[override]
        yield


class NoSavepoints(Hooked):
    """Has transactions, but inner blocks take back nothing."""

    depth = 0

    @contextmanager
    def transaction(self, notes: str = "", **options: Any) -> Iterator[None]:  # type: ignore[override]
        if self.depth:
            yield
            return
        self.depth += 1
        try:
            with super().transaction(notes, **options):
                yield
        finally:
            self.depth -= 1


class Frozen(DictMemoryStore):
    """Answers reads by a copy of the store as it was when `freeze` was called."""

    def __init__(self) -> None:
        super().__init__(EventManager())
        self._past: Any = None

    def freeze(self) -> None:
        self._past = super().snapshot()

    def _answer(self, method: str, *arguments: Any, **options: Any) -> Any:
        if self._past is None or self.current_transaction() is not None:
            return getattr(super(), method)(*arguments, **options)
        return getattr(self._past, method)(*arguments, **options)

    def to_bytes(self, *arguments: Any, **options: Any) -> Any:
        return self._answer("to_bytes", *arguments, **options)

    def get(self, *arguments: Any, **options: Any) -> Any:
        return self._answer("get", *arguments, **options)

    def get_metadata(self, *arguments: Any, **options: Any) -> Any:
        return self._answer("get_metadata", *arguments, **options)

    def multiget(self, *arguments: Any, **options: Any) -> Any:
        return self._answer("multiget", *arguments, **options)

    def query(self, *arguments: Any, **options: Any) -> Any:
        return self._answer("query", *arguments, **options)

    def glob(self, *arguments: Any, **options: Any) -> Any:
        return self._answer("glob", *arguments, **options)


def scan(members: str, begin: int, end: int) -> Operation:
    return Operation(1, "scan", "g", None, [f"g/{member}" for member in members], begin, end)
