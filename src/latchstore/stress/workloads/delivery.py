"""The events that a listener has received when ``flush`` or ``close`` returns."""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from math import inf
from typing import Any, ClassVar

from latchstore.contract.errors import StoreError
from latchstore.contract.events import StoreModificationEvent
from latchstore.contract.store import AbstractStore
from latchstore.stress.history import History, Operation
from latchstore.stress.verdict import VALID, Verdict, all_of
from latchstore.stress.workloads.action import (
    Action,
    OfProcess,
    PlainWorkload,
    chance_of,
    facts_of,
    facts_of_processes,
    has_transactions,
    operations_of,
    revision_of,
)

_PREFIX = "delivery"
_WRITES = ("write", "write and flush")
_WAITS = ("flush", "write and flush", "close")
#: Stands for the revision of a key that could not be read.
_UNSEEN = "refused"


class _Listener:
    """Records each event, and the revision of its key in the store at that moment."""

    def __init__(self, store: AbstractStore) -> None:
        self._store = store
        #: For each event: revision, key, value, and the revision of the key when it was received.
        self.heard: list[list[Any]] = []
        store.event_manager.connect(StoreModificationEvent, self.record)

    def record(self, event: StoreModificationEvent) -> None:
        """Record an event; this is the listener."""
        if event.source is self._store and event.key.startswith(f"{_PREFIX}/"):
            value: Any = event.value
            text = None if value is None else value.range().read().decode()
            self.heard.append([event.revision, event.key, text, self._revision_now(event.key)])

    def _revision_now(self, key: str) -> int | str | None:
        try:
            return self._store.get(key).revision
        except KeyError:
            return None
        except StoreError:
            return _UNSEEN

    def close(self) -> list[list[Any]]:
        """Return all received events."""
        self._store.flush()
        self._store.event_manager.disconnect(StoreModificationEvent, self.record)
        return self.heard


def _is_kept(store: AbstractStore) -> bool:
    """Return whether a store still has its entries after it is closed and opened again."""
    store.from_bytes(f"{_PREFIX}/trial", b"")
    store.close()
    store.connect()
    try:
        store.delete(f"{_PREFIX}/trial")
    except (KeyError, StoreError):
        return False
    return True


class _Step:
    """Writes, or waits until the listener must have received the event of a write."""

    __slots__ = ("_workload", "argument", "key", "name")

    def __init__(self, workload: Delivery, name: str, key: str, argument: str) -> None:
        self.name = name
        self.key = key
        self.argument = argument
        self._workload = workload

    def run(self, store: Any) -> int | None:
        """Return the number of events received, after a wait."""
        match self.name:
            case "write":
                store.from_bytes(self.key, self.argument.encode())
                return None
            case "delete":
                try:
                    store.delete(self.key)
                except KeyError:
                    return None
                return None
            case "write and flush":
                with store.transaction(self.name) as transaction:
                    store.from_bytes(self.key, self.argument.encode())
                revision = revision_of(transaction)
                if revision is None:
                    store.flush()
                else:
                    store.flush(revision=revision)
            case "flush":
                store.flush()
            case _:
                try:
                    store.close()
                    heard = self._workload.heard_so_far()
                finally:
                    store.connect()
                return heard
        return self._workload.heard_so_far()


class Delivery(PlainWorkload):
    """``flush``, ``flush(revision)`` and ``close``: events of all earlier commits have been delivered."""

    name = _PREFIX
    weight: ClassVar[float] = 8
    length: ClassVar[int | None] = 5
    in_tasks = False

    def __init__(self) -> None:
        self._listener: _Listener | None = None
        self._closes = True

    def supports(self, store: AbstractStore) -> bool:
        """Return whether events have revisions, and the store can be closed and used again."""
        if not has_transactions(store) or not hasattr(store, "event_manager"):
            return False
        listener = _Listener(store)
        store.from_bytes(f"{_PREFIX}/trial", b"")
        heard = listener.close()
        store.delete(f"{_PREFIX}/trial")
        # A store with watches has events; if none comes, the check must find that.
        has_events = bool(heard) or callable(getattr(store, "watch", None))
        return has_events and all(isinstance(revision, int) for revision, *_ in heard) and _is_kept(store)

    def prepare(self, store: AbstractStore) -> None:
        """Connect the listener."""
        self._listener = _Listener(store)

    def attach(self, store: AbstractStore, handed: Any) -> None:
        """Connect the listener in another process."""
        self.prepare(store)
        # A store closed in one process has no guarantees about commits of other processes meanwhile.
        self._closes = False

    def _listening(self) -> _Listener:
        assert self._listener is not None, "prepare was called"
        return self._listener

    def heard_so_far(self) -> int:
        """Return the number of events that the listener has received."""
        return len(self._listening().heard)

    def actions(self, thread: int, seed: int) -> Iterator[Action]:
        """Yield random writes and waits; every written value is unique."""
        chance = chance_of(self.name, seed, thread)
        number = 0
        while True:
            number += 1
            name = chance.choices(("write", "delete", *_WAITS), (8, 1, 2, 2, 1))[0]
            if name == "close" and not self._closes:
                name = "flush"
            yield _Step(self, name, f"{_PREFIX}/{chance.randrange(3)}", f"{thread}.{number}")

    def detach(self, store: AbstractStore) -> Any:
        """Return the received events."""
        return self.finish(store)

    def finish(self, store: AbstractStore) -> Any:
        """Return the received events."""
        listener, self._listener = self._listening(), None
        return {"heard": listener.close()}

    def verdicts(self, history: History) -> dict[str, Verdict]:
        """Check the events received by the end of each wait, and that their commits were visible then."""
        facts = facts_of(self.name, history)
        if facts is None:
            return {"heard": Verdict("unknown", "there is no record of the events")}
        operations = operations_of(self.name, history)
        processes = facts_of_processes(self.name, history)
        if not processes:
            return {
                "heard": _check_waits(operations, operations, facts["heard"]),
                "committed": _check_committed(facts["heard"]),
            }
        return {
            "heard": all_of(_check_waits_of(each, operations) for each in processes),
            "committed": all_of(_check_committed(each.facts["heard"]) for each in processes),
        }


def _check_waits_of(process: OfProcess, operations: Sequence[Operation]) -> Verdict:
    """Check the waits of one process against all writes that began during its life."""
    own = [each for each in operations if each.thread in process.threads]
    since = min((each.begin for each in own), default=0) if process.replaces else 0
    return _check_waits([each for each in operations if each.begin >= since], own, process.facts["heard"])


def _check_waits(
    operations: Sequence[Operation], waiting: Sequence[Operation], heard: Sequence[list[Any]]
) -> Verdict:
    """Check each wait against the writes that had ended before it began."""
    places = {value: place for place, (_, _, value, _) in enumerate(heard) if value is not None}
    done = [each for each in operations if each.outcome == "ok"]
    writes = sorted((each for each in done if each.name in _WRITES), key=lambda each: each.end or 0)
    ends = [each.end or 0 for each in writes]
    # Of the writes that had ended by then, the one with the last event.
    latest = list(accumulate(writes, functools.partial(_later, places=places)))
    for wait in waiting:
        if wait.name not in _WAITS or wait.outcome != "ok":
            continue
        number = bisect_left(ends, wait.begin)
        before = [*latest[max(0, number - 1) : number], *([wait] if wait.name in _WRITES else [])]
        for write in before:
            if _place(write, places) >= wait.result:
                reason = f"({wait}) returned before the event of ({write}) was delivered"
                return Verdict("invalid", reason, (wait, write))
    return VALID


def _later(one: Operation, other: Operation, places: Mapping[str, int]) -> Operation:
    return other if _place(other, places) > _place(one, places) else one


def _place(write: Operation, places: Mapping[str, int]) -> float:
    """Return the number of a write's event; infinity if there is none."""
    return places.get(write.argument, inf)


def _check_committed(heard: Sequence[list[Any]]) -> Verdict:
    """Check that no event came before its commit was visible."""
    deleted: dict[str, int] = {}
    for revision, key, value, _ in heard:
        if value is None:
            deleted[key] = max(revision, deleted.get(key, 0))
    for revision, key, value, now in heard:
        if now == _UNSEEN:
            continue
        gone = now is None and (value is None or deleted.get(key, 0) > revision)
        if not gone and (now is None or now < revision):
            event = f"the event of revision {revision} of {key!r}"
            return Verdict("invalid", f"{event} came when the store had revision {now} of it")
    return VALID
