"""Memory that the system does not give: a process limits its address space, and fills a store.

Unlike `shortage.py`, nothing counts requests: what Python's own allocator still has is used first, large
pieces fail before small ones, and threads cannot be started. A child process writes pieces that get smaller
and smaller until not even the smallest can be had; another thread does the same. Then the limit is lifted,
and what was written is looked for. After that everything is deleted, and the next round begins.

CPython 3.11 itself can loop for as long as there is no memory, and no other thread runs then: it makes an
integer for the end of a ``with`` or ``finally`` block, and begins again if that fails. So a child that tells
nothing for some seconds is given memory, after which it must go on.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from latchstore import Cache, DictMemoryStore, WorkQueue
from tests.interrupts.exhaustion import Count
from tests.interrupts.helper import shown
from tests.interrupts.shortage import lines_of
from tests.interrupts.subjects import TIMEOUT, Subject, replayed

#: How many megabytes a process may have beyond those that it has, at most.
MEGABYTES = 8

#: Seconds that a round may take.
PATIENCE = 100.0

#: The sizes of what is written, in bytes; the next one follows when so many writes in a row have failed.
SIZES = (1 << 20, 1 << 16, 1 << 12, 500, 50)
FAILURES = 3

#: How many writes of a size there are at most, and bytes: what is small fits for long.
WRITES = 1_500
BYTES = 2 * MEGABYTES << 20

#: How the keys end of which there is a file: each is synced, which takes long.
RARELY = "500-0"

#: How often a store is filled.
ROUNDS = 3

#: Writes some keys, with the same data.
Write = Callable[["LimitedSubject", list[str], bytes], object]


class LimitedSubject(Subject):
    """A store with a cache and a queue on it, and a folder for its files."""

    def __init__(self, folder: str) -> None:
        self.path = Path(folder) / "saved"
        super().__init__(history=0)
        self.cache: Cache[bytes] = Cache(self.store, codec="raw")
        self.queue: WorkQueue[bytes] = WorkQueue(self.store, "jobs", codec="raw")
        self.store.save(self.path)  # what is imported then cannot be imported without memory
        DictMemoryStore.load(self.path).close(TIMEOUT)

    def delete_all(self) -> None:
        """Delete everything, in one commit."""
        with self.store.transaction("delete all"):
            for key in self.store.query_keys():
                self.store.delete(key)


def _in_transaction(subject: LimitedSubject, keys: list[str], data: bytes) -> None:
    with subject.store.transaction():
        for key in keys:
            subject.store.set(key, (data, {"kind": "a"}))


def _in_nested_transactions(subject: LimitedSubject, keys: list[str], data: bytes) -> None:
    with subject.store.transaction():
        for key in keys:
            with subject.store.transaction("inner"):
                subject.store.from_bytes(key, data)


def _in_attempts(subject: LimitedSubject, keys: list[str], data: bytes) -> None:
    for attempt in subject.store.attempts():
        with attempt as transaction:
            for key in keys:
                transaction.set(key, (data, {"kind": "b"}))


def _beside_a_snapshot(subject: LimitedSubject, keys: list[str], data: bytes) -> None:
    with subject.store.snapshot() as view:
        subject.store.multiset_data(keys, [data] * len(keys))
        assert not view.exists(keys[0])


def _and_saved(subject: LimitedSubject, keys: list[str], data: bytes) -> None:
    subject.store.multiset_data(keys, [data] * len(keys))
    if keys[0].endswith(RARELY):
        # The other thread may be saving: the last one to finish wins.
        subject.store.save(subject.path)
        DictMemoryStore.load(subject.path).close(TIMEOUT)


def _from_a_file(subject: LimitedSubject, keys: list[str], data: bytes) -> None:
    if not keys[0].endswith(RARELY):
        subject.store.from_bytes(keys[0], data)
        return
    path = subject.path.with_name(keys[0])
    try:
        path.write_bytes(data)
        subject.store.from_file(keys[0], path)
        subject.store.to_file(keys[0], path)
    finally:
        path.unlink(missing_ok=True)


#: What writes, how many keys it is given, and the operation of `operations.py` that it is counted with.
WRITERS: dict[str, tuple[Write, int, str]] = {
    "set": (lambda subject, keys, data: subject.store.set(keys[0], (data, {"kind": "a"})), 1, "set"),
    "multiset": (
        lambda subject, keys, data: subject.store.multiset_data(keys, [data] * len(keys)),
        5,
        "multiset",
    ),
    "transaction": (_in_transaction, 5, "transaction"),
    "nested transactions": (_in_nested_transactions, 3, "transaction"),
    "attempts": (_in_attempts, 3, "transaction"),
    "snapshot": (_beside_a_snapshot, 3, "snapshot"),
    "mapping": (
        lambda subject, keys, data: subject.store.mapping("raw").__setitem__(keys[0], data),
        1,
        "mapping, set",
    ),
    "cache": (lambda subject, keys, data: subject.cache.set(keys[0], data), 1, "cache: set"),
    "load of a cache": (
        lambda subject, keys, data: subject.cache.get_or_load(keys[0], lambda _: data),
        1,
        "cache: get_or_load",
    ),
    "queue": (
        lambda subject, keys, data: subject.queue.put(data, key=keys[0].removeprefix("jobs/")),
        1,
        "queue: put",
    ),
    "save and load": (_and_saved, 2, "save"),
    "from_file and to_file": (_from_a_file, 1, "from_file"),
}


class Writer:
    """Writes until nothing can be had any more, and notes what became of each write.

    Parameters
    ----------
    subject : LimitedSubject
    name : str
        Of what writes.
    number : int
        Of the writer.
    """

    def __init__(self, subject: LimitedSubject, name: str, number: int) -> None:
        self._subject = subject
        self._write, self._width, _ = WRITERS[name]
        self._prefix = f"jobs/{number}" if name == "queue" else f"{number}"
        # Made before there is a limit: what a writer notes takes no memory.
        self._data = [bytes([65 + number]) * size for size in SIZES]
        self._keys = [[self._key(n, m) for m in range(self._width)] for n in range(len(SIZES) * WRITES)]
        self._ended = bytearray(len(self._keys))
        self.failed = 0

    def _key(self, number: int, part: int) -> str:
        return f"{self._prefix}-{number}-{part}"

    def run(self) -> None:
        """Write pieces of each size."""
        for number, data in enumerate(self._data):
            failed = 0
            first = number * WRITES
            for write in range(first, first + min(WRITES, BYTES // len(data))):
                self._ended[write] = 1
                try:
                    # A new object each time: the store keeps bytes as they are.
                    self._write(self._subject, self._keys[write], bytes(memoryview(data)))
                except (MemoryError, SystemError):  # the latter where the interpreter has lost the former
                    failed += 1
                    self.failed += 1
                    if failed == FAILURES:
                        break
                else:
                    self._ended[write], failed = 2, 0

    def check(self) -> None:
        """Look whether each write that returned has taken effect, and others wholly or not at all."""
        store = self._subject.store
        for write, keys in enumerate(self._keys):
            data = self._data[write // WRITES]
            there = [key for key in keys if store.exists(key)]
            assert all(store.to_bytes(key) == data for key in there), f"{keys} have other data"
            assert there in ([], keys), f"of {keys} only {there} were written"
            assert there or self._ended[write] < 2, f"{keys} are lost"
            assert self._ended[write] or not there, f"{keys} were not written"


@contextmanager
def limited(megabytes: int) -> Iterator[None]:
    """Limit the address space of this process to what it has and a few megabytes."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * mmap.PAGESIZE + (megabytes << 20), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def lift(process: int) -> None:
    """Lift the limit of another process."""
    import resource

    _, most = resource.prlimit(process, resource.RLIMIT_AS)
    resource.prlimit(process, resource.RLIMIT_AS, (most, most))


def fill(name: str, seed: int) -> Iterator[tuple[int, list[str]]]:
    """Fill a store some times; yield after each how many writes failed, and what was wrong."""
    chance = random.Random(seed)
    with TemporaryDirectory() as folder:
        subject = LimitedSubject(folder)
        for number in range(ROUNDS):
            try:
                failed = _fill_once(subject, name, chance.randrange(1, MEGABYTES))
            except Exception as error:
                yield 0, [f"{name}, seed {seed}, round {number}: {shown(error)}"]
                return
            yield failed, []
        subject.store.close(TIMEOUT)


def _fill_once(subject: LimitedSubject, name: str, megabytes: int) -> int:
    subject.delete_all()
    subject.store.flush(TIMEOUT)
    subject.events()
    subject.heard.clear()
    before = subject.contents()
    writers = [Writer(subject, name, number) for number in range(2)]
    other = threading.Thread(target=writers[1].run, name="other writer")
    other.start()
    with limited(megabytes):
        writers[0].run()
        other.join(PATIENCE)
    assert not other.is_alive(), "the other thread is stuck"
    _check(subject, writers, before)
    return sum(writer.failed for writer in writers)


def _check(subject: LimitedSubject, writers: list[Writer], before: Any) -> None:
    """Look whether everything is right as soon as there is memory again."""
    subject.store.flush(TIMEOUT)
    for writer in writers:
        writer.check()
    subject.check()
    heard, events = list(subject.heard), subject.events()
    told = [(type(event).__name__, event.key, event.revision) for event in events]
    assert replayed(before, events) == subject.contents(), "the events do not add up to what is there"
    assert [tuple(each) for each in heard] == told, "a listener and the watch were told different things"
    subject.check_use()
    thread = threading.Thread(target=subject.check_use)
    thread.start()
    thread.join(TIMEOUT)
    assert not thread.is_alive(), "another thread is stuck"


def fill_in_child(name: str, seed: int) -> tuple[Count, bool]:
    """Do so in a forked child; return what was counted, and whether it has crashed."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(read)
            for told in fill(name, seed):
                os.write(write, json.dumps(told).encode() + b"\n")
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    count = Count()
    for line in lines_of(read, child, lift, 2 * PATIENCE):
        failed, wrong = json.loads(line)
        count.add(Count(failed, wrong))
    os.close(read)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == -9 or status > 0:
        count.wrong.append(f"{name}, seed {seed}: the child {'is stuck' if status == -9 else 'failed'}")
    return count, status != 0
