"""Optimistic transactions wait for room when they commit."""

from __future__ import annotations

import pytest

from latchstore import BackpressureError, StoreTransactionEndEvent
from latchstore.engine.inspection import table_of
from tests.backpressure.crowds import SHORT, TIMEOUT, Crowd, changes_nothing, in_a_transaction
from tests.schedules import in_another_thread


class TestOptimistic:
    """An optimistic block passes the door twice: at its beginning, and when it commits."""

    def test_it_waits_at_its_commit(self) -> None:
        with Crowd(1) as crowd:
            store = crowd.store

            def block() -> int | None:
                with store.transaction(optimistic=True) as transaction:
                    store.from_bytes("mine", b"")
                    in_another_thread(lambda: crowd.write(1))
                return transaction.revision

            writing = crowd.start(block)
            assert table_of(store).latches.writer.claim is None
            assert not store.exists("mine")
            assert store.info()["revision"] == 1
            crowd.listener.permit(2)
            assert writing.result(TIMEOUT) == 2
            assert store.exists("mine")

    @pytest.mark.parametrize("timeout", [None, SHORT])
    def test_a_refused_commit_is_rolled_back(self, timeout: float | None) -> None:
        with Crowd(1, lock_timeout=SHORT if timeout is None else TIMEOUT) as crowd:
            store = crowd.store
            told: list[str] = []
            states: list[str] = []
            crowd.manager.connect(StoreTransactionEndEvent, lambda event: states.append(event.state))
            transaction = store.transaction("a block", optimistic=True, timeout=timeout)

            def block() -> None:
                with transaction:
                    transaction.on_commit(lambda: told.append("commit"))
                    transaction.on_rollback(lambda: told.append("rollback"))
                    store.from_bytes("k0", b"refused")
                    store.from_bytes("k1", b"refused")
                    in_another_thread(lambda: crowd.write(1))

            message = r"^transaction 'a block': no room for events in 0\.05 s"
            with pytest.raises(BackpressureError, match=message):
                block()
            assert told == ["rollback"]
            assert transaction.revision is None
            assert store.to_bytes("k0") == b""
            assert list(store.query_keys()) == ["k0"]
            info = store.info()
            assert (info["revision"], info["snapshots"]) == (1, 0)
            assert table_of(store).latches.writer.claim is None
            crowd.listener.permit(10)
            store.flush(TIMEOUT)
            assert crowd.listener.heard == ["k0"]
            assert states == ["failed"]
            # This thread's calls go to the store again.
            store.from_bytes("k1", b"accepted")
            assert in_another_thread(lambda: store.to_bytes("k1")) == b"accepted"

    def test_a_refused_beginning_leaves_no_snapshot(self) -> None:
        with Crowd(1, lock_timeout=0) as crowd:
            crowd.write(1)
            with changes_nothing(crowd.store), pytest.raises(BackpressureError):
                in_a_transaction(crowd.store, optimistic=True)
            assert crowd.store.info()["snapshots"] == 0

    def test_attempts_do_not_try_again(self) -> None:
        """It is no conflict, and each try has waited as long as it may."""
        with Crowd(1, lock_timeout=0) as crowd:
            tries = 0

            def blocks() -> None:
                nonlocal tries
                for attempt in crowd.store.attempts(tries=5):
                    with attempt:
                        tries += 1
                        crowd.store.from_bytes("mine", b"")
                        in_another_thread(lambda: crowd.write(1))

            with pytest.raises(BackpressureError):
                blocks()
            assert tries == 1
            assert not crowd.store.exists("mine")
