"""What must be true after an operation that was struck: the store is as before or as after, and usable."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from latchstore import DictMemoryStore
from tests.interrupts.operations import LEAVES_CLOSED, OPERATIONS, group_of, subject_for
from tests.interrupts.reads import FILES
from tests.interrupts.subjects import TIMEOUT, Change, State, Subject, replayed


class Outcomes(NamedTuple):
    """What an operation does when nothing strikes it.

    Attributes
    ----------
    states : list of State
        What there is before it, and after each of its commits.
    told : list of Change
        What a watch is told.
    ended : list of str
        How its transactions end.
    """

    states: list[State]
    told: list[Change]
    ended: list[str]


@functools.cache
def outcomes_of(name: str) -> Outcomes:
    """Return what an operation that nothing strikes comes from and leads to."""
    subject = subject_for(name)
    before = subject.state()
    changes = subject.new_watch()
    OPERATIONS[name](subject)
    subject.store.flush(TIMEOUT)
    after = subject.state()
    told = subject.told()
    states = states_between(before, after, [changes.get(0) for _ in range(len(changes))])
    changes.close()
    assert subject.heard == told
    assert bool(told) == (before.revision != after.revision)
    if name == "remove_index":
        assert before.indexes != after.indexes
    subject.store.close(TIMEOUT)
    return Outcomes(states, told, list(subject.ended))


def states_between(before: State, after: State, events: list[Any]) -> list[State]:
    """Return what there was after each commit: a cache makes room in one, and writes in another."""
    states = [before]
    for revision in sorted({event.revision for event in events}):
        commit = [event for event in events if event.revision == revision]
        states.append(State(replayed(states[-1].contents, commit), revision, after.indexes))
    assert states[-1] == after or before.revision == after.revision
    return states if len(states) > 1 else [before, after]


def check(name: str, subject: Subject, other: ThreadPoolExecutor) -> None:
    """Raise something unless the store is as before or as after, everything is free, and events agree."""
    outcomes = outcomes_of(name)
    for undo in subject.undo:
        undo()
    if name in LEAVES_CLOSED:
        subject.store.connect()
    else:
        assert not subject.watch.closed

    def ask(call: Callable[..., Any], *arguments: object) -> Any:
        return other.submit(call, *arguments).result(TIMEOUT)

    state = ask(subject.state)
    if name not in LEAVES_CLOSED:
        ask(subject.check)
    ask(subject.store.flush, TIMEOUT)
    assert state in outcomes.states, f"neither before nor after: {state}"
    told = [each for each in outcomes.told if each.revision <= state.revision]
    assert subject.heard == told, f"listeners heard {subject.heard}, not {told}"
    if name not in LEAVES_CLOSED:
        assert subject.told() == told, "the watch was told something else"
    if group_of(name) != "waiting":
        check_transaction(subject, outcomes, told == outcomes.told)
    assert len(subject.emitted) <= (name == "emit")
    assert len(subject.timed) <= (name == "call_later")
    if name == "save":
        check_file()
    ask(subject.check_use)
    subject.check_use()  # this thread is not in a block any more
    subject.store.close(TIMEOUT)


def check_transaction(subject: Subject, outcomes: Outcomes, whole: bool) -> None:
    """Look whether what was told of the end of a block agrees with what became of it."""
    assert len(subject.ended) <= max(1, len(outcomes.ended))
    commits = len({each.revision for each in outcomes.told})
    if subject.ended and outcomes.ended == ["done"] and commits == 1:
        assert subject.ended == (["done"] if whole else ["failed"])
    elif subject.ended and outcomes.ended == ["failed"]:
        assert subject.ended == ["failed"]
    assert len(subject.called_back) <= 1
    if subject.called_back:
        assert subject.called_back == (["commit"] if whole else ["rollback"])


def check_file() -> None:
    """Look whether the file is a whole one, of this time or of one before."""
    path = Path(FILES.name) / "saved"
    if path.exists():
        store = DictMemoryStore.load(path)
        assert sorted(store.query_keys()) == ["goes", "moves", "stays"]
