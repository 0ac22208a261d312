"""Pictures: tiles lie where they belong, nothing is blank, and bad input is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from PIL import Image
from pyproj import Geod
from shapely.geometry import box

from ecofm.errors import EcofmError
from ecofm.grid import Grid
from ecofm.maps.pictures import (
    draw_change,
    draw_imagery,
    draw_scores,
    imagery_mosaic,
    place_cells,
    save_picture,
    shrink_tile,
)
from ecofm.types import Contract

CONTRACT = Contract(
    bands=("B02", "B03", "B04"),
    dtype="uint16",
    units="reflectance",
    scale=1e-4,
    offset=0,
    valid_range=(1, 10_000),
    gsd_m=10,
    mean=(1000, 1000, 1000),
    std=(100, 100, 100),
)


def make_archive(cell_ids: list[str], values: list[int], valid: bool = True) -> Any:
    """Return what the pictures read of an archive: tiles of 8 px, each of one value."""
    outlines = [box(127 + 0.1 * i, 39, 127.1 + 0.1 * i, 39.1) for i in range(len(cell_ids))]
    index = gpd.GeoDataFrame(
        {"cell_id": cell_ids, "period": "2019"}, geometry=outlines, crs="EPSG:4326"
    )

    def read(tile_index: int) -> tuple[np.ndarray, np.ndarray]:
        pixels = np.full((3, 8, 8), values[tile_index], dtype=np.uint16)
        return pixels, np.full((8, 8), valid)

    return SimpleNamespace(
        index=index, contract=CONTRACT, tile_px=(8, 8), n_tiles=len(cell_ids), read=read
    )


def make_scores() -> gpd.GeoDataFrame:
    outlines = [box(127 + 0.02 * (i % 10), 39 + i // 10 * 0.02, 127.02 + 0.02 * (i % 10),
                    39.02 + i // 10 * 0.02) for i in range(100)]  # fmt: skip
    columns = {"period": "2019", "score": np.linspace(-1, 1, 100)}
    columns |= {"change": np.linspace(-1, 1, 100), "q": np.abs(np.linspace(-1, 1, 100))}
    return gpd.GeoDataFrame(columns, geometry=outlines, crs="EPSG:4326")


def read_picture(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize(
    ("cell_ids", "corner"),
    [
        (["100_50", "101_50", "101_51"], (0, 0)),  # web-mercator rows count southward
        (["32652_101_50", "32652_100_50", "32652_100_51"], (0, 0)),  # UTM rows northward
        (["32652_-1_-3", "32652_-2_-3", "32652_-2_-2"], (0, 0)),
    ],
)
def test_tiles_lie_where_their_cells_do(cell_ids: list[str], corner: tuple[int, int]) -> None:
    archive = make_archive(cell_ids, [900, 1200, 1000])
    image = imagery_mosaic(archive, "2019", 16)
    assert image.shape == (16, 16, 4)
    assert image.dtype == np.uint8
    assert (image[:8, 8:, 3] == 0).all()
    north_west, south_west, south_east = image[0, 0, 0], image[12, 0, 0], image[12, 12, 0]
    assert north_west < south_east < south_west
    assert image[corner][3] == 255


def test_mosaic_stays_within_its_size() -> None:
    cell_ids = [f"{y}_{x}" for y in range(5) for x in range(9)]
    archive = make_archive(cell_ids, list(range(100, 145)))
    assert imagery_mosaic(archive, "2019", 4).shape == (2, 3, 4)
    assert imagery_mosaic(archive, "2019", 18).shape == (10, 18, 4)
    assert imagery_mosaic(archive, "2019", 10_000).shape == (40, 72, 4)


def test_mosaic_of_two_zones_shows_the_larger(capsys: pytest.CaptureFixture[str]) -> None:
    archive = make_archive(["32651_5_5", "32652_5_5", "32652_5_6"], [100, 200, 300])
    assert imagery_mosaic(archive, "2019", 16).shape == (8, 16, 4)
    assert "2 of 3 cells in zone 32652" in capsys.readouterr().err


def test_invalid_pixels_are_transparent_and_do_not_dim_the_others() -> None:
    archive = make_archive(["1_1", "1_2"], [100, 200], valid=False)
    assert (imagery_mosaic(archive, "2019", 16) == 0).all()
    pixels = np.stack([np.full((4, 4), 7.0)] * 3)
    pixels[:, :, ::2] = 9_999
    valid = np.ones((4, 4), bool)
    valid[:, ::2] = False
    mean, share = shrink_tile(pixels, valid, 2)
    assert (mean == 7).all()
    assert (share == 0.5).all()


@given(height=st.integers(3, 20), width=st.integers(3, 20), n_px=st.integers(1, 3))
def test_shrinking_keeps_the_range_and_a_constant(height: int, width: int, n_px: int) -> None:
    pixels = np.arange(3 * height * width).reshape(3, height, width)
    mean, share = shrink_tile(pixels, np.ones((height, width), bool), n_px)
    assert mean.shape == (3, n_px, n_px)
    assert (share == 1).all()
    assert mean.min() >= pixels.min()
    assert mean.max() <= pixels.max()
    constant, _ = shrink_tile(np.full_like(pixels, 5), np.ones((height, width), bool), n_px)
    assert (constant == 5).all()


def test_pictures_are_not_blank(tmp_path: Path) -> None:
    table = make_scores()
    archive = make_archive(["1_1", "1_2", "2_1"], [900, 1000, 1200])
    figures = {
        "scores": draw_scores(table, "2019", "Score", "Contains modified Copernicus data 2019"),
        "change": draw_change(table, "Change"),
        "none": draw_change(table.assign(q=1.0, change=0.0), "No change"),
        "constant": draw_scores(table.assign(score=1.0), "2019", "Constant"),
        "imagery": draw_imagery(archive, "2019"),
    }
    for name, figure in figures.items():
        picture = read_picture(save_picture(figure, tmp_path / f"{name}.png"))
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
    faded = read_picture(tmp_path / "none.png").std()
    assert read_picture(tmp_path / "change.png").std() > faded


def test_given_limits_make_periods_comparable(tmp_path: Path) -> None:
    table = make_scores()
    higher = table.assign(score=table["score"] + 10)
    one = save_picture(draw_scores(table, "2019", "t", limits=(-1, 1)), tmp_path / "1.png")
    two = save_picture(draw_scores(higher, "2019", "t", limits=(-1, 1)), tmp_path / "2.png")
    assert (read_picture(one) != read_picture(two)).any()


def test_wide_areas_are_drawn_too(tmp_path: Path) -> None:
    outlines = [box(-60, -30, -59, -29), box(100, 60, 101, 61)]
    table = gpd.GeoDataFrame(
        {"period": "2019", "score": [0.0, 1.0]}, geometry=outlines, crs="EPSG:4326"
    )
    path = save_picture(draw_scores(table, "2019", "World"), tmp_path / "world.png")
    assert path.stat().st_size > 5_000


def cells_about(longitude: float, latitude: float, grid: str = "utm:1280") -> gpd.GeoDataFrame:
    frame = f"+proj=laea +lat_0={latitude} +lon_0={longitude} +datum=WGS84"
    box_ = GeoBox((200, 200), Affine(50, 0, -5000, 0, -50, 5000), frame)
    outlines = [cell.polygon() for cell in Grid(grid).cells(box_)]
    values = np.linspace(0, 1, len(outlines))
    return gpd.GeoDataFrame(
        {"period": "2019", "score": values, "change": values, "q": 1.0},
        geometry=outlines,
        crs="EPSG:4326",
    )


@pytest.mark.parametrize(
    "place", [(180, -16.8), (-179.99, 68), (132, 39), (12, 0), (180, 0), (20, 83.95), (-66, -79.9)]
)
@pytest.mark.parametrize("grid", ["utm:1280", "xyz:14"])
def test_cells_of_several_zones_lie_beside_each_other(
    place: tuple[float, float], grid: str, tmp_path: Path
) -> None:
    """In km, each as large as on the ground, in a map not wider than they reach."""
    table = cells_about(*place, grid=grid)
    drawn = place_cells(table)
    west, south, east, north = drawn.total_bounds
    assert (west, south) == pytest.approx((0, 0)) and max(east, north) < 20
    areas = table.to_crs("EPSG:6933").area / 1e6
    np.testing.assert_allclose(drawn.area, areas, rtol=0.01)
    drawn_twice = shapely.union_all(drawn.geometry.to_numpy()).area / drawn.area.sum()
    assert drawn_twice > 0.8, "but for the seams of zones, no cell lies on another"
    for figure in (draw_scores(table, "2019", "Score"), draw_change(table, "Change")):
        (axes, *_) = figure.axes
        assert np.ptp(axes.get_xlim()) < 25
    save_picture(draw_scores(table, "2019", "Score"), tmp_path / "a.png")


@pytest.mark.parametrize(
    "spots",
    [
        [(178, -40), (-150, -17)],  # the Pacific
        [(longitude, 79) for longitude in range(-180, 180, 45)],  # round the pole
        [(10, 78), (33, 81)],
        [(-70, -20), (179, -17), (100, 60)],  # all over the Earth
    ],
)
def test_wide_maps_are_of_equal_area(spots: list[tuple[float, float]]) -> None:
    table = gpd.pd.concat([cells_about(*spot, "utm:5120") for spot in spots], ignore_index=True)
    drawn = place_cells(table)
    np.testing.assert_allclose(drawn.area, table.to_crs("EPSG:6933").area / 1e6, rtol=0.01)
    east, north = drawn.total_bounds[2:]
    apart = [Geod(ellps="WGS84").inv(*spots[0], *spot)[2] / 1e3 for spot in spots]
    assert np.hypot(east, north) > 0.9 * max(apart)
    if len(spots) != 3:
        assert max(east, north) < 1.2 * max(apart) + 20, "not round the other side of the Earth"


def test_web_mercators_columns_meet_at_the_180th_meridian() -> None:
    archive = make_archive(["8000_16383", "8000_0", "8001_0"], [2000, 1000, 100])
    archive.index = archive.index.set_geometry(
        gpd.GeoSeries(
            [Grid("xyz:14").cell(c).polygon() for c in archive.index["cell_id"]], crs=4326
        )
    )
    image = imagery_mosaic(archive, "2019", 16)
    assert image.shape == (16, 16, 4)
    assert image[0, 0, 0] > image[0, 12, 0] > image[12, 12, 0] and image[12, 0, 3] == 0


def test_bad_input_is_refused() -> None:
    table = make_scores()
    with pytest.raises(EcofmError, match="no period 2020, only 2019"):
        draw_scores(table, "2020", "Score")
    chips = table.set_geometry(gpd.GeoSeries([None] * 100, crs="EPSG:4326"))
    with pytest.raises(EcofmError, match="no map of chips"):
        draw_scores(chips, "2019", "Score")
    archive = make_archive(["1_1"], [5])
    with pytest.raises(EcofmError, match="no period 2020"):
        imagery_mosaic(archive, "2020", 16)
    with pytest.raises(EcofmError, match="no place on Earth"):
        imagery_mosaic(make_archive(["00/a.png"], [5]), "2019", 16)
