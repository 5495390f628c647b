"""Read and close files without losing the locks that this process has on them.

POSIX drops all locks of a process on a file when the process closes *any* descriptor of that file, even one
that has nothing to do with the locks. SQLite's connections and ``fcntl.lockf`` use such locks. Therefore:

1. Only `release` closes a file. While the file is locked, its descriptor is kept for the next thread that
   opens the file, and closed when the locks are gone. There is one kept descriptor for each locked file
   that was read, and for each thread that reads it at the same time.
2. Where the system cannot report locks (all but Linux with its OFD locks), descriptors are closed at once.
3. A lock that is acquired between the check and the close is lost: no system has a way to prevent that.

Thread safety: any number of threads may read and release; `_kept` is changed by single dict operations.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import time
from collections.abc import Callable
from io import FileIO
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

#: ``struct flock``: type, whence, start, length, pid (0: the lock is the descriptor's, not the process's).
_LOCK = "hhqqi4x"

#: The bytes that SQLite locks: shared by readers of a file, exclusive for its writer.
_SHARED_FIRST = 0x40000002
_SHARED_SIZE = 510

#: The number of reads that are tried, and the seconds between them, while a file is being changed.
_TRIES = 20
_PAUSE = 0.05

_HEADER = 100

#: The suffix of the file beside that of a `SqliteStore` that is its writer lock.
WRITER_LOCK = "-writer"


class OpenFile(FileIO):
    """A file that closes itself when it is no longer referenced, in case `release` was interrupted."""

    __del__ = FileIO.close  # written in C, so it cannot be interrupted


#: Files that must not be closed yet, each with its device and inode.
_kept: dict[OpenFile, tuple[int, int]] = {}


def read_regular(path: str, size: int = -1) -> bytes:
    """Return the content of a regular file, or its first `size` bytes.

    Raises
    ------
    OSError
        If it is not a regular file, or cannot be read.
    """
    file = _open(path)
    try:
        return file.read(size)
    finally:
        release(file)


def read_database(path: str, check_header: Callable[[bytes, int], None]) -> bytes:
    """Return the content of a SQLite database file at one instant, with writers locked out.

    Parameters
    ----------
    path : str
    check_header : callable
        Called with the first hundred bytes and the size of the file before the rest is read; may raise.

    Raises
    ------
    OSError
        EBUSY if the file was still being changed after a second of trying; any error of the read.
    """
    for _ in range(_TRIES):
        file = _open(path)
        try:
            if _lock(file, "F_RDLCK"):
                before = os.fstat(file.fileno())
                check_header(file.read(_HEADER), before.st_size)
                file.seek(0)
                content = file.readall()
                after = os.fstat(file.fileno())
                if (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, len(content)):
                    return content
        finally:
            release(file)
        time.sleep(_PAUSE)
    raise OSError(errno.EBUSY, "is being changed by another program", path)


def is_shared(path: str) -> bool:
    """Return whether a file is, or was, that of a `SqliteStore`, which other processes may have open."""
    return os.path.lexists(os.path.realpath(path) + WRITER_LOCK)


def check_unshared(path: str) -> None:
    """Raise OSError if a file is open as a `SqliteStore`, since replacing it would lose commits.

    The processes that have it open would continue with the old file, and commits in the log that are not yet
    copied into it would be lost with the log.
    """
    if not (os.path.isfile(path) and is_shared(path)):
        return
    file = _open(path)
    try:
        if _is_locked(file):
            raise OSError(
                errno.EBUSY, "is open as a SqliteStore, or by another program: close it first", path
            )
    finally:
        release(file)


def release(file: OpenFile) -> None:
    """Release SQLite's lock and close the file, now or as soon as that drops no other lock."""
    if file.closed:
        return
    _lock(file, "F_UNLCK")
    for other in list(_kept):
        # Removed first, so that no other thread uses it once it is closed.
        identity = _kept.pop(other, None)
        if identity is not None:
            _close(other, identity)
    status = os.fstat(file.fileno())
    _close(file, (status.st_dev, status.st_ino))


def _close(file: OpenFile, identity: tuple[int, int]) -> None:
    if _is_locked(file):
        _kept[file] = identity
    else:
        file.close()


def _open(path: str) -> OpenFile:
    """Open a regular file for reading, or reuse a kept descriptor."""
    status = os.stat(path)
    check_regular(status, path)
    for kept, identity in list(_kept.items()):
        if identity == (status.st_dev, status.st_ino) and _kept.pop(kept, None) is not None:
            kept.seek(0)
            return kept
    file = OpenFile(path, opener=_opener)
    try:
        check_regular(os.fstat(file.fileno()), path)
    except BaseException:
        release(file)
        raise
    return file


def _opener(path: str, flags: int) -> int:
    # If another kind of file has taken the path meanwhile, opening neither blocks nor makes it the
    # terminal of this process.
    return os.open(path, flags | flag("O_NONBLOCK") | flag("O_NOCTTY"))


def flag(name: str) -> int:
    """Return a flag of ``os.open``; 0 where the system does not define it."""
    value: int = getattr(os, name, 0)
    return value


def check_regular(status: os.stat_result, path: str) -> None:
    """Raise OSError if a file is not a regular file."""
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is not a regular file", path)


def _lock(file: OpenFile, kind: str) -> bool:
    """Acquire or release SQLite's reader lock; return False if the file is being changed."""
    if not hasattr(fcntl, "F_OFD_SETLK"):
        return True
    wanted = struct.pack(_LOCK, getattr(fcntl, kind), os.SEEK_SET, _SHARED_FIRST, _SHARED_SIZE, 0)
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, wanted)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        pass  # a file system without locks
    return True


def _is_locked(file: OpenFile) -> bool:
    """Return whether any process, including this one, has a POSIX lock on a file."""
    if not hasattr(fcntl, "F_OFD_GETLK"):
        return False
    everything = struct.pack(_LOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        found: Any = fcntl.fcntl(file, fcntl.F_OFD_GETLK, everything)
    except OSError:
        return False  # a file system without locks
    return bool(struct.unpack(_LOCK, found)[0] != fcntl.F_UNLCK)
