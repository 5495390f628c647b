"""Strike every operation and write a table: ``python -m tests.interrupts [EVERY] [NAME ...]``.

EVERY says of how many bytecodes one is struck, by default each. Takes some minutes then.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor

from tests.interrupts.exhaustion import exhaust
from tests.interrupts.operations import OPERATIONS


def main() -> None:
    """Write the table; exit with 1 if anything was wrong."""
    stride = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    names = sys.argv[2:] or list(OPERATIONS)
    struck = 0
    damage = []
    print("| operation | exceptions | wrong after it |\n|---|---:|---:|", flush=True)
    begun = time.monotonic()
    with ThreadPoolExecutor(1) as other:
        for name in names:
            answer = exhaust(name, other, stride)
            struck += answer.struck
            damage += [f"{name}, {each}" for each in answer.damage]
            print(f"| {name} | {answer.struck:,} | {len(answer.damage)} |", flush=True)
    print(f"| all | {struck:,} | {len(damage)} |", flush=True)
    print(f"{time.monotonic() - begun:.0f} s, Python {sys.version.split()[0]}", file=sys.stderr)
    print(*damage, sep="\n", file=sys.stderr)
    sys.exit(bool(damage))


if __name__ == "__main__":
    main()
