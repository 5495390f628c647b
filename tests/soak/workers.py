"""Threads that do one thing to the store again and again.

Thread safety: a worker's attributes are written by its own thread, but for `over`. One that is `ready` may be
struck; it is struck again when it has begun another step, so few exceptions are under way at a time, and as
many handlers stand around each other.
"""

from __future__ import annotations

import io
import random
import threading
import time
import traceback

from latchstore import (
    DictMemoryStore,
    EventManager,
    EventsLost,
    RevisionMismatchError,
    StoreSetEvent,
    TransactionConflictError,
)
from latchstore.contract.frames import frames_of_threads
from latchstore.contract.store import AbstractStore
from latchstore.engine.inspection import check
from tests.soak.scene import ACCOUNTS, SIDES, TIMEOUT, Mirrors, Scene


class RolledBackError(Exception):
    """Ends a transaction on purpose."""


class Worker:
    """A thread that repeats a step.

    Attributes
    ----------
    begun, steps, struck : int
        How many steps were begun and done, and how many exceptions have broken some off.
    may_be_struck : bool
        Whether the step is one that an exception may break off anywhere.
    """

    may_be_struck = True

    def __init__(self, scene: Scene, number: int = 0) -> None:
        self.scene = scene
        self.store = scene.store
        self.name = f"{type(self).__name__} {number}"
        self.random = random.Random(f"{scene.seed} {self.name}")
        self.begun = 0
        self.steps = 0
        self.struck = 0
        self.ready = False
        self.over = False
        self.thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, or go on after a rest."""
        self.over = False
        # It may have been left so by the last step, and the new thread is not to be struck before its first.
        self.ready = False
        self.thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self.thread.start()

    def stop(self, deadline: float | None = None) -> None:
        """Come to rest; returns when the thread has ended, or at a deadline, in monotonic seconds."""
        self.over = True
        assert self.thread is not None
        self.thread.join(TIMEOUT if deadline is None else max(0.0, deadline - time.monotonic()))
        if self.thread.is_alive():
            frame = frames_of_threads().get(self.thread.ident or 0)
            stack = "".join(traceback.format_stack(frame))
            self.scene.violations.append(f"{self.name} does not end:\n{stack}")

    def _run(self) -> None:
        self._go_on_within(self.scene.storm.handlers)

    def _go_on_within(self, handlers: int) -> None:
        # A handler that is struck itself leaves the next one to go on. At a backward jump, too, which Python
        # 3.12 and newer do not count as a part of what is tried.
        while not self.over:
            try:
                if handlers:
                    self._go_on_within(handlers - 1)
                else:
                    self._go_on()
            except BaseException as error:
                self.note(error)

    def _go_on(self) -> None:
        while not self.over:
            self.begun += 1
            self.ready = self.may_be_struck
            self.step()
            self.steps += 1

    def note(self, error: BaseException) -> None:
        """Count an exception that has broken off a step, or have it be a violation."""
        if self.scene.storm.excuses(error):
            self.struck += 1
        else:
            self.over = True
            self.scene.violations.append(f"{self.name}: {''.join(traceback.format_exception(error))}")

    def step(self) -> None:
        """Do it once."""
        raise NotImplementedError

    def rest(self) -> None:
        """Use, while nothing strikes, what a struck step has left for the next use to put right."""


def move(store: AbstractStore, chance: random.Random) -> None:
    """Move money from one account to another."""
    amount = chance.randint(1, 9)
    for account, change in zip(chance.sample(ACCOUNTS, 2), (-amount, amount), strict=True):
        balance = store.get_metadata(account)["balance"]
        store.update_metadata(account, {"balance": balance + change})


class Transfers(Worker):
    """Moves money in exclusive transactions, some of which fail, some of which have blocks inside."""

    def step(self) -> None:
        """Move once."""
        try:
            with self.store.transaction("transfer"):
                move(self.store, self.random)
                if self.random.random() < 0.2:
                    with self.store.transaction("inner"):
                        move(self.store, self.random)
                if self.random.random() < 0.1:
                    raise RolledBackError
        except RolledBackError:
            pass


class OptimisticTransfers(Worker):
    """Moves money in transactions that are tried again."""

    def step(self) -> None:
        """Move once."""
        try:
            for attempt in self.store.attempts("optimistic transfer"):
                with attempt as tx:
                    move(tx, self.random)
        except TransactionConflictError:
            pass  # a hundred times


class Pairs(Worker):
    """Sets and deletes two keys that are always alike."""

    def step(self) -> None:
        """Change both."""
        if self.random.random() < 0.8:
            data = self.random.randbytes(20)
            self.store.multiset(SIDES, [(data, {"kind": "pair"})] * 2)
            return
        with self.store.transaction("pair"):
            for side in SIDES:
                if self.store.exists(side):
                    self.store.delete(side)


class BrokenStream(io.RawIOBase):
    """Gives a little, and then fails."""

    def __init__(self) -> None:
        self._given = False

    def readable(self) -> bool:
        """Say yes."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return something once."""
        if self._given:
            raise OSError("on purpose")
        self._given = True
        return b"some"


class Churn(Worker):
    """Sets, changes and deletes single keys, by all ways there are."""

    def step(self) -> None:
        """Change one key."""
        key = f"churn/{self.random.randrange(200)}"
        kind = self.random.randrange(6)
        try:
            if kind <= 1:
                self.store.set(key, (self.random.randbytes(100), {"kind": kind, "deep": {"list": [kind]}}))
            elif kind == 2:
                self.store.delete(key)
            elif kind == 3:
                self.store.update_metadata(key, {"kind": self.random.randrange(5)})
            elif kind == 4:
                self.store.from_bytes(key, b"changed", if_revision=self.store.get(key).revision)
            else:
                self.store.set(key, (BrokenStream(), {"kind": "broken"}))
        except (KeyError, RevisionMismatchError):
            pass  # another thread was quicker
        except OSError as error:
            self.scene.expect(str(error) == "on purpose", repr(error))


class Readers(Worker):
    """Looks at what holds between any two commits, and at whether indexes agree with a scan."""

    def step(self) -> None:
        """Look once."""
        with self.store.snapshot() as view:
            self.scene.expect_one_instant(view)
        kind = self.random.randrange(5)
        wrong = [key for key, metadata in self.store.query(kind=kind) if metadata["kind"] != kind]
        self.scene.expect(not wrong, f"a query of kind={kind} has found {wrong}")


class Watchers(Worker):
    """Opens watches and reads a little of what they have."""

    def step(self) -> None:
        """Read some changes."""
        last = 0
        with self.store.watch("churn/*", max_buffer=50) as changes:
            for _ in range(self.random.randrange(20)):
                try:
                    change = changes.get(0.01)
                except TimeoutError:
                    return
                if not isinstance(change, EventsLost):
                    revision = change.revision or 0
                    self.scene.expect(revision >= last, f"{revision} was read after {last}")
                    last = revision


class FailingListener:
    """Raises whatever it is told; not connected any more when it is gone, whether or not that was struck."""

    def hear(self, event: object) -> None:
        """Raise something."""
        raise ValueError("on purpose")


class Listeners(Worker):
    """Connects listeners and disconnects them, or drops them; they raise."""

    def step(self) -> None:
        """Listen for a moment."""
        manager = EventManager() if self.random.random() < 0.1 else self.store.event_manager
        listener = FailingListener()
        manager.connect(StoreSetEvent, listener.hear, {"key": f"churn/{self.random.randrange(200)}"})
        time.sleep(0.001)
        if self.random.random() < 0.8:
            manager.disconnect(StoreSetEvent, listener.hear)


class Visitors(Worker):
    """Stores that come and go, closed or not."""

    # Thread.start waits for an Event, which an exception may leave in pieces ("release unlocked lock"). On
    # Python 3.11 PyThreadState_SetAsyncExc also takes a thread that is just being started for the one that
    # starts it, and Thread.start then waits for ever.
    may_be_struck = False

    def step(self) -> None:
        """Make one, use it and let go of it."""
        store = DictMemoryStore(EventManager(), indexes=["kind"], history=5)
        store.event_manager.connect(StoreSetEvent, lambda event: None)
        store.set("k", (b"", {"kind": 1}))
        with store.transaction(), store.watch():
            store.from_bytes("k", b"again")
        if self.random.random() < 0.5:
            store.close(TIMEOUT)


class Savers(Worker):
    """Saves the store and loads what was saved; writes single keys to files and reads them from there."""

    def step(self) -> None:
        """Save it once."""
        path = self.scene.directory / "written"
        with self.store.snapshot() as view:
            view.to_file(ACCOUNTS[0], path)
            self.scene.expect(path.read_bytes() == view.to_bytes(ACCOUNTS[0]), "a file has other data")
        self.store.from_file("file", path)
        path = self.scene.directory / "saved"
        self.store.save(path)
        with DictMemoryStore.load(path, EventManager(), indexes=["kind"]) as loaded:
            check(loaded)
            self.scene.expect_one_instant(loaded)
        time.sleep(0.05)


class Follower(Worker):
    """Reads a watch from the beginning to the end; not struck, as a change that is read is gone."""

    may_be_struck = False

    def __init__(self, scene: Scene, mirrors: Mirrors) -> None:
        super().__init__(scene)
        self._mirrors = mirrors

    def step(self) -> None:
        """Read what there is."""
        try:
            change = self._mirrors.changes.get(0.05)
        except TimeoutError:
            return
        if isinstance(change, EventsLost):
            self.scene.violations.append(f"the buffer of the follower is full: {change}")
        else:
            self._mirrors.read.hear(change)
