"""Faults that a run can inject; a store must stay correct under them.

Faults write keys that begin with ``fault/``, which no workload reads. A wrong result of a workload's
operation counts as a violation even if a fault caused it; a refused operation does not.

Thread safety: each fault is made for one run; threads of the run call its methods.
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
    """Return a function that sleeps some microseconds and keeps the GIL; None if there is none."""
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return None
    try:
        usleep: Callable[[int], object] = ctypes.PyDLL(None).usleep
    except (AttributeError, OSError, TypeError):  # not on Windows
        return None
    return usleep


#: Called with microseconds.
sleep_with_gil: Callable[[int], object] | None = _sleep_with_gil()

#: Prefix of the keys of faults.
PREFIX = "fault/"

#: Maximum number of attempts to write the first key.
_TRIES = 100


class InjectedError(BaseException):
    """Injected by the harness: the interrupted operation may or may not have had its effect."""


class FaultError(Exception):
    """A fault has found a violation that no history shows."""


class Workers(Protocol):
    """The threads of a run, as faults use them."""

    def interrupt(self, error: type[BaseException]) -> bool:
        """Raise an exception in one of the threads, wherever it is; return whether there was one."""


class Fault:
    """A source of failures around a store.

    Parameters
    ----------
    seed : int
    note : callable
        Called with the name of the fault whenever it acts.
    """

    #: Its name in ``--faults``.
    name: ClassVar[str]
    #: Whether it supports threads of the system, and controlled threads.
    native: ClassVar[bool] = True
    controlled: ClassVar[bool] = True
    #: Whether native threads may have locks that record their order. Those are written in Python: before
    #: they return, an exception from outside may leave them held, and a finalizer wait for its own thread.
    recorded: ClassVar[bool] = True
    #: Whether it supports several processes.
    processes: ClassVar[bool] = True
    #: Whether it supports tasks.
    tasks: ClassVar[bool] = False
    #: Arguments for making the store.
    options: ClassVar[Mapping[str, Any]] = {}
    #: Errors other than StoreErrors that operations may raise under it.
    errors: ClassVar[tuple[type[Exception], ...]] = ()

    def __init__(self, seed: int, note: Callable[[str], None]) -> None:
        self.chance: random.Random = random.Random(f"{self.name} {seed}")  # noqa: S311 (nothing secret)
        self.note = note

    def prepare(self, store: AbstractStore) -> None:
        """Prepare, before any thread of the run has started."""

    def before_action(self, store: AbstractStore, key: str | None) -> None:
        """Act in a thread of the workload, before it acts on a key."""

    def disturb(self, store: AbstractStore, workers: Workers) -> bool:
        """Act in a thread of its own, called repeatedly; return whether to continue."""
        return False

    def finish(self, store: AbstractStore) -> None:
        """Undo what would disturb the final read of the store."""


def _put(store: AbstractStore, name: str) -> None:
    """Set a key that a fault writes, so that later writes do not change the number of keys.

    Other faults may make the store refuse it for a moment.
    """
    for _ in range(_TRIES):
        try:
            return store.from_bytes(f"{PREFIX}{name}", b"")
        except StoreError:
            store.flush()
    return store.from_bytes(f"{PREFIX}{name}", b"")


class Exceptions(Fault):
    """Exceptions where CPython may raise them; whether the operation had its effect is open."""

    name = "exceptions"
    native = False
    processes = False

    def check_of_error(self, checks: int) -> int:
        """Return the number of the point at which the exception is raised."""
        return self.chance.randrange(1, max(2, checks))


class Asynchronous(Fault):
    """Exceptions that one thread raises in another (PyThreadState_SetAsyncExc)."""

    name = "async"
    controlled = False
    recorded = False
    #: Operations of workloads hold a lock for less than this many seconds.
    options: ClassVar[Mapping[str, Any]] = {"lock_timeout": 2.0}
    #: Seconds after which a lock counts as held for good; a machine may be slow.
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
            return  # `disturb` finds a store that refuses everything for longer

    def finish(self, store: AbstractStore) -> None:
        self._expect_free_locks(store)

    def _expect_free_locks(self, store: AbstractStore) -> None:
        # With `Timeouts` the store waits for no lock, so try until the time is over.
        end = time.monotonic() + self.patience
        while True:
            try:
                return store.from_bytes(f"{PREFIX}async", b"")
            except LockTimeoutError as error:
                # A store that refuses every operation would pass every checker.
                if time.monotonic() >= end:
                    raise FaultError("an interrupted thread has left a lock held") from error
                time.sleep(0.001)


class _BrokenStream(io.RawIOBase):
    """Returns data that must never become visible, and then fails."""

    def __init__(self) -> None:
        super().__init__()
        self._reads = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        self._reads += 1
        if self._reads > 1:
            raise OSError("the stream failed")
        return b"incomplete"


class Cancellations(Fault):
    """Cancellation of tasks in the middle of an operation, whose effect is then unknown.

    ``task_crew.py`` cancels the tasks, in the threads of their loops.
    """

    name = "cancel"
    native = False
    controlled = False
    processes = False
    tasks = True


class Streams(Fault):
    """Streams that fail halfway: the data before the failure must not become visible."""

    name = "streams"
    tasks = True

    def before_action(self, store: AbstractStore, key: str | None) -> None:
        if key is None or self.chance.random() > 0.2:
            return
        self.note(self.name)
        try:
            store.set_data(key, _BrokenStream())
        except (OSError, StoreError):
            return
        raise FaultError(f"set_data({key!r}) with a failing stream raised no error")


class Listeners(Fault):
    """Listeners that raise, that are slow, and that use the store themselves."""

    name = "listeners"
    tasks = True

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

        # Keeps them alive as long as the store.
        self._listeners = (raising, slow, reentrant)
        for listener in self._listeners:
            store.event_manager.connect(StoreModificationEvent, listener)


class FullQueue(Fault):
    """An event queue that is always full: writers wait or are refused."""

    name = "queue"
    tasks = True
    options: ClassVar[Mapping[str, Any]] = {"max_pending_events": 2}

    def prepare(self, store: AbstractStore) -> None:
        def slow(event: StoreModificationEvent) -> None:
            if self.chance.random() < 0.1:
                self.note("slow listener")
                time.sleep(0.0005)

        self._listener = slow
        store.event_manager.connect(StoreModificationEvent, slow)


class Timeouts(Fault):
    """A lock timeout of zero: operations are refused instead of waiting."""

    name = "timeouts"
    tasks = True
    options: ClassVar[Mapping[str, Any]] = {"lock_timeout": 0.0}


class Closing(Fault):
    """Closing and reopening the store while others write."""

    name = "close"
    # A store that is closed in one process has no guarantees about commits of other processes meanwhile.
    processes = False

    def disturb(self, store: AbstractStore, workers: Workers) -> bool:
        self.note(self.name)
        store.close()
        store.connect()
        # Native threads get a great many refusals while the store is closed: with short breaks only, hardly
        # an operation would succeed.
        time.sleep(self.chance.choice((0.001, 0.02)))
        return True

    def finish(self, store: AbstractStore) -> None:
        store.connect()


class Collector(Fault):
    """Garbage whose finalizers use the store, in whichever thread the collector runs."""

    name = "gc"
    recorded = False

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
            return  # in the middle of a commit of its own thread, where the store refuses instead of waiting


class Kill(Fault):
    """Killing a process (SIGKILL) in the middle of an operation, and starting another one.

    The parent of the processes does that, see ``processes/team.py``.
    """

    name = "kill"
    native = False
    controlled = False


class FullDisk(Fault):
    """A limit on the size of files (RLIMIT_FSIZE), like a full disk, for some milliseconds.

    Writes beyond the limit fail with EFBIG; Python ignores the signal SIGXFSZ, which would end the process.
    Each process has its own limit.
    """

    name = "disk-full"
    controlled = False
    #: A failed write may or may not have taken effect.
    errors: ClassVar[tuple[type[Exception], ...]] = (OSError,)
    #: The maximum limit, in bytes.
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
    """Pauses of all threads, as when an extension written in C keeps the GIL.

    All threads stop together, those of the store as well, and any of them may continue first.
    """

    name = "pause"
    controlled = False
    tasks = True

    def disturb(self, store: AbstractStore, workers: Workers) -> bool:
        if sleep_with_gil is None:
            return False
        self.note(self.name)
        sleep_with_gil(int(1_000_000 * self.chance.choice((0.02, 0.1, 0.4))))
        time.sleep(self.chance.uniform(0.01, 0.1))
        return True


class Forks(Fault):
    """Forking the process at any moment; the child uses its copy of the store."""

    name = "forks"
    controlled = False
    #: Seconds after which a child is killed; its own alarm is set only after the fork handlers have run.
    patience: float = 30.0

    def disturb(self, store: AbstractStore, workers: Workers) -> bool:
        if not hasattr(os, "fork"):
            return False
        self.note("fork")
        with warnings.catch_warnings():
            # Python 3.12 warns about forking with threads, which is intended here.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if not child:
            self._run_child(store)
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
        os.kill(child, signal.SIGABRT)  # faulthandler prints its stack
        os.waitpid(child, 0)
        return None

    def prepare(self, store: AbstractStore) -> None:
        self._enabled = not faulthandler.is_enabled()
        if self._enabled:
            faulthandler.enable(sys.__stderr__ or sys.stderr)

    def finish(self, store: AbstractStore) -> None:
        if self._enabled:
            faulthandler.disable()

    def _run_child(self, store: AbstractStore) -> None:
        """Use the store and exit; an alarm ends a store that blocks."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(5)
        code = 1
        try:
            store.connect()  # another fault may have closed the store
            store.from_bytes(f"{PREFIX}child", b"")
            try:
                code = 0 if store.to_bytes(f"{PREFIX}child") == b"" else 1
            except KeyError:
                code = 0  # a cache may have evicted it, or it has expired
        except BaseException:
            # Not through sys.stderr, whose lock another thread may have held at the fork.
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)


FAULTS: dict[str, type[Fault]] = {
    fault.name: fault
    for fault in (
        Exceptions,
        Asynchronous,
        Cancellations,
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
