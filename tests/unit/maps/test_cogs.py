"""Maps: each cell is a pixel at its place, in any zone and period; one collection of all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import jsonschema_rs
import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.io import DatasetReader
from shapely.geometry import Point, box, shape

from ecofm.errors import EcofmError
from ecofm.grid import Grid
from ecofm.maps.cogs import write_maps
from ecofm.maps.stac import write_collection
from ecofm.meridian import cut

GRIDS = ("utm:1280", "utm:2560", "xyz:14")
SCHEMAS = Path(pystac.__file__).parent / "validation" / "jsonschemas"


def scores_of(grid: str, names: list[str], period: str = "2019") -> gpd.GeoDataFrame:
    values = np.arange(len(names), dtype=float) * 1.5 - 7
    columns = {"cell_id": names, "period": period, "score": values}
    columns |= {"lower": values - 1, "upper": values + 2}
    shapes = [Grid(grid).cell(name).polygon() for name in names]
    return gpd.GeoDataFrame(columns, geometry=shapes, crs="EPSG:4326")


def cells_near(grid: str, longitude: float, latitude: float, km: float = 12) -> list[str]:
    """Return the cells about a place, of whichever zones."""
    frame = f"+proj=laea +lat_0={latitude} +lon_0={longitude} +datum=WGS84"
    n_px = round(km * 20)
    place = Affine(50, 0, -km * 500, 0, -50, km * 500)
    return [cell.cell_id for cell in Grid(grid).cells(GeoBox((n_px, n_px), place, frame))]


def zone_of(cell_id: str) -> int:
    return int(cell_id.split("_")[0]) if cell_id.count("_") == 2 else 3857


def require_cog(raster: DatasetReader) -> None:
    """Check what makes a cloud-optimised GeoTIFF: layout, tiles, and overviews once it is large."""
    assert raster.driver == "GTiff"
    assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    assert raster.profile["tiled"] and raster.block_shapes[0] == (512, 512)
    assert bool(raster.overviews(1)) == (max(raster.shape) > 512)
    with open(raster.name, "rb") as file:
        assert b"LAYOUT=IFDS_BEFORE_DATA" in file.read(400)


def require_every_score(folder: Path, grid: str, table: gpd.GeoDataFrame) -> None:
    """Check that each pixel of the maps is one cell, exactly, and that none is lost or added."""
    zones = table["cell_id"].map(zone_of)
    n_shown = 0
    for path in folder.glob("*.tif"):
        with rasterio.open(path) as raster:
            require_cog(raster)
            assert raster.descriptions == ("score", "lower", "upper")
            assert np.isnan(raster.nodata) and raster.dtypes == ("float32",) * 3
            zone, period, values = raster.crs.to_epsg(), raster.tags()["period"], raster.read()
            side, _, west, _, _, north = list(raster.transform)[:6]
        assert path.stem.startswith(f"{period}_{zone}" if zones.nunique() > 1 else period)
        n_pixels = int(np.isfinite(values).all(axis=0).sum())
        n_shown += n_pixels
        for row in table[(zones == zone) & (table["period"] == period)].itertuples():
            left, bottom, right, top = Grid(grid).cell(row.cell_id).geobox.extent.boundingbox
            pixel_row, column = round((north - top) / side), round((left - west) / side)
            if not (0 <= pixel_row < values.shape[1] and 0 <= column < values.shape[2]):
                assert "-east" in path.stem or "-west" in path.stem
                continue
            n_pixels -= 1
            found = west + column * side, north - pixel_row * side, side
            assert found == pytest.approx((left, top, right - left), rel=1e-9, abs=1e-3)
            assert top - bottom == pytest.approx(side)
            expected = [row.score, row.lower, row.upper]
            assert values[:, pixel_row, column] == pytest.approx(expected, abs=1e-5)
        assert n_pixels == 0, "a pixel that is no cell"
    assert n_shown == len(table), "cells that no map shows"


PLACES = {
    "one zone": (127.5, 39.0),
    "two zones": (-66.0, -16.5),
    "the equator": (9.5, 0.0),
    "two zones and the equator": (12.0, 0.0),
    "Taveuni, across the 180th meridian": (180.0, -16.8),
    "Chukotka": (-180.0, 68.0),
    "where the meridian meets the equator": (180.0, 0.0),
    "the north of UTM": (24.0, 83.97),
    "the south of UTM": (-72.0, -79.97),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("grid", GRIDS)
def test_every_pixel_is_a_cell_and_every_cell_a_pixel(
    tmp_path: Path, grid: str, place: str
) -> None:
    # Web mercator's cells are small near the poles.
    km = 12 * (np.cos(np.radians(PLACES[place][1])) if grid == "xyz:14" else 1)
    names = cells_near(grid, *PLACES[place], km)
    table = scores_of(grid, names)
    maps = write_maps(table, tmp_path, "whose imagery")
    require_every_score(tmp_path, grid, table)
    zones = {zone_of(name) for name in names}
    if grid.startswith("utm"):
        assert len(maps) == len(zones)
        expected = {"one zone": 1, "two zones": 2, "the equator": 2}.get(place)
        assert expected is None or len(zones) == expected
    else:
        across = abs(PLACES[place][0]) == 180
        assert [each.name for each in maps] == (
            ["2019_3857-east", "2019_3857-west"] if across else ["2019"]
        )
    for each in maps:
        assert max(each.geobox.shape) < 60, "no map spans the world"


@given(
    longitude=st.floats(-180, 180),
    latitude=st.floats(-79.9, 83.9),
    grid=st.sampled_from(GRIDS),
    data=st.data(),
)
@settings(max_examples=12)
def test_any_cells_of_any_place_are_shown(
    tmp_path_factory: pytest.TempPathFactory,
    longitude: float,
    latitude: float,
    grid: str,
    data: st.DataObject,
) -> None:
    names = cells_near(grid, longitude, latitude, km=8)
    if names:
        chosen = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
        folder = tmp_path_factory.mktemp("maps")
        table = scores_of(grid, chosen)
        write_maps(table, folder, "")
        require_every_score(folder, grid, table)


def test_zones_name_all_periods_alike(tmp_path: Path) -> None:
    """A period that lies in one zone only is still told from the other zone's maps."""
    both = cells_near("utm:1280", -66.0, -16.5)
    west = [name for name in both if name.startswith("32719")]
    table = gpd.pd.concat(
        [scores_of("utm:1280", both, "2019-Q2"), scores_of("utm:1280", west, "2020")],
        ignore_index=True,
    )
    write_maps(table, tmp_path, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "2019-Q2_32719.tif", "2019-Q2_32720.tif", "2020_32719.tif",
    ]  # fmt: skip
    require_every_score(tmp_path, "utm:1280", table)


def test_outlines_of_earlier_versions_are_shown_too(tmp_path: Path) -> None:
    """They had longitudes above 180, in one piece."""
    names = cells_near("utm:2560", 180.0, -16.8)
    table = scores_of("utm:2560", names)
    old = [
        gpd.GeoSeries([shape_]).translate(360).iloc[0] if shape_.bounds[2] < 0 else shape_
        for shape_ in table.geometry
    ]
    write_maps(table.set_geometry(gpd.GeoSeries(old, crs="EPSG:4326")), tmp_path, "")
    require_every_score(tmp_path, "utm:2560", table)


def test_a_large_map_has_overviews_and_means_of_scores_in_them(tmp_path: Path) -> None:
    names = [f"32652_{3000 + k}_{200 + k % 600}" for k in range(0, 1200, 7)]
    names = [name for name in names if _is_cell(name)]
    table = scores_of("utm:1280", names)
    write_maps(table, tmp_path, "")
    with rasterio.open(tmp_path / "2019.tif") as raster:
        require_cog(raster)
        assert raster.overviews(1)
    with rasterio.open(tmp_path / "2019.tif", overview_level=0) as raster:
        small = raster.read(1)
    low, high = table["score"].min(), table["score"].max()
    assert low <= np.nanmin(small) and np.nanmax(small) <= high, "no score that no cell has"


def _is_cell(name: str) -> bool:
    try:
        Grid("utm:1280").cell(name)
    except ValueError:
        return False
    return True


def test_what_no_map_can_show_is_refused(tmp_path: Path) -> None:
    far = [f"32652_{row}_{column}" for row, column in ((100, 2200), (40_000, 9800))]
    with pytest.raises(EcofmError, match=r"7601 x 39901 cells.*too far apart.*--cog"):
        write_maps(scores_of("utm:80", far), tmp_path, "")
    mixed = gpd.pd.concat(
        [
            scores_of("utm:1280", ["32652_3459_391", "32652_3460_391"]),
            scores_of("utm:2560", ["32652_1700_195"]),
        ],
        ignore_index=True,
    )
    with pytest.raises(EcofmError, match="32652_1700_195 does not lie where a grid of 1280 m"):
        write_maps(mixed, tmp_path, "")
    moved = scores_of("utm:1280", ["32652_3459_391"]).assign(cell_id="32652_3460_391")
    with pytest.raises(EcofmError, match="32652_3460_391 does not lie where"):
        write_maps(moved, tmp_path, "")
    with pytest.raises(EcofmError, match="cell town has a place but no cell's id"):
        write_maps(moved.assign(cell_id="town"), tmp_path, "")
    with pytest.raises(EcofmError, match="chips without one"):
        write_maps(moved.set_geometry(gpd.GeoSeries([None], crs="EPSG:4326")), tmp_path, "")
    assert not list(tmp_path.iterdir())


def validate(told: dict[str, Any], kind: str) -> None:
    """Hold an object against the STAC schemas that pystac brings along."""
    known = {path.name: json.loads(path.read_text()) for path in SCHEMAS.rglob("*.json")}

    def retrieve(uri: str) -> Any:
        return known[uri.removesuffix("#").rsplit("/", 1)[-1]]

    jsonschema_rs.validator_for(known[f"{kind}.json"], retriever=retrieve).validate(told)


@pytest.mark.parametrize("place", ["one zone", "two zones", "Taveuni, across the 180th meridian"])
def test_the_maps_are_one_stac_collection(tmp_path: Path, place: str) -> None:
    table = gpd.pd.concat(
        [
            scores_of("utm:2560", cells_near("utm:2560", *PLACES[place]), period)
            for period in ("2019", "2020-Q2")
        ],
        ignore_index=True,
    )
    (tmp_path / "made").mkdir()
    maps = write_maps(table, tmp_path / "made", "whose imagery")
    write_collection(maps, tmp_path / "made", "whose imagery")
    moved = (tmp_path / "made").rename(tmp_path / "moved")
    validate(json.loads((moved / "collection.json").read_text()), "collection")
    collection = pystac.Collection.from_file(moved / "collection.json")
    items = list(collection.get_items())
    assert [item.id for item in items] == [each.name for each in maps]
    assert collection.extent.temporal.to_dict()["interval"] == [
        ["2019-01-01T00:00:00Z", "2020-06-30T23:59:59Z"]
    ]
    (around,) = collection.extent.spatial.bboxes
    for item in items:
        validate(json.loads((moved / f"{item.id}.json").read_text()), "item")
        assert item.get_parent() is collection and item.collection_id == collection.id
        with rasterio.open(item.assets["scores"].get_absolute_href()) as raster:
            assert item.properties["proj:code"] == f"EPSG:{raster.crs.to_epsg()}"
            assert item.properties["proj:shape"] == list(raster.shape)
            assert item.properties["proj:transform"] == list(raster.transform)[:6]
            names = [band["name"] for band in item.assets["scores"].extra_fields["bands"]]
            assert names == list(raster.descriptions)
            to_lonlat = Transformer.from_crs(raster.crs, 4326, always_xy=True)
            west, south, east, north = raster.bounds
            corners = [(x, y) for x in (west + 1, east - 1) for y in (south + 1, north - 1)]
        for x, y in corners:
            longitude, latitude = to_lonlat.transform(x, y)
            assert shape(item.geometry).covers(Point(longitude, latitude))
            for west, south, east, north in (item.bbox, around):
                assert south <= latitude <= north
                span = box(west, south, east + 360 * (east < west), north)
                assert cut(span).covers(Point(longitude, latitude))
                assert (east - west) % 360 < 1, "no box goes round the world"
    assert around[0] > around[2] if "180th" in place else around[0] < around[2]


def test_a_range_of_years_is_one_time_and_other_periods_have_no_collection(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = cells_near("utm:2560", 127.5, 39.0)
    (one,) = write_maps(scores_of("utm:2560", names, "2018-2019"), tmp_path, "")
    write_collection([one], tmp_path, "")
    item = pystac.Item.from_file(tmp_path / "2018-2019.json")
    assert item.properties["start_datetime"] == "2018-01-01T00:00:00Z"
    assert item.properties["end_datetime"] == "2019-12-31T23:59:59Z"
    (tmp_path / "collection.json").unlink()
    (one,) = write_maps(scores_of("utm:2560", names, "before/after"), tmp_path, "")
    assert one.name == "before_after"
    write_collection([one], tmp_path, "")
    assert "before/after is no time" in capsys.readouterr().err
    assert not (tmp_path / "collection.json").exists()
