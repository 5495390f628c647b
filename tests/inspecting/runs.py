"""A store to look at, and the command ``inspect`` as its user calls it."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from latchstore import DictMemoryStore, EventManager, SqliteStore, WorkQueue
from latchstore.__main__ import main
from latchstore.engine.transactional_store import TransactionalStore


def fill(store: TransactionalStore) -> None:
    """Put entries of all kinds into a store, and jobs of a queue in each state."""
    for number in range(12):
        state = "new" if number % 2 else "done"
        data = json.dumps({"number": number}).encode()
        store.set(f"user:{number:02}", (data, {"state": state, "number": number}))
    store.set("binary", (bytes(range(40)), {"size": (4, 10)}))
    store.set("text", ("ein Käse\n".encode(), {}))
    store.set("<b>\x1b[31mred", (b"x" * 5_000, {}))
    store.from_bytes("pickled", pickle.dumps({"a": [1]}))
    queue = WorkQueue(store, "mails", max_attempts=1)
    for number in range(4):
        queue.put({"to": number})
    queue.put({"to": "later"}, delay=1_000)
    with pytest.raises(ValueError, match="bad"), claimed(queue):
        raise ValueError("bad")
    claimed(queue)


def claimed(queue: WorkQueue[Any]) -> Any:
    """Return the next job of a queue."""
    job = queue.claim(timeout=0)
    assert job is not None
    return job


def saved_file(folder: Path) -> Path:
    """Return the file of a store in memory."""
    path = folder / "saved.db"
    with DictMemoryStore(EventManager()) as store:
        fill(store)
        store.save(path)
    return path


def shared_file(folder: Path) -> Path:
    """Return the file of a closed SqliteStore."""
    path = folder / "shared.db"
    with SqliteStore(path, EventManager(), indexes=["state"]) as store:
        fill(store)
    return path


class Run:
    """One call of ``inspect``: its exit code, and what it has printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: object) -> None:
        capsys.readouterr()
        self.code = main(["inspect", *map(str, arguments)])
        self.out, self.err = capsys.readouterr()

    @property
    def json(self) -> Any:
        """The output as JSON."""
        assert self.code == 0, self.err
        return json.loads(self.out)


def state_of(folder: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Return what a call could change of the files in a folder, but for the time when they were read.

    What SQLite has beside a file it gives the owner of the file if root opens it: that time does not count.
    """
    return {
        name: (
            status.st_mtime_ns,
            0 if name.endswith(("-wal", "-shm")) else status.st_ctime_ns,
            status.st_ino,
            (folder / name).read_bytes(),
        )
        for name in sorted(os.listdir(folder))
        for status in [os.stat(folder / name)]
    }
