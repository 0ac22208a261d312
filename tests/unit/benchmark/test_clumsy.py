"""Tables and polygons as people give them: read as meant, or a message that leads on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from shapely.geometry import box

from ecofm.benchmark.regions import read_regions
from ecofm.benchmark.vectors import open_proxies
from ecofm.errors import EcofmError
from tests.reseal import reseal


def census(nation: Any, **more: Any) -> pd.DataFrame:
    return pd.DataFrame({"region": nation.names, "people": nation.people, **more})


def survey(nation: Any, **more: Any) -> pd.DataFrame:
    places = np.array([nation.middle(n) for n in range(20)])
    columns = {"LATNUM": places[:, 1], "LONGNUM": places[:, 0], "wealth": nation.people}
    return pd.DataFrame({**columns, **more})


def test_thousands_beside_decimals_are_never_read_as_decimals(nation: Any) -> None:
    people = [f"{n:,}".replace(",", ".") for n in nation.people // 20]
    assert any("." in n for n in people) and any("." not in n for n in people)
    table = census(nation, rate=[f"{n / 37 + 0.1:.2f}" for n in range(20)]).assign(people=people)
    report = nation.run(table, nation.named())
    assert {f["target"] for f in report["figures"]} == {"rate"}
    assert any(s.startswith("left out people: ") and "may be" in s for s in report["readings"])
    report = nation.run(table, nation.named(), decimal=",")
    right = nation.spearman(nation.people // 20)
    assert nation.compared(report) == (20, pytest.approx(right))


def test_regions_without_a_row_of_one_period_are_named(nation: Any) -> None:
    path = nation.folder / "scores" / "scores.parquet"
    scores = gpd.read_parquet(path)
    earlier = scores.assign(period="2018", tile_id=scores["cell_id"] + "@2018")
    pd.concat([scores, earlier]).to_parquet(path)
    reseal(path.parent, n_tiles=2 * len(scores))
    table = pd.concat([census(nation, year=2018), census(nation, year=2019).drop([0, 1, 2])])
    report = nation.run(table, nation.named())
    said = "3 regions without a row of 2019, though of other periods: 'D00', 'D01', 'D02'."
    assert said in report["join"]["said"]
    assert ("polygons", "D00", "no row of 2019") in nation.unmatched()


@pytest.mark.parametrize("name", ["weight", "urban", "cluster"])
def test_statistics_called_like_columns_of_a_survey_can_be_chosen(nation: Any, name: str) -> None:
    table = survey(nation, **{name: nation.people / nation.people.max()})
    report = nation.run(table, targets=[name])
    assert nation.compared(report, name)[0] == 20
    report = nation.run(table)
    is_target = name == "urban"  # for a share is no code
    assert (name in {f["target"] for f in report["figures"]}) == is_target
    assert is_target or any(f"{name} tells" in note for note in report["readings"])


@pytest.mark.parametrize("key", [None, "region"])
def test_coordinates_in_a_table_by_region_are_left_out(nation: Any, key: str | None) -> None:
    table = census(nation, lat=1.0, latitude=2.0, lon=nation.people)
    report = nation.run(table, nation.named(), key=key)
    assert {f["target"] for f in report["figures"]} == {"people"}
    assert "left out, for they are coordinates: lat, latitude, lon." in report["readings"]


def test_households_seen_on_several_days_are_averaged_within_the_period(nation: Any) -> None:
    days = [survey(nation, date=day, DHSCLUST=range(20)) for day in ("2019-03-05", "2019-03-06")]
    table = pd.concat([days[0].assign(wealth=0), days[1]])
    halved = nation.compared(nation.run(table), "wealth")
    assert halved == nation.compared(nation.run(days[1]), "wealth") and halved[0] == 20


def test_provinces_and_districts_are_told_apart_by_a_key(nation: Any) -> None:
    provinces = ["North"] * 10 + ["South"] * 10
    table = census(nation, name=nation.names).assign(region=provinces)
    path = nation.named(provinces)
    gpd.read_file(path).assign(name=nation.names).to_file(path)
    with pytest.raises(EcofmError, match="give --key name, and --region-column name"):
        nation.run(table, path)
    report = nation.run(table, path, key="name", region_column="name")
    assert nation.compared(report) == (20, pytest.approx(nation.spearman(nation.people)))


def test_districts_of_one_name_are_refused_and_a_code_advised(nation: Any) -> None:
    names = [*nation.names[:18], "San Jose", "San Jose"]
    with pytest.raises(EcofmError, match="tell them apart by a column of codes, in both files"):
        nation.run(census(nation).assign(region=names), nation.named(names))


def test_codes_that_became_numbers_are_to_be_stored_as_text(nation: Any) -> None:
    codes = [f"1.{n}" for n in range(1, 21)]
    table = census(nation).assign(region=[float(code) for code in codes])
    with pytest.raises(EcofmError, match=r"1\.10 the number 1\.1, store them as text"):
        nation.run(table, nation.named(codes))
    table = census(nation).assign(region=[f"{10**15 + n * 10**13:.1e}" for n in range(20)])
    with pytest.raises(EcofmError, match=r"store (?:them|the codes) as text"):
        nation.run(table, nation.named([str(10**15 + n * 7) for n in range(20)]))


def test_years_and_months_are_read_together(nation: Any) -> None:
    table = census(nation, year=2019, month=3)
    report = nation.run(table, nation.named())
    assert nation.compared(report)[0] == 20
    assert {f["target"] for f in report["figures"]} == {"people"}
    assert "year and month tell the time of a row together." in report["readings"]
    with pytest.raises(EcofmError, match="give one row, their mean"):
        nation.run(pd.concat([table, table.assign(month=4)]), nation.named())


@pytest.mark.parametrize("name", ["c.gpkg", "c.geojson", "c.parquet"])
def test_polygons_with_statistics_are_table_and_regions_in_one(nation: Any, name: str) -> None:
    polygons = nation.polygons.assign(code=nation.names, people=nation.people).to_crs(4326)
    given = nation.folder / name
    polygons.to_parquet(given) if given.suffix == ".parquet" else polygons.to_file(given)
    table, has_polygons = open_proxies(given)
    assert has_polygons and table.columns == ["code", "people"]
    from ecofm.benchmark.benchmark import BenchmarkConfig, benchmark

    for regions in (None, given):
        config = BenchmarkConfig(key="code", region_column="code" if regions else None)
        benchmark(
            nation.folder / "scores", given, nation.folder / "report", regions, None, config,
            overwrite=True,
        )  # fmt: skip
        assert nation.unmatched() == []


def test_what_a_vector_file_lacks_is_said_with_the_cure(nation: Any, tmp_path: Path) -> None:
    path = tmp_path / "r.gpkg"
    shapes = gpd.GeoDataFrame({"region": ["A"]}, geometry=[box(0, 0, 1, 1)])
    with pytest.warns(UserWarning, match="'crs' was not provided"):
        shapes.to_file(tmp_path / "none.gpkg")
    with pytest.raises(EcofmError, match=r"polygons without a CRS; .*ogr2ogr -a_srs EPSG:4326"):
        read_regions(tmp_path / "none.gpkg")
    for layer in ("districts", "provinces"):
        shapes.set_crs(4326).to_file(path, layer=layer)
    with pytest.raises(EcofmError, match=r"holds the layers districts, provinces; .*ogr2ogr"):
        read_regions(path)
    shapes.set_crs(4326).to_parquet(tmp_path / "r.parquet")
    assert read_regions(tmp_path / "r.parquet").table["region"].tolist() == ["A"]
