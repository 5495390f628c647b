"""Makes any text safe for a terminal, and prints the errors of commands."""

from __future__ import annotations

import sys
from typing import Any


def printable(text: str, stream: Any = None) -> str:
    r"""Return the text with everything escaped that a terminal or its encoding cannot show.

    File names may contain anything: invalid bytes (shown as ``\xff``), line breaks, escape codes. The stream
    is the destination of the text, standard output by default.
    """
    encoding = getattr(sys.stdout if stream is None else stream, "encoding", None) or "utf-8"
    whole = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    shown = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in whole
    )
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def complain(command: str, message: str) -> None:
    """Print an error of a command on one line."""
    print(f"latchstore {command}: error: {printable(message, sys.stderr)}", file=sys.stderr)
