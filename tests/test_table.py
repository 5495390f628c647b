"""A commit is made whole or not at all, whatever breaks it off; once it is decided it is made.

`finish` is broken off at each of its steps, by an exception that one of the functions it calls raises: once,
so that the thread which commits makes the commit before it raises, or twice, so that it is left to whoever
next takes the table.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import threading
from collections.abc import Callable, Iterator
from math import inf
from typing import Any, NoReturn

import pytest
from readerwriterlock import rwlock

from latchstore import (
    AbstractReadOnlyStore,
    DictMemoryStore,
    EventManager,
    LockTimeoutError,
    RevisionMismatchError,
    StoreModificationEvent,
    StoreTransactionEndEvent,
)
from latchstore.contract.values import Entry, entry_from_metadata
from latchstore.delivery.change_feed import ChangeFeed
from latchstore.delivery.dispatcher import EventDispatcher
from latchstore.engine.inspection import check, replace_entries, table_of
from latchstore.engine.locks import ReadWriteLock
from latchstore.engine.metadata_index import MetadataIndex
from latchstore.engine.preimages import Preimages
from latchstore.engine.publishing import Publisher
from latchstore.engine.routes import Routes
from latchstore.engine.table import Table
from tests.schedules import in_another_thread
from tests.tables import Entries

#: Seconds that a wait takes which is meant to fail.
SHORT = 0.05


def make_store(**options: Any) -> DictMemoryStore:
    """Return a store at revision 1, with two indexes."""
    store = DictMemoryStore(EventManager(), indexes=["a", "b"], **options)
    replace_entries(store, Entries())
    store.multiset(["stays", "goes", "moves"], [(b"s", {"a": 1, "b": 1}), (b"g", {"a": 1}), (b"m", {"b": 2})])
    return store


@pytest.fixture
def store() -> Iterator[DictMemoryStore]:
    store = make_store()
    yield store
    check(store)


State = dict[str, tuple[bytes, dict[str, Any]]]

BEFORE: State = {"stays": (b"s", {"a": 1, "b": 1}), "goes": (b"g", {"a": 1}), "moves": (b"m", {"b": 2})}

#: What each commit does, and what there is afterwards.
COMMITS: dict[str, tuple[Callable[[DictMemoryStore], object], State]] = {
    "transaction": (
        lambda store: everything(store),
        {
            "stays": BEFORE["stays"],
            "moves": (b"M", {"a": 3, "b": [1]}),
            "new": (b"n", {"a": 1}),
            "new too": (b"N", {"b": 1}),
        },
    ),
    "multiset": (
        lambda store: store.multiset(["moves", "new"], [(b"M", {"a": (1,)}), (b"n", {"a": 1})]),
        BEFORE | {"moves": (b"M", {"a": (1,)}), "new": (b"n", {"a": 1})},
    ),
    "set": (lambda store: store.set("moves", (b"M", {"a": 3})), BEFORE | {"moves": (b"M", {"a": 3})}),
    "create": (lambda store: store.set("new", (b"n", {"a": 1})), BEFORE | {"new": (b"n", {"a": 1})}),
    "delete": (
        lambda store: store.delete("goes"),
        {key: held for key, held in BEFORE.items() if key != "goes"},
    ),
}

every_commit = pytest.mark.parametrize("commit", COMMITS)


def everything(store: DictMemoryStore) -> None:
    """Make a commit that changes, deletes and creates, with and without indexed items."""
    with store.transaction():
        store.set("moves", (b"M", {"a": 3, "b": [1]}))
        store.delete("goes")
        store.set("new", (b"n", {"a": 1}))
        store.set("new too", (b"N", {"b": 1}))


def one_by_one(store: AbstractReadOnlyStore) -> State:
    """Read a store by methods that read a single key, all of which agree."""
    found: State = {}
    for key in ("stays", "goes", "moves", "new", "new too"):
        if store.exists(key):
            value = store.get(key)
            found[key] = (value.data.read(), value.metadata)
            assert found[key] == (store.to_bytes(key), store.get_metadata(key))
        else:
            with pytest.raises(KeyError):
                store.to_bytes(key)
            with pytest.raises(KeyError):
                store.get(key)
    return found


def all_at_once(store: AbstractReadOnlyStore) -> State:
    """Read a store by methods that read several keys, all of which agree."""
    keys = list(store.query_keys())
    values = store.multiget(keys)
    found = {key: (value.data.read(), value.metadata) for key, value in zip(keys, values, strict=True)}
    assert {key: metadata for key, (_, metadata) in found.items()} == dict(store.query())
    for name, wanted in (("a", 1), ("b", 1), ("b", 2)):
        matching = {key for key, (_, metadata) in found.items() if metadata.get(name) == wanted}
        assert set(store.query_keys(**{name: wanted})) == matching
    return found


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


class Followers:
    """All that follows a store: a listener, a watch and a snapshot."""

    def __init__(self, store: DictMemoryStore) -> None:
        self.store = store
        self._thread = threading.current_thread().name
        self.heard: list[tuple[str, int | None]] = []
        self.ends: list[str] = []
        store.event_manager.connect(StoreModificationEvent, self._hear)
        store.event_manager.connect(StoreTransactionEndEvent, self._hear_end)
        self.watch = store.watch()
        self.view = store.snapshot()

    def _hear(self, event: StoreModificationEvent) -> None:
        self.heard.append((event.key, event.revision))

    def _hear_end(self, event: Any) -> None:
        if event.transaction.thread == self._thread:
            self.ends.append(event.state)

    def close(self) -> tuple[set[str], list[str]]:
        """Return the keys of revision 2 and how transactions have ended, of which each was told once."""
        self.store.flush()
        told: list[Any] = [self.watch.get(0) for _ in range(len(self.watch))]
        changes = [(each.key, 2) for each in told if each.revision == 2]
        heard = [change for change in self.heard if change[1] == 2]
        assert heard == changes
        assert len(set(heard)) == len(heard)
        assert all_at_once(self.view) == one_by_one(self.view) == BEFORE
        self.view.close()
        self.watch.close()
        check(self.store)
        assert self.store.info()["pinned_entries"] == 0
        self.store.close()
        return {key for key, _ in heard}, self.ends


def changed_keys(after: State) -> set[str]:
    return {key for key in BEFORE.keys() | after.keys() if BEFORE.get(key) != after.get(key)}


def fail(*arguments: object, **options: object) -> NoReturn:
    raise MemoryError("on purpose")


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


# -- what breaks off a commit that is decided --------------------------------------------------------------

#: The steps of `finish`, each by what it calls.
STEPS: dict[str, tuple[type, str]] = {
    "the pre-images": (Preimages, "record"),
    "an index": (MetadataIndex, "replace_all"),
    "a key in an index": (MetadataIndex, "replace"),
    "an entry": (Entries, "__setitem__"),
    "a deletion": (Entries, "pop"),
    "the transaction's end": (Routes, "forget"),
    "publishing": (Publisher, "publish"),
    "the queue": (EventDispatcher, "submit"),
    "the feed": (ChangeFeed, "publish"),
}

#: Those at which all is done that can be seen.
LAST_STEPS = {"the transaction's end", "publishing", "the queue", "the feed"}

every_step = pytest.mark.parametrize("step", STEPS)
with_both_locks = pytest.mark.parametrize("lock_class", [ReadWriteLock, rwlock.RWLockFair])


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


# -- what is dropped ---------------------------------------------------------------------------------------


class Writes:
    """A metadata value that is kept as it is, and writes to the store when it is freed."""

    def __init__(self, store: DictMemoryStore, outcomes: list[object]) -> None:
        self.store, self.outcomes = store, outcomes

    def __deepcopy__(self, memo: object) -> Writes:
        return Writes(self.store, self.outcomes)

    def __del__(self) -> None:
        try:
            self.store.from_bytes("written by a finalizer", b"%d" % len(self.store))
            self.outcomes.append("written")
        except BaseException as error:
            self.outcomes.append(error)


def closes_snapshots(store: DictMemoryStore) -> None:
    views = [store.snapshot()]
    store.delete("k")
    views.append(store.snapshot())
    store.from_bytes("k", b"")
    for view in views:
        view.close()


def rolls_back(store: DictMemoryStore, outcomes: list[object]) -> None:
    with store.transaction() as block:
        store.set("k", (b"", {"item": Writes(store, outcomes)}))
        block.rollback()


def drops_a_block(store: DictMemoryStore, outcomes: list[object]) -> None:
    block = store.transaction()
    block.__enter__()
    store.set("k", (b"", {"item": Writes(store, outcomes)}))
    del block
    len(store)
    store.from_bytes("other", b"")


def is_broken_off(store: DictMemoryStore) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MetadataIndex, "replace_all", fail)
        with pytest.raises(MemoryError):
            store.multiset_metadata(["k", "l"], [{}, {}])
    assert table_of(store).journal is not None
    len(store)


def overflows(store: DictMemoryStore) -> None:
    with store.watch(max_buffer=1):
        store.delete("k")
        store.from_bytes("k", b"")
        store.from_bytes("k", b"")


def in_a_transaction(store: DictMemoryStore, optimistic: bool) -> None:
    with store.transaction(optimistic=optimistic):
        store.to_bytes("k")
        store.set("k", (b"", {}))
        store.from_bytes("l", b"")


DROPS: dict[str, Callable[[DictMemoryStore, list[object]], object]] = {
    "set": lambda store, outcomes: store.set("k", (b"", {})),
    "delete": lambda store, outcomes: store.delete("k"),
    "multiset": lambda store, outcomes: store.multiset(["k", "l"], [(b"", {}), (b"", {})]),
    "transaction": lambda store, outcomes: in_a_transaction(store, False),
    "optimistic": lambda store, outcomes: in_a_transaction(store, True),
    "an edit that is dropped": lambda store, outcomes: rolls_back(store, outcomes),
    "a block that is dropped": lambda store, outcomes: drops_a_block(store, outcomes),
    "snapshots": lambda store, outcomes: closes_snapshots(store),
    "a commit that is broken off": lambda store, outcomes: is_broken_off(store),
    "a watch": lambda store, outcomes: overflows(store),
    "a condition that fails": lambda store, outcomes: fails_its_condition(store, outcomes),
}


def fails_its_condition(store: DictMemoryStore, outcomes: list[object]) -> None:
    with pytest.raises(RevisionMismatchError):
        store.set("k", (b"", {"item": Writes(store, outcomes)}), if_revision=99)


@pytest.mark.parametrize("history", [0, 2])
@pytest.mark.parametrize("name", DROPS)
def test_what_is_dropped_is_freed_when_the_section_is_over(name: str, history: int) -> None:
    """So that a finalizer may use the store, and is not in the middle of anything."""
    store = DictMemoryStore(EventManager(), history=history, indexes=["item"])
    outcomes: list[object] = []
    store.set("k", (b"", {"item": Writes(store, outcomes)}))
    DROPS[name](store, outcomes)
    for number in range(3):  # the history forgets
        store.set("k", (b"%d" % number, {}))
    gc.collect()
    assert outcomes
    assert set(outcomes) == {"written"}
    check(store)


# -- the checker itself ---------------------------------------------------------------------------


def misplace(table: Table) -> None:
    table.entries["stays"] = None  # type: ignore[assignment]


def mistype(table: Table) -> None:
    table.entries[3] = table.entries["stays"]  # type: ignore[index]


def grow(table: Table) -> None:
    table.entries["stays"].data = bytearray(b"s")  # type: ignore[assignment]


def age(table: Table) -> None:
    table.entries["stays"].created = inf


def precede(table: Table) -> None:
    table.entries["stays"].revision = 2


def forget(table: Table) -> None:
    table.indexes["a"].replace("stays", table.entries["stays"], None)


def invent(table: Table) -> None:
    table.indexes["b"].replace("ghost", None, entry(7))


def invent_unhashable(table: Table) -> None:
    table.indexes["b"].replace("ghost", None, entry([7]))


def share(table: Table) -> None:
    table.indexes["b"].replace("ghost", None, entry(1))


def entry(b: object) -> Entry:
    return entry_from_metadata({"b": b})


@pytest.mark.parametrize(
    "damage", [misplace, mistype, grow, age, precede, forget, invent, invent_unhashable, share]
)
def test_the_checker_finds_damage(damage: Callable[[Table], None]) -> None:
    table = table_of(make_store())
    table.check()
    damage(table)
    with pytest.raises(AssertionError):
        table.check()
