"""Writes with `if_revision`: done if the key is as it was when it was read, else refused, whole.

For each way of writing, on the store and inside transactions of both kinds.
"""

# What raises is often the end of a block, so `pytest.raises` has to stand around more than one statement.
# ruff: noqa: PT012

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from latchstore import (
    AbstractStore,
    DictMemoryStore,
    EventManager,
    RevisionMismatchError,
    StoreError,
    StoreModificationEvent,
    TransactionConflictError,
)
from latchstore.engine.inspection import check
from tests.schedules import in_another_thread, run_threads

#: What the stores of these tests have at "a", with revision 2; "b" has revision 3, and "none" is missing.
DATA, METADATA = b"before", {"n": 1, "list": [1]}


@pytest.fixture
def store() -> Iterator[DictMemoryStore]:
    with DictMemoryStore(EventManager(), indexes=["n"]) as store:
        store.from_bytes("other", b"")
        store.set("a", (DATA, METADATA))
        store.from_bytes("b", b"")
        yield store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.write_bytes(b"new")
    return path


Write = Callable[[AbstractStore, str, int, Path], None]

WRITES: dict[str, Write] = {
    "set": lambda store, key, revision, path: store.set(key, (b"new", {"n": 2}), if_revision=revision),
    "set_data": lambda store, key, revision, path: store.set_data(key, b"new", if_revision=revision),
    "set_metadata": lambda store, key, revision, path: store.set_metadata(
        key, {"n": 2}, if_revision=revision
    ),
    "update_metadata": lambda store, key, revision, path: store.update_metadata(
        key, {"n": 2}, if_revision=revision
    ),
    "delete": lambda store, key, revision, path: store.delete(key, if_revision=revision),
    "from_bytes": lambda store, key, revision, path: store.from_bytes(key, b"new", if_revision=revision),
    "from_file": lambda store, key, revision, path: store.from_file(key, path, if_revision=revision),
}

#: What is at "a" after each, and at "none" after each with 0; None: nothing.
AFTER: dict[str, tuple[bytes, dict[str, Any]] | None] = {
    "set": (b"new", {"n": 2}),
    "set_data": (b"new", METADATA),
    "set_metadata": (DATA, {"n": 2}),
    "update_metadata": (DATA, METADATA | {"n": 2}),
    "delete": None,
    "from_bytes": (b"new", METADATA),
    "from_file": (b"new", METADATA),
}
CREATED: dict[str, tuple[bytes, dict[str, Any]]] = {
    "set": (b"new", {"n": 2}),
    "set_data": (b"new", {}),
    "set_metadata": (b"", {"n": 2}),
    "from_bytes": (b"new", {}),
    "from_file": (b"new", {}),
}

Block = Callable[[DictMemoryStore], AbstractContextManager[Any]]
BLOCKS: dict[str, Block] = {
    "alone": lambda store: nullcontext(store),
    "exclusive": lambda store: store.transaction(),
    "optimistic": lambda store: store.transaction(optimistic=True),
}

every_write = pytest.mark.parametrize("write", WRITES)
every_block = pytest.mark.parametrize("block", BLOCKS)


def held(store: AbstractStore, key: str) -> tuple[bytes, dict[str, Any]] | None:
    return (store.to_bytes(key), store.get_metadata(key)) if store.exists(key) else None


def everything(store: AbstractStore) -> dict[str, Any]:
    return {
        key: (store.to_bytes(key), metadata, store.get(key).revision, store.get(key).modified)
        for key, metadata in store.query()
    }


@every_block
@every_write
def test_the_right_revision(store: DictMemoryStore, path: Path, write: str, block: str) -> None:
    with BLOCKS[block](store) as target:
        WRITES[write](target, "a", 2, path)
        assert held(target, "a") == AFTER[write]
    assert held(store, "a") == AFTER[write]
    assert store.info()["revision"] == 4
    if AFTER[write] is not None:
        assert store.get("a").revision == 4
    check(store)


@every_block
@every_write
@pytest.mark.parametrize(
    ("key", "expected", "actual", "message"),
    [
        ("a", 1, 2, "key 'a': if_revision expects revision 1, the store has revision 2"),
        ("a", 3, 2, "key 'a': if_revision expects revision 3, the store has revision 2"),
        ("a", 0, 2, "key 'a': if_revision expects no such key, the store has revision 2"),
        ("none", 2, 0, "key 'none': if_revision expects revision 2, the store has no such key"),
    ],
)
def test_another_revision(
    store: DictMemoryStore,
    path: Path,
    write: str,
    block: str,
    key: str,
    expected: int,
    actual: int,
    message: str,
) -> None:
    heard: list[Any] = []
    store.event_manager.connect(StoreModificationEvent, heard.append)
    before = everything(store)
    with BLOCKS[block](store) as target:
        with pytest.raises(RevisionMismatchError) as caught:
            WRITES[write](target, key, expected, path)
        assert everything(target) == before
    error = caught.value
    assert (error.key, error.expected, error.actual) == (key, expected, actual)
    assert str(error) == message
    assert isinstance(error, StoreError)
    assert everything(store) == before
    assert store.info()["revision"] == 3
    store.flush()
    assert heard == []
    in_another_thread(lambda: store.from_bytes("free", b""))
    check(store)


@every_block
@pytest.mark.parametrize("write", CREATED)
def test_zero_is_for_a_key_that_must_not_exist(
    store: DictMemoryStore, path: Path, write: str, block: str
) -> None:
    with BLOCKS[block](store) as target:
        WRITES[write](target, "none", 0, path)
        with pytest.raises(RevisionMismatchError):
            WRITES[write](target, "none", 0, path)
    assert held(store, "none") == CREATED[write]
    assert store.get("none").revision == 4


@every_block
@pytest.mark.parametrize("write", ["update_metadata", "delete"])
def test_zero_where_a_key_is_needed(store: DictMemoryStore, path: Path, write: str, block: str) -> None:
    with BLOCKS[block](store) as target, pytest.raises(KeyError, match="none"):
        WRITES[write](target, "none", 0, path)
    assert store.info()["revision"] == 3


@every_block
def test_zero_after_a_delete(store: DictMemoryStore, block: str) -> None:
    with BLOCKS[block](store) as target:
        target.delete("a")
        with pytest.raises(RevisionMismatchError):
            target.from_bytes("a", b"", if_revision=2)
        target.from_bytes("a", b"again", if_revision=0)
    assert held(store, "a") == (b"again", {})


@every_block
@every_write
@pytest.mark.parametrize(
    ("revision", "kind"),
    [("2", TypeError), (2.0, TypeError), (True, TypeError), (b"2", TypeError), (-1, ValueError)],
    ids=repr,
)
def test_what_is_no_revision(
    store: DictMemoryStore, path: Path, write: str, block: str, revision: Any, kind: type[Exception]
) -> None:
    before = everything(store)
    with BLOCKS[block](store) as target, pytest.raises(kind, match="if_revision must"):
        WRITES[write](target, "a", revision, path)
    assert everything(store) == before


@pytest.mark.parametrize("optimistic", [False, True], ids=["exclusive", "optimistic"])
def test_the_revision_of_an_own_write_goes_inside_the_block(store: DictMemoryStore, optimistic: bool) -> None:
    with store.transaction(optimistic=optimistic) as tx:
        tx.set_data("a", b"first")
        tx.set_data("a", b"second", if_revision=tx.get("a").revision)
        with pytest.raises(RevisionMismatchError):
            tx.set_data("a", b"third", if_revision=2)
        if optimistic:
            # Then the commit gets another revision than the block has reckoned with.
            in_another_thread(lambda: store.from_bytes("b", b"theirs"))
    assert store.to_bytes("a") == b"second"


@pytest.mark.parametrize("optimistic", [False, True], ids=["exclusive", "optimistic"])
def test_a_mismatch_that_leaves_the_block_rolls_it_back(store: DictMemoryStore, optimistic: bool) -> None:
    before = everything(store)
    with pytest.raises(RevisionMismatchError), store.transaction(optimistic=optimistic):
        store.from_bytes("new", b"")
        store.delete("a", if_revision=1)
    assert everything(store) == before


@every_write
def test_a_condition_that_no_longer_holds_at_commit_is_a_conflict(
    store: DictMemoryStore, path: Path, write: str
) -> None:
    with pytest.raises(TransactionConflictError) as caught, store.transaction(optimistic=True) as tx:
        WRITES[write](tx, "a", 2, path)
        in_another_thread(lambda: store.from_bytes("a", b"theirs"))
    assert caught.value.keys == ("a",)
    assert held(store, "a") == (b"theirs", METADATA)


def test_a_condition_on_the_snapshot_and_not_on_what_others_have_written_since(
    store: DictMemoryStore,
) -> None:
    with store.transaction(optimistic=True) as tx:
        in_another_thread(lambda: store.from_bytes("a", b"theirs"))
        with pytest.raises(RevisionMismatchError) as caught:
            tx.set_data("a", b"mine", if_revision=4)
        assert caught.value.actual == 2
        tx.rollback()


def test_the_error_survives_pickle() -> None:
    error = pickle.loads(pickle.dumps(RevisionMismatchError("a", 1, 2)))
    assert (error.key, error.expected, error.actual) == ("a", 1, 2)


def test_of_eight_threads_that_create_a_key_one_does(store: DictMemoryStore) -> None:
    outcomes: list[str] = []
    refused: list[bool] = []

    def body(name: str) -> None:
        for number in range(100):
            try:
                store.set(f"leader/{number}", (name.encode(), {}), if_revision=0)
            except RevisionMismatchError as error:
                refused.append(store.get(f"leader/{number}").revision == error.actual)
            else:
                outcomes.append(f"{number}: {name}")

    run_threads([lambda name=name: body(name) for name in "ABCDEFGH"])  # type: ignore[misc]
    assert sorted(outcomes) == sorted(f"{n}: {store.to_bytes(f'leader/{n}').decode()}" for n in range(100))
    assert refused == [True] * 700, "each is told the revision of the one that was first"
