"""An operation with calls in the middle of it, and what must be true after that."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from latchstore import CodecError, LockTimeoutError, StoreDeleteEvent, StoreError, TransactionConflictError
from tests.interrupts.checks import outcomes_of
from tests.interrupts.helper import shown
from tests.interrupts.operations import LEAVES_CLOSED, OPERATIONS, group_of, subject_for
from tests.interrupts.subjects import BESIDE, TIMEOUT, CacheSubject, Change, replayed
from tests.reentry.cache_calls import OWN
from tests.reentry.caller import MOST, Caller
from tests.reentry.calls import DISTURBING, FLUSHING, FOR_ALL_THREADS
from tests.reentry.ways import WAYS

#: Seconds that a call may wait for a lock: one that does so has waited for its own thread.
LOCK_TIMEOUT = 10.0

#: Operations that pop or wait for whatever is there, so what they do depends on what calls have written.
TAKING_ANY = ("mapping, popitem", "mapping, clear")

#: Those with blocks that are taken back, or tried again, and what calls have written in them.
TAKING_BACK = (
    "mapping, clear",
    "attempts",
    "transactional",
    "transaction, nested",
    "transaction, rollback()",
    "transaction, failing",
    "transaction, failing inside",
    "transaction, in conflict",
    "transaction, dropped by a generator",
    "cache: transaction, nested",
    "cache: transaction, doomed",
)


def comes_in(call: str, name: str, way: str, contended: bool) -> bool:
    """Tell whether a call may come in the middle of an operation.

    Not what closes or empties the store, if other threads use it, or the operation waits for something that
    is there; nor what waits for a listener that waits for the end of the operation, or opens the store
    again while that waits until it is closed.
    """
    if name in WAYS[way].not_in or call in WAYS[way].not_called:
        return False
    if name == "close while events pend" and call in {*FLUSHING, "disconnect, connect"}:
        return False
    return not (
        call in FOR_ALL_THREADS and (contended or name in LEAVES_CLOSED or "wait" in name or "load" in name)
    )


@dataclass
class Count:
    """What was counted.

    Attributes
    ----------
    made : int
        How many calls were made.
    refused : int
        How many of them have raised an error about themselves.
    wrong : list of str
    passed : int
        How many places an operation has passed at which one may come.
    """

    made: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    passed: int = 0

    def add(self, other: Count) -> None:
        """Count what another one has counted."""
        self.made += other.made
        self.refused += other.refused
        self.wrong += other.wrong


def run(
    name: str,
    calls: Sequence[str],
    way: str,
    other: ThreadPoolExecutor,
    *,
    contended: bool = False,
    stride: int = 1,
    first: int = 0,
    most: int = MOST,
) -> Count:
    """Run an operation once, with calls in the middle of it, and look what there is then.

    Parameters
    ----------
    name : str
        Of the operation.
    calls : sequence of str
        What is called, in turn.
    way : str
        By what.
    other : ThreadPoolExecutor
        Another thread, which looks what is left.
    contended : bool
        Whether another thread reads and writes.
    stride, first : int
        At which places.
    most : int
        How many calls there are at the most.
    """
    if group_of(name) != "caches":
        outcomes_of(name)
    subject = subject_for(name, lock_timeout=LOCK_TIMEOUT, **WAYS[way].options)
    caller = Caller(subject, calls, contended, most)
    failure: BaseException | None = None
    try:
        way_in = WAYS[way](caller, stride, first)
        way_in.prepare()
        before = subject.contents()
        with way_in:
            try:
                OPERATIONS[name](subject)
                if way_in.needs_events:
                    subject.store.flush(TIMEOUT)
            except Exception as error:
                failure = error
        count = Count(caller.made, caller.refused, caller.wrong, way_in.passed)
        _look(name, caller, failure, before, other, disturbed=not DISTURBING.isdisjoint(calls))
    except Exception as error:
        count = Count(caller.made, caller.refused, [*caller.wrong, shown(error)])
    words = ["python -m tests.reentry.process", f"'{way}'", *(["--contended"] if contended else [])]
    words += [f"--operation '{name}' --first {first} --stride {stride} --most {most}"]
    words += [f"--call '{call}'" for call in calls]
    count.wrong = [f"{wrong}\nafter {caller.made} calls of: {' '.join(words)}" for wrong in count.wrong]
    return count


def _look(
    name: str,
    caller: Caller,
    failure: BaseException | None,
    before: Any,
    other: ThreadPoolExecutor,
    disturbed: bool,
) -> None:
    """Raise something unless everything is free, nothing is lost, and events, indexes and contents agree."""
    subject = caller.subject
    if failure is not None and not _may_fail(failure, disturbed, isinstance(subject, CacheSubject)):
        raise failure
    for undo in subject.undo:
        undo()
    caller.end()
    store = subject.store
    if disturbed:
        store.connect()
    assert store.current_transaction() is None, "a transaction is open"

    def ask(call: Any, *arguments: object) -> Any:
        return other.submit(call, *arguments).result(TIMEOUT)

    if subject.watch.closed or store.stats()["watches"] == 0:
        subject.watch.close()
        subject.heard.clear()
        subject.watch = subject.new_watch()
    else:
        ask(store.flush, TIMEOUT)
        _compare(name, caller, failure, before, disturbed)
    ask(subject.check)
    ask(subject.check_use)
    subject.check_use()
    store.close(TIMEOUT)


def _may_fail(failure: BaseException, disturbed: bool, evicting: bool) -> bool:
    """Tell whether an operation may have raised that, for what other threads or calls have done."""
    if disturbed and isinstance(failure, StoreError):
        return not isinstance(failure, LockTimeoutError)
    if disturbed or evicting:  # what it works on may be gone
        return isinstance(failure, (KeyError, AssertionError, CodecError, TransactionConflictError))
    return isinstance(failure, TransactionConflictError)


def _compare(name: str, caller: Caller, failure: BaseException | None, before: Any, disturbed: bool) -> None:
    """Look whether watch, listeners and contents agree, and have all that was reported done."""
    subject = caller.subject
    events = [*caller.events, *subject.events()]
    told = [Change(type(event).__name__, event.key, event.revision) for event in events]
    if name != "disable and enable":
        assert subject.heard == told, f"listeners heard {subject.heard}, the watch {told}"
    revisions = [each.revision for each in told]
    assert revisions == sorted(revisions), "not in the order of commits"
    assert replayed(before, events) == subject.contents(), "what the events tell is not what there is"
    if isinstance(subject, CacheSubject) or disturbed:
        return  # a commit may evict what it writes
    found = [event.value.content for event in events if not isinstance(event, StoreDeleteEvent)]
    found += [event.metadata.get(OWN, "").encode() for event in events if event.key.startswith(OWN)]
    lost = [data for data in caller.done if data not in found]
    assert lost == [], f"lost: {lost}"
    if failure is None and name not in TAKING_BACK:
        assert caller.in_block in (None, *found), (
            f"lost with a transaction that was committed: {caller.in_block!r}"
        )
    if name in TAKING_ANY:
        return
    expected = [(each.event, each.key) for each in outcomes_of(name).told]
    own = [(each.event, each.key) for each in told if not each.key.startswith((OWN, BESIDE))]
    if failure is None:
        assert own == expected, f"the operation did {own}, not {expected}"
    else:
        assert own == expected[: len(own)], f"the operation did {own} of {expected}"
