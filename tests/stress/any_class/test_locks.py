"""Locks as the code under test: their calls wait, keep locks, and release those of other threads."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from latchstore.stress import Test, operation

pytestmark = pytest.mark.timeout(120)


class ReadersAndWriters:
    """Sound: the first reader acquires what the last one releases."""

    def __init__(self) -> None:
        self.counting = threading.Lock()
        self.writing = threading.Lock()
        self.readers = 0
        self.value = self.copy = 0

    def read(self) -> tuple[int, int]:
        with self.counting:
            self.readers += 1
            if self.readers == 1:
                self.writing.acquire()
        value = self.value, self.copy
        with self.counting:
            self.readers -= 1
            if self.readers == 0:
                self.writing.release()
        return value

    def write(self) -> int:
        with self.writing:
            self.value += 1
            self.copy += 1
            return self.value


class ReadersTest(Test):
    __test__ = False
    seconds = 60.0
    schedules = 300

    def make(self) -> Any:
        return ReadersAndWriters()

    @operation()
    def read(self, subject: Any) -> Any:
        return subject.read()

    @operation()
    def write(self, subject: Any) -> Any:
        return subject.write()


def test_a_lock_that_another_thread_releases_is_no_deadlock() -> None:
    report = ReadersTest.run()
    assert report.passed, str(report)
    # Each reader acquires the two locks in both orders; the count keeps them from waiting for each other.
    assert "no schedule was found in which these threads wait for each other" in str(report)


def test_a_reader_that_forgets_the_lock_is_found() -> None:
    class Forgetful(ReadersAndWriters):
        def write(self) -> int:
            with self.counting, self.writing:
                self.value += 1
                self.copy += 1
                return self.value

    class ForgetfulTest(ReadersTest):
        __test__ = False

        def make(self) -> Any:
            return Forgetful()

    assert ForgetfulTest.run().reason.startswith("deadlock: ")


class Gate:
    """Both orders of two locks, under a third one."""

    def __init__(self) -> None:
        self.gate, self.one, self.two = threading.Lock(), threading.Lock(), threading.Lock()
        self.value = 0

    def first(self) -> int:
        with self.gate, self.one, self.two:
            self.value += 1
            return self.value

    def second(self) -> int:
        with self.gate, self.two, self.one:
            self.value += 1
            return self.value


def test_both_orders_under_a_third_lock_are_no_deadlock() -> None:
    class GateTest(Test):
        __test__ = False
        seconds = 60.0
        schedules = 60

        def make(self) -> Any:
            return Gate()

        @operation()
        def first(self, subject: Any) -> Any:
            return subject.first()

        @operation()
        def second(self, subject: Any) -> Any:
            return subject.second()

    report = GateTest.run()
    assert report.passed, str(report)


class Mutex:
    """Its calls keep a lock, and wait for one that nobody may release."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def acquire(self, blocking: bool) -> bool:
        return self.lock.acquire(blocking)

    def release(self) -> None:
        self.lock.release()


class MutexTest(Test):
    __test__ = False
    seconds = 60.0
    schedules = 300

    def make(self) -> Any:
        return Mutex()

    @operation(blocking=[True, False])
    def acquire(self, subject: Any, blocking: bool) -> Any:
        return subject.acquire(blocking)

    @operation()
    def release(self, subject: Any) -> None:
        subject.release()


def test_calls_that_keep_a_lock_are_no_deadlock() -> None:
    report = MutexTest.run()
    assert report.passed, str(report)


def test_a_lock_that_is_kept_by_a_race_is_found() -> None:
    class Leaking(Mutex):
        """Keeps the lock if another call has come between."""

        turn = 0

        def acquire(self, blocking: bool) -> bool:
            self.turn = turn = self.turn + 1
            with self.lock:
                pass
            if self.turn != turn:
                self.lock.acquire(False)
            return True

        def release(self) -> None:
            """Nothing."""

    class LeakingTest(MutexTest):
        __test__ = False

        def make(self) -> Any:
            return Leaking()

    assert LeakingTest.run().reason.startswith("deadlock: thread ")
