"""The writer lock of all processes: ``flock`` on a file beside the database.

1. A lock of ``flock`` belongs to an open file, so the kernel distinguishes two of them, in one process or
   two, and releases the locks of a process when it ends, also by ``kill -9``. The holder has a `Hold`, the
   only object that refers to the open file, and closing the file is written in C. So the lock is released
   with the last reference to the `Hold` at the latest, and no exception leaves the lock held without a
   holder.
2. `Hold.drop` releases it by one call in C, for a ``finally``. `Hold.release` keeps the open file for the
   next thread that acquires the lock; it unlocks first, and not any more once the file belongs to another
   thread.
3. The file is the one that its path names: that is checked after locking, as another process may have removed
   it.
4. A forked child has copies of the open files, which keep the parent's lock until the child closes them.
   Programs that are started do not inherit them.
5. A wait polls, as ``flock`` has no timeout. So that a process which writes in a loop does not get the lock
   each time, one that has waited for a moment makes the file one byte longer, and locks that byte until it
   has the lock or gives up (``F_OFD_SETLK``, a lock of the open file like that of ``flock``; Linux only).
   Whoever acquires the lock sees the length by the `fstat` of rule 3, and releases the lock again while the
   byte is locked by another open file. If it is not, its process has ended; if nobody takes the lock for a
   moment after that, the other one may be stopped: then the length is reset.
6. A signal handler or finalizer in the middle of an operation of
   its own thread on the lock does not wait for itself; it is refused.
7. The holder writes its identification into the file, for error messages of others. That may fail, or be that
   of the previous holder for a moment: nothing else depends on it.

Thread safety: any number of threads and processes may acquire at the same time; their order is undefined, but
the one that has marked the file is the next.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import sys
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from threading import get_ident

from latchstore.contract.errors import LockTimeoutError
from latchstore.contract.file_locks import WRITER_LOCK, OpenFile
from latchstore.delivery.waiting import clock, this_thread
from latchstore.engine.owner import Writer

#: Seconds between two attempts to lock, first and longest.
_FIRST_PAUSE = 0.000_1
_LONGEST_PAUSE = 0.003

#: Seconds after which a waiting thread is to be the next.
_PATIENCE = 0.05

#: Seconds that the lock is left to the next one, which may be stopped.
_GRACE = 0.1

_TRY = fcntl.LOCK_EX | fcntl.LOCK_NB

#: The holder's identification: a mark, process, begin, and a text with thread and purpose.
_FACTS = struct.Struct("<8sqd")
_MARK = b"latched\0"
_TEXT = 488
_RECORD = _FACTS.size + _TEXT

#: The byte after the identification, as ``struct flock``: kind of the lock, origin, begin, length, process.
_FLOCK = struct.Struct("hhqqi0q")
_BYTE = os.SEEK_SET, _RECORD, 1, 0
_HAS_OFD_LOCKS = sys.platform == "linux"


class _LockFile(OpenFile):
    """An open file that is locked, is about to be, or is spare.

    Attributes
    ----------
    ident : int
        Identifier of the thread that uses it.
    descriptor : int
        Result of `fileno` while it is open.
    tries, taken : bool
        Whether the thread is in the middle of a call to the kernel, and whether that acquired the lock.
    is_next : bool
        Whether it has locked the byte of the next one.
    """

    ident = 0
    descriptor = -1
    tries = False
    taken = False
    is_next = False


class Hold:
    """The lock, until it is released.

    Attributes
    ----------
    drop : callable
        Releases the lock, by one call in C; does nothing if that is done.
    """

    __slots__ = ("__weakref__", "_files", "_spare", "drop")

    def __init__(self, files: list[_LockFile], spare: list[_LockFile]) -> None:
        self._files = files
        self._spare = spare
        self.drop: Callable[[], None] = files.clear

    @property
    def is_open(self) -> bool:
        """Whether it has not been released."""
        return bool(self._files)

    def release(self) -> None:
        """Release the lock; does nothing if that is done."""
        if self._files:
            file = self._files[0]
            if not file.closed:  # it is closed in a forked child
                fcntl.flock(file.descriptor, fcntl.LOCK_UN)
                file.taken = False
                self._spare.append(self._files.pop())


class WriterLock:
    """The lock of all processes that write to a database.

    Parameters
    ----------
    path : str
        Path of the database, which exists.
    """

    def __init__(self, path: str) -> None:
        self._database = path
        self._path = path + WRITER_LOCK
        # Open files that are not in use.
        self._spare: list[_LockFile] = []
        # All open files, for re-entry and forks.
        self._live: set[weakref.ref[_LockFile]] = set()
        # The identification of the holder before the lock was left to the next one, and when that was first.
        self._left: tuple[bytes, float] = (b"", 0.0)

    def acquire(self, purpose: str, timeout: float) -> Hold:
        """Wait until the lock is free, and acquire it.

        Parameters
        ----------
        purpose : str
            Purpose of the lock, for errors of waiting processes.
        timeout : float
            Seconds; negative for no limit.

        Raises
        ------
        LockTimeoutError
            If it takes longer, with process, thread, purpose and duration of the holder; at once if the
            holder is this thread.
        OSError
            If the file cannot be opened or locked; has its path.
        """
        file = None
        try:
            while True:
                file = self._unused()
                if self._take(file, purpose, timeout):
                    break
                file.close()
            self._write_down(file, purpose)
            return Hold([file], self._spare)
        except BaseException:
            if file is not None:
                file.close()  # in C, not by its last reference: the error's traceback has one
            raise

    # -- the file ---------------------------------------------------------------------------------

    def _unused(self) -> _LockFile:
        try:
            return self._spare.pop()
        except IndexError:
            return self._open()

    def _open(self) -> _LockFile:
        # Opened in C, so that no exception leaves a descriptor without an owner.
        while True:
            try:
                file = _LockFile(self._path, "r+")
                file.descriptor = file.fileno()
                break
            except FileNotFoundError:
                self._create()
        named = os.lstat(self._path)
        if not stat.S_ISREG(named.st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", self._path)
        live = self._live
        live.add(weakref.ref(file, live.discard))
        return file

    def _create(self) -> None:
        """Create the file, for all users that may write to the database."""
        status = os.stat(self._database)
        mode = stat.S_IMODE(status.st_mode) & 0o666
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        if os.path.islink(self._path):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), self._path)
        with suppress(FileExistsError):  # another process was faster
            descriptor = os.open(self._path, flags, mode)
            try:
                os.fchmod(descriptor, mode)
                if not os.geteuid():
                    os.fchown(descriptor, status.st_uid, status.st_gid)
            finally:
                os.close(descriptor)

    # -- taking -----------------------------------------------------------------------------------

    def _take(self, file: _LockFile, purpose: str, timeout: float) -> bool:
        """Wait for the lock; return whether the file is the one that all processes lock."""
        file.ident = get_ident()
        left, pause, waited = timeout, _FIRST_PAUSE, 0.0
        while True:
            if self._try(file):
                status = os.fstat(file.descriptor)
                # The length may have been reset since this one has marked the file.
                if (status.st_size <= _RECORD and not file.is_next) or self._keeps(file):
                    return status.st_nlink > 0
            if self._is_own(file):
                raise LockTimeoutError(
                    f"{purpose}: this thread is already writing ({self._describe(file)}) and would wait for "
                    "itself; a signal handler or finalizer that meets this may try again later"
                )
            if left == 0 or sys.is_finalizing():  # then no other thread runs
                raise LockTimeoutError(f"{purpose}: no write lock in {timeout:g} s, {self._describe(file)}")
            if left > 0:
                pause = min(pause, left)
                left = max(0.0, left - pause)
            time.sleep(pause)
            waited += pause
            if waited >= _PATIENCE:
                self._ask(file)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _keeps(self, file: _LockFile) -> bool:
        """Release the acquired lock if another one is the next; otherwise reset the length of the file."""
        if any(other.ident == file.ident and other.is_next for other in self._others(file)):
            return True  # a signal handler or finalizer in the middle of the wait
        descriptor = file.descriptor
        with suppress(OSError):
            if not file.is_next and _is_locked(descriptor) and self._leaves_it(descriptor):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
                file.taken = file.tries = False
                return False
            os.ftruncate(descriptor, _RECORD)
            if file.is_next:
                _lock_byte(descriptor, fcntl.F_UNLCK)
        file.is_next = False
        return True

    def _leaves_it(self, descriptor: int) -> bool:
        """Return whether the next one has time yet to take the lock."""
        holder, (before, since) = os.pread(descriptor, _RECORD, 0), self._left
        now = clock()
        if holder != before:
            self._left, since = (holder, now), now
        return now < since + _GRACE

    def _ask(self, file: _LockFile) -> None:
        """Mark the file as the next one to be locked, unless another one is; repeated, as marks are reset."""
        if not _HAS_OFD_LOCKS:
            return
        if not file.is_next:
            file.is_next = True  # before: as in `_try`
            try:
                _lock_byte(file.descriptor, fcntl.F_WRLCK)
            except OSError:
                file.is_next = False  # another one is the next
                return
        with suppress(OSError):
            os.ftruncate(file.descriptor, _RECORD + 1)

    def _try(self, file: _LockFile) -> bool:
        """Make one call to the kernel."""
        file.tries = True  # before: a call in the middle of this finds one of the two
        try:
            fcntl.flock(file.descriptor, _TRY)
        except BlockingIOError:
            file.tries = False
            return False
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._path) from error
        file.taken = True
        return True

    def _is_own(self, file: _LockFile) -> bool:
        """Return whether this thread holds the lock, or may hold it."""
        return any(other.ident == file.ident and (other.taken or other.tries) for other in self._others(file))

    def _others(self, file: _LockFile) -> list[_LockFile]:
        """Return the other open files."""
        others = [reference() for reference in list(self._live)]
        return [other for other in others if other is not None and other is not file and not other.closed]

    def _write_down(self, file: _LockFile, purpose: str) -> None:
        record = _FACTS.pack(_MARK, os.getpid(), time.time()) + _text_of(this_thread.thread.name, purpose)
        try:  # noqa: SIM105 (hot path: `suppress` takes longer than all the rest)
            os.pwrite(file.descriptor, record, 0)
        except OSError:
            pass  # a full disk, which must not prevent deleting entries

    def _describe(self, file: _LockFile) -> str:
        """Return a text for the holder, from its identification."""
        holder = _holder_in(os.pread(file.descriptor, _RECORD, 0))
        if holder is None:
            return "held by another process"  # which has just created the file
        thread, purpose, held, process, _ = holder
        return f"held for {held:.3f} s by process {process}, thread {thread!r} ({purpose})"

    def holder_elsewhere(self) -> Writer | None:
        """Return the other process that holds the lock, if the system lists locks (Linux); otherwise None.

        It does not try to lock: that would exclude others for a moment, and an attempt without waiting would
        fail then.
        """
        with suppress(OSError):
            with open(self._path, "rb", buffering=0) as file:
                holder = _holder_in(file.read(_RECORD))
                inode = os.fstat(file.fileno()).st_ino
            if holder is not None and holder.process != os.getpid():
                with open("/proc/locks", encoding="ascii", errors="replace") as locks:
                    return holder if any(_is_held(line, holder.process, inode) for line in locks) else None
        return None

    # -- forks ------------------------------------------------------------------------------------

    def renew_in_child(self) -> None:
        """Close the parent's files, in a forked child."""
        live, self._live, self._spare = self._live, set(), []
        for reference in list(live):
            file = reference()
            if file is not None:
                file.close()


def _lock_byte(descriptor: int, kind: int) -> None:
    """Lock or unlock the byte; OSError if another open file has locked it."""
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, *_BYTE))


def _is_locked(descriptor: int) -> bool:
    """Return whether another open file has locked the byte."""
    if not _HAS_OFD_LOCKS:
        return False
    found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, *_BYTE))
    return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)


def _holder_in(record: bytes) -> Writer | None:
    """Return the holder that wrote an identification."""
    if len(record) < _RECORD or not record.startswith(_MARK):
        return None
    _, process, since = _FACTS.unpack_from(record)
    thread, purpose, *_ = record[_FACTS.size :].decode("utf-8", "replace").split("\0")
    return Writer(thread, purpose, max(0.0, time.time() - since), process)


def _is_held(line: str, process: int, inode: int) -> bool:
    """Return whether a line of ``/proc/locks`` is about this lock, and not about a wait for it."""
    words = line.split()  # number, kind, ADVISORY, READ or WRITE, process, device and inode, range
    return words[1:2] == ["FLOCK"] and words[4] == str(process) and words[5].endswith(f":{inode}")


@lru_cache(64)
def _text_of(thread: str, purpose: str) -> bytes:
    """Return the text of a holder's identification: most commits have the purpose of another one."""
    parts = [part.replace("\0", " ") for part in (thread, purpose)]
    return "\0".join(parts).encode("utf-8", "replace")[: _TEXT - 1].ljust(_TEXT, b"\0")
