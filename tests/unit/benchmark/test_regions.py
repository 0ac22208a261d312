"""Regions: their share of each cell, and polygons as they come."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import MultiPolygon, Point, Polygon, box

from ecofm.benchmark.regions import Shares, average_regions, read_regions, share_cells
from ecofm.errors import EcofmError


def cells(n: int = 2, west: float = 127.0) -> gpd.GeoDataFrame:
    """Return n by n cells of a tenth of a degree on the equator, named c00, c01 eastward."""
    places = [(i, j) for j in range(n) for i in range(n)]
    shapes = [box(west + i / 10, j / 10, west + (i + 1) / 10, (j + 1) / 10) for i, j in places]
    names = [f"c{j}{i}" for i, j in places]
    return gpd.GeoDataFrame({"cell_id": names}, geometry=shapes, crs=4326)


def write(path: Path, shapes: list[object], names: list[object], crs: object = 4326) -> Path:
    gpd.GeoDataFrame({"region": names}, geometry=shapes, crs=crs).to_file(path)
    return path


def test_a_cell_gives_each_region_the_part_that_lies_in_it(tmp_path: Path) -> None:
    """A quarter of c00 and half of c01 lie in the first, all of c11 and nothing else in the
    second."""
    first = box(127.075, 0, 127.15, 0.1)
    hole = Polygon(box(127.1, 0.1, 127.2, 0.2).exterior, [box(127.12, 0.12, 127.18, 0.18).exterior])
    path = write(tmp_path / "r.gpkg", [first, hole], ["first", "second"])
    shares = share_cells(cells(), read_regions(path).table)
    parts = shares.parts.set_index("region", append=True)["area_m2"]
    whole = share_cells(cells(), cells().rename(columns={"cell_id": "region"})).area_m2
    expected = {("c00", "first"): 0.25, ("c01", "first"): 0.5, ("c11", "second"): 0.64}
    assert set(parts.index) == set(expected)
    for (cell, region), share in expected.items():
        assert parts[cell, region] / whole[cell] == pytest.approx(share, rel=1e-3)
    assert shares.covered().tolist() == pytest.approx([1, 1])
    frame = pd.DataFrame({"score": [1.0, 4.0, 7.0]}, index=["c00", "c01", "c11"])
    means = average_regions(frame, shares.parts)["score"]
    assert means.to_dict() == pytest.approx({"first": (1 + 2 * 4) / 3, "second": 7.0}, rel=1e-3)


@given(
    cuts=st.lists(st.integers(1, 199), min_size=1, max_size=6, unique=True),
    scores=st.lists(st.floats(-5, 5), min_size=4, max_size=4),
)
@settings(max_examples=30, deadline=None)
def test_regions_that_share_out_the_ground_keep_its_mean(
    cuts: list[int], scores: list[float]
) -> None:
    """Strips of any width: their means, weighted by area, are the mean of all cells."""
    edges = [0, *sorted(cuts), 200]
    strips = [box(127 + a / 1000, 0, 127 + b / 1000, 0.2) for a, b in pairwise(edges)]
    table = gpd.GeoDataFrame({"region": range(len(strips))}, geometry=strips, crs=4326)
    shares = share_cells(cells(), table)
    frame = pd.DataFrame({"score": scores}, index=["c00", "c01", "c10", "c11"])
    means = average_regions(frame, shares.parts)["score"]
    lows = frame["score"].iloc[:2].mean(), frame["score"].iloc[2:].mean()
    together = float((means * shares.area_m2[means.index]).sum() / shares.area_m2.sum())
    area = share_cells(cells(), cells().rename(columns={"cell_id": "region"})).area_m2
    expected = float((frame["score"] * area).sum() / area.sum())
    assert together == pytest.approx(expected, abs=1e-6)
    assert min(scores) - 1e-9 <= means.min() and means.max() <= max(scores) + 1e-9
    assert np.isfinite(lows).all()


def test_parts_of_one_name_are_one_region_and_said(tmp_path: Path) -> None:
    shapes = [box(127, 0, 127.05, 0.1), box(127.1, 0.1, 127.2, 0.2), box(127.05, 0, 127.1, 0.1)]
    path = write(tmp_path / "r.gpkg", shapes, ["Isle", "Main", "Isle "])
    found = read_regions(path)
    assert found.table["region"].tolist() == ["Isle", "Main"]
    assert "2 polygons are parts of 1 region of the same name: 'Isle'" in found.notes[0]
    assert share_cells(cells(), found.table).covered()["Isle"] == pytest.approx(1)


def test_crossed_outlines_are_mended_and_what_has_no_name_or_area_is_left_out(
    tmp_path: Path,
) -> None:
    bow = Polygon([(127, 0), (127.1, 0.1), (127.1, 0), (127, 0.1)])
    shapes = [bow, box(127, 0, 127.1, 0.1), Point(127, 0), box(127.1, 0, 127.2, 0.1)]
    path = write(tmp_path / "r.geojson", shapes, ["bow", None, "dot", "box"])
    found = read_regions(path)
    assert found.table["region"].tolist() == ["bow", "box"]
    assert any("mended" in note and "'bow'" in note for note in found.notes)
    assert any("1 feature without region" in note for note in found.notes)
    assert any("1 feature without a polygon" in note for note in found.notes)
    shares = share_cells(cells(), found.table)
    assert (shares.parts["region"] == "bow").sum() == 1
    areas = shares.area_m2
    assert areas["bow"] == pytest.approx(areas["box"] / 2, rel=1e-2)


@pytest.mark.parametrize(
    "region",
    [
        box(179.95, 0, 180.05, 0.1),
        box(-180.05, 0, -179.95, 0.1),
        MultiPolygon([box(179.95, 0, 180, 0.1), box(-180, 0, -179.95, 0.1)]),
        Polygon([(179.95, 0), (-179.95, 0), (-179.95, 0.1), (179.95, 0.1)]),
    ],
)
def test_regions_across_the_180th_meridian(tmp_path: Path, region: object) -> None:
    path = write(tmp_path / "r.gpkg", [region], ["Taveuni"])
    grid = cells(2, west=179.9)
    grid.geometry = [
        box(179.9, 0, 180, 0.1), box(-180, 0, -179.9, 0.1),
        box(179.9, 0.1, 180, 0.2), box(-180, 0.1, -179.9, 0.2),
    ]  # fmt: skip
    shares = share_cells(grid, read_regions(path).table)
    assert shares.parts.index.tolist() == ["c00", "c01"]
    assert shares.covered()["Taveuni"] == pytest.approx(1)
    east, west = shares.parts["area_m2"]
    assert east == pytest.approx(west, rel=1e-6)


def test_regions_in_metres_across_the_180th_meridian(tmp_path: Path) -> None:
    """Fiji's own projection: its corners lie on both sides in degrees."""
    fiji = box(179.95, -17.1, 180.05, -17.0)
    shape = gpd.GeoSeries([fiji], crs=4326).to_crs(3460).iloc[0]
    path = write(tmp_path / "r.gpkg", [shape], ["Taveuni"], crs=3460)
    grid = gpd.GeoDataFrame(
        {"cell_id": ["west", "east"]},
        geometry=[box(179.9, -17.2, 180, -17), box(-180, -17.2, -179.9, -17)], crs=4326,
    )  # fmt: skip
    shares = share_cells(grid, read_regions(path).table)
    assert shares.covered()["Taveuni"] == pytest.approx(1, abs=0.01)
    assert shares.area_m2["Taveuni"] < 2e8


def test_long_edges_are_bent_as_the_ground_is(tmp_path: Path) -> None:
    """A box of 400 km in UTM has the area of its place on the Earth, not of its four corners."""
    shape = box(300_000, 6_000_000, 700_000, 6_400_000)
    found = read_regions(write(tmp_path / "r.gpkg", [shape], ["wide"], crs=32632))
    fine = gpd.GeoSeries([shape], crs=32632).segmentize(100).to_crs(6933).area.iloc[0]
    assert found.table.area.iloc[0] == pytest.approx(fine, rel=1e-6)


def test_what_holds_no_regions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EcofmError, match="expected polygons with a CRS and a column region"):
        read_regions(write(tmp_path / "r.gpkg", [Point(127, 0)], ["dot"]))
    with pytest.raises(EcofmError, match="a column NAME_2"):
        read_regions(write(tmp_path / "s.gpkg", [box(0, 0, 1, 1)], ["a"]), "NAME_2")


def test_too_thin_a_share_does_not_count() -> None:
    parts = pd.DataFrame({"region": ["a", "b"], "area_m2": [5.0, 95.0]}, index=["c", "d"])
    shares = Shares(parts, pd.Series({"a": 100.0, "b": 100.0}))
    assert shares.within(pd.Index(["c", "d"]), 0.1)["region"].tolist() == ["b"]
    assert shares.within(pd.Index(["c", "d"]), 0)["region"].tolist() == ["a", "b"]
    assert shares.within(pd.Index(["c"]), 0.1).empty


def test_a_table_without_shapes_is_no_regions(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("region,population\na,1\nb,2\n")
    with pytest.raises(EcofmError, match=r"r\.csv has no shapes to be regions"):
        read_regions(tmp_path / "r.csv")


def test_outlines_longer_than_any_on_the_earth_are_refused(tmp_path: Path) -> None:
    shapes = [box(-1.9e8, -1.9e8, 1.9e8, 1.9e8)] * 200
    with pytest.raises(EcofmError, match="more than there are on the Earth; name the right CRS"):
        read_regions(write(tmp_path / "r.gpkg", shapes, [str(n) for n in range(200)], crs=32632))
