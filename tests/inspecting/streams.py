"""Requests to the server of ``top``, and its stream as a browser reads it."""

from __future__ import annotations

import http.client
import json
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

#: Seconds after which a wait has failed.
TIMEOUT = 20.0


class Answer(NamedTuple):
    """What a request was answered with."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        assert self.status == 200, self.body
        return json.loads(self.body)


def ask(url: str, path: str = "/", *, method: str = "GET", host: str | None = None, **headers: str) -> Answer:
    """Send a request; names of headers have underscores for dashes."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT)
    try:
        connection.putrequest(method, path, skip_host=host is not None)
        for each in () if host is None else host.split("|"):
            if each:
                connection.putheader("Host", each)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


class Message(NamedTuple):
    """One event of a stream."""

    event: str
    data: Any
    id: str | None


class Stream:
    """A stream of the server's.

    Parameters
    ----------
    url : str
        Of the page.
    last_id : str, optional
        The last message that was had before.
    """

    def __init__(self, url: str, last_id: str | None = None) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT)
        headers = {} if last_id is None else {"Last-Event-ID": last_id}
        self._connection.request("GET", "/events", headers=headers)
        self._response = self._connection.getresponse()
        assert self._response.status == 200
        assert self._response.getheader("Content-Type") == "text/event-stream"
        self.server: str = self.next("hello").data["server"]

    def _messages(self) -> Message | None:
        fields: dict[str, str] = {}
        while True:
            line = self._response.readline().decode()
            if not line:
                return None
            name, _, value = line.rstrip("\n").partition(": ")
            if name:
                fields[name] = value
            elif "data" in fields:
                return Message(fields["event"], json.loads(fields["data"]), fields.get("id"))
            elif not line.strip():
                fields.clear()

    def next(self, *events: str) -> Message:
        """Return the next message of one of some events."""
        while (message := self._messages()) is not None:
            if message.event in events:
                return message
        raise AssertionError("the stream has ended")

    def changes(self, count: int) -> list[dict[str, Any]]:
        """Return so many changes, or a few more that came with them."""
        found: list[dict[str, Any]] = []
        while len(found) < count:
            found += self.next("changes").data
        return found

    def state(self, wanted: Any) -> dict[str, Any]:
        """Return the first state of which a function is true."""
        while True:
            state: dict[str, Any] = self.next("state").data
            if wanted(state):
                return state

    def has_ended(self) -> bool:
        """Read to the end; return whether it came."""
        while self._messages() is not None:
            continue
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._response.close()
        self._connection.close()
