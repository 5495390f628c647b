"""``python -m tests.soak``: exit code 0, or 1 if anything was not as it must be."""

from __future__ import annotations

import argparse
import faulthandler
import sys
from collections.abc import Callable, Sequence

from tqdm import tqdm

from tests.soak.children import run_family
from tests.soak.run import soak
from tests.soak.storms import STORMS

#: Seconds beyond its own after which a soak hangs: it is ended, and all threads are told to stderr.
HANGS_AFTER = 240.0

#: What may strike; memory in two ways, in processes of their own.
CHOICES = ("none", "signals", "exceptions", "memory")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a soak and print its figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Use one store in all ways.")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the random choices (default: 0)")
    parser.add_argument("--storm", choices=CHOICES, default="none", help="what strikes (default: none)")
    options = parser.parse_args(arguments)
    seconds = options.minutes * 60
    with tqdm(
        total=round(seconds), unit="s", disable=None, bar_format="{l_bar}{bar}| {n:.0f}/{total} s"
    ) as bar:
        figures, violations = run(options.storm, seconds, options.seed, bar.update)
    width = max(map(len, figures))
    for name, figure in figures.items():
        print(f"{name:<{width}}  {figure}")
    for violation in violations[:10]:
        print(f"\n{violation}")
    return 1 if violations else 0


def run(
    storm: str, seconds: float, seed: int, progress: Callable[[float], object]
) -> tuple[dict[str, str], list[str]]:
    """Return the figures of a soak, and what must not have been."""
    if storm == "memory":
        family = run_family(seconds, seed, progress)
        return family.figures(), family.violations
    faulthandler.dump_traceback_later(seconds + HANGS_AFTER, exit=True)
    done = soak(seconds, seed, progress, STORMS[storm])
    return done.figures(), done.scene.violations


if __name__ == "__main__":
    sys.exit(main())
