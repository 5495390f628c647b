"""Striking an operation before each of its bytecodes, and looking what became of it."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latchstore import DictMemoryStore, StoreDeleteEvent, Watch
from tests.interrupts.operations import FILES, LEAVES_CLOSED, OPERATIONS, TIMEOUT, State, Subject, subject_for
from tests.interrupts.striker import Striker

#: Of how many bytecodes one is struck; 1 for each of them.
STRIDE = int(os.environ.get("LATCHSTORE_STRIKE_EVERY", "20"))

#: Operations with no more bytecodes than that are struck at each of them all the same.
SHORT = 200

#: What is raised, in turn.
KINDS = (KeyboardInterrupt, MemoryError, SystemExit)


def stride_of(name: str) -> int:
    """Return of how many bytecodes of an operation one is struck when nobody says so.

    Those of a cache take thousands, and a cache takes as long to be filled and looked through.
    """
    return STRIDE * 25 if "cache:" in name and STRIDE > 1 else STRIDE


@dataclass
class Answer:
    """What striking one operation has shown.

    Attributes
    ----------
    struck : int
        How many exceptions were raised, each in a run of its own.
    bytecodes : int
        How many bytecodes the operation has.
    damage : list of str
        Where something was wrong after it, and what.
    """

    struck: int = 0
    bytecodes: int = 0
    damage: list[str] = field(default_factory=list)


def exhaust(name: str, other: ThreadPoolExecutor, stride: int = STRIDE) -> Answer:
    """Strike an operation before every `stride`-th of its bytecodes, each time with a new store.

    Parameters
    ----------
    name : str
        Of one of `OPERATIONS`.
    other : ThreadPoolExecutor
        Another thread, which looks what is left.
    stride : int
        Where the first strike falls depends on the name, so that not all operations begin with the same.
    """
    outcomes = outcomes_of(name)
    answer = Answer()
    bytecodes = bytecodes_of(name)
    stride = 1 if bytecodes <= SHORT else min(stride, bytecodes // 10)
    number = 1 + zlib.crc32(name.encode()) % stride
    while True:
        place, wrong = damage_of(name, number, KINDS[answer.struck % len(KINDS)], other, outcomes)
        if place is None:
            break
        answer.struck += 1
        answer.bytecodes = number
        if wrong is not None:
            answer.damage.append(f"{number}: {place}: {wrong}")
        number += stride
    return answer


def bytecodes_of(name: str) -> int:
    """Return how many bytecodes of the package an operation executes in the calling thread."""
    subject = subject_for(name)
    with Striker(0) as striker:
        OPERATIONS[name](subject)
    subject.store.close(TIMEOUT)
    return striker.executed


def outcomes_of(name: str) -> dict[str, Any]:
    """Return what an operation that nothing strikes comes from and leads to."""
    subject = subject_for(name)
    before = subject.state()
    changes = subject.store.watch()
    OPERATIONS[name](subject)
    subject.store.flush(TIMEOUT)
    after = subject.state()
    told = subject.told()
    states = states_between(before, after, changes)
    changes.close()
    assert subject.heard == told
    assert bool(told) == (before.revision != after.revision)
    if name == "remove_index":
        assert before.indexes != after.indexes
    subject.store.close(TIMEOUT)
    # A block that ends early, or fails, is neither.
    return {"states": states, "told": told}


def states_between(before: State, after: State, changes: Watch) -> list[State]:
    """Return what there was after each commit: a cache makes room in one, and writes in another."""
    states = [before]
    contents = dict(before.contents)
    for _ in range(len(changes)):
        event: Any = changes.get(0)
        if event.revision > states[-1].revision:
            states.append(State(dict(contents), event.revision, after.indexes))
        if isinstance(event, StoreDeleteEvent):
            contents.pop(event.key)
        else:
            contents[event.key] = (event.value.range().read(), dict(event.metadata))
        states[-1] = State(dict(contents), event.revision, after.indexes)
    assert states[-1] == after or before.revision == after.revision
    return states if len(states) > 1 else [before, after]


def damage_of(
    name: str, number: int, kind: type[BaseException], other: ThreadPoolExecutor, outcomes: dict[str, Any]
) -> tuple[str | None, str | None]:
    """Strike an operation once; return where, and what is wrong then."""
    subject = subject_for(name)
    striker = Striker(number, kind)
    try:
        with striker:
            OPERATIONS[name](subject)
    except kind:
        pass
    if striker.place is None:
        subject.store.close(TIMEOUT)
        return None, None
    try:
        check(name, subject, other, outcomes)
    except Exception as error:
        return striker.place, f"{type(error).__name__}: {error}"
    return striker.place, None


def check(name: str, subject: Subject, other: ThreadPoolExecutor, outcomes: dict[str, Any]) -> None:
    """Raise something unless the store is as before or as after, and everything is free and told of."""
    for undo in subject.undo:
        undo()
    if name in LEAVES_CLOSED:
        subject.store.connect()
    else:
        assert not subject.watch._buffer.ended

    def ask(call: Callable[..., Any], *arguments: object) -> Any:
        return other.submit(call, *arguments).result(TIMEOUT)

    state = ask(subject.state)
    ask(subject.check)
    ask(subject.store.flush, TIMEOUT)
    assert state in outcomes["states"], f"neither before nor after: {state}"
    told = [each for each in outcomes["told"] if each[2] <= state.revision]
    assert subject.heard == told, f"heard {subject.heard}, not {told}"
    if name not in LEAVES_CLOSED:
        assert subject.told() == told, "the watch was told something else"
    check_transaction(name, subject, bool(told))
    assert len(subject.emitted) <= (name == "emit")
    assert len(subject.timed) <= (name == "call_later")
    if name == "save":
        check_file()
    ask(subject.check_use)
    subject.check_use()  # this thread is not in a block any more
    subject.store.close(TIMEOUT)


def check_transaction(name: str, subject: Subject, committed: bool) -> None:
    """Look whether what was told of the end of a block agrees with what became of it."""
    assert len(subject.ended) <= 1
    if "done" in subject.ended or "failed" in subject.ended:
        assert subject.ended == (["done"] if committed else ["failed"])
    assert len(subject.called_back) <= 1
    if subject.called_back:
        assert subject.called_back == (["commit"] if committed else ["rollback"])


def check_file() -> None:
    """Look whether the file is a whole one, of this time or of one before."""
    path = Path(FILES.name) / "saved"
    if path.exists():
        store = DictMemoryStore.load(path)
        assert sorted(store.query_keys()) == ["goes", "moves", "stays"]
