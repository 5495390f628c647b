"""A reader of the tutorial: saves the files of a page, types its commands, and compares what they print."""

from __future__ import annotations

import http.client
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

FOLDER = Path(__file__).parents[1] / "docs" / "tutorial"

#: The programs that run in the first terminal until they are stopped.
_UNTIL_STOPPED = ("flask ", "python follow.py")
#: The port that pages name. Another one is used instead, which is free.
_PORT = "8000"
#: What stands for work in a program takes less time here.
_SLEEP = re.compile(r"time\.sleep\([\d.]+\)")
_TIMEOUT = 60.0


class Block(NamedTuple):
    """A block of a page.

    Attributes
    ----------
    language : str
    caption : str
        The name of a file, or ``first terminal`` for what is printed there later.
    emphasized : str
        The numbers of the lines that are drawn in another colour.
    text : str
    """

    language: str
    caption: str
    emphasized: str
    text: str


class Command(NamedTuple):
    """A line to type, and what it prints."""

    line: str
    output: str


def blocks(page: str) -> list[Block]:
    """Return the blocks of a page, in order."""
    text = (FOLDER / page).read_text(encoding="utf-8")
    found = []
    for language, body in re.findall(r"^```(\S+|\{code-block\} \w+)\n(.*?)^```$", text, re.M | re.S):
        options = dict(re.findall(r"^:([\w-]+): *(.*)\n", body, re.M)) if "{" in language else {}
        content = re.sub(r"\A(?::[\w-]+:.*\n)+\n", "", body) if options else body
        caption, emphasized = options.get("caption", ""), options.get("emphasize-lines", "")
        found.append(Block(language.removeprefix("{code-block} "), caption, emphasized, content))
    return found


def commands(block: Block) -> Iterator[Command]:
    """Return the commands of a block, each with what it prints."""
    for part in re.split(r"^\$ ", block.text, flags=re.M)[1:]:
        line, _, output = part.partition("\n")
        yield Command(line, output)


def fits(printed: str, expected: str) -> bool:
    """Return whether a page shows what was printed; ``...`` stands for a part of a line, or for lines."""
    pattern = ""
    for line in expected.rstrip().splitlines():
        some = re.escape(line).replace(r"\.\.\.", ".*") + "\n"
        pattern += r"(?s:.*\n)?" if line == "..." else some
    return re.fullmatch(pattern, printed.rstrip() + "\n" if printed else "") is not None


class Reader:
    """Who follows a page, in an empty folder.

    Parameters
    ----------
    folder : Path
    ends : ExitStack
        Stops what still runs.
    """

    def __init__(self, folder: Path, ends: ExitStack) -> None:
        self._folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = str(free.getsockname()[1])
        # What runs in the first terminal.
        self._running: subprocess.Popen[str] | None = None
        ends.callback(self._stop)

    def follow(self, block: Block) -> None:
        """Do what a block shows, and compare what comes of it.

        Raises
        ------
        AssertionError
            If that is something else.
        """
        if block.language == "console":
            for command in commands(block):
                self._type(command)
        elif block.caption == "first terminal":
            self._watch(self._with_port(block.text))
        elif block.caption:
            text = _SLEEP.sub("time.sleep(0.05)", self._with_port(block.text))
            self._folder.joinpath(block.caption).write_text(text, encoding="utf-8")

    def _with_port(self, text: str) -> str:
        return text.replace(_PORT, self._port)

    def _type(self, command: Command) -> None:
        line, expected = self._with_port(command.line), self._with_port(command.output)
        if line.startswith(_UNTIL_STOPPED):
            self._stop()
            self._running = self._start(shlex.split(line))
            self._watch(expected)
            return
        if line.startswith("curl "):
            printed = _curl(shlex.split(line)[1:])
        else:
            with self._start(shlex.split(line)) as process:
                try:
                    printed, _ = process.communicate(timeout=_TIMEOUT)
                finally:
                    process.kill()  # as a rule it has ended
        assert fits(printed, expected), f"$ {line}\n{printed}\nand not\n{expected}"

    def _start(self, words: Sequence[str]) -> subprocess.Popen[str]:
        module = ["-m"] if words[0] != "python" else []
        return subprocess.Popen(
            [sys.executable, *module, *(words if module else words[1:])],
            cwd=self._folder,
            env={**os.environ, "PYTEST_ADDOPTS": "-p no:cacheprovider", "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _watch(self, expected: str) -> None:
        """Read the first terminal until it shows what a page does; press Ctrl-C where ``^C`` is."""
        before, interrupt, after = expected.partition("^C\n")
        assert self._running is not None
        assert self._running.stdout is not None
        printed = ""
        while not fits(printed, before):  # pytest-timeout ends the wait
            line = self._running.stdout.readline()
            assert line, f"it has ended; it printed\n{printed}\nand not\n{before}"
            printed += line
        if interrupt:
            printed = self._stop()
            assert fits(printed, after), f"{printed}\nand not\n{after}"

    def _stop(self) -> str:
        """Press Ctrl-C in the first terminal, if something runs there; return what it printed after that."""
        process, self._running = self._running, None
        if process is None:
            return ""
        with process:
            process.send_signal(signal.SIGINT)
            try:
                return process.communicate(timeout=_TIMEOUT)[0]
            finally:
                process.kill()  # as a rule it has ended


def _curl(arguments: list[str]) -> str:
    *options, address = arguments
    method = options[1] if options else "GET"
    url = urlsplit(address)
    connection = http.client.HTTPConnection(url.netloc, timeout=_TIMEOUT)
    try:
        connection.request(method, url.path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()
