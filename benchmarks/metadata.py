"""What does the isolation of metadata cost: a flat copy, or a deep one?

The store copies deeply only where a value could be changed in place.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

from benchmarks.measure import Answer, Subject, figures_of, interleaved, markdown
from latchstore.contract.values import entry_from_metadata

TIMES = 1_000
FLAT = {"type": "text", "user": "anna", "size": 12, "ratio": 0.5, "draft": False}
NESTED = {**FLAT, "tags": ["a", "b"]}


def _repeated(once: Callable[[], object]) -> Subject:
    return Subject(f"for _ in range({TIMES}): once()", TIMES, once=once)


def run(quick: bool = False) -> Answer:
    """Measure; return the answer; there are no limits here."""
    flat, nested = entry_from_metadata(FLAT), entry_from_metadata(NESTED)
    timings = interleaved(
        {
            "in, five flat items": _repeated(lambda: entry_from_metadata(FLAT)),
            "in, and a list": _repeated(lambda: entry_from_metadata(NESTED)),
            "out, five flat items": _repeated(flat.isolated_metadata),
            "out, and a list": _repeated(nested.isolated_metadata),
            "deepcopy of five flat items": _repeated(lambda: copy.deepcopy(FLAT)),
        },
        5 if quick else 60,
    )
    rows = [[name, f"{timing.median:,.0f}", f"{timing.spread:.0%}"] for name, timing in timings.items()]
    return Answer(markdown(["metadata", "ns", "spread"], rows), (), figures_of(timings))
