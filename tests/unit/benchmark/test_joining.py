"""The join of scores and proxies: right whatever the names look like, and told on both sides."""

from __future__ import annotations

import html
import unicodedata
from typing import Any

import geopandas as gpd
import pandas as pd
import pytest
from shapely.geometry import box

from ecofm.errors import EcofmError

VIETNAM = (
    "Sơn La,Hà Giang,Cao Bằng,Bắc Kạn,Tuyên Quang,Lào Cai,Điện Biên,Lai Châu,Yên Bái,Hòa Bình,"
    "Thái Nguyên,Lạng Sơn,Quảng Ninh,Bắc Giang,Phú Thọ,Vĩnh Phúc,Bắc Ninh,Hải Dương,Hải Phòng,Huế"
).split(",")
ITALY = "TO AO VA CO SO MI BG BS PV CR MN BZ TN VR VI BL TV VE PD NA".split()
CODES = [f"0700{n}" for n in range(1, 10)] + [f"170{n}" for n in range(10, 21)]
SAME: dict[str, tuple[list[Any], list[Any]]] = {
    "alike": (ITALY, ITALY),
    "Unicode": (VIETNAM, [unicodedata.normalize("NFD", name) for name in VIETNAM]),
    "blanks": (VIETNAM, [f" {name}\u00a0" if n % 2 else name for n, name in enumerate(VIETNAM)]),
    "capitals": (VIETNAM, [name.upper() for name in VIETNAM]),
    "leading zeros": (CODES, [int(code) for code in CODES]),
    "leading zeros and floats": (CODES, [float(code) for code in CODES]),
    "numbers of polygons": ([float(code) for code in CODES], [int(code) for code in CODES]),
    "as text": (CODES, [f'="{code}"' for code in CODES]),
}


@pytest.mark.parametrize("name", ["census.csv", "census.parquet"])
@pytest.mark.parametrize("case", SAME)
def test_names_are_compared_as_they_were_meant(nation: Any, case: str, name: str) -> None:
    polygons, census = SAME[case]
    table = pd.DataFrame({" Region ": census, "people": nation.people})
    report = nation.run(table, nation.named(polygons), name)
    assert nation.compared(report) == (20, pytest.approx(nation.spearman(nation.people)))
    assert report["join"]["n_matched"] == 20 and nation.unmatched() == []
    assert (case == "alike") == (not report["join"]["spellings"])


def test_what_has_no_partner_is_named_on_both_sides(
    nation: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.DataFrame({"region": [*nation.names[3:], "Atlantis"], "people": 1.0})
    table["people"] = [*nation.people[3:], 5]
    report = nation.run(table, nation.named())
    right = nation.spearman([None] * 3 + nation.people[3:].tolist())
    assert nation.compared(report) == (17, pytest.approx(right))
    told = capsys.readouterr().err, (nation.folder / "report" / "report.md").read_text()
    for text in told:
        assert "17 of 20 regions have a row" in text
        assert "3 regions without a row: 'D00', 'D01', 'D02'" in text
        assert "1 name of census.csv without a region: 'Atlantis' (line 19)" in text
    join = report["join"]
    assert (join["n_without_row"], join["without_row"]) == (3, ["D00", "D01", "D02"])
    assert join["without_place"] == ["'Atlantis' (line 19)"]
    rows = nation.unmatched()
    assert [row[:2] for row in rows[:3]] == [("polygons", f"D0{n}") for n in range(3)]
    assert rows[3][0] == "proxies" and "Atlantis" in rows[3][1]


def test_cells_are_matched_and_told_alike(nation: Any, capsys: pytest.CaptureFixture[str]) -> None:
    scores = gpd.read_parquet(nation.folder / "scores" / "scores.parquet")
    table = pd.DataFrame({"Cell ID": scores["cell_id"] + " ", "jobs": scores["score"] * 2})
    table = pd.concat([table.iloc[5:], pd.DataFrame({"Cell ID": ["1_2"], "jobs": [0]})])
    report = nation.run(table)
    assert nation.compared(report, "jobs")[0] == 75
    said = capsys.readouterr().err
    assert "75 of 80 scored cells have a row" in said and "5 scored cells without a row" in said
    assert "1 name of census.csv without a scored cell: '1_2' (line 77)" in said


def test_a_key_and_names_of_polygons_are_chosen(nation: Any) -> None:
    table = pd.DataFrame({"Kreis": nation.names, "people": nation.people})
    regions = nation.named(column="NAME_2")
    with pytest.raises(EcofmError, match="--region-column"):
        nation.run(table, regions, key="kreis")
    with pytest.raises(EcofmError, match=r"expected one of cell_id, y_x, region.*--key"):
        nation.run(table, regions, region_column="name_2")
    report = nation.run(table, regions, region_column="name_2", key="kreis")
    assert nation.compared(report)[0] == 20
    with pytest.raises(EcofmError, match="no column Land"):
        nation.run(table, regions, region_column="name_2", key="Land")
    scores = gpd.read_parquet(nation.folder / "scores" / "scores.parquet")
    cells = pd.DataFrame({"tile": scores["cell_id"], "people": scores["score"]})
    report = nation.run(cells, regions, region_column="NAME_2", key="tile")
    assert {c["level"] for c in report["contests"]} == {"cell", "region"}


def test_nothing_in_common_shows_both_sides(nation: Any) -> None:
    table = pd.DataFrame({"region": [f"X{n}" for n in range(20)], "people": nation.people})
    with pytest.raises(EcofmError) as error:
        nation.run(table, nation.named())
    assert all(word in str(error.value) for word in ("'X0' (line 2)", "'D00'", "--key"))


@pytest.mark.parametrize(
    ("second", "words"),
    [("D00", ["'D00' (line 2)", "'D00' (line 22)"]), (" D00", ["' D00' (line 22)"])],
)
def test_two_rows_of_one_region_are_refused(nation: Any, second: str, words: list[str]) -> None:
    table = pd.DataFrame({"region": [*nation.names, second], "people": [*nation.people, 1]})
    with pytest.raises(EcofmError) as error:
        nation.run(table, nation.named())
    assert all(word in str(error.value) for word in [*words, "`period`"])


def test_rows_without_a_name_are_left_out_and_counted(
    nation: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"{n},{v}" for n, v in zip(nation.names, nation.people, strict=True)]
    text = "\r\n".join(["region,people", *lines, ",", ",5", " ,6", ""])
    report = nation.run(text, nation.named())
    assert nation.compared(report)[0] == 20
    assert "left out 2 rows without region: line 23, line 24." in capsys.readouterr().err
    assert "census.csv: left out 1 empty row." in report["readings"]


@pytest.mark.parametrize(
    ("column", "written"),
    [
        ("year", "{}"), ("Year", "{}.0"), ("YEAR", "{}"), ("survey_year", "{}-01-01"),
        ("Survey Year", "{}-06"), ("date", "31/12/{}"), ("Period", "{}-12-31 00:00:00"),
    ],
)  # fmt: skip
def test_a_column_of_years_is_the_period(
    nation: Any, column: str, written: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = [
        pd.DataFrame({"region": nation.names, column: written.format(year), "people": people})
        for year, people in ((2018, nation.people[::-1]), (2019, nation.people), (2020, 1))
    ]
    report = nation.run(pd.concat(parts), nation.named())
    assert nation.compared(report) == (20, pytest.approx(nation.spearman(nation.people)))
    assert [c["target"] for c in report["contests"]] == ["people"]
    written_2018, written_2020 = written.format(2018), written.format(2020)
    said = capsys.readouterr().err
    assert f"census.csv has {column} '{written_2018}', '{written_2020}'" in said
    assert report["join"]["periods_without_score"] == [written_2018, written_2020]


def test_other_years_are_never_compared(nation: Any) -> None:
    table = pd.DataFrame({"region": nation.names, "year": 2018, "people": nation.people})
    with pytest.raises(EcofmError, match=r"'2018', of which there is no score, but of '2019'"):
        nation.run(table, nation.named())
    table["taken"] = 2019
    assert nation.compared(nation.run(table, nation.named(), period_column="taken"))[0] == 20


def test_rows_without_a_year_are_left_out_and_a_year_is_never_overlooked(nation: Any) -> None:
    table = pd.DataFrame({"region": nation.names, "people": nation.people})
    report = nation.run(table.assign(year=[None] * 2 + [2019] * 18), nation.named())
    assert nation.compared(report)[0] == 18
    assert "left out 2 rows without year: line 2, line 3." in report["readings"]
    for year in ("FY2018", "2018/19", "1 July 2018", "19"):
        with pytest.raises(EcofmError, match="of which there is no score, but of '2019'"):
            nation.run(table.assign(year=year), nation.named())


def test_two_dates_of_one_year_are_refused(nation: Any) -> None:
    table = pd.DataFrame({"region": nation.names, "people": nation.people})
    both = pd.concat([table.assign(date="2019-03-01"), table.assign(date="2019-09-01")])
    with pytest.raises(EcofmError, match=r"two rows for region D00 in period 2019"):
        nation.run(both, nation.named())


def test_columns_of_names_that_mean_more_are_left_out_and_named(nation: Any) -> None:
    table = pd.DataFrame({"region": nation.names, "year": 2019, "date": "2019-05-01"})
    table["unit"], table["people"] = "persons", nation.people
    report = nation.run(table, nation.named())
    assert nation.compared(report)[0] == 20
    assert "left out, for a place or a time is called so: date, unit." in report["readings"]


def test_a_time_that_is_a_statistic_stays_one(nation: Any) -> None:
    table = pd.DataFrame({"region": nation.names, "time": nation.people / 1000})
    assert nation.compared(nation.run(table, nation.named()), "time")[0] == 20


def test_numbers_are_read_as_meant_and_said(
    nation: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    people = [f"{value:,}" for value in nation.people]
    smallest, largest = int(nation.people.argmin()), int(nation.people.argmax())
    people[smallest] = "<5"
    schools = nation.people // 100
    schools[largest] = -9999
    table = pd.DataFrame({"region": nation.names, "people": people, "schools": schools})
    table["note"] = ["", *["see 3"] * 19]
    table["county"] = range(100, 120)
    table["odd"] = ["12", "about 7", *map(str, range(18))]
    report = nation.run(table, nation.named())
    known = [None if n == smallest else v for n, v in enumerate(nation.people)]
    assert nation.compared(report) == (19, pytest.approx(nation.spearman(known)))
    known = [None if n == largest else v for n, v in enumerate(nation.people // 100)]
    assert nation.compared(report, "schools") == (19, pytest.approx(nation.spearman(known)))
    said = capsys.readouterr().err
    for words in (
        "people: missing in 1 cell, which say '<5'",
        "a comma separates thousands",
        "schools: missing in 1 cell of -9999",
        "left out odd is not numbers throughout: 1 of 20 cells are text, such as 'about 7'",
        "left out, for they name places: county.",
        "people has no number in 1 of 20 rows",
        "note holds no numbers, such as 'see 3' (line 3)",
    ):
        assert words in said and any(words in reading for reading in report["readings"])
        assert words in html.unescape((nation.folder / "report" / "report.md").read_text())


def test_doubt_is_asked_about_and_flags_answer(nation: Any) -> None:
    people = nation.people.astype(float)
    people[3] = -99
    table = pd.DataFrame({"region": nation.names, "people": people})
    with pytest.raises(EcofmError, match=r"1 cell of -99 \(line 5\).*--missing"):
        nation.run(table, nation.named())
    with pytest.raises(EcofmError, match=r"1 cell of -99 \(line 5\).*--missing"):
        nation.run(table, nation.named(), targets=["people"])
    assert nation.compared(nation.run(table, nation.named(), missing=["-99"]))[0] == 19
    assert nation.compared(nation.run(table, nation.named(), missing=["none"]))[0] == 20
    lines = [f"{n};{v / 1000:.3f}" for n, v in zip(nation.names, nation.people, strict=True)]
    text = "\n".join(["region;people", *lines[:-1], f"{nation.names[-1]};900"])
    if "0\n" not in text:
        with pytest.raises(EcofmError, match=r"may be .* --decimal"):
            nation.run(text, nation.named())
    report = nation.run(text, nation.named(), decimal=".")
    assert nation.compared(report)[0] == 20


def test_options_that_mean_nothing_are_wrong_usage(nation: Any) -> None:
    table = pd.DataFrame({"region": nation.names, "people": nation.people})
    for config in (
        {"decimal": ";"}, {"lat": "y"}, {"key": "region", "lat": "y", "lon": "x"},
        {"min_covered": 2}, {"radius_m": -1},
    ):  # fmt: skip
        with pytest.raises(ValueError):
            nation.run(table, nation.named(), **config)


def test_wards_smaller_than_a_cell_get_its_score(nation: Any) -> None:
    """Two wards within one cell, between its middle and its corner."""
    west, south, *_ = nation.polygons.geometry[6].bounds
    wards = [box(west + a, south + 100, west + a + 900, south + 1000) for a in (100, 1400)]
    table = gpd.GeoDataFrame(
        {"region": [*nation.names, "East", "West"]},
        geometry=[*nation.polygons.geometry, *wards], crs=nation.polygons.crs,
    )  # fmt: skip
    table.to_file(nation.folder / "wards.gpkg")
    census = pd.DataFrame({"region": table["region"], "people": [*nation.people, 9e4, 8e4]})
    report = nation.run(census, nation.folder / "wards.gpkg")
    assert nation.compared(report)[0] == 22
    assert any("lie one over the other" in said for said in report["join"]["said"])


def test_regions_that_cells_hardly_cover_are_named_with_their_share(nation: Any) -> None:
    west, south, east, north = nation.polygons.geometry[0].bounds
    stretched = nation.polygons.geometry.tolist()
    stretched[0] = box(west - 19 * (east - west), south, east, north)  # 5 % of it is scored
    stretched[5] = box(west - 3 * (east - west), north, east, 2 * north - south)  # 25 %
    polygons = gpd.GeoDataFrame(
        {"region": nation.names}, geometry=stretched, crs=nation.polygons.crs
    )
    polygons.to_file(nation.folder / "long.gpkg")
    census = pd.DataFrame({"region": nation.names, "people": nation.people})
    report = nation.run(census, nation.folder / "long.gpkg")
    assert nation.compared(report)[0] == 19
    (left_out,) = report["join"]["not_covered"]
    assert left_out["name"] == "D00" and left_out["covered"] == pytest.approx(0.05, abs=1e-3)
    (partly,) = report["join"]["partly_covered"]
    assert partly["name"] == "D05" and partly["covered"] == pytest.approx(0.25, abs=1e-3)
    assert ("polygons", "D00", "scored cells cover 5.0%") in nation.unmatched()
    report = nation.run(census, nation.folder / "long.gpkg", min_covered=0)
    assert nation.compared(report)[0] == 20


@pytest.mark.parametrize("low", [-1, 0])
def test_targets_without_a_number_above_zero_are_drawn(nation: Any, low: int) -> None:
    """Losses, of which the largest is far from the others."""
    loss = -(nation.people.astype(float) ** 3)
    loss[loss.argsort()[-3:]] = low
    report = nation.run(pd.DataFrame({"region": nation.names, "people": loss}), nation.named())
    assert nation.compared(report) == (20, pytest.approx(nation.spearman(loss)))
