"""The interfaces of workloads and their actions.

A workload uses only the public API of `AbstractStore`, so it runs on any store. Its actions depend on the
seed and the thread; their results depend on the other threads.

Thread safety: an action belongs to one thread and runs once. One thread calls `prepare`, `finish` and
`verdicts` while no other is running.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from latchstore.contract.errors import StoreError
from latchstore.contract.store import AbstractReadOnlyStore, AbstractStore
from latchstore.stress.history import AFTER, History, Operation, Outcome
from latchstore.stress.verdict import Verdict

#: The number of threads that share the keys of a workload with a search: the duration of a search depends on
#: the number of overlapping operations.
POOL = 4


#: Maximum number of attempts to prepare a store.
_TRIES = 100


class RolledBackError(Exception):
    """Raised by a workload in the middle of a transaction, which must then have no effect."""

    #: As for a `StoreError`.
    had_no_effect: ClassVar[bool] = True


def outcome_of(error: BaseException) -> Outcome:
    """Return the outcome of an operation that raised an error.

    It is a failure only if the error's class guarantees that the call had no effect. Otherwise it is unknown:
    the call may have its effect, now or later, or never.
    """
    return "fail" if getattr(error, "had_no_effect", False) else "info"


class Action(Protocol):
    """One operation to run.

    An action may also have an attribute ``revision``: that of its commit, set by `run`.
    """

    @property
    def name(self) -> str: ...

    @property
    def key(self) -> str | None: ...

    @property
    def argument(self) -> Any: ...

    def run(self, store: AbstractStore) -> Any:
        """Run it; return its result as JSON. RolledBackError: it had no effect."""


class Workload(Protocol):
    """The operations of the threads, and the check of their results."""

    @property
    def name(self) -> str: ...

    @property
    def share(self) -> str:
        """The name of its share of a run; workloads with the same share take turns in it."""

    @property
    def weight(self) -> float:
        """The factor of its share's time in a search: higher if it uses many methods."""

    @property
    def length(self) -> int | None:
        """The default number of operations of each thread in a schedule; None: by their points."""

    @property
    def options(self) -> Mapping[str, Any]:
        """Options for making the store, if it accepts them."""

    @property
    def left_out_with(self) -> Collection[str]:
        """The faults with which it is skipped, as they break what it uses outside the store."""

    @property
    def between_processes(self) -> bool:
        """Whether threads of several processes can run it: it has no state that they must share."""

    @property
    def in_tasks(self) -> bool:
        """Whether tasks can run it: it blocks no thread, and makes no objects on top of the store."""

    def supports(self, store: AbstractStore) -> bool:
        """Return whether a store, which is not in use yet, has what the workload needs."""

    def hand_over(self, threads: range, before: Sequence[Sequence[Operation]]) -> Any:
        """Return the data for another process to join, as JSON, after `prepare`.

        Parameters
        ----------
        threads : range
            The numbers of its threads.
        before : sequence of sequences of Operation
            For each of them the operations of its predecessors in processes that were killed.
        """

    def attach(self, store: AbstractStore, handed: Any) -> None:
        """Prepare in another process, with the data of `hand_over`, on a store that is prepared already."""

    def detach(self, store: AbstractStore) -> Any:
        """Return this process's data for the check, as JSON, when all threads have ended."""

    def prepare(self, store: AbstractStore) -> None:
        """Prepare the store, before any thread has started. It may be repeated from its start."""

    def actions(self, thread: int, seed: int) -> Iterator[Action]:
        """Yield the actions of a thread, without end."""

    def finish(self, store: AbstractStore) -> Any:
        """Read the store when all threads have ended; return the data for the check, as JSON."""

    def part_of(self, key: str) -> str:
        """Return the name of the part of the workload's keys, checked by itself, that a key belongs to."""

    def verdicts(self, history: History) -> dict[str, Verdict]:
        """Check a history; return the verdict of each checker by its name."""


class PlainWorkload:
    """A workload for any store, without preparation and without a final read."""

    name: ClassVar[str]
    weight: ClassVar[float] = 1
    length: ClassVar[int | None] = None
    options: ClassVar[Mapping[str, Any]] = {}
    left_out_with: ClassVar[Collection[str]] = ()
    between_processes: ClassVar[bool] = True
    in_tasks: ClassVar[bool] = True
    #: Whether the operations of each key are checked by themselves.
    each_key_alone: ClassVar[bool] = False

    @property
    def share(self) -> str:
        """A share of its own."""
        return self.name

    def supports(self, store: AbstractStore) -> bool:
        """Return True: any store is supported."""
        return True

    def prepare(self, store: AbstractStore) -> None:
        """Do nothing."""

    def finish(self, store: AbstractStore) -> Any:
        """Do nothing."""
        return None

    def part_of(self, key: str) -> str:
        """Return the key if `each_key_alone`, otherwise the name of the workload."""
        return key if self.each_key_alone else self.name

    def hand_over(self, threads: range, before: Sequence[Sequence[Operation]]) -> Any:
        """Return None: no data is needed."""
        return None

    def attach(self, store: AbstractStore, handed: Any) -> None:
        """Do nothing."""

    def detach(self, store: AbstractStore) -> Any:
        """Return None: no data is needed."""
        return None


def store_for(workload: Workload, factory: Callable[..., AbstractStore]) -> AbstractStore:
    """Make a store for a workload, with the workload's options if the store accepts them."""
    if workload.options:
        try:
            return factory(**workload.options)
        except TypeError:
            pass  # another kind of store
    return factory()


def supported_by(workload: Workload, factory: Callable[..., AbstractStore]) -> bool:
    """Return whether a factory's stores support a workload."""
    store = store_for(workload, factory)
    try:
        return workload.supports(store)
    finally:
        store.close()


def shares(workloads: Sequence[Workload]) -> list[list[Workload]]:
    """Return the workloads grouped by share."""
    found: dict[str, list[Workload]] = {}
    for workload in workloads:
        found.setdefault(workload.share, []).append(workload)
    return list(found.values())


class TransactionalWorkload(PlainWorkload):
    """A workload that needs transactions."""

    def supports(self, store: AbstractStore) -> bool:
        """Return whether the store has transactions."""
        return has_transactions(store)


def has_transactions(store: AbstractStore) -> bool:
    """Return whether a store has transactions at all, correct or not."""
    try:
        with store.transaction("trial"):
            return True
    except (AttributeError, NotImplementedError):
        return False


def prepare(workload: Workload, store: AbstractStore) -> None:
    """Prepare a store; try again if the store refuses, as when its event queue is full."""
    for _ in range(_TRIES):
        try:
            return workload.prepare(store)
        except StoreError:
            store.flush()
    return workload.prepare(store)


def chance_of(workload: str, seed: int, thread: int) -> random.Random:
    """Return a thread's random generator: the same for the same seed."""
    return random.Random(f"{workload} {seed} {thread}")  # noqa: S311 (nothing secret)


def text_of(store: AbstractReadOnlyStore, key: str) -> str | None:
    """Return the text of a key, None if it is missing."""
    try:
        return store.to_bytes(key).decode()
    except KeyError:
        return None


def revision_of(transaction: object) -> int | None:
    """Return the revision with which a transaction was committed, if it has one."""
    revision = getattr(transaction, "revision", None)
    return revision if isinstance(revision, int) else None


def operations_of(name: str, history: History) -> list[Operation]:
    """Return the operations of a workload, whose keys begin with its name."""
    prefix = f"{name}/"
    return [each for each in history.operations if each.key is not None and each.key.startswith(prefix)]


def facts_of(name: str, history: History) -> Any:
    """Return the final data of a workload; None if there are none."""
    return history.header.get("facts", {}).get(name)


class OfProcess(NamedTuple):
    """The data of a workload from one of several processes.

    Attributes
    ----------
    threads : range
        The numbers of its threads.
    facts : object
        The result of `Workload.detach`.
    replaces : bool
        Whether the process replaced one that was killed.
    """

    threads: range
    facts: Any
    replaces: bool


def facts_of_processes(name: str, history: History) -> list[OfProcess]:
    """Return the data of a workload from each process that was not killed."""
    return [
        OfProcess(range(*each["threads"]), each["facts"].get(name), each["replaces"])
        for each in history.header.get("facts of processes", ())
    ]


def final_reads(name: str, history: History, results: Mapping[str, object]) -> list[Operation]:
    """Return operations that represent a read of keys after the end of all threads.

    Parameters
    ----------
    name : str
        Name of such an operation in the workload.
    history : History
    results : mapping
        The values, by key.
    """
    times = (each.begin if each.end is None else each.end for each in history.operations)
    now = max(times, default=0) + 1
    return [Operation(AFTER, name, key, None, result, now, now) for key, result in results.items()]
