"""A commit is applied whole or not at all, and is seen at one instant."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from latchstore import DictMemoryStore, LockTimeoutError
from latchstore.contract.values import Entry
from latchstore.engine.inspection import check, table_of
from latchstore.engine.journal import Gate
from latchstore.engine.publishing import Publisher
from tests.commits.kinds import (
    BEFORE,
    COMMITS,
    STEPS,
    Followers,
    State,
    all_at_once,
    everything,
    fail,
    make_store,
    one_by_one,
    with_both_locks,
)
from tests.interrupts.places import checks
from tests.schedules import in_another_thread

#: Seconds that a wait takes which is meant to fail.
SHORT = 0.05

every_commit = pytest.mark.parametrize("commit", COMMITS)


# -- commits -------------------------------------------------------------------------------------------


@every_commit
def test_a_commit_is_applied(store: DictMemoryStore, commit: str) -> None:
    call, after = COMMITS[commit]
    assert one_by_one(store) == all_at_once(store) == BEFORE
    call(store)
    assert one_by_one(store) == all_at_once(store) == after
    assert store.info()["revision"] == 2
    assert table_of(store).journal is None


def test_items_are_those_of_the_call(store: DictMemoryStore) -> None:
    items = table_of(store).candidates({})
    before = dict(table_of(store).entries)
    everything(store)
    assert dict(items) == before


def test_several_indexes_answer_from_the_shortest(store: DictMemoryStore) -> None:
    table = table_of(store)
    for number in range(5):
        store.set(f"many {number}", (b"", {"a": "many", "b": number + 10}))
    assert [key for key, _ in table.candidates({"a": "many", "b": 13})] == ["many 3"]
    assert [key for key, _ in table.candidates({"b": 13, "a": "many"})] == ["many 3"]
    assert list(table.candidates({"a": "many", "b": "none"})) == []
    # A value that only a scan can find, and an item that has no index, leave it to the others.
    assert [key for key, _ in table.candidates({"a": [], "b": 13})] == ["many 3"]
    assert [key for key, _ in table.candidates({"unindexed": 1, "b": 13})] == ["many 3"]
    assert len(list(table.candidates({"a": []}))) == len(store)
    assert len(list(table.candidates({"unindexed": 1}))) == len(store)


def test_an_index_is_built_before_it_is_seen(store: DictMemoryStore) -> None:
    published = table_of(store).indexes
    store.add_index("c")
    # Readers of the old dict are not disturbed.
    assert set(published) == {"a", "b"}
    assert set(table_of(store).indexes) == {"a", "b", "c"}
    store.remove_index("a")
    assert set(table_of(store).indexes) == {"b", "c"}


# -- what fails before a commit is decided ---------------------------------------------------------------


@pytest.mark.parametrize("broken", [(Entry, "revise"), (Publisher, "deliveries_of")], ids=lambda it: it[1])
@pytest.mark.parametrize("commit", ["transaction", "multiset", "set", "create"])
def test_what_fails_before_it_is_decided_changes_nothing(
    commit: str, broken: tuple[type, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store()
    followers = Followers(store)
    with monkeypatch.context() as patch:
        patch.setattr(*broken, fail)
        with pytest.raises(MemoryError, match="on purpose"):
            COMMITS[commit][0](store)
    assert table_of(store).journal is None
    assert one_by_one(store) == all_at_once(store) == BEFORE
    assert store.info()["revision"] == 1
    assert followers.close() == (set(), ["failed"] if commit == "transaction" else [])


def test_one_edit_of_many_that_fails_changes_nothing(store: DictMemoryStore) -> None:
    with pytest.raises(KeyError):
        store.multiupdate_metadata(["stays", "moves", "missing"], [{"a": 7}] * 3)
    assert table_of(store).journal is None
    assert one_by_one(store) == all_at_once(store) == BEFORE
    assert store.info()["revision"] == 1


# -- readers in the middle of a commit -----------------------------------------------------------------------


@pytest.mark.parametrize("commit", ["transaction", "multiset"])
@with_both_locks
def test_a_commit_of_several_keys_is_seen_at_one_instant(
    commit: str, lock_class: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(lock_class=lock_class, lock_timeout=SHORT)
    seen: list[State] = []
    refused: list[BaseException | None] = []

    def read_elsewhere() -> None:
        seen.append(in_another_thread(lambda: one_by_one(store)))
        for call in (
            lambda: len(store),
            lambda: list(store.multiget(["stays", "moves"])),
            lambda: list(store.query_keys(a=1)),
        ):
            with pytest.raises(LockTimeoutError):
                in_another_thread(call)
            refused.append(None)

    with monkeypatch.context() as patch:
        for kind, method in (STEPS["an entry"], STEPS["a deletion"]):
            original = getattr(kind, method)

            def halting(*arguments: Any, original: Callable[..., Any] = original) -> Any:
                read_elsewhere()
                result = original(*arguments)
                read_elsewhere()
                return result

            patch.setattr(kind, method, halting)
        COMMITS[commit][0](store)
    assert len(seen) >= 4
    assert len(refused) == 3 * len(seen)
    assert all(each == BEFORE for each in seen)
    assert one_by_one(store) == all_at_once(store) == COMMITS[commit][1]
    check(store)


def test_no_thread_is_switched_to_while_readers_meet_the_gate() -> None:
    """Else they would meet it for a whole switch interval, if another thread's turn came just then."""
    store = DictMemoryStore()
    store.multiset_data(["a", "b"], [b"", b""])
    table = table_of(store)
    shut: list[str] = []

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        frame.f_trace_opcodes = True
        if event == "opcode" and type(table.detour) is Gate:
            shut.append(frame.f_code.co_name)
            assert frame.f_lasti not in checks(frame.f_code), f"line {frame.f_lineno} may switch threads"
        return trace

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # or else 3.12 traces no opcodes
    sys.settrace(trace)
    try:
        store.multiset_data(["a", "new", "b"], [b"1", b"2", b"3"])
    finally:
        sys.settrace(before)
    assert set(shut) == {"finish"}
