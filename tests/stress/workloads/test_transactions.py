"""Transactions, bank and list-append find the store that is broken where they look."""

from __future__ import annotations

from typing import Any

import pytest

from latchstore.stress.verdict import VALID
from latchstore.stress.workloads import ListAppend
from latchstore.stress.workloads.bank import Bank
from latchstore.stress.workloads.transactions import Transactions
from tests.stress.workloads.benches import Frozen, MakeBench, NoSavepoints, NoTransactions, our_store

# -- transactions -----------------------------------------------------------------------------------


GROUP_READS = ("multiget group", "multiget_data group", "read group in transaction")


@pytest.mark.parametrize("read", GROUP_READS)
def test_half_a_transaction(bench: MakeBench, read: str) -> None:
    store = NoTransactions()
    runs = bench(store, Transactions(groups=1))
    for place in ("after from_bytes", "after set"):
        store.meanwhile[place] = lambda: runs.do(read, 1)
    while store.meanwhile:
        runs.do("write group")
    assert "torn" in runs.complaint()


@pytest.mark.parametrize(
    "failing", ["roll back group", "roll back group for a missing key", "roll back group from an inner block"]
)
def test_a_rollback_that_takes_nothing_back(bench: MakeBench, failing: str) -> None:
    runs = bench(NoTransactions(), Transactions(groups=1))
    runs.do(failing)
    runs.do("read one of group", 1)
    complaint = runs.complaint()
    assert "was rolled back" in complaint or "torn" in complaint
    assert ("at the end there are" in complaint) == (failing == "roll back group")


def test_an_inner_block_that_takes_nothing_back(bench: MakeBench) -> None:
    runs = bench(NoSavepoints(), Transactions(groups=1))
    runs.do("write group in blocks")
    assert all(verdict == VALID for verdict in runs.verdicts().values())
    runs.do("write group around a failing block")
    assert "torn" in runs.complaint()


@pytest.mark.parametrize("read", ["multiget group", "read one of group"])
def test_a_whole_group_that_is_too_old(bench: MakeBench, read: str) -> None:
    store = Frozen()
    runs = bench(store, Transactions(groups=1))
    runs.do("write group")
    store.freeze()
    runs.do("write group", 1)
    runs.do(read, 2)
    assert "linearizable" in runs.complaint()


def test_single_keys_show_that_a_commit_is_not_one_instant(bench: MakeBench) -> None:
    # One key after the other: the new value, then the old one, while a commit goes on.
    store = NoTransactions()
    runs = bench(store, Transactions(groups=1))

    def read_both() -> None:
        seen: list[Any] = []
        while seen[-2:] != [[b.argument], ["initial"]] if (b := writes[-1]) else False:
            seen.append(runs.do("read one of group", 1))

    writes = [runs.pick("write group")]
    runs._sources[0] = iter(writes)
    for place in ("after from_bytes", "after set"):
        store.meanwhile[place] = read_both
    runs.do("write group")
    assert "linearizable" in runs.complaint()


def test_a_key_that_gets_lost(bench: MakeBench) -> None:
    store = our_store()
    runs = bench(store, Transactions(groups=1))
    runs.do("write group")
    store.delete("transactions/0/1")
    runs.do("multiget group")
    assert "torn" in runs.complaint()


# -- bank -------------------------------------------------------------------------------------------


def test_money_that_is_made(bench: MakeBench) -> None:
    store = NoTransactions()
    runs = bench(store, Bank())
    store.meanwhile["before from_bytes"] = lambda: runs.do("transfer", 1)
    runs.do("transfer")
    assert runs.complaint()


@pytest.mark.parametrize("total", ["total in transaction", "total by multiget"])
def test_money_that_is_on_its_way(bench: MakeBench, total: str) -> None:
    store = NoTransactions()
    runs = bench(store, Bank())
    store.meanwhile["after from_bytes"] = lambda: runs.do(total, 1)
    runs.do("transfer")
    assert "there must be 30 in all" in runs.complaint()


def test_an_account_that_is_overdrawn(bench: MakeBench) -> None:
    runs = bench(NoTransactions(), Bank())
    while runs.operations[-1:] == [] or runs.operations[-1].outcome == "ok":
        runs.do("transfer")
    runs.do("total by multiget")
    assert "there must be 30 in all" in runs.complaint()


def test_a_total_that_is_too_old(bench: MakeBench) -> None:
    store = Frozen()
    runs = bench(store, Bank())
    store.freeze()
    runs.do("transfer")
    runs.do("total by multiget")
    runs.store.__dict__["_past"] = None
    assert "linearizable" in runs.complaint()


def test_a_transfer_that_did_nothing(bench: MakeBench) -> None:
    store = our_store()
    runs = bench(store, Bank())
    with store.snapshot() as before:
        runs.do("transfer")
        for key in before.query_keys():
            store.set(key, before.get(key))
    # The sum is right all the same.
    assert "linearizable" in runs.complaint()


def test_a_bank_that_opens_later(bench: MakeBench) -> None:
    runs = bench(our_store(), Bank())
    runs._sources[0] = Bank().actions(4, 0)
    runs.do("open bank")
    runs.do("transfer")
    runs.do("total by snapshot")
    assert runs.operations[-1].key == "bank/1/0"
    assert set(runs.verdicts().values()) == {VALID}


# -- list-append ------------------------------------------------------------------------------------


def test_an_append_that_others_come_between(bench: MakeBench) -> None:
    store = NoTransactions()
    runs = bench(store, ListAppend(keys=1))
    store.meanwhile["before from_bytes"] = lambda: runs.do("append and read", 1)
    for _ in range(5):
        runs.do("append and read")
    assert runs.complaint()
