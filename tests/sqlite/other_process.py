"""Another process that has a store open, and does with it what a test asks for."""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from latchstore import EventManager, SqliteStore

#: Seconds after which a wait in a test has failed.
TIMEOUT = 30.0


class OtherProcess:
    """A process with one open store at a time."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """The identifier of the process."""
        assert self._process.pid is not None
        return self._process.pid

    def open(self, path: Path, **options: Any) -> None:
        """Open a store, and close the one before."""
        self._ask("open", path, options)

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Return what a method of the store returns, or raise what it raises."""
        return self._ask("call", method, arguments, options)

    def begin(self, notes: str) -> None:
        """Begin a transaction; `call` goes to it."""
        self._ask("begin", notes)

    def commit(self) -> None:
        """Commit the transaction."""
        self._ask("commit")

    def fill(self, commits: int) -> None:
        """Make so many commits of one key each."""
        self._ask("fill", commits)

    def count(self) -> int:
        """Set two keys to the next number in one commit; return the number."""
        number: int = self._ask("count")
        return number

    def count_on(self) -> None:
        """Have the process count on and on, and return when it has begun."""
        self._ask("count")
        self._pipe.send(("count_on",))

    def limit(self, size: int | None) -> None:
        """Let no file of the process grow beyond a number of bytes, as if the disk was full."""
        self._ask("limit", size)

    def close(self) -> None:
        """Close the store."""
        self._ask("close")

    def kill(self) -> None:
        """End the process as ``kill -9`` does."""
        self._process.kill()
        self._process.join(TIMEOUT)

    def _ask(self, *question: Any) -> Any:
        self._pipe.send(question)
        if not self._pipe.poll(TIMEOUT):
            raise TimeoutError(question)
        kind, answer = self._pipe.recv()
        if kind == "raised":
            raise answer
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pipe.close()
        self._process.join(TIMEOUT)


class _Served:
    store: SqliteStore | None = None
    blocks: contextlib.ExitStack

    def open(self, path: Path, options: dict[str, Any]) -> None:
        self.close()
        self.store = SqliteStore(path, EventManager(), **{"durability": "off", **options})

    def close(self) -> None:
        if self.store is not None:
            self.store.close()
            self.store = None

    def call(self, method: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        return getattr(self.store, method)(*arguments, **options)

    def begin(self, notes: str) -> None:
        assert self.store is not None
        self.blocks = contextlib.ExitStack()
        self.blocks.enter_context(self.store.transaction(notes))

    def commit(self) -> None:
        self.blocks.close()

    def fill(self, commits: int) -> None:
        assert self.store is not None
        for number in range(commits):
            self.store.from_bytes(f"filled{number % 10}", b"%d" % number)

    def count(self) -> int:
        assert self.store is not None
        number = 1 + int(self.store.to_bytes("first") if self.store.exists("first") else 0)
        self.store.multiset_data(["first", "second"], [b"%d" % number] * 2)
        return number

    def count_on(self) -> None:
        while True:
            self.count()

    def limit(self, size: int | None) -> None:
        most = resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (most if size is None else size, most))


def _serve(pipe: Connection) -> None:
    served = _Served()
    while True:
        try:
            name, *arguments = pipe.recv()
        except EOFError:
            served.close()
            return
        try:
            answer = "returned", getattr(served, name)(*arguments)
        except Exception as error:
            answer = "raised", error
        pipe.send(answer)
