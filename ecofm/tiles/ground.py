"""Ground: what scenes show in some of the cells that they touch, compared where both lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ecofm.errors import SceneError
from ecofm.grid import Grid, Keys
from ecofm.tiles.pixels import Reading, read_onto
from ecofm.tiles.rasters import Rasters
from ecofm.tiles.scenes import Scene

MAX_ADDED = 0.02
"""A scene with less ground of its own, of all that it shows, adds nothing to the others."""
N_CELLS = 25
"""Cells that are looked at, from all over a scene."""


class Likeness(NamedTuple):
    """What two scenes have in common in the cells that are looked at."""

    shared: float
    """Of the smaller scene's ground."""
    do_differ: bool
    """Whether the numbers differ somewhere on the ground that both show."""
    is_same: bool
    """Whether both show the same ground in the same numbers, and nothing else."""


@dataclass(frozen=True, slots=True)
class Ground:
    """Where scenes lie, and how they are read."""

    touched: Mapping[object, Keys]
    """The cells of each footprint."""
    grid: Grid
    reading: Reading

    def cells(self, one: Scene, other: Scene | None = None) -> list[int]:
        """Return some cells that a scene touches, or that two scenes do."""
        keys = self.touched[one.geobox]
        if other is not None:
            keys = np.intersect1d(keys, self.touched[other.geobox])
        if not len(keys):
            return []
        chosen = np.unique(np.linspace(0, len(keys) - 1, N_CELLS).astype(int))
        return [int(key) for key in keys[chosen]]

    def adds_nothing(self, scene: Scene, others: Sequence[Scene]) -> bool:
        """Return whether hardly any ground that a scene shows is missing in all others.

        Clouds that a quality band hides are ground that is shown. False where they share none.
        """
        near = [other for other in others if self.cells(scene, other)]
        if not near:
            return False
        n_seen = n_added = 0
        try:
            with Rasters() as rasters:
                for key in self.cells(scene):
                    target = self.grid.cell_at(key).geobox
                    seen, *theirs = (
                        read_onto(bare(one), target, rasters, self.reading)[1]
                        for one in (scene, *near)
                    )
                    n_seen += int(seen.sum())
                    n_added += int((seen & ~np.logical_or.reduce(theirs)).sum())
        except SceneError:
            return False  # it is named where its tiles are made
        return n_added <= MAX_ADDED * n_seen and n_seen > 0

    def compare(self, one: Scene, other: Scene) -> Likeness:
        """Return how far two scenes show the same ground, and whether in the same numbers."""
        counts, do_differ = np.zeros(3), False
        try:
            with Rasters() as rasters:
                for key in self.cells(one, other):
                    target = self.grid.cell_at(key).geobox
                    (mine, seen), (theirs, also) = (
                        read_onto(scene, target, rasters, self.reading) for scene in (one, other)
                    )
                    both = seen & also
                    counts += [seen.sum(), also.sum(), both.sum()]
                    do_differ = do_differ or bool((mine[:, both] != theirs[:, both]).any())
        except SceneError:
            return Likeness(0.0, False, False)  # it is named where its tiles are made
        shared = float(counts[2] / max(min(counts[:2]), 1))
        return Likeness(shared, do_differ, not do_differ and bool((counts == counts[2]).all()))


def bare(scene: Scene) -> Scene:
    """Return a scene without what hides its pixels."""
    return replace(scene, hidings=())
