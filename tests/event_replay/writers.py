"""Writers that change a store in every way and write down what they have written."""

from __future__ import annotations

import io
import random
from collections.abc import Callable

from latchstore import DictMemoryStore, StringValue
from tests.event_replay.records import KEYS, ROLLED_BACK, Written


class BodyFailed(Exception):
    """Ends a block on purpose."""


class FailingStream(io.BytesIO):
    """Gives some data, and then an error."""

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(5)
        if not data:
            raise BodyFailed
        return data


class Writer:
    """One thread's random work, and its own account of what it has committed.

    Parameters
    ----------
    store : DictMemoryStore
    number : int
        Of the thread.
    commits : int
        How many commits are its share.
    now_and_then : callable
        Called after every hundred of them.
    """

    def __init__(
        self, store: DictMemoryStore, number: int, commits: int, now_and_then: Callable[[], object]
    ) -> None:
        self.store = store
        self.number = number
        self.share = commits
        self.now_and_then = now_and_then
        self.random = random.Random(number)
        self.written = Written([], [], {}, [])
        self.serial = 0
        # What makes no commit is tried as well, so tries are counted apart.
        self.failed = 0

    def new_data(self) -> bytes:
        self.serial += 1
        return b"%d:%d" % (self.number, self.serial)

    def new_mark(self) -> str:
        return self.new_data().decode("ascii")

    def run(self) -> None:
        works = {
            self.set_data: 58,
            self.set_both: 10,
            self.delete: 10,
            self.mark: 8,
            self.set_many: 3,
            self.fail: 5,
            self.transaction: 5,
            self.optimistic: 1,
        }
        commits = self.written.commits
        told = 0
        while len(commits) < self.share:
            for work in self.random.choices(list(works), list(works.values()), k=20):
                work()
            if len(commits) >= told + 100:
                told = len(commits)
                self.now_and_then()

    def set_data(self) -> None:
        data = self.new_data()
        self.store.from_bytes(self.random.choice(KEYS), data)
        self.written.data.append(data)
        self.written.commits.append(None)

    def set_both(self) -> None:
        data, mark = self.new_data(), self.new_mark()
        self.store.set(self.random.choice(KEYS), StringValue(data, {"mark": mark, "items": [1, self.number]}))
        self.written.data.append(data)
        self.written.marks.append(mark)
        self.written.commits.append(None)

    def delete(self) -> None:
        try:
            self.store.delete(self.random.choice(KEYS))
        except KeyError:
            self.failed += 1
        else:
            self.written.commits.append(None)

    def mark(self) -> None:
        mark = self.new_mark()
        try:
            self.store.update_metadata(self.random.choice(KEYS), {"mark": mark})
        except KeyError:
            self.failed += 1
        else:
            self.written.marks.append(mark)
            self.written.commits.append(None)

    def set_many(self) -> None:
        keys = self.random.sample(KEYS, 3)
        data = [self.new_data() for _ in keys]
        self.store.multiset_data(keys, data)
        self.written.data.extend(data)
        self.written.commits.append(None)

    def fail(self) -> None:
        """Try what must change nothing: a stream that fails, a block that fails, a doomed one."""
        self.failed += 1
        key, data = self.random.choice(KEYS), ROLLED_BACK + self.new_data()
        way = self.random.randrange(3)
        if way == 2:
            with self.store.transaction() as transaction:
                self.store.from_bytes(key, data)
                transaction.doom()
            return
        try:
            if way == 0:
                self.store.set(key, (FailingStream(data), {}))
            with self.store.transaction():
                self.store.from_bytes(key, data)
                self.store.multiset_data(self.random.sample(KEYS, 2), [data, data])
                raise BodyFailed
        except BodyFailed:
            pass

    def change(self, changed: dict[str, bytes]) -> None:
        """Change some keys inside a block, each perhaps more than once, and note the last."""
        for key in self.random.choices(KEYS, k=3):
            changed[key] = self.new_data()
            self.store.from_bytes(key, changed[key])
        # One that comes and goes inside the block is not told of.
        brief = f"brief {self.new_mark()}"
        self.store.from_bytes(brief, ROLLED_BACK)
        self.store.delete(brief)

    def inner(self, changed: dict[str, bytes]) -> None:
        """Change some keys in a block inside the block, which may fail."""
        if self.random.random() < 0.5:
            with self.store.transaction():
                self.change(changed)
            return
        try:
            with self.store.transaction():
                self.store.from_bytes(self.random.choice(KEYS), ROLLED_BACK + self.new_data())
                raise BodyFailed
        except BodyFailed:
            pass

    def transaction(self) -> None:
        changed: dict[str, bytes] = {}
        with self.store.transaction() as transaction:
            self.change(changed)
            if self.random.random() < 0.5:
                self.inner(changed)
        self.note(transaction.revision, changed)

    def optimistic(self) -> None:
        for attempt in self.store.attempts(tries=1000):
            changed: dict[str, bytes] = {}
            with attempt as transaction:
                self.store.exists(self.random.choice(KEYS))
                self.change(changed)
                self.inner(changed)
        self.note(transaction.revision, changed)

    def note(self, revision: int | None, changed: dict[str, bytes]) -> None:
        assert revision is not None
        self.written.data.extend(changed.values())
        self.written.keys[revision] = list(changed)
        self.written.commits.append(revision)
