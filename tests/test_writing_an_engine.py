"""The engine of docs/how-to/writing-an-engine.md keeps all of the contract of stores with transactions."""

from __future__ import annotations

import importlib
import re
import sys
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from latchstore import AbstractStore, EventManager, WorkQueue
from latchstore.engine.publishing import Publisher
from latchstore.engine.transactional_store import TransactionalStore
from latchstore.stress.check import StressError, linearizable_store
from tests.contract.attempts import AttemptsContract
from tests.contract.bad_input import BadInputContract, BadTimeoutContract
from tests.contract.block_contents import BlockContentContract
from tests.contract.block_ends import BlockEndContract
from tests.contract.block_errors import BlockErrorContract
from tests.contract.blocks_left_open import BlockLeftOpenContract
from tests.contract.conditions import ConditionContract
from tests.contract.delivery import DeliveryContract
from tests.contract.events import EventContract
from tests.contract.evicting import EvictContract
from tests.contract.files import ToFileContract
from tests.contract.forking import ForkContract
from tests.contract.isolation import IsolationContract
from tests.contract.many_keys import ManyKeysReadingContract, ManyKeysWritingContract
from tests.contract.nothing_is_lost import NothingIsLostContract
from tests.contract.optimistic import ConflictContract, OptimisticWritingContract
from tests.contract.ordered_isolation import OrderedIsolationContract
from tests.contract.queries import QueryContract
from tests.contract.reading import ReadingContract, ValueContract
from tests.contract.revisions import CurrentTransactionContract, RevisionContract
from tests.contract.snapshots import ManySnapshotsContract, SnapshotContract
from tests.contract.transactions import SharedTransactionContract, TransactionContract
from tests.contract.waiting import WaitForContract
from tests.contract.watches import FullBufferContract, WatchContract
from tests.contract.writing import WritingContract

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "writing-an-engine.md"


@pytest.fixture(scope="module")
def copy_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The class of the page's first example, from a file, as a user's would be."""
    folder = tmp_path_factory.mktemp("page")
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)[0]
    (folder / "copy_store.py").write_text(code, encoding="utf-8")
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("copy_store").CopyStore
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("copy_store", None)


class CopyStores:
    @pytest.fixture
    def store(self, copy_store: Any) -> Iterator[AbstractStore]:
        with copy_store(EventManager()) as store:
            yield store


class TestReading(CopyStores, ReadingContract): ...


class TestValues(CopyStores, ValueContract): ...


class TestWriting(CopyStores, WritingContract): ...


class TestManyKeysReading(CopyStores, ManyKeysReadingContract): ...


class TestManyKeysWriting(CopyStores, ManyKeysWritingContract): ...


class TestQueries(CopyStores, QueryContract): ...


class TestToFile(CopyStores, ToFileContract): ...


class TestBadInput(CopyStores, BadInputContract): ...


class TestBadTimeout(CopyStores, BadTimeoutContract): ...


class TestCondition(CopyStores, ConditionContract): ...


class TestEvict(CopyStores, EvictContract): ...


class TestEvent(CopyStores, EventContract): ...


class TestDelivery(CopyStores, DeliveryContract): ...


class TestTransaction(CopyStores, TransactionContract): ...


class TestSharedTransaction(CopyStores, SharedTransactionContract): ...


class TestBlockContent(CopyStores, BlockContentContract): ...


class TestBlockEnds(CopyStores, BlockEndContract): ...


class TestBlockErrors(CopyStores, BlockErrorContract): ...


class TestBlocksLeftOpen(CopyStores, BlockLeftOpenContract): ...


class TestAttempts(CopyStores, AttemptsContract): ...


class TestNothingIsLost(CopyStores, NothingIsLostContract): ...


class TestConflicts(CopyStores, ConflictContract): ...


class TestOptimisticWriting(CopyStores, OptimisticWritingContract): ...


class TestIsolation(CopyStores, IsolationContract): ...


class TestOrderedIsolation(CopyStores, OrderedIsolationContract): ...


class TestRevisions(CopyStores, RevisionContract): ...


class TestCurrentTransaction(CopyStores, CurrentTransactionContract): ...


class TestFork(CopyStores, ForkContract): ...


class TestSnapshots(CopyStores, SnapshotContract): ...


class TestManySnapshots(CopyStores, ManySnapshotsContract): ...


class TestWatches(CopyStores, WatchContract):
    @pytest.fixture
    def compacting_store(self, copy_store: Any) -> Iterator[TransactionalStore]:
        with copy_store(EventManager(), history=10) as store:
            yield store


class TestFullBuffers(CopyStores, FullBufferContract): ...


class TestWaitFor(CopyStores, WaitForContract): ...


class LatePublisher:
    """Keeps what is to be published until it is told to go on."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._late: deque[tuple[Any, ...]] = deque()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._publisher, name)

    def publish(self, *arguments: Any) -> None:
        self._late.append(arguments)

    def publish_late(self) -> None:
        while self._late:
            self._publisher.publish(*self._late[0])
            self._late.popleft()


class LateStores:
    """Stores that publish a commit some time after the call has returned, as those of other machines do.

    They keep all of the contract but what is marked `one_process`.
    """

    @pytest.fixture(autouse=True)
    def not_one_process(self, request: pytest.FixtureRequest) -> None:
        if request.node.get_closest_marker("one_process"):
            pytest.skip("it publishes later")

    @pytest.fixture
    def store(self, copy_store: Any) -> Iterator[TransactionalStore]:
        class LateEngine(sys.modules["copy_store"].CopyEngine):  # type: ignore[misc]
            def settle(self, purpose: str, timeout: float | None = None) -> None:
                self._in_section(self._publisher.publish_late)
                self._publisher.dispatcher.start_if_needed()

            def between_commits(self, function: Any) -> Any:
                def published() -> Any:
                    self._publisher.publish_late()
                    return function(self.revision)

                return self._in_section(published)

        engines: list[Any] = []

        def make_engine(publisher: Publisher) -> Any:
            engines.append(LateEngine(30.0, LatePublisher(publisher)))
            return engines[0]

        over = threading.Event()

        def follow() -> None:
            while not over.wait(0.005):
                engines[0].settle("following")

        with TransactionalStoreOver(EventManager(), make_engine) as store:
            follower = threading.Thread(target=follow)
            follower.start()
            try:
                yield store
            finally:
                over.set()
                follower.join()


class TransactionalStoreOver(TransactionalStore):
    """A store over any engine."""

    def __init__(self, event_manager: EventManager, make_engine: Any) -> None:
        super().__init__(event_manager, 100_000, 100, make_engine)


class TestLateEvent(LateStores, EventContract): ...


class TestLateDelivery(LateStores, DeliveryContract): ...


class TestLateSharedTransaction(LateStores, SharedTransactionContract): ...


class TestLateRevisions(LateStores, RevisionContract): ...


class TestLateFullBuffers(LateStores, FullBufferContract): ...


class TestLateWaitFor(LateStores, WaitForContract): ...


class TestLateWatches(LateStores, WatchContract):
    test_what_is_compacted_cannot_be_had = None  # type: ignore[assignment]


def test_work_queues_are_at_home_on_any_engine(copy_store: Any) -> None:
    with copy_store(EventManager()) as store:
        queue: WorkQueue[int] = WorkQueue(store, "numbers")
        for number in range(100):
            queue.put(number, priority=number % 2)
        done: list[int] = []
        queue.run(lambda job: done.append(job.payload), threads=4)
        assert sorted(done) == list(range(100))
        assert queue.stats()["waiting"] == 0


def test_the_harness_finds_nothing(copy_store: Any) -> None:
    outcome = linearizable_store(copy_store, schedule="native", operations=2_000)
    found = {"registers", "transactions", "scans", "events", "snapshots", "compare-and-set"}
    assert found <= outcome.result.verdicts.keys()


def test_an_engine_that_does_not_call_check_is_found(
    copy_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = sys.modules["copy_store"].CopyEngine
    commit = engine._decide_and_apply
    monkeypatch.setattr(
        engine, "_decide_and_apply", lambda self, edits, claim, check: commit(self, edits, claim, None)
    )
    with pytest.raises(StressError):
        linearizable_store(copy_store, schedule="native", workloads=["optimistic"], operations=20_000)
