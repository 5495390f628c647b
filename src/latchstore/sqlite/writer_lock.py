"""The lock of the one writer of all processes: ``flock`` on a file beside the database.

1. A lock of ``flock`` belongs to an open file, so the kernel keeps two of them apart, of one process or of
   two, and gives up what a process had when that ends, ``kill -9`` included. Who has the lock has a `Hold`,
   which alone refers to the open file, and the end of the file is written in C. So the lock is given up
   with the last reference to the `Hold` at the latest, and an exception, wherever it strikes, leaves
   nothing locked that nobody holds.
2. `Hold.drop` gives it up by one call in C, for a ``finally``. `Hold.release` keeps the open file for the
   next who wants the lock; it unlocks first, and does so no more when the file is another's.
3. The file is the one that its path names: it is looked at after it was locked, for others may
   have removed it.
4. A forked child has copies of the open files, which keep the parent's lock until the child closes them.
   Programs that are started get none.
5. A wait polls, as ``flock`` has no timeout. A signal handler or finalizer in the middle of what its own
   thread does with the lock does not wait for itself, it is refused.
6. The holder writes down who it is, for the errors of others. That may fail, or be of the holder before, for
   a moment: nothing else depends on it.

Thread safety: any number of threads and processes may acquire at the same time; the order is any.
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
from latchstore.delivery.waiting import this_thread
from latchstore.engine.owner import Writer

#: Seconds between two looks at the lock, first and longest.
_FIRST_PAUSE = 0.000_1
_LONGEST_PAUSE = 0.003

_TRY = fcntl.LOCK_EX | fcntl.LOCK_NB

#: What the holder writes down: a mark, process, since when, and a text with thread and purpose.
_FACTS = struct.Struct("<8sqd")
_MARK = b"latched\0"
_TEXT = 488
_RECORD = _FACTS.size + _TEXT


class _LockFile(OpenFile):
    """An open file, which is locked, is about to be, or is spare.

    Attributes
    ----------
    ident : int
        The identifier of the thread that uses it.
    descriptor : int
        What `fileno` returns while it is open.
    tries, taken : bool
        Whether the thread is in the middle of asking the kernel, and whether it was given the lock.
    """

    ident = 0
    descriptor = -1
    tries = False
    taken = False


class Hold:
    """The lock, until it is given up.

    Attributes
    ----------
    drop : callable
        Gives the lock up, by one call in C; nothing happens if that was done.
    """

    __slots__ = ("__weakref__", "_files", "_spare", "drop")

    def __init__(self, files: list[_LockFile], spare: list[_LockFile]) -> None:
        self._files = files
        self._spare = spare
        self.drop: Callable[[], None] = files.clear

    @property
    def is_open(self) -> bool:
        """Whether it was not given up yet."""
        return bool(self._files)

    def release(self) -> None:
        """Give the lock up; nothing happens if that was done."""
        if self._files:
            file = self._files[0]
            if not file.closed:  # as it is in a forked child
                fcntl.flock(file.descriptor, fcntl.LOCK_UN)
                file.taken = False
                self._spare.append(self._files.pop())


class WriterLock:
    """The lock of all who write to a database.

    Parameters
    ----------
    path : str
        Of the database, which is there.
    """

    def __init__(self, path: str) -> None:
        self._database = path
        self._path = path + WRITER_LOCK
        # Open files that nobody uses.
        self._spare: list[_LockFile] = []
        # All open files, for re-entry and forks.
        self._live: set[weakref.ref[_LockFile]] = set()

    def acquire(self, purpose: str, timeout: float) -> Hold:
        """Wait until nobody else has the lock.

        Parameters
        ----------
        purpose : str
            What it is for, for those who have to wait.
        timeout : float
            Seconds; negative waits for ever.

        Raises
        ------
        LockTimeoutError
            If it takes longer, with process, thread and purpose of who has it and for how long; at once if
            it is this thread.
        OSError
            If the file cannot be opened or locked; names it.
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
                file.close()  # in C, and not by its last reference: the error's traceback has one
            raise

    # -- the file ---------------------------------------------------------------------------------

    def _unused(self) -> _LockFile:
        try:
            return self._spare.pop()
        except IndexError:
            return self._open()

    def _open(self) -> _LockFile:
        # Opened in C, so that no exception leaves a descriptor that nobody knows.
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
        """Make the file, for all who may write to the database."""
        status = os.stat(self._database)
        mode = stat.S_IMODE(status.st_mode) & 0o666
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        if os.path.islink(self._path):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), self._path)
        with suppress(FileExistsError):  # another one was quicker
            descriptor = os.open(self._path, flags, mode)
            try:
                os.fchmod(descriptor, mode)
                if not os.geteuid():
                    os.fchown(descriptor, status.st_uid, status.st_gid)
            finally:
                os.close(descriptor)

    # -- taking -----------------------------------------------------------------------------------

    def _take(self, file: _LockFile, purpose: str, timeout: float) -> bool:
        """Wait for the lock; return whether the file is the one that all others lock."""
        file.ident = get_ident()
        left, pause = timeout, _FIRST_PAUSE
        while not self._try(file):
            if self._is_own(file):
                raise LockTimeoutError(
                    f"{purpose}: this thread is already writing ({self._describe(file)}) and would wait for "
                    "itself; a signal handler or finalizer that meets this may try again later"
                )
            if left == 0 or sys.is_finalizing():  # when nobody else runs any more
                raise LockTimeoutError(f"{purpose}: no write lock in {timeout:g} s, {self._describe(file)}")
            if left > 0:
                pause = min(pause, left)
                left = max(0.0, left - pause)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        return os.fstat(file.descriptor).st_nlink > 0

    def _try(self, file: _LockFile) -> bool:
        """Ask the kernel once."""
        file.tries = True  # before: whoever comes in the middle finds one or the other
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
        """Tell whether it is this thread that has the lock, or may have it."""
        for reference in list(self._live):
            other = reference()
            if other is None or other is file or other.closed:
                continue
            if other.ident == file.ident and (other.taken or other.tries):
                return True
        return False

    def _write_down(self, file: _LockFile, purpose: str) -> None:
        record = _FACTS.pack(_MARK, os.getpid(), time.time()) + _text_of(this_thread.thread.name, purpose)
        try:  # noqa: SIM105 (hot path: `suppress` takes longer than all the rest)
            os.pwrite(file.descriptor, record, 0)
        except OSError:
            pass  # a full disk, which is no reason not to delete what fills it

    def _describe(self, file: _LockFile) -> str:
        """Name the holder, from what it has written down."""
        holder = _holder_in(os.pread(file.descriptor, _RECORD, 0))
        if holder is None:
            return "held by another process"  # which has only just made the file
        thread, purpose, held, process, _ = holder
        return f"held for {held:.3f} s by process {process}, thread {thread!r} ({purpose})"

    def holder_elsewhere(self) -> Writer | None:
        """Return which other process holds the lock, where the system lists its locks (Linux); else None.

        The lock is not tried: that would keep others out for a moment, and one that does not wait fails then.
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


def _holder_in(record: bytes) -> Writer | None:
    """Return who has written down that it holds the lock."""
    if len(record) < _RECORD or not record.startswith(_MARK):
        return None
    _, process, since = _FACTS.unpack_from(record)
    thread, purpose, *_ = record[_FACTS.size :].decode("utf-8", "replace").split("\0")
    return Writer(thread, purpose, max(0.0, time.time() - since), process)


def _is_held(line: str, process: int, inode: int) -> bool:
    """Tell whether a line of ``/proc/locks`` is about such a lock, and not about a wait for it."""
    words = line.split()  # number, kind, ADVISORY, READ or WRITE, process, device and inode, range
    return words[1:2] == ["FLOCK"] and words[4] == str(process) and words[5].endswith(f":{inode}")


@lru_cache(64)
def _text_of(thread: str, purpose: str) -> bytes:
    """Return what is written down of a holder beside numbers: most commits have the purpose of another."""
    parts = [part.replace("\0", " ") for part in (thread, purpose)]
    return "\0".join(parts).encode("utf-8", "replace")[: _TEXT - 1].ljust(_TEXT, b"\0")
