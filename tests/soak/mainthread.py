"""The main thread of a soak works as the others do, and signals strike it."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Sequence

from tests.interrupts.storms import BURSTS, Interrupter
from tests.soak.workers import Worker


class StruckBySignals:
    """Work that is broken off by KeyboardInterrupt, up to three times in quick succession.

    Parameters
    ----------
    workers : sequence of Worker
        Whose steps are done; they have no threads of their own.
    chance : random.Random

    Attributes
    ----------
    struck : int
        How many signals have raised it.
    """

    def __init__(self, workers: Sequence[Worker], chance: random.Random) -> None:
        self.workers = workers
        self._chance = chance
        self._interrupter = Interrupter(type(self)._work.__code__)

    @property
    def struck(self) -> int:
        return self._interrupter.struck

    def work(self, goes_on: Callable[[], bool]) -> None:
        """Work and be struck, again and again."""
        before = signal.signal(signal.SIGALRM, self._interrupter)
        try:
            while goes_on():
                self._be_struck()
        finally:
            self._disarm()
            signal.signal(signal.SIGALRM, before)

    def _be_struck(self) -> None:
        interrupter, chance = self._interrupter, self._chance
        interrupter.left = chance.choice(BURSTS)
        interrupter.interval = 10 ** chance.uniform(-5.3, -4.0)
        struck = interrupter.struck
        signal.setitimer(signal.ITIMER_REAL, 10 ** chance.uniform(-5.5, -2.0))
        over = time.monotonic() + 1.0
        try:
            self._work(lambda: interrupter.goes_on() and time.monotonic() < over)
        except KeyboardInterrupt:
            if interrupter.struck == struck:
                raise  # somebody's Ctrl-C
        finally:
            self._disarm()

    def _disarm(self) -> None:
        self._interrupter.left = 0
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _work(self, goes_on: Callable[[], bool]) -> None:
        while goes_on():
            worker = self._chance.choice(self.workers)
            worker.step()
            worker.steps += 1
