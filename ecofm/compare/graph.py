"""Orders: who says which item stands above which, as one directed graph.

Nodes are numbers; sets of nodes are whole numbers with one bit a node, so that closure and
reduction are a few operations an edge and no path is ever enumerated.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ecofm.compare.comparison import Comparison, list_names, quote

if TYPE_CHECKING:
    import pandas as pd

Edge = tuple[int, int]
"""The item above, and the item below."""


@dataclass(frozen=True)
class Order:
    """A directed graph of items: an edge leads from the more developed item to the other."""

    names: list[str]
    """The items, sorted; the nodes are indices into this list."""
    backers: dict[Edge, list[str]]
    """The edges, each with the annotators who say so, sorted."""

    @cached_property
    def below(self) -> list[list[int]]:
        """The nodes that an edge leads to from each node, sorted."""
        rows: list[list[int]] = [[] for _ in self.names]
        for upper, lower in sorted(self.backers):
            rows[upper].append(lower)
        return rows

    @cached_property
    def knots(self) -> list[list[int]]:
        """Groups of nodes that stand above each other around a cycle, largest first."""
        groups: dict[int, list[int]] = {}
        for node, group in enumerate(find_components(len(self.names), self.backers)):
            groups.setdefault(group, []).append(node)
        return sorted((group for group in groups.values() if len(group) > 1), key=len, reverse=True)

    def explain_cycles(self) -> list[str]:
        """Return one sentence a knot: a shortest cycle in it, who says each step, who is involved.

        An empty list means that the answers can be put in one order.
        """
        return [self._explain(knot) for knot in self.knots]

    def _explain(self, knot: list[int]) -> str:
        cycle = find_cycle(self.below, set(knot))
        steps = [
            f"{self.names[upper]} above {self.names[lower]} "
            f"({list_names(self.backers[upper, lower])})"
            for upper, lower in zip(cycle, cycle[1:] + cycle[:1], strict=True)
        ]
        rest = len(knot) - len(cycle)
        more = f" {len(knot)} items are caught in such circles: " if rest else ""
        more += list_names([self.names[node] for node in knot], 12) + "." if rest else ""
        return f"These cannot all hold: {', '.join(steps)}.{more}"


def find_components(n_nodes: int, edges: Iterable[Edge]) -> list[int]:
    """Return the strongly connected component of each node (n_nodes,)."""
    ends = np.array(list(edges), dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(n_nodes, n_nodes))
    labels = connected_components(graph, connection="strong")[1]
    return [int(label) for label in labels]


def find_cycle(below: Sequence[Sequence[int]], knot: set[int]) -> list[int]:
    """Return a shortest cycle through the first node of a knot (breadth first)."""
    start = min(knot)
    came_from: dict[int, int] = {}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for lower in below[node]:
            if lower == start:
                cycle = [node]
                while cycle[-1] != start:
                    cycle.append(came_from[cycle[-1]])
                return cycle[::-1]
            if lower in knot and lower not in came_from:
                came_from[lower] = node
                queue.append(lower)
    raise AssertionError("a strongly connected component has a cycle through each of its nodes")


def close(below: Sequence[Sequence[int]]) -> list[int]:
    """Return all nodes below each node of an acyclic graph, as bits."""
    reach = [0] * len(below)
    for node in sort_upwards(below):
        for lower in below[node]:
            reach[node] |= reach[lower] | 1 << lower
    return reach


def sort_upwards(below: Sequence[Sequence[int]]) -> list[int]:
    """Return the nodes of an acyclic graph so that each comes after all below it."""
    waiting = [0] * len(below)
    for row in below:
        for lower in row:
            waiting[lower] += 1
    order = [node for node, n_above in enumerate(waiting) if not n_above]
    for node in order:
        for lower in below[node]:
            waiting[lower] -= 1
            if not waiting[lower]:
                order.append(lower)
    assert len(order) == len(below), "the graph has a cycle: condense it first"
    return order[::-1]


def reduce_edges(below: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the fewest edges of an acyclic graph that have the same closure."""
    reach = close(below)
    place = {node: rank for rank, node in enumerate(sort_upwards(below))}
    kept: list[list[int]] = []
    for row in below:
        covered, direct = 0, []
        for lower in sorted(row, key=lambda node: -place[node]):
            if not covered >> lower & 1:
                direct.append(lower)
                covered |= reach[lower] | 1 << lower
        kept.append(sorted(direct))
    return kept


def condense(order: Order) -> tuple[list[list[int]], list[list[int]]]:
    """Return groups of nodes, each knot one group, and the acyclic graph between the groups."""
    label = find_components(len(order.names), order.backers)
    groups: list[list[int]] = [[] for _ in range(max(label, default=-1) + 1)]
    for node, group in enumerate(label):
        groups[group].append(node)
    edges = {(label[u], label[v]) for u, v in order.backers if label[u] != label[v]}
    below: list[list[int]] = [[] for _ in groups]
    for upper, lower in sorted(edges):
        below[upper].append(lower)
    return groups, below


def build_order(comparisons: pd.DataFrame | Sequence[Comparison]) -> Order:
    """Return the order of the majority: an edge where more annotators say so than the contrary.

    Each annotator has one voice a pair, the majority of their own answers to it; ties, skips and
    even splits give no edge.
    """
    voices: dict[tuple[str, str, str], int] = {}
    rows = comparisons if isinstance(comparisons, Sequence) else comparisons.itertuples(index=False)
    names: set[str] = set()
    for annotator, left, right, outcome in rows:
        names |= {left, right}
        if outcome in ("left", "right"):
            key = (annotator, min(left, right), max(left, right))
            voices[key] = voices.get(key, 0) + (1 if (outcome == "left") == (left < right) else -1)
    items = sorted(names)
    number = {name: place for place, name in enumerate(items)}
    claims: dict[Edge, list[str]] = {}
    for (annotator, first, second), voice in sorted(voices.items()):
        edge = (number[first], number[second])
        if voice:
            claims.setdefault(edge if voice > 0 else edge[::-1], []).append(annotator)
    won = {
        edge: backers
        for edge, backers in claims.items()
        if len(backers) > len(claims.get(edge[::-1], ()))
    }
    return Order(items, won)


def explain_contradictions(comparisons: pd.DataFrame) -> list[str]:
    """Return who contradicts whom in words: each annotator with themselves, then the majority."""
    found = []
    for annotator, own in comparisons.groupby("annotator", sort=True):
        for sentence in build_order(own).explain_cycles():
            found.append(f"{quote(str(annotator))} contradicts themselves. {sentence}")
    return found + [f"The majority. {text}" for text in build_order(comparisons).explain_cycles()]
