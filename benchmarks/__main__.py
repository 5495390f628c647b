"""``python -m benchmarks [--quick] [--write] [QUESTION ...]``: measure, print, keep, draw, compare."""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.comparison import moved
from benchmarks.measure import Answer, Ratio, answer_to, as_code, machine
from benchmarks.peers import versions
from benchmarks.plots import draw
from benchmarks.threads import charts_beside

QUESTIONS = (
    "operations",
    "threads",
    "tail",
    "transactions",
    "scans",
    "events",
    "memory",
    "snapshots",
    "growth",
    "ordered",
    "startup",
    "files",
    "locks",
    "metadata",
    "checkers",
    "cache",
    "queues",
    "sqlite",
    "redis",
    "backends",
    "aio",
    "aio_server",
)

HERE = Path(__file__).parent
README = HERE / "README.md"
#: The last run that was written into the README, for the next one to be compared with.
LATEST = HERE / "results" / "latest.json"
_BEGIN = "<!-- figures: written by python -m benchmarks --write -->"


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    made.add_argument("questions", nargs="*", metavar="QUESTION", help=", ".join(QUESTIONS))
    made.add_argument("--quick", action="store_true", help="few rounds, to see that it works: under a minute")
    made.add_argument(
        "--write", action="store_true", help="put report, plots and results/latest.json into benchmarks/"
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write all figures and ratios to FILE")
    made.add_argument("--compare", type=Path, metavar="OLD.json", help="say what has moved since that run")
    made.add_argument(
        "--beside",
        type=Path,
        metavar="OTHER.json",
        help="draw what threads got done in that run, too: on a Python without the GIL, say",
    )
    made.add_argument("--plots", type=Path, metavar="FOLDER", help="draw the charts there, as PNG")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run the questions asked for, all by default."""
    options = parser().parse_args(arguments)
    unknown = [name for name in options.questions if name not in QUESTIONS]
    if unknown:
        print(f"unknown question {unknown[0]!r}; there are {', '.join(QUESTIONS)}", file=sys.stderr)
        return 2
    if options.write and options.questions:
        print("--write takes the answers to all questions: name none with it", file=sys.stderr)
        return 2
    try:
        old, other = (
            None if path is None else json.loads(path.read_text())
            for path in (options.compare, options.beside)
        )
    except (OSError, ValueError) as error:
        print(f"cannot read an earlier run: {error}", file=sys.stderr)
        return 2
    answers = _answers(options.questions or QUESTIONS, options.quick)
    if other is not None and "threads" in answers:
        answers["threads"] = replace(
            answers["threads"], charts=charts_beside(answers["threads"].charts, other)
        )
    text = _report(answers, HERE / "plots" if options.write else options.plots)
    print(text)
    new = _as_json(answers)
    if options.json:
        options.json.write_text(_json_text(new))
    if options.write:
        kept = README.read_text().partition(_BEGIN)[0]
        README.write_text(f"{kept}{_BEGIN}\n\n{text}\n")
        LATEST.parent.mkdir(exist_ok=True)
        LATEST.write_text(_json_text(new))
    if old is not None:
        print(f"\n{moved(old, new)}")
    return 0


def _answers(names: tuple[str, ...] | list[str], quick: bool) -> dict[str, Answer]:
    """Answer each question in a process of its own.

    What one leaves behind (modules, a heap with holes, code that has adapted itself to other types) would
    make a third of the time of the next: transactions after threads, with asyncio loaded by some library.
    """
    answers = {}
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as processes:
        for number, name in enumerate(names, 1):
            print(f"{number} of {len(names)}: {name} ...", file=sys.stderr, end="", flush=True)
            begun = time.monotonic()
            answers[name] = processes.submit(answer_to, name, quick).result()
            print(f" {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    return answers


def _report(answers: dict[str, Answer], folder: Path | None) -> str:
    sections = [f"Measured with {machine()}, {os.cpu_count()} processors; {versions()}."]
    for name, answer in answers.items():
        module = importlib.import_module(f"benchmarks.{name}")
        question = (module.__doc__ or name).splitlines()[0]
        parts = [f"## {name}: {question}", answer.report]
        if folder is not None and answer.charts:
            try:
                drawn = draw(answer.charts, folder)
            except ImportError as error:
                parts.append(f"Not drawn: {error}.")
            else:
                parts += [
                    f"![{as_code(chart.title)}](plots/{path.name})"
                    for chart, path in zip(answer.charts, drawn, strict=True)
                ]
        sections.append("\n\n".join(parts))
    return "\n\n".join(sections)


def _as_json(answers: dict[str, Answer]) -> dict[str, Any]:
    return {
        "machine": machine(),
        "versions": versions(),
        "figures": [
            {"question": name, **_rounded(vars(figure))}
            for name, answer in answers.items()
            for figure in answer.figures
        ],
        "ratios": [
            {"question": name, **_rounded(_ratio_as_json(ratio))}
            for name, answer in answers.items()
            for ratio in answer.ratios
        ],
    }


def _ratio_as_json(ratio: Ratio) -> dict[str, Any]:
    found = {**vars(ratio), "ratio": ratio.value, "met": ratio.met}
    del found["of_rounds"]  # it is the ratio, if there is one
    return found


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    """Keep four digits: the rest is noise, and fills the repository."""
    return {name: float(f"{each:.4g}") if type(each) is float else each for name, each in values.items()}


def _json_text(run: dict[str, Any]) -> str:
    """Return a run as JSON with a line for each figure and ratio, so that two runs differ line by line."""
    parts = []
    for name, part in run.items():
        lines = (
            "[\n" + ",\n".join(map(json.dumps, part)) + "\n]" if isinstance(part, list) else json.dumps(part)
        )
        parts.append(f"{json.dumps(name)}: {lines}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    sys.exit(main())
