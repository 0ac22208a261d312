"""The area that people ask for: polygons on the Earth, from a file or as four numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely
import xxhash
from shapely.geometry.base import BaseGeometry

from ecofm.errors import EcofmError
from ecofm.grid import WGS84, Cell

SUFFIXES = (".geojson", ".json", ".gpkg", ".shp", ".fgb", ".parquet")
"""No format that can name another file or a server, as OGR's VRT does."""


@dataclass(frozen=True, slots=True)
class Area:
    """Polygons in longitude and latitude (EPSG:4326)."""

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
        # A cell on the 180th meridian has longitudes above 180, and the area may have either.
        beyond = shapely.bounds(outlines)[:, 2] > 180 if len(outlines) else found
        if beyond.any():
            turned = shapely.transform(outlines[beyond], lambda at: at - (360.0, 0.0))
            found[beyond] |= shapely.intersects(self.shape, turned)
        return found


def read_area(text: str) -> Area:
    """Read `west,south,east,north` in degrees, or a file of polygons in any CRS.

    Raises EcofmError when it is neither.
    """
    parts = text.split(",")
    if len(parts) == 4:
        try:
            west, south, east, north = map(float, parts)
        except ValueError:
            raise EcofmError(f"--area {text}: expected four numbers, or a file.") from None
        if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
            raise EcofmError(
                f"--area {text}: expected west,south,east,north in degrees, west below east and "
                "south below north; give a file of polygons for an area across the 180th meridian."
            )
        return Area(shapely.box(west, south, east, north))
    path = Path(text)
    if path.suffix.lower() not in SUFFIXES:
        raise EcofmError(
            f"--area {text}: expected west,south,east,north in degrees, or polygons as "
            f"{', '.join(SUFFIXES)}."
        )
    try:
        read = gpd.read_parquet if path.suffix.lower() == ".parquet" else gpd.read_file
        table = read(path)
    # pyogrio's errors derive from RuntimeError, its missing files from OSError.
    except (OSError, ValueError, RuntimeError) as error:
        raise EcofmError(f"{path} cannot be read as polygons ({error}).") from error
    if not isinstance(table, gpd.GeoDataFrame) or table.crs is None:
        raise EcofmError(f"{path} has no place (geometry and CRS); expected polygons with a CRS.")
    shapes = table.geometry.dropna()
    shape = shapely.make_valid(shapes[shapes.geom_type.str.contains("Polygon")].to_crs(WGS84))
    whole = shapely.union_all(np.asarray(shape))
    if whole.is_empty or not np.isfinite(whole.bounds).all():
        raise EcofmError(f"{path} holds no polygon on the Earth.")
    return Area(whole)
