"""Whether a file can be that of a store which processes share: looked at before SQLite opens it.

SQLite would open some of these, and fail later with an error that names no cause, or not fail and damage the
file:

1. Through a link the file is the one that the link leads to, for SQLite and for the lock of the one writer.
   A file that has two names has two logs, whose changes overwrite each other.
2. The log and its index lie beside the file, and even a reader writes to the index: so file and directory
   must be writable.
3. The index is memory that processes share, which those of two machines cannot. A file system whose kind is
   not known to be a network's is let through.

Thread safety: functions of what the system has.
"""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress

from latchstore.contract.file_locks import check_regular
from latchstore.contract.files import resolved

#: File systems of other machines, as Linux names them; of those in user space, what follows ``fuse.``.
_NETWORKS = (
    "9p afs beegfs ceph cifs coda davfs gfs2 glusterfs gpfs lustre ncpfs nfs nfs4 ocfs2 orangefs rclone "
    "s3fs smb smb2 smb3 smbfs sshfs virtiofs"
)
_OF_NETWORKS = frozenset(_NETWORKS.split())

#: What is written of a mount: its place, and after a dash the kind of the file system.
_MOUNT = re.compile(r"\S+ \S+ \S+ \S+ (?P<place>\S+) .*? - (?P<kind>\S+) ")

_WHY_WRITABLE = "SQLite's write-ahead log has to be written beside it, even to read"


def checked_file(path: str) -> str:
    """Return the path of a store's file, with no links in it; it may be there or not.

    Raises
    ------
    OSError
        If a file there could not be that of a store; names the path, and tells why.
    """
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
                "has another name (a hard link), whose users would have a log of their own",
                path,
            )
        _check_writable(file, path)
    _check_writable(directory, path)
    kind = network_of(directory)
    if kind is not None:
        raise OSError(
            errno.ENOTSUP,
            f"is on a network file system ({kind}), and SQLite's write-ahead log takes memory that only the "
            "processes of one machine share",
            path,
        )
    return file


def _check_writable(place: str, path: str) -> None:
    if os.access(place, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        return
    what = "the file" if place == os.path.realpath(path) else "the directory"
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, f"is on a read-only file system, and {_WHY_WRITABLE}", path)
    raise PermissionError(errno.EACCES, f"{what} may not be read and written, and {_WHY_WRITABLE}", path)


def network_of(directory: str, mounts: str | None = None) -> str | None:
    """Return the kind of the network file system that a directory is on, or None.

    Parameters
    ----------
    directory : str
        With no links in it.
    mounts : str, optional
        What ``/proc/self/mountinfo`` has; it is read if None. Where there is none, nothing is known.
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
        # The last one of the same place lies over the others.
        if len(place) >= longest and f"{directory}/".startswith(place.rstrip("/") + "/"):
            found, longest = mount["kind"], len(place)
    if found is None:
        return None
    return found if found.removeprefix("fuse.") in _OF_NETWORKS else None
