"""Reading and closing files without a loss of the locks that this process has on them.

POSIX takes all of a process's locks on a file away when the process closes *any* descriptor of it, also one
that had nothing to do with the locks. SQLite's connections lock this way, and so does ``fcntl.lockf``. So:

1. A file is closed by `release` alone. While somebody has such a lock on it, its descriptor is kept instead,
   for the next who opens the file, and is closed when the locks are gone. There is one for each file that
   is read while it is locked, and for each thread that reads it at the same time.
2. Where the system cannot tell of locks (all but Linux, whose OFD locks can), descriptors are closed at once.
3. A lock that is taken between the question and the close is lost: no system has an answer to that.

Thread safety: any number of threads may read and release; `_kept` is changed by single operations of a dict.
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

#: The bytes that SQLite locks: shared by who reads a file, for itself alone by who changes it.
_SHARED_FIRST = 0x40000002
_SHARED_SIZE = 510

#: How often, and after how many seconds, a file that is being changed is looked at again.
_TRIES = 20
_PAUSE = 0.05

_HEADER = 100

#: How the name of the file ends that lies beside that of a `SqliteStore`, and is the lock of its writer.
WRITER_LOCK = "-writer"


class OpenFile(FileIO):
    """A file that is closed when nobody holds it any more, should `release` have been broken off."""

    __del__ = FileIO.close  # written in C, so that nothing can break it off


#: Files that cannot be closed yet, each with its device and inode.
_kept: dict[OpenFile, tuple[int, int]] = {}


def read_regular(path: str, size: int = -1) -> bytes:
    """Return what a regular file holds, or its first bytes.

    Raises
    ------
    OSError
        If it is no regular file, or cannot be read.
    """
    file = _open(path)
    try:
        return file.read(size)
    finally:
        release(file)


def read_database(path: str, check_header: Callable[[bytes, int], None]) -> bytes:
    """Return what the file of a SQLite database holds, of one instant: nobody changes it meanwhile.

    Parameters
    ----------
    path : str
    check_header : callable
        Called with its first hundred bytes and its size before the rest is read; may raise.

    Raises
    ------
    OSError
        If it is being changed (EBUSY), also after a second of trying; if it cannot be read.
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
    """Tell whether a file is, or was, that of a `SqliteStore`, which other processes may have open."""
    return os.path.lexists(os.path.realpath(path) + WRITER_LOCK)


def check_unshared(path: str) -> None:
    """Raise OSError if a file is open as a `SqliteStore`: to replace it would lose commits.

    Those who have it open would go on with the old file, and what they have committed and not yet copied from
    the log into it would be gone with the log.
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
    """Give up SQLite's lock, and close a file, now or when that takes no locks away any more."""
    if file.closed:
        return
    _lock(file, "F_UNLCK")
    for other in list(_kept):
        # Taken out first, so that no other thread uses what is closed.
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
    """Open a regular file for reading, or use one that was kept."""
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
    # Should something else have come into the file's place, opening that neither waits nor makes it the
    # terminal of this process.
    return os.open(path, flags | flag("O_NONBLOCK") | flag("O_NOCTTY"))


def flag(name: str) -> int:
    """Return a flag of ``os.open``; 0 where the system has none of that name."""
    value: int = getattr(os, name, 0)
    return value


def check_regular(status: os.stat_result, path: str) -> None:
    """Raise OSError if something is no regular file."""
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is no regular file", path)


def _lock(file: OpenFile, kind: str) -> bool:
    """Take SQLite's lock of a reader, or give it back; return False if somebody is changing the file."""
    if not hasattr(fcntl, "F_OFD_SETLK"):
        return True
    wanted = struct.pack(_LOCK, getattr(fcntl, kind), os.SEEK_SET, _SHARED_FIRST, _SHARED_SIZE, 0)
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, wanted)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        pass  # a file system without locks: nobody has one
    return True


def _is_locked(file: OpenFile) -> bool:
    """Tell whether anybody has a POSIX lock on a file, this process or another."""
    if not hasattr(fcntl, "F_OFD_GETLK"):
        return False
    everything = struct.pack(_LOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        found: Any = fcntl.fcntl(file, fcntl.F_OFD_GETLK, everything)
    except OSError:
        return False  # a file system without locks
    return bool(struct.unpack(_LOCK, found)[0] != fcntl.F_UNLCK)
