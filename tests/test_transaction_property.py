"""Any history of blocks, blocks in them, their failures and snapshots agrees with a model that copies dicts.

The machine's thread opens blocks of both kinds, writes in them, and ends them in every way there is; another
thread writes whenever it may. The model copies its dict where the store has savepoints, batches and layers,
and knows which optimistic blocks must be in conflict. After each step the table's own check is run, what
others see is what was committed last, and each open snapshot is read whole and is what it was.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from latchstore import (
    AbstractReadOnlyStore,
    DictMemoryStore,
    EventManager,
    Snapshot,
    Transaction,
    TransactionClosedError,
    TransactionConflictError,
)
from latchstore.engine.inspection import check, table_of
from tests.schedules import Actor
from tests.test_property import PROFILE

KEYS = ("a", "b", "ab", "a/b")
PATTERNS = ("a*", "*b", "?", "[a]/*")

keys = st.sampled_from(KEYS)
datas = st.binary(max_size=3)
metadatas = st.dictionaries(st.sampled_from(("kind", "n")), st.sampled_from((1, "x", None, [1])), max_size=2)


@dataclass(frozen=True)
class Held:
    """What the model has at a key. Each write makes a new one, so that `is` tells of a change."""

    data: bytes
    metadata: dict[str, Any]


Model = dict[str, Held]


def plain(model: Model) -> dict[str, tuple[bytes, dict[str, Any]]]:
    return {key: (held.data, held.metadata) for key, held in model.items()}


@dataclass(frozen=True)
class Write:
    """One write, on the store and on the model."""

    method: str
    key: str
    data: bytes = b""
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def needs_key(self) -> bool:
        return self.method in ("update_metadata", "delete")

    @property
    def whole(self) -> bool:
        return self.method in ("set", "delete")

    def do(self, store: Any) -> None:
        match self.method:
            case "set":
                store.set(self.key, (self.data, self.metadata))
            case "set_data":
                store.set_data(self.key, self.data)
            case "delete":
                store.delete(self.key)
            case _:
                getattr(store, self.method)(self.key, self.metadata)

    def to(self, model: Model) -> None:
        """Do it to the model; KeyError as the store."""
        old = model[self.key] if self.needs_key else model.get(self.key, Held(b"", {}))
        match self.method:
            case "set":
                model[self.key] = Held(self.data, self.metadata)
            case "set_data":
                model[self.key] = Held(self.data, old.metadata)
            case "set_metadata":
                model[self.key] = Held(old.data, self.metadata)
            case "update_metadata":
                model[self.key] = Held(old.data, old.metadata | self.metadata)
            case "delete":
                del model[self.key]


writes = st.builds(
    Write,
    st.sampled_from(("set", "set_data", "set_metadata", "update_metadata", "delete")),
    keys,
    datas,
    metadatas,
)


@dataclass
class Outermost:
    """The model of an outermost block: what it began with and what it has done."""

    optimistic: bool
    base: Model
    seen: Model
    edits: list[Write] = field(default_factory=list)
    #: Keys written by the block, and whether nothing of what was there before is left.
    own: dict[str, bool] = field(default_factory=dict)
    #: Keys that it has read: for certain, and at the most. They differ for a key of which a part was
    #: written: the store goes on counting it, though the rest may be written, too, or all taken back.
    read: set[str] = field(default_factory=set)
    may_have_read: set[str] = field(default_factory=set)
    ever_partial: set[str] = field(default_factory=set)
    scanned: bool = False

    def savepoint(self) -> tuple[Model, list[Write], dict[str, bool]]:
        return dict(self.seen), list(self.edits), dict(self.own)

    def rollback_to(self, savepoint: tuple[Model, list[Write], dict[str, bool]]) -> None:
        self.seen, self.edits, self.own = savepoint

    def note_read(self, key: str) -> None:
        if not self.own.get(key, False):
            self.read.add(key)
        if key not in self.own or key in self.ever_partial:
            self.may_have_read.add(key)

    def write(self, write: Write) -> None:
        """Do it to what the block sees; KeyError as the store."""
        key = write.key
        if key not in self.own:
            if write.needs_key:
                self.read.add(key)
                self.may_have_read.add(key)
            if not write.whole:
                self.ever_partial.add(key)
        write.to(self.seen)
        self.edits.append(write)
        self.own[key] = write.whole or self.own.get(key, False)

    def changed(self, committed: Model) -> set[str]:
        """Return the keys that others have changed since."""
        return {key for key in KEYS if self.base.get(key) is not committed.get(key)}


@dataclass
class Block:
    """One block of the store, and what the model needs to take it back."""

    transaction: Transaction
    savepoint: Any
    settled: bool = False


class BrokenBlockError(Exception):
    """Leaves a block on purpose."""


class BlocksAndSnapshots(RuleBasedStateMachine):
    """A store, and a model of it that copies dicts."""

    snapshots = Bundle("snapshots")

    def __init__(self) -> None:
        super().__init__()
        self.store = DictMemoryStore(EventManager(), indexes=["kind"], lock_timeout=5)
        self.other = Actor(self.store, "other")
        self.committed: Model = {}
        self.revision = 0
        self.blocks: list[Block] = []
        self.outermost: Outermost | None = None
        self.copies: dict[int, tuple[Snapshot, dict[str, Any], int]] = {}
        self.numbers = itertools.count()

    def teardown(self) -> None:
        while self.blocks:
            self.leave(True)
        for view, _, _ in self.copies.values():
            view.close()
        self.copies.clear()
        self.nothing_is_left()
        self.other.__exit__(None, None, None)
        self.store.close()

    def nothing_is_left(self) -> None:
        facts = self.store.info()
        assert (facts["snapshots"], facts["pinned_entries"], facts["pinned_bytes"]) == (0, 0, 0)
        assert table_of(self.store).detour is None
        self.other.do(lambda: self.store.transaction(timeout=0).__enter__().rollback())

    @property
    def innermost(self) -> Block | None:
        """The block that calls go to: the last one that was not ended by hand."""
        return next((block for block in reversed(self.blocks) if not block.settled), None)

    # -- writes and reads -----------------------------------------------------------------------------

    @rule(write=writes, directly=st.booleans())
    def write(self, write: Write, directly: bool) -> None:
        """Write by way of the store, or of the transaction itself."""
        block = self.innermost
        target: Any = block.transaction if block is not None and directly else self.store
        try:
            if self.outermost is None:
                write.to(self.committed)
            else:
                self.outermost.write(write)
        except KeyError:
            with pytest.raises(KeyError, match=f"^{write.key!r}$"):
                write.do(target)
        else:
            write.do(target)
            self.revision += self.outermost is None

    @rule(first=writes, second=writes)
    def write_two_that_may_fail(self, first: Write, second: Write) -> None:
        """Do two updates in one call, which does both or none."""
        updates = [write.key for write in (first, second)], [write.metadata for write in (first, second)]
        both = [Write("update_metadata", key, b"", metadata) for key, metadata in zip(*updates, strict=True)]
        try:
            self.store.multiupdate_metadata(*updates)
            failed = False
        except KeyError:
            failed = True
        if self.outermost is None:
            wanted = dict(self.committed)
        else:
            savepoint = self.outermost.savepoint()
        try:
            for write in both:
                if self.outermost is None:
                    write.to(wanted)
                else:
                    self.outermost.write(write)
        except KeyError:
            assert failed
            if self.outermost is not None:
                self.outermost.rollback_to(savepoint)
        else:
            assert not failed
            if self.outermost is None:
                self.committed = wanted
                self.revision += 1

    @precondition(lambda self: self.outermost is None or self.outermost.optimistic)
    @rule(write=writes)
    def write_by_another_thread(self, write: Write) -> None:
        try:
            write.to(self.committed)
        except KeyError:
            return
        self.other.do(lambda: write.do(self.store))
        self.revision += 1

    @precondition(lambda self: self.outermost is not None)
    @rule(key=keys)
    def read_a_key(self, key: str) -> None:
        assert self.outermost is not None
        self.outermost.note_read(key)
        held = self.outermost.seen.get(key)
        assert (key in self.store) == (held is not None)
        if held is not None:
            assert self.store.to_bytes(key) == held.data
            assert self.store.get_metadata(key) == held.metadata

    @precondition(lambda self: self.outermost is not None)
    @rule()
    def read_everything(self) -> None:
        assert self.outermost is not None
        assert self.innermost is not None
        self.outermost.scanned = True
        agree(self.store, plain(self.outermost.seen))
        agree(self.innermost.transaction, plain(self.outermost.seen))

    # -- blocks -----------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.blocks) < 4)
    @rule(optimistic=st.booleans())
    def enter(self, optimistic: bool) -> None:
        outer = self.innermost
        if outer is None:
            self.outermost = Outermost(optimistic, dict(self.committed), dict(self.committed))
        assert self.outermost is not None
        transaction = self.store.transaction(f"depth {len(self.blocks)}", optimistic=optimistic)
        transaction.__enter__()
        assert transaction.optimistic is self.outermost.optimistic
        self.blocks.append(Block(transaction, None if outer is None else self.outermost.savepoint()))

    @precondition(lambda self: self.blocks)
    @rule(failing=st.booleans())
    def leave(self, failing: bool) -> None:
        """Leave the last block, with an exception or without."""
        block = self.blocks.pop()
        error = BrokenBlockError() if failing else None
        kind = BrokenBlockError if failing else None
        if block.settled:
            block.transaction.__exit__(kind, error, None)
        else:
            self.end(block, lambda: block.transaction.__exit__(kind, error, None), not failing)

    @precondition(lambda self: self.blocks)
    @rule()
    def doom_and_leave(self) -> None:
        block = self.blocks[-1]
        if not block.settled:
            block.transaction.doom()
            self.blocks.pop()
            self.end(block, lambda: block.transaction.__exit__(None, None, None), False)

    @precondition(lambda self: self.innermost is not None)
    @rule(committing=st.booleans())
    def end_by_hand(self, committing: bool) -> None:
        block = self.innermost
        assert block is not None
        block.settled = True
        transaction = block.transaction
        self.end(block, transaction.commit if committing else transaction.rollback, committing)

    @precondition(lambda self: self.innermost is not None)
    @rule(committing=st.booleans(), position=st.integers(0, 3))
    def end_by_hand_out_of_turn(self, committing: bool, position: int) -> None:
        """All but the innermost open block refuse, and nothing changes."""
        block = self.blocks[position % len(self.blocks)]
        if block is self.innermost:
            return
        with contextlib.suppress(TransactionClosedError):
            if committing:
                block.transaction.commit()
            else:
                block.transaction.rollback()
            raise AssertionError(f"{block.transaction!r} was ended before a block inside it")

    def end(self, block: Block, end: Callable[[], None], committing: bool) -> None:
        """End a block of the store and do the same to the model."""
        model = self.outermost
        assert model is not None
        if block.savepoint is not None:
            end()
            if not committing:
                model.rollback_to(block.savepoint)
            assert block.transaction.revision is None
            return
        self.outermost = None
        changed = model.changed(self.committed) if model.optimistic else set()
        must_conflict = {key for key in changed if model.scanned or key in model.read}
        may_conflict = {key for key in changed if model.scanned or key in model.may_have_read}
        conflict: set[str] | None = None
        try:
            end()
        except TransactionConflictError as error:
            conflict = set(error.keys)
        if conflict is not None:
            assert committing
            assert conflict
            assert must_conflict <= conflict <= may_conflict
            return
        if not committing:
            assert block.transaction.revision is None
            return
        assert not must_conflict
        before = dict(self.committed)
        for write in model.edits:
            write.to(self.committed)
        if not model.optimistic:
            assert self.committed.keys() == model.seen.keys()
            assert plain(self.committed) == plain(model.seen)
        self.revision += any(key in before or key in self.committed for key in model.own)
        assert block.transaction.revision == self.revision

    # -- snapshots -----------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.copies) < 6)
    @rule(target=snapshots)
    def open_snapshot(self) -> int:
        number = next(self.numbers)
        self.copies[number] = self.store.snapshot(), plain(self.committed), self.revision
        return number

    @rule(number=consumes(snapshots), dropping=st.booleans())
    def close_snapshot(self, number: int, dropping: bool) -> None:
        view, _, _ = self.copies.pop(number)
        if not dropping:
            view.close()
            assert not view.is_connected()

    # -- what holds after each step -----------------------------------------------------------------------

    @invariant()
    def the_table_is_sound(self) -> None:
        check(self.store)
        facts = self.store.info()
        optimistic = self.outermost is not None and self.outermost.optimistic
        assert facts["snapshots"] == len(self.copies) + optimistic
        assert (facts["revision"], facts["keys"]) == (self.revision, len(self.committed))
        if not facts["snapshots"]:
            assert facts["pinned_entries"] == 0

    @invariant()
    def others_see_the_last_commit(self) -> None:
        self.other.do(lambda: agree(self.store, plain(self.committed)))

    @invariant()
    def an_exclusive_block_sees_its_own_writes(self) -> None:
        # An optimistic one reads in rules of their own: here it would read everything always.
        if self.outermost is None:
            agree(self.store, plain(self.committed))
        elif not self.outermost.optimistic:
            agree(self.store, plain(self.outermost.seen))

    @invariant()
    def each_snapshot_is_what_it_was(self) -> None:
        for view, copy, revision in self.copies.values():
            agree(view, copy)
            assert view.revision == revision


def agree(store: AbstractReadOnlyStore, copy: dict[str, tuple[bytes, dict[str, Any]]]) -> None:
    """Read a whole store in every way, and compare."""
    names = sorted(copy)
    assert sorted(store.query_keys()) == sorted(store.glob("*")) == names
    assert len(store) == len(copy)
    assert dict(store.query()) == {key: metadata for key, (_, metadata) in copy.items()}
    for wanted in (1, "x", [1]):
        found = sorted(store.query_keys(kind=wanted))
        assert found == [key for key in names if copy[key][1].get("kind", ...) == wanted]
    for pattern in PATTERNS:
        assert sorted(store.glob(pattern)) == [key for key in names if MATCHES[pattern](key)]
    assert [(value.data.read(), value.metadata) for value in store.multiget(names)] == [
        copy[key] for key in names
    ]
    for key in KEYS:
        assert store.exists(key) == (key in copy)
        if key in copy:
            data, metadata = store.get(key)
            assert (data.read(), metadata) == copy[key]
            assert store.to_bytes(key) == copy[key][0]


MATCHES: dict[str, Callable[[str], bool]] = {
    "a*": lambda key: key.startswith("a"),
    "*b": lambda key: key.endswith("b"),
    "?": lambda key: len(key) == 1,
    "[a]/*": lambda key: key.startswith("a/"),
}

BlocksAndSnapshots.TestCase.settings = settings(
    PROFILE, max_examples=settings().max_examples // 3, stateful_step_count=40
)
TestBlocksAndSnapshots = BlocksAndSnapshots.TestCase
