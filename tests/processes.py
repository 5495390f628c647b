"""Another process, which calls functions of test modules with what it has open."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

#: Seconds after which a wait in a test has failed.
TIMEOUT = 30.0


class CallingProcess:
    """A process that has one thing open at a time."""

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

    def enter(self, make: Callable[..., AbstractContextManager[Any]], *arguments: Any) -> None:
        """Close what is open, and open what a function of a module returns."""
        self._pipe.send((_enter, (make, arguments)))
        self.result()

    def close(self) -> None:
        """Close what is open."""
        self._pipe.send((_close, ()))
        self.result()

    def begin(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Have a function of a module called with a `Call`, what is open, and arguments."""
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
    """What the other process has open, and what a function in it tells the test.

    Attributes
    ----------
    opened : object
        What was entered.
    block : contextlib.ExitStack
        For functions that enter something which a later one leaves.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.opened: Any = None
        self.block = contextlib.ExitStack()
        self._opened = contextlib.ExitStack()

    def enter(self, manager: AbstractContextManager[Any]) -> None:
        """Close what is open, and open something else."""
        self.close()
        self.opened = self._opened.enter_context(manager)

    def close(self) -> None:
        """Close what is open."""
        self.opened = None
        self._opened.close()

    def pause(self) -> None:
        """Have the test go on, until it calls `CallingProcess.go_on`."""
        self._pipe.send(("paused", None))
        self._pipe.recv()


def _enter(
    call: Call, opened: Any, make: Callable[..., AbstractContextManager[Any]], arguments: tuple[Any, ...]
) -> None:
    call.enter(make(*arguments))


def _close(call: Call, opened: Any) -> None:
    call.close()


def _serve(pipe: Connection) -> None:
    call = Call(pipe)
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            call.close()
            return
        try:
            answer = "returned", function(call, call.opened, *arguments)
        except Exception as error:
            answer = "raised", error
        pipe.send(answer)
