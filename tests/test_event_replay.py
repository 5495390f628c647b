"""The events of a store, replayed, rebuild it: none is missing, doubled, split, swapped or made up.

Six threads write at random, with transactions that nest and fail, while other listeners come, go, die and
raise. One steady listener writes down what it hears. The checks of that history are themselves shown to
object to wrong ones.
"""

from __future__ import annotations

import gc
import importlib
import io
import itertools
import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pytest

from latchstore import DictMemoryStore, EventManager, StoreModificationEvent, StoreSetEvent, StringValue
from tests.schedules import run_threads

#: Seconds after which a wait has failed.
TIMEOUT = 200.0

THREADS = 6

KEYS = [f"k{number}" for number in range(100)]

#: What data begins with that is never committed.
ROLLED_BACK = b"rolled back"

#: Data and metadata of one key.
State = tuple[bytes, dict[str, Any]]


class Heard(NamedTuple):
    """One event, as the steady listener has written it down."""

    revision: int
    key: str
    action: str
    value: State | None
    previous: State | None


class Written(NamedTuple):
    """What one thread knows to have committed."""

    #: The data of each set, each of its own.
    data: list[bytes]
    #: The marks that updates of metadata have left, each of its own.
    marks: list[str]
    #: The keys that transactions have changed, by revision.
    keys: dict[int, list[str]]
    #: The revisions of transactions, and one None for every other commit.
    commits: list[int | None]


# -- the checks ------------------------------------------------------------------------------------


def steps_back(heard: list[Heard]) -> list[str]:
    """Find the events that come after one of a later commit."""
    return [
        f"revision {after.revision} after {before.revision}"
        for before, after in itertools.pairwise(heard)
        if after.revision < before.revision
    ]


def split_commits(heard: list[Heard]) -> list[str]:
    """Find the commits whose events have others between them."""
    begun: set[int] = set()
    now = 0
    faults = []
    for event in heard:
        if event.revision != now and event.revision in begun:
            faults.append(f"revision {event.revision} goes on after {now}")
        now = event.revision
        begun.add(now)
    return faults


def doubled_events(heard: list[Heard]) -> list[str]:
    """Find the keys of which a commit tells more than once."""
    told = Counter((event.revision, event.key) for event in heard)
    return [
        f"{key!r} {times} times in revision {revision}"
        for (revision, key), times in told.items()
        if times > 1
    ]


def missing_revisions(heard: list[Heard], last: int) -> list[str]:
    """Find the commits that nothing tells of, and events of commits that never were."""
    told = {event.revision for event in heard}
    return [f"revision {revision}" for revision in told ^ set(range(1, last + 1))]


def broken_chains(heard: list[Heard], final: dict[str, State]) -> list[str]:
    """Replay the events; find those that do not continue the last of their key, and a wrong end."""
    replayed: dict[str, State] = {}
    faults = []
    for event in heard:
        before = replayed.get(event.key)
        if event.previous != before:
            faults.append(f"{event} comes after {before}")
        action = "delete" if event.value is None else "set" if before is None else "update"
        if event.action != action:
            faults.append(f"{event} should be {action!r}")
        if event.value is None:
            replayed.pop(event.key, None)
        else:
            replayed[event.key] = event.value
    if replayed != final:
        faults.append(f"replayed {replayed}, the store has {final}")
    return faults


def wrong_data(heard: list[Heard], written: Iterable[Written]) -> list[str]:
    """Find data and marks that were committed and not told once, and those that never were committed."""
    told: Counter[object] = Counter()
    for event in heard:
        if event.value is None:
            continue
        data, metadata = event.value
        before, metadata_before = event.previous or (b"", {})
        if data != before:
            told[data] += 1
        if "mark" in metadata and metadata["mark"] != metadata_before.get("mark"):
            told[metadata["mark"]] += 1
    committed: Counter[object] = Counter()
    for each in written:
        committed.update(each.data)
        committed.update(each.marks)
    return [f"{item!r}: committed and not told" for item in committed - told] + [
        f"{item!r}: told and not committed" for item in told - committed
    ]


def wrong_transactions(heard: list[Heard], written: Iterable[Written]) -> list[str]:
    """Find the transactions that are not told of by one event for each key that they have changed."""
    told: dict[int, list[str]] = {}
    for event in heard:
        told.setdefault(event.revision, []).append(event.key)
    return [
        f"revision {revision} has changed {keys}, told are {told.get(revision)}"
        for each in written
        for revision, keys in each.keys.items()
        if sorted(told.get(revision, [])) != sorted(keys)
    ]


def rolled_back(heard: list[Heard]) -> list[str]:
    """Find the events of what was never committed."""
    return [str(event) for event in heard if event.value and event.value[0].startswith(ROLLED_BACK)]


def faults_by_check(
    heard: list[Heard], final: dict[str, State], last: int, written: list[Written]
) -> dict[str, list[str]]:
    """Return what each check objects to."""
    return {
        "steps_back": steps_back(heard),
        "split_commits": split_commits(heard),
        "doubled_events": doubled_events(heard),
        "missing_revisions": missing_revisions(heard, last),
        "broken_chains": broken_chains(heard, final),
        "wrong_data": wrong_data(heard, written),
        "wrong_transactions": wrong_transactions(heard, written),
        "rolled_back": rolled_back(heard),
    }


def assert_no_faults(faults: dict[str, list[str]]) -> None:
    # The first few tell enough; there may be a hundred thousand.
    assert {check: found[:3] for check, found in faults.items() if found} == {}


# -- the checks, checked ---------------------------------------------------------------------------


def update(revision: int, key: str, value: State, previous: State) -> Heard:
    return Heard(revision, key, "update", value, previous)


A1: State = (b"a1", {})
A2: State = (b"a1", {"mark": "m"})
B1: State = (b"b1", {})
B2: State = (b"b2", {})
C1: State = (b"c1", {})

#: Six commits: set a; set b; a transaction of a, b and c; delete b; b again; delete c.
RIGHT = [
    Heard(1, "a", "set", A1, None),
    Heard(2, "b", "set", B1, None),
    update(3, "a", A2, A1),
    update(3, "b", B2, B1),
    Heard(3, "c", "set", C1, None),
    Heard(4, "b", "delete", None, B2),
    Heard(5, "b", "set", (b"b3", {}), None),
    Heard(6, "c", "delete", None, C1),
]
RIGHT_FINAL: dict[str, State] = {"a": A2, "b": (b"b3", {})}
RIGHT_WRITTEN = [
    Written(
        [b"a1", b"b1", b"b2", b"c1", b"b3"], ["m"], {3: ["a", "b", "c"]}, [None, None, 3, None, None, None]
    )
]


def without(*places: int) -> list[Heard]:
    return [event for place, event in enumerate(RIGHT) if place not in places]


def in_order(*places: int) -> list[Heard]:
    return [RIGHT[place] for place in places]


def changed(place: int, **facts: Any) -> list[Heard]:
    return [*RIGHT[:place], RIGHT[place]._replace(**facts), *RIGHT[place + 1 :]]


#: Wrong histories, and the checks that must object to each.
WRONG = {
    "a commit is lost": (without(0), {"missing_revisions", "broken_chains", "wrong_data"}),
    "the last commit is lost": (without(7), {"missing_revisions", "broken_chains"}),
    "one event of a transaction is lost": (without(3), {"broken_chains", "wrong_data", "wrong_transactions"}),
    "an event comes twice in a row": (
        in_order(0, 0, 1, 2, 3, 4, 5, 6, 7),
        {"doubled_events", "broken_chains"},
    ),
    "an event comes again later": (
        in_order(0, 1, 2, 3, 4, 0, 5, 6, 7),
        {"steps_back", "split_commits", "doubled_events", "broken_chains"},
    ),
    "a transaction's event comes twice": (
        in_order(0, 1, 2, 3, 4, 4, 5, 6, 7),
        {"doubled_events", "broken_chains", "wrong_transactions"},
    ),
    "two commits are swapped": (in_order(1, 0, 2, 3, 4, 5, 6, 7), {"steps_back"}),
    "two commits of one key are swapped": (
        in_order(0, 1, 2, 3, 4, 6, 5, 7),
        {"steps_back", "broken_chains"},
    ),
    "a commit is split": (in_order(0, 1, 2, 3, 5, 4, 6, 7), {"steps_back", "split_commits"}),
    "a commit is told as two": (
        [*in_order(0, 1, 2, 3), RIGHT[4]._replace(revision=4), *in_order(5, 6, 7)],
        {"wrong_transactions"},
    ),
    "two commits are told as one": (changed(1, revision=1), {"missing_revisions"}),
    "a commit that never was": (
        [*RIGHT, Heard(7, "d", "set", (ROLLED_BACK, {}), None)],
        {"missing_revisions", "broken_chains", "wrong_data", "rolled_back"},
    ),
    "other data": (changed(6, value=(b"b4", {})), {"broken_chains", "wrong_data"}),
    "other metadata": (changed(2, value=(b"a1", {"mark": "n"})), {"broken_chains", "wrong_data"}),
    "metadata without a mark": (changed(6, value=(b"b3", {"n": 1})), {"broken_chains"}),
    "another action": (changed(6, action="update"), {"broken_chains"}),
    "a wrong previous value": (changed(3, previous=A1), {"broken_chains"}),
    "a rolled back value comes first": (
        [
            *RIGHT[:7],
            Heard(6, "c", "update", (ROLLED_BACK + b"c", {}), C1),
            Heard(6, "c", "delete", None, (ROLLED_BACK + b"c", {})),
        ],
        {"doubled_events", "wrong_data", "rolled_back"},
    ),
}


def test_the_checks_pass_what_is_right() -> None:
    assert_no_faults(faults_by_check(RIGHT, RIGHT_FINAL, 6, RIGHT_WRITTEN))


@pytest.mark.parametrize("wrong", WRONG)
def test_the_checks_object_to_what_is_wrong(wrong: str) -> None:
    heard, objecting = WRONG[wrong]
    faults = faults_by_check(heard, RIGHT_FINAL, 6, RIGHT_WRITTEN)
    assert {check for check, found in faults.items() if found} >= objecting
    with pytest.raises(AssertionError):
        assert_no_faults(faults)


def test_each_check_is_needed() -> None:
    checks = faults_by_check(RIGHT, RIGHT_FINAL, 6, RIGHT_WRITTEN)
    assert set().union(*(objecting for _, objecting in WRONG.values())) == set(checks)


# -- writers ---------------------------------------------------------------------------------------


class BodyFailed(Exception):
    """Ends a block on purpose."""


class FailingStream(io.BytesIO):
    """Gives some data, and then an error."""

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(5)
        if not data:
            raise BodyFailed
        return data


class Writer:
    """One thread's random work, and its own account of what it has committed.

    Parameters
    ----------
    store : DictMemoryStore
    number : int
        Of the thread.
    commits : int
        How many commits are its share.
    now_and_then : callable
        Called after every hundred of them.
    """

    def __init__(
        self, store: DictMemoryStore, number: int, commits: int, now_and_then: Callable[[], object]
    ) -> None:
        self.store = store
        self.number = number
        self.share = commits
        self.now_and_then = now_and_then
        self.random = random.Random(number)
        self.written = Written([], [], {}, [])
        self.serial = 0
        # What makes no commit is tried as well, so tries are counted apart.
        self.failed = 0

    def new_data(self) -> bytes:
        self.serial += 1
        return b"%d:%d" % (self.number, self.serial)

    def new_mark(self) -> str:
        return self.new_data().decode("ascii")

    def run(self) -> None:
        works = {
            self.set_data: 58,
            self.set_both: 10,
            self.delete: 10,
            self.mark: 8,
            self.set_many: 3,
            self.fail: 5,
            self.transaction: 5,
            self.optimistic: 1,
        }
        commits = self.written.commits
        told = 0
        while len(commits) < self.share:
            for work in self.random.choices(list(works), list(works.values()), k=20):
                work()
            if len(commits) >= told + 100:
                told = len(commits)
                self.now_and_then()

    def set_data(self) -> None:
        data = self.new_data()
        self.store.from_bytes(self.random.choice(KEYS), data)
        self.written.data.append(data)
        self.written.commits.append(None)

    def set_both(self) -> None:
        data, mark = self.new_data(), self.new_mark()
        self.store.set(self.random.choice(KEYS), StringValue(data, {"mark": mark, "items": [1, self.number]}))
        self.written.data.append(data)
        self.written.marks.append(mark)
        self.written.commits.append(None)

    def delete(self) -> None:
        try:
            self.store.delete(self.random.choice(KEYS))
        except KeyError:
            self.failed += 1
        else:
            self.written.commits.append(None)

    def mark(self) -> None:
        mark = self.new_mark()
        try:
            self.store.update_metadata(self.random.choice(KEYS), {"mark": mark})
        except KeyError:
            self.failed += 1
        else:
            self.written.marks.append(mark)
            self.written.commits.append(None)

    def set_many(self) -> None:
        keys = self.random.sample(KEYS, 3)
        data = [self.new_data() for _ in keys]
        self.store.multiset_data(keys, data)
        self.written.data.extend(data)
        self.written.commits.append(None)

    def fail(self) -> None:
        """Try what must change nothing: a stream that fails, a block that fails, a doomed one."""
        self.failed += 1
        key, data = self.random.choice(KEYS), ROLLED_BACK + self.new_data()
        way = self.random.randrange(3)
        if way == 2:
            with self.store.transaction() as transaction:
                self.store.from_bytes(key, data)
                transaction.doom()
            return
        try:
            if way == 0:
                self.store.set(key, (FailingStream(data), {}))
            with self.store.transaction():
                self.store.from_bytes(key, data)
                self.store.multiset_data(self.random.sample(KEYS, 2), [data, data])
                raise BodyFailed
        except BodyFailed:
            pass

    def change(self, changed: dict[str, bytes]) -> None:
        """Change some keys inside a block, each perhaps more than once, and note the last."""
        for key in self.random.choices(KEYS, k=3):
            changed[key] = self.new_data()
            self.store.from_bytes(key, changed[key])
        # One that comes and goes inside the block is not told of.
        brief = f"brief {self.new_mark()}"
        self.store.from_bytes(brief, ROLLED_BACK)
        self.store.delete(brief)

    def inner(self, changed: dict[str, bytes]) -> None:
        """Change some keys in a block inside the block, which may fail."""
        if self.random.random() < 0.5:
            with self.store.transaction():
                self.change(changed)
            return
        try:
            with self.store.transaction():
                self.store.from_bytes(self.random.choice(KEYS), ROLLED_BACK + self.new_data())
                raise BodyFailed
        except BodyFailed:
            pass

    def transaction(self) -> None:
        changed: dict[str, bytes] = {}
        with self.store.transaction() as transaction:
            self.change(changed)
            if self.random.random() < 0.5:
                self.inner(changed)
        self.note(transaction.revision, changed)

    def optimistic(self) -> None:
        for attempt in self.store.attempts(tries=1000):
            changed: dict[str, bytes] = {}
            with attempt as transaction:
                self.store.exists(self.random.choice(KEYS))
                self.change(changed)
                self.inner(changed)
        self.note(transaction.revision, changed)

    def note(self, revision: int | None, changed: dict[str, bytes]) -> None:
        assert revision is not None
        self.written.data.extend(changed.values())
        self.written.keys[revision] = list(changed)
        self.written.commits.append(revision)


# -- listeners -------------------------------------------------------------------------------------


def state_of(value: Any) -> State | None:
    return None if value is None else (value.data.read(), value.metadata)


class SteadyListener:
    """Writes down all that it hears, as cheaply as can be; what that was is read from it later."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def on_event(self, event: StoreModificationEvent) -> None:
        self.events.append((event.revision, event.key, event.action, event.value, event.previous))

    def heard(self) -> list[Heard]:
        # Each value has one stream; an entry's events need one for themselves.
        return [
            Heard(revision, key, action, state_of(value), state_of(previous))
            for revision, key, action, value, previous in self.events
        ]


class Raising:
    """Raises an error of each kind, one key for each."""

    def __init__(self, errors: Iterable[type[BaseException]]) -> None:
        self.errors = dict(zip(KEYS, errors, strict=False))
        self.raised = 0

    def on_event(self, event: StoreModificationEvent) -> None:
        self.raised += 1
        raise self.errors[event.key]("on purpose")

    def connect_to(self, manager: Any, priority: int) -> list[Callable[[Any], None]]:
        """Connect one function for each key; return them, as a method is held weakly."""
        functions: list[Callable[[Any], None]] = []
        for key in self.errors:
            functions.append(lambda event: self.on_event(event))
            manager.connect(StoreModificationEvent, functions[-1], {"key": key}, priority)
        return functions


class Mortal:
    """A listener in a reference cycle, so that it lives until the garbage collector comes by."""

    def __init__(self, count: Counter[str]) -> None:
        self.cycle = self
        self.count = count

    def on_event(self, event: StoreModificationEvent) -> None:
        self.count["mortal"] += 1


class ComeAndGo(threading.Thread):
    """Connects and disconnects listeners, and lets others die, at each tick of the writers."""

    def __init__(self, manager: Any, mortals: bool) -> None:
        super().__init__(name="listeners come and go", daemon=True)
        self.manager = manager
        self.mortals = mortals
        self.count: Counter[str] = Counter()
        self._ticks = threading.Semaphore(0)
        self._over = False
        self.error: BaseException | None = None

    def tick(self) -> None:
        self._ticks.release()

    def end(self) -> None:
        self._over = True
        # A round waits for two ticks.
        self._ticks.release(2)
        self.join(TIMEOUT)
        assert not self.is_alive()
        assert self.error is None

    def run(self) -> None:
        try:
            while self._ticks.acquire(timeout=TIMEOUT) and not self._over:
                self._one_round()
        except BaseException as error:
            self.error = error

    def _one_round(self) -> None:
        self.count["rounds"] += 1
        number = self.count["rounds"]
        listener, other = self._new_listener(), self._new_listener()
        self.manager.connect(StoreSetEvent, listener, {"key": KEYS[number % len(KEYS)]}, number % 3 - 1)
        self.manager.connect(StoreModificationEvent, other, priority=number % 5 - 2)
        if self.mortals:
            self.manager.connect(StoreModificationEvent, Mortal(self.count).on_event, priority=number % 2)
        # So that they hear something.
        self._ticks.acquire(timeout=TIMEOUT)
        self.manager.disconnect(StoreSetEvent, listener)
        self.manager.disconnect(StoreModificationEvent, other)
        if self.mortals:
            gc.collect(1)

    def _new_listener(self) -> Callable[[StoreModificationEvent], None]:
        def listener(event: StoreModificationEvent) -> None:
            self.count["brief"] += 1

        return listener


# -- the replay ------------------------------------------------------------------------------------


def final_state(store: DictMemoryStore) -> tuple[int, dict[str, State]]:
    """Return the revision and what every key has, of one instant."""
    with store.snapshot() as view:
        return store.info()["revision"], {
            key: (view.to_bytes(key), view.get_metadata(key)) for key in view.query_keys()
        }


def write_and_replay(
    store: DictMemoryStore,
    commits: int,
    raised: tuple[type[BaseException], ...],
    mortals: bool = True,
) -> tuple[list[Heard], Raising]:
    """Have the threads write, the listeners listen, and check what the steady ones have heard."""
    manager: Any = store.event_manager
    first, last = SteadyListener(), SteadyListener()
    raising = Raising(raised)
    manager.connect(StoreModificationEvent, first.on_event, priority=10)
    functions = raising.connect_to(manager, priority=5)
    manager.connect(StoreModificationEvent, last.on_event, priority=-10)
    others = ComeAndGo(manager, mortals)
    others.start()
    writers = [Writer(store, number, -(-commits // THREADS), others.tick) for number in range(THREADS)]
    run_threads([writer.run for writer in writers])
    others.end()
    store.flush(TIMEOUT)

    written = [writer.written for writer in writers]
    revision, final = final_state(store)
    heard = first.heard()
    assert_no_faults(faults_by_check(heard, final, revision, written))
    # The writers' own count of commits, which is not the store's.
    assert sum(len(each.commits) for each in written) == revision >= commits
    # The listeners that raise have kept nothing from the one that comes after them.
    assert [event[:3] for event in last.events] == [event[:3] for event in first.events]
    # And all that was to happen beside it has happened.
    assert len(functions) == len(raised)
    assert raising.raised > len(raised)
    assert all(writer.failed for writer in writers)
    assert others.count["rounds"] > commits // 1000
    assert others.count["brief"]
    assert bool(others.count["mortal"]) is mortals
    stats = store.stats()
    assert stats["commits"] == stats["revision"] == revision
    assert stats["events_pending"] == 0
    # A manager that cannot tell who listens is given all other events, too.
    assert stats["events_delivered"] == len(heard) or not hasattr(manager, "has_listeners")
    return heard, raising


@pytest.fixture
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Log none of the errors on purpose: that they are logged is shown elsewhere, and it takes long."""
    caplog.set_level(logging.CRITICAL + 1, "latchstore")
    caplog.set_level(logging.CRITICAL + 1, "encore.events.event_manager")


ANYTHING = (ValueError, SystemExit, KeyboardInterrupt, GeneratorExit)


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("_quiet")
def test_the_events_of_100_000_commits_rebuild_the_store() -> None:
    store = DictMemoryStore(EventManager(), lock_timeout=TIMEOUT)
    _, raising = write_and_replay(store, 100_000, ANYTHING)
    assert store.stats()["listener_errors"] == raising.raised
    store.close()


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize("limit", [1, 7])
def test_writers_that_wait_at_the_door_are_told_of_as_well(limit: int) -> None:
    store = DictMemoryStore(EventManager(), lock_timeout=TIMEOUT, max_pending_events=limit)
    write_and_replay(store, 2_000, ANYTHING)
    store.close()


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("_quiet")
@pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated:DeprecationWarning")
def test_encores_event_manager_is_told_the_same() -> None:
    pytest.importorskip("encore")
    manager = importlib.import_module("encore.events.event_manager").EventManager()
    store = DictMemoryStore(manager, lock_timeout=TIMEOUT)
    # Its listeners may die, but not while another thread emits; and SystemExit ends its emit.
    write_and_replay(store, 5_000, (ValueError, RuntimeError), mortals=False)
    store.close()


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("_quiet")
def test_what_listeners_write_is_told_after_what_they_hear() -> None:
    """A listener writes an echo of each event, by all the ways in turn, while six threads write."""
    store = DictMemoryStore(EventManager(), lock_timeout=TIMEOUT, max_pending_events=50)
    manager = store.event_manager
    echoes = Writer(store, THREADS, 0, lambda: None)
    causes: dict[bytes, int] = {}

    def echo(event: StoreModificationEvent) -> None:
        if event.key.startswith("echo "):
            return
        assert event.revision is not None
        key, data = f"echo {event.key}", echoes.new_data()
        causes[data] = event.revision
        if event.revision % 3:
            store.from_bytes(key, data)
            echoes.written.commits.append(None)
        else:
            with store.transaction() as transaction:
                store.from_bytes(key, ROLLED_BACK)
                with store.transaction():
                    store.from_bytes(key, data)
            assert transaction.revision is not None
            echoes.written.commits.append(transaction.revision)
            echoes.written.keys[transaction.revision] = [key]
        echoes.written.data.append(data)

    steady = SteadyListener()
    manager.connect(StoreModificationEvent, steady.on_event)
    manager.connect(StoreModificationEvent, echo, priority=1)
    writers = [Writer(store, number, 5_000 // THREADS, lambda: None) for number in range(THREADS)]
    run_threads([writer.run for writer in writers])
    # What the writers have written is heard, so each echo is written; and then the echoes are heard.
    store.flush(TIMEOUT)
    store.flush(TIMEOUT)

    written = [writer.written for writer in [*writers, echoes]]
    revision, final = final_state(store)
    heard = steady.heard()
    assert_no_faults(faults_by_check(heard, final, revision, written))
    assert sum(len(each.commits) for each in written) == revision
    assert store.stats()["listener_errors"] == 0
    # Each echo is told of, by a later commit than what it is the echo of.
    told = {event.value[0]: event.revision for event in heard if event.value and "echo" in event.key}
    assert told.keys() == causes.keys()
    assert len(told) > 4_000
    assert all(told[data] > causes[data] for data in causes)
    store.close()
