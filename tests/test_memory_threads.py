"""Threads that share a store see whole commits, lose no update and never wait for user code.

Each check is a function over a way of making a store. It is run on `DictMemoryStore`, where it must find
nothing, and on variants that are broken on purpose, where it must find something: a check that finds
nothing there would prove nothing here. Threads meet by events and by hooks in the store's lock and dict,
so a check takes the same course each time; nothing depends on luck or on the speed of the machine.
"""

from __future__ import annotations

import itertools
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext, suppress
from typing import Any, Generic, TypeVar, TypeVarTuple

import pytest
from readerwriterlock import rwlock

from latchstore import (
    BaseEvent,
    DictMemoryStore,
    EventManager,
    LockTimeoutError,
    StoreSetEvent,
)
from latchstore.contract.values import Entry
from latchstore.delivery.dispatcher import Delivery
from latchstore.engine.inspection import check, replace_entries, table_of
from latchstore.engine.locks import TableLock
from latchstore.engine.publishing import Publisher
from latchstore.engine.table import Table
from tests.builds import WITHOUT_GIL
from tests.tables import Entries, NobodyOwns, with_table

#: Seconds after which a wait is a failure; no wait that succeeds takes a noticeable part of it.
TIMEOUT = 20.0

#: Seconds that a writer waits which is meant to fail.
SHORT = 0.05

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Background(threading.Thread, Generic[T]):
    """A function that runs in a thread of its own.

    Attributes
    ----------
    settled : Event
        Set when the function is done, or waits for the table lock.
    waited : bool
        Whether it has waited for the table lock.
    """

    def __init__(self, function: Callable[..., T], *arguments: Any, name: str | None = None) -> None:
        super().__init__(name=name, daemon=True)
        self.settled = threading.Event()
        self.waited = False
        self._function = function
        self._arguments = arguments
        self._results: list[T] = []
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._results.append(self._function(*self._arguments))
        except BaseException as error:
            self._error = error
        finally:
            self.settled.set()

    def result(self, timeout: float = TIMEOUT) -> T:
        """Wait for the end of the function; return what it returned or raise what it raised."""
        self.join(timeout)
        if self.is_alive():
            raise TimeoutError(f"{self.name} has not ended in {timeout:g} s")
        if self._error is not None:
            raise self._error
        return self._results[0]


class Pause:
    """Where a commit is held up halfway, and until when.

    Parameters
    ----------
    moment : str
        "put" (after an entry was put) or "remove" (before a deleted key goes).
    count : int
        How often that comes before the commit is held up, the last time included.
    """

    def __init__(self, moment: str, count: int = 1) -> None:
        self.moment = moment
        self.left = count
        self.armed = False
        self.arrived = threading.Event()
        self.go_on = threading.Event()

    def reach(self, moment: str) -> None:
        if self.armed and moment == self.moment:
            self.left -= 1
            if self.left == 0:
                self.armed = False
                self.hold()

    def hold(self) -> None:
        self.arrived.set()
        assert self.go_on.wait(TIMEOUT), "a commit that was held up was forgotten"


class HaltingDict(Entries):
    """The store's dict, to which a commit is applied key by key, and which can be held up at each."""

    def __init__(self, pause: Pause) -> None:
        super().__init__()
        self.pause = pause
        self.after_read: Callable[[], object] | None = None

    def __getitem__(self, key: str, /) -> Any:
        entry = super().__getitem__(key)
        # Once only: what is called here reads, too.
        hook, self.after_read = self.after_read, None
        if hook is not None:
            hook()
        return entry

    def pop(self, *arguments: Any) -> Any:
        self.pause.reach("remove")
        return super().pop(*arguments)

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self.pause.reach("put")


def note_waiting() -> None:
    """Note that the calling thread has to wait, if it is a `Background`."""
    thread = threading.current_thread()
    if isinstance(thread, Background):
        thread.waited = True
        thread.settled.set()


class WatchedTableLock(TableLock):
    """The table lock, which notes who has to wait for it."""

    __slots__ = ()

    def wait_for_writer(self, purpose: str, timeout: float | None = None) -> None:
        note_waiting()
        super().wait_for_writer(purpose, timeout)


class WatchedHandle:
    """A handle of a lock of the library, which notes who has to wait."""

    def __init__(self, handle: Any, released: Callable[[], object]) -> None:
        self._handle = handle
        self._released = released
        self.locked: Callable[[], bool] = handle.locked

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self._handle.acquire(False):
            return True
        note_waiting()
        return blocking and bool(self._handle.acquire(blocking, timeout))

    def release(self) -> None:
        self._handle.release()
        self._released()


class WatchedLock:
    """A lock of the library, whose handles note who has to wait.

    Parameters
    ----------
    released : callable
        Called when the write side was given back.
    """

    def __init__(self, released: Callable[[], object] = lambda: None) -> None:
        self._lock = rwlock.RWLockFair()
        self._released = released

    def gen_rlock(self) -> WatchedHandle:
        return WatchedHandle(self._lock.gen_rlock(), lambda: None)

    def gen_wlock(self) -> WatchedHandle:
        return WatchedHandle(self._lock.gen_wlock(), self._released)


Make = Callable[..., DictMemoryStore]


def made(
    pause: Pause | None, options: Mapping[str, Any], table_class: type[Table] | None = None
) -> DictMemoryStore:
    """Return a new store whose waits are noted, and that can be held up in the middle of a commit."""
    store = DictMemoryStore(EventManager(), **{"lock_timeout": TIMEOUT, **options})
    table_of(store).latches.table.__class__ = WatchedTableLock
    if pause is not None:
        replace_entries(store, HaltingDict(pause))
    if table_class is not None:
        with_table(store, table_class)
    return store


# -- the store, and what is broken on purpose ------------------------------------------------------


def guarded(pause: Pause | None = None, **options: Any) -> DictMemoryStore:
    return made(pause, options)


def guarded_by_the_library(pause: Pause | None = None, **options: Any) -> DictMemoryStore:
    return made(pause, {"lock_class": WatchedLock, **options})


class NoTableLock(Table):
    """Lets readers of several keys in at any time, and others who look."""

    __slots__ = ()

    def read(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        return function(*arguments)

    def exclusively(self, purpose: str, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        return function(*arguments)


def without_table_lock(pause: Pause | None = None, **options: Any) -> DictMemoryStore:
    return made(pause, options, NoTableLock)


class NoGate(Table):
    """Lets lock-free readers pass while a commit is applied."""

    __slots__ = ()

    def finish(self) -> None:
        journal: Any = self.journal
        if journal[-1] is not None:
            self.journal = (*journal[:-1], journal[-1]._replace(gate=None))
        super().finish()


def without_gate(pause: Pause | None = None, **options: Any) -> DictMemoryStore:
    return made(pause, options, NoGate)


class Unguarded(NoGate, NoTableLock):
    """Lets everybody in at any time."""

    __slots__ = ()


def unguarded(pause: Pause | None = None, **options: Any) -> DictMemoryStore:
    return made(pause, options, Unguarded)


def without_owner(pause: Pause | None = None, **options: Any) -> DictMemoryStore:
    return made(pause, options, NobodyOwns)


class NoBatch(DictMemoryStore):
    """Writes straight through a transaction, so that others see what is not committed."""

    def transaction(self, *arguments: Any, **options: Any) -> Any:
        return nullcontext(self)


class DirtyReads(DictMemoryStore):
    """Shows what an open transaction has written to whoever reads a single key."""

    def _entry(self, key: str) -> Entry:
        for route in list(self._engine.routes.values()):
            assert route.batch is not None
            entry = route.batch.current(key)
            if entry is not None:
                return entry
        return super()._entry(key)

    def exists(self, key: str) -> bool:
        try:
            self._entry(key)
        except KeyError:
            return False
        return True

    def to_bytes(self, key: str, buffer_size: int = 1) -> bytes:
        return self._entry(key).data


class LiveQuery(DictMemoryStore):
    """Walks over the dict itself while others change it."""

    def _candidates(self, terms: Mapping[str, Any]) -> Iterable[tuple[str, Entry]]:
        return self._entries.items()


class LiveMetadata(DictMemoryStore):
    """Hands out what it holds."""

    def get_metadata(self, key: str, select: Iterable[str] | None = None) -> dict[str, Any]:
        return self._entry(key)

    def query(
        self, select: Iterable[str] | None = None, **terms: Any
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        return iter([(key, self._entry(key)) for key in self.query_keys(**terms)])


class UserCodeUnderLock(DictMemoryStore):
    """Holds the read side of the table lock from the beginning to the end of every call."""

    def __getattribute__(self, name: str) -> Any:
        attribute = super().__getattribute__(name)
        public = not name.startswith("_") and callable(attribute)
        # Calls of the thread that user code starts are left alone: they are the ones that must get in.
        if not public or threading.current_thread().name == "guest":
            return attribute

        def run(*arguments: Any, **options: Any) -> Any:
            result = attribute(*arguments, **options)
            return list(result) if isinstance(result, Iterator) else result

        return lambda *arguments, **options: self._table.read(lambda: run(*arguments, **options))


def publish_at_once(
    publisher: Publisher, changes: object, revision: int, claim: object, deliveries: Iterable[Delivery]
) -> None:
    """Call the listeners, and queue nothing for them, in the section that makes the commit."""
    for delivery in deliveries:
        delivery.deliver(publisher.dispatcher)


@pytest.fixture
def _many_switches() -> Iterator[None]:
    """Have threads take turns as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


# -- a commit is seen whole -----------------------------------------------------------------------

#: Written in this order by each commit.
GROUP = ("k0", "k1", "k2", "k3")


def write_generation(store: DictMemoryStore, generation: int) -> None:
    """Bring all of the group to one generation, and rename the key that is called by its parity.

    Every commit creates one key and deletes another, so there are always five.
    """
    data = str(generation).encode()
    metadata = {"generation": generation, "group": "g", "parity": generation % 2}
    with store.transaction(f"generation {generation}"):
        for key in GROUP:
            store.set(key, (data, metadata))
        store.set(f"parity {generation % 2}", (data, metadata))
        if store.exists(f"parity {(generation + 1) % 2}"):
            store.delete(f"parity {(generation + 1) % 2}")


#: How to read the generation of one key.
GENERATIONS: dict[str, Callable[[DictMemoryStore, str], Any]] = {
    "to_bytes": lambda store, key: store.to_bytes(key),
    "get": lambda store, key: store.get(key).data.read(),
    "get's metadata": lambda store, key: store.get(key).metadata["generation"],
    "get_data": lambda store, key: store.get_data(key).read(),
    "get_data_range": lambda store, key: store.get_data_range(key).read(),
    "get_metadata": lambda store, key: store.get_metadata(key)["generation"],
    "get_metadata, selected": lambda store, key: store.get_metadata(key, ["generation"])["generation"],
}

WHOLE = ({*GROUP, "parity 0"}, {*GROUP, "parity 1"})


def in_snapshot(store: DictMemoryStore) -> int:
    with store.snapshot() as view:
        return len({value.data.read() for value in view.multiget(GROUP)})


def keys_in_snapshot(store: DictMemoryStore) -> set[str]:
    with store.snapshot() as view:
        return set(view.query_keys())


#: How to read many keys, and what that may come to. Counts are of different generations, or of keys.
MANY: dict[str, tuple[Callable[[DictMemoryStore], object], tuple[object, ...]]] = {
    "multiget": (lambda store: len({value.data.read() for value in store.multiget(GROUP)}), (1,)),
    "multiget_data": (lambda store: len({data.read() for data in store.multiget_data(GROUP)}), (1,)),
    "multiget_metadata": (
        lambda store: len({metadata["generation"] for metadata in store.multiget_metadata(GROUP)}),
        (1,),
    ),
    "query": (
        lambda store: len({metadata["generation"] for _, metadata in store.query(group="g")}),
        (1,),
    ),
    "keys of query": (lambda store: {key for key, _ in store.query(group="g")}, WHOLE),
    "query of everything": (lambda store: len(list(store.query())), (5,)),
    "query_keys": (lambda store: set(store.query_keys(group="g")), WHOLE),
    "query_keys of everything": (lambda store: set(store.query_keys()), WHOLE),
    "query by an index, even": (lambda store: len(list(store.query_keys(parity=0))), (0, 5)),
    "query by an index, odd": (lambda store: len(list(store.query_keys(parity=1))), (0, 5)),
    "glob": (lambda store: set(store.glob("*")), WHOLE),
    "glob for one": (lambda store: len(list(store.glob("parity ?"))), (1,)),
    "len": (lambda store: len(store), (5,)),
    "info": (lambda store: store.info()["keys"], (5,)),
    "snapshot": (in_snapshot, (1,)),
    "keys of snapshot": (keys_in_snapshot, WHOLE),
}


def amiss(store: DictMemoryStore, name: str) -> str | None:
    """Read in one way; say what cannot be if each commit has one instant, or None."""
    try:
        if name in MANY:
            read, possible = MANY[name]
            came = read(store)
            return None if came in possible else f"{name}: {came}"
        # In the order of writing: whoever has seen a new generation sees no old one later.
        seen = [int(GENERATIONS[name](store, key)) for key in GROUP]
        return None if seen == sorted(seen) else f"{name}: {seen}"
    except Exception as error:
        return f"{name}: {error!r}"


def one_round(store: DictMemoryStore) -> list[str]:
    """Read in every way, one after the other; return what was amiss."""
    return [found for name in (*GENERATIONS, *MANY) if (found := amiss(store, name))]


#: Where a commit of a generation is held up: when three keys of its group are new, and when all new keys are
#: there and an old one is yet to go.
MOMENTS = {"put": 3, "remove": 1}


def halves_in_a_held_up_commit(make: Make, moment: str) -> dict[str, str]:
    """Hold up a commit in its middle and read in every way then, each in a thread of its own."""
    pause = Pause(moment, MOMENTS[moment])
    store = make(pause, indexes=["parity"])
    write_generation(store, 2)
    pause.armed = True
    writer = Background(write_generation, store, 3)
    assert pause.arrived.wait(TIMEOUT)
    readers = {name: Background(amiss, store, name) for name in (*GENERATIONS, *MANY)}
    for reader in readers.values():
        assert reader.settled.wait(TIMEOUT)
    pause.go_on.set()
    writer.result()
    found = {name: reader.result() for name, reader in readers.items()}
    assert one_round(store) == []
    check(store)
    return {name: violation for name, violation in found.items() if violation}


with_both_locks = pytest.mark.parametrize("make", [guarded, guarded_by_the_library])


@pytest.mark.parametrize("moment", MOMENTS)
@with_both_locks
def test_a_commit_is_seen_whole(make: Make, moment: str) -> None:
    assert halves_in_a_held_up_commit(make, moment) == {}


def test_without_the_table_lock_every_read_of_many_keys_sees_halves() -> None:
    new = halves_in_a_held_up_commit(without_table_lock, "put")
    assert set(new) == {
        "multiget",
        "multiget_data",
        "multiget_metadata",
        "query",
        "query by an index, odd",
        "snapshot",
    }
    old = halves_in_a_held_up_commit(without_table_lock, "remove")
    # The index for the old generation is empty by then, which is one of the right answers. Single keys are
    # read without the lock anyhow.
    assert set(new) | set(old) == {*MANY} - {"query by an index, even"}


def test_without_the_gate_single_reads_see_halves() -> None:
    found = halves_in_a_held_up_commit(without_gate, "put")
    assert set(found) == {*GENERATIONS, "multiget", "multiget_data", "multiget_metadata"}
    assert found["to_bytes"] == "to_bytes: [3, 3, 3, 2]"


SINGLE_READS: dict[str, Callable[[DictMemoryStore, str], object]] = {
    "get": lambda store, key: store.get(key).data.read(),
    "get_data": lambda store, key: store.get_data(key).read(),
    "get_data_range": lambda store, key: store.get_data_range(key, 0, 9).read(),
    "get_metadata": lambda store, key: store.get_metadata(key)["state"],
    "get_metadata, selected": lambda store, key: store.get_metadata(key, ["state"])["state"],
    "to_bytes": lambda store, key: store.to_bytes(key),
    "exists": lambda store, key: b"new" if store.exists(key) else b"missing",
    "in": lambda store, key: b"new" if key in store else b"missing",
    "multiget": lambda store, key: next(store.multiget([key])).data.read(),
}


def reads_in_a_held_up_commit(make: Make) -> dict[str, list[object]]:
    """Read two keys one at a time while a commit of both is held up between them; None for who waits."""
    pause = Pause("put")
    store = make(pause)
    store.multiset(("a", "b"), [(b"old", {"state": b"old"})] * 2)
    pause.armed = True
    writer = Background(store.multiset, ("a", "b"), [(b"new", {"state": b"new"})] * 2)
    assert pause.arrived.wait(TIMEOUT)
    readers = {
        (name, key): Background(read, store, key) for name, read in SINGLE_READS.items() for key in ("a", "b")
    }
    for reader in readers.values():
        assert reader.settled.wait(TIMEOUT)
    pause.go_on.set()
    writer.result()
    answers: dict[str, list[object]] = {}
    for (name, _), reader in readers.items():
        answer = reader.result()
        answers.setdefault(name, []).append(None if reader.waited else answer)
    return answers


@with_both_locks
def test_single_reads_do_not_wait_for_a_commit_and_see_what_was_before(make: Make) -> None:
    answers = reads_in_a_held_up_commit(make)
    assert answers.pop("multiget") == [None, None]
    assert answers.pop("exists") == answers.pop("in") == [b"new", b"new"]  # the keys were there before
    assert set(map(tuple, answers.values())) == {(b"old", b"old")}


def test_without_the_gate_single_reads_see_half_a_commit() -> None:
    answers = reads_in_a_held_up_commit(without_gate)
    assert answers["to_bytes"] == answers["get"] == answers["get_metadata"] == [b"new", b"old"]


@pytest.mark.parametrize("name", ["exists", "in", "get", "to_bytes"])
@pytest.mark.parametrize("moment", [("put", 1), ("put", 2), ("remove", 1)], ids=str)
def test_keys_come_and_go_at_the_end_of_their_commit(moment: tuple[str, int], name: str) -> None:
    pause = Pause(*moment)
    store = guarded(pause)
    store.from_bytes("goes", b"old")
    store.from_bytes("stays", b"old")

    def write() -> None:
        with store.transaction():
            store.from_bytes("comes", b"new")
            store.from_bytes("stays", b"new")
            store.delete("goes")

    def found(key: str) -> bool:
        try:
            return SINGLE_READS[name](store, key) != b"missing"
        except KeyError:
            return False

    pause.armed = True
    writer = Background(write)
    assert pause.arrived.wait(TIMEOUT)
    seen = [found(key) for key in ("goes", "comes")]
    pause.go_on.set()
    writer.result()
    assert seen == [True, False]
    assert [found(key) for key in ("goes", "comes")] == [False, True]


def test_a_query_that_has_seen_a_commit_is_not_followed_by_a_read_from_before_it() -> None:
    """The gate is open before the table lock is free: whoever gets the lock finds both as they are after."""
    seen: list[object] = []

    def look() -> None:
        if len(table_of(store).entries) == 2:
            seen.append((len(store), store.to_bytes("a"), store.to_bytes("b")))

    store = guarded(lock_class=lambda: WatchedLock(lambda: Background(look).result()))
    store.multiset_data(("a", "b"), [b"old"] * 2)
    store.multiset_data(("a", "b"), [b"new"] * 2)
    assert seen == [(2, b"old", b"old"), (2, b"new", b"new")]


def a_key_named_twice(make: Make) -> list[bytes]:
    """Read a key, let another thread write it but hold that up before its end, read the key again.

    Both reads belong to one ``multiget``, whose answer is returned.
    """
    pause = Pause("put")
    store = make(pause)
    store.multiset_data(("a", "b"), (b"old", b"old"))
    entries = table_of(store).entries
    assert isinstance(entries, HaltingDict)
    writers: list[Background[None]] = []

    def write_the_first() -> None:
        pause.armed = True
        writers.append(Background(store.from_bytes, "a", b"new"))
        assert pause.arrived.wait(TIMEOUT)

    entries.after_read = write_the_first
    reader = Background(lambda: [value.data.read() for value in store.multiget(["a", "b", "a"])])
    assert reader.settled.wait(TIMEOUT)
    pause.go_on.set()
    answer = reader.result()
    writers[0].result()
    return answer


def test_a_key_named_twice_is_read_at_one_instant() -> None:
    first, _, again = a_key_named_twice(guarded)
    assert first == again


# -- many commits, many readers -------------------------------------------------------------------


class RoundPause(Pause):
    """Holds up the first commit that it meets until readers have been through a whole round in it."""

    def __init__(self, moment: str, count: int) -> None:
        super().__init__(moment, count)
        self.rounds = threading.Semaphore(0)
        self.held = False

    def hold(self) -> None:
        self.held = True
        # Rounds that were under way when the commit began count for nothing: there is one for each reader at
        # most, so one more than that is a round that began after it.
        for _ in range(READERS + 1):
            assert self.rounds.acquire(timeout=TIMEOUT)
        self.held = False

    def round_ended(self) -> None:
        if self.held:
            self.rounds.release()


READERS = 2


def halves_in_many_commits(store: DictMemoryStore, commits: int, pause: RoundPause | None) -> list[str]:
    """Commit many generations while other threads read all the time; return what they saw amiss."""
    write_generation(store, 0)
    if pause is not None:
        pause.armed = True
    found: list[str] = []
    start = threading.Barrier(READERS + 1)
    ended = threading.Event()

    def read() -> int:
        start.wait(TIMEOUT)
        rounds = 0
        # One round at least begins after the last commit.
        last = False
        while not last:
            last = ended.is_set()
            found.extend(one_round(store))
            rounds += 1
            if pause is not None:
                pause.round_ended()
        return rounds

    readers = [Background(read) for _ in range(READERS)]
    start.wait(TIMEOUT)
    try:
        for generation in range(1, commits + 1):
            write_generation(store, generation)
    finally:
        ended.set()
    assert all(reader.result(3 * TIMEOUT) > 0 for reader in readers)
    check(store)
    return found


@pytest.mark.usefixtures("_many_switches")
def test_no_reader_ever_sees_half_of_a_commit() -> None:
    store = guarded(indexes=["parity", "group"])
    assert halves_in_many_commits(store, 3000, None) == []


@pytest.mark.usefixtures("_many_switches")
def test_readers_of_an_unguarded_store_do() -> None:
    pause = RoundPause("put", MOMENTS["put"])
    store = unguarded(pause, indexes=["parity"])
    damage: object
    try:
        damage = halves_in_many_commits(store, 3, pause)
    except IndexError as error:
        assert WITHOUT_GIL
        damage = error  # there the books of its snapshots may break before anybody reads a half
    assert damage


# -- nothing is lost ------------------------------------------------------------------------------


def increment(store: DictMemoryStore, between: Callable[[], object] = lambda: None) -> None:
    """Add one to a counter, in one transaction; `between` runs between reading and writing."""
    with store.transaction("increment", timeout=TIMEOUT):
        count = int(store.to_bytes("counter"))
        between()
        store.from_bytes("counter", str(count + 1).encode())


def lost_updates(make: Make) -> int:
    """Have a second thread try to add one while the first has read and not written; count what is lost."""
    store = make()
    store.from_bytes("counter", b"0")
    done = 0

    def second() -> None:
        nonlocal done
        with suppress(LockTimeoutError), store.transaction("second", timeout=SHORT):
            store.from_bytes("counter", str(int(store.to_bytes("counter")) + 1).encode())
            done += 1

    increment(store, lambda: Background(second).result())
    return done + 1 - int(store.to_bytes("counter"))


def test_no_update_is_lost() -> None:
    assert lost_updates(guarded) == 0


def test_without_an_owner_an_update_is_lost() -> None:
    assert lost_updates(without_owner) == 1


@pytest.mark.usefixtures("_many_switches")
def test_many_threads_increment_one_counter() -> None:
    store = guarded()
    store.from_bytes("counter", b"0")
    threads, times = 4, 100
    start = threading.Barrier(threads)

    def work() -> None:
        start.wait(TIMEOUT)
        for _ in range(times):
            increment(store)

    for thread in [Background(work) for _ in range(threads)]:
        thread.result(3 * TIMEOUT)
    assert int(store.to_bytes("counter")) == threads * times
    # Each of them was a commit of its own.
    assert store.get("counter").revision == store.info()["revision"] == threads * times + 1


@pytest.mark.usefixtures("_many_switches")
def test_threads_that_write_different_keys_do_not_harm_each_other() -> None:
    store = guarded(indexes=["thread"])
    threads, times = 4, 60
    start = threading.Barrier(threads)

    def work(number: int) -> None:
        start.wait(TIMEOUT)
        for turn in range(times):
            key = f"{number} {turn % 7}"
            store.set(key, (str(turn).encode(), {"thread": number}))
            store.update_metadata(key, {"turn": turn})
            if turn % 7 == 6:
                store.delete(key)

    for thread in [Background(work, number) for number in range(threads)]:
        thread.result(3 * TIMEOUT)
    check(store)
    for number in range(threads):
        turns = sorted(metadata["turn"] for _, metadata in store.query(thread=number))
        # The last of each slot but the seventh, which was deleted each time.
        assert turns == sorted(max(turn for turn in range(times) if turn % 7 == slot) for slot in range(6))


# -- nobody sees what is not committed, nobody waits for it ----------------------------------------


def everything(store: DictMemoryStore) -> dict[str, object]:
    """Read all there is by every method."""
    keys = sorted(store.query_keys())
    return {
        "len": len(store),
        "query_keys": keys,
        "query": sorted((key, metadata["state"]) for key, metadata in store.query()),
        "query old": sorted(store.query_keys(state="old")),
        "query new": sorted(store.query_keys(state="new")),
        "glob": sorted(store.glob("*")),
        "to_bytes": store.to_bytes("changed"),
        "get": store.get("changed").data.read(),
        "get's metadata": store.get("changed").metadata,
        "get_data": store.get_data("changed").read(),
        "get_data_range": store.get_data_range("changed", 0, 2).read(),
        "get_metadata": store.get_metadata("changed"),
        "exists": [store.exists(key) for key in ("changed", "deleted", "created")],
        "in": [key in store for key in ("changed", "deleted", "created")],
        "multiget": [value.data.read() for value in store.multiget(["changed"])],
        "multiget_data": [data.read() for data in store.multiget_data(["changed"])],
        "multiget_metadata": list(store.multiget_metadata(["changed"])),
        "keys": store.info()["keys"],
    }


def dirty_reads(make: Make) -> list[str]:
    """Write in an open transaction and read in another thread; return what was seen of it too early."""
    store = make(indexes=["state"])
    store.multiset(("changed", "deleted"), [(b"old", {"state": "old"})] * 2)
    before = everything(store)
    written, leave = threading.Event(), threading.Event()

    def write() -> dict[str, object]:
        with store.transaction("slow"):
            store.set("changed", (b"new", {"state": "new"}))
            store.delete("deleted")
            store.multiset(("created", "created too"), [(b"new", {"state": "new"})] * 2)
            own = everything(store)
            written.set()
            assert leave.wait(TIMEOUT)
        return own

    writer = Background(write)
    assert written.wait(TIMEOUT)
    try:
        seen = Background(everything, store).result()
    except Exception as error:
        seen = {"error": error}
    finally:
        leave.set()
    own = writer.result()
    after = everything(store)
    assert after["query new"] == ["changed", "created", "created too"]
    # The transaction's own thread saw all the time what is there now, but for what info() counts.
    assert {**own, "keys": after["keys"]} == after
    return [name for name in before if seen.get(name) != before[name]]


def test_what_is_not_committed_is_not_seen_and_not_waited_for() -> None:
    assert dirty_reads(guarded) == []


def test_writes_that_pass_the_batch_by_are_seen() -> None:
    found = dirty_reads(lambda **options: NoBatch(EventManager(), **options))
    # By every method there is.
    assert found == list(everything_names())


def everything_names() -> Iterator[str]:
    store = guarded()
    store.set("changed", (b"", {"state": ""}))
    yield from everything(store)


def test_reads_in_the_batch_of_others_are_noticed() -> None:
    found = dirty_reads(lambda **options: DirtyReads(EventManager(), **options))
    assert {"to_bytes", "get", "get_data", "get_metadata", "exists", "in"} <= set(found)


def test_a_rollback_is_never_seen() -> None:
    store = guarded(indexes=["state"])
    store.multiset(("changed", "deleted"), [(b"old", {"state": "old"})] * 2)
    before = everything(store)
    seen = []
    with suppress(ZeroDivisionError), store.transaction("fails"):
        store.set("changed", (b"new", {"state": "new"}))
        store.delete("deleted")
        store.multiset(("created", "created too"), [(b"new", {"state": "new"})] * 2)
        seen.append(Background(everything, store).result())
        1 / 0
    seen.append(Background(everything, store).result())
    assert seen == [before, before]
    check(store)


WRITES: dict[str, Callable[[DictMemoryStore], object]] = {
    "set": lambda store: store.set("k", (b"", {})),
    "set_data": lambda store: store.set_data("k", b""),
    "set_metadata": lambda store: store.set_metadata("k", {}),
    "update_metadata": lambda store: store.update_metadata("k", {}),
    "from_bytes": lambda store: store.from_bytes("k", b""),
    "delete": lambda store: store.delete("k"),
    "multiset": lambda store: store.multiset(["k"], [(b"", {})]),
    "multiset_data": lambda store: store.multiset_data(["k"], [b""]),
    "multiset_metadata": lambda store: store.multiset_metadata(["k"], [{}]),
    "multiupdate_metadata": lambda store: store.multiupdate_metadata(["k"], [{}]),
    "transaction 'mine'": lambda store: store.transaction("mine").__enter__(),
    "add_index": lambda store: store.add_index("name"),
    "remove_index": lambda store: store.remove_index("name"),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_writer_that_waits_too_long_is_told_for_whom(name: str) -> None:
    store = guarded(lock_timeout=SHORT)
    store.from_bytes("k", b"data")
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with store.transaction("nightly clean-up"):
            entered.set()
            assert leave.wait(TIMEOUT)

    holder = Background(hold, name="the janitor")
    assert entered.wait(TIMEOUT)
    try:
        with pytest.raises(LockTimeoutError) as raised:
            Background(WRITES[name], store).result()
    finally:
        leave.set()
    holder.result()
    assert re.fullmatch(
        rf"{re.escape(name)}: no write lock in 0\.05 s, held for \d+\.\d{{3}} s "
        r"by thread 'the janitor' \(transaction 'nightly clean-up'\)",
        str(raised.value),
    )
    # Whoever gave up has taken nothing with him.
    assert store.to_bytes("k") == b"data"
    Background(store.from_bytes, "k", b"after").result()
    assert store.to_bytes("k") == b"after"


# -- structural change under a reader --------------------------------------------------------------

ITERATIONS: dict[str, Callable[[DictMemoryStore], Iterator[object]]] = {
    "query": lambda store: store.query(),
    "query by a term": lambda store: store.query(state="old"),
    "query by an indexed term": lambda store: store.query(kind="old"),
    "query_keys": lambda store: store.query_keys(),
    "query_keys by a term": lambda store: store.query_keys(state="old"),
    "glob": lambda store: store.glob("*"),
    "multiget": lambda store: store.multiget(["a", "b", "c"]),
    "multiget_data": lambda store: store.multiget_data(["a", "b", "c"]),
    "multiget_metadata": lambda store: store.multiget_metadata(["a", "b", "c"]),
}


def moving_answers(make: Make) -> list[str]:
    """Begin to read an answer, have another thread change everything, and read on."""
    found = []
    for name, iterate in ITERATIONS.items():
        store = make(indexes=["kind"])
        store.multiset(["a", "b", "c"], [(b"old", {"state": "old", "kind": "old"})] * 3)

        def change(store: DictMemoryStore = store) -> None:
            store.delete("c")
            store.multiset_data([f"new {number}" for number in range(50)], itertools.repeat(b"new"))
            store.set("b", (b"new", {"state": "new", "kind": "new"}))

        answer = iterate(store)
        try:
            first = next(answer)
            Background(change).result()
            items = [first, *answer]
        except (RuntimeError, KeyError) as error:
            found.append(f"{name}: {error!r}")
            continue
        if len(items) != 3 or "new" in repr([shown(item) for item in items]):
            found.append(f"{name}: {items}")
    return found


def shown(item: Any) -> object:
    """Return what is behind a value or stream."""
    if hasattr(item, "metadata"):
        return item.data.read(), item.metadata
    return item.read() if hasattr(item, "read") else item


def test_answers_are_fixed_at_the_call() -> None:
    assert moving_answers(guarded) == []


def test_a_query_over_the_live_dict_is_noticed() -> None:
    found = moving_answers(lambda **options: LiveQuery(EventManager(), **options))
    assert "query: RuntimeError('dictionary changed size during iteration')" in found


# -- isolation ------------------------------------------------------------------------------------


HANDED_OUT: dict[str, Callable[[DictMemoryStore], dict[str, Any]]] = {
    "get": lambda store: store.get("k").metadata,
    "get_metadata": lambda store: store.get_metadata("k"),
    "get_metadata, selected": lambda store: store.get_metadata("k", ["list", "flat"]),
    "multiget": lambda store: next(store.multiget(["k"])).metadata,
    "multiget_metadata": lambda store: next(store.multiget_metadata(["k"])),
    "query": lambda store: next(store.query())[1],
    "query, selected": lambda store: next(store.query(["list", "flat"]))[1],
}


def shared_objects(make: Make) -> list[str]:
    """Change everything that was handed in or out, and return what other threads see of that."""
    store = make()
    given = {"list": [1], "flat": 1}
    data = bytearray(b"data")
    store.set("k", (data, given))
    data[:] = b"xxxx"
    given["list"].append(2)  # type: ignore[attr-defined]
    given["flat"] = 2
    found = []
    if Background(store.to_bytes, "k").result() != b"data":
        found.append("data")
    for name, hand_out in HANDED_OUT.items():
        metadata = hand_out(store)
        metadata["list"].append(3)
        metadata["flat"] = 3
        if Background(lambda: store.get("k").metadata).result() != {"list": [1], "flat": 1}:
            found.append(name)
            store.set_metadata("k", {"list": [1], "flat": 1})
    stream = store.get_data("k")
    stream.write(b"zzzz")
    if Background(store.to_bytes, "k").result() != b"data":
        found.append("stream")
    return found


def test_nothing_is_shared_with_callers() -> None:
    assert shared_objects(guarded) == []


def test_metadata_handed_out_live_is_noticed() -> None:
    found = shared_objects(lambda **options: LiveMetadata(EventManager(), **options))
    assert {"get_metadata", "query"} <= set(found)


# -- user code never runs under a lock -------------------------------------------------------------


class Visit:
    """What user code does in these tests: it has another thread use the store, and waits for it.

    Does nothing before ``begin`` is called.
    """

    def __init__(self, store: DictMemoryStore) -> None:
        self.store = store
        self.begun = False
        self.calls = 0
        self.failures: list[str] = []

    def __call__(self) -> None:
        if not self.begun:
            return
        self.calls += 1
        if self.failures:
            return  # one is enough, and each takes its time
        try:
            Background(self._use, name="guest").result()
        except Exception as error:
            self.failures.append(repr(error))

    def _use(self) -> None:
        store = self.store
        store.from_bytes("guest", b"1")
        with store.transaction("of the guest"):
            store.set("guest", (b"2", {"by": "guest"}))
            store.set("guest too", (b"2", {"by": "guest"}))
        assert store.to_bytes("guest") == b"2"
        assert set(store.query_keys(by="guest")) == {"guest", "guest too"}
        assert len(store) >= 2
        assert "guest" in set(store.glob("g*"))
        assert len(list(store.multiget(["guest", "guest too"]))) == 2
        store.delete("guest too")


class VisitingStream:
    """A stream of two blocks."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._blocks = [b"a", b"b"]

    def read(self, size: int = -1, /) -> bytes:
        self._visit()
        return self._blocks.pop(0) if self._blocks else b""


class Visiting:
    """Metadata that is copied, compared and hashed by code of its own."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit

    def __deepcopy__(self, memo: object) -> Visiting:
        self._visit()
        return Visiting(self._visit)

    def __eq__(self, other: object) -> bool:
        self._visit()
        return isinstance(other, Visiting)

    def __hash__(self) -> int:
        self._visit()
        return 1


class VisitingKey(str):
    """A key with a hash and an equality of its own."""

    __slots__ = ("visit",)
    visit: Visit

    def __hash__(self) -> int:
        self.visit()
        return str.__hash__(self)

    def __eq__(self, other: object) -> bool:
        self.visit()
        return str.__eq__(self, other)


class VisitingMapping(Mapping[str, Any]):
    """A mapping that is no dict."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit

    def __getitem__(self, name: str) -> Any:
        self._visit()
        return {"name": 1}[name]

    def __iter__(self) -> Iterator[str]:
        self._visit()
        return iter(["name"])

    def __len__(self) -> int:
        return 1


def visiting(visit: Visit, items: Iterable[T]) -> Iterator[T]:
    for item in items:
        visit()
        yield item


def visiting_key(visit: Visit) -> str:
    key = VisitingKey("held")
    key.visit = visit
    return key


UserCode = Callable[[DictMemoryStore, Visit], object]

#: Calls that run the caller's code, of a store that has the key "held" with a `Visiting` in its metadata.
USER_CODE: dict[str, UserCode] = {
    "stream of set": lambda store, visit: store.set("key", (VisitingStream(visit), {})),
    "stream of set_data": lambda store, visit: store.set_data("key", VisitingStream(visit), 1),
    "stream of multiset": lambda store, visit: store.multiset(["a", "b"], [(VisitingStream(visit), {})] * 2),
    "stream of multiset_data": lambda store, visit: store.multiset_data(["a"], [VisitingStream(visit)]),
    "keys of multiset": lambda store, visit: store.multiset(visiting(visit, "ab"), [(b"", {})] * 2),
    "values of multiset": lambda store, visit: store.multiset(["a", "b"], visiting(visit, [(b"", {})] * 2)),
    "keys of multiset_data": lambda store, visit: store.multiset_data(visiting(visit, "ab"), [b""] * 2),
    "keys of multiset_metadata": lambda store, visit: store.multiset_metadata(
        visiting(visit, "ab"), [{}] * 2
    ),
    "metadata of multiset_metadata": (
        lambda store, visit: store.multiset_metadata(["a"], [VisitingMapping(visit)])
    ),
    "keys of multiupdate_metadata": (
        lambda store, visit: store.multiupdate_metadata(visiting(visit, ["held"]), [{"n": 1}])
    ),
    "keys of multiget": lambda store, visit: list(store.multiget(visiting(visit, ["held"]))),
    "keys of multiget_data": lambda store, visit: list(store.multiget_data(visiting(visit, ["held"]))),
    "keys of multiget_metadata": (
        lambda store, visit: list(store.multiget_metadata(visiting(visit, ["held"]), ["n"]))
    ),
    "select of get_metadata": lambda store, visit: store.get_metadata("held", visiting(visit, ["n"])),
    "select of query": lambda store, visit: list(store.query(visiting(visit, ["n"]))),
    "mapping of set": lambda store, visit: store.set("key", (b"", VisitingMapping(visit))),
    "mapping of set_metadata": lambda store, visit: store.set_metadata("key", VisitingMapping(visit)),
    "mapping of update_metadata": lambda store, visit: store.update_metadata("held", VisitingMapping(visit)),
    "copy in, set": lambda store, visit: store.set("key", (b"", {"own": Visiting(visit)})),
    "copy in, set_metadata": lambda store, visit: store.set_metadata("key", {"own": Visiting(visit)}),
    "copy in, update_metadata": lambda store, visit: store.update_metadata("held", {"own": Visiting(visit)}),
    "copy out, get": lambda store, visit: store.get("held").metadata,
    "copy out, get_metadata": lambda store, visit: store.get_metadata("held"),
    "copy out, multiget_metadata": lambda store, visit: list(store.multiget_metadata(["held"])),
    "copy out, query": lambda store, visit: list(store.query(n=1)),
    "copy out, indexed query": lambda store, visit: list(store.query(kind="held")),
    "comparison, value asked for": lambda store, visit: list(store.query_keys(n=Visiting(visit))),
    "comparison, value of an index": lambda store, visit: list(store.query_keys(kind=Visiting(visit))),
    "comparison, value held": lambda store, visit: list(store.query_keys(own=1)),
    "comparison, value held in an index": lambda store, visit: list(store.query_keys(indexed=1)),
    "key of get": lambda store, visit: store.get_metadata(visiting_key(visit), ()),
    "on_commit": lambda store, visit: commit_with(store, visit),
    "on_rollback": lambda store, visit: roll_back_with(store, visit),
}


def commit_with(store: DictMemoryStore, visit: Visit) -> None:
    with store.transaction() as transaction:
        transaction.on_commit(visit)
        store.set("key", (b"", {}))


def roll_back_with(store: DictMemoryStore, visit: Visit) -> None:
    with store.transaction() as transaction:
        transaction.on_rollback(visit)
        store.set("key", (b"", {}))
        transaction.doom()


def user_code_that_had_to_wait(
    store: DictMemoryStore, name: str, broken: bool = False
) -> tuple[int, list[str]]:
    """Make one call; return how often it ran user code, and what that could not do meanwhile."""
    store.add_index("kind")
    store.add_index("indexed")
    visit = Visit(store)
    held = {"n": 1, "kind": "held", "own": Visiting(visit), "indexed": Visiting(visit)}
    store.set("held", (b"", held))
    visit.begun = True
    if broken:
        # Not before, or the calls that set the scene would wait for themselves.
        store.__class__ = UserCodeUnderLock
    # A broken store's writer waits for its own read lock.
    with suppress(LockTimeoutError) if broken else nullcontext():
        USER_CODE[name](store, visit)
    return visit.calls, visit.failures


#: What runs no user code inside a call of the store's.
AFTER_THE_CALL = ("copy out, get", "on_commit", "on_rollback")


@pytest.mark.parametrize("name", USER_CODE)
def test_user_code_runs_outside_all_locks(name: str) -> None:
    calls, failures = user_code_that_had_to_wait(guarded(), name)
    assert failures == []
    assert calls > 0


@pytest.mark.parametrize("name", [name for name in USER_CODE if name not in AFTER_THE_CALL])
def test_user_code_under_a_lock_is_noticed(name: str) -> None:
    store = DictMemoryStore(EventManager(), lock_timeout=SHORT)
    calls, failures = user_code_that_had_to_wait(store, name, broken=True)
    assert calls > 0
    assert failures
    assert "LockTimeoutError" in failures[0]


def listeners_that_had_to_wait(make: Callable[[], DictMemoryStore]) -> list[str]:
    store = make()
    visit = Visit(store)
    visit.begun = True

    def listener(event: BaseEvent) -> None:
        visit()

    store.event_manager.connect(StoreSetEvent, listener, filter={"key": "key"})
    store.set("key", (b"", {}))
    store.flush(TIMEOUT)
    assert visit.calls == 1
    return visit.failures


def test_listeners_run_outside_all_locks() -> None:
    assert listeners_that_had_to_wait(guarded) == []


def test_listeners_under_the_table_lock_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Publisher, "publish", publish_at_once)
    (failure,) = listeners_that_had_to_wait(lambda: guarded(lock_timeout=SHORT))
    assert "LockTimeoutError" in failure
