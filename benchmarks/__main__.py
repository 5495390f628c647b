"""``python -m benchmarks [--quick] [--write] [QUESTION ...]``: measure, print, keep."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

from benchmarks.measure import Ratio, machine

QUESTIONS = ("operations", "transactions", "events", "memory", "locks", "metadata", "checkers")

README = Path(__file__).with_name("README.md")
_BEGIN = "<!-- figures: written by python -m benchmarks --write -->"


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    made.add_argument("questions", nargs="*", metavar="QUESTION", help=", ".join(QUESTIONS))
    made.add_argument("--quick", action="store_true", help="few rounds: to see that it works")
    made.add_argument("--write", action="store_true", help="put the report into benchmarks/README.md")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the ratios to FILE")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run the questions asked for, all by default."""
    options = parser().parse_args(arguments)
    unknown = [name for name in options.questions if name not in QUESTIONS]
    if unknown:
        print(f"unknown question {unknown[0]!r}; there are {', '.join(QUESTIONS)}", file=sys.stderr)
        return 2
    sections = [f"Measured with {machine()}."]
    ratios: list[Ratio] = []
    for name in options.questions or QUESTIONS:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        module = importlib.import_module(f"benchmarks.{name}")
        report, compared = module.run(options.quick)
        question = (module.__doc__ or name).splitlines()[0]
        sections.append(f"## {name}: {question}\n\n{report}")
        ratios += compared
    text = "\n\n".join(sections)
    print(text)
    if options.json:
        options.json.write_text(json.dumps([vars(ratio) | {"ratio": ratio.value} for ratio in ratios]))
    if options.write:
        kept = README.read_text().partition(_BEGIN)[0]
        README.write_text(f"{kept}{_BEGIN}\n\n{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
