"""Replace files atomically: afterwards either the complete new file or the unchanged old one is there.

The new file is written beside the old one, as ``NAME.<16 hexadecimal digits>.unfinished``, flushed to the
disk and renamed. Rules:

1. The unfinished file is always created new (``O_EXCL``, ``O_NOFOLLOW``) under an unguessable name, so a
   pipe, link or device that others have put there is never opened. A name that would be too long for the file
   system is shortened.
2. From its creation, only users who may read the old file can read it. Until its group is that of the old
   file, the group has no permissions. Its owner may read and write it until it is complete.
3. Owner and group are kept where the system lets this process set them, the mode always. If the owner
   cannot be kept, set-user-id and set-group-id are cleared.
4. The writing process locks its first byte (``lockf``). The lock ends with the process, however it ends;
   children do not inherit it. So an unfinished file that is not locked was left by a killed process, and the
   next replacement of the same file removes it. A process never tests the locks of files that it writes
   itself (`_being_written`), since the test would release them.
5. SQLite would apply files that it has left beside the old file (``-wal``, ``-shm``, ``-journal``) to the new
   one, so they are removed once the new file is in place. They are recognized by their first bytes, not by
   their names alone.

Thread safety: any number of threads and processes may replace a file at the same time; the last to finish
wins.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import stat
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, Protocol

from latchstore.contract.arguments import read_all
from latchstore.contract.file_locks import OpenFile, check_regular, flag, read_regular, release

try:
    import fcntl
except ImportError:  # Windows, where leftovers are not removed
    fcntl = None  # type: ignore[assignment]

#: The suffix of an unfinished file.
_MARK = re.compile(r"\.[0-9a-f]{16}\.unfinished")
_MARK_LENGTH = len(".0123456789abcdef.unfinished")

#: The longest name of a file, where the system does not report it.
_LONGEST_NAME = 255

#: The first bytes of SQLite's files beside a database; those of the last one depend on the machine.
SIDE_FILES: dict[str, tuple[bytes, ...]] = {
    "-wal": (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83"),
    "-journal": (b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7",),
    "-shm": ((3007000).to_bytes(4, "little"), (3007000).to_bytes(4, "big")),
}


#: Errors of what is written, such as a network stream or a lock, not of the file.
_OTHERS = (ConnectionError, TimeoutError)


class Closable(Protocol):
    """An object that must stay open until the file is renamed."""

    def close(self) -> object: ...


class Unfinished(OpenFile):
    """A file that is being written.

    Attributes
    ----------
    pid : int
        The process that writes it.
    """

    pid: int


#: The unfinished files of this process, by name.
_being_written: weakref.WeakValueDictionary[str, Unfinished] = weakref.WeakValueDictionary()

#: The names of unfinished files that are about to be created.
_being_made: set[str] = set()


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Make system errors name this path: the files that are read and written have other names or none."""
    try:
        yield
    except OSError as error:
        if error.filename == path or error.errno is None or isinstance(error, _OTHERS):
            raise
        raise OSError(error.errno, error.strerror, path) from error


def replace_file(path: str, write: Callable[[Unfinished], Closable | None]) -> None:
    """Replace a file, or the target of a link, or create it.

    Parameters
    ----------
    path : str
    write : callable
        Writes the new file, which is open and empty, or another file of the same name. Its result is closed
        after the rename.

    Raises
    ------
    OSError
        If the file cannot be written, or is not a regular file; ``filename`` is `path`. The old file is kept.
    """
    target = resolved(path)
    with _naming(path):
        old = _status(target)
        if old is not None:
            check_regular(old, path)
        _remove_leftovers(target)
        file = _begin(target, old)
        try:
            _write_and_rename(file, target, old, write)
        finally:
            _being_written.pop(file.name, None)
            _unlock(file)
            release(file)
    _remove_side_files(target)
    _flush_directory(os.path.dirname(target))


def copy_to_file(stream: BinaryIO, path: str, buffer_size: int) -> None:
    """Replace a file by the content of a stream; a file that is not regular is written to directly."""
    target = resolved(path)
    if os.path.exists(target) and not os.path.isfile(target):
        with _naming(path), open(target, "wb") as file:
            _copy(stream, file.write, buffer_size)
        return

    def copy(unfinished: Unfinished) -> None:
        _copy(stream, functools.partial(write_all, unfinished), buffer_size)

    replace_file(path, copy)


def _copy(stream: BinaryIO, write: Callable[[bytes], object], buffer_size: int) -> None:
    # A function of its own: an exception raised at the end of a loop escapes a ``with`` around it.
    while block := stream.read(buffer_size):
        write(block)


def content_of(path: str, buffer_size: int) -> bytes:
    """Return the content of a file; a pipe or device is read to its end, in blocks."""
    with _naming(path):
        if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
            with open(path, "rb", buffering=0) as file:
                return read_all(file, buffer_size)
        return read_regular(path)


def resolved(path: str) -> str:
    """Return the path of a file to write, with links resolved.

    Raises
    ------
    OSError
        If the path cannot be that of a file, for instance because it ends in a slash.
    """
    if not path:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if os.path.split(path)[1] in ("", os.curdir, os.pardir):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    return os.path.realpath(path)


def write_all(file: Unfinished, data: bytes) -> None:
    """Write all of the bytes to a file."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def is_side_file(path: str, beginnings: tuple[bytes, ...]) -> bool:
    """Return whether a file is one of SQLite's side files of a database, and not empty."""
    try:
        return read_regular(path, 8).startswith(beginnings)
    except OSError:
        return False


def _status(target: str) -> os.stat_result | None:
    try:
        return os.stat(target)
    except FileNotFoundError:
        return None


def _write_and_rename(
    file: Unfinished,
    target: str,
    old: os.stat_result | None,
    write: Callable[[Unfinished], Closable | None],
) -> None:
    held: Closable | None = None
    try:
        mode = _take_ownership(file, old)
        # It stays open until the rename: closing any other descriptor of the file would release its lock.
        held = write(file)
        os.fsync(file.fileno())
        _set_mode(file, mode)
        if fcntl is None:  # Windows does not rename open files
            if held is not None:
                held.close()
            file.close()
        os.replace(file.name, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(file.name)
        raise
    finally:
        if held is not None:
            held.close()


def _begin(target: str, old: os.stat_result | None) -> Unfinished:
    """Create an empty file beside the target, where it can be renamed from, and lock it."""
    stem = _stem(target)
    mode = _first_mode(target, old)

    def create(name: str, flags: int) -> int:
        return os.open(name, flags | flag("O_NOFOLLOW"), mode)

    while True:
        name = f"{stem}.{os.urandom(8).hex()}.unfinished"
        # Added before the file exists: another thread may remove leftovers, and locks exclude processes only.
        _being_made.add(name)
        try:
            file = Unfinished(name, "xb+", opener=create)
            file.pid = os.getpid()
            _being_written[name] = file
        finally:
            _being_made.discard(name)
        if fcntl is None:
            return file
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
        except (BlockingIOError, PermissionError):
            file.close()  # a process that removes leftovers has locked it, and removes it
            continue
        except OSError:
            return file  # a file system without locks, where leftovers are not removed
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # it was removed before it was locked


def _unlock(file: Unfinished) -> None:
    if fcntl is not None and not file.closed:
        with suppress(OSError):
            fcntl.lockf(file, fcntl.LOCK_UN, 1)


def _stem(target: str) -> str:
    """Return the path of the target with its name shortened so that the suffix fits."""
    directory, name = os.path.split(target)
    try:
        longest = os.pathconf(directory, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):
        longest = _LONGEST_NAME
    while len(os.fsencode(name)) > longest - _MARK_LENGTH:
        name = name[:-1]
    return os.path.join(directory, name)


def _first_mode(target: str, old: os.stat_result | None) -> int:
    """Return the mode that an unfinished file is created with."""
    if old is None:
        return 0o666
    if os.name != "posix":
        return 0o600
    directory = os.stat(os.path.dirname(target))
    group = directory.st_gid if directory.st_mode & stat.S_ISGID else os.getegid()
    return 0o600 | (old.st_mode & (0o777 if group == old.st_gid else 0o707))


def _take_ownership(file: Unfinished, old: os.stat_result | None) -> int:
    """Give the new file the owner and mode of the old one, as far as permitted.

    Returns
    -------
    mode : int
        The mode that the file must have when it is renamed.
    """
    new = os.fstat(file.fileno())
    mode = stat.S_IMODE(new.st_mode if old is None else old.st_mode)
    if os.name == "posix" and old is not None and (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
        for owner in (old.st_uid, -1):
            with suppress(OSError):
                os.fchown(file.fileno(), owner, old.st_gid)
                break
        new = os.fstat(file.fileno())
        if new.st_uid != old.st_uid:
            mode &= ~stat.S_ISUID
        if new.st_gid != old.st_gid:
            mode &= ~stat.S_ISGID
    _set_mode(file, mode | 0o600)
    return mode


def _set_mode(file: Unfinished, mode: int) -> None:
    if os.name == "posix" and stat.S_IMODE(os.fstat(file.fileno()).st_mode) != mode:
        with suppress(PermissionError):  # a file system without modes
            os.fchmod(file.fileno(), mode)


def _remove_leftovers(target: str) -> None:
    """Remove the unfinished files of this target that killed processes left behind."""
    if fcntl is None:
        return
    stem = _stem(target)
    directory, beginning = os.path.split(stem)
    try:
        names = os.listdir(directory)
    except OSError:
        return  # the directory cannot be listed; writing to it may still succeed
    for name in names:
        if not name.startswith(beginning) or not _MARK.fullmatch(name, len(beginning)):
            continue
        path = os.path.join(directory, name)
        if path in _being_made:
            continue  # checked first, since a file moves from `_being_made` to `_being_written`
        own = _being_written.get(path)
        if own is None or own.pid != os.getpid():
            with suppress(OSError):  # being written, another user's, or just finished
                _remove_leftover(path)


def _remove_leftover(path: str) -> None:
    if not stat.S_ISREG(os.lstat(path).st_mode):
        return  # not one of ours
    file = OpenFile(path, opener=_open_leftover)
    try:
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB, 1)
        os.unlink(path)
    finally:
        file.close()


def _open_leftover(path: str, flags: int) -> int:
    return os.open(path, flags | flag("O_NOFOLLOW") | flag("O_NONBLOCK") | flag("O_NOCTTY"))


def _remove_side_files(target: str) -> None:
    for suffix, beginnings in SIDE_FILES.items():
        if is_side_file(target + suffix, beginnings):
            with suppress(OSError):  # `load` does not look at them
                os.unlink(target + suffix)


def _flush_directory(path: str) -> None:
    """Flush the directory, so that the new name is on the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return  # Windows cannot open directories
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
