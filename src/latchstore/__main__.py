"""The command line: ``python -m latchstore COMMAND``, or ``latchstore COMMAND`` once installed.

Each command has a module of its own, which is imported only when the command is used. The module has two
functions: ``add_arguments(parser)`` and ``run(arguments)``, which returns the exit code.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from latchstore import __version__
from latchstore.programs import COMMANDS

#: Exit codes, as shells have them for SIGINT and SIGPIPE.
INTERRUPTED, CLOSED_OUTPUT = 130, 141


class _CommandParser(argparse.ArgumentParser):
    """The parser of one command; the command's module adds the options when the command is used."""

    module_name = ""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        module = import_module(self.module_name)
        module.add_arguments(self)
        self.set_defaults(run=module.run, command=self.prog.split()[-1])
        return super().parse_known_args(args, namespace)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="latchstore",
        description="A thread-safe key-value store for Python.",
        epilog="Begin with 'latchstore demo'. 'latchstore COMMAND --help' shows the options of a command.",
        allow_abbrev=False,
    )
    parser.add_argument("-V", "--version", action="version", version=f"latchstore {__version__}")
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
        The exit code of the command; 2 if no command was given, 130 after Ctrl-C, 141 if whoever read the
        output has closed it.

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
    try:
        exit_code: int = arguments.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"latchstore {arguments.command}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Python would report it again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_OUTPUT
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
