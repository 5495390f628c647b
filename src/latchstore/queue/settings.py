"""The settings that all parts of a queue share.

Thread safety: settings are immutable, except for the last number allotted, which a latch guards.
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

#: Seconds of the first pause before a retry, and of the longest.
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 600.0

_NANOSECONDS = 10**9

#: The longest lease or delay, in seconds: some thousand years.
_LONGEST = 1e11


class _Numbers:
    """Allots job numbers: the time in nanoseconds, or the last number plus one.

    Attributes
    ----------
    tag : str
        Distinguishes the keys of this process from those of others, which may allot the same number.
    """

    def __init__(self) -> None:
        self._last = 0
        self.tag: str = os.urandom(4).hex()
        # Guards the last number; held while one is allotted, and no other lock is acquired meanwhile.
        self._latch = Latch()

    def next(self, offset: float) -> int:
        """Return a larger number than all that this process has allotted."""
        return self._latch.during(self._next, time.time_ns() + int(offset * _NANOSECONDS))

    def _next(self, now: int) -> int:
        self._last = number = max(now, self._last + 1)
        return number

    def renew(self) -> None:
        """Continue with a free latch and a new tag, in a forked child."""
        self._latch = Latch()
        self.tag = os.urandom(4).hex()


_numbers = _Numbers()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_numbers.renew)


def key_for(number: int) -> str:
    """Return a default key for a new job: a hexadecimal number, which increases in each process."""
    return f"{number:x}{_numbers.tag}"


def seconds_since(number: int, now: float) -> float:
    """Return the seconds since a number was allotted."""
    return max(0.0, now - number / _NANOSECONDS)


def exponential_backoff(attempts: int) -> float:
    """Return the seconds before a retry: about 1, 2, 4 ... 600, reduced at random by up to one half.

    The random part keeps jobs that failed together from being retried together (Marc Brooker,
    "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
    """
    longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(attempts - 1, 16))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 (nothing secret)


@dataclass(frozen=True, slots=True)
class Settings(Generic[V]):
    """The settings of a `WorkQueue`.

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
        Returns the seconds by which the store's clock is ahead of this machine's.
    goes_by_store : bool
        Whether the clock is the store's, which the store's commits can read by themselves.
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
        """Return the key of a job from its key in the store."""
        return key[len(self.name) + 1 :]

    def pause_after(self, attempts: int) -> float:
        """Return the seconds before a job is tried again."""
        return checked_delay(self.backoff(attempts), "the result of backoff")


def checked_lease(lease: Seconds) -> float:
    """Return the seconds of a lease; ValueError unless they are positive and finite."""
    seconds = checked_delay(lease, "lease")
    if not seconds > 0:
        raise ValueError(f"lease must be positive, got {seconds:g} seconds")
    return seconds


def checked_delay(delay: Seconds, argument: str) -> float:
    """Return the seconds of a delay; ValueError if they are negative or infinite."""
    seconds = exact_seconds(delay, argument)
    if not 0 <= seconds <= _LONGEST:
        raise ValueError(f"{argument} must be from 0 to {_LONGEST:g} seconds, got {seconds:g}")
    return seconds
