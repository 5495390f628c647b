"""The error of a writer that waited in vain, and its timeouts."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from typing import Any

import pytest

from latchstore import BackpressureError, DictMemoryStore, EventManager, FlushTimeoutError
from latchstore.delivery import calls, emission
from latchstore.delivery import dispatcher as dispatcher_module
from tests.backpressure.crowds import SHORT, TIMEOUT, WRITES, Crowd, changes_nothing, in_a_transaction


@pytest.mark.parametrize("limit", [1, 3])
def test_the_error_says_who_holds_things_up_and_for_how_long(limit: int) -> None:
    with Crowd(limit, lock_timeout=SHORT) as crowd:
        crowd.write(limit)
        with pytest.raises(BackpressureError) as raised:
            in_a_transaction(crowd.store)
        pattern = (
            rf"transaction 'a block': no room for events in 0\.05 s \(max_pending_events={limit}\): "
            r"listener tests\.backpressure\.crowds\.Permitted\.listen has had "
            rf"<StoreSetEvent key='k0' action='set' revision=1> for \d+\.\d{{3}} s, {limit} events pending"
        )
        assert re.fullmatch(pattern, str(raised.value)), str(raised.value)
        assert raised.value.pending == limit
        assert raised.value.listener == "tests.backpressure.crowds.Permitted.listen"
        assert isinstance(raised.value, TimeoutError)


class Clock:
    """Stands in for the module ``time`` in the dispatcher."""

    now = 1_000.0

    def monotonic(self) -> float:
        return self.now


def test_the_seconds_are_those_that_the_listener_has_had(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    for module in (calls, dispatcher_module, emission):
        monkeypatch.setattr(module, "time", clock)
    with Crowd(1, lock_timeout=0) as crowd:
        crowd.write(1)
        clock.now += 12.5
        with pytest.raises(BackpressureError, match=r" has had <.*> for 12\.500 s, 1 events pending$"):
            crowd.store.delete("k0")
        crowd.listener.permit(1)
        crowd.store.flush(None)
        stats = crowd.store.stats()
        assert stats["slowest_listener"] == "tests.backpressure.crowds.Permitted.listen"
        assert stats["slowest_listener_seconds"] == 12.5
        monkeypatch.undo()


@pytest.mark.parametrize("write", [name for name in WRITES if "transaction" not in name])
def test_the_error_says_what_was_refused(write: str) -> None:
    with Crowd(1, lock_timeout=0) as crowd:
        crowd.write(1)
        with pytest.raises(BackpressureError) as raised:
            WRITES[write](crowd.store)
        purpose, found, _ = str(raised.value).partition(": no room for events in 0 s ")
        assert found
        assert purpose.startswith(write.split()[0]) or purpose == "reading the stream of 'k0'"


@pytest.mark.parametrize("optimistic", [False, True])
def test_a_transaction_has_a_timeout_of_its_own(optimistic: bool) -> None:
    with Crowd(1, lock_timeout=1.0) as crowd:
        crowd.write(1)
        with (
            changes_nothing(crowd.store),
            pytest.raises(BackpressureError, match=r"^transaction 'a block': no room for events in 0\.05 s "),
        ):
            in_a_transaction(crowd.store, timeout=SHORT, optimistic=optimistic)


@pytest.mark.parametrize("optimistic", [False, True])
def test_a_longer_timeout_of_a_transaction_counts_as_well(optimistic: bool) -> None:
    with Crowd(1, lock_timeout=0) as crowd:
        crowd.write(1)
        writing = crowd.start(lambda: in_a_transaction(crowd.store, timeout=TIMEOUT, optimistic=optimistic))
        crowd.listener.permit(2)
        writing.result(TIMEOUT)
        assert crowd.store.to_bytes("k0") == b"new"


ERRORS = [
    BackpressureError("k: no room", 7, "a listener"),
    BackpressureError("k: no room"),
    FlushTimeoutError("not heard", 3, "another"),
    FlushTimeoutError("not heard"),
]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_errors_can_be_copied_and_pickled(error: Any, again: Callable[[Any], Any]) -> None:
    other = again(error)
    assert other is not error
    assert type(other) is type(error)
    assert str(other) == str(error)
    assert other.args == error.args
    assert (other.pending, other.listener) == (error.pending, error.listener)


@pytest.mark.parametrize(
    ("limit", "error", "message"),
    [
        (0, ValueError, "max_pending_events must be at least 1, got 0"),
        (-1, ValueError, "max_pending_events must be at least 1, got -1"),
        (True, TypeError, "max_pending_events must be an int, got"),
        (1.0, TypeError, "max_pending_events must be an int, got"),
        ("3", TypeError, "max_pending_events must be an int, got"),
    ],
)
def test_bad_limits(limit: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        DictMemoryStore(EventManager(), max_pending_events=limit)
