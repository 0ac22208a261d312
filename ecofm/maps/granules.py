"""Edges of scenes that fall inside tiles: where two sources meet, and how large the step is.

What is known is where the rasters of the scenes end (`scenes.parquet` of the archive). The edge of
an orbit's swath inside a raster, or of a cloud mask, is no such edge and is not located.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio.features
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from scipy.ndimage import distance_transform_edt
from shapely.geometry.base import BaseGeometry

from ecofm.grid import WGS84, Grid, apply
from ecofm.maps.looks import MAX_TILES, STRIP_PX, pick_periods
from ecofm.maps.pictures import pick_period
from ecofm.meridian import cut, join

if TYPE_CHECKING:
    from ecofm.tiles.archive import Archive

MIN_STRIP_PX = 256
"""Valid pixels on each side of an edge, below which their means say nothing."""
COLUMNS = ["period", "tile_id", "scene", "step", "step_beside", "edge_px"]


def measure_scene_edges(archive: Archive) -> pd.DataFrame:
    """Return the edges of scenes that cross tiles, with the step in mean radiometry across each.

    `step` is between strips of 8 px on both sides, `step_beside` between two such strips on the
    scene's own side, which the land alone makes; both in units of the bands' deviations. `edge_px`
    is about the edge's length. At most 2,000 tiles are read.
    """
    found: list[tuple[str, str, str, float, float, int]] = []
    std = np.maximum(np.array(archive.contract.std), 1e-9)
    periods, known = pick_periods(archive), archive.scenes
    for period in periods:
        # An orbit gives the same footprint again and again.
        scenes = known[known["period"] == period].drop_duplicates("geometry", ignore_index=True)
        rows = pick_period(archive.index, period)
        # Where an outline is cut at the 180th meridian, the scene does not end.
        lines = gpd.GeoSeries([cut(join(shape).boundary) for shape in scenes.geometry])
        tiles, edges = lines.sindex.query(rows.geometry.to_numpy(), "intersects")
        pairs = pd.DataFrame({"tile": tiles, "edge": edges}).sort_values(["tile", "edge"])
        kept = pairs["tile"].unique()[: MAX_TILES // len(periods)]
        for tile, members in pairs[pairs["tile"].isin(kept)].groupby("tile"):
            row = rows.iloc[tile]
            pixels, valid = archive.read(int(row["tile_index"]))
            for scene in scenes.iloc[members["edge"]].itertuples():
                inside = _covered(scene.geometry, row["cell_id"], archive.grid)
                steps = _steps(pixels, valid, inside, std)
                if steps is not None:
                    found.append((period, row["tile_id"], scene.name, *steps))
    return pd.DataFrame(found, columns=COLUMNS)


def summarise(edges: pd.DataFrame) -> pd.DataFrame:
    """Return one row a period: edges, median step, and its ratio to the step beside."""
    table = edges.groupby("period").agg(
        edges=("step", "size"), step=("step", "median"), step_beside=("step_beside", "median")
    )
    table["ratio"] = table["step"] / table["step_beside"].clip(lower=1e-9)
    return table.reset_index()


def _covered(outline: BaseGeometry, cell_id: str, grid: str) -> NDArray[np.bool_]:
    """Return which pixels of a cell a scene's outline (EPSG:4326) covers."""
    box = Grid(grid).cell(cell_id).geobox
    to_cell = Transformer.from_crs(WGS84, str(box.crs), always_xy=True)

    def to_pixels(at: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = to_cell.transform(at[:, 0], at[:, 1])
        return np.stack(apply(~box.affine, x, y), axis=1)

    shape = shapely.transform(join(outline), to_pixels)
    covered: NDArray[np.bool_] = rasterio.features.geometry_mask(
        [shape], tuple(box.shape), rasterio.Affine.identity(), invert=True
    )
    return covered


def _steps(
    pixels: NDArray[np.generic],
    valid: NDArray[np.bool_],
    inside: NDArray[np.bool_],
    std: NDArray[np.float64],
) -> tuple[float, float, int] | None:
    """Return the step across an edge, that beside it, and its length; None where it has no side."""
    if inside.all() or not inside.any():
        return None
    deep, far = distance_transform_edt(inside), distance_transform_edt(~inside)
    strips = [
        valid & (far > 0) & (far <= STRIP_PX),
        valid & (deep > 0) & (deep <= STRIP_PX),
        valid & (deep > STRIP_PX) & (deep <= 2 * STRIP_PX),
    ]
    if min(strip.sum() for strip in strips) < MIN_STRIP_PX:
        return None
    other, own, next_own = (pixels[:, strip].mean(axis=1) for strip in strips)
    across, beside = (float(np.mean(np.abs(own - mean) / std)) for mean in (other, next_own))
    return across, beside, int((strips[1] & (deep <= 1)).sum())
