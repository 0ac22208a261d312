"""Vector files, as tables of proxies and as polygons."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ecofm.benchmark.points import find_coordinates
from ecofm.errors import EcofmError
from ecofm.tables import Table, column_name, read_table
from ecofm.tables.reading import from_frame
from ecofm.vectors import is_vector, read_vector

CELL_KEYS = ("cell_id", "y_x")
"""Columns that name a cell; `y_x` is the reference study's."""
VECTORS = (".gpkg", ".geojson", ".json", ".shp", ".fgb")
"""Names of what is no table of text, whatever it holds."""
SET_CRS = (
    "add one, as with `ogr2ogr -a_srs EPSG:4326 new.gpkg {path}` if the coordinates are degrees, "
    "or in QGIS"
)


def open_proxies(path: Path) -> tuple[Table, bool]:
    """Return the table of a file, and whether its rows have polygons, so that it is by region.

    Points of a vector file get columns latitude and longitude.
    """
    if not is_vector(path) and path.suffix.lower() not in VECTORS:
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
