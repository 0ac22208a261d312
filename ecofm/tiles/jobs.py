"""Jobs: the tiles to make, held as 8 bytes each until a worker makes them.

A plan of a country has millions of tiles, each with its scenes. What is kept is the cells' keys of
each period, in order, and each scene once; which scenes touch a cell is found again by the worker
that makes it, for the few cells of its shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ecofm.grid import Grid, Keys, unpack
from ecofm.tiles.scenes import Scene

Boxes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Job:
    """One tile to make: the scenes that may hold its pixels, best first."""

    cell_id: str
    period: str
    group: str
    has_place: bool
    is_chip: bool
    scenes: tuple[Scene, ...]

    @property
    def tile_id(self) -> str:
        """Name of the tile."""
        return f"{self.cell_id}@{self.period}"


@dataclass(frozen=True, slots=True)
class Span:
    """The cells of one period, and the scenes that may show them, best first."""

    period: str
    keys: Keys
    scenes: tuple[Scene, ...]
    boxes: Boxes
    """First and last row, first and last column of the cells that each scene touches."""

    def cut(self, first: int, last: int) -> Span:
        """Return some of the cells with the scenes that may touch them."""
        keys = self.keys[first:last]
        y0, y1, x0, x1 = box_of(keys)
        near = (
            (self.boxes[:, 0] <= y1) & (self.boxes[:, 1] >= y0)
            & (self.boxes[:, 2] <= x1) & (self.boxes[:, 3] >= x0)
        )  # fmt: skip
        scenes = tuple(self.scenes[n] for n in np.flatnonzero(near).tolist())
        return Span(self.period, keys, scenes, self.boxes[near])


@dataclass(frozen=True, slots=True)
class Cells:
    """Tiles on the cells of a grid, by period and place: a sequence of jobs that makes them late.

    A slice is as small as its cells and scenes are, and goes to a worker.
    """

    grid: str
    spans: list[Span] = field(default_factory=list)

    def __len__(self) -> int:
        """Return the number of tiles."""
        return sum(len(span.keys) for span in self.spans)

    def __getitem__(self, part: slice) -> Cells:
        """Return some of the tiles that follow each other."""
        first, last, _ = part.indices(len(self))
        spans, start = [], 0
        for span in self.spans:
            low, high = max(first - start, 0), min(last - start, len(span.keys))
            if low < high:
                spans.append(span.cut(low, high))
            start += len(span.keys)
        return Cells(self.grid, spans)

    def __iter__(self) -> Iterator[Job]:
        """Yield the jobs."""
        grid = Grid(self.grid)
        for span in self.spans:
            # Scenes of one footprint, as an orbit gives them again and again, are tested once.
            touched: dict[object, npt.NDArray[np.bool_]] = {}
            for scene in span.scenes:
                if scene.geobox is not None and scene.geobox not in touched:
                    touched[scene.geobox] = grid.touched(span.keys, scene.geobox)
            for n, key in enumerate(span.keys.tolist()):
                shown = tuple(scene for scene in span.scenes if touched[scene.geobox][n])
                yield Job(grid.cell_at(key).cell_id, span.period, "", True, False, shown)


def box_of(keys: Keys) -> tuple[int, int, int, int]:
    """Return the first and last row, and the first and last column, of some cells."""
    x, y = unpack(keys).T
    return int(y.min()), int(y.max()), int(x.min()), int(x.max())


def lay_out(
    grid: str,
    scenes: Mapping[str, list[Scene]],
    touched: Mapping[object, Keys],
    held: Mapping[str, Keys],
) -> Cells:
    """Return the tiles of some periods' scenes, best first, without those that are there already.

    `touched` has the cells of each footprint (the scene's geobox).
    """
    spans = []
    for period, members in sorted(scenes.items()):
        found = {scene.geobox: touched[scene.geobox] for scene in members}
        keys = np.unique(np.concatenate(list(found.values())))
        if period in held:
            keys = np.setdiff1d(keys, held[period], assume_unique=True)
        if len(keys):
            boxes = {footprint: box_of(cells) for footprint, cells in found.items()}
            reach = np.array([boxes[scene.geobox] for scene in members])
            spans.append(Span(period, keys, tuple(members), reach))
    return Cells(grid, spans)
