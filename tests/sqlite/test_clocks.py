"""Every wait of a store in a file ends, whatever a test has done to the clocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from latchstore import EventManager, SqliteStore
from tests.test_clocks import CLOCKS, FOR_OTHERS, SHORT, WAITS, Scene, ends

OPTIONS: dict[str, Any] = {"durability": "off", "lock_timeout": SHORT, "max_pending_events": 2}


@pytest.fixture
def make(path: Path) -> Callable[[], SqliteStore]:
    return lambda: SqliteStore(path, EventManager(), **OPTIONS)


@pytest.fixture
def scene(make: Callable[[], SqliteStore]) -> Iterator[Scene]:
    scene = Scene(make())
    yield scene
    scene.end()


@pytest.fixture
def apart(make: Callable[[], SqliteStore]) -> Iterator[Scene]:
    scene = Scene(make(), make())
    yield scene
    scene.end()


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("wait", WAITS)
def test_every_wait_ends(scene: Scene, wait: str, clock: str) -> None:
    ends(scene, wait, clock)


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("wait", FOR_OTHERS)
def test_every_wait_for_another_process_ends(apart: Scene, wait: str, clock: str) -> None:
    ends(apart, wait, clock)
