"""Followers of a store's changes, which stop and resume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from latchstore.contract.errors import CompactedError
from latchstore.contract.events import EventsLost, StoreModificationEvent
from latchstore.contract.store import AbstractStore
from latchstore.stress.history import History, Operation
from latchstore.stress.verdict import VALID, Verdict, all_of
from latchstore.stress.workloads.action import (
    Action,
    PlainWorkload,
    chance_of,
    facts_of,
    facts_of_processes,
    has_transactions,
    operations_of,
    revision_of,
)
from latchstore.stress.workloads.watching import read_to_the_end

_PREFIX = "resuming"
_FOLLOWER = f"{_PREFIX}/follower"
#: More changes than any run makes: no follower may lose any.
_ENDLESS = 2**31


class _Follower:
    """The position of a thread in the changes of a store.

    Attributes
    ----------
    since : int
        The revision after which it begins.
    seen : list
        Revision, key and value of each change that it received.
    """

    def __init__(self, store: Any, since: int) -> None:
        self._store = store
        self.since = since
        self._watch: Any = None
        self.seen: list[list[Any]] = []

    @property
    def last(self) -> int:
        """Revision of the last change that it received."""
        return int(self.seen[-1][0]) if self.seen else self.since

    def go_on(self, stay: bool) -> list[list[Any]]:
        """Read and return pending changes, from the open watch or a new one. `stay`: leave the watch open."""
        watch, self._watch = self._watch, None
        if watch is None:
            watch = self._store.watch(f"{_PREFIX}/*", since=self.last, max_buffer=_ENDLESS)
        # An exception from outside leaves no watch open whose changes were read and not recorded.
        found, there_is_more = read_to_the_end(watch, _written_down, _lost)
        self.seen.extend(found)
        if stay and there_is_more:
            self._watch = watch
        else:
            watch.close()
        return found


def _written_down(event: StoreModificationEvent) -> list[Any]:
    value: Any = event.value
    return [event.revision, event.key, None if value is None else value.range().read().decode()]


def _lost(event: EventsLost) -> list[Any]:
    return [event.last_revision, f"{_PREFIX}/lost", "changes were lost"]


class _GoOn:
    """Reads the changes that a follower has not received yet."""

    __slots__ = ("_workload", "argument", "key", "name")

    def __init__(self, workload: Resuming, thread: int, stay: bool) -> None:
        self.name = "read on" if stay else "read on and close"
        self.key = _FOLLOWER
        self.argument = thread
        self._workload = workload

    def run(self, store: AbstractStore) -> list[Any]:
        """Return the revision after which it read, and the changes."""
        follower = self._workload.follower(self.argument)
        return [follower.last, follower.go_on(self.name == "read on")]


class _Write:
    """Sets some keys to a value, in one commit; or deletes one."""

    __slots__ = ("_keys", "argument", "key", "name")

    def __init__(self, name: str, keys: Sequence[str], argument: str) -> None:
        self.name = name
        self.key = keys[0]
        self.argument = argument
        self._keys = keys

    def run(self, store: AbstractStore) -> bool:
        """Return whether a delete found the key."""
        match self.name:
            case "delete":
                try:
                    store.delete(self.key)
                except KeyError:
                    return False
            case "set":
                store.from_bytes(self.key, self.argument.encode())
            case _:
                with store.transaction(self.name):
                    for key in self._keys:
                        store.from_bytes(key, self.argument.encode())
        return True


class Resuming(PlainWorkload):
    """Watches that are closed and resumed by ``since``: each receives every change once, in order."""

    name = _PREFIX
    weight: ClassVar[float] = 0.5
    in_tasks = False
    options: ClassVar[dict[str, Any]] = {"history": 1_000_000}

    def __init__(self) -> None:
        self._followers: dict[int, _Follower] = {}
        self._store: Any = None
        self._begin = 0
        # Where followers of replacement threads begin, by the numbers of the threads.
        self._since: dict[int, int] = {}

    def supports(self, store: Any) -> bool:
        """Return whether the store has watches, and a history from which they can resume."""
        if not callable(getattr(store, "watch", None)) or not has_transactions(store):
            return False
        store.from_bytes(f"{_PREFIX}/trial", b"")
        store.delete(f"{_PREFIX}/trial")
        try:
            store.watch(since=0).close()
        except (TypeError, NotImplementedError, CompactedError):
            return False
        return True

    def prepare(self, store: Any) -> None:
        """Start a follower that never stops."""
        with store.transaction("begin") as transaction:
            store.from_bytes(f"{_PREFIX}/begin", b"")
        self._store, self._begin = store, revision_of(transaction) or 0
        self._followers.clear()
        self.follower(-1).go_on(stay=True)

    def hand_over(self, threads: range, before: Sequence[Sequence[Operation]]) -> Any:
        """Return where the followers begin: after the changes known to be read by their predecessors."""
        since = [self._begin for _ in threads]
        for place, operations in enumerate(before):
            for _, changes in _reads_of(operations):
                since[place] = changes[-1][0] if changes else since[place]
        return [self._begin, list(zip(threads, since, strict=True))]

    def attach(self, store: Any, handed: Any) -> None:
        """Prepare the followers of another process."""
        self._store, self._begin = store, handed[0]
        self._since = dict(handed[1])
        self._followers.clear()

    def follower(self, thread: int) -> _Follower:
        """Return the follower of a thread."""
        since = self._since.get(thread, self._begin)
        return self._followers.setdefault(thread, _Follower(self._store, since))

    def actions(self, thread: int, seed: int) -> Iterator[Action]:
        """Yield random writes, and steps of the thread's follower."""
        chance = chance_of(self.name, seed, thread)
        keys = [f"{_PREFIX}/{number}" for number in range(3)]
        number = 0
        while True:
            number += 1
            if chance.random() < 0.5:
                yield _GoOn(self, thread, stay=chance.random() < 0.3)
            else:
                name = chance.choice(("set", "set", "set several", "delete"))
                yield _Write(name, chance.sample(keys, 2), f"{thread}.{number}")

    def detach(self, store: Any) -> Any:
        """Return the changes of each follower, the remaining ones included, and where it began."""
        if callable(flush := getattr(store, "flush", None)):
            flush()  # or an open watch may lack events of other processes' commits
        for follower in self._followers.values():
            # A watch that ended as the store was closed is replaced by another one.
            follower.go_on(stay=True)
            follower.go_on(stay=False)
        followers = {
            str(thread): [follower.since, follower.seen] for thread, follower in self._followers.items()
        }
        self._followers.clear()
        return followers

    def finish(self, store: Any) -> Any:
        """Return the changes of each follower of this process, and the whole history."""
        followers = self.detach(store)
        everything = _Follower(store, self._begin)
        everything.go_on(stay=False)
        return {"history": everything.seen, "followers": followers}

    def verdicts(self, history: History) -> dict[str, Verdict]:
        """Compare each follower's changes with the whole history, and the history with the writes."""
        facts = facts_of(self.name, history)
        if facts is None:
            return {"followers": Verdict("unknown", "there is no record of their changes")}
        everything, operations = facts["history"], operations_of(self.name, history)
        followers = dict(facts["followers"])
        processes = facts_of_processes(self.name, history)
        for process in processes:
            followers.update(process.facts)
        verdicts = [
            _check_follower(thread, seen, _after(since, everything))
            for thread, (since, seen) in followers.items()
        ]
        if processes:
            killed = {each.thread for each in operations if str(each.thread) not in followers}
            verdicts += [_check_reads(thread, operations, everything) for thread in sorted(killed)]
        return {"history": _check_history(everything, operations), "followers": all_of(verdicts)}


def _reads_of(operations: Sequence[Operation]) -> list[tuple[int, list[list[Any]]]]:
    """Return the reads: the revision after which each began, and its changes."""
    reads = [each for each in operations if each.key == _FOLLOWER and each.outcome == "ok"]
    return [(each.result[0], each.result[1]) for each in reads]


def _after(since: int, changes: Sequence[list[Any]]) -> list[list[Any]]:
    return [each for each in changes if each[0] > since]


def _check_reads(thread: int, operations: Sequence[Operation], everything: Sequence[list[Any]]) -> Verdict:
    """Check the changes that a thread's follower had read when its process was killed."""
    reads = _reads_of([each for each in operations if each.thread == thread])
    seen = [change for _, changes in reads for change in changes]
    expected = _after(reads[0][0], everything)[: len(seen)] if reads else []
    return _check_follower(f"{thread}, which was killed,", seen, expected)


def _check_history(everything: Sequence[list[Any]], operations: Sequence[Operation]) -> Verdict:
    revisions = [revision for revision, *_ in everything]
    if revisions != sorted(revisions):
        return Verdict("invalid", f"the history is not in the order of revisions: {revisions}")
    values = {value for *_, value in everything}
    for operation in operations:
        if (
            operation.name.startswith("set")
            and operation.outcome == "ok"
            and operation.argument not in values
        ):
            return Verdict("invalid", f"the history has no change by ({operation})", (operation,))
    return VALID


def _check_follower(thread: str, seen: Sequence[list[Any]], everything: Sequence[list[Any]]) -> Verdict:
    if seen == everything:
        return VALID
    who = (
        "the watch that was open from the beginning" if thread == "-1" else f"the follower of thread {thread}"
    )
    given = Counter(map(tuple, seen))
    for change in map(tuple, everything):
        if not given[change]:
            return Verdict("invalid", f"{who} did not get {change} (revision, key, value)")
    for change, count in given.items():
        if count > 1:
            return Verdict("invalid", f"{who} got {change} (revision, key, value) {count} times")
    return Verdict("invalid", f"{who} got {seen}, but the history has {everything}")
