"""What is put is there, in order, once for each key."""

from __future__ import annotations

import pickle
from datetime import timedelta
from typing import Any

import pytest

from latchstore import CodecError, DictMemoryStore, EventManager, JobExistsError, QueueClosedError, WorkQueue
from latchstore.queue import places
from tests.queue.parts import AnyStore, Clock, all_claimed, claimed, counts, in_memory


def test_first_in_first_out(queue: WorkQueue[Any]) -> None:
    for number in range(50):
        queue.put(number)
    assert all_claimed(queue) == list(range(50))


def test_a_higher_priority_first(queue: WorkQueue[Any]) -> None:
    for number, priority in enumerate([0, -1, 10**9, 0, 5, -(10**9), 5]):
        queue.put(number, priority=priority)
    assert all_claimed(queue) == [2, 4, 6, 0, 3, 1, 5]


def test_what_a_job_has(queue: WorkQueue[Any]) -> None:
    key = queue.put({"to": "anna"}, priority=3, metadata={"kind": "mail"})
    job = claimed(queue)
    assert (job.key, job.payload, job.priority, job.attempts) == (key, {"to": "anna"}, 3, 1)
    assert job.metadata == {"kind": "mail"}
    assert job.payload is job.payload
    assert job.leased_until == 1_700_000_060.0


def test_a_key_of_ones_own(queue: WorkQueue[Any], store: AnyStore) -> None:
    assert queue.put(1, key="a/b *[") == "a/b *["
    assert "jobs/a/b *[" in store
    assert claimed(queue).key == "a/b *["


def test_metadata_can_be_queried(queue: WorkQueue[Any], store: AnyStore) -> None:
    queue.put(1, key="k", metadata={"kind": "mail"})
    assert list(store.query_keys(kind="mail")) == ["jobs/k"]


def test_a_delayed_job_waits_for_its_time(queue: WorkQueue[Any], clock: Clock) -> None:
    queue.put("later", delay=timedelta(seconds=5))
    queue.put("now")
    assert counts(queue) == {"waiting": 1, "delayed": 1}
    assert all_claimed(queue) == ["now"]
    clock.now += 5
    assert all_claimed(queue) == ["later"]


def test_jobs_whose_delay_is_over_keep_their_order(queue: WorkQueue[Any], clock: Clock) -> None:
    queue.put("first", delay=30)
    queue.put("second", delay=10)
    queue.put("third")
    clock.now += 30
    assert all_claimed(queue) == ["first", "second", "third"]


def test_a_second_job_of_a_key_is_refused(queue: WorkQueue[Any]) -> None:
    queue.put(1, key="k")
    with pytest.raises(JobExistsError, match=r"'jobs', job 'k'.*is ready.*if_exists='keep'") as refused:
        queue.put(2, key="k")
    assert (refused.value.queue, refused.value.key, refused.value.state) == ("jobs", "k", "ready")
    assert all_claimed(queue) == [1]
    with pytest.raises(JobExistsError, match="is leased"):
        queue.put(2, key="k")


def test_a_second_job_of_a_key_is_kept_out(queue: WorkQueue[Any]) -> None:
    queue.put(1, key="k")
    assert queue.put(2, key="k", if_exists="keep") == "k"
    assert all_claimed(queue) == [1]


def test_a_second_job_of_a_key_replaces_the_first(queue: WorkQueue[Any]) -> None:
    queue.put(1, key="k", metadata={"old": True})
    queue.put("other")
    queue.put(2, key="k", if_exists="replace", metadata={"new": True})
    assert all_claimed(queue) == ["other", 2]


def test_a_dead_letter_has_its_key(queue: WorkQueue[Any]) -> None:
    queue.put(1, key="k")
    claimed(queue).fail("bad")
    with pytest.raises(JobExistsError, match="is dead"):
        queue.put(2, key="k")
    queue.put(2, key="k", if_exists="replace")
    assert counts(queue) == {"waiting": 1}
    job = claimed(queue)
    assert (job.payload, job.attempts) == (2, 1)


@pytest.mark.parametrize("if_exists", ["refuse", "keep", "replace"])
def test_an_entry_that_is_no_job_is_left_alone(
    queue: WorkQueue[Any], store: AnyStore, if_exists: str
) -> None:
    store.set("jobs/k", (b"data", {}))
    with pytest.raises(JobExistsError, match="another entry there"):
        queue.put(1, key="k", if_exists=if_exists)
    assert store.to_bytes("jobs/k") == b"data"


def test_queues_of_other_names_are_apart(store: AnyStore, queue: WorkQueue[Any]) -> None:
    other: WorkQueue[Any] = WorkQueue(store, "job")
    other.put("other")
    queue.put("ours")
    assert all_claimed(queue) == ["ours"]
    assert all_claimed(other) == ["other"]


def test_queues_of_one_name_are_one(store: AnyStore, queue: WorkQueue[Any], clock: Clock) -> None:
    other: WorkQueue[Any] = WorkQueue(store, "jobs", clock=clock)
    other.put(1)
    queue.put(2)
    assert [claimed(queue).payload, claimed(other).payload] == [1, 2]


def test_codecs(store: AnyStore) -> None:
    raw: WorkQueue[bytes] = WorkQueue(store, "raw", codec="raw")
    raw.put(b"\0")
    assert claimed(raw).payload == b"\0"
    pickled: WorkQueue[object] = WorkQueue(store, "pickled", codec="pickle")
    pickled.put({1, 2})
    assert claimed(pickled).payload == {1, 2}
    with pytest.raises(CodecError, match=r"^queue 'raw', job 'k' cannot be encoded: str 'text': ") as caught:
        raw.put("text", key="k")  # type: ignore[arg-type]
    assert (caught.value.queue, caught.value.key) == ("raw", "k")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert "raw/k" not in store


def test_a_payload_that_cannot_be_decoded_fails_like_any_job(
    queue: WorkQueue[Any], store: AnyStore, clock: Clock
) -> None:
    queue.put(1, key="k")
    store.set_data("jobs/k", b"no JSON")
    wrong = r"^queue 'jobs', job 'k' cannot be decoded: 7 bytes, bytes b'no JSON': "
    with pytest.raises(CodecError, match=wrong), claimed(queue) as job:
        job.payload
    assert counts(queue) == {"delayed": 1}
    clock.now += 10.0
    with claimed(queue) as job:
        job.fail("no JSON")
    with pytest.raises(CodecError, match=wrong):
        next(queue.dead_letters()).payload


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"key": 1}, TypeError, "key must be a str"),
        ({"key": ""}, ValueError, "key must not be empty"),
        ({"priority": 1.5}, TypeError, "priority must be an int"),
        ({"priority": True}, TypeError, "priority must be an int"),
        ({"priority": 10**9 + 1}, ValueError, "priority must be from"),
        ({"delay": -1}, ValueError, "delay must be from 0"),
        ({"delay": float("nan")}, ValueError, "delay must be from 0"),
        ({"delay": float("inf")}, ValueError, "delay must be from 0"),
        ({"delay": None}, TypeError, "delay must be a number of seconds"),
        ({"metadata": [1]}, TypeError, "metadata must be a mapping"),
        ({"metadata": {"queue.place": 1}}, ValueError, "'queue.place'"),
        ({"if_exists": "merge"}, ValueError, "if_exists must be one of 'refuse', 'keep', 'replace'"),
    ],
)
def test_wrong_arguments(
    queue: WorkQueue[Any], arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        queue.put(1, **arguments)
    assert counts(queue) == {}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"store": {}}, TypeError, "store must be a DictMemoryStore"),
        ({"name": 1}, TypeError, "name must be a str"),
        ({"name": ""}, ValueError, "name must be a non-empty string"),
        ({"name": "a/b"}, ValueError, "without a slash"),
        ({"codec": "yaml"}, ValueError, "codec must be one of"),
        ({"max_attempts": 0}, ValueError, "max_attempts must be at least 1"),
        ({"backoff": 1}, TypeError, "backoff must be callable"),
        ({"clock": 1}, TypeError, "clock must be callable"),
    ],
)
def test_wrong_options(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    options: dict[str, Any] = {"store": DictMemoryStore(EventManager()), "name": "jobs", **arguments}
    with pytest.raises(error, match=message):
        WorkQueue(options.pop("store"), options.pop("name"), **options)


def test_a_closed_queue_takes_no_jobs(queue: WorkQueue[Any]) -> None:
    queue.put(1)
    queue.close()
    queue.close()
    with pytest.raises(QueueClosedError, match="'jobs' is closed"):
        queue.put(2)
    assert queue.closed
    assert "closed work queue 'jobs'" in repr(queue)


@in_memory
def test_a_queue_is_saved_with_its_store(queue: WorkQueue[Any], store: AnyStore, tmp_path: Any) -> None:
    assert isinstance(store, DictMemoryStore)
    for number in range(5):
        queue.put(number, priority=number % 2)
    claimed(queue).fail("bad")
    claimed(queue)
    store.save(tmp_path / "file")
    loaded: WorkQueue[Any] = WorkQueue(
        DictMemoryStore.load(tmp_path / "file", EventManager()), "jobs", clock=queue_clock(61)
    )
    assert counts(loaded) == {"waiting": 3, "leased": 1, "dead": 1}
    loaded.put(5, priority=1)
    assert all_claimed(loaded) == [3, 5, 0, 2, 4]


def queue_clock(seconds: float) -> Clock:
    clock = Clock()
    clock.now += seconds
    return clock


@pytest.mark.parametrize(
    "now", [0.0, 999_999_999.999999, 10**9, 10**9 + 1.5, 1.7e9, 10**10 - 1.5, 10**10, 1e10]
)
def test_places_are_in_the_order_of_time(now: float) -> None:
    places_of = [places.delayed("jobs", now + step, places.rank_of(0, 1)) for step in (0.0, 0.5, 1.0, 2.0)]
    assert places_of == sorted(places_of)
    assert {len(place) for place in places_of} == {len(places_of[0])}
    assert places.parsed(places_of[0]).time == places.microseconds(now)
