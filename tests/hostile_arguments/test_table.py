"""The table has every public method; which ones are not in it, and why."""

from __future__ import annotations

import pytest

from latchstore import Cache, DictMemoryStore, EventManager, Snapshot, Transaction
from latchstore.queue import Job, WorkQueue
from tests.hostile_arguments.queue_table import QUEUE_TABLE
from tests.hostile_arguments.table import TABLE

#: Attributes, and methods without arguments.
WITHOUT_ARGUMENTS: dict[type, set[str]] = {
    DictMemoryStore: {
        "activity",
        "current_transaction",
        "default_codec",
        "disconnect",
        "info",
        "is_connected",
        "snapshot",
        "stats",
    },
    Transaction: {
        "close",
        "commit",
        "default_codec",
        "disconnect",
        "doom",
        "event_manager",
        "info",
        "is_connected",
        "notes",
        "optimistic",
        "revision",
        "rollback",
    },
    Snapshot: {"close", "default_codec", "disconnect", "info", "is_connected"},
    EventManager: {"check", "emits_itself"},
    Cache: {
        "clear",
        "codec",
        "items",
        "keys",
        "max_bytes",
        "max_entries",
        "popitem",
        "stats",
        "sweep",
        "values",
    },
    WorkQueue: {"closed", "dead_letters", "requeue_all", "stats"},
    Job: {"ack", "attempts", "key", "leased_until", "metadata", "outcome", "payload", "priority", "release"},
}

#: What is tested by itself, takes anything, or is the store's own method on another object.
ELSEWHERE: dict[type, set[str]] = {
    DictMemoryStore: {"connect", "load"},
    Transaction: {
        "connect",
        "flush",
        "from_file",
        "mapping",
        "on_commit",
        "on_rollback",
        "to_file",
        "transaction",
    },
    Snapshot: {"connect", "mapping", "to_file"},
    EventManager: {"get_event", "get_event_hierarchy", "get_listeners", "has_listeners"},
    Cache: {"namespace", "update"},
    WorkQueue: set(),
    Job: {"end_after"},
}


EVERYTHING = {**TABLE, **QUEUE_TABLE}


@pytest.mark.parametrize("cls", EVERYTHING)
def test_every_public_method_is_called(cls: type) -> None:
    public = {name for name in dir(cls) if not name.startswith("_")}
    others = WITHOUT_ARGUMENTS[cls] | ELSEWHERE[cls]
    assert others <= public
    assert public - others == set(EVERYTHING[cls])
