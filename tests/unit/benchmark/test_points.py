"""Survey points: joined to the cells around them, as surveys write and displace them."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from pyproj import Geod
from shapely.geometry import Point

from ecofm.benchmark.points import find_coordinates
from ecofm.errors import EcofmError
from tests.reseal import reseal


def make_survey(nation: Any) -> pd.DataFrame:
    """Return a cluster in the middle of a cell of each district, as the DHS writes them."""
    places = [nation.middle(n) for n in range(20)]
    return pd.DataFrame(
        {
            "DHSID": [f"KP2019{n:08d}" for n in range(20)], "DHSCLUST": range(1, 21),
            "DHSYEAR": 2019.0, "URBAN_RURA": ["U", "R"] * 10,
            "LATNUM": [y for _, y in places], "LONGNUM": [x for x, _ in places],
            "ALT_GPS": [9999] * 3 + list(range(17)), "wealth": nation.people,
        }
    )  # fmt: skip


def score_within(nation: Any, lon: float, lat: float, radius_m: float) -> float:
    """Return the mean score in a circle, by the many points of a fine mesh."""
    scores = gpd.read_parquet(nation.folder / "scores" / "scores.parquet")
    angle, share = np.random.default_rng(0).uniform(0, 1, (2, 20_000))
    distance = radius_m * np.sqrt(share)
    n = np.ones(len(angle))
    x, y, _ = Geod(ellps="WGS84").fwd(lon * n, lat * n, 360 * angle, distance)
    mesh = gpd.GeoDataFrame(geometry=gpd.points_from_xy(x, y), crs=4326)
    return float(mesh.sjoin(scores, predicate="within")["score"].mean())


def test_a_cluster_has_the_mean_score_of_its_circle(
    nation: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    survey = make_survey(nation)
    report = nation.run(survey)
    radii = np.where(survey["URBAN_RURA"] == "U", 2_000, 5_000)
    expected = pd.Series(
        [score_within(nation, row.LONGNUM, row.LATNUM, radius)
         for row, radius in zip(survey.itertuples(), radii, strict=True)]
    )  # fmt: skip
    n, rho = nation.compared(report, "wealth")
    assert (n, rho) == (20, pytest.approx(expected.corr(survey["wealth"], "spearman"), abs=0.02))
    assert {c["level"] for c in report["contests"]} == {"point"}
    # Cluster numbers are names; 9999 stands for an unknown altitude.
    assert {c["target"] for c in report["contests"]} == {"wealth", "ALT_GPS"}
    assert nation.compared(report, "ALT_GPS")[0] == 17
    assert report["join"]["radii"] == [
        {"setting": "rural", "radius_m": 5000.0, "n_points": 10},
        {"setting": "urban", "radius_m": 2000.0, "n_points": 10},
    ]
    assert "2000 m for 10 points urban" in capsys.readouterr().err


def test_the_radius_can_be_chosen_and_zero_takes_the_cell(nation: Any) -> None:
    survey = make_survey(nation)
    scores = gpd.read_parquet(nation.folder / "scores" / "scores.parquet")
    own = pd.Series(scores["score"].to_numpy().reshape(20, 4)[:, 0])
    report = nation.run(survey, targets=["wealth"], radius_m=0)
    assert nation.compared(report, "wealth") == (
        20, pytest.approx(own.corr(survey["wealth"], "spearman")),
    )  # fmt: skip
    assert {kind["radius_m"] for kind in report["join"]["radii"]} == {0.0}


def test_unknown_places_are_left_out_and_far_ones_named(
    nation: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    survey = make_survey(nation)
    survey.loc[0, ["LATNUM", "LONGNUM"]] = 0
    survey.loc[1, "LATNUM"] = np.nan
    survey.loc[3, "LONGNUM"] = -9999
    survey.loc[2, "LATNUM"] += 5
    report = nation.run(survey, targets=["wealth"])
    assert nation.compared(report, "wealth")[0] == 16
    said = capsys.readouterr().err
    assert "left out 1 row with coordinates 0, 0: line 2." in said
    assert "left out 2 rows without coordinates: line 3, line 5." in said
    assert "1 point without a scored cell: 'KP201900000002'" in said
    assert nation.unmatched() == [("proxies", "KP201900000002", "no scored cell within its radius")]


def test_coordinates_that_are_no_degrees_or_swapped_are_refused(nation: Any) -> None:
    survey = make_survey(nation)
    swapped = survey.rename(columns={"LATNUM": "LONGNUM", "LONGNUM": "LATNUM"})
    with pytest.raises(EcofmError, match=r"line 2: LATNUM is 12\d.*swapped"):
        nation.run(swapped)
    metres = survey.assign(LATNUM=4_100_000.0, LONGNUM=300_000.0)
    with pytest.raises(EcofmError, match=r"expected degrees within -90 to 90"):
        nation.run(metres)
    far = survey.assign(LATNUM=-survey["LATNUM"])
    with pytest.raises(EcofmError, match="no point lies near a scored cell"):
        nation.run(far)
    words = survey.assign(LATNUM=[f"{value:.3f} N" for value in survey["LATNUM"]])
    with pytest.raises(EcofmError, match=r"LATNUM holds no numbers.*degrees such as"):
        nation.run(words)


def test_swapped_coordinates_within_range_are_told(nation: Any) -> None:
    """Latitude 37 and longitude 127 cannot be; turned round the globe by 90 degrees they can."""
    scores = gpd.read_parquet(nation.folder / "scores" / "scores.parquet")
    scores.geometry = scores.translate(xoff=-90)
    scores.to_parquet(nation.folder / "scores" / "scores.parquet")
    reseal(nation.folder / "scores")
    survey = make_survey(nation)
    lon = survey["LONGNUM"] - 90
    turned = survey.assign(LONGNUM=survey["LATNUM"], LATNUM=lon)
    with pytest.raises(EcofmError, match="with latitude and longitude exchanged"):
        nation.run(turned)
    assert nation.compared(nation.run(survey.assign(LONGNUM=lon)), "wealth")[0] == 20


def test_households_of_a_cluster_are_averaged_by_their_weights(
    nation: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    survey = make_survey(nation).drop(columns="DHSID")
    poor = survey.assign(wealth=survey["wealth"] - 900, hv005=3_000_000)
    rich = survey.assign(wealth=survey["wealth"] + 2_700, hv005=1_000_000)
    off = survey.assign(wealth=7.0, hv005=0)
    report = nation.run(pd.concat([poor, rich, off]), targets=["wealth"])
    right = nation.run(survey, targets=["wealth"])
    assert nation.compared(report, "wealth") == nation.compared(right, "wealth")
    nation.run(pd.concat([poor, rich, off]), targets=["wealth"])
    said = capsys.readouterr().err
    assert "60 rows are averaged to 20 points, by their weights" in said
    with pytest.raises(EcofmError, match="--weight"):
        nation.run(survey.assign(hv005=-1))


def test_years_of_points_are_periods(nation: Any) -> None:
    survey = make_survey(nation)
    both = pd.concat([survey, survey.assign(DHSYEAR=2014.0, wealth=survey["wealth"][::-1])])
    report = nation.run(both, targets=["wealth"])
    right = nation.run(survey, targets=["wealth"])
    assert nation.compared(report, "wealth") == nation.compared(right, "wealth")
    assert report["join"]["periods_without_score"] == ["2014.0"]


def test_vector_files_of_points_are_read(nation: Any) -> None:
    survey = make_survey(nation)
    places = gpd.points_from_xy(survey["LONGNUM"], survey["LATNUM"])
    table = gpd.GeoDataFrame(survey[["URBAN_RURA", "wealth"]], geometry=places, crs=4326)
    right = nation.compared(nation.run(survey, targets=["wealth"]), "wealth")
    for name, crs in (("points.gpkg", 32652), ("points.geojson", 4326)):
        table.to_crs(crs).to_file(nation.folder / name)
        path = nation.folder / name
        from ecofm.benchmark.proxies import read_proxies

        found = read_proxies(path)
        assert found.level == "point" and found.points is not None
        assert found.points.frame["lat"].to_numpy() == pytest.approx(survey["LATNUM"], abs=1e-6)
        assert found.statistics == ["wealth"]
    assert right[0] == 20
    table.geometry = [Point(x, y).buffer(0.1) for x, y in zip(places.x, places.y, strict=True)]
    table.to_file(nation.folder / "circles.gpkg")
    with pytest.raises(EcofmError, match="has columns URBAN_RURA, wealth; expected one of"):
        read_proxies(nation.folder / "circles.gpkg")


def test_points_with_regions_are_asked_about(nation: Any) -> None:
    survey = make_survey(nation)
    with pytest.raises(EcofmError, match="leave out --regions"):
        nation.run(survey, nation.named())
    # A table of districts may tell their middles.
    districts = survey.assign(region=nation.names)
    report = nation.run(districts, nation.named(), targets=["wealth"])
    assert {c["level"] for c in report["contests"]} == {"region"}
    with pytest.raises(EcofmError, match=r"two rows for region D00.*leave out --regions"):
        nation.run(pd.concat([districts, districts]), nation.named())
    report = nation.run(districts, targets=["wealth"])
    assert {c["level"] for c in report["contests"]} == {"point"}


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (["LATNUM", "LONGNUM"], ("LATNUM", "LONGNUM")),
        (["id", "lat", "lon"], ("lat", "lon")),
        (["Latitude", "Longitude"], ("Latitude", "Longitude")),
        (["lat_dd_mod", "lon_dd_mod"], ("lat_dd_mod", "lon_dd_mod")),
        (["_GPS_latitude", "_GPS_longitude"], ("_GPS_latitude", "_GPS_longitude")),
        (["gps_lat", "gps_long"], ("gps_lat", "gps_long")),
        (["s1_gps__Latitude", "s1_gps__Longitude"], ("s1_gps__Latitude", "s1_gps__Longitude")),
        (["y", "x"], None),
        (["lat", "x"], None),
        (["plate", "flat", "long_run"], None),
    ],
)
def test_coordinates_are_found_by_name(columns: list[str], found: tuple[str, str] | None) -> None:
    assert find_coordinates(columns) == found


def test_two_pairs_of_coordinates_are_asked_about(nation: Any) -> None:
    survey = make_survey(nation).assign(lat=1.0, lon=2.0)
    with pytest.raises(EcofmError, match="--lat"):
        nation.run(survey)
    report = nation.run(survey, lat="LATNUM", lon="LONGNUM", targets=["wealth"])
    assert nation.compared(report, "wealth")[0] == 20


@pytest.mark.parametrize(
    ("column", "cells", "settings"),
    [
        ("hv025", [1, 2, 9], ["urban", "rural", "not told"]),
        ("rural", [0, 1, "R"], ["urban", "rural", "rural"]),
        ("urban", ["yes", "no", ""], ["urban", "rural", "not told"]),
        ("URBAN_RURAL", ["Urban", "RURAL", "peri-urban"], ["urban", "rural", "not told"]),
    ],
)
def test_settings_are_read(nation: Any, column: str, cells: list[Any], settings: list[str]) -> None:
    survey = make_survey(nation).drop(columns="URBAN_RURA")
    survey[column] = (cells * 7)[:20]
    report = nation.run(survey, targets=["wealth"])
    counted = {kind["setting"]: kind["n_points"] for kind in report["join"]["radii"]}
    assert counted == pd.Series((settings * 7)[:20]).value_counts().to_dict()
