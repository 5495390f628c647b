"""The checks of a cache name what is wrong; the workload finds stores that are, and makes the case small."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from latchstore import Cache, DictMemoryStore, EventManager
from latchstore.engine.bounded import BoundedStore
from latchstore.engine.bounded_table import BoundedTable
from latchstore.engine.limits import Limits
from latchstore.stress.cache_checks import CacheLog
from latchstore.stress.controlled import Laboratory
from latchstore.stress.history import History, Operation
from latchstore.stress.search import Mode, Settings, search
from latchstore.stress.verdict import VALID, Verdict
from latchstore.stress.workloads.cache import CacheWorkload

KEY = "cache/a/0"

#: Name, argument, result, begin, end, and the outcome if it is another one than "ok".
Line = tuple[Any, ...]


def history(*lines: Line) -> list[Operation]:
    """Return operations on one key, each of a thread of its own, with tokens ``"0"``, ``"1"``, ..."""
    return [
        Operation(number, name, KEY, {"token": str(number), **argument}, result, begin, end, *outcome)
        for number, (name, argument, result, begin, end, *outcome) in enumerate(lines)
    ]


def transaction(begin: int, end: int, *steps: Line, number: int = 9, outcome: Any = "ok") -> Operation:
    """Return a transaction of steps: name, argument and result."""
    calls = [
        [name, KEY, {"token": f"{number}.{place}", **argument}]
        for place, (name, argument, _) in enumerate(steps)
    ]
    results = [result for _, _, result in steps]
    argument = {"token": str(number), "steps": calls}
    return Operation(number, "transaction", "cache/several", argument, results, begin, end, outcome)


def of(number: int | str, which: int = 1) -> list[Any]:
    """Return a value of a call."""
    return [f"{number}/{which}", 10, "row"]


DELETE = {"keys": [KEY]}


class TestStaleValues:
    def verdict(self, operations: list[Operation], *loads: Any) -> Verdict:
        verdict = CacheLog(operations, loads).no_stale_value()
        if verdict != VALID:
            assert verdict.operations
        return verdict

    @pytest.mark.parametrize("remove", [("delete", DELETE, True), ("set", {}, of(1))], ids=["delete", "set"])
    @pytest.mark.parametrize(
        ("begin", "stale"), [(30, True), (15, False)], ids=["begins after it", "begins before it returns"]
    )
    def test_what_was_set_before_a_removal(self, remove: Line, begin: int, stale: bool) -> None:
        operations = history(("set", {}, of(0), 0, 5), (*remove, 10, 20), ("get", {}, of(0), begin, 40))
        verdict = self.verdict(operations)
        assert (verdict.answer == "invalid") == stale
        assert not stale or "which is older than (thread 1: " in verdict.reason

    def test_what_is_set_while_it_is_removed(self) -> None:
        operations = history(
            ("set", {}, of(0), 0, 15), ("delete", DELETE, True, 10, 20), ("get", {}, of(0), 30, 40)
        )
        assert self.verdict(operations) == VALID

    @pytest.mark.parametrize(("read", "answer"), [(8, "invalid"), (12, "valid")])
    def test_a_load_is_as_old_as_its_look_at_the_database(self, read: int, answer: str) -> None:
        operations = history(
            ("get_or_load", {}, of(0), 0, 100),
            ("delete", DELETE, False, 10, 20),
            ("get_or_load", {}, of(0), 30, 40),
        )
        assert self.verdict(operations, (KEY, "0/1", 5, read, 25, False)).answer == answer

    @pytest.mark.parametrize(("inside", "answer"), [(True, "invalid"), (False, "valid")])
    def test_what_a_call_has_loaded_that_was_refused(self, inside: bool, answer: str) -> None:
        operations = history(("get_or_load", {}, None, 0, 20, "fail"), ("call memoized", {}, of(0), 5, 30))
        assert self.verdict(operations, (KEY, "0/1", 1, 2, 10, inside)).answer == answer

    def test_what_was_rolled_back(self) -> None:
        operations = [
            transaction(0, 10, ("set", {}, None), outcome="fail"),
            *history(("get", {}, of("9.0"), 20, 30)),
        ]
        assert "refused or rolled back" in self.verdict(operations).reason

    def test_what_nobody_has_written(self) -> None:
        assert "which no call has set or loaded" in self.verdict(history(("get", {}, of(7), 0, 5))).reason

    def test_what_nobody_knows_the_end_of(self) -> None:
        operations = history(
            ("set", {}, None, 0, None, "info"), ("delete", DELETE, True, 10, 20), ("get", {}, of(0), 30, 40)
        )
        assert self.verdict(operations) == VALID
        operations = history(
            ("set", {}, of(0), 0, 5), ("delete", DELETE, None, 10, None, "info"), ("get", {}, of(0), 30, 40)
        )
        assert self.verdict(operations) == VALID

    @pytest.mark.parametrize(
        ("steps", "answer"),
        [
            ((("delete", DELETE, True), ("get", {}, of(0))), "invalid"),
            ((("set", {}, of("9.0")), ("get", {}, of("9.0"))), "valid"),
            ((("get", {}, of(0)), ("delete", DELETE, True)), "valid"),
            ((("set", {}, of("9.0")), ("delete", DELETE, True), ("get", {}, of("9.0"))), "invalid"),
            ((("delete", DELETE, True), ("modify", {}, [None, of("9.1")]), ("get", {}, of("9.1"))), "valid"),
        ],
    )
    def test_inside_a_transaction(self, steps: Any, answer: str) -> None:
        operations = [*history(("set", {}, of(0), 0, 5)), transaction(10, 20, *steps)]
        assert self.verdict(operations).answer == answer

    def test_a_value_that_is_modified_is_read(self) -> None:
        operations = history(
            ("set", {}, of(0), 0, 5),
            ("delete", DELETE, True, 10, 20),
            ("modify", {}, [of(0), of(2)], 30, 40),
        )
        assert self.verdict(operations).answer == "invalid"


class TestTime:
    """Of a clock that is at 0 until it is advanced by 1."""

    @pytest.mark.parametrize(
        ("more", "answer"),
        [
            ((), "invalid"),
            ((("touch", {"ttl": 2.0}, True, 6, 8),), "valid"),
            ((("touch", {"ttl": 2.0}, False, 6, 8),), "invalid"),
            ((("touch", {"ttl": 2.0}, None, 6, None, "info"),), "valid"),
            ((("touch", {"ttl": 2.0}, True, 50, 60),), "invalid"),
        ],
    )
    def test_what_had_expired(self, more: tuple[Line, ...], answer: str) -> None:
        operations = history(
            ("set", {"ttl": 1.0}, of(0), 0, 5),
            ("advance clock", {}, 1.0, 10, 20),
            ("get", {}, of(0), 30, 40),
            *more,
        )
        assert CacheLog(operations, ()).nothing_expired().answer == answer

    def test_what_may_have_been_set_after_the_clock_was_advanced(self) -> None:
        operations = history(
            ("set", {"ttl": 1.0}, of(0), 0, 15),
            ("advance clock", {}, 1.0, 10, 20),
            ("get", {}, of(0), 30, 40),
        )
        assert CacheLog(operations, ()).nothing_expired() == VALID

    def test_while_the_clock_is_advanced(self) -> None:
        operations = history(
            ("set", {"ttl": 1.0}, of(0), 0, 5), ("advance clock", {}, 1.0, 10, 35), ("get", {}, of(0), 30, 40)
        )
        assert CacheLog(operations, ()).nothing_expired() == VALID

    @pytest.mark.parametrize(("ttl", "answer"), [(1.0, "invalid"), (None, "valid")])
    def test_a_modified_value_has_the_time_of_the_first(self, ttl: float | None, answer: str) -> None:
        operations = history(
            ("set", {"ttl": ttl}, of(0), 0, 5),
            ("modify", {"ttl": 5.0}, [of(0), of(1)], 6, 7),
            ("advance clock", {}, 1.0, 10, 20),
            ("get", {}, of(1), 30, 40),
        )
        assert CacheLog(operations, ()).nothing_expired().answer == answer


def test_two_loads_at_once() -> None:
    operations = history(("get_or_load", {}, of(0), 0, 20), ("get_or_load", {}, of(1), 5, 30))
    one, other = (KEY, "0/1", 1, 2, 10, False), (KEY, "1/1", 9, 9, 20, False)
    assert (
        "was loaded twice at once: by (thread 0"
        in CacheLog(operations, (one, other)).one_load_at_a_time().reason
    )
    for later in ((KEY, "1/1", 10, 11, 20, False), (*other[:-1], True), ("cache/a/1", *other[1:])):
        assert CacheLog(operations, (one, later)).one_load_at_a_time() == VALID


def test_a_lost_update() -> None:
    operations = history(
        ("set", {}, of(0), 0, 5), ("modify", {}, [of(0), of(1)], 6, 7), ("modify", {}, [of(0), of(2)], 6, 8)
    )
    assert "replaced the same value" in CacheLog(operations, ()).no_lost_update().reason
    assert CacheLog(operations[:2], ()).no_lost_update() == VALID


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ([(1, "a", 10), (2, "b", 10), (3, "a", None), (3, "c", 10)], "valid"),
        ([(1, "a", 10), (2, "b", 10), (3, "c", 10), (3, "a", None)], "valid"),
        ([(1, "a", 10), (2, "b", 10), (3, "c", 10), (4, "a", None)], "invalid"),
        ([(1, "a", 10), (2, "b", 21)], "invalid"),
        ([(1, "a", 10), (2, "a", 30)], "valid"),
        ([(1, "a", 31)], "invalid"),
    ],
)
def test_the_bound(changes: Any, answer: str) -> None:
    assert CacheLog((), ()).bound(changes, 2, 30).answer == answer


def test_what_nobody_has_written_down_is_unknown() -> None:
    (verdict,) = CacheWorkload().verdicts(History(())).values()
    assert verdict.answer == "unknown"


# -- stores that are wrong ------------------------------------------------------------------------


class NeverExpires(BoundedTable):
    """Returns what has expired."""

    def begin_use(self, entry: Any, node: Any) -> bool:
        return True


class Boundless(BoundedTable):
    """Looks at no weight."""

    def __init__(self, store: Any, table: Any, limits: Limits) -> None:
        super().__init__(store, table, limits._replace(max_bytes=sys.maxsize))


class Deaf(BoundedTable):
    """Has commits that no load of the cache is notified of."""

    def __init__(self, store: Any, table: Any, limits: Limits) -> None:
        super().__init__(store, table, Limits(*limits[:5]))


def store_of(bounded: type[BoundedTable]) -> Callable[[], DictMemoryStore]:
    class Store(DictMemoryStore):
        def _keep_within(self, limits: Limits) -> BoundedStore:
            return bounded(self, self._table, limits)

    return lambda: Store(EventManager())


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("bounded", "check", "mode", "seed"),
    # Seeds from which it is found within few schedules: the search of small ones is what takes time.
    [
        (NeverExpires, "nothing expired", "random", 307),
        (Boundless, "bound", "pct", 1),
        (Deaf, "no stale value", "pct", 5003),
    ],
)
def test_a_planted_fault_is_found_and_made_small(
    bounded: type[BoundedTable], check: str, mode: Mode, seed: int
) -> None:
    laboratory = Laboratory(store_of(bounded))
    settings = Settings(mode, threads=2, operations=3, seed=seed)
    with laboratory.open():
        found = search(laboratory, [CacheWorkload()], settings, lambda found: found.schedules >= 1_000)
    assert [name for name, each in found.run.verdicts.items() if each.answer == "invalid"] == [check]
    assert found.program.size <= 4
    assert found.run.steps


def test_a_store_that_keeps_no_bound_is_left_out() -> None:
    class Unbounded(DictMemoryStore):
        _keep_within: Any = None

    store = Unbounded(EventManager())
    with pytest.raises(TypeError):
        Cache(store, codec="json")
    assert not CacheWorkload().supports(store)
