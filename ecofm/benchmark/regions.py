"""Regions and circles: polygons that get their share of the cells that they overlap."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from shapely.geometry.base import BaseGeometry

from ecofm.benchmark.columns import REGION_KEYS, list_names
from ecofm.benchmark.vectors import SET_CRS
from ecofm.errors import EcofmError
from ecofm.meridian import close, cut, find_leap
from ecofm.tables import canonical, column_name, count, quote
from ecofm.vectors import read_vector

EQUAL_AREA = "EPSG:6933"
WGS84 = "EPSG:4326"
MAX_STEP = {True: 0.05, False: 5_000.0}
"""Longest edge by whether the CRS is geographic, in degrees or else metres: an edge that is
straight in one projection is bent in another."""
MAX_CORNERS = 50_000_000
"""Corners that outlines may have when no edge is longer: 250 million km in metres."""
OVERLAP = 0.01
"""Share of the smaller region from which two regions overlap; borders drawn twice differ less."""


@dataclass(frozen=True, slots=True)
class Regions:
    """Polygons by name: columns region and geometry, in the equal-area CRS."""

    table: gpd.GeoDataFrame
    notes: list[str] = field(default_factory=list)
    """What was mended, put together or left out, one sentence each."""


def read_regions(path: Path, column: str | None = None) -> Regions:
    """Read polygons with their names from `column`, else from a column region or name.

    Polygons of one name are parts of one region; outlines that cross themselves are mended;
    what has no name or no area is left out; all of it is noted. Raises EcofmError when the file
    cannot be read, or lacks names, polygons or a CRS.
    """
    table = read_vector(path, "regions")
    known = {column_name(str(name)): str(name) for name in reversed(table.columns)}
    wanted = REGION_KEYS if column is None else (column,)
    key = next((known[column_name(n)] for n in wanted if column_name(n) in known), None)
    is_polygon = table.geom_type.fillna("").str.contains("Polygon|Collection")
    if table.crs is None and is_polygon.any():
        raise EcofmError(f"{path} has polygons without a CRS; {SET_CRS.format(path=path)}.")
    if key is None or not is_polygon.any():
        expected = "region (or name)" if column is None else column
        raise EcofmError(
            f"{path} has columns {', '.join(map(str, table.columns))} and CRS {table.crs}; "
            f"expected polygons with a CRS and a column {expected}; another is chosen with "
            "--region-column."
        )
    notes: list[str] = []
    # As it is written, but for blanks: a float 7001.0 is matched later.
    names = table[key].map(lambda name: "" if pd.isna(name) else str(name))
    has_name = names.map(lambda name: canonical(name) != "")
    for kept, what in ((is_polygon, "without a polygon"), (has_name, f"without {key}")):
        if not kept.all():
            notes.append(f"{path.name}: left out {count(int((~kept).sum()), 'feature')} {what}.")
    kept = is_polygon & has_name
    names, shapes = names[kept], table.geometry[kept]
    shapes = _mend(names, shapes, path, notes)
    length = float(shapely.length(shapes.array).sum())
    if length > MAX_CORNERS * MAX_STEP[bool(shapes.crs.is_geographic)]:
        raise EcofmError(
            f"{path} has outlines that are {length:.3g} long in all, in the unit of its CRS "
            f"({shapes.crs.name}), more than there are on the Earth; name the right CRS, as with "
            f'`ogr2ogr -a_srs EPSG:4326 new.gpkg "{path}"`.'
        )
    placed = _to_equal_area(shapes)
    whole = _join_parts(names, placed, path, notes)
    return Regions(whole[whole.geometry.area > 0].reset_index(drop=True), notes)


def _mend(names: pd.Series, shapes: gpd.GeoSeries, path: Path, notes: list[str]) -> gpd.GeoSeries:
    """Return valid polygons without other parts."""
    broken = ~shapes.is_valid
    if broken.any():
        notes.append(
            f"{path.name}: mended outlines that cross themselves: {list_names(names[broken])}."
        )
    valid = [_keep_polygons(shapely.make_valid(shape)) for shape in shapes]
    return gpd.GeoSeries(valid, index=shapes.index, crs=shapes.crs)


def _keep_polygons(shape: BaseGeometry) -> BaseGeometry:
    parts = shapely.get_parts(shape)
    parts = np.concatenate([shapely.get_parts(part) for part in parts]) if len(parts) else parts
    return shapely.union_all(parts[shapely.get_dimensions(parts) == 2])


def _to_equal_area(shapes: gpd.GeoSeries) -> gpd.GeoSeries:
    """Return polygons in the equal-area CRS, cut at the 180th meridian."""
    step = MAX_STEP[bool(shapes.crs.is_geographic)]
    if shapes.crs.is_geographic:
        # Before long edges are divided: an edge of 358 degrees is one of 2 the other way.
        shapes = gpd.GeoSeries(
            [close(s) if find_leap(s) else cut(s) for s in shapes],
            index=shapes.index, crs=shapes.crs,
        )  # fmt: skip
    places = shapes.segmentize(step).to_crs(WGS84)
    closed = [close(shape) if find_leap(shape) else cut(shape) for shape in places]
    return gpd.GeoSeries(closed, index=shapes.index, crs=WGS84).to_crs(EQUAL_AREA)


def _join_parts(
    names: pd.Series, shapes: gpd.GeoSeries, path: Path, notes: list[str]
) -> gpd.GeoDataFrame:
    """Return one polygon a name, in the order of the file."""
    table = gpd.GeoDataFrame({"region": names, "same": names.map(canonical)}, geometry=shapes)
    twice = table.duplicated("same", keep=False)
    if twice.any():
        several = table[twice].drop_duplicates("same")["region"]
        notes.append(
            f"{path.name}: {count(int(twice.sum()), 'polygon')} are parts of "
            f"{count(len(several), 'region')} of the same name: {list_names(several)}."
        )
        table = table.dissolve("same", aggfunc="first", sort=False)
    return table.reset_index(drop=True)[["region", "geometry"]]


@dataclass(frozen=True, slots=True)
class Shares:
    """Which part of each cell lies in each region."""

    parts: pd.DataFrame
    """By cell_id: region, and area_m2 of the part of the cell that lies in it."""
    area_m2: pd.Series
    """Area of each region, by its name."""

    def covered(self, cells: pd.Index | None = None) -> pd.Series:
        """Return which share of each region these cells (None: all) cover, 0 to 1, by region."""
        parts = self.parts if cells is None else self.parts[self.parts.index.isin(cells)]
        found = parts.groupby("region")["area_m2"].sum().reindex(self.area_m2.index, fill_value=0)
        return (found / self.area_m2).clip(upper=1)

    def within(self, cells: pd.Index, min_covered: float) -> pd.DataFrame:
        """Return the parts of these cells in regions of which they cover enough."""
        covered = self.covered(cells)
        enough = covered[(covered > 0) & (covered >= min_covered)].index
        kept = self.parts.index.isin(cells) & self.parts["region"].isin(enough)
        return self.parts[kept]


def share_cells(cells: gpd.GeoDataFrame, regions: gpd.GeoDataFrame) -> Shares:
    """Return the parts of cells that lie in regions, by their area on the ground.

    `cells` have cell_id and geometry, in any CRS, `regions` region and geometry.
    """
    outlines = cells[["cell_id", "geometry"]].drop_duplicates("cell_id")
    outlines = outlines[outlines.geometry.notna()].to_crs(EQUAL_AREA)
    regions = regions.to_crs(EQUAL_AREA)
    shapes, places = (np.asarray(t.geometry, dtype=object) for t in (outlines, regions))
    tree = shapely.STRtree(shapes)
    place, cell = tree.query(places, predicate="intersects")
    inside = tree.query(places, predicate="covers")
    is_inside = np.isin(place * len(shapes) + cell, inside[0] * len(shapes) + inside[1])
    area = shapely.area(shapes)[cell]
    cut_off = ~is_inside
    area[cut_off] = shapely.area(
        shapely.intersection(places[place[cut_off]], shapes[cell[cut_off]])
    )
    order = np.lexsort((place, cell))
    order = order[area[order] > 0]
    parts = pd.DataFrame(
        {"region": regions["region"].to_numpy()[place[order]], "area_m2": area[order]},
        index=pd.Index(outlines["cell_id"].to_numpy()[cell[order]], name="cell_id"),
    )
    return Shares(parts, pd.Series(shapely.area(places), index=regions["region"].to_numpy()))


def find_overlaps(regions: gpd.GeoDataFrame, shares: Shares) -> list[str]:
    """Return the pairs of regions, of those with cells, that lie one over the other."""
    present = regions[regions["region"].isin(shares.parts["region"])]
    shapes = np.asarray(present.geometry, dtype=object)
    first, second = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    first, second = first[first < second], second[first < second]
    common = shapely.area(shapely.intersection(shapes[first], shapes[second]))
    smaller = np.minimum(shapely.area(shapes[first]), shapely.area(shapes[second]))
    names = present["region"].to_numpy()
    found = common > OVERLAP * smaller
    return [
        f"{quote(names[a])} and {quote(names[b])}"
        for a, b in zip(first[found], second[found], strict=True)
    ]


def average_regions(frame: pd.DataFrame, parts: pd.DataFrame) -> pd.DataFrame:
    """Return the area-weighted mean of each column over the parts of cells in each region.

    `frame` is complete, by cell_id; `parts` has region and area_m2 by cell_id. The sum of value
    times area, divided by the sum of areas: a region's mean does not depend on its size.
    """
    together = frame.join(parts, how="inner")
    weight = together["area_m2"]
    sums = together[frame.columns].mul(weight, axis=0).groupby(together["region"]).sum()
    total = weight.groupby(together["region"]).sum()
    return pd.DataFrame(sums.div(total, axis=0).replace([np.inf, -np.inf], np.nan))
