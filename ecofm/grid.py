"""Grids: fixed cells whose ids are stable across years, runs and machines.

Cells come from odc-geo's GridSpec, which takes (x, y); ids are written `{y}_{x}`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry
from odc.geo.gridspec import GridSpec
from shapely.geometry import Polygon

from ecofm.errors import SceneError

WGS84 = "EPSG:4326"
UTM_GSD_M = 10
UTM_LATITUDES = (-80.0, 84.0)
XYZ_LATITUDES = (-85.06, 85.06)


@dataclass(frozen=True, slots=True)
class Cell:
    """A fixed place on the grid."""

    cell_id: str
    geobox: GeoBox

    def polygon(self) -> Polygon:
        """Return the outline in longitude and latitude (EPSG:4326)."""
        return self.geobox.extent.to_crs(WGS84, resolution=math.inf).geom


class Grid:
    """A grid by its name: `xyz:14`, `utm:2560`, `utm:1280` or `none` (chips without a place)."""

    def __init__(self, name: str) -> None:
        """Parse the name; raises ValueError for any other."""
        found = re.fullmatch(r"none|(utm|xyz):(\d{1,5})", name)
        size = int(found[2]) if found and found[2] else 0
        if not found or (found[1] == "utm" and (size < 80 or size % 80)) or size > 81920:
            raise ValueError(
                f"grid {name!r} is not known: expected utm:2560, utm:1280 (metres, a multiple "
                "of 80), xyz:14 (zoom) or none."
            )
        if found[1] == "xyz" and size > 22:
            raise ValueError(f"grid {name!r}: the zoom of a web-mercator grid is at most 22.")
        self.name = name
        self.kind = found[1] or "none"
        self._zoom = size
        self.tile_px = 256 if self.kind == "xyz" else size // UTM_GSD_M

    def cells(self, footprint: GeoBox) -> Iterator[Cell]:
        """Yield the cells that a raster touches.

        Raises SceneError when the raster lies outside the latitudes that the grid covers.
        """
        west, south, east, north = _lonlat_bounds(footprint)
        limits = XYZ_LATITUDES if self.kind == "xyz" else UTM_LATITUDES
        if not all(map(math.isfinite, (west, south, east, north))) or (
            north < limits[0] or south > limits[1]
        ):
            raise SceneError(
                f"lies outside grid {self.name}, which covers latitudes {limits[0]:g} to "
                f"{limits[1]:g}; check its CRS and transform"
            )
        if self.kind == "xyz":
            yield from self._walk(GridSpec.web_tiles(self._zoom), footprint, "")
            return
        for zone in range(_zone(west), _zone(east) + 1):
            for is_north in {south >= 0, north >= 0}:
                epsg = (32600 if is_north else 32700) + zone
                for cell in self._walk(_utm_spec(epsg, self.tile_px), footprint, f"{epsg}_"):
                    if _home_epsg(cell.geobox) == epsg:
                        yield cell

    def _walk(self, spec: GridSpec, footprint: GeoBox, prefix: str) -> Iterator[Cell]:
        outline = footprint.extent.to_crs(spec.crs, resolution=_segment(footprint))
        for (x, y), geobox in spec.tiles_from_geopolygon(outline):
            yield Cell(f"{prefix}{y}_{x}", geobox)

    def cell(self, cell_id: str) -> Cell:
        """Return the cell with this id; raises ValueError when it cannot be one of the grid."""
        found = re.fullmatch(r"(?:(32[67]\d\d)_)?(-?\d+)_(-?\d+)", cell_id)
        if not found or (found[1] is None) != (self.kind == "xyz"):
            raise ValueError(f"{cell_id!r} is no cell of grid {self.name}.")
        y, x = int(found[2]), int(found[3])
        if self.kind == "xyz":
            spec = GridSpec.web_tiles(self._zoom)
            if not (0 <= x < 2**self._zoom and 0 <= y < 2**self._zoom):
                raise ValueError(f"{cell_id!r} is no cell of grid {self.name}.")
        else:
            spec = _utm_spec(int(found[1]), self.tile_px)
        return Cell(cell_id, spec.tile_geobox((x, y)))


def _utm_spec(epsg: int, tile_px: int) -> GridSpec:
    return GridSpec(f"EPSG:{epsg}", tile_shape=(tile_px, tile_px), resolution=UTM_GSD_M)


def _segment(footprint: GeoBox) -> float:
    """Length of the outline's segments when it is reprojected, in units of its CRS."""
    box = footprint.boundingbox
    return max(box.span_x, box.span_y) / 16


def _lonlat_bounds(footprint: GeoBox) -> tuple[float, float, float, float]:
    extent: Geometry = footprint.extent
    box = extent.to_crs(WGS84, resolution=_segment(footprint)).boundingbox
    return box.left, box.bottom, box.right, box.top


def _zone(longitude: float) -> int:
    return min(max(int((longitude + 180) // 6) + 1, 1), 60)


def _home_epsg(geobox: GeoBox) -> int:
    """Return the UTM zone and hemisphere of a cell's centre, in which alone the cell exists."""
    centre = geobox.extent.centroid.to_crs(WGS84).geom
    return (32600 if centre.y >= 0 else 32700) + _zone(centre.x)
