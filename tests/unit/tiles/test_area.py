"""Areas at the 180th meridian and round the poles, however people write them."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox
from shapely.geometry import MultiPolygon, Point, Polygon, box

from ecofm.errors import EcofmError
from ecofm.grid import Grid
from ecofm.tiles.area import Area, read_area

TAVEUNI = box(179.8, -17.1, 180.2, -16.6)
SPLIT = MultiPolygon([box(179.8, -17.1, 180, -16.6), box(-180, -17.1, -179.8, -16.6)])


def write(folder: Path, shape: object, crs: int | str = 4326) -> str:
    path = folder / "area.gpkg"
    gpd.GeoDataFrame(geometry=[shape], crs=crs).to_file(path)
    return str(path)


def touched(area: Area) -> set[str]:
    """Return the cells of utm:2560 about Taveuni that an area touches."""
    about = GeoBox((1250, 1750), Affine(8e-4, 0, 179.3, 0, -8e-4, -16.3), "EPSG:4326")
    cells = list(Grid("utm:2560").cells(about))
    return {cell.cell_id for cell, yes in zip(cells, area.touches(cells), strict=True) if yes}


@pytest.mark.parametrize(
    "text",
    [
        "179.8,-17.1,180.2,-16.6",
        "179.8,-17.1,-179.8,-16.6",
        "-180.2,-17.1,-179.8,-16.6",
    ],
)
def test_four_numbers_across_the_meridian(text: str) -> None:
    area = read_area(text)
    assert area.shape.equals_exact(SPLIT, 1e-9, normalize=True)
    assert area.hull().equals_exact(SPLIT, 1e-9, normalize=True), "not the whole world"
    cells = touched(area)
    assert {cell_id[:5] for cell_id in cells} == {"32760", "32701"} and len(cells) > 300


@pytest.mark.parametrize(
    "text",
    [
        "3,2,1,4", "0,0,nan,1", "0,0,inf,1", "0,0,400,1", "-400,0,-380,1", "179,-17,-179,-18",
        "0,0,0,1",
    ],
)  # fmt: skip
def test_four_numbers_that_are_no_box(text: str) -> None:
    with pytest.raises(EcofmError, match="west below east"):
        read_area(text)


def test_files_with_either_longitudes_or_another_crs_are_the_same_area(tmp_path: Path) -> None:
    expected = touched(read_area("179.8,-17.1,180.2,-16.6"))
    whole = gpd.GeoSeries([TAVEUNI], crs=4326)
    for shape, crs in (
        (TAVEUNI, 4326),
        (SPLIT, 4326),
        (box(-180.2, -17.1, -179.8, -16.6), 4326),
        (whole.segmentize(0.01).to_crs(3460).iloc[0], 3460),  # Fiji Map Grid
        (whole.segmentize(0.01).to_crs(3832).iloc[0], 3832),  # web mercator about 150 east
        (whole.segmentize(0.01).to_crs(32760).iloc[0], 32760),
    ):
        area = read_area(write(tmp_path, shape, crs))
        assert -180 <= area.shape.bounds[0] and area.shape.bounds[2] <= 180
        assert area.shape.area == pytest.approx(SPLIT.area, rel=1e-3)
        assert len(touched(area) ^ expected) <= 4, (crs, "but for cells at the very edge")


def test_parts_on_either_side_stay_apart_and_their_hull_is_the_short_one(tmp_path: Path) -> None:
    islands = MultiPolygon([box(170, 50, 172, 52), box(-172, 51, -170, 53)])
    area = read_area(write(tmp_path, islands))
    assert area.shape.equals(islands)
    assert area.hull().area < 20 * 3 and area.hull().intersects(Point(180, 51.5))


def test_an_edge_that_may_go_either_way_is_refused(tmp_path: Path) -> None:
    naive = Polygon([(179, -17), (-179, -17), (-179, -16), (179, -16)])
    with pytest.raises(EcofmError, match=r"edge from longitude 179 to -179.*cut the polygon"):
        read_area(write(tmp_path, naive))
    world = read_area(write(tmp_path, box(-180, -90, 180, 90)))
    assert world.shape.area == 360 * 180


@pytest.mark.parametrize(("crs", "latitude"), [(3413, 85), (3031, -85)])
def test_an_area_round_a_pole_holds_it(tmp_path: Path, crs: int, latitude: int) -> None:
    area = read_area(write(tmp_path, Point(0, 0).buffer(1_500_000, 2), crs))
    for longitude in np.arange(-180, 181, 30):
        assert area.shape.covers(Point(longitude, latitude)), longitude
        assert not area.shape.covers(Point(longitude, np.sign(latitude) * 70))
