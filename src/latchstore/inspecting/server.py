"""The web server of ``top``: one page, its files, the state as JSON, and a stream of updates.

1. It is bound to the loopback address only, answers GET only, and changes nothing.
2. A page of another site cannot read it: the name in ``Host`` must be a local name of this machine, which an
   attacker's names for this address are not (DNS rebinding); there are no CORS headers; and requests that a
   browser marks as sent by another site are refused.
3. The page runs no script except its own file, loads nothing from elsewhere, and cannot be framed
   (Content-Security-Policy). It puts data of a store into text nodes only.
4. A stream has a thread, which waits for news and for its browser. Changes that a slow browser has missed are
   a gap; a browser that reads nothing for a while is disconnected.

Thread safety: `open` and `streams` are changed by single operations of the dict and of the set.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import threading
import weakref
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

from latchstore.inspecting.collector import Collector

ADDRESS = "127.0.0.1"

#: Hosts in requests of this machine's browsers, with any port (for example of a tunnel).
_OWN_HOSTS = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.IGNORECASE)

#: The files of the page, with their content types.
_FILES = {
    "/": ("top.html", "text/html; charset=utf-8"),
    "/top.css": ("top.css", "text/css; charset=utf-8"),
    "/top.js": ("top.js", "text/javascript; charset=utf-8"),
}

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Connection": "close",
}

#: Maximum number of simultaneous streams.
_MOST_STREAMS = 16

#: Seconds that a browser may read nothing, seconds between two messages, and until a message without news.
_PATIENCE, _PAUSE, _SILENCE = 10.0, 0.2, 2.0


class TopServer(ThreadingHTTPServer):
    """Serves the page of a collector, with a thread for each request.

    Parameters
    ----------
    port : int
        Port number; 0 for any free one.
    collector : Collector

    Attributes
    ----------
    open : dict
        The threads of requests in progress, with their sockets.
    name : str
        Distinguishes this server from another one at the same address, before or after it.
    streams : set
        One object for each stream.
    """

    daemon_threads = True
    # No other program may listen on the same port.
    allow_reuse_address = os.name == "posix"

    def __init__(self, port: int, collector: Collector) -> None:
        self.collector: Collector = collector
        self.open: dict[threading.Thread, Any] = {}
        self.name: str = secrets.token_hex(8)
        self.streams: set[object] = set()
        super().__init__((ADDRESS, port), _Handler)
        self._thread = threading.Thread(
            target=self.serve_forever, args=(0.25,), name="latchstore-top-server", daemon=True
        )
        self._thread.start()
        _servers.add(self)

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{ADDRESS}:{self.server_address[1]}/"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread that `end` can wait for."""
        thread = threading.Thread(
            target=self.process_request_thread,
            args=(request, client_address),
            name="latchstore-top-request",
            daemon=True,
        )
        self.open[thread] = request
        thread.start()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and unregister the thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.open.pop(threading.current_thread(), None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: a browser has disconnected."""

    def end(self) -> None:
        """Close all connections, and wait for the threads."""
        self.shutdown()
        self.server_close()
        self._thread.join()
        for thread, request in list(self.open.items()):
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits for its browser
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: TopServer
    server_version = "latchstore"
    sys_version = ""
    timeout = _PATIENCE

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: the terminal belongs to the user."""

    def do_GET(self) -> None:
        """Answer or refuse a request."""
        reason = self._why_refused()
        path = self.path.partition("?")[0]
        if reason is not None:
            self._answer(HTTPStatus.FORBIDDEN, "text/plain; charset=utf-8", reason.encode())
        elif path in _FILES:
            name, kind = _FILES[path]
            self._answer(HTTPStatus.OK, kind, files("latchstore.inspecting").joinpath(name).read_bytes())
        elif path == "/state":
            self._answer(HTTPStatus.OK, "application/json", self.server.collector.state_now().encode())
        elif path == "/events":
            self._stream()
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"there is no such page\n")

    def _why_refused(self) -> str | None:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or _OWN_HOSTS.fullmatch(hosts[0].strip()) is None:
            return "the page is only at http://127.0.0.1 and http://localhost\n"
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin") and self.path != "/":
            return "the page is not available to other sites\n"
        return None

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self._begin(status, kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _begin(self, status: HTTPStatus, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, value in _HEADERS.items():
            self.send_header(name, value)

    # -- the stream -------------------------------------------------------------------------------

    def _stream(self) -> None:
        streams, collector = self.server.streams, self.server.collector
        me = object()
        streams.add(me)
        try:
            if len(streams) > _MOST_STREAMS:
                self._answer(
                    HTTPStatus.SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", b"too many pages are open\n"
                )
                return
            collector.enter(me)
            self._begin(HTTPStatus.OK, "text/event-stream")
            self.end_headers()
            self._send_news()
        finally:
            streams.discard(me)
            collector.leave(me)

    def _send_news(self) -> None:
        """Send news until the browser disconnects or the server ends."""
        collector, number, version = self.server.collector, self._last_number(), 0
        self._send("hello", {"server": self.server.name})
        while not collector.ended:
            changes, missed, state, version = collector.news_after(number, version, _SILENCE)
            if missed:
                self._send("changes", [{"action": "missed"}])
            if changes:
                number = changes[-1]["number"]
                self._send("changes", changes, f"{self.server.name}-{number}")
            if state is not None:
                self._write(f"event: state\ndata: {state}\n\n")
            if not (changes or state):
                self._write(": nothing is new\n\n")  # detects whether the browser has disconnected
            collector.pause(_PAUSE)

    def _last_number(self) -> int:
        """Return the number of the browser's last change, if it reconnects to this server."""
        name, _, number = self.headers.get("Last-Event-ID", "").partition("-")
        if name == self.server.name and re.fullmatch(r"[0-9]{1,15}", number):
            return int(number)
        return 0

    def _send(self, event: str, data: Any, number: str | None = None) -> None:
        head = f"event: {event}\n" if number is None else f"id: {number}\nevent: {event}\n"
        self._write(f"{head}data: {json.dumps(data)}\n\n")

    def _write(self, text: str) -> None:
        self.wfile.write(text.encode("ascii"))  # JSON is ASCII


# All servers: a forked child must close their ports.
_servers: weakref.WeakSet[TopServer] = weakref.WeakSet()


def _close_in_child() -> None:
    for server in list(_servers):
        server.socket.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
