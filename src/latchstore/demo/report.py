"""What came out of a run, and the words for it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from latchstore.demo.checks import CHECKS, Check
from latchstore.demo.files import Skipped

#: How many names of files are shown before "... and more".
NAMES_SHOWN = 5


@dataclass(slots=True)
class Report:
    """What came out of a run: the checks, and the lines of the table above them."""

    checks: dict[str, Check] = field(default_factory=lambda: {name: Check(name) for name in CHECKS})
    figures: dict[str, str] = field(default_factory=dict)
    loaded: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    changed: list[Skipped] = field(default_factory=list)

    @property
    def failed(self) -> list[str]:
        """The names of the checks that failed."""
        return [name for name, check in self.checks.items() if not check.passed]


def notes(report: Report) -> list[str]:
    """Return the lines below the table: which files were skipped or have changed, and the verdict."""
    found = counted(report.loaded + len(report.skipped), "file")
    changed = counted(len(report.changed), "file")
    lines = []
    for title, files in (
        (f"Skipped {len(report.skipped):,} of {found}:", report.skipped),
        (f"Changed on disk since the load: {changed}, not compared:", report.changed),
    ):
        if files:
            lines += [title, *(f"  {file.key}: {file.reason}" for file in files[:NAMES_SHOWN])]
        if len(files) > NAMES_SHOWN:
            lines.append(f"  ... and {len(files) - NAMES_SHOWN:,} more")
    return [*lines, f"FAILED: {', '.join(report.failed)}" if report.failed else "All checks passed."]


def rate(amount: float, seconds: float) -> str:
    """Return how much that is in a second."""
    rate = amount / seconds if seconds > 0 else 0.0
    return f"{rate:,.0f}" if rate >= 100 or rate == 0 else f"{rate:,.1f}"


def counted(number: int, noun: str, nouns: str = "") -> str:
    """Return the number with the noun, which gets an s in the plural if `nouns` does not say otherwise."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {nouns or noun + 's'}"


def label(suffix: str) -> str:
    """Return what a suffix is called."""
    return suffix or "without suffix"


def most_common(counts: dict[str, int], most: int) -> str:
    """Return that many of the most common suffixes with their counts, as text."""
    return ", ".join(f"{count:,} {label(suffix)}" for suffix, count in Counter(counts).most_common(most))
