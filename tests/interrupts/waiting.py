"""Operations that have to wait: for a transaction of another thread, for the table's lock, for a change."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from latchstore.contract.frames import frames_of_threads
from tests.interrupts.locks import default_lock
from tests.interrupts.subjects import TIMEOUT, Subject

#: Seconds between two looks at a thread, and how many times it is to be found in the same place.
LOOK_AGAIN = 0.0002
LOOKS = 3


class LockedSubject(Subject):
    """A store whose table's lock, the one that it makes by itself, a thread of the test can hold."""

    def __init__(self, **options: Any) -> None:
        default = default_lock()

        def make() -> Any:
            self._lock = default()
            return self._lock

        super().__init__(lock_class=make, **options)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Hold the lock as a reader does."""
        handle = self._lock.gen_rlock()
        handle.acquire()
        yield
        handle.release()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock as a commit does."""
        handle = self._lock.gen_wlock()
        handle.acquire()
        yield
        handle.release()


class Held:
    """Something that a thread of its own holds until the thread that has begun this waits; a context manager.

    A thread waits if it is found in the same place some times. If it is merely slow, the operation finds free
    what it should have waited for, which harms nothing.

    Parameters
    ----------
    hold : callable
        Returns a context manager; what is held is held inside of it.
    """

    def __init__(self, hold: Callable[[], AbstractContextManager[object]]) -> None:
        self._hold = hold
        self._held = threading.Event()
        self._over = threading.Event()
        self._waiter = threading.get_ident()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        with self._hold():
            self._held.set()
            self._until_it_waits()

    def _until_it_waits(self) -> None:
        place, looks = None, 0
        while looks < LOOKS and not self._over.wait(LOOK_AGAIN):
            frame = frames_of_threads().get(self._waiter)
            now = frame and (id(frame), frame.f_lasti)
            looks = looks + 1 if now == place else 0
            place = now

    def __enter__(self) -> Held:
        self.thread.start()
        assert self._held.wait(TIMEOUT)
        return self

    def __exit__(self, *details: object) -> None:
        self._over.set()
        self.thread.join(TIMEOUT)
        assert not self.thread.is_alive()


def waiting_to_write(subject: Subject) -> None:
    with Held(lambda: subject.store.transaction("held")):
        subject.store.from_bytes("moves", b"waited")


def waiting_to_begin(subject: Subject) -> None:
    with Held(lambda: subject.store.transaction("held")), subject.store.transaction() as tx:
        tx.delete("goes")


def waiting_to_commit(subject: Subject) -> None:
    store = subject.store
    with contextlib.ExitStack() as stack, store.transaction(optimistic=True) as tx:
        tx.set("new", (tx.to_bytes("moves"), {"kind": "a"}))
        # Held until the block's end, which waits for it.
        stack.enter_context(Held(lambda: store.transaction("held")))


def waiting_for_readers(subject: LockedSubject) -> None:
    with Held(subject.reading):
        subject.store.multiset(["goes", "new"], [(b"", {}), (b"", {"kind": "a"})])


def waiting_to_write_one(subject: LockedSubject) -> None:
    with Held(subject.writing):
        subject.store.from_bytes("moves", b"waited")


def waiting_to_write_many(subject: LockedSubject) -> None:
    with contextlib.ExitStack() as stack, subject.store.transaction() as tx:
        tx.delete("goes")
        tx.set("new", (b"", {"kind": "a"}))
        stack.enter_context(Held(subject.writing))


def waiting_to_read(subject: LockedSubject) -> None:
    with Held(subject.writing):
        list(subject.store.query(kind="a"))


def waiting_to_look_back(subject: LockedSubject) -> None:
    with Held(subject.writing), subject.store.snapshot() as view:
        view.to_bytes("goes")


def waiting_for_a_change(subject: Subject) -> None:
    # A watch of its own, so that what is read is not missed afterwards.
    with subject.store.watch("new") as changes:

        @contextlib.contextmanager
        def written() -> Iterator[None]:
            yield
            subject.store.from_bytes("new", b"by another thread")

        with Held(written):
            changes.get(TIMEOUT)


def waiting_for_a_key(subject: Subject) -> None:
    store = subject.store
    go_on = threading.Event()

    def write() -> None:
        assert go_on.wait(TIMEOUT)
        store.from_bytes("new", b"by another thread")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        store.wait_for(lambda: go_on.set() or store.exists("new"), TIMEOUT)  # type: ignore[func-returns-value]
    finally:
        go_on.set()
        thread.join(TIMEOUT)


WAITING: dict[str, Callable[[Any], object]] = {
    "waiting for a transaction": waiting_to_write,
    "waiting for a transaction, transaction": waiting_to_begin,
    "waiting for a transaction, optimistic": waiting_to_commit,
    "waiting for readers": waiting_for_readers,
    "waiting for a commit, set": waiting_to_write_one,
    "waiting for a commit, transaction": waiting_to_write_many,
    "waiting for a commit, query": waiting_to_read,
    "waiting for a commit, snapshot": waiting_to_look_back,
    "waiting for a change": waiting_for_a_change,
    "waiting for a key": waiting_for_a_key,
}

#: Those for which a thread holds the table's lock.
LOCKED = tuple(name for name in WAITING if name.startswith(("waiting for a commit", "waiting for readers")))
