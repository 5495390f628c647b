"""The comparison: runs each policy of each size through each trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from latchstore.cache_simulation.contestants import OPTIMUM, run_of
from latchstore.cache_simulation.recording import Recording
from latchstore.cache_simulation.traces import SimulationError, Trace

#: Called with a text about the present step.
Progress = Callable[[str], object]


def _silent(text: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a cache, in entries or in percent of the keys of a trace.

    Attributes
    ----------
    entries : int or None
    percent : float or None
        One of the two is None.
    """

    entries: int | None = None
    percent: float | None = None

    def of(self, keys: int) -> int:
        """Return the number of entries, for a trace with this many keys."""
        if self.entries is not None:
            return self.entries
        assert self.percent is not None
        return max(1, round(keys * self.percent / 100))


def size_of(text: str) -> Size:
    """Return a size from a text like ``500`` or ``0.1%``.

    Raises
    ------
    ValueError
        If the text is invalid.
    """
    if text.endswith("%"):
        percent = float(text[:-1])
        if not 0 < percent <= 100:
            raise ValueError(f"not above 0 and at most 100: {text}")
        return Size(percent=percent)
    entries = int(text)
    if entries < 1:
        raise ValueError(f"below 1: {text}")
    return Size(entries=entries)


@dataclass(frozen=True, slots=True)
class SizeResult:
    """The result for one size.

    Attributes
    ----------
    entries : int
    percent : float
        The entries as a percentage of the trace's keys.
    hits : dict
        Number of hits of each policy.
    """

    entries: int
    percent: float
    hits: dict[str, int]


@dataclass(frozen=True, slots=True)
class TraceResult:
    """The result for one trace.

    Attributes
    ----------
    name : str
    keys : int
        Number of distinct keys.
    counted : int
        Number of requests that count.
    warm_up : int
        Number of initial requests that do not count.
    sizes : list of SizeResult
        In ascending order of size.
    """

    name: str
    keys: int
    counted: int
    warm_up: int
    sizes: list[SizeResult]

    def ratio(self, size: SizeResult, policy: str) -> float:
        """Return the hit ratio of a policy."""
        return size.hits[policy] / self.counted

    def best(self, size: SizeResult) -> set[str]:
        """Return the policies with the most hits; the optimum does not count."""
        real = {policy: hits for policy, hits in size.hits.items() if policy != OPTIMUM}
        return {policy for policy, hits in real.items() if hits == max(real.values())}


def simulate(
    trace: Trace,
    policies: Sequence[str],
    sizes: Sequence[Size],
    warm_up: int = 0,
    progress: Progress = _silent,
) -> TraceResult:
    """Run all policies of all sizes through a trace.

    Raises
    ------
    SimulationError
        If the trace cannot be read, or is too short.
    """

    def tell(text: str) -> None:
        progress(f"{trace.name}: {text}")

    with Recording(trace.read(), warm_up, lambda count: tell(f"{count:,} requests read")) as recording:
        requests, keys = recording.requests, len(recording.keys)
        if not requests:
            raise SimulationError(f"trace {trace.name!r}: has no requests")
        if requests <= warm_up:
            raise SimulationError(
                f"--warm-up must be below the {requests:,} requests of trace {trace.name!r}, got {warm_up:,}"
            )
        results = []
        for entries in sorted({size.of(keys) for size in sizes}):
            hits = {policy: _hits(recording, policy, entries, warm_up, tell) for policy in policies}
            results.append(SizeResult(entries, 100 * entries / keys, hits))
        return TraceResult(trace.name, keys, requests - warm_up, warm_up, results)


def _hits(recording: Recording, policy: str, entries: int, warm_up: int, progress: Progress) -> int:
    """Return the number of hits of a policy after the warm-up."""
    total = done = 0
    for length, hits in zip(recording.lengths, run_of(policy)(recording, entries), strict=True):
        done += length
        if done > warm_up:
            total += hits
        progress(f"{policy} of {entries:,} entries: {100 * done // recording.requests} %")
    return total
