"""Outlines at the 180th meridian: cut there as RFC 7946 and GeoParquet ask, or in one piece.

Stored outlines (EPSG:4326) have longitudes within -180 to 180. What crosses the meridian is stored
in two parts, which give right areas and intersections, but neither a middle nor an edge: these are
taken of the outline in one piece.
"""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely
from shapely.affinity import translate
from shapely.geometry import MultiPolygon, Point, Polygon
from shapely.geometry.base import BaseGeometry
from shapely.geometry.polygon import orient

SNAP_DEGREES = 1e-9
"""A tenth of a millimetre: what lies so near to the meridian lies on it."""

Floats = npt.NDArray[np.float64]


def cut(shape: BaseGeometry) -> BaseGeometry:
    """Return polygons or lines cut at the 180th meridian, with longitudes within -180 to 180.

    `shape` may reach beyond the meridian: from 179 to 181, or from -181 to -179. Polygons that
    are cut have their outer rings anticlockwise.
    """
    if shape.is_empty or _is_within(shape):
        return shape
    shape = shapely.transform(shape, _snap)
    west, _, east, _ = shape.bounds
    turns = 360.0 * np.arange(np.floor((west + 180) / 360), np.ceil((east + 180) / 360))
    parts: list[BaseGeometry] = []
    for turn in turns.tolist():
        found = shapely.intersection(shape, shapely.box(turn - 180, -90, turn + 180, 90))
        parts.extend(shapely.get_parts(translate(found, xoff=-turn)))
    # What only touches the meridian leaves a point or a line on its other side.
    dimension = shapely.get_dimensions(shape)
    whole = shapely.union_all([p for p in parts if shapely.get_dimensions(p) == dimension])
    if whole.geom_type == "MultiPolygon":
        return MultiPolygon([orient(part) for part in whole.geoms])
    return orient(whole) if whole.geom_type == "Polygon" else whole


def join(shape: BaseGeometry) -> BaseGeometry:
    """Return a shape that was cut at the 180th meridian in one piece, with longitudes above 180.

    Other shapes stay as they are.
    """
    if shape.is_empty or _width(shape) <= 180:
        return shape
    parts = shapely.get_parts(shape)
    turned = shapely.union_all(
        [translate(part, xoff=360.0) if sum(part.bounds[::2]) < 0 else part for part in parts]
    )
    return turned if _width(turned) < _width(shape) else shape


def close_ring(longitude: Floats, latitude: Floats) -> BaseGeometry:
    """Return the polygon within a ring of places whose neighbours lie near to each other, cut.

    A ring round a pole holds the pole.
    """
    around = np.unwrap(np.append(longitude, longitude[0]), period=360)
    ring = np.stack([around, np.append(latitude, latitude[0])], axis=1)
    if abs(around[-1] - around[0]) > 180:
        pole = float(np.copysign(90, latitude.mean()))
        ring = np.concatenate([ring, [(around[-1], pole), (around[0], pole)]])
    found = Polygon(ring)
    return cut(found if found.is_valid else shapely.make_valid(found))


def find_leap(shape: BaseGeometry) -> tuple[float, float] | None:
    """Return the longitudes of the first edge that spans more than 180 degrees, or None.

    It goes the other way, over the meridian, unless it goes all round the Earth: 360 degrees are
    no leap.
    """
    for ring in _rings(shape):
        step = np.abs(np.diff(ring[:, 0]))
        leaps = np.flatnonzero((step > 180 + SNAP_DEGREES) & (step < 360 - SNAP_DEGREES))
        if len(leaps):
            return float(ring[leaps[0], 0]), float(ring[leaps[0] + 1, 0])
    return None


def close(shape: BaseGeometry) -> BaseGeometry:
    """Return polygons cut at the 180th meridian whose edges take the short way round the Earth."""
    if find_leap(shape) is None:
        return cut(shape)
    found = []
    for polygon in shapely.get_parts(shape):
        outer, *inner = (close_ring(*ring[:-1].T) for ring in _rings(polygon))
        found.append(shapely.difference(outer, shapely.union_all(inner)))
    return shapely.union_all(found)


def _rings(shape: BaseGeometry) -> list[Floats]:
    """Return the rings of polygons, (point, xy), the outer one of each first; none of others."""
    if not shape.geom_type.endswith("Polygon"):
        return []
    rings = shapely.get_rings(shapely.get_parts(shape))
    return [shapely.get_coordinates(ring) for ring in rings]


def bounding_box(shape: BaseGeometry) -> list[float]:
    """Return west, south, east, north of a shape that is cut; across the meridian west > east.

    As RFC 7946 and STAC have it.
    """
    west, south, east, north = join(shape).bounds
    return [west, south, east - 360 if east > 180 else east, north]


def cut_all(table: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Return a table with its outlines cut: earlier versions wrote longitudes above 180."""
    bounds = table.geometry.bounds
    beyond = ((bounds["minx"] < -180) | (bounds["maxx"] > 180)).to_numpy()
    if not beyond.any():
        return table
    shapes = table.geometry.to_numpy().copy()
    shapes[beyond] = [cut(shapely.make_valid(shape)) for shape in shapes[beyond]]
    return table.set_geometry(gpd.GeoSeries(shapes, index=table.index, crs=table.crs))


def middle_of(outline: BaseGeometry) -> Point:
    """Return the middle of an outline (EPSG:4326), also of one that is cut."""
    middle = join(outline).centroid
    return Point((middle.x + 180) % 360 - 180, middle.y) if abs(middle.x) > 180 else middle


def middles(outlines: gpd.GeoSeries) -> gpd.GeoSeries:
    """Return the middle of each outline (EPSG:4326); None where there is none."""
    shapes = outlines.to_numpy()
    found = shapely.centroid(shapes)
    across = _spans(shapes) > 180
    found[across] = [middle_of(shape) for shape in shapes[across]]
    return gpd.GeoSeries(found, index=outlines.index, crs=outlines.crs)


def join_all(outlines: gpd.GeoSeries) -> gpd.GeoSeries:
    """Return each outline in one piece; None where there is none."""
    shapes = outlines.to_numpy().copy()
    across = _spans(shapes) > 180
    shapes[across] = [join(shape) for shape in shapes[across]]
    return gpd.GeoSeries(shapes, index=outlines.index, crs=outlines.crs)


def _spans(shapes: npt.NDArray[np.object_]) -> Floats:
    bounds: Floats = shapely.bounds(shapes)
    return bounds[:, 2] - bounds[:, 0]


def _is_within(shape: BaseGeometry) -> bool:
    west, _, east, _ = shape.bounds
    return bool(-180 <= west and east <= 180)


def _width(shape: BaseGeometry) -> float:
    west, _, east, _ = shape.bounds
    return float(east - west)


def _snap(at: Floats) -> Floats:
    longitude = at[:, 0]
    near = np.abs(np.abs(longitude) - 180) < SNAP_DEGREES
    return np.stack([np.where(near, np.copysign(180, longitude), longitude), at[:, 1]], axis=1)
