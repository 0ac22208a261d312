"""Roads of the synthetic country: highways between towns, paved roads and tracks to villages."""

import numpy as np
from numpy.typing import NDArray

from ecofm.synth.built import Built, Material, Place, Role
from ecofm.synth.land import Ground, Land


def draw_routes(
    built: Built, land: Land, places: list[Place], cell_px: int, rng: np.random.Generator
) -> None:
    """Draw tracks, then paved roads, then highways, so that the best road stays on top."""
    towns = [p for p in places if p.radius_px > 0.35 * cell_px] or places[:2]
    villages = [p for p in places if not any(p is t for t in towns)]
    roads: list[tuple[float, NDArray[np.float64], int]] = []
    for index, village in enumerate(villages):
        near = towns + villages[:index]
        goal = min(near, key=lambda p: np.hypot(p.row - village.row, p.col - village.col))
        good = (village.quality + goal.quality) / 2 > rng.uniform(0.35, 0.65)
        path = _path(village, goal, 0.03 if good else 0.10, rng)
        roads.append((1.5 if good else 0.9, path, max(village.opens, goal.opens)))
    for start, goal in _span(towns, cell_px):
        roads.append((3.0, _path(start, goal, 0.05, rng), 0))
    if towns:
        roads += [(3.0, path, 0) for path in _exits(towns[0], built.role.shape[0], rng)]
    for width_px, path, opens in sorted(roads, key=lambda r: r[0]):
        _draw(built, land, path, width_px, opens)


def _span(towns: list[Place], cell_px: int) -> list[tuple[Place, Place]]:
    """Return the pairs of towns that a highway joins: a minimum spanning tree and short loops."""
    pairs, joined = [], towns[:1]
    rest = towns[1:]
    while rest:
        start, goal = min(((a, b) for a in joined for b in rest), key=lambda ab: _length(*ab))
        pairs.append((start, goal))
        joined = [*joined, goal]
        rest = [t for t in rest if t is not goal]
    known = {frozenset((id(a), id(b))) for a, b in pairs}
    for i, a in enumerate(towns):
        for b in towns[i + 1 :]:
            if _length(a, b) < 4 * cell_px and frozenset((id(a), id(b))) not in known:
                pairs.append((a, b))
    return pairs


def _length(a: Place, b: Place) -> float:
    return float(np.hypot(a.row - b.row, a.col - b.col))


def _path(a: Place, b: Place, sway: float, rng: np.random.Generator) -> NDArray[np.float64]:
    return _curve(np.array([a.row, a.col]), np.array([b.row, b.col]), sway, rng)


def _curve(
    start: NDArray[np.float64], end: NDArray[np.float64], sway: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return points every 0.4 px on a line that sways by `sway` of its length; `[n, 2]`."""
    length = max(float(np.hypot(*(end - start))), 1.0)
    t = np.linspace(0, 1, int(length / 0.4) + 2)
    bend = sum(
        rng.normal() * sway / k**1.3 * np.sin(np.pi * k * t) for k in range(1, 2 + int(length / 60))
    )
    normal = np.array([-(end - start)[1], (end - start)[0]])
    points: NDArray[np.float64] = start + t[:, None] * (end - start) + bend[:, None] * normal
    return points


def _exits(town: Place, n_px: int, rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """Return two highways from a town out of the country, in about opposite directions."""
    bearing = rng.uniform(0, 2 * np.pi)
    home = np.array([town.row, town.col])
    turns = (bearing, bearing + np.pi + rng.normal(scale=0.4))
    return [
        _curve(home, home + 1.5 * n_px * np.array([np.sin(a), np.cos(a)]), 0.02, rng) for a in turns
    ]


def _draw(built: Built, land: Land, path: NDArray[np.float64], width_px: float, opens: int) -> None:
    """Draw one road; tracks end at the water, better roads bridge it."""
    heading = np.gradient(path, axis=0)
    heading /= np.maximum(np.hypot(heading[:, 0], heading[:, 1]), 1e-9)[:, None]
    normal = np.stack([-heading[:, 1], heading[:, 0]], -1)
    half = (width_px - 1) / 2
    offsets = np.linspace(-half, half, 5) if half > 0 else np.zeros(1)
    points = (path[:, None] + offsets[None, :, None] * normal[:, None]).reshape(-1, 2)
    rows, cols = np.rint(points).astype(np.intp).T
    n_px = built.role.shape[0]
    keep = (rows >= 0) & (rows < n_px) & (cols >= 0) & (cols < n_px)
    rows, cols = rows[keep], cols[keep]
    paved = width_px > 1
    if not paved:
        dry = land.ground[rows, cols] != Ground.WATER
        rows, cols = rows[dry], cols[dry]
    built.role[rows, cols] = Role.PAVED if paved else Role.TRACK
    built.birth[rows, cols] = opens
    built.renewal[rows, cols] = 0
    built.old[rows, cols] = built.new[rows, cols] = Material.ASPHALT if paved else Material.DUST
    built.cover[rows, cols] = 0.9 if width_px > 2 else 0.75 if paved else 0.5
    built.order[rows, cols] = 1.0 if paved else 0.0
