"""Registers, compare-and-set and YCSB find the store that is broken where they look."""

from __future__ import annotations

from typing import Any

import pytest

from latchstore import DictMemoryStore, EventManager, RevisionMismatchError
from latchstore.stress.history import Operation, Outcome
from latchstore.stress.verdict import VALID
from latchstore.stress.workloads import Registers
from latchstore.stress.workloads.compare_and_set import CompareAndSet
from latchstore.stress.workloads.registers import KeyAction, MetadataAction
from latchstore.stress.workloads.ycsb import YcsbA, YcsbB, YcsbC, YcsbD, YcsbE, YcsbF, check_growing_set
from tests.stress.workloads.benches import Frozen, Hooked, MakeBench, NoTransactions, scan

# -- registers --------------------------------------------------------------------------------------


def test_stale_reads_of_each_kind(bench: MakeBench) -> None:
    for kind, write, read in (
        ("data", "set", "get"),
        ("metadata", "set_metadata", "get_metadata"),
        ("pair", "set pair", "get pair"),
    ):
        store = Frozen()
        runs = bench(store, Registers())
        runs.do(write, key=f"/{kind}/0/0/0")
        store.freeze()
        runs.do(write, 1, key=f"/{kind}/0/0/0")
        runs.do(read, 2, key=f"/{kind}/0/0/0")
        assert "no order of these operations explains" in runs.complaint()


def test_an_update_of_metadata_that_is_lost(bench: MakeBench) -> None:
    class Lazy(DictMemoryStore):
        def update_metadata(self, key: str, metadata: Any, *, if_revision: int | None = None) -> None:
            self.get(key)

    runs = bench(Lazy(EventManager()), Registers())
    runs.do("update_metadata", key="/metadata/0/0/0")
    assert runs.operations[-1].result is False
    runs.do("set_metadata", key="/metadata/0/0/0")
    assert all(verdict == VALID for verdict in runs.verdicts().values())
    runs.do("update_metadata", key="/metadata/0/0/0")
    runs.run(MetadataAction("get_metadata", "registers/metadata/0/0/0"))
    assert "get_metadata" in runs.complaint() or "no order" in runs.complaint()


def test_an_update_of_metadata_that_makes_the_key(bench: MakeBench) -> None:
    class Making(DictMemoryStore):
        def update_metadata(self, key: str, metadata: Any, *, if_revision: int | None = None) -> None:
            self.set_metadata(key, metadata)

    runs = bench(Making(EventManager()), Registers())
    runs.do("update_metadata", key="/metadata/0/0/0")
    verdict = runs.verdicts()["linearizable"]
    assert verdict.explanation is not None
    assert verdict.explanation.expected == "False"


def test_data_of_one_write_with_metadata_of_another(bench: MakeBench) -> None:
    class Torn(Hooked):
        def set(self, key: str, value: Any, *arguments: Any, **options: Any) -> None:
            data, metadata = value
            super().set_data(key, data)
            self._interrupt("between data and metadata")
            super().set_metadata(key, metadata)

    store = Torn()
    runs = bench(store, Registers())
    runs.do("set pair", key="/pair/0/0/0")
    store.meanwhile["between data and metadata"] = lambda: runs.do("get pair", 1, key="/pair/0/0/0")
    runs.do("set pair", key="/pair/0/0/0")
    assert "torn read" in runs.complaint()


@pytest.mark.parametrize("write", ["set_metadata", "update_metadata"])
def test_metadata_that_is_kept_as_it_was_handed_in(bench: MakeBench, write: str) -> None:
    class Aliased(DictMemoryStore):
        live: dict[str, Any]

        def set_metadata(self, key: str, metadata: Any, *, if_revision: int | None = None) -> None:
            super().set_metadata(key, metadata)
            if write == "set_metadata":
                self.live = metadata

        def update_metadata(self, key: str, metadata: Any, *, if_revision: int | None = None) -> None:
            super().update_metadata(key, metadata)
            self.live = metadata

        def get_metadata(self, key: str, select: Any = None) -> dict[str, Any]:
            return self.live

    runs = bench(Aliased(EventManager()), Registers())
    runs.do("set_metadata", key="/metadata/0/0/0")
    if write == "update_metadata":
        runs.do("update_metadata", key="/metadata/0/0/0")
    runs.do("get_metadata", 1, key="/metadata/0/0/0")
    assert "spoiled" in runs.complaint()


def test_metadata_that_is_handed_out_alive(bench: MakeBench) -> None:
    class Alive(DictMemoryStore):
        def get_metadata(self, key: str, select: Any = None) -> dict[str, Any]:
            live: dict[str, Any] = self.__dict__.setdefault("live", super().get_metadata(key))
            return live

    runs = bench(Alive(EventManager()), Registers())
    runs.do("set_metadata", key="/metadata/0/0/0")
    runs.do("get_metadata", key="/metadata/0/0/0")
    assert runs.verdicts() == {"linearizable": VALID}
    runs.do("get_metadata", key="/metadata/0/0/0")
    assert "spoiled" in runs.complaint()


def test_a_swap_that_others_come_between(bench: MakeBench) -> None:
    store = NoTransactions()
    runs = bench(store, Registers())
    store.meanwhile["before from_bytes"] = lambda: runs.do("set", 1, key="/data/0/0/0")
    runs.do("exists", key="/data/0/0/0")
    runs.run(KeyAction("swap", "registers/data/0/0/0", [None, "7"]))
    runs.do("get", 1, key="/data/0/0/0")
    # The set of the other one was overwritten, though the swap must have seen it, or come before it.
    assert "no order" in runs.complaint()


# -- compare-and-set --------------------------------------------------------------------------------


class Unconditional(Hooked):
    """Writes whatever the revision is."""

    def set_data(self, *arguments: Any, if_revision: int | None = None, **options: Any) -> None:
        super().set_data(*arguments, **options)

    def set(self, *arguments: Any, if_revision: int | None = None, **options: Any) -> None:
        super().set(*arguments, **options)

    def from_bytes(self, *arguments: Any, if_revision: int | None = None, **options: Any) -> None:
        super().from_bytes(*arguments, **options)

    def set_metadata(self, *arguments: Any, if_revision: int | None = None, **options: Any) -> None:
        super().set_metadata(*arguments, **options)

    def update_metadata(self, *arguments: Any, if_revision: int | None = None, **options: Any) -> None:
        super().update_metadata(*arguments, **options)

    def get(self, key: str) -> Any:
        value = super().get(key)
        self._interrupt("after get")
        return value


@pytest.mark.parametrize("key", ["compare-and-set/0", "compare-and-set/1"])
def test_an_update_that_is_lost(bench: MakeBench, key: str) -> None:
    store = Unconditional()
    runs = bench(store, CompareAndSet())
    runs.do("replace", key=key)
    store.meanwhile["after get"] = lambda: runs.do("replace", 1, key=key)
    runs.do("replace", key=key)
    complaint = runs.complaint()
    assert "lost update" in complaint
    assert "is '2 0.3'" in complaint or "after 3 to 3 increments" in complaint


def test_a_write_that_says_it_did_not_happen(bench: MakeBench) -> None:
    class Liar(Hooked):
        def _write_one(self, key: str, edit: Any, purpose: str) -> None:
            super()._write_one(key, edit, purpose)
            if self.meanwhile:
                raise RevisionMismatchError(key, 1, 2)

    store = Liar()
    runs = bench(store, CompareAndSet())
    store.meanwhile["never"] = lambda: None
    runs.do("replace")
    assert runs.operations[-1].outcome == "fail"
    assert "after 0 to 0 increments" in runs.complaint()


def test_a_counter_that_is_too_old(bench: MakeBench) -> None:
    store = Frozen()
    runs = bench(store, CompareAndSet(keys=1))
    store.freeze()
    runs.do("replace")
    runs.do("get")
    store.__dict__["_past"] = None
    assert "linearizable" in runs.complaint()


def test_a_store_without_conditions_is_left_out() -> None:
    class Old(DictMemoryStore):
        def from_bytes(self, key: str, data: Any, buffer_size: int = 1) -> None:  # type: ignore[override]
            super().from_bytes(key, data)

    assert not CompareAndSet().supports(Old(EventManager()))


# -- YCSB -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workload", [YcsbA, YcsbB, YcsbD])
def test_a_record_that_is_too_old(bench: MakeBench, workload: Any) -> None:
    store = Frozen()
    runs = bench(store, workload())
    store.freeze()
    runs.do("set")
    key = str(runs.operations[-1].key)
    runs.do("get", 1, key=key)
    while runs.operations[-1].key != key:
        runs.do("get", 1, key=key)
    store.__dict__["_past"] = None
    assert "linearizable" in runs.complaint()


def test_a_record_that_was_never_loaded(bench: MakeBench) -> None:
    class Empty(DictMemoryStore):
        def multiset(self, keys: Any, values: Any, buffer_size: int = 1) -> None:
            super().multiset(list(keys)[1:], list(values)[1:])

    runs = bench(Empty(EventManager()), YcsbC())
    runs.do("get", key="ycsb-c/0")
    assert "linearizable" in runs.complaint()


def test_a_change_that_is_lost(bench: MakeBench) -> None:
    store = NoTransactions()
    runs = bench(store, YcsbF())
    store.meanwhile["before from_bytes"] = lambda: runs.do("replace", 1, key="ycsb-f/0")
    runs.do("replace", key="ycsb-f/0")
    assert "lost update" in runs.complaint()


def test_a_scan_that_misses_a_key(bench: MakeBench) -> None:
    store = Frozen()
    runs = bench(store, YcsbE())
    store.freeze()
    runs.do("insert", key="ycsb-e/0")
    runs.do("scan", key="ycsb-e/0")
    store.__dict__["_past"] = None
    assert "linearizable" in runs.complaint()


def insert(member: str, begin: int, end: int, outcome: Outcome = "ok") -> Operation:
    return Operation(0, "insert", "g", member, None, begin, end, outcome)


@pytest.mark.parametrize(
    ("operations", "answer"),
    [
        ([insert("a", 1, 2), scan("a", 3, 4)], "valid"),
        ([insert("a", 1, 9), insert("b", 1, 9), scan("", 2, 3), scan("b", 4, 5), scan("ab", 6, 7)], "valid"),
        ([insert("a", 1, 9), insert("b", 1, 9), scan("a", 2, 3), scan("b", 4, 5)], "invalid"),
        ([insert("a", 1, 9), scan("a", 2, 3), scan("", 4, 5)], "invalid"),
        ([insert("a", 1, 2), scan("", 3, 4)], "invalid"),
        ([scan("a", 1, 2), insert("a", 3, 4)], "invalid"),
        ([insert("a", 1, 2), insert("b", 3, 4), scan("b", 2, 5)], "invalid"),
        ([insert("a", 1, 2, "info"), scan("a", 3, 4)], "valid"),
        ([insert("a", 1, 2, "info"), scan("", 3, 4)], "valid"),
        ([insert("a", 1, 2, "fail"), scan("a", 3, 4)], "invalid"),
        ([insert("a", 1, 2), scan("aa", 3, 4)], "invalid"),
        ([insert("a", 1, 2), scan("ab", 3, 4)], "invalid"),
        # Scans of the same state, in either order.
        ([insert("a", 1, 20), scan("a", 6, 7), scan("a", 2, 3), scan("", 1, 9)], "valid"),
        ([insert("a", 1, 2), scan("a", 8, 9), scan("a", 3, 4)], "valid"),
    ],
)
def test_a_set_that_grows(operations: list[Operation], answer: str) -> None:
    assert check_growing_set(operations).answer == answer
