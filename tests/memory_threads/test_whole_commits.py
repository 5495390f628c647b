"""A commit is seen whole: by every way of reading, while it is held up and among many others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from latchstore import (
    DictMemoryStore,
)
from latchstore.engine.inspection import check, table_of
from tests.builds import WITHOUT_GIL
from tests.memory_threads.stores import (
    TIMEOUT,
    Background,
    HaltingDict,
    Make,
    Pause,
    WatchedLock,
    guarded,
    unguarded,
    with_both_locks,
    without_gate,
    without_table_lock,
)

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
