"""A thread that nothing strikes, for what another thread has to do or to look at."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue

from tests.interrupts.subjects import TIMEOUT


class Wrong(Exception):
    """What a check has found."""


def shown(error: BaseException) -> str:
    """Return what an error is, and where it was raised."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return f"{type(error).__name__}: {error}"
    file = Path(traceback.tb_frame.f_code.co_filename).name
    return f"{type(error).__name__} at {file}:{traceback.tb_lineno}: {error}"


class Helper:
    """A thread that does what it is asked for; whoever asks may be struck meanwhile.

    It does not end: the identity of a thread that has ended may become that of another one, which would be
    struck in its place.
    """

    def __init__(self) -> None:
        self._asked: SimpleQueue[tuple[Callable[[], object], SimpleQueue[BaseException | None]]] = (
            SimpleQueue()
        )
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            call, answers = self._asked.get()
            try:
                call()
                answers.put(None)
            except BaseException as error:
                answers.put(error)
            del call, answers

    def ask(self, call: Callable[[], object]) -> None:
        """Have it call something; raise what that raises, or `Wrong` if it never returns."""
        # Of this question only: what was asked before may be answered after a strike.
        answers: SimpleQueue[BaseException | None] = SimpleQueue()
        self._asked.put((call, answers))
        try:
            error = answers.get(timeout=TIMEOUT)
        except Empty:
            raise Wrong("another thread waits for ever") from None
        if error is not None:
            raise error


@functools.cache
def helper() -> Helper:
    """Return the one of this process, which is begun when nothing strikes."""
    return Helper()
