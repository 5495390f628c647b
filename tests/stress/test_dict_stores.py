"""Broken stores that begin with `AbstractStore` are found, and right ones of other makes give no alarm."""

from __future__ import annotations

import pytest

from latchstore import AbstractStore
from latchstore.stress.campaign import carry_out
from latchstore.stress.check import linearizable_store
from latchstore.stress.factories import factory_of
from latchstore.stress.plan import Plan
from latchstore.stress.workloads import WORKLOADS
from tests.stress import dict_stores as stores


@pytest.mark.parametrize(
    ("store", "workload"),
    [
        (stores.UpdatesWithoutLock, "entries"),
        (stores.SetsDataWithoutLock, "entries"),
        (stores.ReadsWithoutLock, "transactions"),
        (stores.CountsWithoutLock, "sizes"),
        (stores.LooksAndDeletes, "sizes"),
        (stores.SwapsCopies, "batches"),
        (stores.CopiesTooEarly, "transactions"),
        (stores.RemembersReads, "entries"),
    ],
)
def test_a_broken_store_is_found(store: type[AbstractStore], workload: str) -> None:
    plan = Plan(
        [WORKLOADS[workload]()], threads=3, seconds=None, operations=9_000, schedule="random", shrink=False
    )
    outcome = carry_out(plan, factory_of(store, store.__name__), lambda progress: None)
    assert outcome.result.answer == "invalid"


@pytest.mark.parametrize("store", [stores.LockedDict, stores.Sqlite, stores.Slow])
def test_a_right_store_gives_no_alarm(store: type[AbstractStore]) -> None:
    assert linearizable_store(store, schedule="random", operations=900).result.answer == "valid"


@pytest.mark.parametrize("store", [stores.LockedDict, stores.Sqlite])
def test_a_right_store_gives_no_alarm_on_native_threads(store: type[AbstractStore]) -> None:
    outcome = linearizable_store(store, schedule="native", operations=4_000)
    assert outcome.result.answer == "valid"
