"""Checks transactions that append to lists and read them for strict serializability, and names the anomaly.

The analysis is that of Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental
Observations" (PVLDB 14(3), 2020, sections 4 to 6). Each value is appended once to a key, so a list shows
which transactions had written it, and in which order. That gives the dependencies between two transactions:

- *ww*: the first appended a value, the second the next value;
- *wr*: the first appended the last value that the second read;
- *rw*: the first read a list, the second appended the value that comes next;
- *rt*: the first had ended before the second began.

An order of the transactions that explains everything exists if and only if these dependencies have no cycle.
The kinds of edges in a cycle determine the anomaly (Adya, "Weak Consistency", MIT 1999): G0 has only ww, G1c
also wr, G-single one rw, G2 several. A cycle with an rt edge is an anomaly in real time only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from latchstore.stress.cycles import Graph, Reason, components, cycle_with_one, only, shortest_cycle, within
from latchstore.stress.history import Operation, Outcome
from latchstore.stress.verdict import VALID, CycleEdge, Verdict


@dataclass(frozen=True, slots=True)
class Append:
    """A value was appended to a key's list."""

    key: str
    value: int


@dataclass(frozen=True, slots=True)
class Read:
    """A key's list was read; a missing key is an empty list."""

    key: str
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ListTransaction:
    """One transaction: its actions in order, and how it ended.

    Attributes
    ----------
    number : int
        Identifies it in messages.
    actions : tuple of Append or Read
    begin, end : int
        Nanoseconds on the monotonic clock; the end is None if it is not known.
    outcome : str
        ``"ok"``: committed. ``"fail"``: rolled back. ``"info"``: unknown.
    operation : Operation or None
        Its operation in the history.
    """

    number: int
    actions: tuple[Append | Read, ...]
    begin: int
    end: int | None
    outcome: Outcome = "ok"
    operation: Operation | None = None


def check_list_append(transactions: Iterable[ListTransaction]) -> Verdict:
    """Check transactions on lists.

    Returns
    -------
    verdict : Verdict
        "invalid" with the name and a description of the anomaly; "unknown" if a value was appended to a key
        twice, as then nothing follows.
    """
    return _Analysis(transactions).verdict()


#: A read that must not be: the name of the anomaly, the reason, and another transaction that is involved.
_BadRead = tuple[str, str] | tuple[str, str, ListTransaction]

#: The edges from reads and writes, as opposed to time.
_OF_DATA = frozenset({"ww", "wr", "rw"})
_IN_TIME: Reason = ("rt", "", 0, 0)


def _told(reason: Reason) -> str:
    """Return a reason as text, whose subject is the first transaction."""
    kind, key, value, following = reason
    match kind:
        case "ww":
            return f"appended {value} to {key!r}, after which the other appended {following}"
        case "wr":
            return f"appended {value} to {key!r}, which the other read"
        case "rw":
            return f"read {key!r} before the other appended {following}"
        case "rt":
            return "had ended before the other began"


def _invalid(reason: str, *transactions: ListTransaction, cycle: tuple[CycleEdge, ...] = ()) -> Verdict:
    operations = tuple(each.operation for each in transactions if each.operation is not None)
    return Verdict("invalid", reason, operations, cycle)


def _last_append(transaction: ListTransaction, key: str) -> int:
    """Return the last value that a transaction appended to a key."""
    return next(
        each.value for each in reversed(transaction.actions) if each.key == key and isinstance(each, Append)
    )


def _future_read(transaction: ListTransaction) -> Verdict | None:
    """Find a read of a value that the transaction itself appended later."""
    later: dict[str, set[int]] = {}
    for action in reversed(transaction.actions):
        if isinstance(action, Append):
            later.setdefault(action.key, set()).add(action.value)
        elif action.key in later and not later[action.key].isdisjoint(action.values):
            return _invalid(
                f"internal: transaction {transaction.number} read {list(action.values)} of {action.key!r} "
                f"before it appended {min(later[action.key].intersection(action.values))}",
                transaction,
            )
    return None


class _Analysis:
    """The transactions, and the graph of their dependencies."""

    def __init__(self, transactions: Iterable[ListTransaction]) -> None:
        self.transactions = sorted(transactions, key=lambda transaction: transaction.begin)
        self.by_number = {each.number: each for each in self.transactions}
        # The transaction that appended a value to a key.
        self.writers: dict[tuple[str, int], ListTransaction] = {}
        # The longest list read of each key: the order of its values.
        self.orders: dict[str, tuple[int, ...]] = {}
        # The transaction that read it.
        self.readers: dict[str, ListTransaction] = {}
        # Edges between transactions by number, with the reason.
        self.edges: Graph = {}

    def verdict(self) -> Verdict:
        """Look for anomalies, the simplest first."""
        twice = self._note_writers()
        if twice is not None:
            return Verdict("unknown", twice)
        for look in (self._internal_problem, self._read_problem, self._append_problem):
            problem = look()
            if problem is not None:
                return problem
        self._note_dependencies()
        self._note_time()
        connected = list(components(self.edges))
        for kinds in (_OF_DATA, _OF_DATA | {"rt"}):
            for component in connected:
                anomaly = self._anomaly(only(within(self.edges, component), kinds))
                if anomaly is not None:
                    return anomaly
        return VALID

    def _note_writers(self) -> str | None:
        writers = self.writers
        for transaction in self.transactions:
            for action in transaction.actions:
                if isinstance(action, Append):
                    written = (action.key, action.value)
                    if written in writers:
                        return f"{action.value} was appended to {action.key!r} twice"
                    writers[written] = transaction
        return None

    def _committed(self) -> Iterator[ListTransaction]:
        return (transaction for transaction in self.transactions if transaction.outcome == "ok")

    def _internal_problem(self) -> Verdict | None:
        """Find a read that contradicts earlier actions of its own transaction."""
        for transaction in self._committed():
            if len({action.key for action in transaction.actions}) == len(transaction.actions):
                continue
            future = _future_read(transaction)
            if future is not None:
                return future
            known: dict[str, tuple[int, ...]] = {}
            own: dict[str, tuple[int, ...]] = {}
            for action in transaction.actions:
                key = action.key
                if isinstance(action, Append):
                    if key in known:
                        known[key] += (action.value,)
                    own[key] = (*own.get(key, ()), action.value)
                    continue
                mine = own.get(key, ())
                expected = known.get(key)
                wrong = (
                    action.values != expected
                    if expected is not None
                    else len(mine) > 0 and action.values[-len(mine) :] != mine
                )
                if wrong:
                    should = "the list to end with" if expected is None else "the list"
                    right = list(mine if expected is None else expected)
                    return _invalid(
                        f"internal: transaction {transaction.number} read {list(action.values)} of {key!r}, "
                        f"but its own earlier actions make {should} {right}",
                        transaction,
                    )
                known[key] = action.values
        return None

    def _read_problem(self) -> Verdict | None:
        """Find a value that must not be visible; take the longest list of each key as its order."""
        incompatible: Verdict | None = None
        for transaction in self._committed():
            for action in transaction.actions:
                if isinstance(action, Append):
                    continue
                key, values = action.key, action.values
                order = self.orders.get(key, ())
                problem = None
                # Lists grow, so the part that was checked before is skipped.
                if values != order[: len(values)]:
                    longer = values[: len(order)] == order
                    problem = self._bad_value_in(action, len(order) if longer else 0)
                    if longer:
                        self.orders[key] = values
                        self.readers[key] = transaction
                    elif incompatible is None:
                        reason = (
                            f"incompatible order: transaction {transaction.number} read {list(values)} of "
                            f"{key!r}, others {list(order)}"
                        )
                        incompatible = _invalid(reason, transaction)
                problem = problem or self._intermediate(transaction, action)
                if problem is not None:
                    name, why, *others = problem
                    reader = f"transaction {transaction.number} read {list(values)} of {key!r}"
                    return _invalid(f"{name}: {reader}, {why}", transaction, *others)
        return incompatible

    def _append_problem(self) -> Verdict | None:
        """Find values of one transaction that a list has in another order, or only in part."""
        for key, order in self.orders.items():
            found: dict[int, list[int]] = {}
            for value in order:
                found.setdefault(self.writers[key, value].number, []).append(value)
            for number, values in found.items():
                writer = self.by_number[number]
                actions = (each for each in writer.actions if each.key == key)
                appended = [each.value for each in actions if isinstance(each, Append)]
                if values != appended[: len(values)]:
                    reader = self.readers[key]
                    return _invalid(
                        f"incompatible order: transaction {reader.number} read {list(order)} of {key!r}, to "
                        f"which transaction {number} appended {appended}, in this order",
                        reader,
                        writer,
                    )
        return None

    def _bad_value_in(self, read: Read, start: int) -> _BadRead | None:
        """Find a wrong value in a list, from a position on."""
        if len(set(read.values)) < len(read.values):
            return "duplicate", "which contains a value twice"
        for value in read.values[start:]:
            writer = self.writers.get((read.key, value))
            if writer is None:
                return "garbage", f"but no transaction appended {value}"
            if writer.outcome == "fail":
                why = f"but transaction {writer.number}, which appended {value}, was rolled back"
                name = "G1a (aborted read)"
                later = read.values[read.values.index(value) + 1 :]
                others = (self.writers.get((read.key, each)) for each in later)
                if any(each is not None and each.outcome != "fail" for each in others):
                    name = "G1a (aborted read), dirty update"
                return name, why, writer
        return None

    def _intermediate(self, transaction: ListTransaction, read: Read) -> _BadRead | None:
        if not read.values:
            return None
        writer = self.writers[read.key, read.values[-1]]
        if writer is transaction:
            return None
        last = _last_append(writer, read.key)
        if last == read.values[-1]:
            return None
        why = f"an intermediate state of transaction {writer.number}, which later appended {last}"
        return "G1b (intermediate read)", why, writer

    # -- the graph --------------------------------------------------------------------------------

    def _add(self, before: ListTransaction, after: ListTransaction, reason: Reason) -> None:
        if before is not after and before.outcome != "fail" != after.outcome:
            # The first reason stays: more specific ones are added first.
            self.edges.setdefault(before.number, {}).setdefault(after.number, reason)

    def _note_dependencies(self) -> None:
        writers = self.writers
        for key, order in self.orders.items():
            for value, following in pairwise(order):
                self._add(writers[key, value], writers[key, following], ("ww", key, value, following))
        unread = self._unread()
        for transaction in self._committed():
            for read in _first_reads(transaction):
                key, values = read.key, read.values
                if values:
                    self._add(writers[key, values[-1]], transaction, ("wr", key, values[-1], 0))
                order = self.orders.get(key, ())
                for value in order[len(values) : len(values) + 1] or unread.get(key, ()):
                    self._add(transaction, writers[key, value], ("rw", key, 0, value))

    def _unread(self) -> dict[str, list[int]]:
        """Return values that were appended but not read: they come after all that were read."""
        seen = {key: set(order) for key, order in self.orders.items()}
        # Some of these transactions have no known end, but a value of theirs was read: they were committed.
        committed = {self.writers[key, value].number for key, order in self.orders.items() for value in order}
        unread: dict[str, list[int]] = {}
        for (key, value), writer in self.writers.items():
            certain = writer.outcome == "ok" or writer.number in committed
            if certain and value not in seen.get(key, ()):
                unread.setdefault(key, []).append(value)
                order = self.orders.get(key)
                if order:
                    self._add(self.writers[key, order[-1]], writer, ("ww", key, order[-1], value))
        return unread

    def _note_time(self) -> None:
        """Add edges from ended transactions to later ones, except those that follow from others."""
        ended = sorted(
            (each for each in self._committed() if each.end is not None), key=lambda each: each.end or 0
        )
        # Ended transactions that do not precede another ended one, as far as known.
        frontier: list[ListTransaction] = []
        position = 0
        for transaction in self.transactions:
            if transaction.outcome == "fail":
                continue
            while position < len(ended) and (ended[position].end or 0) < transaction.begin:
                latest = ended[position]
                frontier = [each for each in frontier if (each.end or 0) >= latest.begin]
                frontier.append(latest)
                position += 1
            for before in frontier:
                self._add(before, transaction, _IN_TIME)

    # -- cycles -----------------------------------------------------------------------------------

    def _anomaly(self, graph: Graph) -> Verdict | None:
        """Return the anomaly of a cycle, if there is one; cycles with the least surprising edges first."""
        cycle = shortest_cycle(graph)
        if cycle is None:
            return None
        for name, kinds in (
            ("G0 (write cycle)", {"ww", "rt"}),
            ("G1c (circular flow)", {"ww", "wr", "rt"}),
        ):
            found = shortest_cycle(only(graph, kinds))
            if found is not None:
                return self._story(name, found)
        lost = self._lost_update()
        if lost is not None:
            return lost
        found = cycle_with_one(graph)
        if found is not None:
            return self._story("G-single (read skew)", found)
        return self._story("G2 (write skew)", cycle)

    def _lost_update(self) -> Verdict | None:
        """Find two transactions that read the same list of a key, and both appended to it."""
        updates: dict[tuple[str, tuple[int, ...]], ListTransaction] = {}
        for transaction in self._committed():
            appended = {each.key for each in transaction.actions if isinstance(each, Append)}
            for read in _first_reads(transaction):
                if read.key not in appended:
                    continue
                other = updates.setdefault((read.key, read.values), transaction)
                if other is not transaction:
                    return _invalid(
                        f"lost update: transactions {other.number} and {transaction.number} both read "
                        f"{list(read.values)} of {read.key!r} and appended to it: each lost the other value",
                        other,
                        transaction,
                    )
        return None

    def _story(self, name: str, cycle: Sequence[int]) -> Verdict:
        """Describe a cycle, edge by edge."""
        edges = []
        for number, following in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
            reason = self.edges[number][following]
            edges.append(CycleEdge(f"T{number}", f"T{following}", reason[0], _told(reason)))
        suffix = " in real time" if any(edge.kind == "rt" for edge in edges) else ""
        told = "; ".join(
            f"{edge.before} {edge.why}, so {edge.before} is before {edge.after} ({edge.kind})"
            for edge in edges
        )
        transactions = [self.by_number[number] for number in cycle]
        return _invalid(f"{name}{suffix}: {told}: a contradiction", *transactions, cycle=tuple(edges))


def _first_reads(transaction: ListTransaction) -> Iterator[Read]:
    """Return the reads that show effects of others: the first of each key, before appends of its own."""
    touched: set[str] = set()
    for action in transaction.actions:
        if isinstance(action, Read) and action.key not in touched:
            yield action
        touched.add(action.key)
