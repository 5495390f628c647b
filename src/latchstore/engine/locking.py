"""The locks of a store, and the one order in which they are taken.

====== =================== ============================================ ==============================
order  lock                what it guards                               held for
====== =================== ============================================ ==============================
1      writer mutex        who may commit next: one writer at a time    a whole exclusive transaction
                                                                        (user code runs), or one write
2      table lock          the dicts: written while changes are         microseconds; no user code, no
                           applied, read while several keys are read    waiting for anything
3      gate latch          what the gate of memory.py says              microseconds
4      feed latch          history and list of watches (change_feed.py) microseconds
5      buffer latches      the changes that a watch has not read        microseconds
6      dispatcher's latch  starting and ending its thread               microseconds
7      latches of a cache  its books, and its threads' counts (cache/)  microseconds
====== =================== ============================================ ==============================

A lock is only ever asked for while holding locks above it in this table. Reads, and
opening a snapshot, take the table lock alone. The feed latch alone is taken inside the table lock.

Thread safety:

1. No lock is reentrant. Internal methods never call public ones, which is what keeps a thread
   from asking twice. Whoever does so all the same (a finalizer that the garbage collector runs in the
   middle of a commit, say) is told at once, and does not wait for itself.
2. Each acquisition has a claim of its own, an object made before it. Taking a lock is one operation of a
   dict that puts the claim there, giving it back one that takes this very claim away; so it can be given
   back twice, and also by whoever does not know whether it was taken.
3. An exception may come between any two bytecodes (KeyboardInterrupt, PyThreadState_SetAsyncExc). So what
   must happen after a lock was taken is done at the end of the section, again in an ``except`` around it,
   and again in one around that: of these three one exception can strike one. ``with`` is no
   way to do so: its ``__exit__`` may be struck before it has begun. Near the recursion limit each call may
   fail, again and again: what needs more calls than taking the lock did is done `surely`.
4. Every wait ends: with the lock, or with an error that names the holder. A wake-up that is lost, because
   whoever was to give it was struck, costs those who wait `LOOK_AGAIN` seconds.
5. The one write handle is used by whoever holds the writer mutex, so by one thread at a time.
6. A forked child renews all locks: the threads that held them are not there.
"""

from __future__ import annotations

import _thread
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from threading import get_ident
from typing import NoReturn, Protocol, TypeVar, TypeVarTuple

from latchstore.contract.errors import LockTimeoutError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: How often a thread lets others run before it goes to sleep.
_YIELDS = 32

#: Seconds that a short section is waited for.
_PATIENCE = 30.0

#: Seconds after which a thread that sleeps looks by itself whether it can go on.
LOOK_AGAIN = 0.05


class Lockable(Protocol):
    """What a handle of a reader/writer lock must do (``readerwriterlock.rwlock.Lockable``)."""

    __slots__ = ()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take this side; return whether that was possible within `timeout` seconds."""
        ...

    def release(self) -> None:
        """Give this side back; nothing happens if a handle of our own does not have it."""
        ...

    def locked(self) -> bool:
        """Tell whether the handle has this side."""
        ...


class ReaderWriterLock(Protocol):
    """A lock with many readers or one writer (``readerwriterlock.rwlock.RWLockable``)."""

    def gen_rlock(self) -> Lockable: ...

    def gen_wlock(self) -> Lockable: ...


class _ThisThread(threading.local):
    """The calling thread, found faster than by ``threading.current_thread()``.

    Threads are told apart by these objects, as the identifier of an ended thread is given to a new one.
    """

    def __init__(self) -> None:
        self.thread = threading.current_thread()


this_thread = _ThisThread()


def thread_name(thread: threading.Thread) -> str:
    """Return the name of a thread, for error messages."""
    return thread.name if thread.is_alive() else f"{thread.name} (ended)"


def surely(function: Callable[[*Ts], object], *arguments: *Ts) -> None:
    """Call a function of our own that must be done; if this thread has no stack left for it, in a new one.

    Taking a lock needs few frames, ending a commit needs more: near the recursion limit the first may
    succeed and the second fail, however often it is tried.
    """
    try:
        function(*arguments)
    except RecursionError:
        # From here on nothing but C is called, which needs no more stack than taking a lock.
        ended: SimpleQueue[None] = SimpleQueue()
        _thread.start_new_thread(_call_and_tell, (function, arguments, ended))
        ended.get()


def _call_and_tell(
    function: Callable[..., object], arguments: tuple[object, ...], ended: SimpleQueue[None]
) -> None:
    try:
        function(*arguments)
    finally:
        ended.put(None)


class Waiters:
    """Threads that sleep until something may have come true.

    Each sleeps at a bell of its own: a ``SimpleQueue``, which is written in C, so that no exception strikes
    between its waiting and its being rung (those of ``threading``, in Python, can be left locked so).
    """

    __slots__ = ("_bells",)

    def __init__(self) -> None:
        self._bells: deque[SimpleQueue[None]] = deque()

    def wait(
        self,
        ready: Callable[[], object],
        timeout: float,
        yields: int = _YIELDS,
        look_again: float = LOOK_AGAIN,
    ) -> bool:
        """Wait until `ready` returns something true; return whether it did in time.

        First other threads may run a few times. A thread that waits for a lock of the system gets it when
        it is released, and only then waits for the interpreter, up to 5 ms, while all that need the lock
        wait, too: a convoy (Blasgen, Gray, Mitoma and Price, "The convoy phenomenon", ACM SIGOPS Operating
        Systems Review 13(2), 1979). A thread that asks when it has the interpreter holds nobody up. With 8
        threads and 90 % reads that is three times the throughput (benchmarks/threads.py).

        Parameters
        ----------
        ready : callable
        timeout : float
            Seconds; negative waits for ever.
        yields : int
            How often others may run before the thread goes to sleep.
        look_again : float
            Seconds after which it asks even if nobody has rung.
        """
        for _ in range(yields):
            time.sleep(0)
            if ready():
                return True
        if sys.is_finalizing():
            return False  # whoever could change that does not run any more
        deadline = None if timeout < 0 else time.monotonic() + timeout
        bell: SimpleQueue[None] = SimpleQueue()
        try:
            while True:
                self._bells.append(bell)
                if ready():
                    return True
                left = look_again if deadline is None else min(look_again, deadline - time.monotonic())
                if left <= 0:
                    return False
                self._sleep(bell, left)
                if ready():
                    return True
        finally:
            self._discard(bell)

    def _sleep(self, bell: SimpleQueue[None], seconds: float) -> None:
        try:
            bell.get(timeout=seconds)
        except Empty:
            self._discard(bell)

    def _discard(self, bell: SimpleQueue[None]) -> None:
        try:
            self._bells.remove(bell)
        except ValueError:
            return  # it has been rung

    def ring(self) -> None:
        """Wake whoever has slept longest; nothing happens if nobody sleeps."""
        if self._bells:
            try:
                self._bells.popleft().put(None)
            except IndexError:
                return  # another thread was quicker

    def ring_all(self) -> None:
        """Wake all who sleep now."""
        if self._bells:
            for _ in range(len(self._bells)):
                self.ring()


class Latch:
    """Mutual exclusion for short sections, by a claim that stands in a dict."""

    __slots__ = ("_afterwards", "_waiters", "claims")

    def __init__(self) -> None:
        # Item 0 is the claim of whoever holds the latch. ``setdefault``, ``del`` and ``d[key]`` are atomic
        # in CPython, with and without the GIL, for a key whose hash and equality are in C: so its
        # documentation, "Thread safety guarantees", section on dict. Without the GIL the first two hold
        # the dict's own lock throughout, as they call nobody's code that could wait (dictobject.c:
        # dict_setdefault_ref_lock_held); the third needs none.
        self.claims: dict[int, object] = {}
        # What this thread asked for in the middle of its section, by `during_or_after`.
        self._afterwards: deque[Callable[[], object]] = deque()
        self._waiters = Waiters()

    @property
    def claim(self) -> object | None:
        """The claim of whoever holds it now, or None."""
        # Not ``get``, for which the free-threaded 3.13 locks the dict and, as the claim is another thread's,
        # waits for that lock a second time; the holder needs it to give the latch back. See
        # ``DictMemoryStore._write_one``.
        try:
            return self.claims[0]
        except KeyError:
            return None

    def acquire(self, claim: object, timeout: float = -1) -> bool:
        """Take the latch; return whether that was possible in time.

        Parameters
        ----------
        claim : object
            Made for this acquisition.
        timeout : float
            Seconds; negative waits for ever, 0 not at all.
        """
        claims = self.claims
        if claims.setdefault(0, claim) is claim:
            return True
        if timeout == 0:
            return False
        return self._waiters.wait(lambda: claims.setdefault(0, claim) is claim, timeout)

    def release(self, claim: object) -> None:
        """Give the latch back, if it is this claim that holds it."""
        claims = self.claims
        if claims and claims.get(0) is claim:
            del claims[0]
            if self._waiters._bells:
                self._waiters.ring()

    def during(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Call a function of our own while holding the latch.

        Raises
        ------
        LockTimeoutError
            If this thread holds it: a finalizer or a signal handler calls, in the middle of such a section.
            Or if it does not come free.
        """
        claim = (get_ident(),)
        claims = self.claims
        try:
            try:
                # Without the calls of `acquire` and `release`, as this is done several times in each write:
                # 300 ns and not 490.
                if claims.setdefault(0, claim) is not claim:
                    self._wait_for_other_thread(claim)
                result = function(*arguments)
                if self._afterwards:
                    self._do_what_is_left()
                del claims[0]
                if self._waiters._bells:
                    self._waiters.ring()
                return result
            except BaseException:
                self.release(claim)
                raise
        except BaseException:
            # Not by way of `release`: the latch was taken in C, and there may be no stack for a call of ours.
            # Who waits for it looks by itself.
            if claims.get(0) is claim:
                del claims[0]
            raise

    def during_or_after(self, function: Callable[[*Ts], object], *arguments: *Ts) -> None:
        """Call a function of our own while holding the latch, or soon after if this thread holds it now.

        A finalizer that comes in the middle of a section cannot wait for its end. What it asks for is done at
        the end, or in the next section of any thread if that is over already.

        Parameters
        ----------
        function : callable
            It may be called twice.
        """
        if self.claim == (get_ident(),):
            self._afterwards.append(partial(function, *arguments))
        else:
            self.during(function, *arguments)

    def _do_what_is_left(self) -> None:
        while self._afterwards:
            self._afterwards[0]()
            self._afterwards.popleft()

    def _wait_for_other_thread(self, claim: tuple[int]) -> None:
        holder = self.claim
        if holder == claim:
            raise LockTimeoutError("this thread is in the middle of such a call and would wait for itself")
        if not self.acquire(claim, _PATIENCE):
            raise LockTimeoutError(f"a section that takes microseconds was not over in {_PATIENCE:g} s")


#: The key of the writer's claim in a `SharedLatch`; readers' claims have their handles for keys.
_WRITER = 0


class SharedLatch:
    """A reader/writer lock that no exception leaves locked; the default of a store.

    Readers and the writer put their claims into one dict, and look at it after that: of a reader and a writer
    that come at the same time one at least sees the other. A writer that has put its claim there keeps new
    readers out and waits for those that are in; a reader that finds a writer's takes its own away again.
    Writers first let in the readers that they find waiting, so neither side can be kept waiting for ever by
    the other.

    It is an `RWLockable` of ``readerwriterlock``, whose protocols go by the methods that there are. It does
    not inherit from it, so who uses no other lock does not load the library: 13 of 55 ms of an import of
    latchstore.
    """

    __slots__ = ("_claims", "_held_back", "_waiters")

    def __init__(self) -> None:
        self._claims: dict[object, object] = {}
        # Readers that have met a writer.
        self._held_back: dict[object, None] = {}
        self._waiters = Waiters()

    def gen_rlock(self) -> SharedReader:
        """Return a new handle for one reader."""
        return SharedReader(self)

    def gen_wlock(self) -> SharedWriter:
        """Return a new handle for one writer."""
        return SharedWriter(self)


class _Handle(Lockable):
    """One side of a `SharedLatch`, which ``with`` takes and gives back as those of the library."""

    __slots__ = ("_latch",)

    def __init__(self, latch: SharedLatch) -> None:
        self._latch = latch

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


class SharedReader(_Handle):
    """A handle of the read side, for one thread at a time."""

    __slots__ = ()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self._get_in():
            return True
        if not blocking or timeout == 0:
            return False
        latch = self._latch
        try:
            try:
                latch._held_back[self] = None
                return latch._waiters.wait(self._get_in, timeout)
            finally:
                self._hold_back_no_more()
        finally:
            self._hold_back_no_more()

    def _get_in(self) -> bool:
        claims = self._latch._claims
        claims[self] = None  # before the look: see above
        if _WRITER not in claims:
            return True
        self.release()
        return False

    def _hold_back_no_more(self) -> None:
        latch = self._latch
        if self in latch._held_back:
            latch._held_back.pop(self, None)
            latch._waiters.ring_all()

    def release(self) -> None:
        latch = self._latch
        latch._claims.pop(self, None)
        if latch._waiters._bells:
            latch._waiters.ring_all()

    def locked(self) -> bool:
        return self in self._latch._claims


class SharedWriter(_Handle):
    """A handle of the write side, for one thread at a time."""

    __slots__ = ()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        latch = self._latch
        claims = latch._claims
        # Nobody about: 0.15 us, where the library's fair lock takes 0.6 (benchmarks/locks.py).
        if not latch._held_back and claims.setdefault(_WRITER, self) is self and len(claims) == 1:
            return True
        taken = False
        try:
            try:
                taken = self._acquire_slowly(0 if not blocking else timeout)
                return taken
            finally:
                if not taken:
                    self.release()
        except BaseException:
            self.release()
            raise

    def _acquire_slowly(self, timeout: float) -> bool:
        latch = self._latch
        claims = latch._claims
        if timeout == 0:
            return claims.setdefault(_WRITER, self) is self and len(claims) == 1
        begun = time.monotonic()
        if not self.locked():
            waiting = list(latch._held_back)

            def claim() -> bool:
                return (
                    latch._held_back.keys().isdisjoint(waiting) and claims.setdefault(_WRITER, self) is self
                )

            if not latch._waiters.wait(claim, timeout):
                return False
        return latch._waiters.wait(lambda: len(claims) == 1, _left(timeout, begun))

    def release(self) -> None:
        latch = self._latch
        claims = latch._claims
        if claims.get(_WRITER) is self:
            del claims[_WRITER]
            if latch._waiters._bells:
                latch._waiters.ring_all()

    def locked(self) -> bool:
        return self._latch._claims.get(_WRITER) is self


def _left(timeout: float, begun: float) -> float:
    """Return what is left of a time, in seconds; a negative one does not end."""
    return timeout if timeout < 0 else max(0.0, begun + timeout - time.monotonic())


#: Who wants the writer mutex: a thread, and what for. Made anew for each acquisition.
WriterClaim = tuple[threading.Thread, str]


class WriterMutex(Latch):
    """One writer at a time, and who it is.

    Held for a whole exclusive transaction, user code included; so reads never take it. While it is held: user
    code of one transaction block, and all the locks below it. See the table at the top of this file.
    """

    __slots__ = ("_since",)

    def __init__(self) -> None:
        super().__init__()
        # When it was taken, in seconds since the epoch; for error messages.
        self._since = 0.0

    def acquire_as_writer(self, claim: WriterClaim, timeout: float) -> float:
        """Take the mutex, or raise LockTimeoutError after `timeout` seconds.

        Parameters
        ----------
        claim : WriterClaim
        timeout : float
            Seconds; negative waits for ever.

        Returns
        -------
        now : float
            When it was taken, in seconds since the epoch; the write that follows is stamped with it.
        """
        if self.claims.setdefault(0, claim) is not claim:
            self._refuse_to_wait_for_itself(claim)
            if not self.acquire(claim, timeout):
                raise LockTimeoutError(f"{claim[1]}: no write lock in {timeout:g} s, {self.describe()}")
        try:
            now = self._since = time.time()
        except BaseException:
            # Without a call, for which there may be no stack: `surely` needs as much as this one did.
            if self.claims[0] is claim:
                del self.claims[0]
            raise
        return now

    def _refuse_to_wait_for_itself(self, claim: WriterClaim) -> None:
        holder = self.holder
        if holder is not None and holder[0] is claim[0]:
            raise LockTimeoutError(
                f"{claim[1]}: this thread is already writing ({holder[1]}) and would wait for itself"
            )

    @property
    def holder(self) -> WriterClaim | None:
        """The claim of whoever holds it, or None."""
        return self.claim  # type: ignore[return-value]

    def held_by_this_thread(self) -> bool:
        """Tell whether the calling thread holds the mutex."""
        holder = self.holder
        return holder is not None and holder[0] is this_thread.thread

    def describe(self) -> str:
        """Say who holds the mutex: thread, purpose and for how long."""
        holder = self.holder
        if holder is None:
            return "which is free now"
        thread, purpose = holder
        held = max(0.0, time.time() - self._since)
        return f"held for {held:.3f} s by thread {thread_name(thread)!r} ({purpose})"


class TableLock:
    """Many readers or one writer of the dicts; held for microseconds, never while user code runs.

    Parameters
    ----------
    lock : ReaderWriterLock
        A `SharedLatch`, any lock of ``readerwriterlock``, or one with the same two methods.
    timeout : float
        Seconds to wait before LockTimeoutError.
    writer : WriterMutex
        Held by whoever takes the write side, and knows the name.

    Attributes
    ----------
    write_handle : Lockable
        The write side, for whoever holds the writer mutex, so for one thread at a time.
    timeout : float
    """

    __slots__ = ("_lock", "_writer", "timeout", "write_handle")

    def __init__(self, lock: ReaderWriterLock, timeout: float, writer: WriterMutex) -> None:
        self._lock = lock
        self._writer = writer
        self.write_handle = lock.gen_wlock()
        self.timeout = timeout

    def reading(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Call a function of our own while holding the read side. Raises LockTimeoutError."""
        return self._during(self._lock.gen_rlock(), "no read lock", function, *arguments)

    def excluding(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Call a function while holding the write side without the writer mutex: keeps commits out."""
        return self._during(self._lock.gen_wlock(), "the table was not free", function, *arguments)

    def _during(
        self,
        handle: Lockable,
        failure: str,
        function: Callable[[*Ts], T],
        *arguments: *Ts,
    ) -> T:
        if self.held_for_writing_by_this_thread():
            raise LockTimeoutError("this thread is applying a commit and would wait for itself")
        try:
            try:
                if not handle.acquire(timeout=self.timeout):
                    raise LockTimeoutError(f"{failure} in {self.timeout:g} s, {self.describe()}")
                result = function(*arguments)
                handle.release()
                return result
            except BaseException:
                _give_back(handle)
                raise
        except BaseException:
            # Not by way of a function: with these calls alone it needs no more stack than taking it did.
            if handle.locked():
                handle.release()
            raise

    def try_excluding(self, function: Callable[[], object]) -> None:
        """Call a function while holding the write side, if that is free this instant."""
        handle = self._lock.gen_wlock()
        try:
            try:
                if handle.acquire(blocking=False):
                    function()
                    handle.release()
            except BaseException:
                _give_back(handle)
                raise
        except BaseException:
            # Not by way of a function: with these calls alone it needs no more stack than taking it did.
            if handle.locked():
                handle.release()
            raise

    def refuse_writing(self) -> NoReturn:
        """Raise the error of a writer that has waited for `write_handle` in vain."""
        raise LockTimeoutError(f"the table was not free for writing in {self.timeout:g} s: readers hold it")

    def give_back_write(self) -> None:
        """Give it back, if it was taken; the caller holds the writer mutex."""
        _give_back(self.write_handle)

    @property
    def writing(self) -> bool:
        """Whether the write side is held by way of `write_handle`."""
        return self.write_handle.locked()

    def held_for_writing_by_this_thread(self) -> bool:
        """Tell whether the calling thread holds the write side."""
        return self.write_handle.locked() and self._writer.held_by_this_thread()

    def describe(self) -> str:
        """Say who holds the write side."""
        return self._writer.describe() if self.write_handle.locked() else "no thread is writing now"


def _give_back(handle: Lockable) -> None:
    if handle.locked():
        handle.release()


class Latches:
    """The two latches of one store, in the order of the table above.

    Parameters
    ----------
    lock_class : callable
        Makes the reader/writer lock: `SharedLatch`, a class of ``readerwriterlock``, or another factory
        of objects with ``gen_rlock`` and ``gen_wlock``.
    timeout : float
        Seconds that any acquisition may take.
    """

    __slots__ = ("_lock_class", "table", "timeout", "writer")

    def __init__(self, lock_class: Callable[[], ReaderWriterLock], timeout: float) -> None:
        self._lock_class = lock_class
        self.timeout = timeout
        self.renew()

    def renew(self) -> None:
        """Make new locks, which are free: at the beginning, and in a forked child."""
        lock = self._lock_class()
        if not (callable(getattr(lock, "gen_rlock", None)) and callable(getattr(lock, "gen_wlock", None))):
            raise TypeError(f"lock_class must make locks with gen_rlock() and gen_wlock(), got {lock!r}")
        self.writer = WriterMutex()
        self.table = TableLock(lock, self.timeout, self.writer)

    def writing(self, purpose: str, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Call a function while holding the writer mutex. Raises LockTimeoutError."""
        return self.writing_within(self.timeout, purpose, function, *arguments)

    def writing_within(
        self, timeout: float, purpose: str, function: Callable[[*Ts], T], *arguments: *Ts
    ) -> T:
        """Do so, but wait for the mutex as many seconds as are given; a negative number is for ever."""
        writer = self.writer
        claim = (this_thread.thread, purpose)
        try:
            try:
                writer.acquire_as_writer(claim, timeout)
                result = function(*arguments)
                writer.release(claim)
                return result
            except BaseException:
                writer.release(claim)
                raise
        except BaseException:
            writer.release(claim)
            raise
