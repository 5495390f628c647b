"""Cycles in the graph of the dependencies of transactions, see `latchstore.stress.list_append`.

Thread safety: the functions have no state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Set
from math import inf
from typing import Literal

#: The kinds of edges.
Edge = Literal["ww", "wr", "rw", "rt"]

#: Why one transaction precedes another: the kind of edge, the key, the value appended to it and the next
#: value, where they matter. Converted to text only in a cycle, as there are many.
Reason = tuple[Edge, str, int, int]

#: By the numbers of two transactions.
Graph = dict[int, dict[int, Reason]]


def within(graph: Graph, component: set[int]) -> Graph:
    """Return the subgraph of some transactions."""
    return {
        each: {to: reason for to, reason in graph[each].items() if to in component}
        for each in component
        if each in graph
    }


def only(graph: Graph, kinds: Set[str]) -> Graph:
    """Return the subgraph of the edges of some kinds."""
    return {
        each: {to: edge for to, edge in following.items() if edge[0] in kinds}
        for each, following in graph.items()
    }


def shortest_path(graph: Graph, start: int, goal: int) -> list[int] | None:
    """Return the shortest path, or None; from a transaction to itself, the shortest cycle."""
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


def shortest_cycle(graph: Graph) -> list[int] | None:
    """Return a cycle that is short enough to read, or None if there is no cycle."""
    best: list[int] | None = None
    for component in components(graph):
        inside = within(graph, component)
        # One of them is on a cycle; the shortest cycle through a few of them is short enough to read.
        for start in sorted(component)[:50]:
            cycle = shortest_path(inside, start, start)
            if cycle is not None and (best is None or len(cycle) < len(best)):
                best = cycle
    return best


def cycle_with_one(graph: Graph) -> list[int] | None:
    """Return a cycle with one rw edge and no other, or None."""
    others = only(graph, {"ww", "wr", "rt"})
    for each, following in graph.items():
        for to, reason in following.items():
            if reason[0] == "rw":
                path = shortest_path(others, to, each)
                if path is not None:
                    return [each, *path]
    return None


def components(graph: Graph) -> Iterator[set[int]]:
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
