"""Steps of schedules, and the judge of an anomaly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from latchstore import (
    AbstractReadOnlyStore,
    DictMemoryStore,
    EventManager,
    LockTimeoutError,
    TransactionConflictError,
)
from latchstore.engine.inspection import check
from tests.schedules import Actor

#: A schedule: plays on a store with blocks of one kind, and tells whether the anomaly was seen.
Schedule = Callable[[DictMemoryStore, bool], bool]


def number_at(store: AbstractReadOnlyStore, key: str) -> int:
    """Return the number that a key has; 0 if it is missing."""
    return int(store.to_bytes(key)) if store.exists(key) else 0


def write(actor: Actor, key: str, number: int, **metadata: Any) -> None:
    actor.do(lambda: actor.store.set(key, (b"%d" % number, metadata)))


def read(actor: Actor, key: str) -> int:
    return actor.do(lambda: number_at(actor.store, key))


def committed(actor: Actor, optimistic: bool, body: Callable[[], object]) -> bool:
    """Run a whole block in the actor's thread, and tell whether it was let in and committed."""
    try:
        actor.begin(optimistic=optimistic)
    except LockTimeoutError:
        return False
    actor.do(body)
    return commits(actor)


def commits(actor: Actor) -> bool:
    """End the actor's block, and tell whether it was committed."""
    try:
        actor.commit()
    except TransactionConflictError:
        return False
    return True


def assert_ruled_out(schedule: Schedule, optimistic: bool, broken: type[DictMemoryStore]) -> None:
    """The schedule sees nothing on a good store, and sees the anomaly on the broken one."""
    assert schedule(broken(EventManager()), optimistic), f"{schedule.__name__} is blind on {broken.__name__}"
    good = DictMemoryStore(EventManager())
    assert not schedule(good, optimistic)
    check(good)
    assert good.info()["snapshots"] == 0
