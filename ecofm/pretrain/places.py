"""Places: where in a pair of tiles the views lie, so that they show enough valid pixels.

The first choice is drawn by a generator keyed by (seed, step), one row a global sample. Where a
view would show too few valid pixels there, the place is drawn among those of a regular grid at
which all views show enough, and where there is none, at which they do without their shifts. So it
is a function of the step and of the tiles' masks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ecofm.pretrain.views import Places, ViewConfig, draw_places, draw_uniform, lay_views

OTHER_PLACE = 5
"""Stream of the places that are drawn where the first choice shows too little."""
GRID_SIDE = 16
"""Places along each side of a tile that are looked at then."""

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating]


class PlaceFinder:
    """Finds the places of a run's views."""

    def __init__(
        self,
        config: ViewConfig,
        sources: Sequence[tuple[int, int]],
        *,
        seed: int,
        n_global: int,
        tile_px: tuple[int, int],
    ) -> None:
        """Take what views are drawn from: `sources` are the (tile of the pair, stream) of each."""
        self.config = config
        self.sources = tuple(sources)
        self.seed = seed
        self.n_global = n_global
        self.tile_px = tile_px
        line = (np.arange(GRID_SIDE, dtype=np.float32) + 0.5) / GRID_SIDE
        x, y = np.meshgrid(line, line)
        self.others: list[Places] = [
            np.stack([x.ravel(), y.ravel(), np.full(x.size, shift, np.float32)], axis=1)
            for shift in (1, 0)
        ]
        """Places to choose from instead: with the views' shifts, and without."""

    @property
    def least_valid_share(self) -> float:
        """Share of a tile's pixels without which no view of it can show enough."""
        # Edges are rounded to whole pixels, so that a view may be a pixel smaller than this.
        side = np.minimum(self.config.size_px / self.config.max_zoom, self.tile_px) - 1
        return float(self.config.min_valid_share * side.prod() / np.prod(self.tile_px))

    def at(self, step: int) -> StepPlaces:
        """Return what finds the places of one step."""
        return StepPlaces(self, step)


class StepPlaces:
    """The places of one step's pairs."""

    def __init__(self, finder: PlaceFinder, step: int) -> None:
        """Draw the first choice of each sample, and how its views lie around a place."""
        seed, n = finder.seed, finder.n_global
        self._finder = finder
        self.first = draw_places(seed, step, n)
        self._rank = draw_places(seed, step, n, OTHER_PLACE)[:, 0]
        self._uniform = [draw_uniform(seed, step, stream, n) for _, stream in finder.sources]

    def find(self, sample: int, masks: Sequence[Mask]) -> Places | None:
        """Return a place at which every view of a sample shows enough.

        `masks` are the valid masks (height, width) of the pair's two tiles; None if there is no
        such place.
        """
        finder, first = self._finder, self.first[sample : sample + 1]
        wanted = [masks[tile] for tile, _ in finder.sources]
        if finder.config.min_valid_share == 0 or all(mask.all() for mask in wanted):
            return first.ravel()
        # A tile that is paired with itself is added up once.
        sums = [_add_up(masks[0])]
        sums.append(sums[0] if masks[1] is masks[0] else _add_up(masks[1]))
        for places in (first, *finder.others):
            good = places[self._is_enough(sample, places, sums)]
            if len(good):
                return good[int(self._rank[sample] * len(good)) :][:1].ravel()
        return None

    def choose(self, masks: Sequence[Sequence[Mask]]) -> Places:
        """Return a place for each of all samples; the first choice for one that has none."""
        found = [self.find(sample, pair) for sample, pair in enumerate(masks)]
        return np.stack(
            [self.first[n] if place is None else place for n, place in enumerate(found)]
        )

    def _is_enough(
        self, sample: int, places: Places, sums: list[npt.NDArray[np.int32]]
    ) -> npt.NDArray[np.bool_]:
        """Return at which places (n, 3) all views show enough."""
        finder, enough = self._finder, np.ones(len(places), dtype=bool)
        for (tile, _), uniform in zip(finder.sources, self._uniform, strict=True):
            own = np.broadcast_to(uniform[sample], (len(places), uniform.shape[1]))
            centre, span = lay_views(finder.config, places, own, finder.tile_px)
            enough &= measure_share(sums[tile], centre, span) >= finder.config.min_valid_share
        return enough


def _add_up(mask: Mask) -> npt.NDArray[np.int32]:
    """Return how many pixels are valid above and left of each corner (Crow 1984)."""
    sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int32)
    np.cumsum(mask, axis=1, dtype=np.int32, out=sums[1:, 1:])
    np.cumsum(sums, axis=0, out=sums)
    return sums


def measure_share(sums: npt.NDArray[np.int32], centre: Floats, span: Floats) -> Floats:
    """Return the valid share of rectangles, their edges rounded to whole pixels.

    `centre` and `span` (n, 2) are x and y in coordinates from -1 to 1 over the tile; a view is
    turned by quarters only, so that what it shows is such a rectangle.
    """
    size = np.array(sums.shape[::-1]) - 1
    first = np.rint((centre - span + 1) / 2 * size).astype(np.int64).clip(0, size - 1)
    last = np.rint((centre + span + 1) / 2 * size).astype(np.int64).clip(first + 1, size)
    (left, top), (right, bottom) = first.T, last.T
    inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return np.asarray(inside / ((right - left) * (bottom - top)))
