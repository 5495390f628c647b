"""Faults that a run can put in: what a store must bear without a wrong answer.

Faults write under keys that begin with ``fault/``, which no workload looks at. What an operation of a
workload does wrong because of a fault counts as wrong; that the store refuses an operation does not.

Thread safety: each fault is made for one run; its methods are called by threads of the run.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import io
import os
import random
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

from latchstore.contract.errors import LockTimeoutError, StoreError
from latchstore.contract.events import StoreModificationEvent
from latchstore.contract.store import AbstractStore


def _sleep_with_gil() -> Callable[[int], object] | None:
    """Return what sleeps for some microseconds and keeps the GIL; None if there is no such thing."""
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return None
    try:
        usleep: Callable[[int], object] = ctypes.PyDLL(None).usleep
    except (AttributeError, OSError, TypeError):  # not on Windows
        return None
    return usleep


#: Called with microseconds.
sleep_with_gil = _sleep_with_gil()

#: What begins the keys of faults.
PREFIX = "fault/"

#: How often a store may refuse the first key.
_TRIES = 100


class InjectedError(BaseException):
    """Put in by the harness: what it has broken off may or may not have had its effect."""


class FaultError(Exception):
    """A fault has shown something wrong that no history tells of."""


class Workers(Protocol):
    """The threads of a run, as faults see them."""

    def interrupt(self, error: type[BaseException]) -> bool:
        """Raise something in one of the threads, wherever it is; tell whether there was one."""


class Fault:
    """Something that goes wrong around a store.

    Parameters
    ----------
    seed : int
    note : callable
        Called with the name of the fault whenever it is put in.
    """

    #: How it is switched on.
    name: ClassVar[str]
    #: Whether it works on threads of the system, and on threads under a scheduler.
    native: ClassVar[bool] = True
    controlled: ClassVar[bool] = True
    #: Whether native threads may have locks that write down their order. Those are written in Python, so an
    #: exception from outside may leave them taken, which leaves the system's own free.
    recorded: ClassVar[bool] = True
    #: Whether it works in each of several processes.
    processes: ClassVar[bool] = True
    #: Arguments that the store is made with.
    options: ClassVar[Mapping[str, Any]] = {}
    #: Errors that are no StoreErrors and that it has a store raise.
    errors: ClassVar[tuple[type[Exception], ...]] = ()

    def __init__(self, seed: int, note: Callable[[str], None]) -> None:
        self.chance: random.Random = random.Random(f"{self.name} {seed}")  # noqa: S311 (nothing secret)
        self.note = note

    def prepare(self, store: AbstractStore) -> None:
        """Get ready, before any thread of the run has started."""

    def before_action(self, store: AbstractStore, key: str | None) -> None:
        """Be called by a thread of the workload before it acts on a key."""

    def disturb(self, store: AbstractStore, workers: Workers) -> bool:
        """Be called again and again by a thread of its own; return whether to go on."""
        return False

    def finish(self, store: AbstractStore) -> None:
        """Take back what would disturb the last look at the store."""


def _put(store: AbstractStore, name: str) -> None:
    """Put a key that a fault writes there from the beginning, so that it changes no number of keys later.

    The store may refuse it for a moment, as other faults have it do.
    """
    for _ in range(_TRIES):
        try:
            return store.from_bytes(f"{PREFIX}{name}", b"")
        except StoreError:
            store.flush()
    return store.from_bytes(f"{PREFIX}{name}", b"")


class Exceptions(Fault):
    """Exceptions where CPython may raise them, which leave it open whether the operation had its effect."""

    name = "exceptions"
    native = False
    processes = False

    def check_of_error(self, checks: int) -> int:
        """Return at which of the places of the run where exceptions may come this one does."""
        return self.chance.randrange(1, max(2, checks))


class Asynchronous(Fault):
    """Exceptions that one thread sets in another (PyThreadState_SetAsyncExc)."""

    name = "async"
    controlled = False
    recorded = False
    #: No operation of a workload holds a lock for so many seconds, unless it is kept for good.
    options: ClassVar[Mapping[str, Any]] = {"lock_timeout": 2.0}
    #: Seconds after which a lock counts as kept for good; a machine may be slow.
    patience: float = 30.0

    def disturb(self, store: AbstractStore, workers: Workers) -> bool:
        if workers.interrupt(InjectedError):
            self.note(self.name)
        self._expect_free_locks(store)
        time.sleep(0.002)
        return True

    def prepare(self, store: AbstractStore) -> None:
        try:
            _put(store, self.name)
        except LockTimeoutError:
            return  # a store that refuses everything for longer is found by `disturb`

    def finish(self, store: AbstractStore) -> None:
        self._expect_free_locks(store)

    def _expect_free_locks(self, store: AbstractStore) -> None:
        # Together with `Timeouts` the store waits for no lock, so it is asked until the time is over.
        end = time.monotonic() + self.patience
        while True:
            try:
                return store.from_bytes(f"{PREFIX}async", b"")
            except LockTimeoutError as error:
                # A store that refuses all there is would pass every checker.
                if time.monotonic() >= end:
                    raise FaultError("a thread that was broken off has kept a lock") from error
                time.sleep(0.001)


class _BrokenStream(io.RawIOBase):
    """Gives something that nobody may ever see, and fails then."""

    def __init__(self) -> None:
        super().__init__()
        self._reads = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        self._reads += 1
        if self._reads > 1:
            raise OSError("the stream broke off")
        return b"broken off"


class Streams(Fault):
    """Streams that fail halfway: what they gave before must not be seen."""

    name = "streams"

    def before_action(self, store: AbstractStore, key: str | None) -> None:
        if key is None or self.chance.random() > 0.2:
            return
        self.note(self.name)
        try:
            store.set_data(key, _BrokenStream())
        except (OSError, StoreError):
            return
        raise FaultError(f"set_data({key!r}) of a stream that fails has raised nothing")


class Listeners(Fault):
    """Listeners that raise, that take long, and that use the store themselves."""

    name = "listeners"

    def prepare(self, store: AbstractStore) -> None:
        _put(store, "listener")

        def raising(event: StoreModificationEvent) -> None:
            if not event.key.startswith(PREFIX):
                self.note("raising listener")
                raise RuntimeError("a listener of the harness raises")

        def slow(event: StoreModificationEvent) -> None:
            if self.chance.random() < 0.05:
                self.note("slow listener")
                time.sleep(0.001)

        def reentrant(event: StoreModificationEvent) -> None:
            if not event.key.startswith(PREFIX) and self.chance.random() < 0.2:
                self.note("listener that writes")
                store.exists(event.key)
                with store.transaction("listener"):
                    store.from_bytes(f"{PREFIX}listener", event.key.encode())

        # They live as long as the store.
        self._listeners = (raising, slow, reentrant)
        for listener in self._listeners:
            store.event_manager.connect(StoreModificationEvent, listener)


class FullQueue(Fault):
    """An event queue that is full at once: writers wait or are refused."""

    name = "queue"
    options: ClassVar[Mapping[str, Any]] = {"max_pending_events": 2}

    def prepare(self, store: AbstractStore) -> None:
        def slow(event: StoreModificationEvent) -> None:
            if self.chance.random() < 0.1:
                self.note("slow listener")
                time.sleep(0.0005)

        self._listener = slow
        store.event_manager.connect(StoreModificationEvent, slow)


class Timeouts(Fault):
    """Locks that are not waited for: operations are refused."""

    name = "timeouts"
    options: ClassVar[Mapping[str, Any]] = {"lock_timeout": 0.0}


class Closing(Fault):
    """The store is closed and opened again while others write."""

    name = "close"
    # Nobody promises what a store that is closed in one process tells of what others commit meanwhile.
    processes = False

    def disturb(self, store: AbstractStore, workers: Workers) -> bool:
        self.note(self.name)
        store.close()
        store.connect()
        # While it is closed, native threads are quickly refused a great many operations: with short breaks
        # alone there is hardly one that is made.
        time.sleep(self.chance.choice((0.001, 0.02)))
        return True

    def finish(self, store: AbstractStore) -> None:
        store.connect()


class Collector(Fault):
    """Garbage whose finalizers use the store, in whichever thread the collector runs."""

    name = "gc"

    def prepare(self, store: AbstractStore) -> None:
        _put(store, self.name)

    def before_action(self, store: AbstractStore, key: str | None) -> None:
        _Garbage(store, self.note)

    def disturb(self, store: AbstractStore, workers: Workers) -> bool:
        _Garbage(store, self.note)
        gc.collect(0)
        time.sleep(0.0005)
        return True


class _Garbage:
    """Refers to itself, so only the collector frees it."""

    def __init__(self, store: AbstractStore, note: Callable[[str], None]) -> None:
        self._store = store
        self._note = note
        self._itself = self

    def __del__(self) -> None:
        self._note("finalizer")
        try:
            self._store.exists(f"{PREFIX}gc")
            self._store.from_bytes(f"{PREFIX}gc", b"")
        except StoreError:
            return  # in the middle of a commit of its own thread: it is told so, and does not wait


class Kill(Fault):
    """Processes that are killed (SIGKILL) in the middle of an operation, each replaced by another one.

    The parent of the processes does it, see ``processes/team.py``.
    """

    name = "kill"
    native = False
    controlled = False


class FullDisk(Fault):
    """A limit on the size of files (RLIMIT_FSIZE), as if the disk were full for some milliseconds.

    Writes behind the limit fail with EFBIG; Python ignores the signal SIGXFSZ, which would end the process.
    Each process has a limit of its own.
    """

    name = "disk-full"
    controlled = False
    #: Nobody knows whether what could not be written was written after all.
    errors: ClassVar[tuple[type[Exception], ...]] = (OSError,)
    #: What files are limited to, at the most.
    _most = 2**18

    def disturb(self, store: AbstractStore, workers: Workers) -> bool:
        if resource is None:
            return False
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.note(self.name)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.chance.randrange(self._most), hard))
        try:
            time.sleep(self.chance.uniform(0.001, 0.01))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        time.sleep(self.chance.uniform(0.001, 0.02))
        return True


class Pause(Fault):
    """Moments in which no thread runs, as while an extension written in C keeps the GIL.

    All threads stand still together, those of the store as well, and any of them may be the first to go on.
    """

    name = "pause"
    controlled = False

    def disturb(self, store: AbstractStore, workers: Workers) -> bool:
        if sleep_with_gil is None:
            return False
        self.note(self.name)
        sleep_with_gil(int(1_000_000 * self.chance.choice((0.02, 0.1, 0.4))))
        time.sleep(self.chance.uniform(0.01, 0.1))
        return True


class Forks(Fault):
    """Processes that are forked at any moment, and use their copy of the store."""

    name = "forks"
    controlled = False
    #: Seconds after which a child is killed; its own alarm is set only after what runs in it at the fork.
    patience: float = 30.0

    def disturb(self, store: AbstractStore, workers: Workers) -> bool:
        if not hasattr(os, "fork"):
            return False
        self.note("fork")
        with warnings.catch_warnings():
            # Python 3.12 warns of what is tested here.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if not child:
            self._be_the_child(store)
        status = self._end_of(child)
        if status is None:
            raise FaultError(
                f"a forked process did not end within {self.patience:g} s; its stack is on stderr"
            )
        if status:
            raise FaultError(f"a forked process could not use its store: wait status {status}")
        time.sleep(0.01)
        return True

    def _end_of(self, child: int) -> int | None:
        """Wait for a child; return its wait status, or kill it and return None if it takes too long."""
        end = time.monotonic() + self.patience
        while time.monotonic() < end:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return status
            time.sleep(0.002)
        os.kill(child, signal.SIGABRT)  # faulthandler writes where it is
        os.waitpid(child, 0)
        return None

    def prepare(self, store: AbstractStore) -> None:
        self._enabled = not faulthandler.is_enabled()
        if self._enabled:
            faulthandler.enable(sys.__stderr__ or sys.stderr)

    def finish(self, store: AbstractStore) -> None:
        if self._enabled:
            faulthandler.disable()

    def _be_the_child(self, store: AbstractStore) -> None:
        """Use the store and end; a store that blocks is ended by the alarm."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(5)
        code = 1
        try:
            store.connect()  # another fault may have closed it
            store.from_bytes(f"{PREFIX}child", b"")
            try:
                code = 0 if store.to_bytes(f"{PREFIX}child") == b"" else 1
            except KeyError:
                code = 0  # a cache may have evicted it, or its time is over
        except BaseException:
            # Not by sys.stderr, whose lock another thread may have had when the process was forked.
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)


FAULTS: dict[str, type[Fault]] = {
    fault.name: fault
    for fault in (
        Exceptions,
        Asynchronous,
        Streams,
        Listeners,
        FullQueue,
        Timeouts,
        Closing,
        Collector,
        Kill,
        FullDisk,
        Pause,
        Forks,
    )
}
