"""From the disk into the store, and what is in the store held against the disk."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from queue import SimpleQueue

from latchstore.demo.checks import Check, sha256
from latchstore.demo.files import File, Skipped, read_file, reason_of, signature_of, suffix_of
from latchstore.engine.memory import DictMemoryStore

#: A file that was changed less than this many seconds before it was read may change again without a new
#: time stamp, since the clock of the file system ticks slowly.
CLOCK_TICK = 0.05


@dataclass(frozen=True, slots=True)
class Record:
    """What the loader remembers of a file that it has stored, to check the store by.

    A young file was changed so shortly before it was read that another change may not show in `signature`.
    """

    file: File
    size: int
    sha256: str
    signature: tuple[int, ...]
    young: bool


def load(
    store: DictMemoryStore, limit: int, stored: SimpleQueue[File | None], file: File
) -> Record | Skipped:
    """Read a file of at most `limit` bytes, and put it into the store and then into the queue."""
    try:
        data, status = read_file(file.path, limit)
    except OSError as error:
        return Skipped(file.key, reason_of(error, file.path))
    digest = sha256(data)
    metadata = {
        "path": file.path,
        "suffix": suffix_of(file.key),
        "size": len(data),
        "mtime": status.st_mtime,
        "sha256": digest,
    }
    young = status.st_mtime > time.time() - CLOCK_TICK
    store.set(file.key, (data, metadata))
    stored.put(file)
    return Record(file, len(data), digest, signature_of(status), young)


def compare(store: DictMemoryStore, limit: int, check: Check, record: Record) -> Skipped | None:
    """Hold a file in the store against the disk; return a note if it has changed there since the load.

    The check fails if the store does not give what the file held when it was loaded.
    """
    file = record.file
    try:
        stored = store.to_bytes(file.key)
    except KeyError:
        check.fail(f"{file.key} is not in the store")
        return None
    if sha256(stored) != record.sha256:
        check.fail(f"{file.key} is not what was stored")
        return None
    try:
        data, status = read_file(file.path, limit)
        # The bytes may come from a moment between two changes, so the status is asked for again.
        signatures = {record.signature, signature_of(status), signature_of(os.stat(file.path))}
    except OSError as error:
        return Skipped(file.key, reason_of(error, file.path))
    if data == stored:
        return None
    if len(signatures) > 1 or record.young or len(data) != status.st_size:
        return Skipped(file.key, "other content now")
    check.fail(f"{file.key} differs from the file")
    return None
