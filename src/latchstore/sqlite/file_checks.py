"""Checks, before SQLite opens a file, whether it can be that of a store which processes share.

SQLite would open some unsuitable files, and fail later with an error that names no cause, or damage the file:

1. A symbolic link is resolved, for SQLite and for the writer lock. A file with two names (hard links) has two
   logs, whose changes overwrite each other.
2. The log and its index are beside the file, and even a reader writes to the index: so file and directory
   must be writable.
3. The index is shared memory, which processes of two machines cannot share. A file system that is not known
   to be a network file system is accepted.

Thread safety: the functions have no state.
"""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress

from latchstore.contract.file_locks import check_regular
from latchstore.contract.files import resolved

#: Network file systems, by Linux's names; for those in user space, the part after ``fuse.``.
_NETWORKS = (
    "9p afs beegfs ceph cifs coda davfs gfs2 glusterfs gpfs lustre ncpfs nfs nfs4 ocfs2 orangefs rclone "
    "s3fs smb smb2 smb3 smbfs sshfs virtiofs"
)
_OF_NETWORKS = frozenset(_NETWORKS.split())

#: The format of a mount: its directory, and after a dash the kind of the file system.
_MOUNT = re.compile(r"\S+ \S+ \S+ \S+ (?P<place>\S+) .*? - (?P<kind>\S+) ")

_WHY_WRITABLE = "SQLite's write-ahead log has to be written beside it, even to read"


def checked_file(path: str) -> str:
    """Return the path of a store's file with links resolved; the file may exist or not.

    Raises
    ------
    OSError
        If an existing file cannot be that of a store; the error has the path and the reason.
    ValueError
        If the path is SQLite's name of a database in memory.
    """
    if path == ":memory:":
        raise ValueError(
            "path must be that of a file, got ':memory:': for a store in memory, use DictMemoryStore"
        )
    file = resolved(path)
    directory = os.path.dirname(file)
    if not os.path.isdir(directory):
        number = errno.ENOTDIR if os.path.exists(directory) else errno.ENOENT
        raise OSError(number, os.strerror(number), path)
    with suppress(FileNotFoundError):
        status = os.stat(file)
        check_regular(status, path)
        if status.st_nlink > 1:
            raise OSError(
                errno.EMLINK,
                "has another name (a hard link), whose users would use another log",
                path,
            )
        _check_writable(file, path)
    _check_writable(directory, path)
    kind = network_of(directory)
    if kind is not None:
        raise OSError(
            errno.ENOTSUP,
            f"is on a network file system ({kind}), and SQLite's write-ahead log uses memory that only "
            "processes of one machine can share",
            path,
        )
    return file


def _check_writable(place: str, path: str) -> None:
    if os.access(place, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        return
    what = "the file" if place == os.path.realpath(path) else "the directory"
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, f"is on a read-only file system, and {_WHY_WRITABLE}", path)
    raise PermissionError(errno.EACCES, f"{what} is not readable and writable, and {_WHY_WRITABLE}", path)


def network_of(directory: str, mounts: str | None = None) -> str | None:
    """Return the kind of the network file system of a directory, or None.

    Parameters
    ----------
    directory : str
        With links resolved.
    mounts : str, optional
        Contents of ``/proc/self/mountinfo``, which is read if None. None is returned if it does not exist.
    """
    if mounts is None:
        try:
            with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
                mounts = file.read()
        except OSError:
            return None
    found = None
    longest = -1
    for line in mounts.splitlines():
        mount = _MOUNT.match(line)
        if mount is None:
            continue
        place = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), mount["place"])
        # Of mounts on one directory, the last one hides the others.
        if len(place) >= longest and f"{directory}/".startswith(place.rstrip("/") + "/"):
            found, longest = mount["kind"], len(place)
    if found is None:
        return None
    return found if found.removeprefix("fuse.") in _OF_NETWORKS else None
