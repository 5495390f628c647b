"""The directive ``command-line``: the commands, and what each prints for ``--help``."""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from latchstore.programs import COMMANDS

if TYPE_CHECKING:
    from sphinx.application import Sphinx

WIDTH = 84


def help_of(command: str) -> str:
    """Return what ``latchstore COMMAND --help`` prints."""

    def formatter(prog: str) -> argparse.HelpFormatter:
        return argparse.HelpFormatter(prog, width=WIDTH, max_help_position=28)

    parser = argparse.ArgumentParser(f"latchstore {command}", formatter_class=formatter, allow_abbrev=False)
    import_module(COMMANDS[command][0]).add_arguments(parser)
    parser.formatter_class = formatter
    return parser.format_help()


class CommandLine(SphinxDirective):
    """A section for each command."""

    def run(self) -> list[nodes.Node]:
        """Make the sections."""
        sections: list[nodes.Node] = []
        for command, (_, summary) in COMMANDS.items():
            section = nodes.section(ids=[command])
            section += nodes.title(text=command)
            section += nodes.paragraph(text=f"{summary[0].upper()}{summary[1:]}.")
            section += nodes.literal_block(text=help_of(command), language="text")
            self.state.document.note_explicit_target(section)
            sections.append(section)
        return sections


def setup(app: Sphinx) -> dict[str, Any]:
    """Extend Sphinx."""
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
