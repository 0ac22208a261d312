"""Maps of scores: for each period and zone a cloud-optimised GeoTIFF, one pixel a cell."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.io import MemoryFile

from ecofm.errors import EcofmError
from ecofm.grid import CELL_ID, UTM_STEP_M, WEB_MERCATOR, XYZ_GSD_M, XYZ_PX
from ecofm.types import say

BANDS = ("score", "lower", "upper")
MAX_PX = 2**28
WORLD_M = XYZ_GSD_M * XYZ_PX
"""The width and height of web mercator."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Map:
    """One file that was written."""

    name: str
    period: str
    geobox: GeoBox


def write_maps(scores: gpd.GeoDataFrame, folder: Path, attribution: str) -> list[Map]:
    """Write the scores of each period as `{period}.tif`, or of each zone as `{period}_{zone}.tif`.

    A zone is named by the EPSG code of its cells' CRS, and each pixel is a cell, exactly; web
    mercator on both sides of the 180th meridian is 3857-west and 3857-east. Bands are score, lower
    and upper, nodata is NaN. Raises EcofmError when no cell has a place, a cell does not lie where
    its id says, or a map would be too large.
    """
    placed = scores[scores.geometry.notna() & ~scores.geometry.is_empty]
    if placed.empty:
        raise EcofmError("--cog needs cells with a place; these tiles are chips without one.")
    if len(placed) < len(scores):
        say(f"{len(scores) - len(placed)} of {len(scores)} tiles have no place and are in no map.")
    cells = find_pixels(placed)
    zones = cells["zone"].nunique()
    maps = []
    for (period, zone), rows in cells.groupby(["period", "zone"]):
        stem = re.sub(r"[^0-9A-Za-z._-]", "_", str(period)) + (f"_{zone}" if zones > 1 else "")
        box = _frame(rows, stem)
        _write(rows, box, folder / f"{stem}.tif", attribution)
        maps.append(Map(name=stem, period=str(period), geobox=box))
    return maps


def find_pixels(placed: gpd.GeoDataFrame) -> pd.DataFrame:
    """Return the scores with each cell's zone, its CRS, `size_m`, and place in the zone's raster.

    `row` and `column` count southward and eastward, in cells, from the zone's own origin.
    """
    ids = placed["cell_id"].astype(str).str.extract(f"^{CELL_ID.pattern}$")
    if ids[1].isna().any():
        wrong = placed["cell_id"][ids[1].isna()].iloc[0]
        raise EcofmError(f"cell {wrong} has a place but no cell's id; leave out --cog.")
    cells = pd.DataFrame(placed[["cell_id", "period", *BANDS]])
    cells["crs"] = ("EPSG:" + ids[0]).fillna(WEB_MERCATOR)
    row, cells["column"] = ids[1].astype(np.int64), ids[2].astype(np.int64)
    cells["row"] = np.where(cells["crs"] == WEB_MERCATOR, row, -1 - row)
    cells["zone"] = cells["crs"].str.removeprefix("EPSG:")
    parts = [_measure(rows, placed.geometry[rows.index]) for _, rows in cells.groupby("crs")]
    return pd.concat(parts)


def _measure(rows: pd.DataFrame, outlines: gpd.GeoSeries) -> pd.DataFrame:
    """Return the cells of one CRS with their size, which their outlines tell; zones are parted."""
    crs = rows["crs"].iloc[0]
    bounds = outlines.to_crs(crs).bounds.to_numpy()
    width = float(np.median(bounds[:, 2] - bounds[:, 0]))
    if crs == WEB_MERCATOR:
        size = WORLD_M / 2 ** round(math.log2(WORLD_M / width))
    else:
        size = UTM_STEP_M * max(1, round(width / UTM_STEP_M))
    west, north = _origin(crs)
    off = np.hypot(
        bounds[:, 0] - (west + rows["column"] * size), bounds[:, 3] - (north - rows["row"] * size)
    )
    astray = rows["cell_id"][off > size / 100]
    if len(astray):
        raise EcofmError(
            f"cell {astray.iloc[0]} does not lie where a grid of {size:g} m has it, so that no map "
            "can show it; score archives of each grid by themselves, or leave out --cog."
        )
    if crs == WEB_MERCATOR:
        rows = _part_world(rows, round(WORLD_M / size))
    return rows.assign(size_m=size)


def _part_world(rows: pd.DataFrame, n_columns: int) -> pd.DataFrame:
    """Return web mercator's cells in two zones where they lie about the 180th meridian."""
    is_east = rows["column"] >= n_columns // 2
    east, west = rows["column"][is_east], rows["column"][~is_east]
    if east.empty or west.empty or east.min() - west.max() <= n_columns // 2:
        return rows
    return rows.assign(zone=rows["zone"] + np.where(is_east, "-east", "-west"))


def _origin(crs: str) -> tuple[float, float]:
    """Return x and y of the corner that rows and columns count from."""
    return (-WORLD_M / 2, WORLD_M / 2) if crs == WEB_MERCATOR else (0.0, 0.0)


def _frame(rows: pd.DataFrame, name: str) -> GeoBox:
    """Return the raster that holds some cells of one zone; raises EcofmError if it is too large."""
    height = int(np.ptp(rows["row"])) + 1
    width = int(np.ptp(rows["column"])) + 1
    if width * height > MAX_PX:
        raise EcofmError(
            f"the map {name} would be {width} x {height} cells, which lie too far apart for one "
            "COG; score the embeddings of smaller areas by themselves, or leave out --cog."
        )
    crs, size = str(rows["crs"].iloc[0]), float(rows["size_m"].iloc[0])
    west, north = _origin(crs)
    left, top = west + rows["column"].min() * size, north - rows["row"].min() * size
    return GeoBox((height, width), Affine(size, 0, left, 0, -size, top), crs)


def _write(rows: pd.DataFrame, box: GeoBox, path: Path, attribution: str) -> None:
    height, width = box.shape
    image = np.full((len(BANDS), height, width), np.nan, dtype=np.float32)
    down, right = (rows[name].to_numpy() - rows[name].min() for name in ("row", "column"))
    image[:, down, right] = rows[list(BANDS)].to_numpy(np.float32).T
    # GDAL writes the file when it is closed, and tells of a full disk in words of its own.
    with MemoryFile() as memory:
        with memory.open(
            driver="COG", width=width, height=height, count=len(BANDS), dtype="float32",
            crs=str(box.crs), transform=box.affine, nodata=np.nan, compress="deflate",
            overview_resampling="average",
        ) as target:  # fmt: skip
            target.write(image)
            target.update_tags(attribution=attribution, period=str(rows["period"].iloc[0]))
            for number, name in enumerate(BANDS, start=1):
                target.set_band_description(number, name)
        path.write_bytes(memory.getbuffer())
