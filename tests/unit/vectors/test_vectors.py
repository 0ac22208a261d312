"""Vector files: what is read, and what may neither open another file nor a connection."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import Point, box

from ecofm.benchmark.regions import read_regions
from ecofm.benchmark.vectors import open_proxies
from ecofm.errors import EcofmError
from ecofm.tiles.area import read_area
from ecofm.vectors import is_vector, read_vector

NAMES = ("a.gpkg", "a.geojson", "a.fgb", "a.shp", "a.parquet")
DISGUISES = ("geojson", "json", "gpkg", "shp", "fgb", "parquet", "csv")
READERS: dict[str, Callable[[Path], Any]] = {
    "area": lambda path: read_area(str(path)),
    "regions": read_regions,
    "proxies": open_proxies,
}


def table(n: int = 3, crs: int = 4326) -> gpd.GeoDataFrame:
    shapes = [box(126 + i, 37, 126.5 + i, 38) for i in range(n)]
    columns = {"region": [f"r{i}" for i in range(n)], "people": np.arange(n) + 0.5}
    return gpd.GeoDataFrame(columns, geometry=shapes, crs=4326).to_crs(crs)


def write(path: Path, frame: gpd.GeoDataFrame) -> Path:
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_file(path)
    return path


def geojson(path: Path, geometry: Any, **more: Any) -> Path:
    feature = {"type": "Feature", "properties": {"region": "a"}, "geometry": geometry}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature], **more}))
    return path


def square(corner: Any = (127, 37)) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [[[126, 37], corner, [127, 38], [126, 37]]]}


def edit(path: Path, *statements: str) -> Path:
    """Change a GeoPackage's tables, which have no triggers afterwards."""
    database = sqlite3.connect(path)
    for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
        database.execute(f'DROP TRIGGER "{name}"')
    for statement in statements:
        database.execute(statement)
    database.commit()
    database.close()
    return path


@pytest.mark.parametrize("crs", [4326, 32652])
@pytest.mark.parametrize("name", NAMES)
def test_each_kind_is_read_as_it_was_written_whatever_it_is_called(
    tmp_path: Path, name: str, crs: int
) -> None:
    path = write(tmp_path / name, table(crs=crs))
    if name != "a.shp":  # whose other files go by its name
        path = path.rename(tmp_path / "b.txt")
    assert is_vector(path)
    found = read_vector(path, "regions")
    found = found.sort_values("region", ignore_index=True)  # FlatGeobuf has an order of its own
    assert found.crs == f"EPSG:{crs}" and list(found.columns) == ["region", "people", "geometry"]
    assert found["region"].tolist() == ["r0", "r1", "r2"]
    assert found["people"].tolist() == [0.5, 1.5, 2.5]
    expected = table(crs=crs).geometry.normalize()  # whichever way round its ring goes
    assert found.geometry.normalize().geom_equals_exact(expected, 1e-6).all()


def test_the_types_of_a_geopackage_s_columns_are_kept(tmp_path: Path) -> None:
    given = table().assign(yes=[True, False, True], n=[1, 2, 3], day=["2019-06-01", None, "x"])
    given.loc[1, "geometry"] = None
    found = read_vector(write(tmp_path / "a.gpkg", given), "regions")
    assert found["yes"].tolist() == [True, False, True] and found["n"].tolist() == [1, 2, 3]
    assert found["day"].isna().tolist() == [False, True, False]
    assert found.geometry.isna().tolist() == [False, True, False]
    assert "fid" not in found.columns


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("is_remote", [False, True])
def test_a_vrt_in_disguise_opens_nothing(
    tmp_path: Path, network: tuple[str, list[str]], reader: str, is_remote: bool
) -> None:
    url, asked = network
    secret = write(tmp_path / "secret.gpkg", table())
    source = f"/vsicurl/{url}/a.geojson" if is_remote else str(secret)
    text = (
        '<OGRVRTDataSource><OGRVRTLayer name="secret">'
        f"<SrcDataSource>{source}</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>"
    )
    contents = {
        "plain": text.encode(), "mark": text.encode("utf-8-sig"), "utf16": text.encode("utf-16"),
        "blanks": b"\n\n  " + text.encode(), "gzip": gzip.compress(text.encode()),
        "prolog": b'<?xml version="1.0"?><!--' + b"x" * 9000 + b"-->" + text.encode(),
    }  # fmt: skip
    for suffix in DISGUISES:
        for kind, content in contents.items():
            path = tmp_path / f"{kind}.{suffix}"
            path.write_bytes(content)
            with pytest.raises(EcofmError, match=r"VRT, which refers|XML|gzip"):
                READERS[reader](path)
    assert asked == []


@pytest.mark.parametrize(
    ("crs", "sentence"),
    [
        ({"type": "link", "properties": {"href": "{url}/crs", "type": "proj4"}}, "not followed"),
        ({"type": "name", "properties": {"name": "{url}/crs"}}, "not followed"),
        ({"type": "name", "properties": {"name": "+init=/etc/passwd:x"}}, "not followed"),
        ({"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::99999"}}, "cannot be read"),
        ({"type": "name"}, "cannot be read as polygons"),
        ("EPSG:4326", "cannot be read as polygons"),
        (None, "has no CRS"),
    ],
)  # fmt: skip
def test_a_crs_of_geojson_is_a_name_and_never_a_link(
    tmp_path: Path, network: tuple[str, list[str]], crs: Any, sentence: str
) -> None:
    url, asked = network
    given = json.loads(json.dumps(crs).replace("{url}", url))
    with pytest.raises(EcofmError, match=sentence):
        read_area(str(geojson(tmp_path / "a.geojson", square(), crs=given)))
    assert asked == []


@pytest.mark.parametrize(
    "name",
    ["urn:ogc:def:crs:OGC:1.3:CRS84", "urn:ogc:def:crs:EPSG::4326", "EPSG:4326",
     "http://www.opengis.net/def/crs/EPSG/0/4326"],
)  # fmt: skip
def test_names_of_crs_in_geojson_are_understood(tmp_path: Path, name: str) -> None:
    crs = {"type": "name", "properties": {"name": name}}
    area = read_area(str(geojson(tmp_path / "a.json", square(), crs=crs)))
    assert area.shape.bounds == (126, 37, 127, 38)


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ({"type": "gdal_streamed_alg", "command_line": "gdal vector read x"}, "gdal_streamed_alg"),
        ({"type": "Topology", "arcs": []}, "its type is 'Topology'"),
        ({"geometryType": "esriGeometryPolygon", "features": []}, "it has no type"),
        ({"type": "FeatureCollection", "features": 3}, "no list of features"),
        ({"type": "FeatureCollection", "features": [1]}, "no list of features"),
        ({"type": "FeatureCollection", "features": []}, "holds no polygon"),
        ({"type": "Polygon"}, "not as such a file has them"),
        (square((127, "x")), "cannot be read as polygons"),
        (square(None), "not as such a file has them"),
        (square((1e300, 37)), "corner at 1e\\+300, 37, expected degrees"),
        (square((350000, 4100000)), "corner at 350000, 4.1e\\+06, expected degrees"),
    ],
)  # fmt: skip
def test_json_that_is_no_geojson_is_refused(tmp_path: Path, found: Any, sentence: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps(found))
    with pytest.raises(EcofmError, match=sentence):
        read_area(str(tmp_path / "a.json"))


def test_numbers_that_are_none_and_nesting_without_end_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    for number, sentence in (("1e999", "no numbers"), ("NaN", "cannot be read")):
        path.write_text(json.dumps(square((7, 37))).replace("[7,", f"[{number},"))
        with pytest.raises(EcofmError, match=sentence):
            read_area(str(path))
    for text in ("[" * 200_000, '{"type":"GeometryCollection","geometries":[' * 5000):
        path.write_text('{"type":"FeatureCollection","features":' + text)
        with pytest.raises(EcofmError, match="nested too deep"):
            read_area(str(path))


def test_corners_with_and_without_a_height_are_one_outline(tmp_path: Path) -> None:
    area = read_area(str(geojson(tmp_path / "a.geojson", square((127, 37, 5)), bbox=[])))
    assert area.shape.bounds == (126, 37, 127, 38)


@settings(max_examples=50, deadline=None)
@given(st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=3) | st.sampled_from(
        ["Feature", "FeatureCollection", "Polygon", "GeometryCollection", "name"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["type", "features", "geometry", "coordinates", "geometries", "crs",
                         "properties", "id"]), inner, max_size=5),
))  # fmt: skip
def test_any_json_is_a_table_or_a_sentence(tmp_path_factory: Any, found: Any) -> None:
    path = tmp_path_factory.mktemp("any") / "a.json"
    path.write_text(json.dumps(found))
    try:
        assert isinstance(read_vector(path, "regions"), gpd.GeoDataFrame)
    except EcofmError as error:
        assert "\n" not in str(error)


ENDLESS = (
    "CREATE VIEW a AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) "
    "SELECT x AS fid, NULL AS geom, 'r' AS region FROM c ORDER BY x"
)


@pytest.mark.parametrize(
    ("statements", "sentence"),
    [
        (("ALTER TABLE a RENAME TO b", ENDLESS), "a view and no table"),
        (("DROP TABLE a", "CREATE VIRTUAL TABLE a USING fts5(geom, region)"), "a view and no"),
        (("DELETE FROM gpkg_contents",), "has no layer with shapes"),
        (("DROP TABLE gpkg_contents",), "SQLite database and no GeoPackage"),
        (("UPDATE a SET geom = x'00'",), "a shape is damaged"),
        (("UPDATE a SET geom = 'text'",), "a shape is damaged"),
        (("UPDATE gpkg_geometry_columns SET srs_id = -1",), "has no CRS"),
    ],
)  # fmt: skip
def test_what_a_geopackage_would_compute_is_not_read(
    tmp_path: Path, statements: tuple[str, ...], sentence: str
) -> None:
    path = edit(write(tmp_path / "a.gpkg", table()), "PRAGMA legacy_alter_table = ON", *statements)
    with pytest.raises(EcofmError, match=sentence):
        read_area(str(path))


def test_a_count_that_a_geopackage_invents_costs_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gpkg", table())
    edit(path, "UPDATE gpkg_ogr_contents SET feature_count = 1000000000000")
    assert len(read_vector(path, "regions")) == 3


def test_changes_that_are_not_in_the_database_yet_are_read(tmp_path: Path) -> None:
    path = edit(write(tmp_path / "a.gpkg", table()), "PRAGMA user_version = 10300")
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("UPDATE a SET region = 'new'")
    database.commit()
    assert set(read_vector(path, "regions")["region"]) == {"new"}
    database.close()


def test_a_datum_shift_by_a_file_elsewhere_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gpkg", table())
    system = (
        'GEOGCRS["x",DATUM["y",ELLIPSOID["WGS 84",6378137,298.257223563]],CS[ellipsoidal,2],'
        'AXIS["latitude",north],AXIS["longitude",east],ANGLEUNIT["degree",0.0174532925199433]]'
    )
    bound = (
        f'BOUNDCRS[SOURCECRS[{system}],TARGETCRS[{system}],ABRIDGEDTRANSFORMATION["t",'
        'METHOD["NTv2",ID["EPSG",9615]],'
        'PARAMETERFILE["Latitude and longitude difference file","/tmp/grid.gsb"]]]'
    )
    edit(
        path,
        f"INSERT INTO gpkg_spatial_ref_sys VALUES ('x', 77777, 'NONE', 77777, '{bound}', '')",
        "UPDATE gpkg_geometry_columns SET srs_id = 77777",
    )
    with pytest.raises(EcofmError, match="a CRS that names another file"):
        read_area(str(path))


@pytest.mark.parametrize("name", ["a.gpkg", "a.fgb", "a.shp", "a.geojson", "a.parquet"])
@pytest.mark.parametrize("share", [0.03, 0.3, 0.9, 0.99])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, name: str, share: float) -> None:
    path = write(tmp_path / name, table(100))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(EcofmError, match=r"cannot be read as regions|no shapes"):
        read_vector(path, "regions")


@pytest.mark.parametrize("kind", ["a named pipe", "a device", "a socket", "a folder"])
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_is_never_opened(tmp_path: Path, reader: str, kind: str) -> None:
    path = tmp_path / "a.gpkg"
    if kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    elif kind == "a folder":
        path.mkdir()
    held = socket.socket(socket.AF_UNIX)
    if kind == "a socket":
        held.bind(os.path.relpath(path))
    with held, pytest.raises(EcofmError, match=f"it is {kind}, expected a file"):
        READERS[reader](path)


@pytest.mark.parametrize("suffix", ["shx", "dbf", "prj", "cpg"])
def test_the_files_beside_a_shapefile_are_files_of_its_folder(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / "elsewhere.shp", table())
    (folder := tmp_path / "here").mkdir()
    path = write(folder / "a.shp", table())
    beside = path.with_suffix(f".{suffix}")
    beside.unlink()
    os.mkfifo(beside)
    with pytest.raises(EcofmError, match=rf"a\.{suffix} beside it, which is a named pipe"):
        read_vector(path, "regions")
    beside.unlink()
    beside.symlink_to(tmp_path / f"elsewhere.{suffix}")
    with pytest.raises(EcofmError, match=rf"a\.{suffix} beside it, which is a link"):
        read_vector(path, "regions")


def test_a_shapefile_of_links_to_one_folder_and_of_capitals_is_read(tmp_path: Path) -> None:
    write(tmp_path / "a.shp", table())
    for suffix in ("shp", "shx", "dbf", "prj", "cpg"):
        (tmp_path / f"b.{suffix}").symlink_to(tmp_path / f"a.{suffix}")
        shutil.copy(tmp_path / f"a.{suffix}", tmp_path / f"C.{suffix.upper()}")
    for name in ("b.shp", "C.SHP"):
        found = read_vector(tmp_path / name, "regions")
        assert found.crs == "EPSG:4326" and found["region"].tolist() == ["r0", "r1", "r2"]
    (tmp_path / "a.dbf").unlink()
    with pytest.raises(EcofmError, match="has no dbf file of its name beside it"):
        read_vector(tmp_path / "a.shp", "regions")


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_what_lies_beside_a_geopackage_is_a_file(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / "a.gpkg", table())
    os.mkfifo(tmp_path / f"a.gpkg{suffix}")
    with pytest.raises(EcofmError, match="beside it, which is no file"):
        read_vector(path, "regions")


def test_an_outline_that_is_all_crossings_is_refused_at_once(tmp_path: Path) -> None:
    corners = np.random.default_rng(0).uniform(37, 38, (2000, 2)).tolist()
    shape = {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}
    with pytest.raises(EcofmError, match="crosses itself at more than 1000 places"):
        read_area(str(geojson(tmp_path / "a.geojson", shape)))
    bow = {"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]]]}
    assert read_area(str(geojson(tmp_path / "b.geojson", bow))).shape.area == pytest.approx(0.5)


def test_an_outline_of_many_corners_is_read(tmp_path: Path) -> None:
    circle = Point(127, 37).buffer(0.5, 50_000)
    frame = gpd.GeoDataFrame({"region": ["a"]}, geometry=[circle], crs=4326)
    area = read_area(str(write(tmp_path / "a.gpkg", frame)))
    assert area.shape.area == pytest.approx(circle.area)


@pytest.mark.parametrize(
    "text", ["/vsicurl/{url}/a.json", "{url}/a.json", "WFS:{url}", "PG:host={url}"]
)
def test_urls_and_connections_are_no_files(network: tuple[str, list[str]], text: str) -> None:
    url, asked = network
    given = text.replace("{url}", url)
    with pytest.raises(EcofmError, match="expected west,south,east,north"):
        read_area(given)
    with pytest.raises(EcofmError, match="cannot be read as regions"):
        read_regions(Path(given))
    assert asked == []
