"""Each workload finds the store that is broken where the workload looks, and passes ours.

Broken stores are run by one thread. Where two threads must meet, the store calls the second one's action in
the middle of the first one's, so every run is the same. Every history is written to a file and read back
before it is checked.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from latchstore import AbstractStore, BaseEvent, DictMemoryStore, EventManager, RevisionMismatchError
from latchstore.stress.history import History, Operation, Outcome
from latchstore.stress.native import run_native
from latchstore.stress.verdict import VALID, Verdict
from latchstore.stress.workloads import (
    WORKLOADS,
    Action,
    ListAppend,
    Registers,
    RolledBackError,
    Workload,
)
from latchstore.stress.workloads.bank import Bank
from latchstore.stress.workloads.compare_and_set import CompareAndSet
from latchstore.stress.workloads.events import Events
from latchstore.stress.workloads.registers import KeyAction, MetadataAction
from latchstore.stress.workloads.scans import Scans
from latchstore.stress.workloads.snapshots import Snapshots
from latchstore.stress.workloads.stages import ReplaceModel, check_replacements, check_stages
from latchstore.stress.workloads.transactions import Transactions
from latchstore.stress.workloads.ycsb import YcsbA, YcsbB, YcsbC, YcsbD, YcsbE, YcsbF, check_growing_set


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


@pytest.fixture
def bench(tmp_path: Path) -> Callable[[AbstractStore, Workload], Bench]:
    return lambda store, workload: Bench(store, workload, tmp_path / "history.jsonl")


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


# -- all of them ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WORKLOADS)
def test_our_store_passes(name: str, tmp_path: Path) -> None:
    workload = WORKLOADS[name]()
    assert workload.name == name
    store = our_store()
    assert workload.supports(store)
    assert not list(store.query_keys()), "asking leaves no trace"
    history = run_native(store, [workload], threads=4, operations=500, seed=7, switch_interval=1e-6)
    history.write(tmp_path / "history.jsonl")
    verdicts = WORKLOADS[name]().verdicts(History.read(tmp_path / "history.jsonl"))
    assert verdicts
    for check, verdict in verdicts.items():
        assert verdict == VALID, check
    assert verdicts == workload.verdicts(history)
    assert len({operation.outcome for operation in history.operations} & {"ok"}) == 1


def test_all_together() -> None:
    workloads = [workload for make in WORKLOADS.values() if not (workload := make()).alone]
    history = run_native(our_store(), workloads, threads=6, operations=700, seed=8, switch_interval=1e-6)
    assert len(history.operations) == 4_200
    for workload in workloads:
        for check, verdict in workload.verdicts(history).items():
            assert verdict == VALID, (workload.name, check)


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_catalogue_describes_each(name: str) -> None:
    first_line = (inspect.getdoc(WORKLOADS[name]) or "").splitlines()[0]
    assert first_line.endswith(".")


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_same_seed_gives_the_same_actions(name: str) -> None:
    def first(seed: int, thread: int) -> list[Any]:
        actions = WORKLOADS[name]().actions(thread, seed)
        return [(each.name, each.key, each.argument) for each, _ in zip(actions, range(100), strict=False)]

    assert first(1, 0) == first(1, 0)
    assert first(1, 0) != first(2, 0)
    assert first(1, 0) != first(1, 1)


@pytest.mark.parametrize("name", WORKLOADS)
def test_threads_meet_from_the_beginning(name: str) -> None:
    # Within three actions, two of three threads touch one key that one of them writes, in most runs.
    reads = (
        "get",
        "exists",
        "total",
        "scan",
        "query",
        "glob",
        "all keys",
        "read",
        "multiget",
        "look",
        "open",
    )
    met = 0
    for seed in range(40):
        touched: Counter[str] = Counter()
        written: set[str] = set()
        for thread in range(3):
            actions = WORKLOADS[name]().actions(thread, seed)
            mine = [each for each, _ in zip(actions, range(3), strict=False)]
            keys = {str(each.key) for each in mine}
            for each in mine:
                if not each.name.startswith(reads):
                    written.add(str(each.key))
            touched.update(keys)
        met += any(touched[key] > 1 for key in written)
    # B to D write seldom, and C never: that is what they are.
    least = {"ycsb-b": 4, "ycsb-c": 0, "ycsb-d": 2}.get(name, 20)
    assert met >= least


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
    assert ("in the end there are" in complaint) == (failing == "roll back group")


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


# -- scans ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "scan"),
    [("keys", scan) for scan in ("glob", "query", "query_keys", "all keys", "glob in transaction")]
    + [("places", scan) for scan in ("query", "query at one place")],
)
def test_a_scan_in_the_middle_of_a_move(bench: MakeBench, tokens: str, scan: str) -> None:
    store = NoTransactions()
    runs = bench(store, Scans())
    for place in ("after set_metadata", "after update_metadata"):
        store.meanwhile[place] = lambda: runs.do(scan, 1, key=f"scans/{tokens}")
    runs.do("move", key=f"scans/{tokens}")
    assert "torn" in runs.complaint()


@pytest.mark.parametrize("tokens", ["keys", "places"])
def test_a_scan_that_is_too_old(bench: MakeBench, tokens: str) -> None:
    store = Frozen()
    runs = bench(store, Scans())
    store.freeze()
    runs.do("move", key=f"scans/{tokens}")
    runs.do("query", key=f"scans/{tokens}")
    assert "linearizable" in runs.complaint()


@pytest.mark.parametrize("tokens", ["keys", "places"])
def test_a_move_that_was_taken_back_and_is_seen(bench: MakeBench, tokens: str) -> None:
    runs = bench(NoTransactions(), Scans())
    runs.do("move, not", key=f"scans/{tokens}")
    assert "nobody wrote that" in runs.complaint()


def test_a_key_that_a_count_misses(bench: MakeBench) -> None:
    class Short(DictMemoryStore):
        def query_keys(self, **items: Any) -> Iterator[str]:
            return iter(list(super().query_keys(**items))[1:])

    runs = bench(Short(EventManager()), Scans())
    runs.do("query_keys", key="scans/places")
    assert "torn" in runs.complaint()


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


# -- snapshots --------------------------------------------------------------------------------------


class Live(NoTransactions):
    """Has snapshots that go on with the store."""

    def snapshot(self) -> Any:
        store = self

        class View:
            def __getattr__(self, name: str) -> Any:
                return getattr(store, name)

            def close(self) -> None:
                pass

        return View()


def test_a_snapshot_that_goes_on(bench: MakeBench) -> None:
    runs = bench(Live(), Snapshots())
    runs.do("open snapshot")
    runs.do("write group", 1)
    runs.do("look again")
    assert "of the same snapshot" in runs.complaint()


def test_a_snapshot_of_half_a_transaction(bench: MakeBench) -> None:
    store = NoTransactions()
    runs = bench(store, Snapshots())
    for place in ("after from_bytes", "after set"):
        store.meanwhile[place] = lambda: runs.do("open snapshot", 1)
    while store.meanwhile:
        runs.do("write group")
    assert "torn" in runs.complaint()


def test_a_snapshot_that_is_too_old(bench: MakeBench) -> None:
    class Behind(DictMemoryStore):
        views: list[Any]

        def snapshot(self) -> Any:
            self.views.append(super().snapshot())
            return self.views[0]

    store = Behind(EventManager())
    store.views = []
    runs = bench(store, Snapshots())
    store.snapshot()
    runs.do("write group")
    runs.do("open snapshot", 1)
    assert "linearizable" in runs.complaint()


def test_a_look_at_a_snapshot_that_nobody_opened(bench: MakeBench) -> None:
    # What should have opened it was left out, or broken off. The look opens one itself.
    runs = bench(our_store(), Snapshots())
    runs.do("write group")
    runs.do("look again")
    assert runs.operations[-1].result["new"]
    runs.do("write group")
    runs.do("look again")
    assert set(runs.verdicts().values()) == {VALID}


def test_a_store_without_snapshots_is_left_out() -> None:
    class Plain(DictMemoryStore):
        snapshot = None  # type: ignore[assignment]

    assert not Snapshots().supports(Plain(EventManager()))


# -- events -----------------------------------------------------------------------------------------


def changed(bench: MakeBench, store: AbstractStore) -> tuple[Bench, Any]:
    """Make changes of each kind; return what was heard of them."""
    runs = bench(store, Events())
    for name in ("set with event", "write several", "from_bytes with event", "roll back several"):
        runs.do(name)
    for _ in range(4):
        runs.do("delete with event", 1)
        runs.do("write several")
    return runs, runs.workload.finish(store)


@pytest.mark.parametrize("ear", ["listener", "watch"])
@pytest.mark.parametrize(
    ("word", "spoil"),
    [
        ("none lost", lambda heard: heard[1:]),
        ("replay", lambda heard: heard[:-1] + [[*heard[-1][:2], heard[-1][2], heard[-1][3]]][:0]),
        ("unique", lambda heard: [*heard, heard[-1]]),
        ("ordered", lambda heard: [*heard[1:], heard[0]]),
        ("right old value", lambda heard: [[*heard[0][:3], "other"], *heard[1:]]),
        ("revision", lambda heard: [[None, *heard[0][1:]], *heard[1:]]),
        ("none lost", lambda heard: [*heard, [10**6, "events/come and gone", None, None]]),
    ],
)
def test_events_that_tell_no_truth(bench: MakeBench, ear: str, word: str, spoil: Any) -> None:
    runs, facts = changed(bench, our_store())
    assert facts["to the end"]
    assert runs.verdicts(facts) == {"listener": VALID, "watch": VALID}
    spoiled = spoil(facts[ear])
    verdicts = runs.verdicts({**facts, ear: spoiled})
    other = {"listener": "watch", "watch": "listener"}[ear]
    assert verdicts[other] == VALID
    assert verdicts[ear].answer == "invalid"
    assert word in verdicts[ear].reason or (word == "replay" and "none lost" in verdicts[ear].reason)


def test_events_of_transactions_that_nobody_saw_end(bench: MakeBench) -> None:
    runs, facts = changed(bench, our_store())
    runs.operations = [
        replace(each, outcome="info", result=None, revision=None) if each.name == "write several" else each
        for each in runs.operations
    ]
    assert any(None in each.argument.values() for each in runs.operations if each.name == "write several")
    assert runs.verdicts(facts) == {"listener": VALID, "watch": VALID}


def test_events_of_a_rollback(bench: MakeBench) -> None:
    runs = bench(NoTransactions(), Events())
    runs.do("roll back several", argument=None)
    assert "listener" in runs.complaint()


def test_events_of_an_inner_rollback(bench: MakeBench) -> None:
    runs = bench(NoSavepoints(), Events())
    runs.do("write several")
    assert "listener: " in runs.complaint()


def test_revisions_against_time(bench: MakeBench) -> None:
    runs, facts = changed(bench, our_store())
    swapped = [*runs.operations]
    first, last = swapped[0], next(each for each in swapped if each.name == "from_bytes with event")
    assert first.name == "set with event"
    # The two change places in time; the events stay.
    times = {id(first): (last.begin, last.end), id(last): (first.begin, first.end)}
    runs.operations = [
        each
        if id(each) not in times
        else Operation(each.thread, each.name, each.key, each.argument, each.result, *times[id(each)])
        for each in swapped
    ]
    assert "in time" in runs.verdicts(facts)["listener"].reason


@pytest.mark.parametrize(
    ("emitted", "word"),
    [
        (lambda emit, event: None, "none lost"),
        (lambda emit, event: (emit(event), emit(event)), "unique"),
    ],
    ids=["lost", "twice"],
)
def test_a_store_whose_events_go_astray(bench: MakeBench, emitted: Any, word: str) -> None:
    class Astray(EventManager):
        def emit(self, event: BaseEvent, block: bool = True) -> None:
            emitted(super().emit, event)

    runs = bench(DictMemoryStore(Astray()), Events())
    runs.do("set with event")
    verdicts = runs.verdicts()
    assert verdicts["watch"] == VALID
    assert word in verdicts["listener"].reason


def test_a_watch_that_drops_changes(bench: MakeBench) -> None:
    class Narrow(DictMemoryStore):
        def watch(self, *arguments: Any, **options: Any) -> Any:
            return super().watch(*arguments, **{**options, "max_buffer": 1})

    runs, facts = changed(bench, Narrow(EventManager()))
    verdicts = runs.verdicts(facts)
    assert verdicts["listener"] == VALID
    assert verdicts["watch"].answer == "invalid"


def test_a_watch_that_ended_with_a_close(bench: MakeBench) -> None:
    store = our_store()
    runs = bench(store, Events())
    runs.do("set with event")
    store.close()
    store.connect()
    runs.do("set with event")
    facts = runs.workload.finish(store)
    assert not facts["to the end"]
    assert runs.verdicts(facts) == {"listener": VALID, "watch": VALID}
    facts["watch"] *= 2
    assert "unique" in runs.verdicts(facts)["watch"].reason


def test_what_nobody_has_heard_is_unknown() -> None:
    (verdict,) = Events().verdicts(History(())).values()
    assert verdict.answer == "unknown"


def test_a_store_whose_events_have_no_revisions_is_left_out() -> None:
    class Plain(EventManager):
        def emit(self, event: Any, block: bool = True) -> None:
            event.revision = None
            super().emit(event)

    assert not Events().supports(DictMemoryStore(Plain()))


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


def scan(members: str, begin: int, end: int) -> Operation:
    return Operation(1, "scan", "g", None, [f"g/{member}" for member in members], begin, end)


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


# -- orders that are known --------------------------------------------------------------------------


def replaced(old: str | None, new: str, begin: int, end: int, outcome: Outcome = "ok") -> Operation:
    return Operation(0, "replace", "k", new, old, begin, end, outcome)


def got(value: str | None, begin: int, end: int) -> Operation:
    return Operation(1, "get", "k", None, value, begin, end)


REPLACEMENTS = [
    ([replaced(None, "a", 1, 2), got("a", 3, 4), replaced("a", "b", 3, 5), got("b", 4, 6)], "valid"),
    ([replaced(None, "a", 1, 2), replaced(None, "b", 1, 2)], "invalid"),
    ([replaced(None, "a", 3, 4), replaced("a", "b", 1, 2)], "invalid"),
    ([replaced(None, "a", 1, 2), got(None, 3, 4)], "invalid"),
    ([got("a", 1, 2), replaced(None, "a", 3, 4)], "invalid"),
    ([got("x", 1, 2)], "invalid"),
    ([replaced("x", "y", 1, 2)], "invalid"),
    ([replaced(None, "a", 1, 9), got("a", 2, 3), got(None, 4, 5)], "invalid"),
    ([replaced(None, "a", 1, 9, "fail"), got("a", 2, 3)], "invalid"),
    ([replaced(None, "a", 1, 9, "fail"), got(None, 2, 3)], "valid"),
    ([replaced(None, "a", 1, 9, "info"), got(None, 2, 3)], "valid"),
    ([replaced(None, "a", 1, 9, "info"), got("a", 2, 3), replaced("a", "b", 10, 11)], "valid"),
    ([replaced(None, "a", 1, 9, "info"), got("a", 2, 3), got(None, 4, 5)], "invalid"),
]


@pytest.mark.parametrize(("operations", "answer"), REPLACEMENTS)
def test_replacements(operations: list[Operation], answer: str) -> None:
    assert check_replacements(operations, ReplaceModel(lambda _, new: new)).answer == answer


def test_replacements_that_nobody_saw_end_may_follow_each_other() -> None:
    model = ReplaceModel(
        lambda value, new: f"{len(value or '')}{new}", rank=lambda value: int(value[0]) + 1 if value else 0
    )
    unseen = [replaced(None, name, 1, 2, "info") for name in "abcdefghijklmnop"]
    assert check_replacements([*unseen, got("2b", 3, 4)], model) == VALID
    assert check_replacements([*unseen, got("2z", 3, 4)], model).answer == "invalid"


def test_stages() -> None:
    early, long, late = got("a", 1, 2), got("a", 1, 9), got("a", 5, 6)
    assert check_stages([[early], [long, late]]) == VALID
    assert check_stages([[late], [long]]) == VALID
    assert check_stages([]) == VALID
    verdict = check_stages([[late, long], [early]])
    assert verdict.answer == "invalid"
    assert verdict.operations == (early, late)
