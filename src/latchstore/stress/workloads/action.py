"""What a workload is, and what the actions are that it has threads do.

A workload uses the public API of `AbstractStore` alone, so it runs on any store. What it does depends on the
seed and on the thread; what comes of it depends on the others.

Thread safety: an action belongs to one thread and is done once. `prepare`, `finish` and `verdicts` are called
by one thread while no other is at work.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from latchstore.contract.errors import StoreError
from latchstore.contract.store import AbstractReadOnlyStore, AbstractStore
from latchstore.stress.history import AFTER, History, Operation, Outcome
from latchstore.stress.verdict import Verdict

#: How many threads share the keys of a workload that a search has to check: how long a search takes depends
#: on how many operations are under way at once.
POOL = 4


#: How often a store may refuse to be prepared.
_TRIES = 100


class RolledBackError(Exception):
    """Raised by a workload in the middle of a transaction, which must leave nothing behind."""

    #: As that of a `StoreError`.
    had_no_effect: ClassVar[bool] = True


def outcome_of(error: BaseException) -> Outcome:
    """Return how an operation has ended that has raised an error.

    It has failed only if the class of the error says that such a call changes nothing. Of all others nobody
    knows: it may have had its effect, have it later, or never.
    """
    return "fail" if getattr(error, "had_no_effect", False) else "info"


class Action(Protocol):
    """One operation that is about to be done.

    An action may have an attribute ``revision`` besides: that of its commit, known after `run`.
    """

    @property
    def name(self) -> str: ...

    @property
    def key(self) -> str | None: ...

    @property
    def argument(self) -> Any: ...

    def run(self, store: AbstractStore) -> Any:
        """Do it; return its result, as JSON knows it. RolledBackError: it has had no effect."""


class Workload(Protocol):
    """What the threads do, and how it is checked."""

    @property
    def name(self) -> str: ...

    @property
    def share(self) -> str:
        """The name of the share that it has of a run; workloads with the same one take turns in it."""

    @property
    def weight(self) -> float:
        """How many times the time of others its share has in a search: more if it is about many methods."""

    @property
    def options(self) -> Mapping[str, Any]:
        """What a store is made with, if it can be."""

    @property
    def left_out_with(self) -> Collection[str]:
        """The faults with which it is left out, as they break what it uses itself beside the store."""

    @property
    def between_processes(self) -> bool:
        """Whether threads of several processes can do it: it keeps nothing that all of them need."""

    def supports(self, store: AbstractStore) -> bool:
        """Tell whether a store, which nobody else uses yet, can do what the workload asks of it."""

    def hand_over(self, threads: range, before: Sequence[Sequence[Operation]]) -> Any:
        """Return what another process needs to join in, as JSON knows it, after `prepare`.

        Parameters
        ----------
        threads : range
            The numbers of its threads.
        before : sequence of sequences of Operation
            For each of them what others have done in its place, in processes that were killed.
        """

    def attach(self, store: AbstractStore, handed: Any) -> None:
        """Get ready in another process, with what was handed over, on what `prepare` has got ready."""

    def detach(self, store: AbstractStore) -> Any:
        """Return what the check needs of this process, as JSON knows it, when all threads have ended."""

    def prepare(self, store: AbstractStore) -> None:
        """Get the store ready, before any thread has started. It may have to be done again from its start."""

    def actions(self, thread: int, seed: int) -> Iterator[Action]:
        """Return what a thread does, one after the other, without end."""

    def finish(self, store: AbstractStore) -> Any:
        """Look at the store when all threads have ended; return what the check needs, as JSON knows it."""

    def verdicts(self, history: History) -> dict[str, Verdict]:
        """Check a history; return the verdict of each checker by its name."""


class PlainWorkload:
    """A workload that any store can do, and that needs no preparation and no look at the end."""

    name: ClassVar[str]
    weight: ClassVar[float] = 1
    options: ClassVar[Mapping[str, Any]] = {}
    left_out_with: ClassVar[Collection[str]] = ()
    between_processes: ClassVar[bool] = True

    @property
    def share(self) -> str:
        """One of its own."""
        return self.name

    def supports(self, store: AbstractStore) -> bool:
        """Any store will do."""
        return True

    def prepare(self, store: AbstractStore) -> None:
        """Do nothing."""

    def finish(self, store: AbstractStore) -> Any:
        """Do nothing."""
        return None

    def hand_over(self, threads: range, before: Sequence[Sequence[Operation]]) -> Any:
        """Nothing is needed."""
        return None

    def attach(self, store: AbstractStore, handed: Any) -> None:
        """Do nothing."""

    def detach(self, store: AbstractStore) -> Any:
        """Nothing is needed."""
        return None


def store_for(workload: Workload, factory: Callable[..., AbstractStore]) -> AbstractStore:
    """Make a store for a workload, with its options if they are taken."""
    if workload.options:
        try:
            return factory(**workload.options)
        except TypeError:
            pass  # of another make
    return factory()


def supported_by(workload: Workload, factory: Callable[..., AbstractStore]) -> bool:
    """Tell whether the stores that a factory makes can do what a workload asks of them."""
    store = store_for(workload, factory)
    try:
        return workload.supports(store)
    finally:
        store.close()


def shares(workloads: Sequence[Workload]) -> list[list[Workload]]:
    """Return the workloads by their shares of a run."""
    found: dict[str, list[Workload]] = {}
    for workload in workloads:
        found.setdefault(workload.share, []).append(workload)
    return list(found.values())


class TransactionalWorkload(PlainWorkload):
    """A workload that only stores with transactions can do."""

    def supports(self, store: AbstractStore) -> bool:
        """Tell whether there are transactions."""
        return has_transactions(store)


def has_transactions(store: AbstractStore) -> bool:
    """Tell whether a store has transactions at all, right or wrong ones."""
    try:
        with store.transaction("trial"):
            return True
    except (AttributeError, NotImplementedError):
        return False


def prepare(workload: Workload, store: AbstractStore) -> None:
    """Get a store ready. If it refuses that, as its queue of events is full, it is tried again."""
    for _ in range(_TRIES):
        try:
            return workload.prepare(store)
        except StoreError:
            store.flush()
    return workload.prepare(store)


def chance_of(workload: str, seed: int, thread: int) -> random.Random:
    """Return what a thread draws its actions from: the same for the same seed."""
    return random.Random(f"{workload} {seed} {thread}")  # noqa: S311 (nothing secret)


def text_of(store: AbstractReadOnlyStore, key: str) -> str | None:
    """Return what a key has, None if it is not there."""
    try:
        return store.to_bytes(key).decode()
    except KeyError:
        return None


def revision_of(transaction: object) -> int | None:
    """Return the revision that a transaction says it was committed with, if it does."""
    revision = getattr(transaction, "revision", None)
    return revision if isinstance(revision, int) else None


def operations_of(name: str, history: History) -> list[Operation]:
    """Return the operations of the workload of that name, which its keys begin with."""
    prefix = f"{name}/"
    return [each for each in history.operations if each.key is not None and each.key.startswith(prefix)]


def facts_of(name: str, history: History) -> Any:
    """Return what the workload of that name found at the end of the run; None if it did not look."""
    return history.header.get("facts", {}).get(name)


class OfProcess(NamedTuple):
    """What a workload has found in one of several processes.

    Attributes
    ----------
    threads : range
        The numbers of its threads.
    facts : object
        What `Workload.detach` has returned.
    replaces : bool
        Whether it has come in the place of one that was killed.
    """

    threads: range
    facts: Any
    replaces: bool


def facts_of_processes(name: str, history: History) -> list[OfProcess]:
    """Return what the workload of that name has found in each process that was there to the end."""
    return [
        OfProcess(range(*each["threads"]), each["facts"].get(name), each["replaces"])
        for each in history.header.get("facts of processes", ())
    ]


def final_reads(name: str, history: History, results: Mapping[str, object]) -> list[Operation]:
    """Return operations that stand for a look at keys when all threads had ended.

    Parameters
    ----------
    name : str
        What the workload calls such an operation.
    history : History
    results : mapping
        What was found, by key.
    """
    times = (each.begin if each.end is None else each.end for each in history.operations)
    now = max(times, default=0) + 1
    return [Operation(AFTER, name, key, None, result, now, now) for key, result in results.items()]
