"""Whatever many threads try again, nothing is lost and nothing is seen half."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from latchstore import RevisionMismatchError
from latchstore.engine.transactional_store import TransactionalStore
from tests.contract.stores import StoreContract
from tests.schedules import run_threads


def add_one(store: TransactionalStore) -> None:
    store.from_bytes("x", b"%d" % (int(store.to_bytes("x")) + 1))


def by_transaction(store: TransactionalStore) -> Callable[[], None]:
    def once() -> None:
        with store.transaction("add one"):
            add_one(store)

    return once


def by_attempts(store: TransactionalStore) -> Callable[[], None]:
    def once() -> None:
        for attempt in store.attempts("add one", tries=10_000):
            with attempt:
                add_one(store)

    return once


def by_decorator(store: TransactionalStore) -> Callable[[], None]:
    @store.transactional(tries=10_000)
    def once() -> None:
        add_one(store)

    return once


def by_if_revision(store: TransactionalStore) -> Callable[[], None]:
    def once() -> None:
        while True:
            value = store.get("x")
            with value as stream:
                number = int(stream.read())
            try:
                store.from_bytes("x", b"%d" % (number + 1), if_revision=value.revision)
            except RevisionMismatchError:
                continue
            return

    return once


ACCOUNTS = [f"account/{number:02}" for number in range(100)]


MONEY = 100 * 1_000


def move_money(store: TransactionalStore, chance: random.Random) -> None:
    """Move some money from one account to another, in the block of the calling thread."""
    source, target = chance.sample(ACCOUNTS, 2)
    amount = chance.randint(1, 100)
    for key, change in ((source, -amount), (target, amount)):
        balance = int(store.to_bytes(key)) + change
        store.from_bytes(key, b"%d" % balance)
        store.update_metadata(key, {"balance": balance})


def counted(store: Any) -> dict[str, int]:
    """Count the money in every way there is."""
    return {
        "multiget": sum(int(value.data.read()) for value in store.multiget(ACCOUNTS)),
        "multiget_data": sum(int(stream.read()) for stream in store.multiget_data(ACCOUNTS)),
        "multiget_metadata": sum(found["balance"] for found in store.multiget_metadata(ACCOUNTS)),
        "query": sum(metadata["balance"] for _, metadata in store.query()),
        "query, indexed": sum(
            metadata["balance"] for _, metadata in store.query(["balance"], kind="account")
        ),
    }


class NothingIsLostContract(StoreContract):
    """Threads that read and write the same keys; a subclass may have more of them."""

    threads = 4
    times = 50
    moves = 50
    counts = 20

    @pytest.fixture
    def switching_often(self) -> Iterator[None]:
        """Threads take turns every few instructions, and so meet at every place where they can."""
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        yield
        sys.setswitchinterval(interval)

    @pytest.mark.usefixtures("switching_often")
    @pytest.mark.parametrize("means", [by_transaction, by_attempts, by_decorator, by_if_revision])
    def test_increments_of_many_threads(
        self, store: TransactionalStore, means: Callable[..., Callable[[], None]]
    ) -> None:
        store.from_bytes("x", b"0")
        once = means(store)

        def body() -> None:
            for _ in range(self.times):
                once()

        run_threads([body] * self.threads)
        assert store.to_bytes("x") == b"%d" % (self.threads * self.times)
        assert store.info()["revision"] == self.threads * self.times + 1, "each is one commit"
        self.check(store)

    @pytest.fixture
    def bank(self, store: TransactionalStore) -> TransactionalStore:
        store.multiset(
            ACCOUNTS, [(b"1000", {"kind": "account", "balance": 1_000, "number": n}) for n in range(100)]
        )
        return store

    @pytest.mark.usefixtures("switching_often")
    def test_a_banks_money_is_all_there_whenever_it_is_counted(self, bank: TransactionalStore) -> None:
        right = dict.fromkeys(counted(bank), MONEY)

        def exclusive(seed: int) -> Callable[[], None]:
            chance = random.Random(seed)

            def body() -> None:
                for _ in range(self.moves):
                    with bank.transaction("move"):
                        move_money(bank, chance)

            return body

        def optimistic(seed: int) -> Callable[[], None]:
            chance = random.Random(seed)

            def body() -> None:
                for _ in range(self.moves):
                    for attempt in bank.attempts("move", tries=10_000):
                        with attempt:
                            move_money(bank, chance)

            return body

        def count_in_the_store() -> None:
            for _ in range(self.counts):
                assert counted(bank) == right

        def count_in_snapshots() -> None:
            for _ in range(self.counts):
                with bank.snapshot() as view:
                    first = counted(view)
                    each = [view.to_bytes(key) for key in ACCOUNTS]
                    assert first == counted(view) == right
                    assert sum(map(int, each)) == MONEY

        def count_in_transactions() -> None:
            for number in range(self.counts):
                with bank.transaction(optimistic=bool(number % 2)) as tx:
                    assert counted(tx) == right
                    assert sum(int(bank.to_bytes(key)) for key in ACCOUNTS) == MONEY
                    tx.rollback()

        run_threads(
            [
                exclusive(1),
                exclusive(2),
                optimistic(3),
                optimistic(4),
                count_in_the_store,
                count_in_snapshots,
                count_in_transactions,
            ]
        )
        assert counted(bank) == right
        assert bank.info()["revision"] == 4 * self.moves + 1
        self.check(bank)
