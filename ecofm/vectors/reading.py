"""Vector files, told by their first bytes, whatever they are called.

GDAL chooses among some eighty drivers by what a file holds, and several of them read other files
or go online: VRT, GDALG, WFS, a GeoJSON whose CRS is a link. It is given two kinds here, shapefiles
and FlatGeobuf, in a folder of links in which nothing else lies.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
from pyproj.exceptions import CRSError
from shapely.errors import ShapelyError

from ecofm.errors import EcofmError
from ecofm.files import (
    FileError,
    is_special,
    kind_of,
    read_start,
    reason_of,
    require_file,
    require_parquet,
)
from ecofm.vectors.geojson import read_geojson
from ecofm.vectors.geopackage import read_geopackage
from ecofm.vectors.shapes import require_sane

MAX_BYTES = 2**32
N_START = 4096
SHAPEFILE = ("shp", "shx", "dbf", "prj", "cpg")
"""The files of a shapefile; all but the first lie beside it."""
FOREIGN = {
    b"PK\3\4": "is a zip archive, which must be unpacked first",
    b"\x1f\x8b": "is compressed with gzip, and must be unpacked first",
    b"PAR1": "is a Parquet table without shapes (GeoParquet has them)",
}
EXPECTED = (
    "give a GeoPackage (`ogr2ogr new.gpkg FILE` writes one), GeoJSON, a shapefile, FlatGeobuf or "
    "GeoParquet"
)


def is_vector(path: Path) -> bool:
    """Return whether a file is of a kind that holds shapes, by its first bytes."""
    try:
        return _reader_of(path, read_start(path, N_START)) is not None
    except OSError:
        return False  # its reader says what is wrong with it


def read_vector(path: Path, what: str) -> gpd.GeoDataFrame:
    """Return a vector file's table with its shapes; `what` it should be is said where it is not.

    Raises EcofmError when it is of no kind that is read, damaged, or lies nowhere on the Earth.
    """
    try:
        start = read_start(path, N_START)
        read = _reader_of(path, start)
        if read is None:
            raise EcofmError(f"{path} {_foreign(start, what)}; {EXPECTED}.")
        found = read(path)
    except EcofmError:
        raise
    # pyogrio's errors are RuntimeErrors; nonsense for JSON's shapes may raise the others.
    except (
        OSError, ValueError, RuntimeError, TypeError, KeyError, AttributeError, IndexError,
        MemoryError, sqlite3.Error, ShapelyError, CRSError,
    ) as error:  # fmt: skip
        raise EcofmError(f"{path} cannot be read as {what}: {_told(error)}; {EXPECTED}.") from error
    require_sane(path, found)
    return found


def _told(error: Exception) -> str:
    """Return what went wrong; of nonsense in JSON the reasons are Python's own words."""
    if isinstance(error, TypeError | KeyError | AttributeError | IndexError):
        return "its shapes or fields are not as such a file has them"
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    return "it needs too much memory" if isinstance(error, MemoryError) else reason_of(error)


Reader = Callable[[Path], gpd.GeoDataFrame]


def _reader_of(path: Path, start: bytes) -> Reader | None:
    """Return what reads a file that begins with some bytes, None for other kinds."""
    if start.startswith(b"SQLite format 3\0"):
        return read_geopackage
    if start.startswith(b"\0\0\x27\x0a"):
        return _read_shapefile
    if start.startswith(b"fgb\3fgb"):
        return _read_flatgeobuf
    if start.startswith(b"PAR1"):
        return _read_geoparquet if _has_shapes(path) else None
    return read_geojson if _text_of(start).startswith("{") else None


def _text_of(start: bytes) -> str:
    """Return the text that a file begins with, in any encoding that JSON may have."""
    return start.decode(json.detect_encoding(start), "replace").lstrip("\ufeff \t\r\n")


def _foreign(start: bytes, what: str) -> str:
    """Return what is wrong with a file that begins with some bytes of no kind that is read."""
    text = _text_of(start)
    if "<OGRVRTDataSource" in text or "<VRTDataset" in text:
        found = "is a VRT, which refers to other files"
    elif text.startswith("<"):
        found = "is XML, as KML and GML are"
    elif not start.strip():
        found = "is empty"
    else:
        kinds = (kind for head, kind in FOREIGN.items() if start.startswith(head))
        found = next(kinds, "")
    return f"cannot be read as {what}: it {found}" if found else f"has no shapes to be {what}"


def _read_shapefile(path: Path) -> gpd.GeoDataFrame:
    """Read a shapefile with those files beside it that belong to it."""
    stem = path.stem
    found = {"shp": path}
    for file in sorted(path.parent.iterdir()):
        suffix = file.suffix.lower()[1:]
        if file.stem == stem and suffix in SHAPEFILE[1:]:
            real, folders = file.resolve(), {path.parent.resolve(), path.resolve().parent}
            if is_special(file) or (file.exists() and real.parent not in folders):
                raise EcofmError(
                    f"{path} has {file.name} beside it, which is {kind_of(file) or 'a link'} and "
                    "no file of the same folder; put the file itself there."
                )
            require_file(file, MAX_BYTES)
            found[suffix] = file
    if missing := {"shx", "dbf"} - found.keys():
        raise EcofmError(
            f"{path} is a shapefile and has no {' and no '.join(sorted(missing))} file of its name "
            "beside it; copy all of them, or give a GeoPackage or GeoJSON."
        )
    n_declared = 2 * int.from_bytes(read_start(path, 28)[24:], "big")
    if (n_bytes := path.stat().st_size) < n_declared:
        raise FileError(f"it was cut off: it has {n_bytes} bytes of {n_declared}")
    return _read_linked(found)


def _read_flatgeobuf(path: Path) -> gpd.GeoDataFrame:
    return _read_linked({"fgb": path})


def _read_linked(files: dict[str, Path]) -> gpd.GeoDataFrame:
    """Read files with GDAL, by their suffix, in a folder that holds links to them alone."""
    import pyogrio

    n_bytes = sum(require_file(file, MAX_BYTES) for file in files.values())
    with tempfile.TemporaryDirectory() as folder:
        for suffix, file in files.items():
            (Path(folder) / f"vector.{suffix}").symlink_to(file.resolve())
        place = Path(folder) / f"vector.{next(iter(files))}"
        n_declared = pyogrio.read_info(place)["features"]
        if n_declared > n_bytes:
            raise FileError(f"it declares {n_declared} features but holds {n_bytes} bytes")
        found = pyogrio.read_dataframe(place)
    if not isinstance(found, gpd.GeoDataFrame):
        raise FileError("it has no shapes")
    if len(found) != n_declared:
        raise FileError(f"it holds {len(found)} of {n_declared} features")
    return found


def _has_shapes(path: Path) -> bool:
    """Return whether a Parquet file has shapes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return b"geo" in (pq.read_schema(path).metadata or {})
    except (OSError, pa.ArrowException):
        return False


def _read_geoparquet(path: Path) -> gpd.GeoDataFrame:
    require_file(path, MAX_BYTES)
    require_parquet(path)
    try:
        return gpd.read_parquet(path)
    # Damaged files make Arrow raise nearly anything.
    except Exception as error:
        raise ValueError(reason_of(error)) from error
