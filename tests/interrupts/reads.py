"""Operations that read, and change nothing."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from latchstore import DictMemoryStore, EventManager, StoreSetEvent, TransactionError
from tests.interrupts.subjects import Ping, Subject

#: Files that are read and written; in memory where that can be, as each is flushed to the disk.
FILES = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)


def snapshot_looked_at(subject: Subject) -> None:
    with subject.store.snapshot() as view:
        assert "goes" in view
        assert len(view) == len(view.mapping("raw"))
        view.info()
        repr(view)
        view.disconnect()
        view.connect()
        assert view.is_connected()


def read(subject: Subject) -> None:
    store = subject.store
    store.get("goes")
    store.get_metadata("goes")
    store.exists("missing")
    list(store.multiget(["goes", "stays"]))
    list(store.query(kind="a"))
    list(store.query(n=1))
    list(store.glob("*s"))
    len(store)
    store.info()
    store.stats()
    store.activity()
    assert "goes" in store
    store.is_connected()


def many_read(subject: Subject) -> None:
    store = subject.store
    keys = ["goes", "moves"]
    list(store.multiget_data(keys))
    list(store.multiget_metadata(keys, ["kind"]))
    store.get_data("goes").read()
    store.get_data_range("goes", 0, 1).read()
    store.to_bytes("goes")
    list(store.query_keys(kind="a"))
    store.to_file("goes", Path(FILES.name) / "written")


def looked_at(subject: Subject) -> None:
    """Read from an event manager, and one of its own."""
    manager = subject.manager
    assert manager.get_event() is not None
    manager.get_event(Ping)
    manager.get_event_hierarchy(Ping)
    manager.get_listeners(StoreSetEvent)
    manager.is_enabled(Ping)
    manager.set_trace(None)
    own = EventManager()
    own.register(Ping)
    setattr(own, "emit", print)  # noqa: B010 (mypy: a method)
    del own.emit


def mapping_read(subject: Subject) -> None:
    mapping = subject.store.mapping("raw")
    assert "goes" in mapping
    assert mapping["goes"] == mapping.get("goes") == b"1"
    assert mapping.codec
    repr(mapping)
    for view in (mapping.keys(), mapping.values(), mapping.items()):
        list(view)


def read_in_blocks(store: DictMemoryStore) -> None:
    with store.transaction() as tx, tx.transaction():
        assert "goes" in tx
        assert list(tx.glob("*s"))
        assert tx.default_codec
        assert tx.is_connected()
        tx.info()
        repr(tx)
        tx.disconnect()
        tx.connect()
        with contextlib.suppress(TransactionError):
            tx.flush()
    tx.close()
