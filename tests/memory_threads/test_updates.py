"""No update is lost; nobody sees what is not committed, nobody waits for it."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from latchstore import (
    DictMemoryStore,
    EventManager,
    LockTimeoutError,
)
from latchstore.engine.inspection import check
from tests.memory_threads.stores import (
    SHORT,
    TIMEOUT,
    Background,
    DirtyReads,
    Make,
    NoBatch,
    guarded,
    without_owner,
)

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
