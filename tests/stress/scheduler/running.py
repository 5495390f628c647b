"""Threads of this folder's modules, run under the scheduler."""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from readerwriterlock import rwlock

from latchstore.stress.cooperative import cooperative
from latchstore.stress.scheduler import Scheduler, Strategy
from latchstore.stress.strategies import AtRandom, Priorities, Replay
from latchstore.stress.tasks import Task

Body = Callable[[], object]

FOLDER = os.path.dirname(__file__)


def traced(code: Any) -> bool:
    ours = code is traced.__code__ or code.co_qualname.startswith("OtherFirst.")
    return not ours and os.path.dirname(code.co_filename) == FOLDER


class OtherFirst(Replay):
    """After each point the turn goes to another task if one is ready."""

    def next_choice(self, now: int) -> float:
        return now + 1

    def choose(self, running: Task | None, ready: Sequence[Task]) -> Task:
        return next((task for task in ready if task is not running), ready[0])


def run(
    make: Callable[[], Iterable[Body]], strategy: Strategy, *modules: ModuleType, **options: Any
) -> Scheduler:
    """Run bodies that `make` makes, in one thread each; other modules may be under test."""
    scheduler = Scheduler(strategy, traced, **options)

    def body() -> None:
        threads = [threading.Thread(target=each) for each in make()]
        for thread in threads:
            thread.start()
        scheduler.release()
        for thread in threads:
            thread.join()
        scheduler.hold()

    with cooperative([sys.modules[__name__], sys.modules[make.__module__], rwlock, *modules]):
        assert scheduler.run(body)
    return scheduler


@dataclass
class Counter:
    value: int = 0

    def raise_(self) -> None:
        self.value = self.value + 1


def racing(counter: Counter) -> Callable[[], list[Body]]:
    return lambda: [counter.raise_, counter.raise_]


def strategies(seed: int) -> list[Strategy]:
    chance = random.Random(seed)
    return [AtRandom(chance), *(Priorities(chance, depth, 12) for depth in (2, 3, 4))]
