"""The area that people ask for: polygons on the Earth, from a file or as four numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely
import xxhash
from shapely.geometry.base import BaseGeometry

from ecofm.errors import EcofmError
from ecofm.grid import WGS84, Cell
from ecofm.meridian import close, cut, find_leap, join
from ecofm.vectors import read_vector

N_STEPS = 100
"""Steps along the sides of polygons that reach round a pole or over the 180th meridian."""


@dataclass(frozen=True, slots=True)
class Area:
    """Polygons in longitude and latitude (EPSG:4326), cut at the 180th meridian."""

    shape: BaseGeometry

    @property
    def hash(self) -> str:
        """What stands for it in a manifest."""
        return xxhash.xxh3_64_hexdigest(shapely.to_wkb(self.shape))

    def touches(self, cells: list[Cell]) -> npt.NDArray[np.bool_]:
        """Return which cells share a place with it."""
        outlines = np.array([cell.polygon() for cell in cells])
        shapely.prepare(self.shape)
        found: npt.NDArray[np.bool_] = shapely.intersects(self.shape, outlines)
        return found

    def hull(self) -> BaseGeometry:
        """Return its convex hull, over the 180th meridian where that is the short way."""
        return cut(join(self.shape).convex_hull)


def read_area(text: str) -> Area:
    """Read `west,south,east,north` in degrees, or a file of polygons in any CRS.

    Across the 180th meridian west is above east, or longitudes are above 180 (or below -180);
    polygons are cut there, or have such longitudes. Raises EcofmError when it is neither.
    """
    parts = text.split(",")
    if len(parts) == 4:
        try:
            numbers = [float(part) for part in parts]
        except ValueError:
            raise EcofmError(f"--area {text}: expected four numbers, or a file.") from None
        return Area(_read_box(text, *numbers))
    path = Path(text)
    if not path.exists():
        raise EcofmError(
            f"--area {text}: expected west,south,east,north in degrees, or a file of polygons."
        )
    table = read_vector(path, "polygons")
    if table.crs is None:
        raise EcofmError(f"{path} has no CRS; expected polygons with one.")
    shapes = table.geometry.dropna()
    shapes = shapes[shapes.geom_type.str.contains("Polygon")]
    if shapes.crs.is_geographic:
        _require_plain_edges(path, shapes)
    whole = shapely.union_all([_to_lonlat(shape, shapes.crs) for shape in shapes])
    if whole.is_empty or not np.isfinite(whole.bounds).all():
        raise EcofmError(f"{path} holds no polygon on the Earth.")
    return Area(whole)


def _read_box(text: str, west: float, south: float, east: float, north: float) -> BaseGeometry:
    """Return the box of four numbers; raises EcofmError when they are none."""
    if west - east > 180:  # over the 180th meridian, as RFC 7946 writes it
        east += 360
    is_box = -360 <= west < east <= min(west + 360, 540) and -90 <= south < north <= 90
    if not is_box:
        raise EcofmError(
            f"--area {text}: expected west,south,east,north in degrees, west below east and south "
            "below north; across the 180th meridian 179,-17,-179,-16 or 179,-17,181,-16."
        )
    return cut(shapely.box(west, south, east, north))


def _require_plain_edges(path: Path, shapes: gpd.GeoSeries) -> None:
    """Raise EcofmError for an edge in degrees that may go either way round the Earth."""
    for shape in shapes:
        if leap := find_leap(shape):
            raise EcofmError(
                f"{path} has an edge from longitude {leap[0]:g} to {leap[1]:g}, which may go "
                "either way round the Earth; cut the polygon at the 180th meridian or write "
                "longitudes above 180 if it crosses that, else add corners on the way."
            )


def _to_lonlat(shape: BaseGeometry, crs: Any) -> BaseGeometry:
    """Return a polygon of any CRS in longitude and latitude, cut at the 180th meridian."""
    (found,) = gpd.GeoSeries([shape], crs=crs).to_crs(WGS84)
    if find_leap(found):
        # Its corners lie on both sides of the meridian, or round a pole: the edges show which.
        west, south, east, north = shape.bounds
        finer = shapely.segmentize(shape, max(east - west, north - south) / N_STEPS)
        (found,) = gpd.GeoSeries([finer], crs=crs).to_crs(WGS84)
        return close(found)
    return cut(shapely.make_valid(found))
