"""The mutants: what is broken in each, as replacements of source text.

A replacement must be found exactly once in its file; test_mutants.py sees to that.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import latchstore

PACKAGE = Path(latchstore.__file__).parent


@dataclass(frozen=True)
class Edit:
    """One replacement in one file of the package."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    """One way to break the store.

    Attributes
    ----------
    name : str
    what : str
        What the mutant does, in a few words.
    workload : str
        The workload that is to find it.
    edits : tuple of Edit
    """

    name: str
    what: str
    workload: str
    edits: tuple[Edit, ...]

    def write(self, directory: Path) -> None:
        """Write the broken package into a directory."""
        target = directory / "latchstore"
        shutil.copytree(PACKAGE, target, ignore=shutil.ignore_patterns("__pycache__", "demo"))
        for edit in self.edits:
            path = target / edit.file
            text = path.read_text(encoding="utf-8")
            if text.count(edit.old) != 1:
                raise ValueError(f"{self.name}: {edit.file} has {text.count(edit.old)} times {edit.old!r}")
            path.write_text(text.replace(edit.old, edit.new), encoding="utf-8")


_ACQUIRE = "                now = latches.writer.acquire_as_writer(claim, latches.timeout)\n"

_END_OF_WRITE_ONE = """            raise
        if heard:
            self._dispatcher.start_if_needed()
"""

_TELLING = """                if heard or self._feed.active:
                    self._committing = _Committing((change,), revision, heard, None)
                    self._tell(claim)
"""

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "write without lock",
        "a write of one key does not take the writer mutex",
        "compare-and-set",
        (
            Edit(
                "memory.py",
                _ACQUIRE,
                _ACQUIRE.replace("latches.writer.acquire_as_writer(claim, latches.timeout)", "time.time()"),
            ),
        ),
    ),
    Mutant(
        "read lock for a write",
        "changes are applied under the read side of the table lock",
        "scans",
        (
            Edit(
                "locking.py",
                "        self.write_handle = lock.gen_wlock()\n",
                "        self.write_handle = lock.gen_rlock()\n",
            ),
        ),
    ),
    Mutant(
        "check, then act",
        "if_revision is looked at in one acquisition of the mutex, and the write made in another",
        "compare-and-set",
        (
            Edit(
                "memory.py",
                _ACQUIRE,
                "                if hasattr(edit, 'edit'):\n"
                "                    old = self._entries.get(key)\n"
                "                    latches.writing(purpose, edit.revise, key, old, 1, 1.0)\n"
                "                    edit = edit.edit\n" + _ACQUIRE,
            ),
        ),
    ),
    Mutant(
        "data and metadata apart",
        "set writes the data in one commit and the metadata in another",
        "registers",
        (
            Edit(
                "entry_store.py",
                '        self._write_one(key, edit, "set")\n',
                "        data, metadata = edit.data, edit.isolated_metadata()\n"
                "        if if_revision is None and self.exists(key):\n"
                "            self.from_bytes(key, data)\n"
                "            self.set_metadata(key, metadata)\n"
                "            return\n"
                '        self._write_one(key, edit, "set")\n',
            ),
        ),
    ),
    Mutant(
        "many keys read without lock",
        "a read of several keys does not look whether a commit came between",
        "transactions",
        (
            Edit(
                "memory.py",
                "        if found is None or type(self._gate) is _Applying or table.revision != revision:\n",
                "        if found is None:\n",
            ),
        ),
    ),
    Mutant(
        "iteration without lock",
        "a query looks through the entries without the table lock",
        "scans",
        (
            Edit(
                "memory.py",
                "            return transaction._candidates(terms)\n"
                "        return self._latches.table.reading(self._table.candidates, terms)\n",
                "            return transaction._candidates(terms)\n"
                "        return self._table.candidates(terms)\n",
            ),
        ),
    ),
    Mutant(
        "commit applied key by key",
        "the changes of a transaction are applied one after the other",
        "transactions",
        (
            Edit(
                "memory.py",
                "            self._apply(batch, batch.revision)\n",
                "            for key, new in batch.after.items():\n"
                "                one = WriteBatch(self._entries, batch.revision)\n"
                "                one.before, one.after = batch.before, {key: new}\n"
                "                self._apply(one, batch.revision)\n",
            ),
        ),
    ),
    Mutant(
        "event queued late",
        "the event of a write is queued after the mutex was given back",
        "events",
        (
            Edit(
                "memory.py",
                _TELLING,
                "                committing = _Committing((change,), revision, heard, None)\n",
            ),
            Edit(
                "memory.py",
                _END_OF_WRITE_ONE,
                "            raise\n"
                "        for delivery in self._deliveries_of(committing):\n"
                "            self._dispatcher.submit(delivery)\n"
                "        if self._feed.active:\n"
                "            self._feed.publish(Commit(revision, [change], None))\n"
                "        if heard:\n"
                "            self._dispatcher.start_if_needed()\n",
            ),
        ),
    ),
    Mutant(
        "locks in two orders",
        "watch() takes the feed lock before the table lock, and commits the other way round",
        "events",
        (
            Edit(
                "memory.py",
                "        watch.begin(self._latches.table.excluding(self._add_buffer, buffer, since))\n",
                "        self._feed._feed_latch.during(self._latches.writing, 'watch', int)\n"
                "        watch.begin(self._latches.table.excluding(self._add_buffer, buffer, since))\n",
            ),
        ),
    ),
    Mutant(
        "nested read lock",
        "a query takes the read side of the table lock twice",
        "scans",
        (
            Edit(
                "memory.py",
                "        return self._latches.table.reading(self._table.candidates, terms)\n",
                "        read = self._latches.table.reading\n"
                "        return read(lambda: read(self._table.candidates, terms))\n",
            ),
        ),
    ),
    Mutant(
        "rollback leaves a key",
        "an inner block that is rolled back keeps its first change",
        "transactions",
        (
            Edit(
                "batch.py",
                "        while len(undo) > savepoint:\n",
                "        while len(undo) > savepoint + 1:\n",
            ),
        ),
    ),
    Mutant(
        "event on rollback",
        "a transaction that is rolled back tells of its changes",
        "events",
        (
            Edit(
                "transaction.py",
                "                    self._tell_failure()\n",
                "                    self._tell_failure()\n"
                "                    from latchstore.engine.memory import _Committing\n"
                "                    made = _Committing(batch.net_changes(), batch.revision, True, None)\n"
                "                    for delivery in self._store._deliveries_of(made):\n"
                "                        self._store._queue(delivery)\n",
            ),
        ),
    ),
    Mutant(
        "event lost",
        "a commit that finds another one's events being heard queues none",
        "events",
        (
            Edit(
                "memory.py",
                _TELLING,
                "                heard = heard and self._dispatcher._delivering is None\n" + _TELLING,
            ),
        ),
    ),
    Mutant(
        "event twice",
        "a commit that finds the queue empty queues its events twice",
        "events",
        (
            Edit(
                "memory.py",
                _TELLING,
                _TELLING + "                if heard and self._dispatcher._queue.empty():\n"
                "                    self._dispatcher.submit(\n"
                "                        CommitDelivery(self.event_manager, self, [change], revision, None)\n"
                "                    )\n",
            ),
        ),
    ),
    Mutant(
        "live metadata",
        "get_metadata hands out the dictionary of the entry itself",
        "registers",
        (
            Edit(
                "entry_store.py",
                "            return self._entry(key).isolated_metadata()\n        names",
                "            return self._entry(key)\n        names",
            ),
        ),
    ),
    Mutant(
        "lock kept on exception",
        "a write that raises does not give the mutex back",
        "registers",
        (
            Edit(
                "memory.py",
                "            except BaseException:\n"
                "                self._end_write_after_error(claim, change)\n"
                "                raise\n"
                "        except BaseException:\n"
                "            surely(self._end_write_after_error, claim, change)\n"
                "            raise\n"
                "        if heard:\n",
                "            except BaseException:\n"
                "                raise\n"
                "        except BaseException:\n"
                "            raise\n"
                "        if heard:\n",
            ),
        ),
    ),
    Mutant(
        "dirty read",
        "to_bytes sees what an open transaction has not committed",
        "transactions",
        (
            Edit(
                "memory.py",
                "        try:\n            data = self._entries[key].data  # type: ignore[union-attr]\n",
                "        try:\n"
                "            for block in list(self._open_transactions.values()):\n"
                "                batch = getattr(block(), '_batch', None)\n"
                "                if batch is not None and batch.current(key) is not None:\n"
                "                    return batch.current(key).data\n"
                "            data = self._entries[key].data  # type: ignore[union-attr]\n",
            ),
        ),
    ),
    Mutant(
        "stale read",
        "to_bytes remembers what it read, until the store has had two more commits",
        "registers",
        (
            Edit(
                "memory.py",
                "        try:\n            data = self._entries[key].data  # type: ignore[union-attr]\n",
                "        known = self.__dict__.setdefault('_known', {})\n"
                "        if known.get(key, (b'', -1))[1] == self._table.revision // 2:\n"
                "            return known[key][0]\n"
                "        try:\n"
                "            data = self._entries[key].data  # type: ignore[union-attr]\n"
                "            known[key] = data, self._table.revision // 2\n",
            ),
        ),
    ),
)
