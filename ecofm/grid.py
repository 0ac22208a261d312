"""Grids: fixed cells whose ids are stable across years, runs and machines.

Cells come from odc-geo's GridSpec, which takes (x, y); ids are written `{y}_{x}`. A UTM cell
exists only in the zone and hemisphere of its centre: along their borders, where two grids meet at
an angle, strips narrower than half a cell may lie in two cells or in none. Zones are the plain
ones of 6 degrees, without the exceptions of Norway and Svalbard.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.gridspec import GridSpec
from pyproj import Geod, Transformer
from pyproj.exceptions import ProjError
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from ecofm.errors import SceneError, UsageError
from ecofm.meridian import close_ring, cut

WGS84 = "EPSG:4326"
WEB_MERCATOR = "EPSG:3857"
UTM_GSD_M = 10
UTM_STEP_M = 80
"""Sides of UTM cells are multiples of it."""
XYZ_PX = 256
WORLD_M = 2 * math.pi * 6378137  # round the Earth in web mercator
XYZ_GSD_M = WORLD_M / XYZ_PX  # at zoom 0, on the equator
UTM_LATITUDES = (-80.0, 84.0)
XYZ_LATITUDES = (-85.06, 85.06)
MAX_COARSENESS = 10  # 100 m pixels drawn at 10 m show nothing of what the grid is for
N_SAMPLES = 65  # a side of a footprint; steps stay below a UTM zone even round the whole Earth
MAX_CELLS_AT_ONCE = 2**15
CELL_ID = re.compile(r"(?:(32[67][0-9]{2})_)?(-?[0-9]{1,8})_(-?[0-9]{1,8})")
"""EPSG code of UTM (none in web mercator), row and column; rows of UTM count northward."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Keys = npt.NDArray[np.int64]
"""Cells in 8 bytes each: home (EPSG code of UTM, else 0), row and column, which also sort so."""
INDEX_BITS = 24
INDEX_BIAS = 1 << INDEX_BITS - 1  # rows and columns of UTM may be negative
INDEX_MASK = (1 << INDEX_BITS) - 1


@dataclass(frozen=True, slots=True)
class Cell:
    """A fixed place on the grid."""

    cell_id: str
    geobox: GeoBox

    def polygon(self) -> Polygon | MultiPolygon:
        """Return the outline in longitude and latitude (EPSG:4326), cut at the 180th meridian."""
        height, width = self.geobox.shape
        corners = [(0, 0), (0, height), (width, height), (width, 0), (width / 2, height / 2)]
        to_lonlat = _transformer(str(self.geobox.crs), WGS84)
        places = np.array(corners, dtype=float).T
        longitude, latitude = to_lonlat.transform(*apply(self.geobox.affine, *places))
        middle = longitude[-1]
        if np.abs(longitude - middle).max() > 180:
            longitude = middle + (longitude - middle + 180) % 360 - 180
        return cut(Polygon(np.stack([longitude, latitude], axis=1)[:-1]))


class Grid:
    """A grid by its name: `xyz:14`, `utm:2560`, `utm:1280` or `none` (chips without a place)."""

    def __init__(self, name: str) -> None:
        """Parse the name; raises ValueError for any other."""
        found = re.fullmatch(r"none|(utm|xyz):(0|[1-9][0-9]{0,4})", name)
        size = int(found[2]) if found and found[2] else 0
        if (
            not found
            or (found[1] == "utm" and (size < UTM_STEP_M or size % UTM_STEP_M))
            or size > 81920
        ):
            raise UsageError(
                f"grid {name!r} is not known: expected utm:2560, utm:1280 (metres, a multiple "
                "of 80), xyz:14 (zoom) or none."
            )
        if found[1] == "xyz" and not 1 <= size <= 22:
            raise UsageError(f"grid {name!r}: the zoom of a web-mercator grid is 1 to 22.")
        self.name = name
        self.kind = found[1] or "none"
        self._zoom = size
        self._latitudes = XYZ_LATITUDES if self.kind == "xyz" else UTM_LATITUDES
        self.tile_px = XYZ_PX if self.kind == "xyz" else size // UTM_GSD_M

    def gsd_m(self, latitude: float) -> float:
        """Return the side of a pixel on the ground."""
        if self.kind == "utm":
            return float(UTM_GSD_M)
        return XYZ_GSD_M / (1 << self._zoom) * math.cos(math.radians(latitude))

    def cells(self, footprint: GeoBox) -> Iterator[Cell]:
        """Yield the cells that a raster touches; raises SceneError as `keys` does."""
        for keys in self.keys(footprint):
            yield from map(self.cell_at, keys.tolist())

    def keys(self, footprint: GeoBox) -> Iterator[Keys]:
        """Yield the cells that a raster touches as keys, some thousands at a time.

        Raises SceneError when the raster lies outside the latitudes that the grid covers, its
        pixels are far coarser than the grid's, or its CRS does not lead to the Earth.
        """
        try:
            longitude, latitude, step_m = self._sample(footprint)
            homes = self._homes_near(longitude, latitude)
            for home in np.unique(homes[homes > 0]).tolist():
                here = (homes == home).any(axis=0)
                yield from self._walk(home, longitude[here], latitude[here], step_m, footprint)
        except ProjError as error:
            raise SceneError(f"has a CRS that cannot be transformed ({error})") from error

    def _sample(self, footprint: GeoBox) -> tuple[Floats, Floats, float]:
        """Return points all over the footprint, and the largest distance between two in metres."""
        height, width = footprint.shape
        x, y = np.meshgrid(np.linspace(0, width, N_SAMPLES), np.linspace(0, height, N_SAMPLES))
        to_lonlat = _transformer(str(footprint.crs), WGS84)
        longitude, latitude = (
            np.asarray(v, dtype=float) for v in to_lonlat.transform(*apply(footprint.affine, x, y))
        )
        low, high = self._latitudes
        # PROJ gives up on longitudes of more than a turn or so; NaN is no number's neighbour.
        inside = (np.abs(longitude) <= 360) & (latitude >= low) & (latitude <= high)
        if not inside.any():
            raise SceneError(
                f"lies outside grid {self.name}, which covers latitudes {low:g} to {high:g}; "
                "check its CRS and transform"
            )
        step_m = max(_spacing_m(longitude, latitude), _spacing_m(longitude.T, latitude.T))
        # 180 degrees east is 180 west: in web mercator they would lie a world apart.
        longitude, latitude = (longitude[inside] + 180) % 360 - 180, latitude[inside]
        pixel_m = step_m * (N_SAMPLES - 1) / max(width, height)
        if pixel_m > MAX_COARSENESS * self.gsd_m(0):
            raise SceneError(
                f"has pixels of about {pixel_m:.3g} m, far coarser than grid {self.name} "
                f"({self.gsd_m(0):.3g} m)"
            )
        return longitude, latitude, step_m

    def _homes_near(self, longitude: Floats, latitude: Floats) -> Ints:
        """Return the homes (of 9, place) of all cells that may reach to each place."""
        if self.kind == "xyz":
            return self._homes(longitude, latitude)[None]
        reach = self.tile_px * UTM_GSD_M / 110_000
        parallel = np.maximum(np.cos(np.radians(latitude)), 0.05)
        return np.stack(
            [
                self._homes(longitude + east * reach / parallel, latitude + north * reach)
                for east in (-1, 0, 1)
                for north in (-1, 0, 1)
            ]
        )

    def _homes(self, longitude: Floats, latitude: Floats) -> Ints:
        """Return the part of the grid in which each place lies: an EPSG code of UTM, else 1 or 2.

        0 stands for places that the grid does not cover. The halves of web-mercator keep a
        footprint at the 180th meridian from spanning the world.
        """
        turned = (longitude + 180) % 360
        if self.kind == "xyz":
            home = np.where(turned < 180, 1, 2)
        else:
            home = np.where(latitude >= 0, 32601, 32701) + (turned // 6).astype(int).clip(0, 59)
        low, high = self._latitudes
        return np.where((latitude >= low) & (latitude <= high), home, 0)

    def _walk(
        self, home: int, longitude: Floats, latitude: Floats, step_m: float, footprint: GeoBox
    ) -> Iterator[Keys]:
        """Yield the cells of one part of the grid that the footprint touches."""
        spec = self._spec(home)
        x, y = _transformer(WGS84, str(spec.crs)).transform(longitude, latitude)
        stretch = 1 / math.cos(math.radians(min(np.abs(latitude).max(), 85))) + 0.01
        pad = step_m * (stretch if self.kind == "xyz" else 1.01)
        (x0, y0), (x1, y1) = (
            spec.pt2idx(float(np.min(x)) - pad, float(np.min(y)) - pad).xy,
            spec.pt2idx(float(np.max(x)) + pad, float(np.max(y)) + pad).xy,
        )
        columns, rows = np.arange(min(x0, x1), max(x0, x1) + 1), range(min(y0, y1), max(y0, y1) + 1)
        n_rows = max(1, MAX_CELLS_AT_ONCE // len(columns))
        for start in range(0, len(rows), n_rows):
            indices = np.stack(np.meshgrid(columns, rows[start : start + n_rows]), axis=-1)
            indices = indices.reshape(-1, 2)
            touched = self._is_of(home, indices) & _touch(spec, indices, footprint)
            yield self._pack(home, indices[touched])

    def _pack(self, home: int, indices: Ints) -> Keys:
        """Return the keys of cells (x, y) of one part of the grid."""
        column, row = (indices + INDEX_BIAS).T
        home = 0 if self.kind == "xyz" else home
        return np.asarray(home << 2 * INDEX_BITS | row << INDEX_BITS | column)

    def touched(self, keys: Keys, footprint: GeoBox) -> npt.NDArray[np.bool_]:
        """Return which cells share more than a thousandth of a pixel with a raster."""
        found = np.zeros(len(keys), bool)
        for home in np.unique(keys >> 2 * INDEX_BITS).tolist():
            here = keys >> 2 * INDEX_BITS == home
            found[here] = _touch(self._spec(home), unpack(keys[here]), footprint)
        return found

    def cell_at(self, key: int) -> Cell:
        """Return the cell of a key."""
        home = key >> 2 * INDEX_BITS
        ((x, y),) = unpack(np.array([key])).tolist()
        prefix = f"{home}_" if home else ""
        return Cell(f"{prefix}{y}_{x}", self._spec(home).tile_geobox((x, y)))

    def key(self, cell_id: str) -> int:
        """Return the key of a cell's id; raises ValueError when it is none."""
        *home, y, x = map(int, cell_id.split("_"))
        return int(self._pack(home[0] if home else 0, np.array([[x, y]]))[0])

    def _spec(self, home: int) -> GridSpec:
        return _web_spec(self._zoom) if self.kind == "xyz" else _utm_spec(home, self.tile_px)

    def _is_of(self, home: int, indices: Ints) -> npt.NDArray[np.bool_]:
        """Return which cells (x, y) exist in a part of the grid: those with their centre in it."""
        spec = self._spec(home)
        corner, step = _origin(spec)
        x, y = (corner + (indices + 0.5) * step).T
        inside = np.ones(len(indices), bool)
        if self.kind == "xyz":
            inside = ((indices >= 0) & (indices < 2**self._zoom)).all(axis=1)
        longitude, latitude = _transformer(str(spec.crs), WGS84).transform(x, y)
        finite = np.isfinite(longitude) & np.isfinite(latitude)
        longitude, latitude = np.where(finite, longitude, 0), np.where(finite, latitude, 99)
        found: npt.NDArray[np.bool_] = inside & (self._homes(longitude, latitude) == home)
        return found

    def cell(self, cell_id: str) -> Cell:
        """Return the cell with this id; raises ValueError when it cannot be one of the grid."""
        found = CELL_ID.fullmatch(cell_id)
        if self.kind == "none" or not found or (found[1] is None) != (self.kind == "xyz"):
            raise ValueError(f"{cell_id!r} is no cell of grid {self.name}.")
        indices = np.array([[int(found[3]), int(found[2])]])
        homes = (1, 2) if self.kind == "xyz" else (int(found[1]),)
        if not all(1 <= home % 100 <= 60 for home in homes) or not any(
            self._is_of(home, indices)[0] for home in homes
        ):
            raise ValueError(f"{cell_id!r} is no cell of grid {self.name}.")
        return self.cell_at(int(self._pack(homes[0], indices)[0]))


def unpack(keys: Keys) -> Ints:
    """Return the columns and rows of cells: (cell, xy)."""
    places = np.stack([keys & INDEX_MASK, keys >> INDEX_BITS & INDEX_MASK], axis=-1)
    return np.asarray(places - INDEX_BIAS)


def apply(affine: Affine, x: Any, y: Any) -> tuple[Any, Any]:
    """Return where an affine transform sends points: affine 3 asks for `@`, affine 2 lacks it."""
    return affine.a * x + affine.b * y + affine.c, affine.d * x + affine.e * y + affine.f


@lru_cache(maxsize=256)
def _utm_spec(epsg: int, tile_px: int) -> GridSpec:
    return GridSpec(f"EPSG:{epsg}", tile_shape=(tile_px, tile_px), resolution=UTM_GSD_M)


@lru_cache
def _web_spec(zoom: int) -> GridSpec:
    return GridSpec.web_tiles(zoom)


@lru_cache(maxsize=256)
def _transformer(source: str, target: str) -> Transformer:
    return Transformer.from_crs(source, target, always_xy=True)


def _origin(spec: GridSpec) -> tuple[Floats, Floats]:
    """Return the low corner of the cell (0, 0), and the steps from cell to cell, as (x, y)."""
    first, second = (spec.tile_geobox(index).extent.boundingbox for index in ((0, 0), (1, 1)))
    step = np.array([second.left - first.left, second.bottom - first.bottom])
    corner = np.array([first.left, first.bottom])
    return np.where(step < 0, corner - step, corner), step


def _spacing_m(longitude: Floats, latitude: Floats) -> float:
    """Return the largest distance between neighbours along the first axis."""
    _, _, distance = Geod(ellps="WGS84").inv(
        longitude[:-1], latitude[:-1], longitude[1:], latitude[1:]
    )
    finite = np.asarray(distance)[np.isfinite(distance)]
    return float(finite.max()) if len(finite) else 0.0


def pixel_outlines(targets: Floats, crs: str, source: GeoBox) -> Floats:
    """Return outlines (cell, point, xy) in a CRS as pixel coordinates of a source raster.

    Points that do not project are NaN. In a geographic source and in web mercator each outline
    stays in one piece, on the side of the 180th meridian that is nearer to the raster's middle.
    """
    x, y = _transformer(crs, str(source.crs)).transform(targets[..., 0], targets[..., 1])
    x, y = np.where(np.isfinite(x), x, np.nan), np.where(np.isfinite(y), y, np.nan)
    assert source.crs is not None, "scenes without a CRS are chips"
    turn = 360 if source.crs.geographic else WORLD_M if source.crs == WEB_MERCATOR else None
    if turn:
        middle, _ = apply(source.affine, source.width / 2, source.height / 2)
        x = _turn_near(x, x[:, :1], turn)
        centre = x.mean(axis=1, keepdims=True)
        x = x + _turn_near(centre, middle, turn) - centre
    columns, rows = apply(~source.affine, x, y)
    return np.stack([columns, rows], axis=-1)


def _turn_near(x: Floats, middle: Floats | float, turn: float) -> Floats:
    """Return coordinates that repeat with each turn round the Earth, the nearest ones to a middle.

    What is half a turn away, as a side of the largest cells, stays on its side.
    """
    apart = x - middle
    turned = (apart + turn / 2) % turn - turn / 2
    return np.asarray(middle + np.where(np.abs(apart) > turn / 2 * (1 + 1e-9), turned, apart))


def outline_of(footprint: GeoBox) -> BaseGeometry:
    """Return a raster's outline in longitude and latitude (EPSG:4326), bent as its edges are.

    It is cut at the 180th meridian, and holds the pole that the raster holds. Points that do not
    project are left out.
    """
    height, width = footprint.shape
    side = np.linspace(0, 1, N_SAMPLES)[:-1]
    zero, one = np.zeros(len(side)), np.ones(len(side))
    x = np.concatenate([side, one, 1 - side, zero]) * width
    y = np.concatenate([zero, side, one, 1 - side]) * height
    to_lonlat = _transformer(str(footprint.crs), WGS84)
    longitude, latitude = map(np.asarray, to_lonlat.transform(*apply(footprint.affine, x, y)))
    finite = np.isfinite(longitude) & np.isfinite(latitude)
    return close_ring(longitude[finite], latitude[finite])


def _touch(spec: GridSpec, indices: Ints, footprint: GeoBox) -> npt.NDArray[np.bool_]:
    """Return which cells share more than a thousandth of a pixel with a raster."""
    corner, step = _origin(spec)
    side = np.linspace(0, 1, 5)[:-1]
    zero, one = np.zeros(4), np.ones(4)
    ring = np.concatenate(
        [
            np.stack(edge, 1)
            for edge in ((side, zero), (one, side), (1 - side, one), (zero, 1 - side))
        ]
    )
    targets = corner + (indices[:, None] + ring[None]) * step
    outlines = pixel_outlines(targets, str(spec.crs), footprint)
    touched: npt.NDArray[np.bool_] = np.all(np.isfinite(outlines), axis=(1, 2))
    height, width = footprint.shape
    inner = shapely.box(1e-3, 1e-3, width - 1e-3, height - 1e-3)
    touched[touched] = shapely.intersects(shapely.polygons(outlines[touched]), inner)
    corners = slice(None, None, len(side))
    targets, outlines = targets[touched][:, corners], outlines[touched][:, corners]
    touched[touched] = ~_are_torn(targets, str(spec.crs), outlines, footprint)
    return touched


def _are_torn(targets: Floats, crs: str, pixels: Floats, source: GeoBox) -> npt.NDArray[np.bool_]:
    """Return which outlines (cell, corner, xy) in a CRS are in pieces as pixels of a raster.

    Transverse Mercator tears the far side of the Earth along the equator: seen from zone 1, a cell
    of 6 degrees east reaches from pole to pole, and over every scene between. The middle of such
    an edge in pixels is half a world away from where it is.
    """
    middles = [(points + np.roll(points, 1, axis=1)) / 2 for points in (targets, pixels)]
    (x, y), (column, row) = (np.moveaxis(points, -1, 0) for points in middles)
    there = _transformer(crs, WGS84).transform(x, y)
    seen = _transformer(str(source.crs), WGS84).transform(*apply(source.affine, column, row))
    (east, north), (seen_east, seen_north) = (np.radians(places) for places in (there, seen))
    turned = np.cos(north) * np.cos(seen_north) * np.cos(east - seen_east)
    cosine = np.sin(north) * np.sin(seen_north) + turned
    torn: npt.NDArray[np.bool_] = ~(cosine > 0).all(axis=1)
    return torn
