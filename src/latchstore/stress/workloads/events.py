"""A listener and a watch, which receive all changes of a store."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from latchstore.contract.events import EventsLost, StoreModificationEvent
from latchstore.contract.store import AbstractStore
from latchstore.stress.event_checks import (
    HeardEvent,
    atomic,
    check_events,
    ordered,
    right_previous,
    unique,
)
from latchstore.stress.history import History, Operation
from latchstore.stress.verdict import VALID, Verdict, all_of
from latchstore.stress.workloads.action import (
    Action,
    OfProcess,
    PlainWorkload,
    RolledBackError,
    chance_of,
    facts_of,
    facts_of_processes,
    has_transactions,
    operations_of,
    revision_of,
    text_of,
)
from latchstore.stress.workloads.stages import check_stages
from latchstore.stress.workloads.watching import read_to_the_end, watch_all

#: The key of operations on several keys.
_SEVERAL = "events/several"

#: Number of actions after which a thread uses more keys, so that the first actions meet.
_BEGINNING = 20

_UNDONE = "!"

#: The metadata of every other value, which a watch looks for.
_MARKED = {"marked": True}


class _One:
    """Sets or deletes one key, outside any transaction."""

    __slots__ = ("argument", "key", "name")

    def __init__(self, name: str, key: str, argument: str | None) -> None:
        self.name = name
        self.key = key
        self.argument = argument

    def run(self, store: AbstractStore) -> bool | None:
        """Return whether a delete found the key."""
        if self.argument is None:
            try:
                store.delete(self.key)
            except KeyError:
                return False
            return True
        if self.name == "set with event":
            store.set(self.key, (io.BytesIO(self.argument.encode()), _metadata(self.argument)))
        else:
            store.from_bytes(self.key, self.argument.encode())
        return None


class _Several:
    """Sets and deletes several keys in one transaction, with a nested block that is rolled back.

    Parameters
    ----------
    name : str
    argument : dict
        The new values by key, None to delete a key.
    """

    __slots__ = ("argument", "key", "name", "revision")

    def __init__(self, name: str, argument: Mapping[str, str | None]) -> None:
        self.name = name
        self.key = _SEVERAL
        self.argument = dict(argument)
        self.revision: int | None = None

    def run(self, store: AbstractStore) -> dict[str, str | None]:
        """Return the previous values of the keys."""
        before: dict[str, str | None] = {}
        with store.transaction(self.name) as transaction:
            for key, value in self.argument.items():
                before[key] = text_of(store, key)
                if value is not None:
                    # Only the last of these two writes has an event.
                    store.from_bytes(key, b"overwritten")
                    store.from_bytes(key, value.encode())
                elif before[key] is not None:
                    store.delete(key)
            self._do_for_nothing(store)
            if self.name == "roll back several":
                raise RolledBackError
        self.revision = revision_of(transaction)
        return before

    def _do_for_nothing(self, store: AbstractStore) -> None:
        """Make changes that must have no event: a rolled-back one, and a key that is set and deleted."""
        try:
            with store.transaction("failing block"):
                for key, value in self.argument.items():
                    store.from_bytes(key, f"{value}{_UNDONE}".encode())
                raise RolledBackError
        except RolledBackError:
            pass
        store.from_bytes("events/come and gone", b"")
        store.delete("events/come and gone")


class _SetMany:
    """Sets several keys by one call, outside any transaction."""

    __slots__ = ("argument", "key", "name")

    def __init__(self, argument: Mapping[str, str]) -> None:
        self.name = "multiset with events"
        self.key = _SEVERAL
        self.argument = dict(argument)

    def run(self, store: AbstractStore) -> None:
        """Set them."""
        store.multiset(
            list(self.argument), [(io.BytesIO(value.encode()), {}) for value in self.argument.values()]
        )


@dataclass
class _Recorder:
    """The events of a store, from a listener, and from a watch if the store has any."""

    store: AbstractStore
    heard: list[list[Any]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    watch: Any = None
    filtered: Any = None

    def __post_init__(self) -> None:
        self.store.event_manager.connect(StoreModificationEvent, self.record)
        self.watch = watch_all(self.store, "events/*")
        if self.watch is not None:
            self.filtered = watch_all(self.store, "events/*", _MARKED)

    def record(self, event: StoreModificationEvent) -> None:
        """Record an event; this is the listener."""
        if event.source is self.store and event.key.startswith("events/"):
            written = _written_down(event)
            self.heard.append(written)
            if not _has_right_class(event, *written[2:]):
                self.wrong.append(repr(event))

    def close(self) -> dict[str, Any]:
        """Disconnect; return the events, and whether the watch was open to the end."""
        self.store.flush()
        self.store.event_manager.disconnect(StoreModificationEvent, self.record)
        found: dict[str, Any] = {"listener": self.heard, "wrong": self.wrong}
        if self.watch is not None:
            seen, found["to the end"] = read_to_the_end(self.watch, _with_mark, _lost)
            self.watch.close()
            found["watch"] = [event[:4] for event in seen]
            filtered, _ = read_to_the_end(self.filtered, _written_down, _lost)
            self.filtered.close()
            found["marked"] = {"all": [event[:4] for event in seen if event[4:]], "filtered": filtered}
        return found


def _has_right_class(event: StoreModificationEvent, value: str | None, previous: str | None) -> bool:
    """Return whether an event is that of a new key, a change or a removal, as its values say."""
    if value is None:
        return event.action in ("delete", "evict")
    return event.action == ("set" if previous is None else "update")


def _with_mark(event: StoreModificationEvent) -> list[Any]:
    # A filter compares what there was before a change as well.
    sides = [each.metadata for each in (event.value, event.previous) if each is not None]
    return [*_written_down(event), *(name for name in _MARKED if any(name in each for each in sides))]


def _metadata(value: str) -> dict[str, Any]:
    return _MARKED if value.endswith(tuple("02468")) else {}


def _lost(event: EventsLost) -> list[Any]:
    return [event.last_revision, "events/lost", "events were lost", None]


def _written_down(event: StoreModificationEvent) -> list[Any]:
    return [event.revision, event.key, _text(event.value), _text(event.previous)]


def _text(value: Any) -> str | None:
    # Not through its stream, which all listeners share.
    return None if value is None else value.range().read().decode()


class Events(PlainWorkload):
    """A listener and a watch: one event for each committed change, in the order of commits.

    Parameters
    ----------
    keys : int
        Number of keys; the first actions of each thread use at most three of them.
    """

    name = "events"
    weight: ClassVar[float] = 1.5

    def __init__(self, keys: int = 8) -> None:
        self._keys = [f"events/{number}" for number in range(keys)]
        self._recorder: _Recorder | None = None

    def supports(self, store: AbstractStore) -> bool:
        """Return whether there are transactions, and events with the revision of their commit."""
        if not has_transactions(store) or not hasattr(store, "event_manager"):
            return False
        recorder = _Recorder(store)
        store.from_bytes("events/trial", b"")
        store.delete("events/trial")
        heard = recorder.close()["listener"]
        # A store with watches has events; if none comes, the check must find that.
        has_events = bool(heard) or recorder.watch is not None
        return has_events and all(isinstance(revision, int) for revision, *_ in heard)

    def prepare(self, store: AbstractStore) -> None:
        """Connect the listener, and open the watch."""
        self._recorder = _Recorder(store)

    def actions(self, thread: int, seed: int) -> Iterator[Action]:
        """Yield random changes; every written value is unique."""
        chance = chance_of(self.name, seed, thread)
        number = 0
        while True:
            keys = self._keys[:3] if number < _BEGINNING else self._keys
            number += 1
            value = f"{thread}.{number}"
            kind = chance.choices(
                ("set", "delete", "multiset", "write several", "roll back several"), (4, 2, 1, 4, 2)
            )[0]
            if kind == "set":
                name = chance.choice(("set with event", "from_bytes with event"))
                yield _One(name, chance.choice(keys), value)
            elif kind == "delete":
                yield _One("delete with event", chance.choice(keys), None)
            else:
                some = chance.sample(keys, min(len(keys), chance.randrange(1, 4)))
                if kind == "multiset":
                    yield _SetMany(dict.fromkeys(some, value))
                else:
                    yield _Several(kind, {key: chance.choice((value, value, None)) for key in some})

    def attach(self, store: AbstractStore, handed: Any) -> None:
        """Connect the listener in another process."""
        self._recorder = _Recorder(store)

    def detach(self, store: AbstractStore) -> Any:
        """Return the received events."""
        recorder, self._recorder = self._recorder, None
        assert recorder is not None, "prepare was called"
        assert recorder.store is store, "prepare was called with the same store"
        return recorder.close()

    def finish(self, store: AbstractStore) -> Any:
        """Return the received events, and the final values of the keys."""
        final = {key: text_of(store, key) for key in store.glob("events/*")}
        return {**self.detach(store), "final": final}

    def verdicts(self, history: History) -> dict[str, Verdict]:
        """Check the events of the listener, and those of the watch."""
        facts = facts_of(self.name, history)
        if facts is None:
            return {"listener": Verdict("unknown", "there is no record of the events")}
        operations = operations_of(self.name, history)
        listener = _check(facts["listener"], operations, facts["final"])
        verdicts = {"listener": all_of([listener, _check_classes(facts.get("wrong", ()))])}
        if "watch" in facts:
            ended = not facts["to the end"]
            verdicts["watch"] = (
                _check_beginning(facts["watch"])
                if ended
                else all_of(
                    [_check(facts["watch"], operations, facts["final"]), _check_filter(facts.get("marked"))]
                )
            )
        for process in facts_of_processes(self.name, history):
            own = [each for each in operations if each.thread in process.threads]
            for way in ("listener", "watch"):
                if way in process.facts and process.facts.get("to the end", True):
                    verdict = _check_same(process, process.facts[way], facts[way], own)
                    verdicts[way] = all_of([verdicts[way], verdict])
        return verdicts


def _check(heard: Sequence[list[Any]], operations: Sequence[Operation], final: Mapping[str, str]) -> Verdict:
    """Check the events of a listener or watch against the operations."""
    for revision, *event in heard:
        if not isinstance(revision, int):
            return Verdict("invalid", f"the event {event} has the revision {revision!r}")
    matching = _Matching(heard)
    for operation in operations:
        lost = matching.match(operation)
        if lost is not None:
            return Verdict(
                "invalid", f"none lost: no event came for {lost!r}, changed by ({operation})", (operation,)
            )
    matching.match_deletes(operations)
    undone = {
        value + end
        for operation in operations
        for value in _values_of(operation)
        for end in (("", _UNDONE) if operation.outcome == "fail" else (_UNDONE,))
    }
    # All values are unique, so a value identifies its transaction.
    events = [
        HeardEvent(revision, key, value, before, transaction=value) for revision, key, value, before in heard
    ]
    verdict = check_events(events, matching.commits, undone, {}, final)
    if verdict.answer != "valid":
        return verdict
    in_time = check_stages([operation] for _, operation in sorted(matching.known, key=lambda pair: pair[0]))
    if in_time.answer == "valid":
        return VALID
    return Verdict("invalid", f"in time: by their revisions, {in_time.reason}", in_time.operations)


def _check_filter(marked: Mapping[str, list[Any]] | None) -> Verdict:
    """Check that a watch with a filter has had all events that match it, and no others."""
    if marked is None or marked["filtered"] == marked["all"]:
        return VALID
    return Verdict(
        "invalid", f"filter: a watch had {marked['filtered']}, but {marked['all']} match its filter"
    )


def _check_classes(wrong: Sequence[str]) -> Verdict:
    if not wrong:
        return VALID
    return Verdict("invalid", f"right class: {wrong[0]} does not fit the value before and after the change")


def _check_beginning(heard: Sequence[list[Any]]) -> Verdict:
    """Check the events of a watch whose store was closed, which ends them early."""
    events = [HeardEvent(*event) for event in heard]
    for name, problem in (
        ("ordered", ordered(events)),
        ("unique", unique(events)),
        ("atomic", atomic(events)),
        ("right old value", right_previous(events, {})),
    ):
        if problem is not None:
            return Verdict("invalid", f"{name}: {problem}")
    return VALID


def _check_same(
    process: OfProcess, heard: Sequence[list[Any]], everything: Sequence[list[Any]], own: Sequence[Operation]
) -> Verdict:
    """Check that a process received the same events as the parent, from its first event on."""
    who = f"the process of threads {process.threads.start} to {process.threads.stop - 1}"
    begin = len(everything) - len(heard)
    if process.replaces:
        values = {value for _, _, value, _ in heard}
        for each in own:
            sets = each.outcome == "ok" and each.name.startswith(("set", "from_bytes"))
            if sets and each.argument not in values:
                return Verdict("invalid", f"none lost: {who} got no event of ({each})", (each,))
    elif begin != 0:
        return Verdict("invalid", f"{who} got {len(heard)} events, but there were {len(everything)}")
    for other, event in zip(everything[max(0, begin) :], heard, strict=False):
        if other != event:
            return Verdict("invalid", f"{who} got {event}, but the parent got {other}")
    return VALID


def _values_of(operation: Operation) -> Sequence[str]:
    """Return the values that an operation writes, or would write if it were not rolled back."""
    if isinstance(operation.argument, dict):
        return [value for value in operation.argument.values() if value is not None]
    return [] if operation.argument is None else [operation.argument]


class _Matching:
    """Assigns events to operations, as far as possible; all values are unique.

    Attributes
    ----------
    commits : dict
        The keys that each commit changed, by its revision.
    known : list
        Revisions, with the operations that were committed with them.
    """

    def __init__(self, heard: Sequence[list[Any]]) -> None:
        self._sets = {(key, value): revision for revision, key, value, _ in heard if value is not None}
        self._deletes = {(key, before): revision for revision, key, value, before in heard if value is None}
        self._deleted = {(key, revision): before for (key, before), revision in self._deletes.items()}
        self.commits: dict[int, set[str]] = {}
        self.known: list[tuple[int, Operation]] = []

    def match(self, operation: Operation) -> str | None:
        """Find the events of an operation; return a key whose event is missing."""
        if operation.outcome == "fail" or operation.argument is None:
            return None
        if not isinstance(operation.argument, dict):
            changes: dict[str, tuple[str | None, str | None]] = {
                str(operation.key): (operation.argument, None)
            }
        else:
            before = operation.result or {}
            changes = {key: (value, before.get(key)) for key, value in operation.argument.items()}
        return self._match(operation, changes)

    def _match(
        self, operation: Operation, changes: Mapping[str, tuple[str | None, str | None]]
    ) -> str | None:
        revisions: dict[str, int] = {}
        for key, (value, before) in changes.items():
            if value is not None:
                revision = self._sets.get((key, value))
            elif before is not None:
                revision = self._deletes.pop((key, before), None)
            else:
                continue
            if revision is not None:
                revisions[key] = revision
            elif operation.outcome == "ok":
                return key
        if revisions:
            # If there are several, `none_lost` reports the others.
            revision = operation.revision or min(revisions.values())
            if operation.outcome == "info":
                revisions.update(self._unseen_deletes(changes, revision))
            self.commits.setdefault(revision, set()).update(revisions)
            self.known.append((revision, operation))
        return None

    def _unseen_deletes(self, changes: Iterable[str], revision: int) -> dict[str, int]:
        """Return the keys that a commit deleted and whose previous values are unknown."""
        deleted = [key for key in changes if (key, revision) in self._deleted]
        for key in deleted:
            self._deletes.pop((key, self._deleted[key, revision]), None)
        return dict.fromkeys(deleted, revision)

    def match_deletes(self, operations: Sequence[Operation]) -> None:
        """Assign events of deletes to operations of unknown revision, as many as there were.

        These are deletes outside transactions, and deletes in transactions that do nothing else and whose end
        is unknown.
        """
        plain = Counter(
            operation.key
            for operation in operations
            if operation.name == "delete with event"
            and (operation.result if operation.outcome == "ok" else operation.outcome == "info")
        )
        for operation in operations:
            if (
                operation.name == "write several"
                and operation.outcome == "info"
                and not _values_of(operation)
            ):
                plain.update(list(operation.argument))
        for (key, _), revision in sorted(self._deletes.items(), key=lambda item: item[1]):
            if plain[key]:
                plain[key] -= 1
                self.commits.setdefault(revision, set()).add(key)
