"""Optimistic transactions that are tried again: how often, with which pauses, and what ends them."""

# What raises is often the end of a block, so `pytest.raises` has to stand around more than one statement.
# ruff: noqa: PT012

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import assert_type

import pytest

from latchstore import (
    DictMemoryStore,
    RevisionMismatchError,
    TransactionClosedError,
    TransactionConflictError,
)
from latchstore.engine.transactional_store import TransactionalStore
from tests.contract.stores import StoreContract
from tests.schedules import in_another_thread


class BrokenBlockError(Exception):
    """Leaves a block on purpose."""


class Clock:
    """Stands in for `time`: nothing waits, and the time goes on by what was slept."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def longest_of(low: float, high: float) -> float:
    return high


def interfere(store: TransactionalStore) -> None:
    """Read in this thread and change in another: a conflict."""
    store.to_bytes("x")
    in_another_thread(lambda: store.from_bytes("x", b"changed"))


class AttemptsContract(StoreContract):
    """`attempts` and `transactional`, of which nothing waits: the clock is the test's."""

    @pytest.fixture(autouse=True)
    def filled(self, store: TransactionalStore) -> None:
        store.from_bytes("x", b"0")

    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> Clock:
        clock = Clock()
        monkeypatch.setattr("latchstore.engine.attempts.time", clock)
        monkeypatch.setattr("latchstore.engine.attempts.clock", clock.monotonic)
        return clock

    @pytest.fixture
    def longest(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every pause is as long as it may be."""
        monkeypatch.setattr("random.uniform", longest_of)

    def test_without_a_conflict_there_is_one_attempt(self, store: TransactionalStore, clock: Clock) -> None:
        numbers = []
        for attempt in store.attempts("once"):
            with attempt as tx:
                numbers.append(attempt.number)
                assert tx.notes == "once"
                assert tx.optimistic
                tx.from_bytes("x", b"1")
        assert numbers == [1]
        assert store.to_bytes("x") == b"1"
        assert clock.slept == []

    def test_a_conflict_is_tried_again_on_a_new_snapshot(
        self, store: TransactionalStore, clock: Clock
    ) -> None:
        seen = []
        for attempt in store.attempts():
            with attempt as tx:
                seen.append(store.to_bytes("x"))
                number = b"%d" % attempt.number
                if attempt.number <= 3:
                    in_another_thread(functools.partial(store.from_bytes, "x", number))
                tx.from_bytes("y", seen[-1])
        assert seen == [b"0", b"1", b"2", b"3"]
        assert store.to_bytes("y") == b"3"
        assert len(clock.slept) == 3
        self.check(store)

    def test_a_conflict_of_commit_inside_the_block_is_tried_again(
        self, store: TransactionalStore, clock: Clock
    ) -> None:
        numbers = []
        for attempt in store.attempts():
            with attempt as tx:
                numbers.append(attempt.number)
                if attempt.number == 1:
                    interfere(store)
                tx.from_bytes("y", b"")
                tx.commit()
        assert numbers == [1, 2]
        assert store.exists("y")

    @pytest.mark.parametrize("tries", [1, 2, 5])
    def test_after_the_last_try_the_conflict_is_raised_with_the_count(
        self, store: TransactionalStore, clock: Clock, longest: None, tries: int
    ) -> None:
        numbers = []
        with pytest.raises(TransactionConflictError) as caught:
            for attempt in store.attempts("move", tries=tries):
                with attempt:
                    numbers.append(attempt.number)
                    interfere(store)
                    store.from_bytes("y", b"")
        assert numbers == list(range(1, tries + 1))
        assert len(clock.slept) == tries - 1, "it does not sleep before it gives up"
        assert (caught.value.tries, caught.value.keys) == (tries, ("x",))
        assert str(caught.value) == (
            f"gave up after {tries} tries in {sum(clock.slept):.3f} s: "
            "transaction 'move': changed by others since it was read: 'x'"
        )
        assert isinstance(caught.value.__cause__, TransactionConflictError)
        assert not store.exists("y")
        self.check(store)

    def test_there_are_100_tries_by_default(self, store: TransactionalStore, clock: Clock) -> None:
        with pytest.raises(TransactionConflictError) as caught:
            for attempt in store.attempts():
                with attempt:
                    interfere(store)
        assert caught.value.tries == 100

    def test_timeout_ends_the_tries(self, store: TransactionalStore, clock: Clock, longest: None) -> None:
        with pytest.raises(TransactionConflictError) as caught:
            for attempt in store.attempts(timeout=0.01):
                with attempt:
                    interfere(store)
        assert clock.slept == [0.001, 0.002, 0.004], "another 0.008 s would have been too long"
        assert caught.value.tries == 4

    def test_timeout_counts_the_time_of_the_bodies(self, store: TransactionalStore, clock: Clock) -> None:
        with pytest.raises(TransactionConflictError, match=r"gave up after 2 tries in 6\.\d{3} s"):
            for attempt in store.attempts(timeout=5):
                with attempt:
                    interfere(store)
                    clock.now += 3

    def test_timeout_of_zero_still_tries_once(self, store: TransactionalStore, clock: Clock) -> None:
        for attempt in store.attempts(timeout=0):
            with attempt as tx:
                tx.from_bytes("y", b"")
        assert store.exists("y")

    def test_pauses_double_up_to_a_limit(
        self, store: TransactionalStore, clock: Clock, longest: None
    ) -> None:
        with pytest.raises(TransactionConflictError):
            for attempt in store.attempts(tries=12):
                with attempt:
                    interfere(store)
        assert clock.slept == [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.1, 0.1, 0.1, 0.1]

    def test_pauses_are_random(
        self, store: TransactionalStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[tuple[float, float]] = []

        def uniform(low: float, high: float) -> float:
            asked.append((low, high))
            return 0.25

        monkeypatch.setattr("random.uniform", uniform)
        with pytest.raises(TransactionConflictError):
            for attempt in store.attempts(tries=3):
                with attempt:
                    interfere(store)
        assert clock.slept == [0.25, 0.25]
        assert asked[:2] == [(0, 0.001), (0, 0.002)]

    @pytest.mark.parametrize("kind", [BrokenBlockError, KeyboardInterrupt, KeyError])
    def test_an_error_of_the_body_passes_through_at_once(
        self, store: TransactionalStore, clock: Clock, kind: type[BaseException]
    ) -> None:
        error, numbers = kind("on purpose"), []
        with pytest.raises(kind) as caught:
            # Three at the most, lest a failure of this test never end.
            for attempt in itertools.islice(store.attempts(), 3):
                with attempt:
                    numbers.append(attempt.number)
                    interfere(store)
                    store.from_bytes("y", b"")
                    raise error
        assert caught.value is error
        assert numbers == [1]
        assert clock.slept == []
        assert not store.exists("y")

    def test_an_error_that_is_caught_in_the_loop_ends_it(
        self, store: TransactionalStore, clock: Clock
    ) -> None:
        numbers = []
        for attempt in store.attempts():
            with pytest.raises(BrokenBlockError), attempt:
                numbers.append(attempt.number)
                raise BrokenBlockError
        assert numbers == [1]

    def test_a_doomed_attempt_is_not_tried_again(self, store: TransactionalStore, clock: Clock) -> None:
        numbers = []
        for attempt in store.attempts():
            with attempt as tx:
                numbers.append(attempt.number)
                interfere(store)
                tx.from_bytes("y", b"")
                tx.doom()
        assert numbers == [1]
        assert not store.exists("y")

    def test_an_attempt_that_was_committed_is_not_run_again(
        self, store: TransactionalStore, other: DictMemoryStore, clock: Clock
    ) -> None:
        """The conflict is another store's: it passes through, as every error after a commit does."""
        numbers = []
        other.from_bytes("x", b"0")
        with pytest.raises(TransactionConflictError) as caught:
            for attempt in store.attempts(tries=3):
                with attempt as tx:
                    numbers.append(attempt.number)
                    tx.from_bytes("y", b"%d" % attempt.number)
                    tx.commit()
                    with other.transaction("other", optimistic=True):
                        interfere(other)
        assert numbers == [1]
        assert store.to_bytes("y") == b"1"
        assert caught.value.tries == 1

    def test_a_condition_that_is_not_met_is_not_tried_again(
        self, store: TransactionalStore, clock: Clock
    ) -> None:
        numbers: list[int] = []
        with pytest.raises(RevisionMismatchError):
            for attempt in itertools.islice(store.attempts(), 3):
                with attempt:
                    numbers.append(attempt.number)
                    store.from_bytes("x", b"", if_revision=7)
        assert numbers == [1]
        assert clock.slept == []
        self.check(store)

    def test_break_commits_the_attempt(self, store: TransactionalStore, clock: Clock) -> None:
        for attempt in store.attempts():
            with attempt as tx:
                tx.from_bytes("y", b"")
                break
        assert store.exists("y")
        self.check(store)

    def test_an_attempt_that_is_never_entered(self, store: TransactionalStore, clock: Clock) -> None:
        numbers = []
        with pytest.raises(TransactionClosedError, match="attempt 1 at 'lazy' was never entered: write"):
            for attempt in store.attempts("lazy"):
                numbers.append(attempt.number)
                assert attempt.number == 1, "it goes on for ever"
        assert numbers == [1]

    def test_an_attempt_cannot_be_entered_twice(self, store: TransactionalStore, clock: Clock) -> None:
        for attempt in store.attempts():
            with attempt:
                pass
            with pytest.raises(TransactionClosedError, match="attempt 1 was entered before"):
                attempt.__enter__()

    def test_attempts_inside_a_block_are_savepoints(self, store: TransactionalStore, clock: Clock) -> None:
        """The outermost block is the one that can be in conflict."""
        with pytest.raises(TransactionConflictError) as caught, store.transaction(optimistic=True):
            for attempt in store.attempts(tries=3):
                with attempt as tx:
                    interfere(store)
                    tx.from_bytes("y", b"")
            assert store.exists("y")
        assert caught.value.tries == 1
        assert clock.slept == []
        assert not store.exists("y")

    def test_bad_arguments(self, store: TransactionalStore) -> None:
        makers: list[Callable[..., object]] = [store.attempts, store.transactional]
        for make in makers:
            for tries in ("3", 1.0, True, None):
                with pytest.raises(TypeError, match="tries must be an int, got"):
                    make(tries=tries)
            with pytest.raises(ValueError, match="tries must be at least 1, got 0"):
                make(tries=0)
            with pytest.raises(TypeError, match="timeout"):
                make(timeout="1")

    def test_the_decorator_keeps_name_arguments_result_and_types(
        self, store: TransactionalStore, clock: Clock
    ) -> None:
        calls: list[tuple[str, int]] = []

        @store.transactional("move money", tries=3)
        def move(key: str, *, amount: int = 1) -> list[int]:
            """Say what it does."""
            calls.append((key, amount))
            if len(calls) == 1:
                interfere(store)
            store.from_bytes(key, b"%d" % amount)
            return [amount]

        moved = assert_type(move("y", amount=5), list[int])
        assert moved == [5]
        assert calls == [("y", 5), ("y", 5)]
        assert (move.__name__, move.__doc__) == ("move", "Say what it does.")
        assert move.__wrapped__("z") == [1]  # type: ignore[attr-defined]
        assert store.to_bytes("y") == b"5"

    def test_the_decorator_hands_on_the_timeout(
        self, store: TransactionalStore, clock: Clock, longest: None
    ) -> None:
        calls: list[int] = []

        @store.transactional("slow", timeout=5)
        def slow() -> None:
            calls.append(1)
            interfere(store)
            clock.now += 3

        with pytest.raises(TransactionConflictError, match=r"gave up after 2 tries in 6\.\d{3} s"):
            slow()
        assert len(calls) == 2

    def test_the_decorator_names_the_transaction_after_the_function(
        self, store: TransactionalStore, clock: Clock
    ) -> None:
        @store.transactional(tries=1)
        def conflicting() -> None:
            interfere(store)

        @store.transactional("notes", tries=2)
        def noted() -> None:
            interfere(store)

        with pytest.raises(
            TransactionConflictError, match=r"gave up after 1 tries .*transaction '.*conflicting'"
        ):
            conflicting()
        with pytest.raises(TransactionConflictError, match=r"gave up after 2 tries .*transaction 'notes'"):
            noted()
        with pytest.raises(TypeError, match="notes must be a str"):
            store.transactional(3)  # type: ignore[arg-type]

    def test_the_decorator_lets_errors_pass_and_counts_each_call_anew(
        self, store: TransactionalStore, clock: Clock
    ) -> None:
        calls: list[int] = []

        @store.transactional(tries=2)
        def fail(kind: type[Exception] | None) -> None:
            calls.append(1)
            store.from_bytes("y", b"")
            if kind is not None:
                raise kind
            interfere(store)

        with pytest.raises(BrokenBlockError):
            fail(BrokenBlockError)
        assert len(calls) == 1
        for _ in range(2):
            calls.clear()
            with pytest.raises(TransactionConflictError):
                fail(None)
            assert len(calls) == 2
        assert not store.exists("y")
