"""Grids: ids of the reference study, and each place in one cell whichever scene finds it."""

from __future__ import annotations

import csv
import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from shapely.geometry import Point

from ecofm.errors import SceneError
from ecofm.grid import Grid
from ecofm.meridian import join

DATA = Path(os.environ.get("ECOFM_DATA", Path(__file__).parents[3] / "shared" / "data"))
longitudes = st.floats(-180, 179.999)
utm_latitudes = st.floats(-79.9, 83.9)


def footprint_at(
    longitude: float, latitude: float, epsg: int = 4326, side_px: int = 1, pixel_m: float = 10
) -> GeoBox:
    """Return a raster of a few pixels centred on a place, in any CRS."""
    x, y = Transformer.from_crs(4326, epsg, always_xy=True).transform(longitude, latitude)
    pixel = pixel_m / 111_320 if epsg == 4326 else pixel_m
    half = side_px * pixel / 2
    return GeoBox(
        (side_px, side_px), Affine(pixel, 0, x - half, 0, -pixel, y + half), f"EPSG:{epsg}"
    )


def home_epsg(longitude: float, latitude: float) -> int:
    return (32600 if latitude >= 0 else 32700) + int((longitude + 180) // 6) + 1


def area_m2(geobox: GeoBox) -> float:
    """Return a cell's area on the ground, by an equal-area projection centred on it."""
    corners = np.array([(0, 0), (0, 1), (1, 1), (1, 0)]) * [geobox.width, geobox.height]
    x = geobox.affine.a * corners[:, 0] + geobox.affine.c
    y = geobox.affine.e * corners[:, 1] + geobox.affine.f
    lon, lat = Transformer.from_crs(str(geobox.crs), 4326, always_xy=True).transform(x, y)
    lon = lon[0] + (np.asarray(lon) - lon[0] + 180) % 360 - 180
    local = f"+proj=laea +lat_0={np.mean(lat)} +lon_0={np.mean(lon)} +ellps=WGS84"
    x, y = Transformer.from_crs(4326, local, always_xy=True).transform(lon, lat)
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)


def test_kosan_lies_in_north_korea() -> None:
    cell = Grid("xyz:14").cell("6259_13990")
    west, south, east, north = cell.polygon().bounds
    # OpenStreetMap's slippy map formulas at z=14, x=13990, y=6259.
    np.testing.assert_allclose([west, east], [127.397461, 127.419434], atol=1e-6)
    np.testing.assert_allclose(
        north, np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * 6259 / 2**14)))), atol=1e-6
    )
    assert 124 < west < 131 and 37.5 < south < north < 43.1
    assert cell.geobox.shape == (256, 256)
    with pytest.raises(ValueError):
        Grid("xyz:12").cell("6259_13990")


def test_ids_are_those_of_the_reference_study() -> None:
    table = DATA / "nk_tables" / "tiles.csv.gz"
    if not table.exists():
        pytest.skip(f"no reference tables at {table}")
    with gzip.open(table, "rt") as file:
        rows = list(csv.DictReader(file))[::500]
    for row in rows:
        place = Grid("xyz:14").cell(row["y_x"]).polygon().centroid
        assert 124 < place.x < 131 and 37.5 < place.y < 43.1, row["y_x"]
        found = Grid("xyz:14").cells(footprint_at(place.x, place.y))
        assert [cell.cell_id for cell in found] == [row["y_x"]]


@given(longitudes, utm_latitudes, st.sampled_from(["utm:2560", "utm:1280", "xyz:14"]))
@settings(max_examples=60)
@example(179.9999, -16.5, "xyz:14")
@example(-179.9999, -16.5, "xyz:14")
@example(0.00001, 51.0, "xyz:14")
@example(-180.0 + 1e-8, 0.0, "xyz:14")
def test_every_place_is_in_exactly_one_cell(longitude: float, latitude: float, name: str) -> None:
    """Away from the borders of zones, along which grids meet at an angle.

    The last column of xyz reaches 30 micrometres over the 180th meridian, for the grid's origin is
    rounded, and outlines are cut there: a place in that strip, or on the meridian, is left out.
    """
    assume(not -180 <= longitude < -180 + 3e-10)
    if name != "xyz:14":
        to_border = abs((longitude + 180) % 6 - 3)
        half_cell = 0.02 / np.cos(np.radians(latitude))
        assume(to_border < 3 - half_cell and abs(latitude) > 0.02)
    cells = [
        cell
        for cell in Grid(name).cells(footprint_at(longitude, latitude, side_px=3))
        if join(cell.polygon()).contains(Point(longitude, latitude))
        or join(cell.polygon()).contains(Point(longitude + 360, latitude))
    ]
    assert len(cells) == 1
    assert Grid(name).cell(cells[0].cell_id).geobox == cells[0].geobox


@given(longitudes, utm_latitudes)
@settings(max_examples=40)
@example(131.9999, 39.0)
@example(132.0001, 39.0)
@example(179.9999, -16.5)
@example(127.4, 0.001)
@example(127.4, -0.001)
def test_a_utm_cell_exists_only_where_its_centre_is(longitude: float, latitude: float) -> None:
    for cell in Grid("utm:2560").cells(footprint_at(longitude, latitude, side_px=40, pixel_m=50)):
        centre = join(cell.polygon()).centroid
        at = (centre.x + 180) % 360 - 180
        assert cell.cell_id.startswith(f"{home_epsg(at, centre.y)}_")
        assert str(cell.geobox.crs) == f"EPSG:{home_epsg(at, centre.y)}"


@given(longitudes, st.floats(-75, 80), st.sampled_from(["utm:1280", "xyz:14"]))
@settings(max_examples=30)
@example(131.999, 39.0, "utm:1280")
@example(179.9999, 60.0, "utm:1280")
@example(-180.0, 0.0, "xyz:14")  # found a cell of 6 degrees east in the scene of zone 1
@example(-180.0, 1e-300, "xyz:14")
@example(127.4, 0.0, "utm:1280")
@example(127.4, -0.001, "utm:1280")
def test_ids_do_not_depend_on_the_scene_that_finds_them(
    longitude: float, latitude: float, name: str
) -> None:
    """Scenes of one place in three CRS agree on the cells that they all hold well inside."""
    own = home_epsg(longitude, latitude)
    polar = 3413 if latitude > 0 else 3031
    found = [
        {
            cell.cell_id
            for cell in Grid(name).cells(footprint_at(longitude, latitude, epsg, 30, 60))
            if cell.cell_id in small
        }
        for small in [
            {c.cell_id for c in Grid(name).cells(footprint_at(longitude, latitude, own, 4, 20))}
        ]
        for epsg in (own, 4326, polar)
    ]
    assert found[0] == found[1] == found[2]
    # The last cells of the south have their middle on the equator, which is the north's.
    on_a_seam = abs((longitude + 180) % 6 - 3) > 2.9 or -0.006 < latitude < 0
    assert found[0] or (on_a_seam and name != "xyz:14"), "only a seam has gaps"


@pytest.mark.parametrize("longitude", [-180.0, -178.0, 100.0, 129.0])
@pytest.mark.parametrize("latitude", [-0.004, 0.0, 0.004])
def test_a_scene_on_the_equator_touches_no_cell_of_the_far_side(
    longitude: float, latitude: float
) -> None:
    """Transverse Mercator tears cells there into pieces that span the Earth."""
    grid = Grid("xyz:14")
    zone = home_epsg(longitude, latitude)
    scene = footprint_at(longitude, latitude, zone, 30, 60)
    mirrored = (2 * (zone % 100 * 6 - 183) - longitude) % 360 - 180
    far = footprint_at(mirrored, latitude, 4326, 30, 60)
    there = np.concatenate(list(grid.keys(far)))
    here = np.concatenate(list(grid.keys(footprint_at(longitude, latitude, 4326, 10, 60))))
    assert len(there) and not grid.touched(there, scene).any()
    assert len(here) and grid.touched(here, scene).all()


def test_a_scene_in_web_mercator_touches_no_cell_that_is_cut_far_from_it() -> None:
    """A cell across the 180th meridian is one piece on the side of the scene."""
    grid = Grid("utm:1280")
    across = np.concatenate(list(grid.keys(footprint_at(179.9999, 60.0, 4326, 10, 60))))
    assert not grid.touched(across, footprint_at(20.0, 60.0, 3857, 30, 120)).any()
    ids = {c.cell_id for c in grid.cells(footprint_at(179.9999, 60.0, 3857, 10, 120))}
    assert ids == {c.cell_id for c in grid.cells(footprint_at(179.9999, 60.0, 32660, 10, 60))}


def test_a_seam_of_zones_is_covered_to_half_a_cell() -> None:
    """Points across 132 degrees east lie in one cell, or beside the border in two or none."""
    counts = []
    for longitude in np.linspace(131.96, 132.04, 81):
        cells = Grid("utm:1280").cells(footprint_at(longitude, 39.0, 4326, 200, 10))
        inside = [c for c in cells if c.polygon().contains(Point(longitude, 39.0))]
        counts.append(len(inside))
        if abs(longitude - 132) > 0.015:
            assert len(inside) == 1
    assert max(counts) <= 2


def test_a_footprint_beside_a_zone_finds_the_cells_that_reach_into_it() -> None:
    """The cell's centre lies over the border, the whole scene on this side."""
    reaching = [
        (cell, cell.polygon())
        for latitude in np.linspace(38, 40, 21)
        for cell in Grid("utm:2560").cells(footprint_at(132.0, latitude, 4326, 500, 10))
        if cell.cell_id.startswith("32653_") and cell.polygon().centroid.x - 132 < 0.005
    ]
    assert reaching
    for cell, outline in reaching:
        west = outline.centroid.x - 0.008
        assert west < 132
        found = Grid("utm:2560").cells(footprint_at(west, outline.centroid.y, 4326, 2, 10))
        assert cell.cell_id in {c.cell_id for c in found}


@given(longitudes, utm_latitudes)
@settings(max_examples=60)
def test_areas_of_utm_cells_agree_within_three_per_mille(longitude: float, latitude: float) -> None:
    for cell in Grid("utm:2560").cells(footprint_at(longitude, latitude)):
        assert abs(area_m2(cell.geobox) / 2560**2 - 1) < 0.003


def test_an_aligned_footprint_touches_its_own_cells_only() -> None:
    for name, cell_id in (("utm:1280", "32652_3375_250"), ("xyz:14", "6259_13990")):
        cell = Grid(name).cell(cell_id)
        assert [c.cell_id for c in Grid(name).cells(cell.geobox)] == [cell_id]


def test_a_big_scene_touches_as_many_cells_as_its_area_holds() -> None:
    """A granule of Sentinel-2, found in parts: none missing and none twice."""
    granule = GeoBox((10980, 10980), Affine(10, 0, 399960, 0, -10, 4400040), "EPSG:32652")
    ids = [cell.cell_id for cell in Grid("utm:1280").cells(granule)]
    assert len(ids) == len(set(ids))
    columns = range(399960 // 1280, (399960 + 109800 - 1) // 1280 + 1)
    rows = range((4400040 - 109800) // 1280, (4400040 - 1) // 1280 + 1)
    assert set(ids) == {f"32652_{row}_{column}" for row in rows for column in columns}


def test_the_southern_hemisphere_has_its_own_zones() -> None:
    (cell,) = Grid("utm:2560").cells(footprint_at(-68.15, -16.5))
    assert cell.cell_id.startswith("32719_")
    assert cell.polygon().contains(Point(-68.15, -16.5))
    # A northern scene that reaches south, as EPSG:326xx with negative northings.
    south = GeoBox(
        (10, 10), Affine(10, 0, 500000, 0, -10, -300000), "EPSG:32719".replace("27", "26")
    )
    assert all(c.cell_id.startswith("32719_") for c in Grid("utm:2560").cells(south))


@pytest.mark.parametrize("name", ["utm:2560", "xyz:14"])
def test_the_180th_meridian_does_not_span_the_world(name: str) -> None:
    """A scene of zone 60 that crosses it, and longitudes above 180."""
    x, y = Transformer.from_crs(4326, 32760, always_xy=True).transform(179.99, -16.5)
    utm = GeoBox((512, 512), Affine(10, 0, x - 2560, 0, -10, y + 2560), "EPSG:32760")
    lonlat = GeoBox((512, 512), Affine(1e-4, 0, 179.98, 0, -1e-4, -16.48), "EPSG:4326")
    for footprint in (utm, lonlat):
        cells = list(Grid(name).cells(footprint))
        assert 4 <= len(cells) <= 36
        for cell in cells:
            west, _, east, _ = join(cell.polygon()).bounds
            assert east - west < 0.1 and abs(abs(west) - 180) < 0.2
            west, _, east, _ = cell.polygon().bounds
            assert -180 <= west and east <= 180


@pytest.mark.parametrize(
    ("name", "latitude"), [("utm:2560", 85.0), ("utm:2560", -81.0), ("xyz:14", -86.0)]
)
def test_latitudes_outside_the_grid_are_rejected(name: str, latitude: float) -> None:
    for epsg in (4326, 3413 if latitude > 0 else 3031):
        with pytest.raises(SceneError, match="lies outside grid"):
            list(Grid(name).cells(footprint_at(20.0, latitude, epsg, 10)))


def test_a_scene_that_covers_the_pole_gives_cells_up_to_the_border() -> None:
    polar = GeoBox((1500, 1500), Affine(1000, 0, -750_000, 0, -1000, 750_000), "EPSG:3413")
    with pytest.raises(SceneError, match="far coarser"):
        list(Grid("utm:81920").cells(polar))
    fine = GeoBox((15000, 15000), Affine(95, 0, -712_500, 0, -95, 712_500), "EPSG:3413")
    latitudes = [cell.polygon().centroid.y for cell in Grid("utm:81920").cells(fine)]
    assert latitudes and max(latitudes) <= 84


def test_coordinates_that_lead_nowhere_are_rejected() -> None:
    lost = GeoBox((10, 10), Affine(10, 0, 1e12, 0, -10, 1e12), "EPSG:32652")
    with pytest.raises(SceneError):
        list(Grid("utm:2560").cells(lost))
    with pytest.raises(SceneError):
        list(Grid("xyz:14").cells(GeoBox((10, 10), Affine(1, 0, 500, 0, -1, 500), "EPSG:4326")))
    with pytest.raises(SceneError, match="lies outside grid"):
        lost = GeoBox((10, 10), Affine(1e-4, 0, 720, 0, -1e-4, 45), "EPSG:4326")
        list(Grid("xyz:14").cells(lost))


def test_pixels_far_coarser_than_the_grid_are_rejected() -> None:
    with pytest.raises(SceneError, match="far coarser than grid utm:2560"):
        list(Grid("utm:2560").cells(footprint_at(127.0, 39.0, 4326, 50, 1000)))


@pytest.mark.parametrize(
    "name",
    [
        "", "utm", "utm:", "utm:100", "utm:0", "utm:02560", "utm:99999", "utm:-2560", "xyz:23",
        "xyz:0", "xyz:014", "XYZ:14", "xyz:14 ", "none:1", "wgs:84", "xyz:\uff11\uff14",
        "utm:2560.5",
    ],
)  # fmt: skip
def test_bad_names_of_grids_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="grid"):
        Grid(name)


@pytest.mark.parametrize(
    ("name", "cell_id"),
    [
        ("xyz:14", "16384_0"),
        ("xyz:14", "0_16384"),
        ("xyz:14", "-1_5"),
        ("xyz:14", "32652_6259_13990"),
        ("xyz:14", "6259_13990@2019"),
        ("xyz:14", "6259-13990"),
        ("xyz:14", "../6259_13990"),
        ("utm:2560", "6259_13990"),
        ("utm:2560", "32600_10_10"),
        ("utm:2560", "32661_10_10"),
        ("utm:2560", "32652_99999999_0"),
        ("utm:2560", "32652_1700_900"),
        ("utm:2560", "32752_3950_150"),
        ("none", "6259_13990"),
    ],
)
def test_ids_that_are_no_cell_are_refused(name: str, cell_id: str) -> None:
    with pytest.raises(ValueError, match="is no cell"):
        Grid(name).cell(cell_id)


def test_an_id_has_one_spelling() -> None:
    assert Grid("xyz:14").cell("06259_013990").cell_id == "6259_13990"


def test_the_smallest_zoom_has_four_cells() -> None:
    world = GeoBox((4096, 4096), Affine(9784, 0, -20037508, 0, -9784, 20037508), "EPSG:3857")
    assert {cell.cell_id for cell in Grid("xyz:1").cells(world)} == {"0_0", "0_1", "1_0", "1_1"}


def test_ground_resolution() -> None:
    assert Grid("utm:2560").gsd_m(60.0) == 10.0
    assert Grid("xyz:14").gsd_m(0.0) == pytest.approx(9.5546, abs=1e-3)
    assert Grid("xyz:14").gsd_m(39.0) == pytest.approx(7.425, abs=1e-2)


PIXELS_M = {"utm:80": 3, "utm:2560": 90, "xyz:1": 90, "xyz:22": 0.3}


@given(longitudes, utm_latitudes, st.sampled_from(list(PIXELS_M)))
@settings(max_examples=40, deadline=None)
def test_a_key_is_its_cell_and_sorts_as_it(longitude: float, latitude: float, name: str) -> None:
    grid, pixel_m = Grid(name), PIXELS_M[name]
    footprint = footprint_at(longitude, latitude, side_px=60, pixel_m=pixel_m)
    keys = np.concatenate(list(grid.keys(footprint)))
    ids = [grid.cell_at(key).cell_id for key in keys.tolist()]
    assert [grid.key(cell_id) for cell_id in ids] == keys.tolist()
    assert all(grid.cell(cell_id).cell_id == cell_id for cell_id in ids[:9])
    places = [tuple(map(int, cell_id.split("_"))) for cell_id in ids]
    assert sorted(places) == [places[n] for n in np.argsort(keys)]
    assert grid.touched(keys, footprint).all()
