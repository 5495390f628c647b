"""The run itself: load, retag, flush, and hold the results against each other."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from functools import partial
from queue import SimpleQueue

from latchstore.demo.checks import Reader, RetagWatch, SuffixCounter
from latchstore.demo.disk import Record, compare, load
from latchstore.demo.files import File, Skipped, find_files, suffix_of
from latchstore.demo.pool import map_in_pool, side_by_side
from latchstore.demo.report import Report, counted, label, most_common, rate
from latchstore.demo.screen import Screen
from latchstore.engine.memory import DictMemoryStore

#: Seconds that the listener may take to hear the rest of the events.
FLUSH_TIMEOUT = 300.0


class Demo:
    """One run, with a store that is empty and nobody else's."""

    def __init__(self, store: DictMemoryStore, arguments: argparse.Namespace, screen: Screen) -> None:
        self._store = store
        self._writers: int = arguments.writers
        self._readers: int = arguments.readers
        self._limit: int = arguments.max_bytes_per_file
        self._screen = screen
        self._report = Report()
        self._checks = self._report.checks
        self._figures = self._report.figures
        self._counter = SuffixCounter(self._checks["events"])
        self._records: list[Record] = []
        self._retagged = 0

    def run(self, root: str, left_out: frozenset[str]) -> Report:
        """Load what is below `root`, do everything with it, and say what came out."""
        files, self._report.skipped = find_files(root, left_out)
        self._counter.connect(self._store)
        self._load(files)
        self._retag()
        self._store.flush(FLUSH_TIMEOUT)
        self._check_stored()
        self._compare()
        self._check_events()
        self._check_counts()
        return self._report

    def _load(self, files: list[File]) -> None:
        report = self._report
        stored: SimpleQueue[File | None] = SimpleQueue()
        load_one = partial(load, self._store, self._limit, stored)
        readers = [Reader(self._store, self._checks) for _ in range(self._readers)]

        def end_of_queue() -> None:
            for _ in readers:
                stored.put(None)

        def note() -> str:
            return most_common(self._counter.counts(), 2)

        started = time.perf_counter()
        with side_by_side("reader", lambda reader: reader.follow(stored), readers, end_of_queue):
            with self._screen.progress("Loading", len(files), note) as advance:
                outcomes = map_in_pool(self._writers, "writer", load_one, files, advance)
            load_seconds = time.perf_counter() - started
        read_seconds = time.perf_counter() - started
        self._records = [outcome for outcome in outcomes if isinstance(outcome, Record)]
        report.skipped += [outcome for outcome in outcomes if isinstance(outcome, Skipped)]
        loaded = report.loaded = len(self._records)
        megabytes = sum(record.size for record in self._records) / 1e6
        self._figures["files"] = f"{loaded:,} loaded, {len(report.skipped):,} skipped"
        self._figures["bytes"] = f"{megabytes:,.1f} MB"
        self._figures["load"] = (
            f"{load_seconds:.2f} s, {rate(loaded, load_seconds)} files/s, "
            f"{rate(megabytes, load_seconds)} MB/s, {counted(self._writers, 'writer')}"
        )
        self._sum_up(readers, read_seconds)

    def _sum_up(self, readers: list[Reader], seconds: float) -> None:
        checks, loaded = self._checks, self._report.loaded
        values = sum(reader.reads for reader in readers)
        queries = sum(reader.queries for reader in readers)
        rows = sum(reader.rows for reader in readers)
        reads = values + queries
        self._figures["reads"] = (
            f"{reads:,} meanwhile, {rate(reads, seconds)} reads/s, {counted(len(readers), 'reader')}"
        )
        if values != loaded:
            checks["values"].fail(f"{values:,} values were read, but {loaded:,} stored")
        read = counted(values, "value")
        checks["values"].detail = f"{read} read, with the size and sha256 that their metadata says"
        answers = f"{counted(queries, 'answer')} with {counted(rows, 'file')}"
        checks["queries"].detail = f"{answers}: what was asked for, and only that"

    def _retag(self) -> None:
        check = self._checks["retag"]
        counts = Counter(suffix_of(record.file.key) for record in self._records)
        if not counts:
            check.detail = "there is nothing to retag"
            return
        ((old, total),) = counts.most_common(1)
        new = f"retagged {label(old)}"  # no file's suffix is like this: they begin with a dot
        watch = RetagWatch(self._store, old, new, total, self._readers, check)
        with side_by_side("reader", watch.follow, list(range(self._readers)), watch.stopped.set):
            milliseconds = watch.retag() * 1000
        self._retagged = total
        self._figures["retag"] = f"{total:,} {label(old)} in one transaction, {milliseconds:,.0f} ms"
        check.detail = f"in {counted(watch.looks, 'look')} readers saw all of the change or none of it"

    def _check_stored(self) -> None:
        check = self._checks["stored"]
        expected = {record.file.key for record in self._records}
        keys = set(self._store.query_keys())
        for key in sorted(expected - keys):
            check.fail(f"{key} was loaded, but is not in the store")
        for key in sorted(keys - expected):
            check.fail(f"{key} is in the store, but was not loaded")
        if len(self._store) != len(keys):
            check.fail(f"the store has {len(keys):,} keys, and says that it has {len(self._store):,}")
        check.detail = f"{counted(len(keys), 'file')} in the store: all that were loaded, and no others"

    def _compare(self) -> None:
        loaded = self._report.loaded
        compare_one = partial(compare, self._store, self._limit, self._checks["disk"])
        started = time.perf_counter()
        with self._screen.progress("Comparing", loaded, lambda: "") as advance:
            outcomes = map_in_pool(self._writers, "comparer", compare_one, self._records, advance)
        seconds = time.perf_counter() - started
        self._figures["compare"] = f"{seconds:.2f} s, {rate(loaded, seconds)} files/s"
        changed = self._report.changed = [outcome for outcome in outcomes if outcome is not None]
        same = counted(loaded - len(changed), "file")
        self._checks["disk"].detail = f"{same} the same on disk, byte for byte"

    def _check_events(self) -> None:
        check, events = self._checks["events"], self._counter.events
        changes = self._report.loaded + self._retagged
        self._figures["events"] = f"{events:,}"
        if events != changes:
            check.fail(f"{events:,} events were heard of {changes:,} changes")
        check.detail = f"{counted(changes, 'change')}, each heard once, in the order of commit"

    def _check_counts(self) -> None:
        check, heard = self._checks["counts"], self._counter.counts()
        if heard:
            self._figures["suffixes"] = f"{len(heard):,}: {most_common(heard, 4)}"
        queried = Counter(metadata["suffix"] for _, metadata in self._store.query(("suffix",)))
        for suffix in sorted(heard.keys() | queried.keys()):
            count = heard.get(suffix, 0)
            if count != queried[suffix]:
                check.fail(f"the listener counts {count:,} of {suffix!r}, a query {queried[suffix]:,}")
        suffixes = counted(len(queried), "suffix", "suffixes")
        check.detail = f"the listener and a query agree on {suffixes}"
