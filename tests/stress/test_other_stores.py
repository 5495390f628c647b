"""Correct stores of other makes give no alarm; what they do not have is left out, and not reported."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from latchstore import AbstractStore
from latchstore.__main__ import main
from latchstore.stress.check import StressError, linearizable_store
from latchstore.stress.schedules import ScheduleKind
from latchstore.stress.workloads import WORKLOADS
from tests.contract.reference_store import ReferenceStore


def _locked(name: str) -> Any:
    method = getattr(AbstractStore, name)

    def locked(self: OneLock, *arguments: Any, **options: Any) -> Any:
        with self.lock:
            found = getattr(ReferenceStore, name)(self, *arguments, **options)
            # A stream is an iterator as well.
            return iter(list(found)) if isinstance(found, Iterator) and not hasattr(found, "read") else found

    return locked if callable(method) else method


class OneLock(ReferenceStore):
    """A dict with one lock around all that there is. It has no events, no watches and no snapshots."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.RLock()

    @contextmanager
    def transaction(self, notes: str = "") -> Iterator[None]:
        with self.lock, super().transaction(notes):
            yield


for _name in (
    "get", "query", "set", "delete", "set_data", "set_metadata", "update_metadata",
    "get_data", "get_metadata", "exists", "glob", "query_keys", "to_bytes", "from_bytes", "get_data_range",
    "multiget", "multiget_data", "multiget_metadata", "multiset", "multiset_data", "multiset_metadata",
):  # fmt: skip
    setattr(OneLock, _name, _locked(_name))


class NoTransactions(OneLock):
    """The same without transactions."""

    def transaction(self, notes: str = "") -> Any:
        raise NotImplementedError("this store has no transactions")


def supported(store: type[AbstractStore]) -> set[str]:
    return {name for name, workload in WORKLOADS.items() if workload().supports(store())}


def test_what_needs_events_or_snapshots_is_left_out() -> None:
    left_out = {
        "events",
        "delivery",
        "resuming",
        "waiting",
        "snapshots",
        "optimistic",
        "indexes",
        "files",
        "cache",
        "near",
        "loading",
        "queue",
    }
    assert supported(OneLock) == WORKLOADS.keys() - left_out


def test_what_needs_transactions_is_left_out() -> None:
    assert supported(NoTransactions) == {
        "registers", "entries", "compare-and-set", "removals",
        "ycsb-a", "ycsb-b", "ycsb-c", "ycsb-d", "ycsb-e",
    }  # fmt: skip


class Removes(OneLock):
    """The same, whose removals have no condition."""

    def delete(self, key: str) -> None:  # type: ignore[override]
        super().delete(key)


def test_what_needs_conditional_removals_alone_is_left_out() -> None:
    assert supported(OneLock) - supported(Removes) == {"removals"}


@pytest.mark.parametrize("store", [OneLock, NoTransactions])
@pytest.mark.parametrize("schedule", ["native", "pct"])
def test_no_alarm(store: type[AbstractStore], schedule: ScheduleKind) -> None:
    outcome = linearizable_store(store, schedule=schedule, operations=600)
    assert outcome.result.answer == "valid"
    names = {row.name for row in outcome.figures}
    assert "total by snapshot" not in names
    if store is NoTransactions:
        assert not any("transaction" in name or name == "swap" for name in names)


def test_the_command_tells_what_it_leaves_out(capsys: pytest.CaptureFixture[str]) -> None:
    store = f"{__name__}:OneLock"
    assert main(["stress", "--store", store, "--schedule", "pct", "--ops", "200"]) == 0
    told = capsys.readouterr()
    assert "skipped, as the store does not support them: optimistic, indexes, snapshots, events, " in told.err
    assert "events" not in told.out
    assert main(["stress", "--store", store, "--workload", "events"]) == 2
    assert "does not support these workloads: events" in capsys.readouterr().err


class NoGet(OneLock):
    """The same with an error in it that comes up at once."""

    def get(self, key: str) -> Any:
        raise RuntimeError("no connection")


def test_a_store_that_cannot_be_used_at_all_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stress", "--store", f"{__name__}:NoGet"]) == 2
    told = capsys.readouterr()
    assert "latchstore stress: error: RuntimeError: no connection (at test_other_stores.py:" in told.err
    assert told.err.count("\n") == 1


class NoRollback(OneLock):
    """The same, whose transactions take nothing back."""

    @contextmanager
    def transaction(self, notes: str = "") -> Iterator[None]:
        with self.lock:
            yield


def test_what_needs_no_second_thread_is_called_a_sequential_defect() -> None:
    with pytest.raises(StressError, match=r"^sequential defect: transactions: whole: invalid: ") as caught:
        linearizable_store(NoRollback, workloads=["transactions"], schedule="pct")
    assert "no two of the calls overlapped" in str(caught.value)
    assert caught.value.outcome.result.is_sequential
