"""A pool of workers with a progress bar: thumbnails of pictures, with retries and dead letters.

Run it with

    python -m pip install tqdm
    python work_queue.py            # the jobs are in memory
    python work_queue.py jobs.db    # the jobs are in a file; run it in two terminals to share them

- Four threads claim jobs and work on them; the bar counts what is done.
- One picture in ten fails at its first attempt and is tried again. One is damaged and becomes a dead letter.
- The result and the end of a job are one commit. Ctrl-C ends the pool when each thread has ended its job; in
  a file the rest is there for the next run.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence

from latchstore import DictMemoryStore, EventManager, Job, SqliteStore, WorkQueue

PICTURES = 40
#: Seconds that a thumbnail takes.
SECONDS = 0.05


def work(store: DictMemoryStore | SqliteStore) -> None:
    """Put a job for each picture, unless it is there, and have threads work on all of them."""
    queue: WorkQueue[dict[str, int]] = WorkQueue(
        store, "thumbnails", max_attempts=3, backoff=lambda attempts: 0.1 * attempts
    )

    def shrink(job: Job[dict[str, int]]) -> None:
        number = job.payload["picture"]
        time.sleep(SECONDS)
        if number == 13:
            raise ValueError("not a picture")
        if number % 10 == 0 and job.attempts == 1:
            raise TimeoutError("the disk is busy")
        with store.transaction("a thumbnail"):
            store.set(f"done/{number}", (b"...", {"kind": "thumbnail"}))
            job.ack()

    with store.transaction("all jobs"):
        for number in range(1, PICTURES + 1):
            if f"done/{number}" not in store:
                queue.put({"picture": number}, key=f"picture-{number}", if_exists="keep")

    print(queue.run(shrink, threads=4))
    print(len(list(store.query_keys(kind="thumbnail"))), "thumbnails")
    for letter in queue.dead_letters():
        print(f"{letter.key} failed {letter.attempts} times: {letter.reason}")


def main(arguments: Sequence[str]) -> int:
    """Work in memory, or in the file that is named; return the exit code."""
    # What a job raises is logged with its traceback. Here the dead letters have the reasons.
    logging.getLogger("latchstore").setLevel(logging.CRITICAL)
    store = (
        SqliteStore(arguments[0], EventManager(), indexes=["kind"])
        if arguments
        else DictMemoryStore(EventManager(), indexes=["kind"])
    )
    try:
        with store:
            work(store)
    except KeyboardInterrupt:
        print("stopped")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
