"""What strikes while a soak goes on: exceptions in its threads, signals, or requests for memory that fail."""

from __future__ import annotations

from dataclasses import dataclass


class Struck(BaseException):
    """What threads are struck by: as KeyboardInterrupt, it may come anywhere."""


@dataclass(frozen=True)
class Storm:
    """What strikes, and what it is allowed to break off.

    Attributes
    ----------
    kind : type of exception
        With what steps are broken off.
    bursts : tuple of int
        How many exceptions another thread sets in a worker in quick succession; none if it is empty.
    dispatchers : bool
        Whether it sets them in the threads that call listeners as well.
    signals : bool
        Whether signals strike the main thread, which works as the others do.
    requests : int
        How many requests for memory in a row fail at most.
    megabytes : int
        How much more memory than now the process may have; 0 for as much as there is.
    """

    kind: type[BaseException] = Struck
    bursts: tuple[int, ...] = (1,)
    dispatchers: bool = False
    signals: bool = False
    requests: int = 0
    megabytes: int = 0

    @property
    def starves(self) -> bool:
        """Whether memory is what fails."""
        return self.kind is MemoryError

    @property
    def handlers(self) -> int:
        """How many handlers stand around a step: more than fail in quick succession."""
        return self.requests + 6

    def excuses(self, error: BaseException | None) -> bool:
        """Tell whether an exception is what has struck, or was made of a MemoryError."""
        if not self.starves:
            return isinstance(error, self.kind)
        if isinstance(error, TimeoutError):
            return False  # something that was not given back was waited for
        if isinstance(error, SystemError):
            return True  # "error return without exception set": the interpreter's own
        while error is not None and not isinstance(error, MemoryError):
            error = error.__cause__ or error.__context__
        return error is not None


#: What there is in every soak: an exception now and then.
CALM = Storm()

STORMS: dict[str, Storm] = {
    "none": CALM,
    "signals": Storm(signals=True),
    "exceptions": Storm(bursts=(1, 1, 2, 3), dispatchers=True),
    "requests": Storm(MemoryError, bursts=(), requests=50),
    "limit": Storm(MemoryError, bursts=(), megabytes=8),
}
