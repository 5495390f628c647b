"""Our store passes under threads; stores broken on purpose do not, and each workload finds what it is for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from latchstore import AbstractStore, DictMemoryStore, EventManager, LockTimeoutError
from latchstore.stress.faults import Asynchronous
from latchstore.stress.history import History
from latchstore.stress.native import WorkerError, run_native
from latchstore.stress.workloads import KeyAction, ListAppend, PlainWorkload, Registers, Workload

WORKLOADS: tuple[Workload, ...] = (Registers(), ListAppend())


@pytest.fixture
def store() -> DictMemoryStore:
    return DictMemoryStore(EventManager())


@pytest.mark.parametrize("switch_interval", [0.005, 1e-6])
@pytest.mark.parametrize("threads", [2, 8])
def test_our_store_passes(store: DictMemoryStore, threads: int, switch_interval: float) -> None:
    history = run_native(
        store,
        WORKLOADS,
        threads=threads,
        operations=4_000 // threads,
        seed=1,
        switch_interval=switch_interval,
    )
    assert len(history.operations) == 4_000
    for workload in WORKLOADS:
        for name, verdict in workload.verdicts(history).items():
            assert verdict.answer == "valid", (name, verdict)


class Stale(DictMemoryStore):
    """Answers a read by what was there a read before."""

    def __init__(self) -> None:
        super().__init__(EventManager())
        self._seen: dict[str, bytes] = {}

    def to_bytes(self, key: str, buffer_size: int = 1) -> bytes:
        now = super().to_bytes(key)
        before = self._seen.get(key, now)
        self._seen[key] = now
        return before


class NoIsolation(DictMemoryStore):
    """Has transactions that hold up nobody and take back nothing."""

    @contextmanager
    def transaction(self, notes: str = "", **options: Any) -> Iterator[None]:  # type: ignore[override]
        yield


class LosesDeletes(DictMemoryStore):
    """Forgets now and then to delete."""

    def delete(self, key: str, *, if_revision: int | None = None) -> None:
        if hash(self.to_bytes(key)) % 3:
            super().delete(key)


@pytest.mark.parametrize(
    ("broken", "workload"),
    [
        (Stale, Registers()),
        (lambda: LosesDeletes(EventManager()), Registers()),
        (lambda: NoIsolation(EventManager()), ListAppend()),
    ],
    ids=["stale reads", "lost deletes", "no isolation"],
)
def test_a_broken_store_does_not_pass(broken: Any, workload: Any) -> None:
    history = run_native(broken(), [workload], threads=4, operations=1_000, switch_interval=1e-6)
    (verdict,) = workload.verdicts(history).values()
    assert verdict.answer == "invalid"


def test_a_history_can_be_checked_again_from_its_file(tmp_path: Path) -> None:
    history = run_native(NoIsolation(EventManager()), WORKLOADS, operations=600, switch_interval=1e-6)
    history.write(tmp_path / "history.jsonl")
    again = History.read(tmp_path / "history.jsonl")
    assert again.header["workloads"] == ["registers", "list-append"]
    for workload in WORKLOADS:
        assert workload.verdicts(again) == workload.verdicts(history)


def test_the_same_seed_gives_the_same_actions() -> None:
    def first_actions(seed: int, thread: int) -> list[Any]:
        return [
            (action.name, action.key, action.argument)
            for workload in WORKLOADS
            for _, action in zip(range(50), workload.actions(thread, seed), strict=False)
        ]

    assert first_actions(1, 0) == first_actions(1, 0)
    assert first_actions(1, 0) != first_actions(2, 0)
    assert first_actions(1, 0) != first_actions(1, 1)


class Crashing(PlainWorkload):
    """A workload whose actions raise something that no store may raise."""

    name = "crashing"

    class Crash(KeyAction):
        def run(self, store: AbstractStore) -> Any:
            raise ZeroDivisionError

    def actions(self, thread: int, seed: int) -> Iterator[KeyAction]:
        while True:
            yield self.Crash("get", "k")

    def verdicts(self, history: History) -> dict[str, Any]:
        return {}


def test_a_crash_ends_the_run(store: DictMemoryStore) -> None:
    with pytest.raises(WorkerError, match="ZeroDivisionError"):
        run_native(store, [Crashing()])


def test_a_run_that_hangs_is_given_up(store: DictMemoryStore) -> None:
    go_on = threading.Event()

    class Hang(KeyAction):
        def run(self, store: AbstractStore) -> Any:
            assert go_on.wait(30)

    class Hanging(Crashing):
        Crash = Hang  # type: ignore[assignment]

    try:
        with pytest.raises(WorkerError, match="have not ended"):
            run_native(store, [Hanging()], threads=2, operations=1, timeout=0.1)
    finally:
        go_on.set()


def test_what_the_store_refuses_has_had_no_effect() -> None:
    store = DictMemoryStore(EventManager(), lock_timeout=0)
    history = run_native(store, WORKLOADS, threads=4, operations=500, switch_interval=1e-6)
    assert any(operation.outcome == "fail" for operation in history.operations)
    for workload in WORKLOADS:
        for verdict in workload.verdicts(history).values():
            assert verdict.answer == "valid", verdict


class KeepsALock(DictMemoryStore):
    """As if a thread that was broken off held a lock for good."""

    def __init__(self, *, lock_timeout: float) -> None:
        super().__init__(EventManager(), lock_timeout=lock_timeout)

    def from_bytes(self, *arguments: Any, **options: Any) -> None:
        raise LockTimeoutError("no lock")


class ImpatientAsynchronous(Asynchronous):
    patience = 0.0


def test_a_store_that_keeps_a_lock_is_found_and_the_run_ends() -> None:
    fault = ImpatientAsynchronous(0, lambda name: None)
    store = KeepsALock(**fault.options)
    with pytest.raises(WorkerError, match="left a lock held"):
        run_native(store, [Registers()], threads=2, operations=10**9, faults=[fault])
