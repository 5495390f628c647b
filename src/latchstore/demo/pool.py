"""Running a function in many threads, so that an error in one of them ends the run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerError(Exception):
    """A thread has broken down; the text names it and says why."""


def one_line(error: BaseException) -> str:
    """Return the class and the text of an error, without line breaks."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def guarded(function: Callable[[Item], Result], item: Item) -> Result:
    """Call the function with the item; raise WorkerError if that fails."""
    try:
        return function(item)
    except Exception as error:
        raise WorkerError(f"{threading.current_thread().name}: {one_line(error)}") from error


def map_in_pool(
    threads: int,
    name: str,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    advance: Callable[[], None],
) -> list[Result]:
    """Return what the function gives for each item, called in a pool of threads of that name.

    The calling thread calls `advance` after each result. If the function fails, what has not begun is given
    up, and WorkerError is raised when all threads have ended.
    """
    results = []
    with ThreadPoolExecutor(threads, thread_name_prefix=name) as pool:
        try:
            for result in pool.map(partial(guarded, function), items):
                results.append(result)
                advance()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


@contextmanager
def side_by_side(
    name: str, function: Callable[[Item], None], items: list[Item], stop: Callable[[], None]
) -> Iterator[None]:
    """Run the function with each item beside the block, in one thread of that name for each.

    At the end of the block, however it ends, `stop` is called: it must make the function return. Then
    WorkerError is raised if the function has failed in one of the threads.
    """
    futures: list[Future[None]] = []
    with ThreadPoolExecutor(len(items), thread_name_prefix=name) as pool:
        try:
            for item in items:
                futures.append(pool.submit(guarded, function, item))
            yield
        finally:
            stop()
    for future in futures:
        future.result()
