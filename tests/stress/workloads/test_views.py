"""Scans, snapshots and events find the store that is broken where they look."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from latchstore import (
    AbstractStore,
    BaseEvent,
    DictMemoryStore,
    EventManager,
    StoreSetEvent,
    StoreUpdateEvent,
)
from latchstore.stress.history import History, Operation
from latchstore.stress.verdict import VALID
from latchstore.stress.workloads import Action
from latchstore.stress.workloads.events import Events
from latchstore.stress.workloads.scans import Scans
from latchstore.stress.workloads.snapshots import Snapshots
from tests.mutants.contract import LateSnapshot
from tests.mutants.keys import LateStream
from tests.stress.workloads.benches import Bench, Frozen, MakeBench, NoSavepoints, NoTransactions, our_store

# -- scans ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "scan"),
    [("keys", scan) for scan in ("glob", "query", "query_keys", "all keys", "glob in transaction")]
    + [("keys", "glob in order")]
    + [("places", scan) for scan in ("query", "query at one place", "query in order")],
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
    assert "no operation wrote that value" in runs.complaint()


def test_a_key_that_a_count_misses(bench: MakeBench) -> None:
    class Short(DictMemoryStore):
        def query_keys(self, **items: Any) -> Iterator[str]:
            return iter(list(super().query_keys(**items))[1:])

    runs = bench(Short(EventManager()), Scans())
    runs.do("query_keys", key="scans/places")
    assert "torn" in runs.complaint()


def test_tokens_in_another_order(bench: MakeBench) -> None:
    class Backwards(DictMemoryStore):
        def glob(self, pattern: str, **order: Any) -> Iterator[str]:
            return iter(list(super().glob(pattern, **order))[::-1])

    runs = bench(Backwards(EventManager()), Scans())
    runs.do("glob", key="scans/keys")
    assert set(runs.verdicts().values()) == {VALID}
    runs.do("glob in order", key="scans/keys")
    assert "torn" in runs.complaint()


def test_a_store_without_order_is_not_asked_for_one(bench: MakeBench) -> None:
    class Plain(DictMemoryStore):
        def query(self, select: Any = None, **items: Any) -> Any:
            if items.keys() & {"order_by", "limit"}:
                raise NotImplementedError
            return super().query(select, **items)

    workload = Scans()
    bench(Plain(EventManager()), workload)
    names = {action.name for action, _ in zip(workload.actions(0, 0), range(500), strict=False)}
    assert not [name for name in names if "in order" in name]


# -- snapshots --------------------------------------------------------------------------------------


def opening_and_look(runs: Bench, opening: str = "open snapshot", thread: int = 0) -> tuple[Action, Action]:
    """Return an action that opens something, and the one that first looks at it."""
    actions = pairwise(islice(runs.workload.actions(thread, 0), 1_000))
    return next(pair for pair in actions if pair[0].name == opening and pair[1].argument == pair[0].argument)


class Live(NoTransactions):
    """Has snapshots that go on with the store."""

    def snapshot(self) -> Any:
        store = self

        class View:
            def __getattr__(self, name: str) -> Any:
                return getattr(store, name)

            def __len__(self) -> int:
                return len(store)

            def close(self) -> None:
                pass

        return View()


def test_a_snapshot_that_goes_on(bench: MakeBench) -> None:
    runs = bench(Live(), Snapshots())
    opening, look = opening_and_look(runs)
    runs.run(opening)
    runs.run(look)
    runs.do("write group", 1)
    runs.run(look)
    assert "of the same snapshot" in runs.complaint()


def test_a_snapshot_of_half_a_transaction(bench: MakeBench) -> None:
    store = NoTransactions()
    runs = bench(store, Snapshots())
    for place in ("after from_bytes", "after set"):
        store.meanwhile[place] = lambda: [runs.run(action, 1) for action in opening_and_look(runs, thread=1)]
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
    for action in opening_and_look(runs, thread=1):
        runs.run(action, 1)
    assert "linearizable" in runs.complaint()


def test_a_snapshot_that_is_opened_when_it_is_first_read(bench: MakeBench) -> None:
    class Late(DictMemoryStore):
        def snapshot(self) -> Any:
            return LateSnapshot(super().snapshot)

    runs = bench(Late(EventManager()), Snapshots())
    opening, look = opening_and_look(runs)
    runs.run(opening)
    runs.do("write group", 1)
    runs.run(look)
    assert "linearizable" in runs.complaint()


#: The methods of a snapshot, and what else answers if the store does that for them.
OF_SNAPSHOTS = ["get", "multiget", "multiget_data", "get_metadata", "multiget_metadata", "exists"]
SEARCHES = ["glob", "query", "query_keys", "__len__"]


@pytest.mark.parametrize("method", OF_SNAPSHOTS + SEARCHES)
def test_a_method_of_a_snapshot_that_the_store_answers(bench: MakeBench, method: str) -> None:
    class Live(DictMemoryStore):
        def snapshot(self) -> Any:
            view = super().snapshot()
            view.__class__ = type("View", (type(view),), {method: staticmethod(getattr(self, method))})
            return view

    runs = bench(Live(EventManager()), Snapshots())
    pairs = pairwise(islice(runs.workload.actions(0, 0), 300))
    for opening, look in pairs:
        # Each look takes some of the ways to read.
        if (opening.name, look.name) == ("open snapshot", "look"):
            runs.run(opening)
            runs.do("write group", 1)
            runs.run(look)
    assert "torn" in runs.complaint()


class LateGet(DictMemoryStore):
    def get(self, key: str) -> Any:
        late = LateStream(self, key)
        return SimpleNamespace(data=late, range=lambda start, end: late)


class LateGetData(DictMemoryStore):
    def get_data(self, key: str) -> Any:
        return LateStream(self, key)


class LateRange(DictMemoryStore):
    def get_data_range(self, key: str, start: int | None = None, end: int | None = None) -> Any:
        return LateStream(self, key)


class LateMultiget(DictMemoryStore):
    def multiget_data(self, keys: Any) -> Any:
        return iter([LateStream(self, key) for key in keys])


@pytest.mark.parametrize("late", [LateGet, LateGetData, LateRange, LateMultiget])
def test_a_stream_that_is_filled_when_it_is_read(bench: MakeBench, late: type[DictMemoryStore]) -> None:
    def opened_and_read_later(store: AbstractStore) -> Bench:
        runs = bench(store, Snapshots())
        opening, reading = opening_and_look(runs, "open streams")
        runs.run(opening)
        runs.do("write group", 1)
        runs.run(reading)
        return runs

    assert set(opened_and_read_later(our_store()).verdicts().values()) == {VALID}
    assert "linearizable" in opened_and_read_later(late(EventManager())).complaint()


def test_a_look_at_a_snapshot_that_nobody_opened(bench: MakeBench) -> None:
    # What should have opened it was left out, or broken off. The look opens one itself.
    runs = bench(our_store(), Snapshots())
    runs.do("write group")
    runs.do("look")
    assert runs.operations[-1].result["new"]
    runs.do("write group")
    runs.do("look")
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


def test_an_event_of_the_wrong_class(bench: MakeBench) -> None:
    class Astray(EventManager):
        def emit(self, event: BaseEvent, block: bool = True) -> None:
            if type(event) is StoreUpdateEvent:
                event.__class__ = StoreSetEvent  # type: ignore[assignment]
            super().emit(event)

    runs = bench(DictMemoryStore(Astray()), Events())
    runs.do("set with event", key="events/0")
    assert runs.verdicts()["listener"] == VALID
    runs = bench(DictMemoryStore(Astray()), Events())
    for _ in range(2):
        runs.do("set with event", key="events/0")
    assert "right class" in runs.verdicts()["listener"].reason


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
