"""The judge of an anomaly."""

from __future__ import annotations

from latchstore import (
    DictMemoryStore,
    EventManager,
)
from latchstore.engine.inspection import check
from tests.contract.isolation import Schedule


def assert_ruled_out(schedule: Schedule, optimistic: bool, broken: type[DictMemoryStore]) -> None:
    """The schedule sees nothing on a good store, and sees the anomaly on the broken one."""
    assert schedule(broken(EventManager()), optimistic), f"{schedule.__name__} is blind on {broken.__name__}"
    good = DictMemoryStore(EventManager())
    assert not schedule(good, optimistic)
    check(good)
    assert good.info()["snapshots"] == 0
