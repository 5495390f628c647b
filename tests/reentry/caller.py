"""What makes the calls: in the middle of an operation, with other threads at the door if it is to be so."""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from latchstore import (
    BackpressureError,
    Cache,
    CodecError,
    DispatcherThreadError,
    FlushTimeoutError,
    KeptByReferenceError,
    LockTimeoutError,
    RecursiveLoadError,
    Snapshot,
    SnapshotClosedError,
    StoreClosedError,
    TransactionError,
    WatchClosedError,
    WorkQueue,
)
from latchstore.contract.frames import frames_of_threads
from tests.interrupts.helper import shown
from tests.interrupts.subjects import BESIDE, TIMEOUT, CacheSubject, Subject
from tests.interrupts.waiting import LOOK_AGAIN, LOOKS
from tests.reentry.cache_calls import OWN
from tests.reentry.calls import CALLS, OF_CACHES, OF_QUEUES

#: How a refusal reads: the call would have waited for its own thread.
WOULD_WAIT = ("would wait for itself", "in the middle of")

#: What a call may raise about itself, in a state that the operation around it has made.
ABOUT_ITSELF = (
    CodecError,
    DispatcherThreadError,
    KeptByReferenceError,
    KeyError,
    RecursiveLoadError,
    SnapshotClosedError,
    StoreClosedError,
    TransactionError,
    WatchClosedError,
)

#: How many calls there are in one operation at the most. One that takes back what was written in a block
#: would have no end, as each call writes something more to be taken back.
MOST = 1_000


def is_refusal(error: BaseException) -> bool:
    """Tell whether an error was raised at once, and about the call itself."""
    if isinstance(error, (LockTimeoutError, FlushTimeoutError, BackpressureError)):
        return any(words in str(error) for words in WOULD_WAIT)
    return isinstance(error, ABOUT_ITSELF)


class Caller:
    """Makes calls in the middle of an operation, and keeps what they have reported.

    Parameters
    ----------
    subject : Subject
    names : sequence of str
        The calls, which are made in turn.
    contended : bool
        Whether another thread is to begin to write or to read before each call.
    most : int
        How many calls there are at the most.

    Attributes
    ----------
    turn : lock
        Held while a call is made: none comes in the middle of another one.
    made, refused : int
        How many calls were, and how many of these have raised something about themselves.
    wrong : list of str
        What else they have raised.
    done : list of bytes
        What writes have reported done outside of transactions.
    in_block : bytes or None
        What the last one has that was done inside of one.
    events : list
        What calls have read of the watch that everything is compared with.
    """

    def __init__(
        self, subject: Subject, names: Sequence[str], contended: bool = False, most: int = MOST
    ) -> None:
        self.subject: Subject = subject
        self._names = itertools.cycle(names)
        self._most = most
        self._beside = beside() if contended else None
        if self._beside is not None:
            self._beside.work_on(subject)
        self.turn = threading.Lock()
        self.made = self.refused = 0
        self.wrong: list[str] = []
        self.done: list[bytes] = []
        self.in_block: bytes | None = None
        self.events: list[Any] = []
        self.thread = threading.get_ident()
        self._numbers = itertools.count()
        self.view: Snapshot
        needs_view = any(name.startswith("of a snapshot") for name in names)
        if needs_view:
            self.view = subject.store.snapshot()
        self._has_view = needs_view
        if not OF_QUEUES.isdisjoint(names):
            self.queue: WorkQueue[Any] = WorkQueue(subject.store, OWN, backoff=lambda attempts: 0.0)
        self.cache: Cache[Any]
        self._own_cache = False
        if not OF_CACHES.isdisjoint(names):
            if isinstance(subject, CacheSubject):
                self.cache = subject.cache
            else:
                self.cache = Cache(subject.store, codec="pickle").namespace("nested", max_entries=50)
                self._own_cache = True

    def call(self) -> None:
        """Make the next call; raise nothing."""
        if not self.turn.acquire(blocking=False):
            return
        if self.wrong or self.made >= self._most:
            self.turn.release()
            return
        name = next(self._names)
        try:
            if self._beside is not None:
                self._beside.begin()
            self.made += 1
            CALLS[name](self)
        except Exception as error:
            if is_refusal(error):
                self.refused += 1
            else:
                self.wrong.append(f"{name} raised {shown(error)}")
        finally:
            self.turn.release()

    def write(self, write: Callable[[bytes], object], stays: bool = True) -> None:
        """Write something that is found again, and note that it was done.

        Parameters
        ----------
        write : callable
        stays : bool
            Whether the call does not delete it again, so that it can be found if it was in a block.
        """
        data = b"written %d" % next(self._numbers)
        inside = self.subject.store.current_transaction() is not None
        write(data)
        if not inside:
            self.done.append(data)
        elif stays:
            self.in_block = data

    def end(self) -> None:
        """Make no more calls, give up what they have needed; raise what has gone wrong in another thread."""
        self._most = 0
        # Another thread may be making one.
        assert self.turn.acquire(timeout=TIMEOUT), "a call waits for ever"
        self.turn.release()
        if self._beside is not None:
            self._beside.rest()
        if self._has_view:
            self.view.close()
        if self._own_cache:
            self.cache.close()


class Beside:
    """Another thread, which writes and reads: one thing at a time, while this one waits for no more of it.

    It has begun when it has either done that or is found in the same place some times: then it waits for the
    thread that has asked, and has to go on as soon as that has left what it was in the middle of.
    """

    def __init__(self) -> None:
        self._asked: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._answers: SimpleQueue[BaseException | None] = SimpleQueue()
        self._working = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            work = self._asked.get()
            try:
                with contextlib.suppress(StoreClosedError):  # by the operation
                    work()
            except BaseException as error:
                self._answers.put(error)
            else:
                self._answers.put(None)
            del work

    def work_on(self, subject: Subject) -> None:
        """Use a store from now on."""
        store = subject.store

        def transact() -> None:
            with store.transaction("beside", optimistic=False):
                store.from_bytes(BESIDE, b"1")
                store.from_bytes(f"{BESIDE} 2", b"1")

        def look_back() -> None:
            with store.snapshot() as view:
                view.exists("stays")

        self._failure = None
        self._work = itertools.cycle(
            [
                lambda: store.from_bytes(BESIDE, b""),
                transact,
                lambda: list(store.query_keys()),
                look_back,
            ]
        )

    def begin(self) -> None:
        """Have it begin with something, unless it still waits."""
        if self._working and not self._is_done(0):
            return
        self._working = True
        self._asked.put(next(self._work))
        place, looks = None, 0
        while looks < LOOKS and not self._is_done(LOOK_AGAIN):
            assert self._thread.ident is not None
            frame = frames_of_threads().get(self._thread.ident)
            now = frame and (id(frame), frame.f_lasti)
            looks = looks + 1 if now == place else 0
            place = now

    def _is_done(self, timeout: float) -> bool:
        try:
            error = self._answers.get(timeout > 0, timeout or None)
        except Empty:
            return False
        self._working = False
        self._failure = self._failure or error
        return True

    def rest(self) -> None:
        """Wait until it is done with what it has begun; raise what that has raised."""
        if self._working:
            assert self._is_done(TIMEOUT), "another thread waits for ever"
        if self._failure is not None:
            raise self._failure


@functools.cache
def beside() -> Beside:
    """Return the one of this process."""
    return Beside()
