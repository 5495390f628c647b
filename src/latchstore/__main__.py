"""The command line: ``python -m latchstore COMMAND``, or ``latchstore COMMAND`` once installed.

Each command has a module of its own, which is imported only when the command is used. The module has two
functions: ``add_arguments(parser)`` and ``run(arguments)``, which returns the exit code.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from latchstore import __version__
from latchstore.programs import COMMANDS


class _CommandParser(argparse.ArgumentParser):
    """The parser of one command; the command's module adds the options when the command is used."""

    module_name = ""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        module = import_module(self.module_name)
        module.add_arguments(self)
        self.set_defaults(run=module.run)
        return super().parse_known_args(args, namespace)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="latchstore",
        description="A thread-safe in-memory key-value store for Python.",
        epilog="'latchstore COMMAND --help' shows the options of a command.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"latchstore {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=_CommandParser)
    for name, (module_name, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, allow_abbrev=False)
        command.module_name = module_name
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments, without the program's name; those of the process if None.

    Returns
    -------
    exit_code : int
        The exit code of the command; 2 if no command was given.

    Raises
    ------
    SystemExit
        With code 2 if the arguments are invalid, with code 0 after ``--help`` and ``--version``.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if not hasattr(arguments, "run"):
        parser.print_help(sys.stderr)
        return 2
    exit_code: int = arguments.run(arguments)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
