"""Two transactions of which the second commits in the middle of the first."""

from __future__ import annotations

from collections.abc import Callable

from latchstore import AbstractStore, DictMemoryStore, TransactionConflictError
from latchstore.engine.inspection import check, table_of
from tests.schedules import in_another_thread

Reading = Callable[[AbstractStore], object]
Writing = Callable[[AbstractStore], object]


def conflict(store: DictMemoryStore, body: Reading, meanwhile: Writing) -> tuple[str, ...]:
    """Run a block, let another thread write before it ends; return the keys of the conflict, if any."""
    revision = store.info()["revision"]
    error: TransactionConflictError | None = None
    try:
        with store.transaction("body", optimistic=True) as tx:
            body(tx)
            in_another_thread(lambda: meanwhile(store))
    except TransactionConflictError as raised:
        error = raised
    if error is None:
        assert tx.revision is not None
        assert tx.revision > revision
    else:
        assert tx.revision is None
        assert error.tries == 1
        assert str(error).startswith("transaction 'body': changed by others since it was read: ")
        assert all(repr(key) in str(error) for key in error.keys)
        assert not store.exists("mark"), "nothing of the block is committed"
    facts = store.info()
    assert (facts["snapshots"], facts["pinned_entries"]) == (0, 0)
    assert table_of(store).detour is None
    check(store)
    return () if error is None else error.keys


def delete_and_set(store: AbstractStore) -> None:
    store.delete("doc/1")
    store.from_bytes("doc/1", b"one")


CHANGES: dict[str, Writing] = {
    "set": lambda store: store.set("doc/1", (b"other", {"kind": "document"})),
    "same data": lambda store: store.from_bytes("doc/1", b"one"),
    "update_metadata": lambda store: store.update_metadata("doc/1", {"n": 3}),
    "delete": lambda store: store.delete("doc/1"),
    "delete and set": delete_and_set,
}
