"""Bank accounts, and transfers between them."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any, ClassVar

from latchstore.contract.store import AbstractReadOnlyStore, AbstractStore
from latchstore.stress.history import BEFORE, History, Invocation, Operation
from latchstore.stress.linearizability import check_linearizable
from latchstore.stress.models import REFUSED, UNKNOWN
from latchstore.stress.verdict import VALID, Verdict, all_of
from latchstore.stress.workloads.action import (
    POOL,
    Action,
    RolledBackError,
    TransactionalWorkload,
    chance_of,
    facts_of,
    final_reads,
    operations_of,
    revision_of,
    text_of,
)

#: The initial balance of each account.
_BALANCE = 10
#: Number of actions after which a thread changes to another bank, to limit the length of searches.
_GENERATION = 100

_TOTALS = ("total in transaction", "total by multiget", "total by snapshot")

#: The balance of each account, None if it does not exist.
Balances = list[int | None]


class _OfABank:
    """An action on the accounts of one bank."""

    __slots__ = ("_accounts", "argument", "key", "name", "revision")

    def __init__(self, name: str, key: str, accounts: int, argument: Any = None) -> None:
        self.name: str = name
        self.key: str = key
        self.argument: Any = argument
        self.revision: int | None = None
        self._accounts = [f"{key}/{number}" for number in range(accounts)]


class Opening(_OfABank):
    """Opens a bank, unless it is open."""

    __slots__ = ()

    def run(self, store: AbstractStore) -> None:
        """Set the initial balance of each account."""
        with store.transaction(self.name):
            if not store.exists(self._accounts[0]):
                for account in self._accounts:
                    _put(store, account, _BALANCE)


class Transfer(_OfABank):
    """Moves money from one account to another; fails if there is not enough."""

    __slots__ = ()

    def run(self, store: AbstractStore) -> list[int]:
        """Return the balances of the two accounts before."""
        source, target, amount = self.argument
        with store.transaction(self.name) as transaction:
            before = _balances(store, [self._accounts[source], self._accounts[target]])
            if before[0] is None or before[1] is None:
                raise RolledBackError
            # Too much is taken before the check: what is rolled back must not become visible.
            _put(store, self._accounts[source], before[0] - amount)
            left = _balances(store, [self._accounts[source]])[0]
            if left is None or left < 0:
                raise RolledBackError
            _put(store, self._accounts[target], before[1] + amount)
        self.revision: int | None = revision_of(transaction)
        return [before[0], before[1]]


class Total(_OfABank):
    """Reads all accounts at one instant."""

    __slots__ = ()

    def run(self, store: AbstractStore) -> Balances:
        """Return the balance of each account."""
        if self.name == "total in transaction":
            with store.transaction(self.name):
                return _balances(store, self._accounts)
        if self.name == "total by snapshot" and hasattr(store, "snapshot"):
            with store.snapshot() as view:
                return _balances(view, self._accounts)
        try:
            return [int(value.data.read()) for value in store.multiget(self._accounts)]
        except KeyError:
            return [None for _ in self._accounts]


def _put(store: AbstractStore, account: str, balance: int) -> None:
    store.from_bytes(account, str(balance).encode())


def _balances(store: AbstractReadOnlyStore, accounts: Sequence[str]) -> Balances:
    texts = [text_of(store, account) for account in accounts]
    return [None if text is None else int(text) for text in texts]


class BankModel:
    """A bank in one thread. Its state is the balance of each account, None before it opens."""

    def __init__(self, accounts: int) -> None:
        self.initial: Hashable = None
        self._accounts = accounts

    def step(self, state: Any, operation: Invocation, answer: Any) -> Hashable:
        """Return the balances after the operation, or `REFUSED` if its answer does not fit those before."""
        known = answer is not UNKNOWN
        if operation.name == "open bank":
            return (_BALANCE,) * self._accounts if state is None else state
        if operation.name != "transfer":
            seen = [None] * self._accounts if state is None else list(state)
            return REFUSED if known and answer != seen else state
        source, target, amount = operation.argument
        if state is None or state[source] < amount or source == target:
            return REFUSED if known or state is None else state
        if known and answer != [state[source], state[target]]:
            return REFUSED
        after = list(state)
        after[source] -= amount
        after[target] += amount
        return tuple(after)

    def is_read(self, operation: Invocation, answer: Any) -> bool:
        """Return whether all balances are unchanged."""
        return operation.name not in ("open bank", "transfer")


class Bank(TransactionalWorkload):
    """Transfers between accounts: the sum never changes, and no account is overdrawn.

    Parameters
    ----------
    accounts : int
        Number of accounts of a bank.
    """

    name = "bank"
    weight: ClassVar[float] = 0.5
    each_key_alone = True

    def __init__(self, accounts: int = 3) -> None:
        self._accounts = accounts
        self._totals: Sequence[str] = _TOTALS

    def prepare(self, store: AbstractStore) -> None:
        """Open the bank of the first threads; determine the supported totals."""
        self.attach(store, None)
        Opening("open bank", f"{self.name}/0/0", self._accounts).run(store)

    def attach(self, store: AbstractStore, handed: Any) -> None:
        """Determine the supported totals."""
        self._totals = _TOTALS if hasattr(store, "snapshot") else _TOTALS[:2]

    def actions(self, thread: int, seed: int) -> Iterator[Action]:
        """Yield random transfers and totals."""
        chance = chance_of(self.name, seed, thread)
        pool = thread // POOL
        number = 0
        while True:
            bank = f"{self.name}/{pool}/{number // _GENERATION}"
            if number % _GENERATION == 0 and (pool or number):
                yield Opening("open bank", bank, self._accounts)
            number += 1
            if chance.random() < 0.5:
                source, target = chance.sample(range(self._accounts), 2)
                argument = [source, target, chance.randrange(1, _BALANCE)]
                yield Transfer("transfer", bank, self._accounts, argument)
            else:
                yield Total(chance.choice(self._totals), bank, self._accounts)

    def finish(self, store: AbstractStore) -> Any:
        """Return the final balances."""
        banks = sorted({key.rpartition("/")[0] for key in store.glob(f"{self.name}/*")})
        return {bank: Total("total by multiget", bank, self._accounts).run(store) for bank in banks}

    def verdicts(self, history: History) -> dict[str, Verdict]:
        """Check each bank."""
        banks: dict[str | None, list[Operation]] = {}
        last = final_reads("final balances", history, facts_of(self.name, history) or {})
        for operation in [*operations_of(self.name, history), *last]:
            banks.setdefault(operation.key, []).append(operation)
        sums = all_of(map(_check_sums, banks.values()))
        if sums.answer != "valid":
            return {"sum": sums}
        return {"sum": sums, "linearizable": all_of(map(_check_bank, banks.values()))}


def _check_sums(operations: Sequence[Operation]) -> Verdict:
    """Check each total by itself."""
    for operation in operations:
        if operation.name in ("open bank", "transfer") or operation.outcome != "ok":
            continue
        balances = operation.result
        if set(balances) == {None}:
            continue  # not open yet; the other check finds that if it is wrong
        if None in balances or min(balances) < 0 or sum(balances) != _BALANCE * len(balances):
            should = f"{_BALANCE * len(balances)} in all, and on no account less than 0"
            return Verdict("invalid", f"({operation}): there must be {should}", (operation,))
    return VALID


def _check_bank(operations: Sequence[Operation]) -> Verdict:
    accounts = max(map(_accounts_in, operations))
    opened = Operation(BEFORE, "open bank", None, None, None, -1, -1)
    _, _, generation = str(operations[0].key).partition("/")
    # The first bank is open when the threads begin.
    return check_linearizable([*([opened] if generation == "0/0" else []), *operations], BankModel(accounts))


def _accounts_in(operation: Operation) -> int:
    """Return the minimum number of accounts, from an operation's data."""
    if operation.name == "transfer":
        source, target, _ = operation.argument
        return int(max(source, target)) + 1
    return len(operation.result or ())
