"""Any history of calls leaves the store as it leaves a plain dict.

The test drives a store and a dict through random calls, transactions within transactions and
failing blocks included, and compares all that can be read after each call.
"""

from __future__ import annotations

import fnmatch
import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from latchstore import AbstractReadOnlyStore, DictMemoryStore, EventManager
from latchstore.engine.inspection import check, table_of

PROFILE = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

KEYS = ("a", "b", "ab", "a/b", "A", "ä", "")
NAMES = ("kind", "user", "n")
PATTERNS = ("*", "a*", "*b", "*/*", "?", "[aA]", "[!a]*", "ab", "")

keys = st.sampled_from(KEYS)
datas = st.binary(max_size=8)
plain_values = st.sampled_from((1, True, 0, "x", "y", None, 1.5, [1], {"deep": [2]}, (1, 2)))
metadatas = st.dictionaries(st.sampled_from(NAMES), plain_values, max_size=3)

#: What the model holds: key to data and metadata.
Model = dict[str, tuple[bytes, dict[str, Any]]]


class BrokenBlockError(Exception):
    """Leaves a block on purpose."""


class StoreAgainstDict(RuleBasedStateMachine):
    """A store, and beside it a dict that does the same."""

    def __init__(self) -> None:
        super().__init__()
        self.store = DictMemoryStore(EventManager())
        self.model: Model = {}
        self.indexes: list[str] = []
        # One item per open block: the block, and what the model was when it was entered.
        self.blocks: list[tuple[AbstractContextManager[Any], Model]] = []
        # Snapshots that are open, and what they were taken of.
        self.snapshots: list[tuple[AbstractReadOnlyStore, Model]] = []

    def teardown(self) -> None:
        for snapshot, _ in self.snapshots:
            snapshot.close()
        while self.blocks:
            self.leave_block()
        self.store.close()

    @initialize(names=st.sets(st.sampled_from(NAMES)))
    def begin_with_indexes(self, names: set[str]) -> None:
        for name in sorted(names):
            self.add_index(name)

    def attempt(self, action: Callable[[], None], expected: Callable[[Model], None]) -> None:
        """Do the same to both; either both raise KeyError, and nothing changes, or none does."""
        wanted = dict(self.model)
        missing: tuple[Any, ...] = ()
        try:
            expected(wanted)
        except KeyError as error:
            missing = error.args
        if missing:
            with pytest.raises(KeyError) as raised:
                action()
            assert raised.value.args == missing
        else:
            action()
            self.model = wanted

    # -- one key ----------------------------------------------------------------------------------

    @rule(key=keys, data=datas, metadata=metadatas)
    def set_value(self, key: str, data: bytes, metadata: dict[str, Any]) -> None:
        self.store.set(key, (io.BytesIO(data), metadata))
        self.model[key] = (data, metadata)

    @rule(key=keys, data=datas)
    def set_data(self, key: str, data: bytes) -> None:
        self.store.set_data(key, io.BytesIO(data))
        self.model[key] = (data, self.model.get(key, (b"", {}))[1])

    @rule(key=keys, data=datas)
    def from_bytes(self, key: str, data: bytes) -> None:
        self.store.from_bytes(key, bytearray(data))
        self.model[key] = (data, self.model.get(key, (b"", {}))[1])

    @rule(key=keys, metadata=metadatas)
    def set_metadata(self, key: str, metadata: dict[str, Any]) -> None:
        self.store.set_metadata(key, metadata)
        self.model[key] = (self.model.get(key, (b"", {}))[0], metadata)

    @rule(key=keys, metadata=metadatas)
    def update_metadata(self, key: str, metadata: dict[str, Any]) -> None:
        def expected(model: Model) -> None:
            data, old = model[key]
            model[key] = (data, {**old, **metadata})

        self.attempt(lambda: self.store.update_metadata(key, metadata), expected)

    @rule(key=keys)
    def delete(self, key: str) -> None:
        def expected(model: Model) -> None:
            del model[key]

        self.attempt(lambda: self.store.delete(key), expected)

    @rule(source=keys, to=keys)
    def copy(self, source: str, to: str) -> None:
        def expected(model: Model) -> None:
            model[to] = model[source]

        self.attempt(lambda: self.store.set(to, self.store.get(source)), expected)

    # -- many keys --------------------------------------------------------------------------------

    @rule(items=st.lists(st.tuples(keys, datas, metadatas), max_size=5), extra=keys)
    def multiset(self, items: list[tuple[str, bytes, dict[str, Any]]], extra: str) -> None:
        # One key more than there are values: the shorter one decides.
        self.store.multiset(
            iter([key for key, _, _ in items] + [extra]),
            ((io.BytesIO(data), metadata) for _, data, metadata in items),
        )
        for key, data, metadata in items:
            self.model[key] = (data, metadata)

    @rule(items=st.lists(st.tuples(keys, datas), max_size=5))
    def multiset_data(self, items: list[tuple[str, bytes]]) -> None:
        self.store.multiset_data((key for key, _ in items), [data for _, data in items])
        for key, data in items:
            self.model[key] = (data, self.model.get(key, (b"", {}))[1])

    @rule(items=st.lists(st.tuples(keys, metadatas), max_size=5))
    def multiset_metadata(self, items: list[tuple[str, dict[str, Any]]]) -> None:
        self.store.multiset_metadata([key for key, _ in items], (metadata for _, metadata in items))
        for key, metadata in items:
            self.model[key] = (self.model.get(key, (b"", {}))[0], metadata)

    @rule(items=st.lists(st.tuples(keys, metadatas), max_size=4))
    def multiupdate_metadata(self, items: list[tuple[str, dict[str, Any]]]) -> None:
        def expected(model: Model) -> None:
            for key, metadata in items:
                data, old = model[key]
                model[key] = (data, {**old, **metadata})

        self.attempt(
            lambda: self.store.multiupdate_metadata([key for key, _ in items], [new for _, new in items]),
            expected,
        )

    @rule(items=st.lists(st.tuples(keys, datas), min_size=1, max_size=4))
    def multiset_with_a_bad_item(self, items: list[tuple[str, bytes]]) -> None:
        names: list[Any] = [key for key, _ in items] + [7]
        with pytest.raises(TypeError, match="keys"):
            self.store.multiset_data(names, [data for _, data in items] + [b""])

    # -- blocks -----------------------------------------------------------------------------------

    @precondition(lambda self: len(self.blocks) < 4)
    @rule(optimistic=st.booleans())
    def enter_block(self, optimistic: bool) -> None:
        # Nobody else writes, so an optimistic block never meets a conflict.
        block = self.store.transaction(f"depth {len(self.blocks)}", optimistic=optimistic)
        block.__enter__()
        self.blocks.append((block, dict(self.model)))

    @precondition(lambda self: self.blocks)
    @rule()
    def leave_block(self) -> None:
        block, _ = self.blocks.pop()
        block.__exit__(None, None, None)

    @precondition(lambda self: self.blocks)
    @rule()
    def fail_block(self) -> None:
        block, before = self.blocks.pop()
        error = BrokenBlockError()
        assert not block.__exit__(BrokenBlockError, error, None)
        self.model = before

    @property
    def committed(self) -> Model:
        """What everybody else sees: an open block does not change it."""
        return self.blocks[0][1] if self.blocks else self.model

    # -- snapshots --------------------------------------------------------------------------------

    @precondition(lambda self: len(self.snapshots) < 3)
    @rule()
    def open_snapshot(self) -> None:
        self.snapshots.append((self.store.snapshot(), dict(self.committed)))

    @precondition(lambda self: self.snapshots)
    @rule(position=st.integers(0, 2))
    def close_snapshot(self, position: int) -> None:
        snapshot, _ = self.snapshots.pop(position % len(self.snapshots))
        snapshot.close()

    # -- indexes ----------------------------------------------------------------------------------

    @precondition(lambda self: not self.blocks)
    @rule(name=st.sampled_from(NAMES))
    def add_index(self, name: str) -> None:
        self.store.add_index(name)
        if name not in self.indexes:
            self.indexes.append(name)

    @precondition(lambda self: not self.blocks)
    @rule(name=st.sampled_from(NAMES))
    def remove_index(self, name: str) -> None:
        try:
            self.store.remove_index(name)
        except KeyError:
            assert name not in self.indexes
        else:
            self.indexes.remove(name)

    # -- what must be true after each call --------------------------------------------------------

    @rule(
        terms=st.dictionaries(st.sampled_from(NAMES), plain_values, max_size=2),
        select=st.none() | st.lists(st.sampled_from(NAMES), max_size=2),
    )
    def query(self, terms: dict[str, Any], select: list[str] | None) -> None:
        expected = {
            key: metadata if select is None else {name: metadata[name] for name in select if name in metadata}
            for key, (_, metadata) in self.model.items()
            if all(name in metadata and metadata[name] == wanted for name, wanted in terms.items())
        }
        answer = list(self.store.query(select, **terms))
        assert dict(answer) == expected
        assert len(answer) == len(expected)
        assert sorted(self.store.query_keys(**terms)) == sorted(expected)

    @rule(pattern=st.sampled_from(PATTERNS))
    def glob(self, pattern: str) -> None:
        assert sorted(self.store.glob(pattern)) == sorted(
            key for key in self.model if fnmatch.fnmatchcase(key, pattern)
        )

    @rule(chosen=st.lists(keys, max_size=4), select=st.lists(st.sampled_from(NAMES), max_size=2))
    def multiget(self, chosen: list[str], select: list[str]) -> None:
        missing = [key for key in chosen if key not in self.model]
        if missing:
            for method in (self.store.multiget, self.store.multiget_data, self.store.multiget_metadata):
                with pytest.raises(KeyError) as raised:
                    method(iter(chosen))
                assert raised.value.args == (missing[0],)
            return
        assert [(value.data.read(), value.metadata) for value in self.store.multiget(chosen)] == [
            self.model[key] for key in chosen
        ]
        assert [data.read() for data in self.store.multiget_data(chosen)] == [
            self.model[key][0] for key in chosen
        ]
        assert list(self.store.multiget_metadata(chosen, select)) == [
            {name: self.model[key][1][name] for name in select if name in self.model[key][1]}
            for key in chosen
        ]

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        store = self.store
        assert len(store) == len(self.model)
        assert dict(store.query()) == {key: metadata for key, (_, metadata) in self.model.items()}
        for key in KEYS:
            assert store.exists(key) == (key in self.model)
            assert (key in store) == (key in self.model)
            if key in self.model:
                data, metadata = self.model[key]
                assert store.to_bytes(key) == data
                assert store.get_metadata(key) == metadata
                value = store.get(key)
                assert (value.data.read(), value.metadata, value.size) == (data, metadata, len(data))
                assert value.created <= value.modified
        assert set(table_of(store).entries) == set(self.committed)
        assert set(store.info()["indexes"]) == set(self.indexes)

    @invariant()
    def snapshots_stay_as_they_were(self) -> None:
        for snapshot, model in self.snapshots:
            assert dict(snapshot.query()) == {key: metadata for key, (_, metadata) in model.items()}
            for key, (data, _) in model.items():
                assert snapshot.to_bytes(key) == data

    @invariant()
    def keeps_its_own_invariants(self) -> None:
        check(self.store)


TestStoreAgainstDict = StoreAgainstDict.TestCase
TestStoreAgainstDict.settings = settings(
    PROFILE, max_examples=settings().max_examples // 2, stateful_step_count=50
)
