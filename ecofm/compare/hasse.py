"""The Hasse diagram: the fewest lines from which the whole order follows, best at the top."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecofm.compare.graph import Order, condense, reduce_edges, sort_upwards
from ecofm.lettering import make_labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SWEEPS = 8
MAX_NODES = 400
"""More groups than this make a picture that nobody can read."""


def place_nodes(below: list[list[int]]) -> list[tuple[float, int]]:
    """Return the place of each node: x, and its level from 0 at the bottom.

    A node stands one level over the highest node below it. Within a level, nodes move to the mean
    place of their neighbours, sweep by sweep (Sugiyama et al. 1981), which untangles lines.
    """
    level = [0] * len(below)
    for node in sort_upwards(below):
        level[node] = 1 + max((level[lower] for lower in below[node]), default=-1)
    neighbours: list[list[int]] = [list(row) for row in below]
    for upper, row in enumerate(below):
        for lower in row:
            neighbours[lower].append(upper)
    rows: list[list[int]] = [[] for _ in range(max(level, default=-1) + 1)]
    for node, height in enumerate(level):
        rows[height].append(node)
    x = [0.0] * len(below)
    for sweep in range(SWEEPS):
        for row in rows if sweep % 2 else rows[::-1]:
            if sweep:
                row.sort(
                    key=lambda n: sum(x[m] for m in neighbours[n]) / max(1, len(neighbours[n]))
                )
            for place, node in enumerate(row):
                x[node] = place - (len(row) - 1) / 2
    return list(zip(x, level, strict=True))


def draw_hasse(order: Order, title: str) -> Figure:
    """Return the picture of an order, its knots drawn as one box each.

    Raises ValueError when there are more than 400 boxes to draw.
    """
    from matplotlib.figure import Figure

    groups, below = condense(order)
    if len(groups) > MAX_NODES:
        raise ValueError(f"a picture of {len(groups)} items cannot be read, expected {MAX_NODES}")
    lines, names = reduce_edges(below), make_labels(order.names, 16)
    places = place_nodes(lines)
    width = max((x for x, _ in places), default=0) - min((x for x, _ in places), default=0)
    height = max((y for _, y in places), default=0)
    figure = Figure(figsize=(min(max(4.5, 3 + 0.9 * width), 40), min(2 + 0.62 * height, 60)))
    axes = figure.add_axes((0.02, 0.02, 0.96, 0.92))
    axes.set_title(title)
    axes.set_axis_off()
    for upper, row in enumerate(lines):
        for lower in row:
            (x1, y1), (x2, y2) = places[upper], places[lower]
            axes.plot([x1, x2], [y1, y2], color="#8a9499", linewidth=1, zorder=1)
    for group, (x, y) in zip(groups, places, strict=True):
        is_knot = len(group) > 1
        text = " ⟲ ".join(names[node] for node in group[:6])
        face, edge = ("#fde4c8", "#b35806") if is_knot else ("white", "#1b2a2e")
        box = {"boxstyle": "round,pad=0.35", "facecolor": face, "edgecolor": edge}
        axes.text(x, y, text, ha="center", va="center", fontsize=9, bbox=box, zorder=2)
    axes.margins(0.12, 0.06)
    return figure
