"""Anomalies of isolation, by their names: schedules of threads that tell whether one was seen.

Each is a function of a store and of a kind of blocks. It must not be seen on a store. Stores that are broken
on purpose (``tests/isolation``) show that the schedules can see something.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from latchstore import (
    AbstractReadOnlyStore,
    LockTimeoutError,
    RevisionMismatchError,
    TransactionConflictError,
)
from latchstore.engine.transactional_store import TransactionalStore
from tests.contract.stores import StoreContract
from tests.schedules import Actor

#: A schedule: plays on a store with blocks of one kind, and tells whether the anomaly was seen.
Schedule = Callable[[TransactionalStore, bool], bool]


def number_at(store: AbstractReadOnlyStore, key: str) -> int:
    """Return the number that a key has; 0 if it is missing."""
    return int(store.to_bytes(key)) if store.exists(key) else 0


def write(actor: Actor, key: str, number: int, **metadata: Any) -> None:
    actor.do(lambda: actor.store.set(key, (b"%d" % number, metadata)))


def read(actor: Actor, key: str) -> int:
    return actor.do(lambda: number_at(actor.store, key))


def committed(actor: Actor, optimistic: bool, body: Callable[[], object]) -> bool:
    """Run a whole block in the actor's thread, and tell whether it was let in and committed."""
    try:
        actor.begin(optimistic=optimistic)
    except LockTimeoutError:
        return False
    actor.do(body)
    return commits(actor)


def commits(actor: Actor) -> bool:
    """End the actor's block, and tell whether it was committed."""
    try:
        actor.commit()
    except TransactionConflictError:
        return False
    return True


def dirty_write(store: TransactionalStore, optimistic: bool) -> bool:
    """Two blocks write the same two keys; afterwards one key is of the one and one of the other."""
    with Actor(store, "A") as a, Actor(store, "B") as b:

        def both_keys() -> None:
            store.from_bytes("x", b"2")
            store.from_bytes("y", b"2")

        a.begin(optimistic=optimistic)
        write(a, "x", 1)
        done = committed(b, optimistic, both_keys)
        write(a, "y", 1)
        assert commits(a), "blind writes never conflict"
        if not done:
            assert committed(b, optimistic, both_keys)
        return read(a, "x") != read(a, "y")


def dirty_read(store: TransactionalStore, optimistic: bool) -> bool:
    """Somebody reads what a block has written before the block has committed it."""
    store.set("x", (b"0", {"kind": "old"}))
    with Actor(store, "A") as a, Actor(store, "B") as b:
        before = store.snapshot()
        a.begin(optimistic=optimistic)
        write(a, "x", 1, kind="new")
        write(a, "y", 1, kind="new")
        during = store.snapshot()
        b.begin(optimistic=True)
        seen = [
            b.do(lambda view=view: facts(view))  # type: ignore[misc]
            for view in (store, before, during)
        ]
        b.abort()
        seen.append(b.do(lambda: facts(store)))
        a.commit()
        seen += [facts(before), facts(during)]
        before.close()
        during.close()
        return any(each != [("x", b"0", {"kind": "old"})] for each in seen)


def facts(view: AbstractReadOnlyStore) -> list[tuple[str, bytes, dict[str, Any]]]:
    """Return all that can be read of a store, and check that all ways of reading agree."""
    keys = sorted(view.query_keys())
    assert sorted(view.glob("*")) == keys
    assert len(view) == len(keys)
    assert dict(view.query()) == dict(zip(keys, view.multiget_metadata(keys), strict=True))
    assert all(key in view for key in keys)
    return [(key, view.to_bytes(key), view.get_metadata(key)) for key in keys]


def aborted_read(store: TransactionalStore, optimistic: bool) -> bool:
    """Somebody reads what a block has written that is rolled back afterwards, or an inner block has."""
    store.from_bytes("x", b"0")
    seen: list[int] = []
    with Actor(store, "A") as a, Actor(store, "B") as b:
        outer = a.begin(optimistic=optimistic)
        a.begin()
        write(a, "x", 1)
        seen.append(read(b, "x"))
        a.abort()
        seen.append(a.do(lambda: number_at(outer, "x")))
        write(a, "x", 2)
        seen.append(read(b, "x"))
        with store.snapshot() as view:
            a.abort()
            seen.append(number_at(view, "x"))
        seen.append(read(b, "x"))
        seen.append(read(a, "x"))
    return seen != [0] * 6


def intermediate_read(store: TransactionalStore, optimistic: bool) -> bool:
    """Somebody reads what a block has written and has written over before it has committed."""
    store.from_bytes("x", b"0")
    with Actor(store, "A") as a, Actor(store, "B") as b:
        seen = {read(b, "x")}
        a.begin(optimistic=optimistic)
        for number in (1, 2, 3):
            write(a, "x", number)
            with store.snapshot() as view:
                seen |= {read(b, "x"), number_at(view, "x")}
        assert commits(a)
        seen.add(read(b, "x"))
    return not seen <= {0, 3}


def non_repeatable_read(store: TransactionalStore, optimistic: bool) -> bool:
    """A block reads a key twice and finds two different things."""
    store.from_bytes("x", b"0")
    with Actor(store, "A") as a, Actor(store, "B") as b:
        a.begin(optimistic=optimistic)
        first = read(a, "x")
        done = committed(b, optimistic, lambda: store.from_bytes("x", b"1"))
        assert done or not optimistic, "an optimistic block does not hold up a writer"
        return read(a, "x") != first


def read_skew(store: TransactionalStore, optimistic: bool) -> bool:
    """A block reads one key before and another after a commit that changes both."""
    store.multiset_data(["x", "y"], [b"5", b"5"])
    with Actor(store, "A") as a, Actor(store, "B") as b:
        a.begin(optimistic=optimistic)
        x = read(a, "x")
        committed(b, optimistic, lambda: store.multiset_data(["x", "y"], [b"2", b"8"]))
        y = read(a, "y")
        return x + y != 10


def snapshot_read_skew(store: TransactionalStore, optimistic: bool) -> bool:
    """A snapshot shows one key before and another after a commit that changes both, or more than once."""
    store.multiset_data(["x", "y"], [b"5", b"5"])
    with Actor(store, "B") as b:
        view = store.snapshot()
        x = number_at(view, "x")
        assert committed(b, optimistic, lambda: store.multiset_data(["x", "y"], [b"2", b"8"]))
        y = number_at(view, "y")
        again = number_at(view, "x")
        view.close()
        return x + y != 10 or again != x


def lost_update(store: TransactionalStore, optimistic: bool) -> bool:
    """Two blocks add one each; afterwards there is one more."""
    store.from_bytes("x", b"0")
    with Actor(store, "A") as a, Actor(store, "B") as b:

        def increment() -> None:
            store.from_bytes("x", b"%d" % (number_at(store, "x") + 1))

        a.begin(optimistic=optimistic)
        number = read(a, "x")
        done_by_b = committed(b, optimistic, increment)
        write(a, "x", number + 1)
        done_by_a = commits(a)
        if not done_by_a:
            assert committed(a, optimistic, increment)
        if not done_by_b:
            assert committed(b, optimistic, increment)
        return read(a, "x") != 2


#: How a number is written if its key is still as it was when it was read.
CONDITIONAL: dict[str, Callable[[TransactionalStore, int, int | None], None]] = {
    "set": lambda store, number, revision: store.set("x", (b"%d" % number, {}), if_revision=revision),
    "set_data": lambda store, number, revision: store.set_data("x", b"%d" % number, if_revision=revision),
    "from_bytes": lambda store, number, revision: store.from_bytes("x", b"%d" % number, if_revision=revision),
}


def lost_update_by(conditional: str, created: bool) -> Schedule:
    """Return a schedule of two that write on the condition of a revision."""

    def lost(store: TransactionalStore, optimistic: bool) -> bool:
        """Two without a block read a number, then each writes one more; afterwards there is one more."""
        if created:
            store.from_bytes("x", b"0")

        def look() -> tuple[int, int | None]:
            if not store.exists("x"):
                return 0, 0
            value = store.get("x")
            return int(value.data.read()), value.revision

        with Actor(store, "A") as a, Actor(store, "B") as b:
            seen = [(actor, *actor.do(look)) for actor in (a, b)]
            for actor, number, revision in seen:
                try:
                    actor.do(lambda n=number, r=revision: CONDITIONAL[conditional](store, n + 1, r))  # type: ignore[misc]
                except RevisionMismatchError:
                    again, revision = actor.do(look)
                    actor.do(lambda n=again, r=revision: CONDITIONAL[conditional](store, n + 1, r))  # type: ignore[misc]
        return number_at(store, "x") != 2

    return lost


def two_that_look_first(
    store: TransactionalStore,
    optimistic: bool,
    look: Callable[[], bool],
    act: Mapping[str, Callable[[], None]],
) -> None:
    """Two blocks each look, and act only if they may; who is refused or in conflict does it all again."""
    with Actor(store, "A") as a, Actor(store, "B") as b:

        def whole(name: str) -> Callable[[], None]:
            return lambda: act[name]() if look() else None

        a.begin(optimistic=optimistic)
        may = a.do(look)
        done_by_b = committed(b, optimistic, whole("B"))
        if may:
            a.do(act["A"])
        if not commits(a):
            assert committed(a, optimistic, whole("A"))
        if not done_by_b:
            assert committed(b, optimistic, whole("B"))


def write_skew(store: TransactionalStore, optimistic: bool) -> bool:
    """Two doctors are on call; each goes home if there is another, and both have gone home."""
    store.multiset_data(["A", "B"], [b"1", b"1"])
    two_that_look_first(
        store,
        optimistic,
        lambda: number_at(store, "A") + number_at(store, "B") == 2,
        {name: lambda name=name: store.from_bytes(name, b"0") for name in "AB"},  # type: ignore[misc]
    )
    return number_at(store, "A") + number_at(store, "B") == 0


def crossed_read_skew(store: TransactionalStore, optimistic: bool) -> bool:
    """A block that reads and writes nothing it has read is committed in between of two that do."""
    store.multiset_data(["x", "y"], [b"0", b"0"])
    with Actor(store, "A") as a, Actor(store, "B") as b:
        # A copies x to y while B copies y + 1 to x: in any order one sees what the other has done.
        a.begin(optimistic=optimistic)
        x = read(a, "x")

        def other_way() -> None:
            store.from_bytes("x", b"%d" % (number_at(store, "y") + 1))

        done = committed(b, optimistic, other_way)
        write(a, "y", x + 1)
        if not commits(a):
            assert committed(
                a, optimistic, lambda: store.from_bytes("y", b"%d" % (number_at(store, "x") + 1))
            )
        if not done:
            assert committed(b, optimistic, other_way)
        return sorted([read(a, "x"), read(a, "y")]) != [1, 2]


LOOKS: dict[str, Callable[[TransactionalStore], bool]] = {
    "query": lambda store: not list(store.query(kind="leader")),
    "query_keys": lambda store: not list(store.query_keys(kind="leader")),
    "query, all": lambda store: not list(store.query()),
    "query_keys, all": lambda store: not list(store.query_keys()),
    "glob": lambda store: not list(store.glob("leader/*")),
    "len": lambda store: len(store) == 0,
    "exists": lambda store: not store.exists("leader/A") and not store.exists("leader/B"),
    "in": lambda store: "leader/A" not in store and "leader/B" not in store,
}


def phantom_by(look: str) -> Schedule:
    """Return a schedule of two that look for a key in one way."""

    def phantom(store: TransactionalStore, optimistic: bool) -> bool:
        """Two become leader, each because there was none when it looked."""

        def lead(name: str) -> None:
            store.set(f"leader/{name}", (b"", {"kind": "leader"}))

        two_that_look_first(
            store,
            optimistic,
            lambda: LOOKS[look](store),
            {name: lambda name=name: lead(name) for name in "AB"},  # type: ignore[misc]
        )
        return len(store) != 1

    return phantom


def phantom_within_a_block(deleted: bool) -> Schedule:
    """Return a schedule of one that looks twice, while a key comes or goes."""

    def phantom(store: TransactionalStore, optimistic: bool) -> bool:
        """A block looks twice, and the second time there is a key more or less."""
        store.set("a", (b"", {"kind": "document"}))
        with Actor(store, "A") as a, Actor(store, "B") as b:

            def look() -> list[Any]:
                # `exists` goes by way of the batch alone, so the broken stores can show something.
                found = [store.exists(key) for key in "ab"]
                return [*found, list(store.query(kind="document")), list(store.glob("*")), len(store)]

            def disturb() -> None:
                if deleted:
                    store.delete("a")
                else:
                    store.set("b", (b"", {"kind": "document"}))

            a.begin(optimistic=optimistic)
            first = a.do(look)
            committed(b, optimistic, disturb)
            return a.do(look) != first

    return phantom


SCHEDULES: dict[str, Schedule] = {
    each.__name__.replace("_", " "): each
    for each in (
        dirty_write,
        dirty_read,
        aborted_read,
        intermediate_read,
        non_repeatable_read,
        read_skew,
        snapshot_read_skew,
        lost_update,
        write_skew,
        crossed_read_skew,
    )
}

both_kinds = pytest.mark.parametrize("optimistic", [False, True], ids=["exclusive", "optimistic"])


class IsolationContract(StoreContract):
    """No anomaly is seen."""

    def rule_out(self, store: TransactionalStore, schedule: Schedule, optimistic: bool) -> None:
        assert not schedule(store, optimistic)
        self.check(store)

    @both_kinds
    @pytest.mark.parametrize("name", SCHEDULES)
    def test_anomalies(self, store: TransactionalStore, name: str, optimistic: bool) -> None:
        self.rule_out(store, SCHEDULES[name], optimistic)

    @pytest.mark.parametrize("created", [True, False], ids=["there before", "missing before"])
    @pytest.mark.parametrize("conditional", CONDITIONAL)
    def test_lost_update_by_if_revision(
        self, store: TransactionalStore, conditional: str, created: bool
    ) -> None:
        self.rule_out(store, lost_update_by(conditional, created), False)

    @both_kinds
    @pytest.mark.parametrize("look", LOOKS)
    def test_phantoms(self, store: TransactionalStore, look: str, optimistic: bool) -> None:
        self.rule_out(store, phantom_by(look), optimistic)

    @both_kinds
    @pytest.mark.parametrize("deleted", [False, True], ids=["that comes", "that goes"])
    def test_phantoms_within_a_block(
        self, store: TransactionalStore, deleted: bool, optimistic: bool
    ) -> None:
        self.rule_out(store, phantom_within_a_block(deleted), optimistic)
