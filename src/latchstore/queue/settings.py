"""What the parts of one queue share: where its jobs are, and how they are kept.

Thread safety: nothing of it changes but the last number that was allotted, in a section of its own.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

from latchstore.contract.arguments import exact_seconds
from latchstore.contract.codec import Codec, V
from latchstore.delivery.waiting import Latch
from latchstore.engine.transactional_store import TransactionalStore

if TYPE_CHECKING:
    from latchstore.contract.seconds import Seconds

#: Seconds of the first pause before a job is tried again, and of the longest.
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 600.0

_NANOSECONDS = 10**9

#: The longest lease or delay that is reckoned with, in seconds: some thousand years.
_LONGEST = 1e11


class _Numbers:
    """Allots the numbers of jobs: the time in nanoseconds, or one more than the last.

    Attributes
    ----------
    tag : str
        By which the keys of this process are told from those of others, which may allot the same number.
    """

    def __init__(self) -> None:
        self._last = 0
        self.tag: str = os.urandom(4).hex()
        # Held while one number is allotted; no other lock is taken meanwhile.
        self._latch = Latch()

    def next(self, offset: float) -> int:
        """Return a number that is larger than all that this process has allotted."""
        return self._latch.during(self._next, time.time_ns() + int(offset * _NANOSECONDS))

    def _next(self, now: int) -> int:
        self._last = number = max(now, self._last + 1)
        return number

    def renew(self) -> None:
        """Go on with a free section and a tag of its own, in a forked child."""
        self._latch = Latch()
        self.tag = os.urandom(4).hex()


_numbers = _Numbers()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_numbers.renew)


def key_for(number: int) -> str:
    """Return the key of a new job that is given none: a hexadecimal number, which grows in each process."""
    return f"{number:x}{_numbers.tag}"


def seconds_since(number: int, now: float) -> float:
    """Return how long ago a number was allotted."""
    return max(0.0, now - number / _NANOSECONDS)


def exponential_backoff(attempts: int) -> float:
    """Return seconds to wait before a job is tried again: some 1, 2, 4 ... 600, each up to a half less.

    The random part keeps jobs that have failed together from failing together again (Marc Brooker,
    "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
    """
    longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(attempts - 1, 16))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 (nothing secret)


@dataclass(frozen=True, slots=True)
class Settings(Generic[V]):
    """What a `WorkQueue` was made with.

    Attributes
    ----------
    store : TransactionalStore
    name : str
        Without a slash.
    codec : Codec
    max_attempts : int
    backoff : callable
        Called with the number of attempts, returns seconds.
    clock : callable
        Returns seconds since the epoch.
    offset : callable
        Returns by how many seconds the clock of the store is ahead of this machine's.
    goes_by_store : bool
        Whether the clock is that of the store, which the store's commits may look at by themselves.
    """

    store: TransactionalStore
    name: str
    codec: Codec[V]
    max_attempts: int
    backoff: Callable[[int], float]
    clock: Callable[[], float]
    offset: Callable[[], float]
    goes_by_store: bool

    def next_number(self) -> int:
        """Return the number of a new job."""
        return _numbers.next(self.offset())

    def key_of(self, key: str) -> str:
        """Return the store's key of a job."""
        return f"{self.name}/{key}"

    def job_key_of(self, key: str) -> str:
        """Return the key of a job whose key in the store this is."""
        return key[len(self.name) + 1 :]

    def pause_after(self, attempts: int) -> float:
        """Return the seconds before a job is tried again."""
        return checked_delay(self.backoff(attempts), "what backoff returns")


def checked_lease(lease: Seconds) -> float:
    """Return the seconds of a lease; they must be positive, and not endless."""
    seconds = checked_delay(lease, "lease")
    if not seconds > 0:
        raise ValueError(f"lease must be positive, got {seconds:g} seconds")
    return seconds


def checked_delay(delay: Seconds, argument: str) -> float:
    """Return the seconds of a delay; they must not be negative, nor endless."""
    seconds = exact_seconds(delay, argument)
    if not 0 <= seconds <= _LONGEST:
        raise ValueError(f"{argument} must be from 0 to {_LONGEST:g} seconds, got {seconds:g}")
    return seconds
