"""``python -m tests.soak``: exit code 0, or 1 if anything was not as it must be."""

from __future__ import annotations

import argparse
import faulthandler
import sys
from collections.abc import Sequence

from tqdm import tqdm

from tests.soak.run import soak

#: Seconds beyond its own after which a soak hangs: it is ended, and all threads are told to stderr.
HANGS_AFTER = 240.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a soak and print its figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Use one store in all ways.")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the random choices (default: 0)")
    options = parser.parse_args(arguments)
    seconds = options.minutes * 60
    faulthandler.dump_traceback_later(seconds + HANGS_AFTER, exit=True)
    with tqdm(
        total=round(seconds), unit="s", disable=None, bar_format="{l_bar}{bar}| {n:.0f}/{total} s"
    ) as bar:
        done = soak(seconds, options.seed, bar.update)
    figures = done.figures()
    width = max(map(len, figures))
    for name, figure in figures.items():
        print(f"{name:<{width}}  {figure}")
    for violation in done.scene.violations[:10]:
        print(f"\n{violation}")
    return 1 if done.scene.violations else 0


if __name__ == "__main__":
    sys.exit(main())
