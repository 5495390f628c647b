"""Classes to be put under test, sound ones and racy ones, and the tests that do it."""

from __future__ import annotations

import queue
import threading
from collections import deque
from typing import Any

from latchstore.stress import Test, invariant, operation


class RacyCounter:
    def __init__(self) -> None:
        self.value = 0

    def increment(self) -> int:
        value = self.value
        self.value = value + 1
        return value + 1


class LockedCounter(RacyCounter):
    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def increment(self) -> int:
        with self._lock:
            return super().increment()


class CounterTest(Test):
    __test__ = False
    seconds = 60.0
    schedules = 300

    def make(self) -> Any:
        return RacyCounter()

    @operation()
    def increment(self, counter: Any) -> int:
        value: int = counter.increment()
        return value


class LockedCounterTest(CounterTest):
    __test__ = False
    schedules = 60

    def make(self) -> Any:
        return LockedCounter()


class RacyQueue:
    """Looks for room outside of its lock."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.items: deque[int] = deque()
        self._lock = threading.Lock()

    def put_nowait(self, item: int) -> None:
        if len(self.items) >= self.size:
            raise queue.Full
        with self._lock:
            self.items.append(item)

    def get_nowait(self) -> int:
        with self._lock:
            if not self.items:
                raise queue.Empty
            return self.items.popleft()


class QueueTest(Test):
    __test__ = False
    seconds = 60.0
    schedules = 500

    def make(self) -> Any:
        return RacyQueue(2)

    @operation(item=range(9))
    def put(self, subject: Any, item: int) -> None:
        subject.put_nowait(item)

    @operation()
    def get(self, subject: Any) -> int:
        item: int = subject.get_nowait()
        return item


class SoundQueueTest(QueueTest):
    """Beside the one of the standard library, whose code threads are switched within as well."""

    __test__ = False
    schedules = 40

    def make(self) -> Any:
        return queue.Queue(2)


class BlockingQueueTest(Test):
    """Calls that wait for another thread are not declared."""

    __test__ = False
    seconds = 60.0
    schedules = 40

    def make(self) -> Any:
        return queue.Queue(1)

    @operation(item=range(9))
    def put(self, subject: Any, item: int) -> None:
        subject.put(item)

    @operation()
    def get(self, subject: Any) -> int:
        item: int = subject.get()
        return item


class LossyChannel:
    """Wakes a reader for the first item alone, looking for that when it has given the lock back."""

    def __init__(self) -> None:
        self.items: deque[int] = deque()
        self._changed = threading.Condition()

    def put(self, item: int) -> None:
        with self._changed:
            self.items.append(item)
        with self._changed:
            if len(self.items) == 1:
                self._changed.notify()

    def get(self) -> int:
        with self._changed:
            while not self.items:
                self._changed.wait()
            return self.items.popleft()


class LossyChannelTest(BlockingQueueTest):
    __test__ = False
    schedules = 500

    def make(self) -> Any:
        return LossyChannel()


class Account:
    def __init__(self, balance: int) -> None:
        self.balance = balance
        self.lock = threading.Lock()


class Bank:
    """Takes the locks of two accounts in the order in which they are named."""

    def __init__(self) -> None:
        self.accounts = (Account(5), Account(5))

    def transfer(self, source: int, amount: int) -> None:
        one, other = self.accounts[source], self.accounts[1 - source]
        with one.lock, other.lock:
            one.balance -= amount
            other.balance += amount


class BankTest(Test):
    __test__ = False
    seconds = 60.0
    schedules = 300

    def make(self) -> Any:
        return Bank()

    @operation(source=[0, 1], amount=[1, 2])
    def transfer(self, bank: Any, source: int, amount: int) -> None:
        bank.transfer(source, amount)


class UnlockedBank(Bank):
    def transfer(self, source: int, amount: int) -> None:
        one, other = self.accounts[source], self.accounts[1 - source]
        one.balance -= amount
        balance = other.balance
        other.balance = balance + amount


class SumTest(BankTest):
    """Nothing is returned: it is the invariant that fails."""

    __test__ = False

    def make(self) -> Any:
        return UnlockedBank()

    @invariant()
    def the_sum_is_the_same(self, bank: Any) -> bool:
        return bool(sum(account.balance for account in bank.accounts) == 10)


class Journal:
    """A collection whose `add` may lose an entry, and returns nothing."""

    def __init__(self) -> None:
        self._entries: tuple[int, ...] = ()

    def add(self, entry: int) -> None:
        entries = self._entries
        self._entries = (*entries, entry)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Any:
        return iter(self._entries)


class JournalTest(Test):
    __test__ = False
    seconds = 60.0
    schedules = 300

    def make(self) -> Any:
        return Journal()

    @operation(entry=range(5))
    def add(self, journal: Any, entry: int) -> None:
        journal.add(entry)
