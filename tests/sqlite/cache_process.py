"""Another process that has a cache on a store in a file, and calls functions of the tests with it."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from latchstore import Cache, EventManager, SqliteStore
from tests.sqlite.other_process import TIMEOUT


class CacheProcess:
    """A process with one cache at a time."""

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

    def open(self, path: Path, **options: Any) -> Self:
        """Open a cache, with options of its own, on the store of a file."""
        self._pipe.send(("open", (path, options)))
        self.result()
        return self

    def close(self) -> None:
        """Close the store."""
        self._pipe.send(("close", ()))
        self.result()

    def begin(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Have a function of a module called with a `Call`, the cache and arguments."""
        self._pipe.send((function, arguments))

    def result(self) -> Any:
        """Wait for the call to end; return what it returns, or raise what it raises."""
        kind, answer = self._receive()
        if kind == "raised":
            raise answer
        assert kind == "returned", kind
        return answer

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Do `begin` and `result`."""
        self.begin(function, *arguments)
        return self.result()

    def await_pause(self) -> None:
        """Wait until the call has come to its `Call.pause`."""
        assert self._receive()[0] == "paused"

    def go_on(self) -> None:
        """End the pause."""
        self._pipe.send(None)

    def kill(self) -> None:
        """End the process as ``kill -9`` does."""
        self._process.kill()
        self._process.join(TIMEOUT)

    def _receive(self) -> Any:
        if not self._pipe.poll(TIMEOUT):
            raise TimeoutError
        return self._pipe.recv()

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


class Call:
    """What a function in the other process tells the test."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def pause(self) -> None:
        """Have the test go on, until it calls `CacheProcess.go_on`."""
        self._pipe.send(("paused", None))
        self._pipe.recv()


def _serve(pipe: Connection) -> None:
    call = Call(pipe)
    blocks = contextlib.ExitStack()
    cache: Any = None
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            blocks.close()
            return
        try:
            answer = None
            if function == "close":
                blocks.close()
            elif function == "open":
                path, options = arguments
                store = blocks.enter_context(SqliteStore(path, EventManager(), durability="off"))
                cache = blocks.enter_context(Cache(store, **options))
            else:
                answer = function(call, cache, *arguments)
            pipe.send(("returned", answer))
        except Exception as error:
            pipe.send(("raised", error))
