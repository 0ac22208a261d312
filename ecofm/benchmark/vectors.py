"""Vector files, as tables of proxies and as polygons."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import pandas as pd

from ecofm.benchmark.points import find_coordinates
from ecofm.errors import EcofmError
from ecofm.tables import Table, column_name, read_table
from ecofm.tables.reading import PARQUET, from_frame

CELL_KEYS = ("cell_id", "y_x")
"""Columns that name a cell; `y_x` is the reference study's."""
VECTORS = (".gpkg", ".geojson", ".json", ".shp", ".fgb")
SET_CRS = (
    "add one, as with `ogr2ogr -a_srs EPSG:4326 new.gpkg {path}` if the coordinates are degrees, "
    "or in QGIS"
)


def open_proxies(path: Path) -> tuple[Table, bool]:
    """Return the table of a file, and whether its rows have polygons, so that it is by region.

    Points of a vector file get columns latitude and longitude.
    """
    if path.suffix.lower() not in VECTORS and not _is_geoparquet(path):
        return read_table(path), False
    frame = read_vector(path, "a table of points or regions")
    names = {column_name(str(name)) for name in frame.columns}
    kinds = set(frame.geom_type.dropna())
    if names & set(CELL_KEYS) and path.suffix.lower() not in VECTORS:
        return read_table(path), False
    plain = pd.DataFrame(frame.drop(columns=frame.geometry.name))
    if kinds and kinds <= {"Polygon", "MultiPolygon"}:
        return from_frame(path, plain), True
    if kinds != {"Point"} or frame.crs is None:
        what = f"no CRS; {SET_CRS.format(path=path)}" if kinds == {"Point"} else (
            f"{', '.join(sorted(kinds)) or 'no shapes'}; give points or polygons, or a CSV or "
            "Parquet table"
        )  # fmt: skip
        raise EcofmError(f"{path} has {what}.")
    place = frame.geometry.to_crs("EPSG:4326")
    if find_coordinates(names) is None:
        plain["latitude"], plain["longitude"] = place.y, place.x
    return from_frame(path, plain), False


def read_vector(path: Path, what: str) -> gpd.GeoDataFrame:
    """Return a vector file's table; raises EcofmError when it cannot be read, or has no shapes."""
    try:
        found = gpd.read_parquet(path) if _is_parquet(path) else _read_layer(path)
    # pyogrio's errors derive from RuntimeError, its missing files from OSError.
    except (OSError, ValueError, RuntimeError) as error:
        raise EcofmError(
            f"{path} cannot be read as {what} ({error}); give a GeoPackage or GeoJSON."
        ) from error
    if not isinstance(found, gpd.GeoDataFrame):  # a plain table, as a CSV is
        raise EcofmError(f"{path} has no shapes to be {what}; give a GeoPackage or GeoJSON.")
    return found


def _read_layer(path: Path) -> gpd.GeoDataFrame | pd.DataFrame:
    """Return the one layer of shapes that a file holds."""
    import pyogrio

    layers = pyogrio.list_layers(path).tolist()
    # QGIS keeps its styles in a layer without shapes.
    shapes = [name for name, kind in layers if kind is not None]
    if len(shapes) > 1:
        raise EcofmError(
            f"{path} holds the layers {', '.join(shapes)}; write the one that is meant to a file "
            f'of its own, as with `ogr2ogr new.gpkg "{path}" "{shapes[0]}"`.'
        )
    return gpd.read_file(path, layer=shapes[0] if shapes else None)


def _is_parquet(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(PARQUET)) == PARQUET
    except OSError:
        return False


def _is_geoparquet(path: Path) -> bool:
    """Return whether a file is Parquet with shapes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return _is_parquet(path) and b"geo" in (pq.read_schema(path).metadata or {})
    except (OSError, pa.ArrowException):
        return False  # its reader says what is wrong with it
