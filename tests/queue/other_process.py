"""Another process with a queue on the same entries, which does what it is told, line by line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from latchstore import EventManager, Job, RedisStore, SqliteStore, WorkQueue

#: Where a store is: the path of a file, or the URL of a server and a namespace.
Place = tuple[str, ...]


def opened(place: Place) -> SqliteStore | RedisStore:
    """Return the store that is at a place."""
    if len(place) == 1:
        return SqliteStore(place[0], EventManager(), durability="off")
    url, namespace = place
    return RedisStore(url, EventManager(), namespace=namespace)


class OtherProcess:
    """One that is running.

    The code may use `store`, `queue`, `jobs` (a list of its own) and `work`; what it comes to is returned as
    JSON has it.
    """

    def __init__(self, place: Place) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.queue.other_process", *place],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, code: str) -> None:
        assert self.process.stdin is not None
        print(code, file=self.process.stdin, flush=True)

    def answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the process has ended"
        return json.loads(line)

    def ask(self, code: str) -> Any:
        self.tell(code)
        return self.answer()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def other_process(place: Place) -> Iterator[OtherProcess]:
    other = OtherProcess(place)
    try:
        yield other
    finally:
        other.kill()


@contextmanager
def other_processes(place: Place, count: int) -> Iterator[list[OtherProcess]]:
    """Begin with all of them having opened the store."""
    others = [OtherProcess(place) for _ in range(count)]
    try:
        for other in others:
            other.ask("None")
        yield others
    finally:
        for other in others:
            other.kill()


def work(queue: WorkQueue[Any], lease: float = 60.0) -> list[tuple[Any, int]]:
    """Do all jobs that there are; return their payloads, and which attempt each was."""
    done = []
    while (job := queue.claim(0, lease)) is not None:
        with job:
            done.append((job.payload, job.attempts))
    return done


def main(place: Place) -> None:
    with opened(place) as store:
        queue: WorkQueue[Any] = WorkQueue(store, "jobs", max_attempts=10, backoff=lambda attempts: 0.0)
        jobs: list[Job[Any]] = []
        names = {"store": store, "queue": queue, "jobs": jobs, "work": work}
        for line in sys.stdin:
            try:
                answer = eval(line, names)
            except Exception as error:
                answer = type(error).__name__
            print(json.dumps(answer, default=str), flush=True)


if __name__ == "__main__":
    main(tuple(sys.argv[1:]))
