"""Whether transactions that append to lists and read them were strictly serializable; if not, how not.

The analysis is that of Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental
Observations" (PVLDB 14(3), 2020, sections 4 to 6). Each value is appended once to a key, so a list that was
read says which transactions had written it, in which order. From that follow the dependencies between them:

- *ww*: one appended a value, the other the next one;
- *wr*: one appended the last value that the other read;
- *rw*: one read a list, the other appended the value that comes next;
- *rt*: one had ended before the other began.

An order of the transactions that explains everything exists if and only if these have no cycle. What kind of
edges a cycle has says which anomaly it is (Adya, "Weak Consistency", MIT 1999): G0 has only ww, G1c also wr,
G-single one rw, G2 several. With an rt edge in it, each transaction may be right for itself, but not in time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import Literal

from latchstore.stress.history import Outcome
from latchstore.stress.verdict import VALID, Verdict

Edge = Literal["ww", "wr", "rw", "rt"]


@dataclass(frozen=True, slots=True)
class Append:
    """A value was put at the end of a key's list."""

    key: str
    value: int


@dataclass(frozen=True, slots=True)
class Read:
    """A key's list was read; an absent key is an empty list."""

    key: str
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ListTransaction:
    """One transaction: what it did, in order, and how it ended.

    Attributes
    ----------
    number : int
        Names it in messages.
    actions : tuple of Append or Read
    begin, end : int
        Nanoseconds on the monotonic clock; the end is None if nobody saw it.
    outcome : str
        ``"ok"``: committed. ``"fail"``: rolled back. ``"info"``: nobody knows.
    """

    number: int
    actions: tuple[Append | Read, ...]
    begin: int
    end: int | None
    outcome: Outcome = "ok"


def check_list_append(transactions: Iterable[ListTransaction]) -> Verdict:
    """Check transactions on lists.

    Returns
    -------
    verdict : Verdict
        "invalid" with the name of the anomaly and the story of it; "unknown" if a value was appended to a
        key twice, from which nothing can be told.
    """
    return _Analysis(transactions).verdict()


class _Analysis:
    """All that is known of the transactions, and the graph of their dependencies."""

    def __init__(self, transactions: Iterable[ListTransaction]) -> None:
        self.transactions = sorted(transactions, key=lambda transaction: transaction.begin)
        # Who appended a value to a key, and whether it was that transaction's last to the key.
        self.writers: dict[tuple[str, int], ListTransaction] = {}
        self.last_appends: dict[tuple[str, int], int] = {}
        # The longest list that was read of each key: the order of its values.
        self.orders: dict[str, tuple[int, ...]] = {}
        # From a transaction to another, by the positions in `transactions`, and why.
        self.edges: dict[int, dict[int, tuple[Edge, str]]] = {}

    def verdict(self) -> Verdict:
        """Look for anomalies, the plainest first."""
        twice = self._note_writers()
        if twice is not None:
            return Verdict("unknown", twice)
        for problem in (
            self._internal_problem(),
            self._bad_value(),
            self._note_orders(),
        ):
            if problem is not None:
                return Verdict("invalid", problem)
        self._note_dependencies()
        for with_time in (False, True):
            if with_time:
                self._note_time()
            anomaly = self._anomaly(with_time)
            if anomaly is not None:
                return Verdict("invalid", anomaly)
        return VALID

    def _note_writers(self) -> str | None:
        for transaction in self.transactions:
            for action in transaction.actions:
                if isinstance(action, Append):
                    written = (action.key, action.value)
                    if written in self.writers:
                        return f"{action.value} was appended to {action.key!r} twice"
                    self.writers[written] = transaction
                    self.last_appends[action.key, transaction.number] = action.value
        return None

    def _committed(self) -> Iterator[ListTransaction]:
        return (transaction for transaction in self.transactions if transaction.outcome == "ok")

    def _internal_problem(self) -> str | None:
        """Find a read that disagrees with what its own transaction had done or read before."""
        for transaction in self._committed():
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
                    return (
                        f"internal: transaction {transaction.number} read {list(action.values)} of {key!r}, "
                        f"where its own actions before make {should} {right}"
                    )
                known[key] = action.values
        return None

    def _bad_value(self) -> str | None:
        """Find a value that nobody should have seen."""
        # Lists grow: what was seen of a key before need not be looked at again.
        seen: dict[str, tuple[int, ...]] = {}
        for transaction in self._committed():
            for action in transaction.actions:
                if isinstance(action, Append):
                    continue
                known = seen.get(action.key, ())
                problem = None
                if action.values[: len(known)] != known:
                    problem = self._bad_value_in(action, 0)
                elif len(action.values) > len(known):
                    problem = self._bad_value_in(action, len(known))
                    seen[action.key] = action.values
                problem = problem or self._intermediate(transaction, action)
                if problem is not None:
                    name, why = problem
                    reader = f"transaction {transaction.number} read {list(action.values)} of {action.key!r}"
                    return f"{name}: {reader}, {why}"
        return None

    def _bad_value_in(self, read: Read, start: int) -> tuple[str, str] | None:
        """Find one in a list, from a position on; return its anomaly and what is wrong with it."""
        if len(set(read.values)) < len(read.values):
            return "duplicate", "which has a value twice"
        for value in read.values[start:]:
            writer = self.writers.get((read.key, value))
            if writer is None:
                return "garbage", f"but nobody appended {value}"
            if writer.outcome == "fail":
                why = f"but transaction {writer.number}, which appended {value}, was rolled back"
                return "G1a (aborted read)", why
        return None

    def _intermediate(self, transaction: ListTransaction, read: Read) -> tuple[str, str] | None:
        if not read.values:
            return None
        writer = self.writers[read.key, read.values[-1]]
        last = self.last_appends[read.key, writer.number]
        if writer is transaction or last == read.values[-1]:
            return None
        why = f"the middle of transaction {writer.number}, which went on to append {last}"
        return "G1b (intermediate read)", why

    def _note_orders(self) -> str | None:
        """Take the longest list of each key for its order; all others must be beginnings of it."""
        reads = [
            (action, transaction)
            for transaction in self._committed()
            for action in transaction.actions
            if isinstance(action, Read)
        ]
        for read, _ in reads:
            if len(read.values) > len(self.orders.get(read.key, ())):
                self.orders[read.key] = read.values
        for read, transaction in reads:
            order = self.orders.get(read.key, ())
            if read.values != order[: len(read.values)]:
                return (
                    f"incompatible order: transaction {transaction.number} read {list(read.values)} of "
                    f"{read.key!r}, others {list(order)}"
                )
        return None

    # -- the graph --------------------------------------------------------------------------------

    def _add(self, before: ListTransaction, after: ListTransaction, kind: Edge, why: str) -> None:
        if before is not after and "fail" not in (before.outcome, after.outcome):
            # The first reason stays: those that say more are added first.
            self.edges.setdefault(before.number, {}).setdefault(after.number, (kind, why))

    def _note_dependencies(self) -> None:
        positions: dict[str, dict[int, int]] = {}
        unread: dict[str, list[int]] = {}
        for key, order in self.orders.items():
            positions[key] = {value: position for position, value in enumerate(order)}
            for value, following in pairwise(order):
                self._add_append(key, value, following)
        for key, value in self.writers:
            if value not in positions.get(key, ()) and self.writers[key, value].outcome == "ok":
                # Nobody has seen it, so it came after all that was seen.
                unread.setdefault(key, []).append(value)
                if self.orders.get(key):
                    self._add_append(key, self.orders[key][-1], value)
        for transaction in self._committed():
            for read in _first_reads(transaction):
                self._add_read(transaction, read, positions.get(read.key, {}), unread.get(read.key, []))

    def _add_append(self, key: str, value: int, following: int) -> None:
        before, after = self.writers[key, value], self.writers[key, following]
        self._add(
            before, after, "ww", f"appended {value} to {key!r}, after which the other appended {following}"
        )

    def _add_read(
        self, reader: ListTransaction, read: Read, positions: dict[int, int], unread: Sequence[int]
    ) -> None:
        key, values = read.key, read.values
        if values:
            writer = self.writers[key, values[-1]]
            self._add(writer, reader, "wr", f"appended {values[-1]} to {key!r}, which the other read")
        order = self.orders.get(key, ())
        following = order[len(values) : len(values) + 1] or unread
        for value in following:
            why = f"read {key!r} before the other appended {value}"
            self._add(reader, self.writers[key, value], "rw", why)

    def _note_time(self) -> None:
        """Add edges from those that had ended to those that began then, but for what follows from others."""
        ended = sorted(
            (each for each in self._committed() if each.end is not None), key=lambda each: each.end or 0
        )
        # Those that have ended and are not known to be before another one that has.
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
                self._add(before, transaction, "rt", "had ended before the other began")

    # -- cycles -----------------------------------------------------------------------------------

    def _anomaly(self, with_time: bool) -> str | None:
        """Name the anomaly of a cycle, if there is one, the one with the least surprising edges first."""
        suffix = " in real time" if with_time else ""
        for component in _components(self.edges):
            graph = {
                each: {to: self.edges[each][to] for to in self.edges[each] if to in component}
                for each in component
                if each in self.edges
            }
            cycle = _shortest_cycle(graph)
            assert cycle is not None, "a component of several transactions has a cycle"
            for name, allowed in (
                ("G0 (write cycle)", {"ww", "rt"}),
                ("G1c (circular flow)", {"ww", "wr", "rt"}),
            ):
                found = _shortest_cycle(_only(graph, allowed))
                if found is not None:
                    return f"{name}{suffix}: {self._story(found)}"
            found = _cycle_with_one(graph)
            if found is not None:
                return f"G-single (read skew){suffix}: {self._story(found)}"
            return f"G2 (write skew){suffix}: {self._story(cycle)}"
        return None

    def _story(self, cycle: Sequence[int]) -> str:
        """Tell a cycle, edge by edge."""
        parts = []
        for position, number in enumerate(cycle):
            following = cycle[(position + 1) % len(cycle)]
            kind, why = self.edges[number][following]
            parts.append(f"T{number} {why}, so T{number} is before T{following} ({kind})")
        return "; ".join(parts) + ": a contradiction"


def _first_reads(transaction: ListTransaction) -> Iterator[Read]:
    """Return the reads that show what others have done: the first of each key, before appends of its own."""
    touched: set[str] = set()
    for action in transaction.actions:
        if isinstance(action, Read) and action.key not in touched:
            yield action
        touched.add(action.key)


_Graph = dict[int, dict[int, tuple[Edge, str]]]


def _only(graph: _Graph, kinds: set[str]) -> _Graph:
    return {
        each: {to: edge for to, edge in following.items() if edge[0] in kinds}
        for each, following in graph.items()
    }


def _path(graph: _Graph, start: int, goal: int) -> list[int] | None:
    """Return the shortest path, or None; from a transaction to itself it is the shortest cycle."""
    came_from: dict[int, int] = {}
    queue = deque([start])
    while queue:
        each = queue.popleft()
        for following in graph.get(each, ()):
            if following == goal:
                path = [each]
                while path[-1] != start:
                    path.append(came_from[path[-1]])
                return path[::-1]
            if following not in came_from and following != start:
                came_from[following] = each
                queue.append(following)
    return None


def _shortest_cycle(graph: _Graph) -> list[int] | None:
    best: list[int] | None = None
    for component in _components(graph):
        # One of them is on some cycle; the shortest through any of a few is short enough to read.
        for start in sorted(component)[:50]:
            inside = {
                each: {to: graph[each][to] for to in graph[each] if to in component} for each in component
            }
            cycle = _path(inside, start, start)
            if cycle is not None and (best is None or len(cycle) < len(best)):
                best = cycle
    return best


def _cycle_with_one(graph: _Graph) -> list[int] | None:
    """Return a cycle with one rw edge and no other, or None."""
    others = _only(graph, {"ww", "wr", "rt"})
    for each, following in graph.items():
        for to, (kind, _) in following.items():
            if kind == "rw":
                path = _path(others, to, each)
                if path is not None:
                    return [each, *path]
    return None


def _components(graph: _Graph) -> Iterator[set[int]]:
    """Return the strongly connected components of more than one transaction.

    Tarjan, "Depth-first search and linear graph algorithms" (SIAM Journal on Computing 1(2), 1972), without
    recursion.
    """
    index: dict[int, float] = {}
    low: dict[int, float] = {}
    stack: list[int] = []
    for root in graph:
        if root in index:
            continue
        index[root] = low[root] = len(index)
        stack.append(root)
        work = [(root, iter(graph.get(root, ())))]
        while work:
            each, following = work[-1]
            to = next(following, None)
            if to is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[each])
                if low[each] == index[each]:
                    component = set()
                    while True:
                        member = stack.pop()
                        component.add(member)
                        low[member] = index[member] = inf
                        if member == each:
                            break
                    if len(component) > 1:
                        yield component
            elif to not in index:
                index[to] = low[to] = len(index)
                stack.append(to)
                work.append((to, iter(graph.get(to, ()))))
            elif index[to] != inf:
                low[each] = min(low[each], index[to])
