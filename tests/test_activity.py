"""`activity`: who writes, who waits for that, which listeners are called and how long they take."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from latchstore import DictMemoryStore, EventManager, SqliteStore, StoreEvent, StoreSetEvent
from tests.schedules import TIMEOUT, Actor, eventually

Store = DictMemoryStore | SqliteStore

OTHER_PROCESS = """
import sys
from latchstore import SqliteStore
with SqliteStore(sys.argv[1]) as store, store.transaction("elsewhere"):
    print("open", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: Store = (
        DictMemoryStore(EventManager())
        if request.param == "memory"
        else SqliteStore(tmp_path / "store.db", EventManager())
    )
    with made:
        yield made


class TestWriters:
    def test_nothing_goes_on_in_a_store_at_rest(self, store: Store) -> None:
        assert store.activity() == {
            "writer": None,
            "waiting": [],
            "waiting_for_listeners": 0,
            "transactions": [],
            "listener": None,
            "listeners": [],
        }

    def test_an_exclusive_transaction_is_the_writer(self, store: Store) -> None:
        with Actor(store, "teller") as teller:
            teller.begin("pay")
            activity = store.activity()
        writer, (transaction,) = activity["writer"], activity["transactions"]
        assert (writer["thread"], writer["purpose"]) == ("teller_0", "transaction 'pay'")
        assert writer["seconds"] >= 0
        assert (transaction["thread"], transaction["notes"], transaction["optimistic"]) == (
            "teller_0",
            "pay",
            False,
        )
        assert store.activity()["writer"] is None
        assert store.activity()["transactions"] == []

    def test_an_optimistic_one_keeps_nobody_out(self, store: Store) -> None:
        with Actor(store) as reader:
            reader.begin("count", optimistic=True)
            activity = store.activity()
        (transaction,) = activity["transactions"]
        assert activity["writer"] is None
        assert transaction["optimistic"]
        assert 0 <= transaction["seconds"] < 1_000

    @pytest.mark.parametrize("kind", ["write", "transaction"])
    def test_who_waits_for_the_writer_is_named(self, store: Store, kind: str) -> None:
        def write() -> None:
            if kind == "write":
                store.from_bytes("key", b"")
            else:
                with store.transaction("second"):
                    pass

        thread = threading.Thread(target=write, name="late")
        with Actor(store) as early:
            early.begin("first")
            thread.start()
            (waiting,) = eventually(lambda: store.activity()["waiting"])
            assert waiting["thread"] == "late"
            assert waiting["purpose"] == ("transaction 'second'" if kind == "transaction" else "from_bytes")
            longer = eventually(
                lambda: [each for each in store.activity()["waiting"] if each["seconds"] > waiting["seconds"]]
            )
            assert [each["thread"] for each in longer] == ["late"]
        thread.join(TIMEOUT)
        assert store.activity()["waiting"] == []

    def test_inner_blocks_are_the_same_transaction(self, store: Store) -> None:
        with store.transaction("outer"), store.transaction("inner"):
            (transaction,) = store.activity()["transactions"]
        assert transaction["notes"] == "outer"

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc/locks is Linux's")
    def test_the_writer_of_another_process_is_found(self, tmp_path: Path) -> None:
        path = tmp_path / "shared.db"
        with SqliteStore(path, EventManager()) as store:
            command = [sys.executable, "-c", OTHER_PROCESS, str(path)]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
                assert other.stdin is not None
                assert other.stdout is not None
                assert other.stdout.readline() == "open\n"
                writer = store.activity()["writer"]
                other.stdin.close()
            assert (writer["process"], writer["purpose"]) == (other.pid, "transaction 'elsewhere'")
            assert store.activity()["writer"] is None


class TestListeners:
    def test_the_listener_that_is_being_called_is_named(self, store: Store) -> None:
        called, go_on = threading.Event(), threading.Event()

        def slow(event: StoreEvent) -> None:
            called.set()
            go_on.wait(TIMEOUT)

        store.event_manager.connect(StoreSetEvent, slow)
        store.from_bytes("key", b"")
        try:
            assert called.wait(TIMEOUT)
            listener = store.activity()["listener"]
        finally:
            go_on.set()
        assert listener["name"].endswith("slow")
        assert (listener["event"], listener["key"]) == ("StoreSetEvent", "key")
        assert listener["seconds"] >= 0
        store.flush()
        assert store.activity()["listener"] is None

    def test_calls_are_timed_from_the_first_look_on(self, store: Store) -> None:
        def quick(event: StoreEvent) -> None:
            pass

        def failing(event: StoreEvent) -> None:
            raise ValueError("a listener's")

        store.event_manager.connect(StoreSetEvent, quick)
        store.event_manager.connect(StoreSetEvent, failing)
        store.from_bytes("before", b"")
        store.flush()
        assert store.activity()["listeners"] == []
        for number in range(3):
            store.from_bytes(str(number), b"")
        store.flush()
        times = {each["name"].rpartition(".")[2]: each for each in store.activity()["listeners"]}
        assert {name: (each["calls"], each["errors"]) for name, each in times.items()} == {
            "quick": (3, 0),
            "failing": (3, 3),
        }
        for each in times.values():
            assert 0 <= each["longest"] <= each["seconds"]

    def test_any_number_of_listeners_takes_so_much_memory(self) -> None:
        with DictMemoryStore(EventManager()) as store:
            store.activity()
            for number in range(600):
                listener = _named(f"listener{number}")
                store.event_manager.connect(StoreSetEvent, listener)
                store.from_bytes("key", b"")
                store.flush()
                store.event_manager.disconnect(StoreSetEvent, listener)
            listeners = store.activity()["listeners"]
        assert len(listeners) == 501
        assert sum(each["calls"] for each in listeners) == 600


def _named(name: str) -> Any:
    def listener(event: StoreEvent) -> None:
        pass

    listener.__qualname__ = name
    return listener
