"""Wrong and hostile arguments: a clear error or what is documented; nothing is lost, no lock is kept.

Each argument that is offered is known to be good, bad, or one that the call may take or leave. A call with
good ones succeeds, one with a bad one fails and changes nothing, and says which argument it was, unless the
error is the argument's own.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchstore import (
    DictMemoryStore,
    EventManager,
    StoreModificationEvent,
    StoreSetEvent,
)
from latchstore.engine.inspection import check, check_idle, table_of
from tests.hostile_arguments.offers import (
    BROKEN_OFF,
    TIMEOUT,
    Calling,
    Offer,
    all_of,
    check_error,
    drawn,
    exhaust,
    fuzzing,
    use,
)
from tests.hostile_arguments.table import CALLS, CONSTRUCTOR, MANAGER, OTHERS, READS, WRITES


class Case:
    """A store in which something is there, and what is to be kept of it."""

    def __init__(self) -> None:
        self.store = DictMemoryStore(EventManager(), indexes=["kind"], lock_timeout=5.0)
        self.heard: list[str] = []
        self.store.set("kept", (b"kept", {"kind": "kept"}))
        self.store.set("nested", (b"nested", {"kind": ["kept"]}))
        self.store.event_manager.connect(StoreModificationEvent, self._hear)
        self.entries = dict(table_of(self.store).entries)
        self.revision = self.store.info()["revision"]

    def _hear(self, event: Any) -> None:
        self.heard.append(event.key)

    def call(self, method: str, arguments: dict[str, Offer], inside: bool) -> BaseException | None:
        """Make a call, perhaps in a transaction; return what it has raised."""
        try:
            given = {name: offer.make(self.store) for name, offer in arguments.items()}
            if inside:
                with self.store.transaction("fuzz"):
                    exhaust(getattr(self.store, method)(**given))
            else:
                exhaust(getattr(self.store, method)(**given))
        except Exception as error:
            return error
        return None

    def check_untouched(self) -> None:
        """Look whether nothing was changed, and nothing told."""
        table = table_of(self.store)
        assert table.entries.keys() == self.entries.keys()
        assert all(table.entries[key] is entry for key, entry in self.entries.items())
        assert table.revision == self.revision
        self.store.connect()
        self.store.flush(TIMEOUT)
        assert self.heard == []

    def check_changed(self, changed: set[str]) -> None:
        """Look whether only what was named was changed, and all of it told."""
        table = table_of(self.store)
        self.store.flush(TIMEOUT)
        assert set(self.heard) == changed
        assert len(self.heard) == len(changed)
        for key, entry in self.entries.items():
            assert key in changed or table.entries[key] is entry, f"{key} was lost"
        assert table.revision == self.revision + bool(changed)

    def check_use(self, other: ThreadPoolExecutor) -> None:
        """Look whether everything is free and as it should be, from another thread and this one."""
        store = self.store
        store.connect()

        def run() -> None:
            check(store)
            use(store)
            store.from_bytes("after", b"1")
            with store.transaction():
                store.delete("after")
            store.flush(TIMEOUT)

        Calling.busy = True  # it has done what it is for
        try:
            other.submit(run).result(TIMEOUT)
            store.from_bytes("after", b"2")
        finally:
            Calling.busy = False
        check_idle(store)
        info = store.info()
        assert (info["snapshots"], info["pinned_entries"]) == (0, 0)
        store.close(TIMEOUT)


def named_keys(method: str, arguments: dict[str, Offer]) -> list[str]:
    """Return the keys that a write, all of whose arguments are good, is to change."""
    if "key" in arguments:
        return [arguments["key"].value]
    others = next(offer for name, offer in arguments.items() if name not in ("keys", "buffer_size"))
    return [each.value for each, _ in zip(arguments["keys"].value, others.value, strict=False)]


def relevant(arguments: dict[str, Offer]) -> list[Offer]:
    """Return what a call looks at: of two iterables only what stands beside something in the other."""
    paired = [arguments[name] for name in ("keys", "values", "datas", "metadatas") if name in arguments]
    others = [offer for offer in arguments.values() if offer not in paired]
    lists = [offer for offer in paired if isinstance(offer.value, list) or offer is BROKEN_OFF]
    if len(lists) < 2:
        return list(arguments.values())
    if BROKEN_OFF in lists:
        return [*others, Offer("broken off, if it is looked at", BROKEN_OFF.make, None)]
    return others + [each for pair in zip(*(offer.value for offer in lists), strict=False) for each in pair]


def told_beforehand(method: str, arguments: dict[str, Offer], existing: set[str]) -> bool | None:
    """Tell whether a call is to succeed; None if it may or may not."""
    verdict = all_of(relevant(arguments))
    if verdict is not True:
        return verdict
    if method in OTHERS or (method.endswith("get_metadata") and arguments["select"].value):
        return None
    if method in ("delete", "evict", "update_metadata", "multiupdate_metadata"):
        return set(named_keys(method, arguments)) <= existing
    if method in WRITES or method in ("exists", "query", "query_keys", "glob"):
        return True
    wanted = (
        [arguments["key"].value] if "key" in arguments else [each.value for each in arguments["keys"].value]
    )
    return set(wanted) <= existing


@pytest.mark.timeout(600)
@pytest.mark.parametrize("method", CALLS)
@fuzzing
@given(st.data())
def test_whatever_is_handed_in(other: ThreadPoolExecutor, method: str, chosen: st.DataObject) -> None:
    arguments = drawn(chosen, CALLS[method])
    inside = chosen.draw(st.booleans(), "inside a transaction")
    case = Case()
    error = case.call(method, arguments, inside)
    if error is not None:
        check_error(error, arguments)
        case.check_untouched()
    expected = told_beforehand(method, arguments, set(case.entries))
    if expected is not None:
        assert (error is None) == expected, repr(error)
    if error is None and method in WRITES and expected:
        case.check_changed(set(named_keys(method, arguments)))
        check_written(case.store, method, arguments)
    case.check_use(other)


def check_written(store: DictMemoryStore, method: str, arguments: dict[str, Offer]) -> None:
    """Look whether the data are what was handed in, where there was any."""
    if method in ("delete", "evict"):
        assert not store.exists(arguments["key"].value)
    elif method in ("set", "set_data", "from_bytes"):
        wanted = arguments["value" if method == "set" else "data"].value
        assert store.to_bytes(arguments["key"].value) == wanted
    elif method in ("multiset", "multiset_data"):
        wanted = arguments["values" if method == "multiset" else "datas"].value
        last = dict(zip((each.value for each in arguments["keys"].value), wanted, strict=False))
        for each, offer in last.items():
            assert store.to_bytes(each) == offer.value


@pytest.mark.timeout(600)
@pytest.mark.parametrize("method", [*READS, *WRITES])
@fuzzing
@given(st.data())
def test_whatever_is_handed_to_a_transaction(
    other: ThreadPoolExecutor, method: str, chosen: st.DataObject
) -> None:
    """What fails inside a block leaves the block as it was, and the block goes on."""
    arguments = drawn(chosen, CALLS[method])
    optimistic = chosen.draw(st.booleans(), "optimistic")
    case = Case()
    with case.store.transaction("fuzz", optimistic=optimistic) as block:
        before = {name: block.to_bytes(name) for name in block.query_keys()}
        try:
            exhaust(
                getattr(block, method)(**{name: each.make(case.store) for name, each in arguments.items()})
            )
        except Exception as error:
            check_error(error, arguments)
            assert {name: block.to_bytes(name) for name in block.query_keys()} == before
        block.from_bytes("goes on", b"1")
    assert case.store.to_bytes("goes on") == b"1"
    case.check_use(other)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("method", READS)
@fuzzing
@given(st.data())
def test_whatever_is_handed_to_a_snapshot(
    other: ThreadPoolExecutor, method: str, chosen: st.DataObject
) -> None:
    arguments = drawn(chosen, READS[method])
    case = Case()
    with case.store.snapshot() as view:
        case.store.delete("kept")
        try:
            exhaust(
                getattr(view, method)(**{name: each.make(case.store) for name, each in arguments.items()})
            )
        except Exception as error:
            check_error(error, arguments)
        assert view.to_bytes("kept") == b"kept"
    case.check_use(other)


@pytest.mark.parametrize("argument", CONSTRUCTOR)
@fuzzing
@given(st.data())
def test_whatever_the_constructor_is_handed(argument: str, chosen: st.DataObject) -> None:
    offer = chosen.draw(CONSTRUCTOR[argument].strategy, argument)
    given_manager = {} if argument == "event_manager" else {"event_manager": EventManager()}
    try:
        made = DictMemoryStore(**{**given_manager, argument: offer.make(None)})
    except Exception as error:
        assert not offer.good
        check_error(error, {argument: offer})
        return
    if argument != "indexes":
        assert offer.good is not False
    made.from_bytes("k", b"1")
    made.close(TIMEOUT)


@pytest.mark.parametrize("method", MANAGER)
@fuzzing
@given(st.data())
def test_whatever_an_event_manager_is_handed(
    other: ThreadPoolExecutor, method: str, chosen: st.DataObject
) -> None:
    """Others are heard all the same."""
    arguments = drawn(chosen, MANAGER[method])
    case = Case()
    manager = case.store.event_manager
    try:
        getattr(manager, method)(**{name: offer.make(case.store) for name, offer in arguments.items()})
    except Exception as error:
        assert not all(offer.good for offer in arguments.values()) or method in ("disconnect", "register")
        check_error(error, arguments)
    else:
        assert all(offer.good is not False for offer in arguments.values()) or method == "disconnect"
    manager.enable(StoreSetEvent)
    case.store.from_bytes("new", b"1")
    case.store.flush(TIMEOUT)
    assert case.heard == ["new"]
    manager.check()  # type: ignore[attr-defined]
    case.check_use(other)
