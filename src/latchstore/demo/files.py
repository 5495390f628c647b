"""Finding files and reading them, without ever opening what is no regular file."""

from __future__ import annotations

import errno
import os
import stat
import sysconfig
from dataclasses import dataclass
from pathlib import PurePath

# Opening must not wait (a pipe that took the place of a file would), and must not make a terminal ours.
_OPEN_FLAGS = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)

_KINDS = {
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
    stat.S_IFDIR: "directory",
}


class UnreadableError(OSError):
    """A file is not read, for the reason that the text gives."""


@dataclass(frozen=True, slots=True)
class File:
    """A file that was found: where it is, and its key in the store."""

    path: str
    key: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that was not loaded, or not compared, and why."""

    key: str
    reason: str


def what_to_load(directory: str | None) -> tuple[str, frozenset[str]]:
    """Return the directory, by default that of the standard library, and the names in it to leave out.

    Installed packages lie inside the standard library's directory, but are no part of it.
    """
    if directory is not None:
        return directory, frozenset()
    library = sysconfig.get_path("stdlib")
    packages = {"site-packages", "dist-packages"}
    return library, frozenset(packages.intersection(os.listdir(library)))


def why_unusable(root: str) -> str | None:
    """Say in a few words why the directory cannot be loaded; None if it can."""
    try:
        os.scandir(root).close()
    except (OSError, ValueError) as error:  # ValueError: a null byte
        return getattr(error, "strerror", None) or str(error)
    return None


def find_files(root: str, left_out: frozenset[str]) -> tuple[list[File], list[Skipped]]:
    """List what is below a directory, without opening any of it.

    What `left_out` names is left out at the top only. The files are sorted; their keys are the paths below
    `root`, with forward slashes. Skipped are directories that cannot be listed, and links to directories.
    """
    files: list[File] = []
    skipped: list[Skipped] = []

    def key_of(path: str) -> str:
        return os.path.relpath(path, root).replace(os.sep, "/")

    def cannot_list(error: OSError) -> None:
        path = os.fsdecode(error.filename)
        skipped.append(Skipped(key_of(path), reason_of(error, path)))

    for directory, subdirectories, names in os.walk(root, onerror=cannot_list):
        if directory == root:
            subdirectories[:] = [name for name in subdirectories if name not in left_out]
            names = [name for name in names if name not in left_out]
        subdirectories.sort()
        prefix = "" if directory == root else key_of(directory) + "/"
        files.extend(File(os.path.join(directory, name), prefix + name) for name in sorted(names))
        skipped.extend(
            Skipped(prefix + name, "link to a directory, not followed")
            for name in subdirectories
            if os.path.islink(os.path.join(directory, name))
        )
    return files, skipped


def read_file(path: str, limit: int) -> tuple[bytes, os.stat_result]:
    """Return the data of a file, and its status from before it was read.

    Raises OSError, which is UnreadableError if it is no regular file or has more than `limit` bytes.
    """
    _require_regular(os.stat(path), limit)
    with open(path, "rb", opener=lambda path, flags: os.open(path, flags | _OPEN_FLAGS)) as file:
        status = os.fstat(file.fileno())
        _require_regular(status, limit)
        # One byte more than there should be tells the end; a file that grows is read to its new end.
        data = file.read(status.st_size + 1)
        if data is not None and len(data) > status.st_size:
            data += file.read(limit + 1 - len(data))
    if data is None:
        raise UnreadableError("gives no data")
    _require_size(len(data), limit)
    return data, status


def _require_regular(status: os.stat_result, limit: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "special file")
        raise UnreadableError(f"no regular file but a {kind}")
    _require_size(status.st_size, limit)


def _require_size(size: int, limit: int) -> None:
    if size > limit:
        raise UnreadableError(f"larger than {limit:,} bytes")


def reason_of(error: OSError, path: str) -> str:
    """Say in a few words why a file could not be read."""
    if isinstance(error, PermissionError):
        return "no permission"
    if isinstance(error, FileNotFoundError):
        return "broken link" if os.path.islink(path) else "vanished"
    return "link to itself" if error.errno == errno.ELOOP else error.strerror or str(error)


def suffix_of(key: str) -> str:
    """Return the suffix of a file's name, with its dot; empty if there is none."""
    return PurePath(key).suffix


def signature_of(status: os.stat_result) -> tuple[int, ...]:
    """Return what changes whenever a file does, but for changes within a tick of the file system's clock."""
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
