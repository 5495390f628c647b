"""The owner: a wait ends with the owner or with an error that names it."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

import pytest

from latchstore import DictMemoryStore, EventManager, LockTimeoutError
from latchstore.delivery.waiting import Waiters, thread_name
from latchstore.engine.inspection import table_of
from tests.locking.elsewhere import ENDLESS, SHORT, Elsewhere, check_all_free
from tests.schedules import TIMEOUT, in_another_thread


def in_transaction(store: DictMemoryStore, notes: str) -> Callable[[Callable[[], object]], object]:
    """Return a section that is a block of the store."""

    def section(stay: Callable[[], object]) -> None:
        with store.transaction(notes):
            stay()

    return section


def test_waiting_for_the_owner_ends_with_its_thread_notes_and_time(store: DictMemoryStore) -> None:
    with Elsewhere(in_transaction(store, "counting beans"), "the accountant"):
        with pytest.raises(LockTimeoutError) as raised:
            store.from_bytes("k", b"")
        with pytest.raises(LockTimeoutError), store.transaction():
            raise AssertionError("two owners")
        with pytest.raises(LockTimeoutError), store.transaction(optimistic=True):
            store.from_bytes("k", b"")
        with pytest.raises(LockTimeoutError):
            store.add_index("n")
        assert len(store) == 0, "readers never wait for a block"
    assert re.fullmatch(
        r"from_bytes: no write lock in 0\.05 s, held for \d+\.\d{3} s by thread 'the accountant' "
        r"\(transaction 'counting beans'\)",
        str(raised.value),
    )
    assert not store.exists("k")


def test_a_timeout_of_its_own(store: DictMemoryStore) -> None:
    table_of(store).timeout = ENDLESS
    with (
        Elsewhere(in_transaction(store, "")),
        pytest.raises(LockTimeoutError, match=r"^transaction 'mine': no write lock in 0 s"),
        store.transaction("mine", timeout=0),
    ):
        raise AssertionError("two owners")
    table_of(store).timeout = SHORT


@pytest.mark.parametrize("woken", [True, False], ids=["woken", "the wake-up is lost"])
def test_waiting_ends_when_the_owner_ends(woken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if woken:
        monkeypatch.setattr("latchstore.engine.owner.LOOK_AGAIN", ENDLESS)
        monkeypatch.setattr(Waiters.wait, "__defaults__", (0, ENDLESS))
    else:
        monkeypatch.setattr(Waiters, "ring", lambda waiters: None)
    store = DictMemoryStore(EventManager(), lock_timeout=ENDLESS)
    with Elsewhere(in_transaction(store, "")) as elsewhere:
        threads = [
            threading.Thread(target=store.from_bytes, args=(key, b"written")) for key in ("a", "b", "c")
        ]
        for thread in threads:
            thread.start()
        while len(table_of(store).latches.writer.waiters.bells) < 3:
            assert all(thread.is_alive() for thread in threads)
        assert len(store) == 0
        elsewhere.leave()
        for thread in threads:
            thread.join(TIMEOUT)
        assert not any(thread.is_alive() for thread in threads)
    assert len(store) == 3
    assert not table_of(store).latches.writer.waiters.bells
    check_all_free(store)


def test_waiting_ends_when_a_block_that_nobody_holds_is_freed(store: DictMemoryStore) -> None:
    table_of(store).timeout = ENDLESS
    held = [store.transaction("dropped")]
    held[0].__enter__()
    store.from_bytes("k", b"never committed")
    writer = threading.Thread(target=store.from_bytes, args=("other", b""))
    writer.start()
    while not table_of(store).latches.writer.waiters.bells:
        assert writer.is_alive()
    held.clear()
    writer.join(TIMEOUT)
    assert not writer.is_alive()
    assert list(store.query_keys()) == ["other"]
    assert store.current_transaction() is None
    table_of(store).timeout = SHORT


def test_who_gives_up_waiting_for_the_owner_leaves_no_bell(store: DictMemoryStore) -> None:
    with Elsewhere(in_transaction(store, "")):
        with pytest.raises(LockTimeoutError):
            store.from_bytes("k", b"")
        assert not table_of(store).latches.writer.waiters.bells


def test_the_time_that_the_owner_has_held_counts_from_its_beginning(
    store: DictMemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = "latchstore.engine.owner.time.time"
    writer = table_of(store).latches.writer
    assert writer.describe() == "which is free now"
    monkeypatch.setattr(clock, lambda: 1000.0)
    with store.transaction("slow"):
        monkeypatch.setattr(clock, lambda: 1012.5)
        name = threading.current_thread().name
        assert writer.describe() == f"held for 12.500 s by thread {name!r} (transaction 'slow')"
        # The clock may be set back.
        monkeypatch.setattr(clock, lambda: 5.0)
        assert writer.describe() == f"held for 0.000 s by thread {name!r} (transaction 'slow')"
    assert writer.describe() == "which is free now"


def test_one_thread_is_the_owner(store: DictMemoryStore) -> None:
    def begin() -> None:
        with store.transaction("second", timeout=0):
            pass

    assert store.current_transaction() is None
    with store.transaction("first") as first:
        assert store.current_transaction() is first
        assert in_another_thread(store.current_transaction) is None
        with pytest.raises(LockTimeoutError, match="'first'"):
            in_another_thread(begin)
    assert store.current_transaction() is None
    in_another_thread(begin)


def test_the_end_of_a_claim_that_is_not_the_owner_s_lets_nobody_in(store: DictMemoryStore) -> None:
    with store.transaction("first"):
        ended = table_of(store).latches.writer.claim
    assert ended is not None
    with store.transaction("second"):
        owner = table_of(store).latches.writer.claim
        table_of(store).end(ended)
        assert table_of(store).latches.writer.claim is owner is not None


def test_an_owner_that_would_wait_for_itself_is_told_at_once(store: DictMemoryStore) -> None:
    """As the store's calls go to the block it takes a call of the engine to come to this."""
    with store.transaction("mine"):
        table_of(store).timeout = ENDLESS
        with pytest.raises(
            LockTimeoutError,
            match=r"^again: this thread is already writing \(transaction 'mine'\) and would wait for itself$",
        ):
            table_of(store).commit((), "again")
        table_of(store).timeout = SHORT


def test_a_thread_that_has_ended_is_said_to_have() -> None:
    thread = threading.Thread(target=lambda: None, name="short-lived")
    thread.start()
    thread.join(TIMEOUT)
    assert thread_name(thread) == "short-lived (ended)"
    assert thread_name(threading.current_thread()) == threading.current_thread().name
