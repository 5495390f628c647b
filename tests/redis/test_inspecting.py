"""The command ``inspect`` on a server: what it shows, and that it sends nothing that writes."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import redis

from latchstore import Cache, EventManager, RedisStore, top
from latchstore.inspecting.sources import SourceError, open_live
from tests.inspecting.runs import Run, fill
from tests.inspecting.streams import Stream
from tests.redis.servers import Server

pytestmark = pytest.mark.each_server


@pytest.fixture
def store(redis_server: Server, namespace: str) -> Iterator[RedisStore]:
    with RedisStore(redis_server.url, EventManager(), namespace=namespace, indexes=["state"]) as store:
        fill(store)
        yield store


def changes(server: Server) -> object:
    """Return how many changes the server has counted since it was saved."""
    with redis.Redis.from_url(server.url) as client:
        return client.info("persistence")["rdb_changes_since_last_save"]


def test_overview(
    redis_server: Server, namespace: str, store: RedisStore, capsys: pytest.CaptureFixture[str]
) -> None:
    before = changes(redis_server)
    found = Run(capsys, redis_server.url, "--namespace", namespace, "--json").json
    assert changes(redis_server) == before
    assert found["engine"] == "RedisStore"
    assert found["place"].endswith(f"namespace {namespace}")
    assert (found["keys"], found["revision"]) == (21, store.info()["revision"])
    assert found["history_from"] == 1
    assert found["indexes"][0] == "state"
    (queue,) = found["queues"]
    assert (queue["waiting"], queue["delayed"], queue["leased"], queue["dead"]) == (2, 1, 1, 1)
    assert found["largest"][0]["bytes"] == 5_000
    assert found["data_bytes"] == sum(store.get(key).size for key in store.query_keys())


@pytest.mark.usefixtures("store")
def test_entries(redis_server: Server, namespace: str, capsys: pytest.CaptureFixture[str]) -> None:
    separator = "&" if "?" in redis_server.url else "?"
    url = f"{redis_server.url}{separator}namespace={namespace}"
    before = changes(redis_server)
    found = Run(capsys, url, "--where", "state=new", "--where", "number<4", "--json").json
    assert [each["key"] for each in found["entries"]] == ["user:01", "user:03"]
    assert Run(capsys, url, "--key", "user:03", "--json").json["value"] == {"number": 3}
    assert Run(capsys, url, "--key", "nothing").code == 1
    assert changes(redis_server) == before


def test_caches(redis_server: Server, namespace: str, capsys: pytest.CaptureFixture[str]) -> None:
    with RedisStore(redis_server.url, EventManager(), namespace=namespace) as store:
        cache = Cache[int](store, max_entries=3)
        for number in range(5):
            cache[f"key{number}"] = number
    (found,) = Run(capsys, redis_server.url, "--namespace", namespace, "--json").json["caches"]
    assert found.pop("bytes") > 0
    assert found == {"prefix": "", "entries": 3, "idle": None, "evictions": {"size": 2}}


@pytest.mark.usefixtures("store")
def test_the_namespaces_are_named(
    redis_server: Server, namespace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = changes(redis_server)
    for arguments in [], ["--namespace", "none of these"]:
        run = Run(capsys, redis_server.url, *arguments)
        assert run.code == 2
        assert repr(namespace) in run.err
    assert changes(redis_server) == before


@pytest.mark.usefixtures("store")
def test_what_is_opened_to_be_followed(redis_server: Server, namespace: str) -> None:
    with pytest.raises(SourceError, match="there are:"):
        open_live(redis_server.url, "none of these")
    with redis.Redis.from_url(redis_server.url) as client:
        assert not client.exists("{none of these}:about")
    live = open_live(redis_server.url, namespace)
    assert live.was_opened
    assert isinstance(live.store, RedisStore)
    with (
        live.store,
        top.serve(live.store, interval=0.05) as page,
        Stream(page.url) as stream,
        RedisStore(redis_server.url, EventManager(), namespace=namespace) as other,
    ):
        with other.transaction("elsewhere"):
            state = stream.state(lambda state: state["activity"]["writer"])
            other.from_bytes("new", b"")
        (change,) = stream.changes(1)
    writer = state["activity"]["writer"]
    assert (writer["purpose"], writer["host"]) == ("transaction 'elsewhere'", socket.gethostname())
    assert (change["key"], change["transaction"]) == ("new", "elsewhere")
    assert state["queues"][0]["name"] == "mails"
