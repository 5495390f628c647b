"""Workloads of calls on a few entries, checked against the store's contract.

Each workload names its methods; the arguments are drawn here. The first calls of a run use few methods, so
that failures that need a certain pair are found (Groce, Zhang, Eide, Chen and Regehr, "Swarm testing", ISSTA
2012). Every call matters, as the final entries are checked as well.

Thread safety: as in ``action.py``.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from latchstore.contract.store import AbstractStore
from latchstore.engine.transactional_store import TransactionalStore
from latchstore.stress.history import History, Operation
from latchstore.stress.linearizability import check_linearizable
from latchstore.stress.verdict import Verdict, all_of
from latchstore.stress.workloads.action import (
    POOL,
    PlainWorkload,
    RolledBackError,
    chance_of,
    facts_of,
    final_reads,
    operations_of,
    revision_of,
)
from latchstore.stress.workloads.calls import METHODS, Call, EntriesModel, calls_of, made, pair_of

#: Number of actions after which a thread uses all methods, and the number of writing methods until then.
_BEGINNING, _FEW = 20, 2

#: The fraction of reads.
_READING = 0.4

#: The initial value of the keys of the first group.
_INITIAL = "initial"

#: Number of actions after which a thread changes to other keys, to limit the length of searches.
_GENERATION = 40

#: Kinds of transactions: of any store that has them, and of stores with optimistic ones.
EXCLUSIVE = ("transaction", "transaction, rolled back", "transaction with a failing block")
OPTIMISTIC = ("optimistic transaction", "attempts", "transactional function")
_BLOCKS = (*EXCLUSIVE, *OPTIMISTIC)

#: When the function was called that a transaction has registered with `on_commit`.
_AFTER, _WITHIN = "on_commit: called after the block", "on_commit: called within the block"


class CallAction:
    """One call of a method, or several in one transaction.

    Parameters
    ----------
    name : str
        The method, or the kind of transaction.
    key : str or list of str
        The key, the keys, or the group that is searched.
    argument : object
        The argument of the method; for a transaction the list of its calls.
    registers : bool
        Whether it registers a function with its transaction, to be called after the commit.
    """

    __slots__ = ("_keys", "_registers", "argument", "key", "name", "revision")

    def __init__(self, name: str, key: Any, argument: Any, registers: bool = False) -> None:
        self.name: str = name
        self._registers = registers
        # A call on several keys is recorded under their group.
        self.key: str = key if isinstance(key, str) else group_of(key[0])
        self._keys = key
        self.argument: Any = argument if isinstance(key, str) else [list(key), argument]
        self.revision: int | None = None

    def run(self, store: Any) -> Any:
        """Return the answer; for a transaction those of its calls."""
        match self.name:
            case "attempts":
                return self._try_until_it_is_made(store)
            case "transactional function":
                return store.transactional(self.name)(self._calls)(store)
            case "optimistic transaction":
                block = store.transaction(self.name, optimistic=True)
            case "get":
                return self._get(store)
            case name if name in EXCLUSIVE:
                block = store.transaction(self.name)
            case _:
                return made(store, (self.name, self._keys, self.argument_of_call))
        called: list[str] = []
        try:
            with block as transaction:
                self._register(store, transaction, called)
                answers = self._calls(store)
        except RolledBackError:
            if called:
                return called  # as no correct answer has it
            raise
        self.revision = revision_of(transaction)
        return answers if called in ([], [_AFTER]) else [*answers, *called]

    def _register(self, store: Any, transaction: Any, called: list[str]) -> None:
        """Register a function that notes when it is called."""
        if self._registers and isinstance(store, TransactionalStore):
            transaction.on_commit(
                lambda: called.append(_AFTER if store.current_transaction() is None else _WITHIN)
            )

    @property
    def argument_of_call(self) -> Any:
        """The argument of the method, besides its key or keys."""
        return self.argument if isinstance(self._keys, str) else self.argument[1]

    def _get(self, store: AbstractStore) -> Any:
        """Return data and metadata, and record their revision."""
        try:
            value = store.get(self.key)
        except KeyError:
            return None
        self.revision = getattr(value, "revision", None)
        return pair_of(value)

    def _calls(self, store: Any) -> list[Any]:
        answers = [made(store, call) for call in self.argument]
        if self.name == "transaction, rolled back":
            raise RolledBackError
        if self.name == "transaction with a failing block":
            self._fail_inside(store)
        return answers

    def _fail_inside(self, store: Any) -> None:
        """Write to all keys in a nested block, which is rolled back."""
        try:
            with store.transaction("failing block"):
                for key in sorted({key for call in self.argument for key in _keys_of(call)}):
                    store.from_bytes(key, b"undone")
                raise RolledBackError
        except RolledBackError:
            pass

    def _try_until_it_is_made(self, store: Any) -> list[Any]:
        answers: list[Any] = []
        called: list[str] = []
        for attempt in store.attempts(self.name):
            with attempt as transaction:
                self._register(store, transaction, called)
                answers = self._calls(store)
        self.revision = revision_of(transaction)
        return answers if called in ([], [_AFTER]) else [*answers, *called]


def group_of(key: str) -> str:
    """Return the group of a key: the workload's name and the part after it."""
    return "/".join(key.split("/")[:2])


class Calls(PlainWorkload):
    """Calls on groups of a few entries; each group is linearizable.

    Attributes
    ----------
    writes, reads : sequences of str
        Methods, from `METHODS`.
    blocks : sequence of str
        Kinds of transactions.
    keys : int
        Number of keys of a group.
    """

    writes: ClassVar[Sequence[str]]
    reads: ClassVar[Sequence[str]]
    blocks: ClassVar[Sequence[str]] = ()
    keys: ClassVar[int] = 2
    #: Number of keys that the first group has initially.
    first_keys: ClassVar[int] = 2
    #: Fraction of calls that are made in transactions, if there are any.
    in_blocks: ClassVar[float] = 0.5
    #: The factor of that fraction for each thread in the beginning.
    in_blocks_of: ClassVar[Sequence[float]] = (1.0,)
    #: The fraction of reads of each thread in the beginning, where some mostly read.
    reading_of: ClassVar[Sequence[float]] = (0.8, 0.2, 0.3)
    #: Whether all threads use the same group throughout. Then most threads only read, to limit the length of
    #: searches.
    one_group: ClassVar[bool] = False
    #: Whether transactions register functions to be called after their commit.
    registers: ClassVar[bool] = False

    def prepare(self, store: AbstractStore) -> None:
        """Set the first keys."""
        for key, entry in self._first_entries().items():
            METHODS["set"].make(store, key, entry)

    def _first_entries(self) -> dict[str, list[Any]]:
        """Return the initial entries of the first group."""
        entry = [self.first_data(), self.first_metadata()]
        return {f"{self._group(0, 0)}/{number}": entry for number in range(self.first_keys)}

    def _group(self, thread: int, number: int) -> str:
        """Return the group of a thread's action."""
        return f"{self.name}/0" if self.one_group else f"{self.name}/{thread // POOL}.{number // _GENERATION}"

    def actions(self, thread: int, seed: int) -> Iterator[CallAction]:
        """Yield random calls; every written value is unique."""
        chance = chance_of(self.name, seed, thread)
        few_writes, few_reads, few_blocks = self._few(chance_of(self.name, seed, -1))
        in_blocks_of = self.in_blocks_of[thread % len(self.in_blocks_of)]
        number = 0
        while True:
            group = self._group(thread, number)
            writes, reads, blocks, reading = self.writes, self.reads, self.blocks, _READING
            if number < _BEGINNING:
                # Reads take turns, so that most schedules have each kind.
                writes, reads, blocks = (
                    few_writes,
                    [few_reads[(number + thread) % len(few_reads)]],
                    few_blocks,
                )
                reading = self.reading_of[thread % len(self.reading_of)]
            number += 1
            value = f"{thread}.{number}"
            if self.one_group and thread >= POOL:
                yield CallAction(*self.call(chance, group, value, chance.choice(reads)))
            elif blocks and chance.random() < self.in_blocks * (1 if number > _BEGINNING else in_blocks_of):
                yield CallAction(
                    chance.choice(blocks),
                    group,
                    self.calls(chance, group, value, writes, reads),
                    self.registers,
                )
            else:
                method = chance.choice(reads if chance.random() < reading else writes)
                yield CallAction(*self.call(chance, group, value, method))

    def _few(self, chance: random.Random) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
        """Return a few of the methods and kinds of transactions."""
        return (
            self.few_writes(chance),
            chance.sample(self.reads, len(self.reads)),
            chance.sample(self.blocks, min(1, len(self.blocks))),
        )

    def few_writes(self, chance: random.Random) -> Sequence[str]:
        """Return a few of the writing methods."""
        return chance.sample(self.writes, min(_FEW, len(self.writes)))

    def calls(
        self, chance: random.Random, group: str, value: str, writes: Sequence[str], reads: Sequence[str]
    ) -> list[Call]:
        """Return the calls of a transaction: by default two reads and two writes, one key each."""
        names = [chance.choice(names) for names in (reads, writes, reads, writes)]
        return [list(self.call(chance, group, f"{value}.{place}", name)) for place, name in enumerate(names)]

    def call(self, chance: random.Random, group: str, value: str, method: str) -> tuple[str, Any, Any]:
        """Return a call of a method, with random keys of the group and a random argument."""
        keys = [f"{group}/{number}" for number in range(self.keys)]
        key: Any = chance.choice(keys)
        argument: Any = None
        match method:
            case "set":
                argument = [data_of(value), self.metadata(chance, value)]
            case "set_data" | "from_bytes" | "from_file":
                argument = data_of(value)
            case "set_metadata" | "update_metadata":
                argument = self.metadata(chance, value)
            case "get_data_range":
                argument = chance.choice(([None, None], [0, 6], [1, None]))
            case "get_metadata, selected":
                argument = list(self.metadata(chance, value))
            case "glob":
                key = group
            case "query" | "query_keys":
                key, argument = group, self.terms(chance)
            case "mapping: set" | "mapping: setdefault":
                argument = value
            case "mapping: update":
                key, argument = group, {each: f"{value}.{place}" for place, each in enumerate(keys)}
            case "len" | "save" | "mapping: clear" | "mapping: popitem":
                key = group
            case name if name.startswith("multi"):
                key = chance.sample(keys, len(keys))
                argument = [self._item(chance, value, name) for _ in key] if name in _MULTISETS else None
        return method, key, argument

    def _item(self, chance: random.Random, value: str, method: str) -> Any:
        if method == "multiset":
            return [data_of(value), self.metadata(chance, value)]
        return data_of(value) if method == "multiset_data" else self.metadata(chance, value)

    def metadata(self, chance: random.Random, value: str) -> dict[str, str]:
        """Return metadata for a write: both items, or one, so that concurrent updates must keep the other."""
        return dict.fromkeys(chance.choice(("a", "b", "ab")), value)

    def first_data(self) -> str:
        """Return the data of the initial keys."""
        return data_of(_INITIAL)

    def first_metadata(self) -> dict[str, str]:
        """Return the metadata of the initial keys."""
        return {"a": _INITIAL, "b": _INITIAL}

    def terms(self, chance: random.Random) -> dict[str, str]:
        """Return the terms of a query: by default none."""
        return {}

    def finish(self, store: AbstractStore) -> Any:
        """Return the final entries of the keys."""
        return {key: METHODS["get"].make(store, key, None) for key in sorted(store.glob(f"{self.name}/*"))}

    def part_of(self, key: str) -> str:
        """Return the group of a key."""
        return group_of(key)

    def verdicts(self, history: History) -> dict[str, Verdict]:
        """Check each group."""
        groups: dict[str, list[Operation]] = {}
        for operation in operations_of(self.name, history):
            groups.setdefault(group_of(str(operation.key)), []).append(operation)
        found = facts_of(self.name, history)
        others = 0 if found is None else found.get("others", 0)
        if found is not None:
            last = {key: found.get(key) for each in groups.values() for key in _keys_in(each)}
            for operation in final_reads("get", history, last):
                groups[group_of(str(operation.key))].append(operation)
        first = self._group(0, 0), self._first_entries()
        return {
            "linearizable": all_of(
                check_calls(each, first[1] if group == first[0] else {}, others)
                for group, each in groups.items()
            )
        }


_MULTISETS = ("multiset", "multiset_data", "multiset_metadata", "multiupdate_metadata")


def data_of(value: str) -> str:
    """Return data in which each part identifies its write; two values in turn differ in length."""
    return ":".join([value] * (2 + sum(map(ord, value)) % 2))


def check_calls(
    operations: Sequence[Operation], initial: Mapping[str, list[Any]], others: int = 0
) -> Verdict:
    """Check the operations on a group against the contract; `initial` and `others` as for `EntriesModel`."""
    return check_linearizable(operations, EntriesModel(_BLOCKS, initial, others))


def _keys_in(operations: Sequence[Operation]) -> set[str]:
    """Return the keys of operations."""
    return {
        key
        for each in operations
        for call in calls_of(each.name, each.key, each.argument, _BLOCKS)
        for key in _keys_of(call)
    }


def _keys_of(call: Call) -> Sequence[str]:
    """Return the keys of a call."""
    name, key, argument = call
    if isinstance(key, list):
        return key
    if name == "mapping: update":
        return list(argument)
    return [] if key == group_of(key) else [key]


def has_optimistic_transactions(store: Any) -> bool:
    """Return whether a store has optimistic transactions, and `attempts` for them."""
    if not (callable(getattr(store, "attempts", None)) and callable(getattr(store, "transactional", None))):
        return False
    try:
        with store.transaction("trial", optimistic=True):
            return True
    except (TypeError, NotImplementedError):
        return False
