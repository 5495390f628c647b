"""Soaks in which memory fails, one after the other, each in a process of its own.

At some requests that fail CPython itself crashes (in ``tests/interrupts/plain_memory.py`` without a store).
A process that crashes is followed by another one.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latchstore.delivery import dispatcher
from tests.soak.invariants import SETTLED
from tests.soak.run import Soak
from tests.soak.scene import TIMEOUT
from tests.soak.storms import STORMS

#: How long each process runs at most, and how long it may take beyond that, in seconds.
LENGTH = 60.0
HANGS_AFTER = 4 * TIMEOUT

#: What fails: most rounds have requests, the others all memory that the process may have.
KINDS = ("requests", "requests", "limit")


@dataclass
class Family:
    """What all processes have counted.

    Attributes
    ----------
    begun : int
        How many processes there were.
    crashes : Counter of str
        Where those that crashed were.
    grown : dict of str to int
        How many more blocks and bytes of memory one had at its last rest than at its second, at the most.
    """

    seconds: float = 0.0
    begun: int = 0
    crashes: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    grown: dict[str, int] = field(default_factory=dict)
    threads: set[int] = field(default_factory=set)
    violations: list[str] = field(default_factory=list)

    def add(self, done: subprocess.CompletedProcess[str], kind: str) -> None:
        """Count what one has told of itself, and how it ended."""
        self.begun += 1
        told: dict[str, Any] = {}
        for line in done.stdout.splitlines():
            told = json.loads(line)
        for name, count in told.get("counts", {}).items():
            self.counts[f"{name} ({kind})" if name == "times that memory failed" else name] += count
        for name, grown in told.get("grown", {}).items():
            self.grown[name] = max(grown, self.grown.get(name, 0))
        self.threads.update(told.get("threads", []))
        self.violations += told.get("violations", [])
        if done.returncode < 0:
            self.crashes[place_of(done.stderr)] += 1
        elif done.returncode > 0 and not told.get("violations"):
            self.violations.append(f"a process ended with {done.returncode}:\n{done.stderr[-6_000:]}")

    def figures(self) -> dict[str, str]:
        """Return what there is to tell at the end."""
        grown = ", ".join(f"{more:,} {name}" for name, more in self.grown.items())
        places = ", ".join(f"{count} in {place}" for place, count in self.crashes.most_common(8))
        return {
            "seconds": f"{self.seconds:,.0f}",
            "processes": f"{self.begun:,}",
            "of which Python crashed in": f"{self.crashes.total():,}{places and ': '}{places}",
            **{name: f"{count:,}" for name, count in self.counts.items()},
            "memory grown in one, at most": grown,
            "threads at rests": " to ".join(map(str, sorted({min(self.threads), max(self.threads)})))
            if self.threads
            else "",
            "violations": f"{len(self.violations):,}",
        }


def place_of(stderr: str) -> str:
    """Return where a process crashed: the function that the thread was in."""
    found = re.search(
        r"^(?:Current thread|Thread) .*\n  File \"(.+)\", line (\d+) in (\S+)", stderr, re.MULTILINE
    )
    return "no thread of Python" if found is None else f"{Path(found[1]).name}:{found[2]} {found[3]}"


def run_family(seconds: float, seed: int, progress: Callable[[float], object] = float) -> Family:
    """Run one process after the other for some time; end early at the first violation."""
    family = Family()
    begun = time.monotonic()
    while family.seconds < seconds and not family.violations:
        kind = KINDS[family.begun % len(KINDS)]
        length = min(LENGTH, seconds / len(KINDS), max(1.0, seconds - family.seconds))
        words = [kind, length, f"{seed}{family.begun:04}"]
        done = subprocess.run(
            [sys.executable, "-m", "tests.soak.children", *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
        )
        family.add(done, kind)
        now = time.monotonic() - begun
        progress(now - family.seconds)
        family.seconds = now
    return family


def main() -> int:
    """Be one of the processes; tell of each rest."""
    reader = argparse.ArgumentParser()
    reader.add_argument("kind", choices=KINDS)
    reader.add_argument("seconds", type=float)
    reader.add_argument("seed", type=int)
    options = reader.parse_args()
    # Most finalizers of stores fail, and each rest waits for the threads of those.
    dispatcher.IDLE = 0.5
    faulthandler.enable()
    faulthandler.dump_traceback_later(options.seconds + HANGS_AFTER, exit=True)
    with tempfile.TemporaryDirectory() as directory:
        soak = Soak(options.seed, Path(directory), storm=STORMS[options.kind])
        measured = {"blocks": soak.measures.blocks, "bytes": soak.measures.resident}

        def tell() -> None:
            told = {
                "counts": soak.counts(),
                "grown": {
                    name: each[-1] - each[SETTLED] for name, each in measured.items() if len(each) > SETTLED
                },
                "threads": soak.measures.threads,
                "violations": soak.scene.violations[:3],
            }
            print(json.dumps(told), flush=True)

        soak.run(options.seconds, length=2.0, rested=tell)
        tell()
    return 1 if soak.scene.violations else 0


if __name__ == "__main__":
    sys.exit(main())
