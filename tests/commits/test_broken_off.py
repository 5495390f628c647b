"""A commit that is broken off after it was decided is finished by whoever comes next."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from latchstore import DictMemoryStore
from latchstore.engine.inspection import table_of
from tests.commits.kinds import (
    BEFORE,
    COMMITS,
    STEPS,
    Followers,
    State,
    all_at_once,
    make_store,
    one_by_one,
    with_both_locks,
)
from tests.schedules import in_another_thread


def changed_keys(after: State) -> set[str]:
    return {key for key in BEFORE.keys() | after.keys() if BEFORE.get(key) != after.get(key)}


#: Those at which all is done that can be seen.
LAST_STEPS = {"the transaction's end", "publishing", "the queue", "the feed"}

every_step = pytest.mark.parametrize("step", STEPS)


class Breaker:
    """Stands for a method, and raises at its n-th call, or at that and all after it.

    Parameters
    ----------
    method : callable
    first : int
        Counted from 1.
    again : bool
    late : bool
        Whether it raises when the method has done its work, and not before that.
    """

    def __init__(self, method: Callable[..., Any], first: int, again: bool, late: bool) -> None:
        self._method, self._first, self._again, self._late = method, first, again, late
        self.calls = 0

    def __get__(self, instance: object, kind: type) -> Callable[..., Any]:
        return lambda *arguments: self._call(instance, *arguments)

    def _call(self, *arguments: Any) -> Any:
        self.calls += 1
        fails = self.calls == self._first or (self._again and self.calls > self._first)
        if self._late or not fails:
            result = self._method(*arguments)
        if fails:
            raise MemoryError("on purpose")
        return result


def broken_off(step: str, again: bool, **options: Any) -> Iterator[tuple[DictMemoryStore, Followers, str]]:
    """Make stores in which a commit was broken off at a step, in each way that there is."""
    found = False
    for commit, late in itertools.product(COMMITS, [False, True]):
        for first in itertools.count(1):
            store = make_store(**options)
            followers = Followers(store)
            with pytest.MonkeyPatch.context() as patch:
                breaker = Breaker(getattr(*STEPS[step]), first, again, late)
                patch.setattr(*STEPS[step], breaker)
                with contextlib.suppress(MemoryError):
                    COMMITS[commit][0](store)
            if breaker.calls < first:
                followers.close()
                break
            found = True
            yield store, followers, commit
    assert found, "the step is never taken"


def check_made(store: DictMemoryStore, followers: Followers, commit: str) -> None:
    """See that a commit was made, whole, and told of once."""
    after = COMMITS[commit][1]
    assert one_by_one(store) == all_at_once(store) == after
    assert followers.close() == (changed_keys(after), ["done"] if commit == "transaction" else [])


@every_step
@with_both_locks
def test_a_commit_that_is_broken_off_once_is_made_before_its_call_raises(step: str, lock_class: Any) -> None:
    for store, followers, commit in broken_off(step, again=False, lock_class=lock_class):
        assert table_of(store).journal is None
        assert one_by_one(store) == COMMITS[commit][1]
        assert store.info()["revision"] == 2
        check_made(store, followers, commit)


#: Whoever takes the table; none of them changes what the store holds.
NEXT: dict[str, Callable[[DictMemoryStore], object]] = {
    "len": len,
    "query": lambda store: list(store.query()),
    "query, indexed": lambda store: list(store.query_keys(a=1)),
    "another thread": lambda store: in_another_thread(lambda: len(store)),
    "info": lambda store: store.info(),
    "flush": lambda store: store.flush(),
    "snapshot": lambda store: store.snapshot().close(),
    "watch": lambda store: store.watch().close(),
    "set_data": lambda store: store.set_data("stays", b"s"),
    "transaction": lambda store: in_another_thread(lambda: store.transaction().__enter__().rollback()),
    "add_index": lambda store: store.add_index("c"),
}


@pytest.mark.parametrize("name", NEXT)
@every_step
def test_a_commit_that_is_left_unfinished_is_finished_by_whoever_comes_next(step: str, name: str) -> None:
    for store, followers, commit in broken_off(step, again=True):
        if table_of(store).journal is not None:
            seen = one_by_one(store)
            if step in LAST_STEPS:
                assert seen == COMMITS[commit][1]
            elif commit in ("transaction", "multiset"):
                assert seen == BEFORE
            assert all_at_once(followers.view) == one_by_one(followers.view) == BEFORE
            NEXT[name](store)
        assert table_of(store).journal is None
        check_made(store, followers, commit)


@with_both_locks
def test_a_reader_that_comes_next_sees_it_whole(lock_class: Any) -> None:
    for store, followers, commit in broken_off("an entry", again=True, lock_class=lock_class):
        assert all_at_once(store) == COMMITS[commit][1]
        check_made(store, followers, commit)


def test_what_was_seen_of_a_commit_is_seen_while_it_is_finished_by_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The gate that was opened is not shut again."""
    for store, followers, commit in broken_off("publishing", again=True):
        after = COMMITS[commit][1]
        seen = [one_by_one(store)]
        with monkeypatch.context() as patch:
            for kind, method in (STEPS["an entry"], STEPS["a deletion"], STEPS["the pre-images"]):
                patch.setattr(kind, method, reading_first(getattr(kind, method), store, seen))
            table_of(store).settle("test")
        assert len(seen) > 1
        assert all(each == after for each in seen)
        check_made(store, followers, commit)


def reading_first(
    method: Callable[..., Any], store: DictMemoryStore, seen: list[State]
) -> Callable[..., Any]:
    """Return a method that reads the store before it does its work."""

    def read(*arguments: Any) -> Any:
        seen.append(one_by_one(store))
        return method(*arguments)

    return read
