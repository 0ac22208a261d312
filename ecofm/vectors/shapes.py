"""Shapes that were read: refused where they lie nowhere on the Earth, or would take for ever."""

from __future__ import annotations

import re
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from ecofm.errors import EcofmError

MAX_DEGREES = (540.0, 90.0 + 1e-6)
"""Largest longitude, once more round the Earth, and latitude."""
MAX_UNITS = 2e8
"""Largest coordinate in other units: some times round the Earth in metres or feet."""
MAX_CROSSINGS = 1000
"""Places at which an outline may cross itself: with 1000, mending it takes a second, with 17,000
over a minute, and ever longer."""
N_PROBED, N_USUAL, MAX_PAIRS = 100, 3, 100_000
"""Edges that are tried against all others first: of an outline each lies near itself and its two
neighbours, and so many other pairs are tried."""
GRID_FILE = re.compile(r"(?:grids|PARAMETERFILE\W+[^]]*)\W*[^\s\]]*[/\\]", re.IGNORECASE)
"""A datum shift by a file that lies somewhere, in WKT or in a PROJ string."""


def require_sane(path: Path, frame: gpd.GeoDataFrame) -> None:
    """Raise EcofmError for shapes that cannot be used, and for a CRS that names another file."""
    if frame.crs is not None and GRID_FILE.search(frame.crs.to_wkt() + str(frame.crs.srs)):
        raise EcofmError(
            f"{path} has a CRS that names another file, for a shift of its datum; give it in "
            f'EPSG:4326, as with `ogr2ogr -t_srs EPSG:4326 new.gpkg "{path}"`.'
        )
    numbers = shapely.get_coordinates(frame.geometry.array)
    if not np.isfinite(numbers).all():
        raise EcofmError(f"{path} has coordinates that are no numbers (NaN or infinite).")
    if frame.crs is None or not len(numbers):
        return
    limits = MAX_DEGREES if frame.crs.is_geographic else (MAX_UNITS, MAX_UNITS)
    if (np.abs(numbers) > limits).any():
        x, y = numbers[(np.abs(numbers) > limits).any(axis=1)][0]
        unit = "degrees" if frame.crs.is_geographic else "coordinates on the Earth"
        raise EcofmError(
            f"{path} has a corner at {x:g}, {y:g}, expected {unit} by its CRS ({frame.crs.name}); "
            f'name the right one, as with `ogr2ogr -a_srs EPSG:32652 new.gpkg "{path}"`.'
        )
    for shape in frame.geometry[~frame.geometry.is_valid & ~frame.geometry.isna()]:
        if _crosses_too_often(shape):
            raise EcofmError(
                f"{path} has an outline that crosses itself at more than {MAX_CROSSINGS} places; "
                f'mend it, as with `ogr2ogr -makevalid new.gpkg "{path}"`, or draw it again.'
            )


def _crosses_too_often(shape: BaseGeometry) -> bool:
    """Return whether the edges of a shape cross each other at very many places."""
    numbers, owner = shapely.get_coordinates(
        rings := shapely.get_rings(shapely.get_parts(shape)), return_index=True
    )
    if not len(rings):
        return False
    is_edge = owner[1:] == owner[:-1]
    edges = shapely.linestrings(np.stack([numbers[:-1], numbers[1:]], axis=1)[is_edge])
    tree = shapely.STRtree(edges)
    probed = edges[np.linspace(0, len(edges) - 1, N_PROBED).astype(int)]
    if len(edges) * (tree.query(probed).shape[1] / N_PROBED - N_USUAL) > 2 * MAX_PAIRS:
        return True
    return bool(tree.query(edges, predicate="crosses").shape[1] > 2 * MAX_CROSSINGS)
