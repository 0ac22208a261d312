"""GeoJSON, read as JSON: GDAL would follow a CRS that is a link, or take it for something else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
from pyproj import CRS
from shapely.geometry import shape

from ecofm.errors import EcofmError
from ecofm.files import read_file

MAX_BYTES = 2**29
"""512 MiB; it needs ten times as much memory."""
SHAPES = (
    "Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon",
    "GeometryCollection",
)  # fmt: skip
CRS_NAME = re.compile(
    r"(?:(?:urn:(?:x-)?ogc:def:crs:|https?://www\.opengis\.net/def/crs/)"
    r"(?P<authority>[A-Za-z]+)[:/][\w.]*[:/]|(?P<short>[A-Za-z]+):{1,2})(?P<code>\w+)"
)


def read_geojson(path: Path) -> gpd.GeoDataFrame:
    """Return the features of a GeoJSON file, in two dimensions.

    Raises EcofmError for other JSON, and ValueError, TypeError, KeyError, AttributeError or
    RecursionError for what is none, or has nonsense for shapes.
    """
    # Programs write NaN for nothing, which is no JSON.
    found = json.loads(read_file(path, MAX_BYTES), parse_constant=lambda _: None)
    features = _features_of(path, found)
    with np.errstate(invalid="ignore"):
        shapes = [_shape_of(feature.get("geometry")) for feature in features]
    table = pd.DataFrame([_properties_of(feature) for feature in features])
    return gpd.GeoDataFrame(table, geometry=shapes, crs=_crs_of(path, found))


def _features_of(path: Path, found: Any) -> list[dict[str, Any]]:
    kind = found.get("type") if isinstance(found, dict) else None
    if kind in SHAPES:
        return [{"geometry": found}]
    if kind == "Feature":
        return [found]
    features = found.get("features") if kind == "FeatureCollection" else None
    if not isinstance(features, list) or not all(isinstance(one, dict) for one in features):
        what = f"its type is {str(kind)[:40]!r}" if kind else "it has no type"
        if kind == "FeatureCollection":
            what = "it holds no list of features"
        raise EcofmError(
            f"{path} is JSON but no GeoJSON ({what}); write it as GeoJSON, as with "
            f'`ogr2ogr new.gpkg "{path}"`.'
        )
    return features


def _properties_of(feature: dict[str, Any]) -> dict[str, Any]:
    """Return a feature's fields; an id that is a text is one, as programs show it."""
    given = feature.get("properties")
    fields = given if isinstance(given, dict) else {}
    if isinstance(feature.get("id"), str):
        fields = {"id": feature["id"], **fields}
    return {
        name: json.dumps(value) if isinstance(value, dict | list) else value
        for name, value in fields.items()
        if name != "geometry"
    }


def _shape_of(geometry: Any) -> Any:
    return None if geometry is None else shape(_flat(geometry))


def _flat(geometry: dict[str, Any]) -> dict[str, Any]:
    """Return a geometry without heights, which some corners may have and others not."""
    if geometry["type"] == "GeometryCollection":
        return {**geometry, "geometries": [_flat(part) for part in geometry["geometries"]]}
    return {**geometry, "coordinates": _flat_coordinates(geometry["coordinates"])}


def _flat_coordinates(numbers: list[Any]) -> list[Any]:
    if numbers and not isinstance(numbers[0], list):
        return numbers[:2]
    return [_flat_coordinates(part) for part in numbers]


def _crs_of(path: Path, found: dict[str, Any]) -> CRS | None:
    """Return the CRS that is named, longitude and latitude where none is (RFC 7946)."""
    given = found.get("crs", {"type": "EPSG", "properties": {"code": 4326}})
    if given is None:
        return None
    fields = given["properties"]
    name = f"EPSG:{fields['code']}" if given["type"] == "EPSG" else fields.get("name")
    named = CRS_NAME.fullmatch(str(name))
    if given["type"] not in ("name", "EPSG") or named is None:
        raise EcofmError(
            f"{path} names its CRS as {str(fields)[:80]}, which is not followed; expected a name "
            "such as urn:ogc:def:crs:EPSG::32652: correct it, or write it anew with its code, as "
            f'with `ogr2ogr -a_srs EPSG:32652 new.gpkg "{path}"`.'
        )
    authority, code = named["authority"] or named["short"], named["code"]
    # Longitude comes first in GeoJSON, whichever of the two is named.
    return CRS.from_epsg(4326) if code == "CRS84" else CRS.from_authority(authority, code)
