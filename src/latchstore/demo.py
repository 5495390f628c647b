"""``python -m latchstore demo [DIR]``: the store in the middle of a pool of threads, with all of it checked.

Writers load every file below a directory. Readers read each file as soon as it is stored, and query for
files of its suffix. A listener counts the files of each suffix from events alone. Then one transaction
gives a new suffix to the most common one, while readers watch. In the end all is held against the disk.

Threads share only what is safe to share: the store, queues, `Check.fail` (one append to a list), and what
has a lock of its own (`SuffixCounter`, `RetagWatch`). The rest is returned from the pool or belongs to one
thread. Each wait ends: with the end of a thread, or with a timeout that makes a check fail.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import os
import shutil
import stat
import sys
import sysconfig
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import PurePath
from queue import SimpleQueue
from typing import Any, TypeVar

from latchstore.event_manager import EventManager
from latchstore.events import StoreDeleteEvent, StoreModificationEvent, StoreSetEvent, StoreUpdateEvent
from latchstore.memory import DictMemoryStore

Item = TypeVar("Item")
Result = TypeVar("Result")

PROGRAM = "latchstore demo"
DEFAULT_LIMIT = 64 * 2**20

#: Seconds that readers may take for one look at the store before they count as blocked.
PATIENCE = 30.0
#: Seconds that the listener may take to hear the rest of the events.
FLUSH_TIMEOUT = 300.0
#: How many names of files are shown before "... and more".
NAMES_SHOWN = 5
#: A file that was changed less than this many seconds before it was read may change again without a new
#: time stamp, since the clock of the file system ticks slowly.
CLOCK_TICK = 0.05

# Opening must not wait (a pipe that took the place of a file would), and must not make a terminal ours.
_OPEN_FLAGS = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)


# -- the command line -----------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command understands to its parser.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    """
    parser.description = (
        "Load all files below DIR into a store with many threads at once, read, query and change them, "
        "and check the result byte for byte."
    )
    parser.epilog = (
        "Exit codes: 0 all is well, 1 a check failed or a thread broke down, 2 wrong usage, 130 interrupted."
    )
    parser.add_argument(
        "directory", metavar="DIR", nargs="?", help="what to load (default: Python's standard library)"
    )
    parser.add_argument(
        "--writers", type=_positive, default=4, metavar="N", help="threads that load files (default: 4)"
    )
    parser.add_argument(
        "--readers", type=_positive, default=2, metavar="N", help="threads that read and query (default: 2)"
    )
    parser.add_argument(
        "--max-bytes-per-file",
        type=_positive,
        default=DEFAULT_LIMIT,
        metavar="N",
        help="skip files that are larger than this (default: 67108864, which is 64 MiB)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the demo and print what came out.

    Parameters
    ----------
    arguments : argparse.Namespace
        What the parser of `add_arguments` gives.

    Returns
    -------
    exit_code : int
        0 if all checks passed, 1 if one failed or a thread broke down, 2 if there is no such directory,
        130 if the user interrupted it.
    """
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    except BrokenPipeError:
        # Whoever read the output has gone. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except WorkerError as error:
        return _complain(str(error), 1)
    except Exception as error:
        return _complain(_one_line(error), 1)


def _run(arguments: argparse.Namespace) -> int:
    root, left_out = _what_to_load(arguments.directory)
    problem = _why_unusable(root)
    if problem:
        return _complain(f"{root}: {problem}", 2)
    screen = make_screen()
    without = f" (without {' and '.join(sorted(left_out))})" if left_out else ""
    screen.say(f"Loading {printable(root)}{without}")
    with DictMemoryStore(EventManager(), indexes=["suffix"]) as store:
        report = Demo(store, arguments, screen).run(root, left_out)
    screen.show(report)
    return 0 if report.passed else 1


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return number


_positive.__name__ = "number"  # what argparse calls it in its messages


def _what_to_load(directory: str | None) -> tuple[str, frozenset[str]]:
    """Return the directory, and the names in it to leave out.

    Installed packages lie inside the standard library's directory, but are no part of it.
    """
    if directory is not None:
        return directory, frozenset()
    library = sysconfig.get_path("stdlib")
    packages = {"site-packages", "dist-packages"}
    return library, frozenset(packages.intersection(os.listdir(library)))


def _why_unusable(root: str) -> str | None:
    """Say in a few words why the directory cannot be loaded; None if it can."""
    try:
        os.scandir(root).close()
    except OSError as error:
        return error.strerror or str(error)
    except ValueError as error:  # a null byte
        return str(error)
    return None


def _complain(message: str, exit_code: int) -> int:
    print(f"{PROGRAM}: {printable(message, sys.stderr)}", file=sys.stderr)
    return exit_code


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def printable(text: str, stream: Any = None) -> str:
    r"""Return the text with everything escaped that a terminal or its encoding would stumble over.

    Parameters
    ----------
    text : str
        File names may hold anything: bytes that are no characters, line breaks, escape codes.
    stream : text file, optional
        Where it will be written; standard output if None.

    Returns
    -------
    text : str
        Bytes that are no characters look like ``\xff``.
    """
    encoding = getattr(sys.stdout if stream is None else stream, "encoding", None) or "utf-8"
    whole = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    shown = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in whole
    )
    return shown.encode(encoding, "backslashreplace").decode(encoding)


# -- threads --------------------------------------------------------------------------------------


class WorkerError(Exception):
    """A thread has broken down; the text names it and says why."""


def guarded(function: Callable[[Item], Result]) -> Callable[[Item], Result]:
    """Return the function with its exceptions turned into WorkerError.

    Parameters
    ----------
    function : callable

    Returns
    -------
    function : callable
    """

    def call(item: Item) -> Result:
        try:
            return function(item)
        except Exception as error:
            raise WorkerError(f"{threading.current_thread().name}: {_one_line(error)}") from error

    return call


def map_in_pool(
    threads: int,
    name: str,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    advance: Callable[[], None],
) -> list[Result]:
    """Call the function with each item, in a pool of threads.

    Parameters
    ----------
    threads : int
    name : str
        What the threads are called.
    function : callable
    items : iterable
    advance : callable
        Called by the calling thread after each result.

    Returns
    -------
    results : list
        In the order of the items.

    Raises
    ------
    WorkerError
        If the function fails; what has not begun then is given up, and all threads have ended.
    """
    results = []
    with ThreadPoolExecutor(threads, thread_name_prefix=name) as pool:
        try:
            for result in pool.map(guarded(function), items):
                results.append(result)
                advance()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


@contextmanager
def side_by_side(
    name: str, function: Callable[[Item], None], items: list[Item], stop: Callable[[], None]
) -> Iterator[None]:
    """Run the function with each item, one thread for each, beside the block.

    Parameters
    ----------
    name : str
        What the threads are called.
    function : callable
        Returns at some time after `stop` was called.
    items : list
    stop : callable
        Called at the end of the block, however it ends.

    Raises
    ------
    WorkerError
        At the end of the block, if the function has failed in one of the threads.
    """
    futures: list[Future[None]] = []
    with ThreadPoolExecutor(len(items), thread_name_prefix=name) as pool:
        try:
            for item in items:
                futures.append(pool.submit(guarded(function), item))
            yield
        finally:
            stop()
    for future in futures:
        future.result()


# -- files ----------------------------------------------------------------------------------------


class UnreadableError(Exception):
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


@dataclass(frozen=True, slots=True)
class Record:
    """What the loader remembers of a file that it has stored, to check the store by."""

    file: File
    suffix: str
    size: int
    sha256: str
    signature: tuple[int, ...]
    young: bool


def find_files(root: str, left_out: frozenset[str] = frozenset()) -> tuple[list[File], list[Skipped]]:
    """List what is below a directory, without opening any of it.

    Parameters
    ----------
    root : str
    left_out : frozenset of str
        Names of entries of `root` itself to leave out.

    Returns
    -------
    files : list of File
        Sorted. The key is the path below `root`, with forward slashes.
    skipped : list of Skipped
        Directories that cannot be listed, and links to directories, which are not followed.
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
    """Read a regular file; nothing else is ever opened.

    Parameters
    ----------
    path : str
    limit : int
        The largest size, in bytes, that is read.

    Returns
    -------
    data : bytes
    status : os.stat_result
        Taken before the file was read.

    Raises
    ------
    OSError
        If it cannot be read.
    UnreadableError
        If it is no regular file, or too large.
    """
    _require_regular(os.stat(path), limit)
    with open(path, "rb", opener=_open_without_waiting) as file:
        status = os.fstat(file.fileno())
        _require_regular(status, limit)
        # One byte more than there should be tells the end; a file that grows is read to its new end.
        data = file.read(status.st_size + 1)
        if data is not None and len(data) > status.st_size:
            data += file.read(limit + 1 - len(data))
    if data is None:
        raise UnreadableError("gives no data")
    if len(data) > limit:
        raise UnreadableError(f"larger than {limit:,} bytes")
    return data, status


def _require_regular(status: os.stat_result, limit: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableError(f"no regular file but a {_kind(status.st_mode)}")
    if status.st_size > limit:
        raise UnreadableError(f"larger than {limit:,} bytes")


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFIFO: "pipe",
        stat.S_IFSOCK: "socket",
        stat.S_IFCHR: "device",
        stat.S_IFBLK: "device",
        stat.S_IFDIR: "directory",
    }
    return kinds.get(stat.S_IFMT(mode), "special file")


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | _OPEN_FLAGS)


def reason_of(error: Exception, path: str) -> str:
    """Say in a few words why a file could not be read.

    Parameters
    ----------
    error : Exception
    path : str

    Returns
    -------
    reason : str
    """
    if isinstance(error, PermissionError):
        return "no permission"
    if isinstance(error, FileNotFoundError):
        return "broken link" if os.path.islink(path) else "vanished"
    if isinstance(error, OSError):
        return "link to itself" if error.errno == errno.ELOOP else error.strerror or str(error)
    return str(error)


def suffix_of(key: str) -> str:
    """Return the suffix of a file's name, with its dot; empty if there is none.

    Parameters
    ----------
    key : str

    Returns
    -------
    suffix : str
    """
    return PurePath(key).suffix


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _signature(status: os.stat_result) -> tuple[int, ...]:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


# -- checks ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class Check:
    """One thing that must hold. Any thread may call `fail`.

    Parameters
    ----------
    name : str
    detail : str
        What was checked, in figures; shown if nothing is wrong.
    problems : list of str
    """

    name: str
    detail: str = ""
    problems: list[str] = field(default_factory=list)

    def fail(self, problem: str) -> None:
        """Note something that is wrong."""
        self.problems.append(problem)

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    @property
    def result(self) -> str:
        """The one word for the table."""
        return "ok" if self.passed else "FAILED"

    @property
    def explanation(self) -> str:
        """What was checked or, if something is wrong, the first problem."""
        if self.passed:
            return self.detail
        more = len(self.problems) - 1
        return self.problems[0] + (f" (and {more:,} more)" if more else "")


class Checks:
    """All checks of a run, in the order of the table."""

    def __init__(self) -> None:
        self.stored = Check("stored")
        self.values = Check("values")
        self.queries = Check("queries")
        self.retag = Check("retag")
        self.events = Check("events")
        self.counts = Check("counts")
        self.disk = Check("disk")

    def all(self) -> list[Check]:
        """Return them as a list."""
        return [self.stored, self.values, self.queries, self.retag, self.events, self.counts, self.disk]


# -- who does the work ----------------------------------------------------------------------------


class SuffixCounter:
    """A listener that knows how many files of each suffix there are, from events alone.

    Parameters
    ----------
    check : Check
        Fails if an event is out of order or does not fit the one before.
    """

    def __init__(self, check: Check) -> None:
        self._check = check
        # Guards what follows: changed by the store's event thread, read by any. Nothing is called under it.
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._events = 0
        self._revision = 0

    def connect(self, store: DictMemoryStore) -> None:
        """Listen to a store from now on."""
        store.event_manager.connect(StoreSetEvent, self.on_set)
        store.event_manager.connect(StoreDeleteEvent, self.on_delete)

    def on_set(self, event: StoreSetEvent) -> None:
        """Count a key that is new or, if it was there before, has got another suffix."""
        if isinstance(event, StoreUpdateEvent) != (event.previous is not None):
            self._check.fail(f"{event!r} does not say right whether the key is new")
        self._hear(event, -1 if event.previous is not None else 0, +1)

    def on_delete(self, event: StoreDeleteEvent) -> None:
        """Count a key that has gone."""
        self._hear(event, -1, 0)

    def _hear(self, event: StoreModificationEvent, before: int, now: int) -> None:
        try:
            self._count(event, before, now)
        except Exception as error:
            # The event manager would only log it.
            self._check.fail(f"a listener failed: {_one_line(error)}")

    def _count(self, event: StoreModificationEvent, before: int, now: int) -> None:
        old = event.previous.metadata.get("suffix", "") if event.previous is not None else ""
        new = event.metadata.get("suffix", "")
        revision = event.revision or 0
        with self._lock:
            in_order = revision >= self._revision
            self._revision = revision
            self._events += 1
            self._counts[old] += before
            self._counts[new] += now
        if not in_order:
            self._check.fail(f"{event!r} was heard after a later one")

    @property
    def events(self) -> int:
        """How many events were heard."""
        with self._lock:
            return self._events

    def counts(self) -> dict[str, int]:
        """Return the number of files of each suffix, as heard so far."""
        with self._lock:
            counts = dict(self._counts)
        return {suffix: count for suffix, count in counts.items() if count}

    def summary(self) -> str:
        """Return the two most common suffixes with their counts, for the progress bar."""
        return summary_of(self.counts(), 2)


def summary_of(counts: dict[str, int], most: int) -> str:
    """Return the most common suffixes with their counts, as text.

    Parameters
    ----------
    counts : dict of str to int
    most : int

    Returns
    -------
    text : str
    """
    return ", ".join(f"{count:,} {_label(suffix)}" for suffix, count in Counter(counts).most_common(most))


def _label(suffix: str) -> str:
    return suffix or "without suffix"


class Loader:
    """Reads files from the disk and puts them into the store.

    Parameters
    ----------
    store : DictMemoryStore
    limit : int
        The largest size of a file in bytes.
    stored : SimpleQueue
        Gets each file that has been stored.
    """

    def __init__(self, store: DictMemoryStore, limit: int, stored: SimpleQueue[File | None]) -> None:
        self._store = store
        self._limit = limit
        self._stored = stored

    def load(self, file: File) -> Record | Skipped:
        """Load one file; called by many threads at once."""
        try:
            data, status = read_file(file.path, self._limit)
        except (OSError, UnreadableError) as error:
            return Skipped(file.key, reason_of(error, file.path))
        suffix = suffix_of(file.key)
        sha256 = _sha256(data)
        metadata = {
            "path": file.path,
            "suffix": suffix,
            "size": len(data),
            "mtime": status.st_mtime,
            "sha256": sha256,
        }
        young = status.st_mtime > time.time() - CLOCK_TICK
        self._store.set(file.key, (data, metadata))
        self._stored.put(file)
        return Record(file, suffix, len(data), sha256, _signature(status), young)


class Reader:
    """Reads each file as soon as it is stored, and now and then queries for all files of its suffix.

    A query costs what it returns. So it is followed by a twentieth as many reads of single files, and the
    whole takes time in proportion to the number of files.

    Parameters
    ----------
    store : DictMemoryStore
    checks : Checks
    """

    def __init__(self, store: DictMemoryStore, checks: Checks) -> None:
        self._store = store
        self._checks = checks
        self._until_query = 0
        self.reads = 0
        self.queries = 0
        self.rows = 0

    def follow(self, stored: SimpleQueue[File | None]) -> None:
        """Check what comes out of the queue, up to the None that ends it."""
        while (file := stored.get()) is not None:
            self.check_value(file.key)
            if self._until_query:
                self._until_query -= 1
            else:
                self._until_query = self.check_query(file.key) // 20

    def check_value(self, key: str) -> None:
        """Check that a value's data and metadata belong together."""
        check = self._checks.values
        self.reads += 1
        try:
            value = self._store.get(key)
        except KeyError:
            check.fail(f"{key} was stored, but cannot be read")
            return
        with value as stream:
            data = stream.read()
        metadata = value.metadata
        if len(data) != metadata.get("size"):
            check.fail(f"{key} has {len(data):,} bytes, its metadata says {metadata.get('size')}")
        elif _sha256(data) != metadata.get("sha256"):
            check.fail(f"{key} does not have the sha256 that its metadata says")

    def check_query(self, key: str) -> int:
        """Check that a query finds this key and only files of its suffix; return how many it finds."""
        check = self._checks.queries
        suffix = suffix_of(key)
        answer = dict(self._store.query(suffix=suffix))
        self.queries += 1
        self.rows += len(answer)
        if key not in answer:
            check.fail(f"{key} was stored, but a query for {suffix!r} does not find it")
        for found, metadata in answer.items():
            if suffix_of(found) != suffix or metadata.get("suffix") != suffix:
                check.fail(f"a query for {suffix!r} finds {found}")
        return len(answer)


#: How far the retagging is: not begun; changed, but not committed; about to be; committed.
BEFORE, CHANGED, COMMITTING, COMMITTED = range(4)


class RetagWatch:
    """Readers that count two suffixes again and again while one transaction turns one into the other.

    Parameters
    ----------
    store : DictMemoryStore
    old, new : str
        The suffixes.
    total : int
        How many files have the old one.
    readers : int
    check : Check
        Fails if a reader sees a part of the transaction, or sees it too early or too late, or is blocked.
    """

    def __init__(
        self, store: DictMemoryStore, old: str, new: str, total: int, readers: int, check: Check
    ) -> None:
        self._store = store
        self._old, self._new, self._total = old, new, total
        self._check = check
        # Set by the thread that retags, before and after what it does; read by the readers. No lock: one
        # assignment, and a reader asks before and after each query.
        self.stage = BEFORE
        self._stopped = False
        # Guards `_looks`: how often each reader that still runs has looked. Nothing is called under it.
        self._looked = threading.Condition()
        self._looks = dict.fromkeys(range(readers), 0)
        self.looks = 0

    def follow(self, number: int) -> None:
        """Look at the store until `stop` is called; for one reader thread."""
        try:
            while not self._stopped:
                self.look()
                with self._looked:
                    self._looks[number] += 1
                    self.looks += 1
                    self._looked.notify_all()
        finally:
            with self._looked:
                del self._looks[number]
                self._looked.notify_all()

    def look(self) -> None:
        """Count both suffixes in the answer of one query, and check the counts."""
        earliest = self.stage
        answer = self._store.query(("suffix",))
        latest = self.stage
        counts = Counter(metadata["suffix"] for _, metadata in answer)
        old, new = counts[self._old], counts[self._new]
        if (old, new) not in ((self._total, 0), (0, self._total)):
            self._check.fail(f"a reader saw {old:,} of {self._old} and {new:,} of {self._new} at once")
        elif latest <= CHANGED and new:
            self._check.fail("a reader saw the change before it was committed")
        elif earliest == COMMITTED and old:
            self._check.fail("a reader did not see the change after it was committed")

    def wait_for_looks(self) -> None:
        """Wait until each reader has looked once more, from the start to the end."""
        with self._looked:
            # The look that is under way may have begun earlier, so it takes two.
            goals = {number: looks + 2 for number, looks in self._looks.items()}
            done = self._looked.wait_for(lambda: self._all_reached(goals), PATIENCE)
        if not done:
            self._check.fail(f"readers were blocked for {PATIENCE:g} s during a transaction")

    def _all_reached(self, goals: dict[int, int]) -> bool:
        """Tell whether each reader has reached its goal; one that broke down keeps nobody waiting."""
        return all(looks >= goals[number] for number, looks in self._looks.items())

    def stop(self) -> None:
        """Let the readers end."""
        self._stopped = True


def retag(watch: RetagWatch, store: DictMemoryStore, old: str, new: str) -> float:
    """Give a new suffix to all files of an old one in one transaction, while readers watch.

    Parameters
    ----------
    watch : RetagWatch
        Its readers run.
    store : DictMemoryStore
    old, new : str

    Returns
    -------
    seconds : float
        What it took, without the waiting for readers.
    """
    watch.wait_for_looks()
    started = time.perf_counter()
    with store.transaction(f"retag {old}"):
        keys = list(store.query_keys(suffix=old))
        store.multiupdate_metadata(keys, [{"suffix": new}] * len(keys))
        seconds = time.perf_counter() - started
        watch.stage = CHANGED
        watch.wait_for_looks()
        watch.stage = COMMITTING
        started = time.perf_counter()
    seconds += time.perf_counter() - started
    watch.stage = COMMITTED
    watch.wait_for_looks()
    return seconds


class Comparer:
    """Holds what the store has against the disk.

    Parameters
    ----------
    store : DictMemoryStore
    limit : int
        The largest size of a file in bytes.
    check : Check
        Fails if the store does not give what the file held when it was loaded.
    """

    def __init__(self, store: DictMemoryStore, limit: int, check: Check) -> None:
        self._store = store
        self._limit = limit
        self._check = check

    def compare(self, record: Record) -> Skipped | None:
        """Compare one file; return a note if it has changed on disk since it was loaded."""
        file = record.file
        try:
            stored = self._store.to_bytes(file.key)
        except KeyError:
            self._check.fail(f"{file.key} is not in the store")
            return None
        if len(stored) != record.size or _sha256(stored) != record.sha256:
            self._check.fail(f"{file.key} is not what was stored")
            return None
        try:
            data, status = read_file(file.path, self._limit)
            # The bytes may come from a moment between two changes, so the status is asked for again.
            signatures = {record.signature, _signature(status), _signature(os.stat(file.path))}
        except (OSError, UnreadableError) as error:
            return Skipped(file.key, reason_of(error, file.path))
        if data == stored:
            return None
        if len(signatures) > 1 or record.young or len(data) != status.st_size:
            return Skipped(file.key, "other content now")
        self._check.fail(f"{file.key} differs from the file")
        return None


# -- the run --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Report:
    """What came out of a run."""

    checks: list[Check] = field(default_factory=list)
    found: int = 0
    loaded: int = 0
    bytes: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    changed: list[Skipped] = field(default_factory=list)
    load_seconds: float = 0.0
    read_seconds: float = 0.0
    reads: int = 0
    queries: int = 0
    retagged: int = 0
    retag_suffix: str = ""
    retag_seconds: float = 0.0
    compare_seconds: float = 0.0
    events: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    writers: int = 0
    readers: int = 0

    @property
    def passed(self) -> bool:
        """Whether all checks passed."""
        return all(check.passed for check in self.checks)


class Demo:
    """One run: load, retag, flush, check.

    Parameters
    ----------
    store : DictMemoryStore
        Empty, and nobody else's.
    arguments : argparse.Namespace
    screen : Screen
    """

    def __init__(self, store: DictMemoryStore, arguments: argparse.Namespace, screen: Screen) -> None:
        self._store = store
        self._limit: int = arguments.max_bytes_per_file
        self._screen = screen
        self._checks = Checks()
        self._counter = SuffixCounter(self._checks.events)
        self._records: list[Record] = []
        self._report = Report(checks=self._checks.all(), writers=arguments.writers, readers=arguments.readers)

    def run(self, root: str, left_out: frozenset[str]) -> Report:
        """Load what is below `root`, do everything with it, and say what came out."""
        files, skipped = find_files(root, left_out)
        self._report.found = len(files) + len(skipped)
        self._report.skipped = skipped
        self._counter.connect(self._store)
        self._load(files)
        self._retag()
        self._store.flush(FLUSH_TIMEOUT)
        self._check_stored()
        self._check_events()
        self._compare()
        return self._report

    def _load(self, files: list[File]) -> None:
        report = self._report
        stored: SimpleQueue[File | None] = SimpleQueue()
        loader = Loader(self._store, self._limit, stored)
        readers = [Reader(self._store, self._checks) for _ in range(report.readers)]

        def end_of_queue() -> None:
            for _ in readers:
                stored.put(None)

        started = time.perf_counter()
        with side_by_side("reader", lambda reader: reader.follow(stored), readers, end_of_queue):
            with self._screen.progress("Loading", len(files), self._counter.summary) as advance:
                outcomes = map_in_pool(report.writers, "writer", loader.load, files, advance)
            report.load_seconds = time.perf_counter() - started
        report.read_seconds = time.perf_counter() - started
        self._records = [outcome for outcome in outcomes if isinstance(outcome, Record)]
        report.skipped += [outcome for outcome in outcomes if isinstance(outcome, Skipped)]
        report.loaded = len(self._records)
        report.bytes = sum(record.size for record in self._records)
        self._sum_up(readers)

    def _sum_up(self, readers: list[Reader]) -> None:
        report = self._report
        report.queries = sum(reader.queries for reader in readers)
        values = sum(reader.reads for reader in readers)
        rows = sum(reader.rows for reader in readers)
        report.reads = values + report.queries
        self._checks.values.detail = (
            f"{_count(values, 'value')} read, with the size and sha256 that their metadata says"
        )
        answers = f"{_count(report.queries, 'answer')} with {_count(rows, 'file')}"
        self._checks.queries.detail = f"{answers}: what was asked for, and only that"
        if values != report.loaded:
            self._checks.values.fail(f"{values:,} values were read, but {report.loaded:,} stored")

    def _retag(self) -> None:
        report, check = self._report, self._checks.retag
        counts = Counter(record.suffix for record in self._records)
        if not counts:
            check.detail = "there is nothing to retag"
            return
        ((old, total),) = counts.most_common(1)
        new = f"retagged {_label(old)}"  # no file's suffix is like this: they begin with a dot
        watch = RetagWatch(self._store, old, new, total, report.readers, check)
        with side_by_side("reader", watch.follow, list(range(report.readers)), watch.stop):
            report.retag_seconds = retag(watch, self._store, old, new)
        report.retagged = total
        report.retag_suffix = _label(old)
        check.detail = f"in {_count(watch.looks, 'look')} readers saw all of the change or none of it"

    def _check_stored(self) -> None:
        check = self._checks.stored
        expected = {record.file.key for record in self._records}
        keys = set(self._store.query_keys())
        for key in sorted(expected - keys):
            check.fail(f"{key} was loaded, but is not in the store")
        for key in sorted(keys - expected):
            check.fail(f"{key} is in the store, but was not loaded")
        if len(self._store) != len(keys):
            check.fail(f"the store has {len(keys):,} keys, and says that it has {len(self._store):,}")
        check.detail = f"{_count(len(keys), 'file')} in the store: all that were loaded, and no others"

    def _check_events(self) -> None:
        report, checks = self._report, self._checks
        report.events = self._counter.events
        changes = report.loaded + report.retagged
        if report.events != changes:
            checks.events.fail(f"{report.events:,} events were heard of {changes:,} changes")
        checks.events.detail = f"{_count(changes, 'change')}, each heard once, in the order of commit"
        heard = report.counts = self._counter.counts()
        queried = Counter(metadata["suffix"] for _, metadata in self._store.query(("suffix",)))
        for suffix in sorted(heard.keys() | queried.keys()):
            if heard.get(suffix, 0) != queried[suffix]:
                checks.counts.fail(
                    f"the listener counts {heard.get(suffix, 0):,} of {suffix!r}, a query {queried[suffix]:,}"
                )
        checks.counts.detail = (
            f"the listener and a query agree on {_count(len(queried), 'suffix', 'suffixes')}"
        )

    def _compare(self) -> None:
        report, check = self._report, self._checks.disk
        comparer = Comparer(self._store, self._limit, check)
        started = time.perf_counter()
        with self._screen.progress("Comparing", len(self._records), lambda: "") as advance:
            outcomes = map_in_pool(report.writers, "comparer", comparer.compare, self._records, advance)
        report.compare_seconds = time.perf_counter() - started
        report.changed = [outcome for outcome in outcomes if outcome is not None]
        same = report.loaded - len(report.changed)
        check.detail = f"{_count(same, 'file')} the same on disk, byte for byte"


# -- what the user sees ---------------------------------------------------------------------------


def figures(report: Report) -> list[tuple[str, str]]:
    """Return the lines of the table above the checks: what it is, and the figure.

    Parameters
    ----------
    report : Report

    Returns
    -------
    lines : list of (str, str)
    """
    megabytes = report.bytes / 1e6
    rows = [
        ("files", f"{report.loaded:,} loaded, {len(report.skipped):,} skipped"),
        ("bytes", f"{megabytes:,.1f} MB"),
        (
            "load",
            f"{report.load_seconds:.2f} s, {_rate(report.loaded, report.load_seconds)} files/s, "
            f"{_rate(megabytes, report.load_seconds)} MB/s, {_count(report.writers, 'writer')}",
        ),
        (
            "reads",
            f"{report.reads:,} meanwhile, {_rate(report.reads, report.read_seconds)} reads/s, "
            f"{_count(report.readers, 'reader')}",
        ),
    ]
    if report.retagged:
        rows.append(
            (
                "retag",
                f"{report.retagged:,} {report.retag_suffix} in one transaction, "
                f"{report.retag_seconds * 1000:,.0f} ms",
            )
        )
    rows.append(
        (
            "compare",
            f"{report.compare_seconds:.2f} s, {_rate(report.loaded, report.compare_seconds)} files/s",
        )
    )
    rows.append(("events", f"{report.events:,}"))
    if report.counts:
        rows.append(("suffixes", f"{len(report.counts):,}: {summary_of(report.counts, 4)}"))
    return rows


def _rate(amount: float, seconds: float) -> str:
    rate = amount / seconds if seconds > 0 else 0.0
    return f"{rate:,.0f}" if rate >= 100 or rate == 0 else f"{rate:,.1f}"


def _count(number: int, noun: str, nouns: str = "") -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {nouns or noun + 's'}"


def notes(report: Report) -> list[str]:
    """Return the lines below the table: which files were skipped, and which have changed.

    Parameters
    ----------
    report : Report

    Returns
    -------
    lines : list of str
    """
    lines = []
    if report.skipped:
        lines.append(f"Skipped {len(report.skipped):,} of {_count(report.found, 'file')}:")
        lines += _names(report.skipped)
    if report.changed:
        lines.append(f"Changed on disk since the load: {_count(len(report.changed), 'file')}, not compared:")
        lines += _names(report.changed)
    failed = [check.name for check in report.checks if not check.passed]
    lines.append(f"FAILED: {', '.join(failed)}" if failed else "All checks passed.")
    return lines


def _names(files: list[Skipped]) -> list[str]:
    lines = [f"  {file.key}: {file.reason}" for file in files[:NAMES_SHOWN]]
    if len(files) > NAMES_SHOWN:
        lines.append(f"  ... and {len(files) - NAMES_SHOWN:,} more")
    return lines


class Screen:
    """Plain text without progress, for files and pipes."""

    def say(self, line: str) -> None:
        """Print a line."""
        print(printable(line), flush=True)

    @contextmanager
    def progress(self, name: str, total: int, note: Callable[[], str]) -> Iterator[Callable[[], None]]:
        """Show how far a loop has come.

        Parameters
        ----------
        name : str
        total : int
            How often the loop goes round.
        note : callable
            Returns a text to show beside.

        Returns
        -------
        advance : context manager of callable
            What to call each time.
        """
        done = 0
        percent = -1

        def advance() -> None:
            nonlocal done, percent
            done += 1
            if done * 100 // total != percent:
                percent = done * 100 // total
                self._draw(name, done, total, note)

        self._begin(name, total)
        try:
            yield advance
        finally:
            self._end()

    def show(self, report: Report) -> None:
        """Print the table."""
        lines = [""]
        lines += [f"  {name:<9} {figure}" for name, figure in figures(report)]
        lines.append("")
        lines += [f"  {check.name:<9} {check.result:<7} {check.explanation}" for check in report.checks]
        lines += ["", *notes(report)]
        print("\n".join(map(printable, lines)), flush=True)

    def _begin(self, name: str, total: int) -> None:
        """Show the start of a loop."""

    def _draw(self, name: str, done: int, total: int, note: Callable[[], str]) -> None:
        """Show where a loop is; called when the percentage changes."""

    def _end(self) -> None:
        """Take away what showed the loop."""


class PlainTerminal(Screen):
    """Plain text with a progress bar made of it, for terminals without the ``rich`` library."""

    _bar_width = 24

    def __init__(self) -> None:
        self._drawn = 0

    def _draw(self, name: str, done: int, total: int, note: Callable[[], str]) -> None:
        filled = self._bar_width * done // total
        bar = "#" * filled + "." * (self._bar_width - filled)
        line = f"{name} [{bar}] {done * 100 // total:3}% {done:,}/{total:,}  {note()}"
        line = printable(line)[: shutil.get_terminal_size().columns - 1]
        sys.stdout.write("\r" + line.ljust(self._drawn))
        sys.stdout.flush()
        self._drawn = len(line)

    def _end(self) -> None:
        sys.stdout.write("\r" + " " * self._drawn + "\r")
        sys.stdout.flush()
        self._drawn = 0


class RichTerminal(Screen):
    """Colours, boxes and a smooth progress bar. Raises ImportError if ``rich`` is not installed."""

    def __init__(self) -> None:
        import_module("rich")  # first, for a clear answer: parts of it may have been imported already
        self._progress_module = import_module("rich.progress")
        self._table_class = import_module("rich.table").Table
        self._text_class = import_module("rich.text").Text
        self._box = import_module("rich.box").SIMPLE
        self._console = import_module("rich.console").Console(file=sys.stdout, highlight=False)
        self._bar: Any = None

    def _begin(self, name: str, total: int) -> None:
        module = self._progress_module
        self._bar = module.Progress(
            module.TextColumn("{task.description}"),
            module.BarColumn(),
            module.TaskProgressColumn(),
            module.MofNCompleteColumn(),
            module.TextColumn("{task.fields[note]}", markup=False),
            console=self._console,
            transient=True,
        )
        self._bar.add_task(name, total=total, note="")
        self._bar.start()

    def _draw(self, name: str, done: int, total: int, note: Callable[[], str]) -> None:
        self._bar.update(self._bar.task_ids[0], completed=done, note=printable(note()))

    def _end(self) -> None:
        self._bar.stop()

    def show(self, report: Report) -> None:
        text = self._text_class
        table = self._table_class(box=self._box, show_header=False)
        for name, figure in figures(report):
            table.add_row(name, "", text(printable(figure)))
        table.add_section()
        for check in report.checks:
            style = "green" if check.passed else "bold red"
            table.add_row(check.name, text(check.result, style=style), text(printable(check.explanation)))
        self._console.print(table)
        for line in notes(report):
            style = "bold red" if line.startswith("FAILED") else ""
            self._console.print(text(printable(line), style=style), soft_wrap=True)


def make_screen() -> Screen:
    """Return what fits standard output: a file or pipe, a terminal, a terminal and ``rich``.

    Returns
    -------
    screen : Screen
    """
    if not sys.stdout.isatty():
        return Screen()
    try:
        return RichTerminal()
    except ImportError:
        return PlainTerminal()
