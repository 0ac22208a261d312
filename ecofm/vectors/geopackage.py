"""GeoPackages, read as the SQLite databases that they are.

Only ordinary tables are read, by no SQL of the file: its views and virtual tables may compute for
ever or name other files.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
import shapely
from pyproj import CRS
from pyproj.exceptions import CRSError

from ecofm.errors import EcofmError
from ecofm.files import require_file

MAX_BYTES = 2**32
MAX_CELL_BYTES = 2**29
BESIDE = ("-wal", "-journal", "-shm")
"""Files in which SQLite keeps what is not written into the database yet."""
ENVELOPES = (0, 32, 48, 48, 64)
"""Bytes of the box that stands before a shape, by its kind."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A table with shapes."""

    name: str
    column: str
    """The column of the shapes."""
    srs_id: int


def read_geopackage(path: Path) -> gpd.GeoDataFrame:
    """Return the one layer of shapes that a GeoPackage holds, without its row numbers.

    Raises EcofmError where it holds none, several, or a view; sqlite3.Error, ValueError or
    ShapelyError where it is damaged.
    """
    require_file(path, MAX_BYTES)
    with _open(path) as database:
        layer = _only_layer(path, database)
        described = database.execute(f"PRAGMA table_xinfo({_quote(layer.name)})").fetchall()
        keys = [name for _, name, kind, _, _, key, _ in described if key and _is_integer(kind)]
        hidden = {layer.column, *(keys if len(keys) == 1 else [])}
        fields = [
            (n, k) for _, n, k, _, _, _, is_made in described if n not in hidden and not is_made
        ]
        names = ", ".join(_quote(name) for name in [layer.column, *(name for name, _ in fields)])
        rows = database.execute(f"SELECT {names} FROM {_quote(layer.name)}").fetchall()
        crs = _crs_of(database, layer.srs_id)
    table = pd.DataFrame([row[1:] for row in rows], columns=[name for name, _ in fields])
    for name, kind in fields:
        if kind.upper() == "BOOLEAN":
            table[name] = table[name].map({0: False, 1: True})
    shapes = shapely.from_wkb([_wkb_of(row[0]) for row in rows])
    return gpd.GeoDataFrame(table, geometry=gpd.GeoSeries(shapes, crs=crs))


@contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database to read; nothing is written beside it unless it is in use."""
    real = path.resolve()
    beside = [real.with_name(real.name + suffix) for suffix in BESIDE]
    for file in beside:
        if file.is_symlink() or (file.exists() and not file.is_file()):
            raise EcofmError(f"{path} has {file.name} beside it, which is no file; remove it.")
    in_use = any(file.exists() and file.stat().st_size for file in beside)
    how = "mode=ro" if in_use else "mode=ro&immutable=1"
    with closing(sqlite3.connect(f"{real.as_uri()}?{how}", uri=True)) as database:
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_CELL_BYTES)
        database.execute("PRAGMA trusted_schema = OFF")
        yield database


def _only_layer(path: Path, database: sqlite3.Connection) -> Layer:
    master = database.execute("SELECT name, type, sql FROM sqlite_master").fetchall()
    plain = {
        name.lower()
        for name, kind, sql in master
        if kind == "table" and not sql.upper().startswith("CREATE VIRTUAL")
    }
    if not {"gpkg_contents", "gpkg_geometry_columns", "gpkg_spatial_ref_sys"} <= plain:
        raise EcofmError(
            f"{path} is an SQLite database and no GeoPackage; expected the tables gpkg_contents, "
            f'gpkg_geometry_columns and gpkg_spatial_ref_sys: write `ogr2ogr new.gpkg "{path}"`.'
        )
    layers = [
        Layer(*row)
        for row in database.execute(
            "SELECT g.table_name, g.column_name, g.srs_id FROM gpkg_geometry_columns AS g "
            "JOIN gpkg_contents AS c ON lower(c.table_name) = lower(g.table_name) "
            "WHERE c.data_type = 'features'"
        )
    ]
    if not layers:
        raise ValueError("it has no layer with shapes")
    if len(layers) > 1:
        raise EcofmError(
            f"{path} holds the layers {', '.join(layer.name for layer in layers)}; write the one "
            "that is meant to a file of its own, as with "
            f'`ogr2ogr new.gpkg "{path}" "{layers[0].name}"`.'
        )
    if layers[0].name.lower() not in plain:
        raise EcofmError(
            f"{path} holds {layers[0].name}, which is a view and no table; write what it shows to "
            f'a file of its own, as with `ogr2ogr new.gpkg "{path}" "{layers[0].name}"`.'
        )
    return layers[0]


def _wkb_of(blob: Any) -> bytes | None:
    """Return a shape without the header that GeoPackages have before it."""
    if blob is None:
        return None
    if not isinstance(blob, bytes) or blob[:2] != b"GP" or len(blob) < 8:
        raise ValueError("a shape is damaged")
    kind = (blob[3] >> 1) & 7
    if kind >= len(ENVELOPES):
        raise ValueError("a shape has a box of an unknown kind")
    return blob[8 + ENVELOPES[kind] :]


def _crs_of(database: sqlite3.Connection, srs_id: int) -> CRS | None:
    """Return the CRS of an entry, None where it is undefined."""
    found = database.execute(
        "SELECT organization, organization_coordsys_id, definition FROM gpkg_spatial_ref_sys "
        "WHERE srs_id = ?", (srs_id,)
    ).fetchone()  # fmt: skip
    if found is None or srs_id <= 0:
        return None
    authority, code, text = (str(value or "") for value in found)
    try:
        return CRS.from_authority(authority, code)
    except CRSError:
        pass  # its definition tells
    if not text.strip() or text.strip().lower() == "undefined" or authority.upper() == "GDAL":
        return None
    return CRS.from_wkt(text)


def _is_integer(kind: str) -> bool:
    return kind.upper() in ("INTEGER", "INT", "MEDIUMINT")


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
