"""A store works on a server that is reached by TLS, with a password, by Sentinel, or in a cluster."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme
from redis.sentinel import Sentinel

from latchstore import AuthorizationError, EventManager, EventsLost, RedisStore, StoreSetEvent
from latchstore.aio import AsyncStore
from tests.redis.servers import PATIENCE, Server, free_port, preferred

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "between-machines.md"


def check(*stores: RedisStore) -> None:
    """See that what the first store commits is read, and heard, by the second; close both."""
    with stores[0] as store, stores[-1] as other, other.watch("watched*") as changes:
        with store.transaction("both"):
            store.set("watched", (b"1", {"kind": "tried"}))
            store.set("beside", (b"2", {}))
        assert (other.to_bytes("watched"), other.to_bytes("beside")) == (b"1", b"2")
        assert list(other.query_keys(kind="tried")) == ["watched"]
        change = changes.get(PATIENCE)
        assert isinstance(change, StoreSetEvent)
        assert change.key == "watched"
        asyncio.run(check_awaited(store, other))


async def check_awaited(store: RedisStore, other: RedisStore) -> None:
    """See the same of tasks, in a thread that blocks for nothing."""
    await AsyncStore(store).multiset(["awaited", "too"], [(b"3", {"kind": "awaited"}), (b"4", {})])
    async with AsyncStore(other).transaction() as tx:
        assert await tx.query_keys(kind="awaited") == ["awaited"]
        await tx.delete("too")
        await tx.delete("awaited")


def two(url: Any, namespace: str = "tried", **options: Any) -> list[RedisStore]:
    return [RedisStore(url, EventManager(), namespace=namespace, **options) for _ in range(2)]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def certificates(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    authority.cert_pem.write_to_path(folder / "authority.pem")
    for name in ("localhost", "client"):
        authority.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(folder / f"{name}.pem")
    return folder


@pytest.fixture(scope="module", params=["no", "yes"])
def tls(request: pytest.FixtureRequest, certificates: Path) -> Iterator[tuple[Server, str]]:
    """A server that only speaks TLS, and its URL; with a certificate of clients, or without."""
    port = str(free_port())
    own, ca = str(certificates / "localhost.pem"), str(certificates / "authority.pem")
    options = [
        "--tls-port", port, "--tls-auth-clients", request.param,
        "--tls-cert-file", own, "--tls-key-file", own, "--tls-ca-cert-file", ca,
    ]  # fmt: skip
    with Server("redis", *options) as server:
        url = f"rediss://localhost:{port}?ssl_ca_certs={ca}"
        if request.param == "yes":
            url += f"&ssl_certfile={certificates / 'client.pem'}&ssl_keyfile={certificates / 'client.pem'}"
        yield server, url


@pytest.fixture
def tls_url(tls: tuple[Server, str]) -> str:
    return tls[1]


@pytest.fixture(scope="module")
def locked_server(redis_server: Server) -> Iterator[Server]:
    with Server(redis_server.kind, "--requirepass", "secret", tcp=True) as server:
        # What the page says that a user needs, who has no more than that here.
        (line,) = re.findall(r"^ACL SETUSER .*$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
        with redis.Redis.from_url(server.url, password="secret") as client:
            client.execute_command(*line.replace(">secret", ">pw").replace("{shop}", "{tried}").split())
        yield server


@pytest.fixture
def replicated(redis_server: Server) -> Iterator[tuple[Server, Server, Server]]:
    """A primary, its replica and a Sentinel that watches both."""
    kind = redis_server.kind
    with Server(kind, tcp=True) as primary:
        of_primary = f"127.0.0.1 {primary.port}"
        # A machine may be busy: it takes nobody to be down by itself, the test tells it.
        config = f"sentinel monitor both {of_primary} 1\nsentinel down-after-milliseconds both 600000\n"
        with Server(kind, "--replicaof", of_primary, tcp=True) as replica:
            primary.wait_for("INFO replication", "state=online")
            with Server(kind, "--sentinel", tcp=True, config=config) as sentinel:
                sentinel.wait_for("INFO sentinel", "slaves=1")
                yield primary, replica, sentinel


@pytest.fixture(scope="module")
def cluster(redis_server: Server) -> Iterator[tuple[Server, Server, Server]]:
    """A cluster of two nodes, each with half of the slots, and a replica of the second one."""
    buses = [str(free_port()) for _ in range(3)]
    made = [
        Server(redis_server.kind, "--cluster-enabled", "yes", "--cluster-port", bus, tcp=True)
        for bus in buses
    ]
    with made[0] as low, made[1] as high, made[2] as replica:
        for epoch, each in enumerate(made, 1):
            # Else those that are alike are made different when nodes meet, by what looks like a failover.
            assert each.ask(f"CLUSTER SET-CONFIG-EPOCH {epoch}") == "+OK"
        assert low.ask("CLUSTER ADDSLOTSRANGE 0 8191") == "+OK"
        assert high.ask("CLUSTER ADDSLOTSRANGE 8192 16383") == "+OK"
        for other, bus in ((high, buses[1]), (replica, buses[2])):
            assert low.ask(f"CLUSTER MEET 127.0.0.1 {other.port} {bus}") == "+OK"
        for each in made:
            each.wait_for("CLUSTER INFO", "cluster_state:ok")
        replica.wait_for(f"CLUSTER REPLICATE {high.ask('CLUSTER MYID')}", "OK")
        replica.wait_for("INFO replication", "master_link_status:up")
        yield low, high, replica


class TestTls:
    def test_a_store(self, tls_url: str) -> None:
        check(*two(tls_url))

    def test_a_loop_does_not_wait_for_the_server_to_close(self, tls: tuple[Server, str]) -> None:
        """Its connection is closed with it all the same: a warning would fail."""
        server, url = tls

        async def main(store: RedisStore) -> None:
            assert not await AsyncStore(store).exists("missing")
            os.kill(server.pid, signal.SIGSTOP)

        with RedisStore(url, EventManager(), namespace="tried") as store:
            try:
                asyncio.run(main(store))
            finally:
                os.kill(server.pid, signal.SIGCONT)
            gc.collect()

    def test_another_authority_is_refused(self, tls_url: str, tmp_path: Path) -> None:
        trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
        base = tls_url.partition("?")[0]
        with pytest.raises(ConnectionError, match="certificate verify failed"):
            two(f"{base}?ssl_ca_certs={tmp_path / 'other.pem'}")


class TestPassword:
    def test_a_password_in_the_url(self, locked_server: Server) -> None:
        check(*two(f"redis://:secret@127.0.0.1:{locked_server.port}/0"))

    def test_a_password_by_a_unix_socket(self, locked_server: Server) -> None:
        check(*two(f"unix://{locked_server.socket}?db=1", password="secret"))

    def test_a_user_who_may_do_no_more_than_a_store_needs(self, locked_server: Server) -> None:
        check(*two(locked_server.url, username="app", password="pw"))

    def test_keys_of_others_are_refused(self, locked_server: Server) -> None:
        with pytest.raises(AuthorizationError):
            two(locked_server.url, "other", username="app", password="pw")[0].from_bytes("a", b"")

    @pytest.mark.parametrize("options", [{}, {"password": "wrong"}])
    def test_a_wrong_password(self, locked_server: Server, options: dict[str, Any]) -> None:
        with pytest.raises(AuthorizationError):
            RedisStore(locked_server.url, EventManager(), namespace="tried", **options)


class TestClients:
    def test_a_ready_client(self, redis_server: Server, namespace: str) -> None:
        with redis.Redis(unix_socket_path=str(redis_server.socket), db=3, client_name="mine") as client:
            check(*two(client, namespace))
            assert {key.split(b"}")[0] for key in client.scan_iter()} == {b"{" + namespace.encode()}

    def test_options_of_the_client(self, redis_server: Server, namespace: str) -> None:
        check(*two(redis_server.url, namespace, client_name="mine", socket_timeout=PATIENCE))


class TestSentinel:
    def test_a_store_goes_on_with_the_new_primary(self, replicated: tuple[Server, Server, Server]) -> None:
        primary, replica, sentinel = replicated
        known: Any = Sentinel
        client = known([("127.0.0.1", sentinel.port)]).master_for("both")
        check(*two(client))
        with RedisStore(client, EventManager(), namespace="tried") as store, store.watch("after") as changes:
            revision = store.info()["revision"]
            primary.wait_for_replica()
            primary.kill()
            sentinel.wait_for("SENTINEL FAILOVER both", "OK|INPROG")  # else it has not seen the replica yet
            sentinel.wait_for("INFO sentinel", f":{replica.port},")
            store.set("after", (b"3", {}))
            assert store.get("after").revision == revision + 1
            assert store.to_bytes("watched") == b"1"
            assert getattr(changes.get(PATIENCE), "key", None) == "after"
        assert replica.ask("ZCARD {tried}:keys") == ":3"


def begin_move(source: Server, target: Server, slot: int) -> None:
    """Have a slot be moved from one node of a cluster to another; its keys are not yet."""
    assert target.ask(f"CLUSTER SETSLOT {slot} IMPORTING {source.ask('CLUSTER MYID')}") == "+OK"
    assert source.ask(f"CLUSTER SETSLOT {slot} MIGRATING {target.ask('CLUSTER MYID')}") == "+OK"


def move_keys(source: Server, target: Server, *keys: bytes) -> None:
    with redis.Redis(unix_socket_path=str(source.socket)) as client:
        moved = client.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 10_000, "KEYS", *keys)
        assert moved == b"OK"


def end_move(source: Server, target: Server, slot: int) -> None:
    """Move the keys that are left, and give the slot to the target."""
    with redis.Redis(unix_socket_path=str(source.socket)) as client:
        move_keys(source, target, *client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1_000))
    for node in (target, source):
        assert node.ask(f"CLUSTER SETSLOT {slot} NODE {target.ask('CLUSTER MYID')}") == "+OK"


def asked_of(server: Server) -> int:
    """Return how often a server has sent somebody on to another one."""
    with redis.Redis(unix_socket_path=str(server.socket)) as client:
        found: dict[str, Any] = client.info("errorstats").get("errorstat_ASK", {})
    return int(found.get("count", 0))


class TestCluster:
    def test_a_store_whose_slot_is_being_moved(self, cluster: tuple[Server, Server, Server]) -> None:
        """All that is there is read meanwhile; commits, and what reads one instant, wait for its end."""
        low, high, _ = cluster
        with closing(redis.RedisCluster(host="127.0.0.1", port=low.port)) as client:
            keyslot: Any = client.keyslot
            slot = keyslot("{moved}")
            source, target = (low, high) if slot < 8192 else (high, low)
            with (
                two(client, "moved")[0] as store,
                two(client, "moved")[0] as other,
                other.watch() as changes,
                ThreadPoolExecutor() as pool,
            ):
                store.multiset_data(["here", "there"], [b"1", b"2"])
                begin_move(source, target, slot)
                move_keys(source, target, b"{moved}:e:there", b"{moved}:keys", b"{moved}:about")
                for each in (store, other):
                    assert (each.to_bytes("here"), each.to_bytes("there")) == (b"1", b"2")
                    assert not each.exists("nowhere")
                    assert (each.info()["keys"], each.info()["revision"]) == (2, 1)
                waits = asked_of(source)
                written = pool.submit(store.from_bytes, "after", b"3")
                read = pool.submit(other.multiget_data, ["here", "there"])
                while asked_of(source) < waits + 20:  # they have tried again and again
                    assert not written.done()
                    assert not read.done()
                end_move(source, target, slot)
                written.result(PATIENCE)
                assert [each.read() for each in read.result(PATIENCE)] == [b"1", b"2"]
                assert store.get("after").revision == 2
                keys = {getattr(changes.get(PATIENCE), "key", None) for _ in range(3)}
                assert keys == {"here", "there", "after"}
            assert (source.ask("EXISTS {moved}:keys")[:6], target.ask("ZCARD {moved}:keys")) == (
                "-MOVED",
                ":3",
            )

    def test_a_store_is_on_one_node_and_goes_on_with_its_replica(
        self, cluster: tuple[Server, Server, Server]
    ) -> None:
        low, high, replica = cluster
        with closing(redis.RedisCluster(host="127.0.0.1", port=low.port)) as client:
            keyslot: Any = client.keyslot
            for namespace in ("tried", "bar"):
                assert (keyslot(f"{{{namespace}}}") < 8192) == (namespace == "bar")
                check(*two(client, namespace))
            assert (low.ask("ZCARD {bar}:keys"), high.ask("ZCARD {tried}:keys")) == (":2", ":2")
            with two(client)[0] as store, two(client)[0] as idle, store.watch("after") as changes:
                assert idle.to_bytes("watched") == b"1"
                high.wait_for_replica("{tried}unrelated")
                # A replica that does not know the last epoch takes over with one that its primary ignores. It
                # may know a later one: its own, in a cluster that nothing else has used.
                (epoch,) = map(int, re.findall(r"cluster_my_epoch:(\d+)", high.ask("CLUSTER INFO")))
                known = "|".join(map(str, range(epoch, epoch + 100)))
                replica.wait_for("CLUSTER INFO", rf"cluster_current_epoch:({known})\b")
                # The primary becomes the replica of its replica: what is sent to it is answered with MOVED.
                assert replica.ask("CLUSTER FAILOVER TAKEOVER") == "+OK"
                high.wait_for("INFO replication", "role:slave")
                store.set("after", (b"3", {}))
                assert idle.to_bytes("after") == b"3"
                assert getattr(changes.get(PATIENCE), "key", None) == "after"
                replica.wait_for_replica("{tried}unrelated")
                # And back, but now the other one is gone at once.
                assert high.ask("CLUSTER FAILOVER TAKEOVER") == "+OK"
                replica.kill()
                assert idle.to_bytes("after") == b"3"
                store.set("after", (b"4", {}))
                assert getattr(changes.get(PATIENCE), "key", None) == "after"

    def test_a_cluster_that_is_away(self, caplog: pytest.LogCaptureFixture) -> None:
        """Its errors are those of any other server that is away."""
        bus = str(free_port())
        with Server(preferred(), "--cluster-enabled", "yes", "--cluster-port", bus, tcp=True) as node:
            assert node.ask("CLUSTER ADDSLOTSRANGE 0 16383") == "+OK"
            node.wait_for("CLUSTER INFO", "cluster_state:ok")
            client = redis.RedisCluster(host="127.0.0.1", port=node.port)
            with closing(client), two(client)[0] as store, store.watch("after") as changes:
                store.from_bytes("a", b"1")
                node.kill()
                for _ in range(2):
                    with pytest.raises(ConnectionError):
                        store.to_bytes("a")
                    with pytest.raises(ConnectionError):
                        store.from_bytes("a", b"2")
                node.start()
                node.wait_for("CLUSTER INFO", "cluster_state:ok")
                assert isinstance(changes.get(PATIENCE), EventsLost)  # it keeps nothing on disk
                store.from_bytes("after", b"3")
                assert getattr(changes.get(PATIENCE), "key", None) == "after"
        assert not any(record.exc_info for record in caplog.records)
