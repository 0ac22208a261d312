"""The 180th meridian and the poles: outlines are cut, and keep their area, middle and edges."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from affine import Affine
from hypothesis import example, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Geod, Transformer
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box

from ecofm.grid import Grid, outline_of
from ecofm.meridian import (
    bounding_box,
    close,
    close_ring,
    cut,
    cut_all,
    find_leap,
    join,
    middles,
)

SIDES_M = {"utm:2560": 2560, "utm:1280": 1280}


def geodesic_area_m2(outline: shapely.Geometry) -> float:
    area, _ = Geod(ellps="WGS84").geometry_area_perimeter(outline)
    return float(abs(area))


def cells_at(name: str, longitude: float, latitude: float) -> list[Polygon | MultiPolygon]:
    """Return the outlines of the cells that 200 m about a place touch."""
    wide = 1e-3 / max(np.cos(np.radians(latitude)), 0.05)
    place = Affine(2 * wide / 20, 0, longitude - wide, 0, -1e-4, latitude + 1e-3)
    return [cell.polygon() for cell in Grid(name).cells(GeoBox((20, 20), place, "EPSG:4326"))]


@given(
    longitude=st.one_of(st.floats(-180, 180), st.floats(179.9, 180.1)),
    latitude=st.floats(-79.9, 83.9),
    name=st.sampled_from(["utm:2560", "utm:1280", "xyz:14"]),
)
@settings(max_examples=80)
@example(longitude=180.0, latitude=-16.8, name="utm:2560")  # Taveuni
@example(longitude=-179.999, latitude=-16.8, name="utm:1280")
@example(longitude=180.0, latitude=83.9, name="utm:2560")
@example(longitude=180.0, latitude=-79.9, name="utm:2560")
@example(longitude=180.0, latitude=0.0, name="utm:2560")
@example(longitude=180.0, latitude=-16.8, name="xyz:14")
def test_each_outline_is_valid_within_the_world_and_as_large_as_its_cell(
    longitude: float, latitude: float, name: str
) -> None:
    outlines = cells_at(name, longitude, latitude)
    assert outlines or "utm" in name
    for outline in outlines:
        assert outline.is_valid and outline.geom_type in ("Polygon", "MultiPolygon")
        west, south, east, north = outline.bounds
        assert -180 <= west < east <= 180 and -90 <= south < north <= 90
        whole = join(outline)
        assert whole.geom_type == "Polygon" and whole.area == pytest.approx(outline.area)
        middle = middles(gpd.GeoSeries([outline], crs="EPSG:4326")).iloc[0]
        if name == "xyz:14":
            side = 2 * np.pi * 6378137 / 2**14
            scale = np.cos(np.radians(middle.y))
            expected, tolerance = (side * scale) ** 2, 0.02  # the sphere of web mercator
        else:
            expected, tolerance = SIDES_M[name] ** 2, 0.01
        assert geodesic_area_m2(outline) == pytest.approx(expected, rel=tolerance)
        equal_area = gpd.GeoSeries([outline], crs="EPSG:4326").to_crs("EPSG:6933").area.iloc[0]
        assert equal_area == pytest.approx(geodesic_area_m2(outline), rel=0.01)
        away = (middle.x - longitude + 180) % 360 - 180
        assert abs(away) < 0.3 and abs(middle.y - latitude) < 0.03, "beside the place it touches"


def test_a_cell_of_fiji_is_two_parts_and_its_neighbours_are_one() -> None:
    cell = Grid("utm:2560").cell("32701_3178_70")
    parts = cell.polygon()
    assert isinstance(parts, MultiPolygon) and len(parts.geoms) == 2
    assert sorted(round(p.bounds[0]) for p in parts.geoms) == [-180, 180]
    assert all(part.exterior.is_ccw for part in parts.geoms), "as RFC 7946 asks"
    assert isinstance(Grid("utm:2560").cell("32701_3178_71").polygon(), Polygon)


@pytest.mark.parametrize("name", ["xyz:1", "xyz:2", "xyz:14"])
def test_the_first_and_last_columns_of_web_mercator_end_at_the_meridian(name: str) -> None:
    last = 2 ** int(name[4:]) - 1
    for column, side in ((0, 0), (last, 2)):
        outline = Grid(name).cell(f"0_{column}").polygon()
        assert outline.geom_type == "Polygon" and outline.is_valid
        assert outline.bounds[side] == pytest.approx(-180 if side == 0 else 180, abs=1e-12)
        assert outline.bounds[2] - outline.bounds[0] == pytest.approx(360 / (last + 1))


longitudes = st.floats(-179, 179)


@given(longitudes, st.floats(-80, 80), st.floats(0.01, 100), st.floats(0.01, 9))
def test_cutting_and_joining_turn_back(
    west: float, south: float, width: float, height: float
) -> None:
    """Whichever turn the longitudes are written in, the cut shape is the same, and as large."""
    plain = box(west, south, west + width, south + height)
    found = cut(plain)
    assert found.is_valid and found.area == pytest.approx(plain.area)
    assert -180 <= found.bounds[0] and found.bounds[2] <= 180
    for turn in (-360, 360):
        turned = box(west + turn, south, west + turn + width, south + height)
        assert cut(turned).symmetric_difference(found).area == pytest.approx(0, abs=1e-6)
    whole = join(found)
    assert whole.geom_type == "Polygon" and whole.bounds[2] - whole.bounds[0] <= width + 1e-9
    west_, south_, east_, north_ = bounding_box(found)
    assert (west_ - west + 180) % 360 - 180 == pytest.approx(0, abs=1e-8)
    assert (east_ - west - width + 180) % 360 - 180 == pytest.approx(0, abs=1e-8)
    assert (south_, north_) == (south, south + height)


def test_lines_are_cut_without_new_ends_at_the_meridian() -> None:
    edge = cut(box(179, 0, 181, 1).boundary)
    assert edge.length == pytest.approx(6) and not edge.intersects(Point(180, 0.5))
    assert cut(LineString([(170, 0), (180, 0)])).length == 10


def test_what_only_touches_the_meridian_stays_whole() -> None:
    for outline in (box(179, 0, 180, 1), box(-180, 0, -179, 1), box(179, 0, 180 + 1e-12, 1)):
        assert cut(outline).geom_type == "Polygon" and cut(outline).area == pytest.approx(1)


@pytest.mark.parametrize(("epsg", "pole"), [(3413, 90), (3031, -90)])
def test_a_ring_round_a_pole_holds_it(epsg: int, pole: int) -> None:
    """A raster of 1,000 km about the pole, whose outline has no pole among its corners."""
    place = Affine(1000, 0, -500_000, 0, -1000, 500_000)
    outline = outline_of(GeoBox((1000, 1000), place, f"EPSG:{epsg}"))
    assert outline.is_valid and outline.covers(Point(20, pole)) and outline.covers(Point(180, pole))
    area = gpd.GeoSeries([outline], crs="EPSG:4326").to_crs("EPSG:6933").area.iloc[0]
    # Polar stereographic is enlarged by .97 at the pole to .98 at the raster's corners, squared.
    assert area == pytest.approx(1e12 / 0.955, rel=0.02 if epsg == 3031 else 0.12)


def test_the_outline_of_a_scene_of_zone_60_is_cut() -> None:
    x, y = Transformer.from_crs(4326, 32760, always_xy=True).transform(179.5, -16.5)
    scene = GeoBox((10980, 10980), Affine(10, 0, x, 0, -10, y), "EPSG:32760")
    outline = outline_of(scene)
    assert outline.geom_type == "MultiPolygon" and outline.is_valid
    assert geodesic_area_m2(outline) == pytest.approx(109_800**2, rel=0.01)
    west, _, east, _ = bounding_box(outline)
    assert west == pytest.approx(179.5, abs=0.05) and east == pytest.approx(-179.5, abs=0.1)


@pytest.mark.parametrize("west", [-180, 0])
def test_a_raster_of_the_whole_world_stays_that(west: int) -> None:
    world = outline_of(GeoBox((180, 360), Affine(1, 0, west, 0, -1, 90), "EPSG:4326"))
    assert world.bounds == (-180, -90, 180, 90) and world.area == pytest.approx(360 * 180)
    assert bounding_box(world) == [-180, -90, 180, 90]


def test_leaps_are_closed_the_short_way() -> None:
    naive = Polygon([(179, -17), (-179, -17), (-179, -16), (179, -16)])
    assert find_leap(naive) == (179, -179)
    closed = close(naive)
    assert closed.area == pytest.approx(2) and closed.covers(Point(180, -16.5))
    ring = Polygon(
        naive.exterior, [[(179.5, -16.6), (-179.5, -16.6), (-179.5, -16.4), (179.5, -16.4)]]
    )
    assert close(ring).area == pytest.approx(2 - 0.2) and not close(ring).intersects(
        Point(180, -16.5)
    )
    for plain in (box(-180, -90, 180, 90), box(-90, 0, 90, 1), box(170, 0, 190, 1)):
        assert find_leap(plain) is None
    assert close_ring(np.array([0.0, 90, 180, -90]), np.full(4, 80.0)).covers(Point(45, 89.9))


def test_middles_of_outlines_and_of_none() -> None:
    outlines = gpd.GeoSeries([cut(box(179, 0, 183, 2)), None, box(0, 0, 2, 2)], index=[5, 7, 9])
    found = middles(outlines)
    assert found.index.tolist() == [5, 7, 9] and found.loc[7] is None
    assert found.loc[5].coords[0] == (-179, 1) and found.loc[9].coords[0] == (1, 1)


def test_outlines_of_earlier_versions_are_cut_as_they_are_read(tmp_path: Path) -> None:
    """They had longitudes above 180; the manifest's hash still fits, for the file is as it was."""
    old = [box(179.99, -17, 180.01, -16.98), box(127, 39, 127.02, 39.02)]
    table = gpd.GeoDataFrame({"cell_id": ["a", "b"]}, geometry=old, crs="EPSG:4326")
    found = cut_all(table)
    assert found.geometry.iloc[0].geom_type == "MultiPolygon" and found.geometry.iloc[1] is old[1]
    assert found.total_bounds[0] == -180 and found.total_bounds[2] == 180
    assert table.total_bounds[2] == 180.01, "the given table is as it was"
    found.to_parquet(tmp_path / "a.parquet")
    told = json.loads(pq.read_schema(tmp_path / "a.parquet").metadata[b"geo"])
    assert told["columns"]["geometry"]["bbox"] == [-180, -17, 180, 39.02]
    assert sorted(told["columns"]["geometry"]["geometry_types"]) == ["MultiPolygon", "Polygon"]
    chips = gpd.GeoDataFrame({"cell_id": ["a"]}, geometry=[None], crs="EPSG:4326")
    assert cut_all(chips) is chips
