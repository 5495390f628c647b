"""The command ``cache-sim``: runs traces through eviction policies and compares the hit ratios.

Exit codes: 0 success, 1 a file cannot be written, 2 wrong usage or an unreadable trace.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shlex
import shutil
import sys
from pathlib import Path

from latchstore.cache_simulation.contestants import NAMES, why_missing
from latchstore.cache_simulation.report import as_json, markdown, plain_text, print_with_rich
from latchstore.cache_simulation.simulation import Size, TraceResult, simulate, size_of
from latchstore.cache_simulation.traces import SimulationError, Trace
from latchstore.printable import complain, printable

BAD_USAGE = 2
CANNOT_WRITE = 1

_SIZES = "0.1%,0.3%,1%,3%,10%"
_KEYS = 100_000
_ALPHA = 1.0

#: The lines of a file between which the table is written.
BEGIN, END = "<!-- cache-sim: begin -->", "<!-- cache-sim: end -->"

_DESCRIPTION = """\
Run traces of requests through the eviction policies of latchstore.Cache, those of cachetools and theine
if they are installed, and Belady's optimum, which uses future requests and is an upper bound. Print the
hit ratio of each.

A TRACE is one of
  zipf:ALPHA   requests by Zipf's law with that exponent, zipf alone: --alpha
  scan:ALPHA   the same, but one in three requests belongs to a scan, which reads all keys in turn
  loop:KEYS    KEYS keys in a fixed order, repeatedly; loop alone: --keys
  FILE         a file with one key per line, optionally gzipped; ./zipf for a file of that name
  -            the same from standard input
"""

_EPILOG = """\
A file is read once; its requests are kept in a temporary file, and its keys in memory. Percentages are
relative to the number of distinct keys.

Exit codes: 0 success, 1 a file cannot be written, 2 wrong usage or an unreadable trace, 130 interrupted,
141 the output was closed.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``cache-sim``."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("traces", metavar="TRACE", nargs="+", help="see above")
    parser.add_argument(
        "--policies",
        metavar="NAMES",
        help=f"comma-separated list, or all that are installed (default): {', '.join(NAMES)}",
    )
    parser.add_argument(
        "--sizes",
        default=_SIZES,
        metavar="SIZES",
        help="comma-separated list of cache sizes, in entries or percent of the keys; default: %(default)s",
    )
    parser.add_argument(
        "--requests",
        type=_positive,
        metavar="N",
        help="number of requests; default: 1,000,000 generated ones, or all of a file",
    )
    parser.add_argument(
        "--keys",
        type=_positive,
        default=_KEYS,
        metavar="N",
        help="number of keys of generated traces; default: 100,000",
    )
    parser.add_argument(
        "--alpha", type=float, default=_ALPHA, help="exponent of zipf and scan; default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of generated traces; default: %(default)s")
    parser.add_argument(
        "--warm-up",
        type=_not_negative,
        default=0,
        metavar="N",
        help="number of initial requests that are not counted; default: %(default)s",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE.png", help="draw the result as a chart, with matplotlib"
    )
    parser.add_argument(
        "--write",
        type=Path,
        metavar="FILE.md",
        help=f"write the result as a table into a file, between the lines {BEGIN} and {END}",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run ``cache-sim``; return the exit code."""
    try:
        return _run(arguments)
    except SimulationError as error:
        complain("cache-sim", str(error))
        return BAD_USAGE
    except BrokenPipeError:
        raise  # the output was closed: handled as for all commands
    except OSError as error:
        complain("cache-sim", str(error))
        return CANNOT_WRITE


def _run(arguments: argparse.Namespace) -> int:
    policies = _policies(arguments.policies)
    sizes = _sizes(arguments.sizes)
    traces = _traces(arguments)
    _check_plot(arguments.plot)
    if arguments.write is not None:
        _parts_around(arguments.write)
    with _ProgressLine() as line:
        results = [simulate(trace, policies, sizes, arguments.warm_up, line.show) for trace in traces]
    _print(results, arguments.json)
    if arguments.plot is not None:
        from latchstore.cache_simulation.plot import draw

        draw(results, arguments.plot)
    if arguments.write is not None:
        _write(results, arguments)
    return 0


# -- arguments ----------------------------------------------------------------------------------------


def _policies(text: str | None) -> list[str]:
    if text is None or text == "all":
        missing = {name: why for name in NAMES if (why := why_missing(name))}
        if missing:
            reasons = "; ".join(f"{name} ({why})" for name, why in missing.items())
            print(f"latchstore cache-sim: skipped: {reasons}", file=sys.stderr)
        return [name for name in NAMES if name not in missing]
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in NAMES:
            raise SimulationError(f"--policies must be one or more of {', '.join(NAMES)}, got {name!r}")
        if why := why_missing(name):
            raise SimulationError(f"--policies: {name} cannot be compared: {why}")
    return names


def _sizes(text: str) -> list[Size]:
    sizes = []
    for part in text.split(","):
        try:
            sizes.append(size_of(part.strip()))
        except ValueError:
            raise SimulationError(
                f"--sizes must be numbers of entries, or percentages up to 100%, got {part.strip()!r}"
            ) from None
    return sizes


def _traces(arguments: argparse.Namespace) -> list[Trace]:
    if arguments.traces.count("-") > 1:
        raise SimulationError("trace '-': standard input can be read only once")
    if not 0 <= arguments.alpha < float("inf"):
        raise SimulationError(f"--alpha must be a number of at least 0, got {arguments.alpha:g}")
    return [
        Trace(name, arguments.keys, arguments.requests, arguments.alpha, arguments.seed)
        for name in dict.fromkeys(arguments.traces)
    ]


def _check_plot(path: Path | None) -> None:
    """Check before the simulation whether the plot can be written."""
    if path is None:
        return
    if importlib.util.find_spec("matplotlib") is None:
        raise SimulationError("--plot needs matplotlib: run python -m pip install 'latchstore[simulation]'")
    if not path.parent.is_dir() or path.is_dir():
        raise SimulationError(f"--plot {str(path)!r}: the file cannot be created")


def _positive(text: str) -> int:
    return _at_least(text, 1)


def _not_negative(text: str) -> int:
    return _at_least(text, 0)


def _at_least(text: str, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from None
    if number < least:
        raise argparse.ArgumentTypeError(f"must be at least {least}, got {number}")
    return number


# -- output -------------------------------------------------------------------------------------------


class _ProgressLine:
    """A progress line on standard error, if that is a terminal."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()

    def __enter__(self) -> _ProgressLine:
        return self

    def __exit__(self, *error: object) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def show(self, text: str) -> None:
        """Redraw the line."""
        if self._shown:
            line = printable(text, sys.stderr)[: shutil.get_terminal_size().columns - 1]
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)


def _print(results: list[TraceResult], is_json: bool) -> None:
    if is_json:
        print(json.dumps({"traces": as_json(results)}, indent=2), flush=True)
        return
    if sys.stdout.isatty():
        try:
            print_with_rich(results)
        except ImportError:
            pass
        else:
            return
    for line in plain_text(results).splitlines():
        print(printable(line), flush=True)


def _parts_around(path: Path) -> tuple[str, str]:
    """Return the parts of a file before and after the table."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or str(error)
        raise SimulationError(f"--write {str(path)!r}: cannot be read: {problem}") from error
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SimulationError(f"--write {str(path)!r}: the file must have the lines {BEGIN} and {END}")
    return before, after


def _write(results: list[TraceResult], arguments: argparse.Namespace) -> None:
    """Write the table into a file, with the command that made it."""
    before, after = _parts_around(arguments.write)
    parts = [BEGIN, f"```sh\n{_command(arguments)}\n```", markdown(results)]
    if arguments.plot is not None:
        picture = os.path.relpath(arguments.plot, arguments.write.parent)
        parts.append(f"![Hit ratios of the table above]({Path(picture).as_posix()})")
    body = "\n\n".join([*parts, END])
    arguments.write.write_text(f"{before}{body}{after}", encoding="utf-8")


def _command(arguments: argparse.Namespace) -> str:
    """Return the command, with all options that affect the result."""
    words = ["python", "-m", "latchstore", "cache-sim", *arguments.traces]
    for option, value, default in (
        ("--policies", arguments.policies, None),
        ("--sizes", arguments.sizes, _SIZES),
        ("--requests", arguments.requests, None),
        ("--keys", arguments.keys, _KEYS),
        ("--alpha", arguments.alpha, _ALPHA),
        ("--seed", arguments.seed, 0),
        ("--warm-up", arguments.warm_up, 0),
    ):
        if value != default:
            words += [option, str(value)]
    return shlex.join(words)
