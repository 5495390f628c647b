"""A file that is replaced whole: the new one is there, or the old one as it was, whatever happens meanwhile.

The new file is written beside the old one, as ``NAME.<16 hexadecimal digits>.unfinished``, flushed to the
disk and renamed. Rules:

1. The unfinished file is always a new one (``O_EXCL``, ``O_NOFOLLOW``) with a name that nobody can guess, so
   what others have put there (a pipe, a link, a device) is never opened. A name that would be longer than the
   file system takes is cut.
2. From its first moment nobody may read it who may not read the old file. If its group is not yet that of the
   old file, the group may do nothing until it is. Its owner may read and write it until it is whole.
3. Owner and group are kept where the system lets this process set them, the mode always. Without the owner
   set-user-id and set-group-id go.
4. Its first byte is locked (``lockf``) by the process that writes it, whose end, however it comes, ends the
   lock: children have no part in it. So an unfinished file that nobody has locked was left by a process that
   was killed, and the next replacement of the same file removes it. A process does not ask for locks on
   files that it writes itself (`_being_written`), since to ask would end them.
5. What SQLite has left beside the old file (``-wal``, ``-shm``, ``-journal``) would be applied to the new
   one, so it is removed when the new file is there. It is known by its first bytes, not by its name alone.

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
except ImportError:  # Windows, where leftovers stay
    fcntl = None  # type: ignore[assignment]

#: What the name of an unfinished file has beside that of the file.
_MARK = re.compile(r"\.[0-9a-f]{16}\.unfinished")
_MARK_LENGTH = len(".0123456789abcdef.unfinished")

#: The longest name where the system does not tell.
_LONGEST_NAME = 255

#: The first bytes of SQLite's files beside a database; that of the last one depends on the machine.
SIDE_FILES: dict[str, tuple[bytes, ...]] = {
    "-wal": (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83"),
    "-journal": (b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7",),
    "-shm": ((3007000).to_bytes(4, "little"), (3007000).to_bytes(4, "big")),
}


#: Errors that come from what is to be written: a network, a lock.
_OTHERS = (ConnectionError, TimeoutError)


class Closable(Protocol):
    """What has to be open until the file has its name."""

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

#: The names of those that are about to be there.
_being_made: set[str] = set()


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Have errors of the system name this path: what is read and written has others, or none."""
    try:
        yield
    except OSError as error:
        if error.filename == path or error.errno is None or isinstance(error, _OTHERS):
            raise
        raise OSError(error.errno, error.strerror, path) from error


def replace_file(path: str, write: Callable[[Unfinished], Closable | None]) -> None:
    """Replace a file, or what a link leads to, or make a new one.

    Parameters
    ----------
    path : str
    write : callable
        Writes the new file, which is open and empty, or another file of the same name. What it returns is
        closed when the file has been renamed.

    Raises
    ------
    OSError
        If the file cannot be written, or is no regular one; its ``filename`` is `path`. The old one is there.
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
    """Replace a file by what a stream has; what is no regular file is written to as it is."""
    target = resolved(path)
    if os.path.exists(target) and not os.path.isfile(target):
        with _naming(path), open(target, "wb") as file:
            _copy(stream, file.write, buffer_size)
        return

    def copy(unfinished: Unfinished) -> None:
        _copy(stream, functools.partial(write_all, unfinished), buffer_size)

    replace_file(path, copy)


def _copy(stream: BinaryIO, write: Callable[[bytes], object], buffer_size: int) -> None:
    # By itself: Python lets what is raised at the end of a loop past the ``with`` around it.
    while block := stream.read(buffer_size):
        write(block)


def content_of(path: str, buffer_size: int) -> bytes:
    """Return what a file holds; a pipe or device is read to its end, in blocks."""
    with _naming(path):
        if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
            with open(path, "rb", buffering=0) as file:
                return read_all(file, buffer_size)
        return read_regular(path)


def resolved(path: str) -> str:
    """Return the path of a file that is to be written, with no links in it.

    Raises
    ------
    OSError
        If it can be no file's, as it ends in a slash for instance.
    """
    if not path:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if os.path.split(path)[1] in ("", os.curdir, os.pardir):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    return os.path.realpath(path)


def write_all(file: Unfinished, data: bytes) -> None:
    """Write bytes to a file, all of them."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def is_side_file(path: str, beginnings: tuple[bytes, ...]) -> bool:
    """Tell whether a file is one of SQLite's beside a database, with something in it."""
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
        # Open until the rename: to close any other descriptor of the file would end its lock.
        held = write(file)
        os.fsync(file.fileno())
        _set_mode(file, mode)
        if fcntl is None:  # Windows does not rename a file that is open
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
    """Make an empty file beside the target, since it could not be renamed from elsewhere, and lock it."""
    stem = _stem(target)
    mode = _first_mode(target, old)

    def create(name: str, flags: int) -> int:
        return os.open(name, flags | flag("O_NOFOLLOW"), mode)

    while True:
        name = f"{stem}.{os.urandom(8).hex()}.unfinished"
        # Before it is there: another thread may remove leftovers, and locks keep out other processes only.
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
            file.close()  # who removes leftovers was quicker, and removes this one
            continue
        except OSError:
            return file  # no locks on this file system, where nobody removes anything
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # it has been removed before it was locked


def _unlock(file: Unfinished) -> None:
    if fcntl is not None and not file.closed:
        with suppress(OSError):
            fcntl.lockf(file, fcntl.LOCK_UN, 1)


def _stem(target: str) -> str:
    """Return the path of the target with a name that is short enough for the mark to be added to it."""
    directory, name = os.path.split(target)
    try:
        longest = os.pathconf(directory, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):
        longest = _LONGEST_NAME
    while len(os.fsencode(name)) > longest - _MARK_LENGTH:
        name = name[:-1]
    return os.path.join(directory, name)


def _first_mode(target: str, old: os.stat_result | None) -> int:
    """Return the mode that an unfinished file is made with."""
    if old is None:
        return 0o666
    if os.name != "posix":
        return 0o600
    directory = os.stat(os.path.dirname(target))
    group = directory.st_gid if directory.st_mode & stat.S_ISGID else os.getegid()
    return 0o600 | (old.st_mode & (0o777 if group == old.st_gid else 0o707))


def _take_ownership(file: Unfinished, old: os.stat_result | None) -> int:
    """Give the new file the owner of the old one, and its mode, as far as that is allowed.

    Returns
    -------
    mode : int
        What the mode has to be when the file is renamed.
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
    """Remove the unfinished files of this target that killed processes have left."""
    if fcntl is None:
        return
    stem = _stem(target)
    directory, beginning = os.path.split(stem)
    try:
        names = os.listdir(directory)
    except OSError:
        return  # it cannot be listed; whether it can be written to will be seen
    for name in names:
        if not name.startswith(beginning) or not _MARK.fullmatch(name, len(beginning)):
            continue
        path = os.path.join(directory, name)
        if path in _being_made:
            continue  # to be asked first: a file goes from there to the other ones
        own = _being_written.get(path)
        if own is None or own.pid != os.getpid():
            with suppress(OSError):  # being written, another user's, or just finished
                _remove_leftover(path)


def _remove_leftover(path: str) -> None:
    if not stat.S_ISREG(os.lstat(path).st_mode):
        return  # none of ours
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
    """Have the new name on the disk as well."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return  # Windows does not let a directory be opened
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
