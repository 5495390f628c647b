"""What does a store on a Redis server cost, beside redis-py with the same commands and values?

The server is one of the tests', on a unix socket, and keeps nothing on disk. Single calls are made by one
thread of one process, in interleaved rounds. redis-py, with hiredis, reads the very hashes that the store has
written; it writes such hashes of its own, alone or together with what makes a commit of them: the sorted set
of keys, the revision and the log, as one MULTI. Of huey the storage alone is measured, which takes a job by
one command and forgets it then; what takes a job by LMOVE has it in a list until it is acknowledged.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any

from benchmarks.measure import Answer, Figure, Ratio, Subject, Timing, interleaved, markdown, ratio_table
from benchmarks.processes import DATA, KEYS, MANY, events_of_another_process, jobs_in_a_second
from benchmarks.queues import OurJobs
from latchstore import Cache, EventManager, NearCache
from tests.redis.servers import Server, preferred, program, version

if TYPE_CHECKING:
    from latchstore import RedisStore

NAMESPACE = "bench"
METADATA = {"number": 1, "kind": "product"}
WORKERS = 2

OURS = "RedisStore"
RAW = "redis-py"
LOGGED = "redis-py, with a log"
NEAR = "near copy"
MEMORY = "Cache in memory"
HUEY = "huey's storage"
LMOVE = "LMOVE by redis-py"


def _store(url: str, namespace: str = NAMESPACE) -> RedisStore:
    from latchstore import RedisStore

    return RedisStore(url, EventManager(), namespace=namespace)


def _client(url: str) -> Any:
    import redis

    return redis.Redis.from_url(url, protocol=2)


# -- single calls -------------------------------------------------------------------------------------


class Ours:
    """Ours."""

    def __init__(self, url: str) -> None:
        self.store = _store(url)
        self.get: Callable[[str], Any] = self.store.get
        self.to_bytes: Callable[[str], Any] = self.store.to_bytes
        self.get_many: Callable[[list[str]], Any] = lambda keys: list(self.store.multiget(keys))
        self.close: Callable[[], None] = self.store.close

    def set(self, key: str) -> None:
        self.store.set(key, (DATA, METADATA))

    def set_all(self, keys: list[str]) -> None:
        with self.store.transaction():
            for key in keys:
                self.store.set(key, (DATA, METADATA))


class Raw:
    """redis-py on the hashes of the store, and writing such hashes of its own."""

    def __init__(self, url: str) -> None:
        self._client = _client(url)
        self._read = f"{{{NAMESPACE}}}:e:%s"
        self._written = "{raw}:e:%s"
        self._fields: dict[Any, Any] = self._client.hgetall(self._read % KEYS[0])
        self.close: Callable[[], None] = self._client.close

    def get(self, key: str) -> Any:
        return self._client.hgetall(self._read % key)

    def to_bytes(self, key: str) -> Any:
        return self._client.hget(self._read % key, "d")

    def get_many(self, keys: list[str]) -> Any:
        with self._client.pipeline() as calls:
            for key in keys:
                calls.hgetall(self._read % key)
            return calls.execute()

    def set(self, key: str) -> None:
        self._client.hset(self._written % key, mapping=self._fields)

    def set_all(self, keys: list[str]) -> None:
        with self._client.pipeline() as calls:
            for key in keys:
                calls.hset(self._written % key, mapping=self._fields)
            calls.execute()


class Logged(Raw):
    """The same, with all that makes a commit of it."""

    def set(self, key: str) -> None:
        self.set_all([key])

    def set_all(self, keys: list[str]) -> None:
        fields = self._fields
        with self._client.pipeline() as calls:
            for key in keys:
                calls.hset(self._written % key, mapping=fields)
                calls.zadd("{raw}:keys", {key: 0})
            calls.hincrby("{raw}:about", "revision", 1)
            new = b"".join([*fields, *fields.values()])
            calls.xadd("{raw}:log", {"c": b"".join([key.encode() + new for key in keys])}, maxlen=10_000)
            calls.execute()


_SUBJECTS: Mapping[str, Callable[[str], Any]] = {OURS: Ours, RAW: Raw, LOGGED: Logged}

#: What is timed, and how many keys it takes.
_CALLS = {
    "get": ("for key in keys: get(key)", len(KEYS)),
    "to_bytes": ("for key in keys: to_bytes(key)", len(KEYS)),
    "set": ("for key in keys: set(key)", len(KEYS)),
    "transaction": ("set_all(keys)", MANY),
    "multiget": ("get_many(keys)", MANY),
}
_METHODS = ("get", "to_bytes", "set", "set_all", "get_many")
_WRITING = ("set", "transaction")


def _single_calls(url: str, rounds: int) -> dict[str, dict[str, Timing]]:
    """Return the times of each call."""
    with _store(url) as store:
        store.multiset(KEYS, [(DATA, METADATA)] * len(KEYS))
    made = {name: make(url) for name, make in _SUBJECTS.items()}
    result = {}
    for what, (code, count) in _CALLS.items():
        subjects = {
            name: Subject(
                code,
                count,
                keys=KEYS[:count],
                **{
                    each: getattr(subject, each) for each in ("get", "to_bytes", "set", "set_all", "get_many")
                },
            )
            for name, subject in made.items()
            if what in _WRITING or name != LOGGED
        }
        result[what] = interleaved(subjects, rounds)
    for subject in made.values():
        subject.close()
    return result


# -- near copies ---------------------------------------------------------------------------------------


def _near_hits(url: str, rounds: int) -> dict[str, Timing]:
    """Return the times of a hit of a near copy, and of a cache in memory."""
    # So long that a busy machine makes no read of a hit.
    near = NearCache(max_entries=len(KEYS), staleness=60)
    caches: dict[str, Cache[str]] = {NEAR: Cache(_store(url, "near"), near=near), MEMORY: Cache()}
    for cache in caches.values():
        for key in KEYS:
            cache.set(key, "x" * 100)
            cache.get(key)
    times = interleaved(
        {
            name: Subject("for key in keys: get(key)", len(KEYS), keys=KEYS, get=cache.get)
            for name, cache in caches.items()
        },
        rounds,
    )
    for cache in caches.values():
        cache.close()
    return times


# -- queues -------------------------------------------------------------------------------------------


def _our_jobs(url: str, namespace: str) -> OurJobs:
    return OurJobs(_store(url, namespace))


class HueyJobs:
    """The storage of huey."""

    def __init__(self, url: str, namespace: str) -> None:
        from huey.storage import RedisStorage

        self._storage: Any = RedisStorage(namespace, blocking=False, url=url)

    def put_all(self, count: int) -> None:
        for number in range(count):
            self._storage.enqueue(json.dumps(number).encode())

    def work(self) -> bool:
        data = self._storage.dequeue()
        if data is None:
            return False
        json.loads(data)
        return True


class MovedJobs:
    """A list of jobs, and one of those that are being done."""

    def __init__(self, url: str, namespace: str) -> None:
        self._client = _client(url)
        self._ready, self._claimed = f"{namespace}:ready", f"{namespace}:claimed"

    def put_all(self, count: int) -> None:
        self._client.rpush(self._ready, *(json.dumps(number) for number in range(count)))

    def work(self) -> bool:
        data = self._client.lmove(self._ready, self._claimed, "LEFT", "RIGHT")
        if data is None:
            return False
        json.loads(data)
        self._client.lrem(self._claimed, 1, data)
        return True


_QUEUES: Mapping[str, Any] = {OURS: _our_jobs, LMOVE: MovedJobs, HUEY: HueyJobs}


def _queues(
    url: str, rounds: int, count: int, pools: tuple[tuple[str, int], ...]
) -> dict[tuple[str, int], list[float]]:
    """Return jobs a second, by the name of the queue and the number of workers."""
    rates: dict[tuple[str, int], list[float]] = {}
    for turn in range(rounds):
        for number, (name, workers) in enumerate(pools):
            attach = partial(_QUEUES[name], url, f"jobs-{number}-{turn}")
            rate = jobs_in_a_second(attach, workers, count)
            if rate is not None:
                rates.setdefault((name, workers), []).append(rate)
    return rates


# -- the answer ---------------------------------------------------------------------------------------


def run(quick: bool = False) -> Answer:
    """Measure; return the answer."""
    kind = preferred()
    if not program(kind):
        return Answer("Not measured: there is no server, see CONTRIBUTING.md.", [], [])
    rounds, transactions, singles, jobs, few = (2, 20, 20, 20, 1) if quick else (15, 300, 300, 1_000, 3)
    pools = tuple((name, workers) for name in _QUEUES for workers in (1, WORKERS)[: 1 if quick else 2])
    with Server(kind) as server:
        calls = _single_calls(server.url, rounds)
        hits = _near_hits(server.url, rounds)
        heard = [
            events_of_another_process(partial(_store, server.url, f"events-{turn}"), transactions, singles)
            for turn in range(few)
        ]
        rates = _queues(server.url, few, jobs, pools)

    def ratio(what: str, other: str, asked: float) -> Ratio:
        times = calls[what]
        return Ratio.of(f"{what} / {other}", times[OURS].rounds, times[other].rounds, "ns", asked)

    ratios = [
        ratio("get", RAW, 1.3),
        ratio("to_bytes", RAW, 1.1),
        ratio("set", RAW, 2.0),
        ratio("transaction", LOGGED, 1.5),
        Ratio.of(f"hit of a {NEAR} / {MEMORY}", hits[NEAR].rounds, hits[MEMORY].rounds, "ns", 3.0),
    ]
    table = markdown(
        ["microseconds for a key", *_SUBJECTS],
        [
            [what, *(f"{times[name].median / 1e3:.1f}" if name in times else "" for name in _SUBJECTS)]
            for what, times in calls.items()
        ],
    )
    delay = statistics.median(each.delay for each in heard)
    pace = statistics.median(each.in_a_second for each in heard)
    pool = markdown(
        ["jobs in a second", "workers", "median"],
        [[name, str(workers), f"{statistics.median(each):,.0f}"] for (name, workers), each in rates.items()],
    )
    figures = [
        *(
            Figure.of(f"{what}, {name}", timing.rounds, "ns")
            for what, times in calls.items()
            for name, timing in times.items()
        ),
        *(Figure.of(f"hit, {name}", timing.rounds, "ns") for name, timing in hits.items()),
        Figure.of("events heard of another process", [each.in_a_second for each in heard], "events/s"),
        Figure.of("until an event is heard", [each.delay for each in heard], "ms"),
        *(Figure.of(f"{name}, {workers} workers", each, "jobs/s") for (name, workers), each in rates.items()),
    ]
    versions = ", ".join(f"{each} {metadata.version(each)}" for each in ("redis", "hiredis"))
    said = (
        f"{kind}-server {'.'.join(map(str, version(program(kind))))}, {versions}. "
        f"{pace:,.0f} events of another process are heard in a second; one is heard {delay:.2f} ms after its "
        "commit has begun, median."
    )
    return Answer(f"{ratio_table(ratios)}\n\n{table}\n\n{said}\n\n{pool}", ratios, figures)
