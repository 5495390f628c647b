"""Threads that read and write a store beside the one that is struck."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from tests.interrupts.subjects import BESIDE, TIMEOUT, CacheSubject, Contents, Subject

#: What the two accounts have together.
SUM = 200

ACCOUNTS = (f"{BESIDE} a", f"{BESIDE} b")


class Beside:
    """Two threads: they move amounts from one account to the other, write single keys, read and look back."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._over = False
        self._go_on = threading.Event()
        self._go_on.set()
        self._resting = threading.Semaphore(0)
        self.failures: list[BaseException] = []
        work = self._use_cache if isinstance(subject, CacheSubject) else self._move
        if not isinstance(subject, CacheSubject):
            subject.store.multiset(ACCOUNTS, [(b"", {"n": SUM // 2}), (b"", {"n": SUM // 2})])
        self._threads = [
            threading.Thread(target=self._run, args=(work, number), daemon=True) for number in range(2)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, work: object, number: int) -> None:
        assert callable(work)
        try:
            while not self._over:
                if not self._go_on.is_set():
                    self._resting.release()
                    self._go_on.wait()
                work(number)
        except BaseException as error:
            self.failures.append(error)
            self._resting.release()

    def _move(self, number: int) -> None:
        store = self._subject.store
        first, second = ACCOUNTS
        with store.transaction("beside", optimistic=False):
            amount = number + 1 if store.get_metadata(first)["n"] < SUM else -SUM
            store.set_metadata(first, {"n": store.get_metadata(first)["n"] + amount})
            store.set_metadata(second, {"n": store.get_metadata(second)["n"] - amount})
        store.from_bytes(f"{BESIDE} {number}", b"1")
        list(store.query(kind="a"))
        with store.snapshot() as view:
            view.exists(first)

    def _use_cache(self, number: int) -> None:
        assert isinstance(self._subject, CacheSubject)
        cache = self._subject.cache
        cache.set(f"{BESIDE} {number}", number)
        cache.get("goes")
        cache.delete(f"{BESIDE} {number}")

    def check_sum(self, contents: Contents) -> None:
        """Look whether nothing was lost or made up, and the threads still work."""
        if self.failures:
            raise self.failures[0]
        accounts = [contents[key][1]["n"] for key in ACCOUNTS if key in contents]
        assert not accounts or sum(accounts) == SUM, f"the sum is wrong: {accounts}"

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Have the threads rest meanwhile."""
        self._go_on.clear()
        for _ in self._threads:
            assert self._resting.acquire(timeout=TIMEOUT), "a thread beside waits for ever"
        if self.failures:
            raise self.failures[0]
        try:
            yield
        finally:
            self._go_on.set()

    def end(self) -> None:
        """End the threads."""
        self._over = True
        self._go_on.set()
        for thread in self._threads:
            thread.join(TIMEOUT)
