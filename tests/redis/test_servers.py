"""The servers of the tests start, answer, keep what they are told to keep, and leave nothing behind."""

from __future__ import annotations

import os

import pytest

from tests.redis import servers
from tests.redis.servers import Server, ServerFailedError


def gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.each_server
def test_the_shared_server_answers(redis_server: Server) -> None:
    assert redis_server.ask("PING") == "+PONG"
    assert redis_server.url == f"unix://{redis_server.socket}"


@pytest.mark.each_server
def test_a_server_leaves_neither_a_process_nor_a_file(redis_server: Server) -> None:
    with Server(redis_server.kind) as server:
        process = server.pid
        assert server.ask("SET key value") == "+OK"
    assert gone(process)
    assert not server.directory.exists()


def test_a_server_that_does_not_start_shows_its_log(redis_server: Server) -> None:
    with (
        pytest.raises(ServerFailedError, match="no-such-option"),
        Server(redis_server.kind, "--no-such-option", "1"),
    ):
        pass


@pytest.mark.each_server
def test_what_is_kept_is_there_after_a_kill(redis_server: Server) -> None:
    with Server(redis_server.kind, "--appendonly", "yes", "--appendfsync", "always", tcp=True) as server:
        assert server.url.endswith(f":{server.port}/0")
        server.ask("SET key value")
        server.kill()
        server.start()
        assert server.ask("GET key") == "value"


def test_without_a_server_tests_are_skipped_but_fail_where_ci_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "program", lambda kind: "")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install redis-server"):
        servers.required("redis")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install redis-server"):
        servers.required("redis")
