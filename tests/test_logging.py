"""What is logged, and what is not: nothing that the caller is told by an exception or an event anyway."""

from __future__ import annotations

import ast
import io
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import latchstore
from latchstore import (
    CompactedError,
    DictMemoryStore,
    EventManager,
    LockTimeoutError,
    RevisionMismatchError,
    SnapshotClosedError,
    StoreClosedError,
    StoreSetEvent,
    TransactionClosedError,
    TransactionConflictError,
    TransactionError,
    WaitTimeoutError,
    WatchClosedError,
    WrongThreadError,
)
from latchstore.programs import PROGRAMS
from tests.schedules import Actor

PACKAGE = Path(latchstore.__file__).parent

#: Seconds after which a wait has failed.
TIMEOUT = 20.0


class Failure(Exception):
    """Raised on purpose."""


class FailingStream(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        raise Failure


def fail_in_a_block(store: DictMemoryStore, **options: Any) -> None:
    with store.transaction(**options):
        store.from_bytes("k", b"")
        raise Failure


def doom(store: DictMemoryStore) -> None:
    with store.transaction() as transaction:
        transaction.doom()
    transaction.from_bytes("k", b"")


def conflict(store: DictMemoryStore) -> None:
    with store.transaction(optimistic=True), Actor(store) as other:
        store.to_bytes("k")
        other.do(lambda: store.from_bytes("k", b"other"))
        store.from_bytes("k", b"mine")


def conflict_again_and_again(store: DictMemoryStore) -> None:
    for attempt in store.attempts(tries=3):
        with attempt:
            conflict(store)


def wait_for_a_writer(store: DictMemoryStore) -> None:
    with Actor(store) as other:
        other.begin()
        store.from_bytes("k", b"")


def use_by_another_thread(store: DictMemoryStore) -> None:
    with Actor(store) as other:
        other.begin().from_bytes("k", b"")


def flush_in_a_block(store: DictMemoryStore) -> None:
    with store.transaction():
        store.flush()


def change_a_closed_store(store: DictMemoryStore) -> None:
    store.close(TIMEOUT)
    store.from_bytes("k", b"")


def read_a_closed_snapshot(store: DictMemoryStore) -> None:
    with store.snapshot() as view:
        pass
    view.to_bytes("k")


def read_a_closed_watch(store: DictMemoryStore) -> None:
    with store.watch() as changes:
        pass
    changes.get(0)


#: Calls that fail, and the error that tells of it.
FAILING: dict[str, tuple[Callable[[DictMemoryStore], object], type[Exception]]] = {
    "a missing key": (lambda store: store.to_bytes("missing"), KeyError),
    "a missing key to delete": (lambda store: store.delete("missing"), KeyError),
    "a missing key to update": (lambda store: store.update_metadata("missing", {}), KeyError),
    "a key that is no string": (lambda store: store.from_bytes(1, b""), TypeError),  # type: ignore[arg-type]
    "metadata that is none": (lambda store: store.set_metadata("k", 1), TypeError),  # type: ignore[arg-type]
    "a stream that fails": (lambda store: store.set("k", (FailingStream(), {})), Failure),
    "a file that is not there": (lambda store: store.from_file("k", "/no/such/file"), FileNotFoundError),
    "another revision": (
        lambda store: store.set_data("k", io.BytesIO(b""), if_revision=99),
        RevisionMismatchError,
    ),
    "a block that fails": (fail_in_a_block, Failure),
    "an optimistic block that fails": (lambda store: fail_in_a_block(store, optimistic=True), Failure),
    "a transaction after its end": (doom, TransactionClosedError),
    "a conflict": (conflict, TransactionConflictError),
    "conflicts again and again": (conflict_again_and_again, TransactionConflictError),
    "a lock that is not free": (wait_for_a_writer, LockTimeoutError),
    "a transaction of another thread": (use_by_another_thread, WrongThreadError),
    "a flush in a block": (flush_in_a_block, TransactionError),
    "a flush of the future": (lambda store: store.flush(revision=99), ValueError),
    "a closed store": (change_a_closed_store, StoreClosedError),
    "a closed snapshot": (read_a_closed_snapshot, SnapshotClosedError),
    "a closed watch": (read_a_closed_watch, WatchClosedError),
    "a history that is not kept": (lambda store: store.watch(since=0), CompactedError),
    "a wait for what does not come": (lambda store: store.wait_for(lambda: False, 0), WaitTimeoutError),
    "a wait for a key that does not come": (lambda store: store.wait_for_key("missing", 0), WaitTimeoutError),
    "a predicate that fails": (lambda store: store.wait_for(lambda: 1 // 0, 0), ZeroDivisionError),
    "a listener that is not connected": (
        lambda store: store.event_manager.disconnect(StoreSetEvent, print),
        KeyError,
    ),
}


@pytest.fixture
def store(caplog: pytest.LogCaptureFixture) -> Iterator[DictMemoryStore]:
    store = DictMemoryStore(EventManager(), lock_timeout=0.0)
    store.from_bytes("k", b"")
    # Everything that can be listened to has a listener.
    store.event_manager.connect(latchstore.BaseEvent, lambda event: None)
    caplog.set_level(logging.DEBUG)
    yield store
    store.close(TIMEOUT)


@pytest.mark.parametrize("failing", FAILING)
def test_nothing_is_logged_that_the_caller_is_told(
    store: DictMemoryStore, failing: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    call, error = FAILING[failing]
    with pytest.raises(error):
        call(store)
    store.flush(TIMEOUT)
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []
    assert capfd.readouterr() == ("", "")


def test_what_nobody_is_told_is_logged_by_one_logger(
    store: DictMemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    def listener(event: StoreSetEvent) -> None:
        raise Failure("in a listener")

    def callback() -> None:
        raise Failure("in a callback")

    store.event_manager.connect(StoreSetEvent, listener)
    with store.transaction() as transaction:
        transaction.on_commit(callback)
        store.from_bytes("k", b"new")
    store.flush(TIMEOUT)
    logged = [
        (record.name, record.levelno, str(record.exc_info and record.exc_info[1]))
        for record in caplog.records
    ]
    assert sorted(logged) == [
        ("latchstore", logging.ERROR, "in a callback"),
        ("latchstore", logging.ERROR, "in a listener"),
    ]


# -- what the sources say --------------------------------------------------------------------------


def prints(source: str) -> list[int]:
    """Return the lines on which a source prints, or writes to the terminal."""
    return sorted(
        node.lineno
        for node in ast.walk(ast.parse(source))
        if (isinstance(node, ast.Name) and node.id in ("print", "pprint"))
        or (isinstance(node, ast.Attribute) and node.attr in ("stdout", "stderr", "__stdout__", "__stderr__"))
    )


def loggers(source: str) -> list[str]:
    """Return what a source gets loggers by, as it is written there, and calls of the root logger."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner = node.func.value
        if isinstance(owner, ast.Name) and owner.id == "logging":
            found.append(", ".join(map(ast.unparse, node.args)) if node.func.attr == "getLogger" else "root")
    return found


LIBRARY = sorted(
    path.relative_to(PACKAGE).as_posix()
    for path in PACKAGE.rglob("*.py")
    if path.relative_to(PACKAGE).with_suffix("").parts[0] not in PROGRAMS
)


@pytest.mark.parametrize("module", LIBRARY)
def test_the_library_prints_nothing(module: str) -> None:
    assert prints((PACKAGE / module).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("module", LIBRARY)
def test_there_is_one_logger(module: str) -> None:
    assert set(loggers((PACKAGE / module).read_text(encoding="utf-8"))) <= {"'latchstore'"}


def test_prints_and_loggers_are_found() -> None:
    assert "engine/memory.py" in LIBRARY
    assert len(LIBRARY) > 15
    assert prints("x = 1\nprint(x)\nimport sys\nsys.stderr.write('')\nmap(print, x)") == [2, 4, 5]
    assert prints("printed = 1\n'print(x)'") == []
    source = "logging.getLogger('latchstore')\nlogging.getLogger(__name__)\nlogging.warning('x')"
    assert loggers(source) == ["'latchstore'", "__name__", "root"]
