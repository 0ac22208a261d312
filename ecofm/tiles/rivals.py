"""Rivals: scenes that show the same ground at the same time, where no rule says which one counts.

The pieces of a mosaic meet at their edges, and so do granules of one day: they are laid side by
side. Two whole mosaics of one year are something else: the one whose file's name comes first would
hide the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import shapely
from odc.geo.crs import CRS

from ecofm.errors import SceneError
from ecofm.grid import Grid, Keys, outline_of
from ecofm.tiles.periods import is_day
from ecofm.tiles.pixels import Reading, read_onto
from ecofm.tiles.rasters import Rasters
from ecofm.tiles.scenes import Scene

MAX_SHARED = 0.5
"""Of the smaller scene. Neighbours share less: granules of Sentinel-2 a tenth."""
N_CELLS = 16
"""Cells that are looked at where rasters cover each other."""


def leave_out_rivals(
    scenes: dict[str, Scene],
    rejected: dict[str, str],
    touched: Mapping[object, Keys],
    grid: Grid,
    composite: str,
    reading: Reading,
) -> None:
    """Move scenes that show the same ground at the same time to `rejected`, all of them.

    Acquisitions of known products are none: they are parts of one pass, or two. Nor are scenes of
    no known day where the dates of a period are composited. `touched` has the cells of each
    footprint.
    """
    groups: dict[tuple[str | None, str | None], list[Scene]] = {}
    for scene in scenes.values():
        if composite == "first" or is_day(scene.date):
            groups.setdefault((scene.period, scene.date), []).append(scene)
    found: dict[str, Scene] = {}
    for members in groups.values():
        for one, other in _overlapping(members):
            is_known = one.name in found and other.name in found
            if not is_known and _share_ground(one, other, touched, grid, reading):
                found.setdefault(one.name, other)
                found.setdefault(other.name, one)
    for name, rival in found.items():
        rejected[name] = _say(scenes.pop(name), rival)


def _say(scene: Scene, rival: Scene) -> str:
    if is_day(scene.date):
        return (
            f"shows the same ground as {rival.name}, on {scene.date} too, and nothing says which "
            "one counts; keep one of them"
        )
    return (
        f"shows the same ground as {rival.name}, in {scene.date or scene.period} too, and nothing "
        "says which one comes first; write their months or days into their names (2019-04, "
        "2019-06-12), give each its own --period with --append, give --composite median, or keep "
        "one of them"
    )


def _overlapping(scenes: list[Scene]) -> Iterator[tuple[Scene, Scene]]:
    """Yield pairs whose rasters cover each other for the larger part of the smaller one.

    Neighbours in two zones may, and then a cell is of the one in its own zone.
    """
    if len(scenes) < 2 or all(scene.acquisition for scene in scenes):
        return
    places = [scene.geobox for scene in scenes if scene.geobox is not None]
    outlines, crs = np.array([outline_of(place) for place in places]), [p.crs for p in places]
    area = shapely.area(outlines)
    first, second = shapely.STRtree(outlines).query(outlines, predicate="intersects")
    first, second = first[first < second], second[first < second]
    shared = shapely.area(shapely.intersection(outlines[first], outlines[second]))
    is_large = shared > MAX_SHARED * np.minimum(area[first], area[second])
    for n, m in zip(first[is_large].tolist(), second[is_large].tolist(), strict=True):
        one, other = scenes[n], scenes[m]
        # Of two levels the ground comes first.
        is_known = (one.acquisition and other.acquisition) or (
            {one.level, other.level} == {"L1C", "L2A"}
        )
        if not is_known and (crs[n] == crs[m] or not (_is_zone(crs[n]) and _is_zone(crs[m]))):
            yield one, other


def _is_zone(crs: CRS | None) -> bool:
    """Return whether a CRS is a zone of UTM."""
    return crs is not None and crs.epsg is not None and crs.epsg // 100 in (326, 327)


def _share_ground(
    one: Scene, other: Scene, touched: Mapping[object, Keys], grid: Grid, reading: Reading
) -> bool:
    """Return whether two scenes show the same ground otherwise, in cells that both touch."""
    keys = np.intersect1d(touched[one.geobox], touched[other.geobox])
    if not len(keys):
        return False
    chosen = keys[np.unique(np.linspace(0, len(keys) - 1, N_CELLS).astype(int))]
    counts, do_differ = np.zeros(3), False
    try:
        with Rasters() as rasters:
            for key in chosen.tolist():
                target = grid.cell_at(key).geobox
                (mine, seen), (theirs, also) = (
                    read_onto(scene, target, rasters, reading) for scene in (one, other)
                )
                both = seen & also
                counts += [seen.sum(), also.sum(), both.sum()]
                do_differ = do_differ or bool((mine[:, both] != theirs[:, both]).any())
    except SceneError:
        return False  # it is named where its tiles are made
    return do_differ and bool(counts[2] > MAX_SHARED * min(counts[:2]))
