"""The events of a store, replayed, rebuild it: none is missing, doubled, out of order or wrong."""

from __future__ import annotations

import importlib
import logging
import os
from typing import Any

import pytest

from latchstore import DictMemoryStore, EventManager, StoreModificationEvent
from tests.event_replay.checks import assert_no_faults, faults_by_check
from tests.event_replay.listeners import ComeAndGo, Raising, SteadyListener
from tests.event_replay.records import ROLLED_BACK, TIMEOUT, Heard, State
from tests.event_replay.writers import Writer
from tests.schedules import run_threads

THREADS = 6


def final_state(store: DictMemoryStore) -> tuple[int, dict[str, State]]:
    """Return the revision and what every key has, of one instant."""
    with store.snapshot() as view:
        return store.info()["revision"], {
            key: (view.to_bytes(key), view.get_metadata(key)) for key in view.query_keys()
        }


def write_and_replay(
    store: DictMemoryStore,
    commits: int,
    raised: tuple[type[BaseException], ...],
    mortals: bool = True,
) -> tuple[list[Heard], Raising]:
    """Have the threads write, the listeners listen, and check what the steady ones have heard."""
    manager: Any = store.event_manager
    first, last = SteadyListener(), SteadyListener()
    raising = Raising(raised)
    manager.connect(StoreModificationEvent, first.on_event, priority=10)
    functions = raising.connect_to(manager, priority=5)
    manager.connect(StoreModificationEvent, last.on_event, priority=-10)
    others = ComeAndGo(manager, mortals)
    others.start()
    writers = [Writer(store, number, -(-commits // THREADS), others.tick) for number in range(THREADS)]
    run_threads([writer.run for writer in writers])
    others.end()
    store.flush(TIMEOUT)

    written = [writer.written for writer in writers]
    revision, final = final_state(store)
    heard = first.heard()
    assert_no_faults(faults_by_check(heard, final, revision, written))
    # The writers' own count of commits, which is not the store's.
    assert sum(len(each.commits) for each in written) == revision >= commits
    # The listeners that raise have kept nothing from the one that comes after them.
    assert [event[:3] for event in last.events] == [event[:3] for event in first.events]
    # And all that was to happen beside it has happened.
    assert len(functions) == len(raised)
    assert raising.raised > len(raised)
    assert all(writer.failed for writer in writers)
    assert others.count["rounds"] > commits // 1000
    assert others.count["brief"]
    assert bool(others.count["mortal"]) is mortals
    stats = store.stats()
    assert stats["commits"] == stats["revision"] == revision
    assert stats["events_pending"] == 0
    # A manager that cannot tell who listens is given all other events, too.
    assert stats["events_delivered"] == len(heard) or not hasattr(manager, "has_listeners")
    return heard, raising


@pytest.fixture
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Log none of the errors on purpose: that they are logged is shown elsewhere, and it takes long."""
    caplog.set_level(logging.CRITICAL + 1, "latchstore")
    caplog.set_level(logging.CRITICAL + 1, "encore.events.event_manager")


#: Commits of the replay of everything; LATCHSTORE_COMMITS=100000 is a long run.
COMMITS = int(os.environ.get("LATCHSTORE_COMMITS", "8000"))

ANYTHING = (ValueError, SystemExit, KeyboardInterrupt, GeneratorExit)


@pytest.mark.timeout(300 + COMMITS // 50)
@pytest.mark.usefixtures("_quiet")
def test_the_events_of_many_commits_rebuild_the_store() -> None:
    store = DictMemoryStore(EventManager(), lock_timeout=TIMEOUT)
    _, raising = write_and_replay(store, COMMITS, ANYTHING)
    assert store.stats()["listener_errors"] == raising.raised
    store.close()


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize("limit", [1, 7])
def test_writers_that_wait_at_the_door_are_told_of_as_well(limit: int) -> None:
    store = DictMemoryStore(EventManager(), lock_timeout=TIMEOUT, max_pending_events=limit)
    write_and_replay(store, 2_000, ANYTHING)
    store.close()


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("_quiet")
@pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated:DeprecationWarning")
def test_encores_event_manager_is_told_the_same() -> None:
    pytest.importorskip("encore")
    manager = importlib.import_module("encore.events.event_manager").EventManager()
    store = DictMemoryStore(manager, lock_timeout=TIMEOUT)
    # Its listeners may die, but not while another thread emits; and SystemExit ends its emit.
    write_and_replay(store, 5_000, (ValueError, RuntimeError), mortals=False)
    store.close()


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("_quiet")
def test_what_listeners_write_is_told_after_what_they_hear() -> None:
    """A listener writes an echo of each event, by all the ways in turn, while six threads write."""
    store = DictMemoryStore(EventManager(), lock_timeout=TIMEOUT, max_pending_events=50)
    manager = store.event_manager
    echoes = Writer(store, THREADS, 0, lambda: None)
    causes: dict[bytes, int] = {}

    def echo(event: StoreModificationEvent) -> None:
        if event.key.startswith("echo "):
            return
        assert event.revision is not None
        key, data = f"echo {event.key}", echoes.new_data()
        causes[data] = event.revision
        if event.revision % 3:
            store.from_bytes(key, data)
            echoes.written.commits.append(None)
        else:
            with store.transaction() as transaction:
                store.from_bytes(key, ROLLED_BACK)
                with store.transaction():
                    store.from_bytes(key, data)
            assert transaction.revision is not None
            echoes.written.commits.append(transaction.revision)
            echoes.written.keys[transaction.revision] = [key]
        echoes.written.data.append(data)

    steady = SteadyListener()
    manager.connect(StoreModificationEvent, steady.on_event)
    manager.connect(StoreModificationEvent, echo, priority=1)
    writers = [Writer(store, number, 5_000 // THREADS, lambda: None) for number in range(THREADS)]
    run_threads([writer.run for writer in writers])
    # What the writers have written is heard, so each echo is written; and then the echoes are heard.
    store.flush(TIMEOUT)
    store.flush(TIMEOUT)

    written = [writer.written for writer in [*writers, echoes]]
    revision, final = final_state(store)
    heard = steady.heard()
    assert_no_faults(faults_by_check(heard, final, revision, written))
    assert sum(len(each.commits) for each in written) == revision
    assert store.stats()["listener_errors"] == 0
    # Each echo is told of, by a later commit than what it is the echo of.
    told = {event.value[0]: event.revision for event in heard if event.value and "echo" in event.key}
    assert told.keys() == causes.keys()
    assert len(told) > 4_000
    assert all(told[data] > causes[data] for data in causes)
    store.close()
