"""Spelling: what people write is found in names, and what is no date is not."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecofm.cli import main
from ecofm.spelling import Unclear, find, spell
from ecofm.tiles.periods import FORMS_TOLD, parse_period, read_period

TODAY = datetime.date(2024, 5, 1)
GUIDE = Path(__file__).parents[2] / "docs" / "ARCHIVE.md"


def period_in(name: str) -> str | None:
    return read_period(name, None, (), TODAY)[1]


def spellings() -> list[tuple[str, str]]:
    """Return what the guide's table promises: a spelling and how it is stored."""
    found = []
    for line in GUIDE.read_text(encoding="utf-8").splitlines():
        cells = [re.findall(r"`([^`]+)`", cell) for cell in line.split("|")[1:3]]
        if len(cells) == 2 and len(cells[1]) == 1 and re.fullmatch(r"[0-9Q-]+", cells[1][0]):
            found += [(text, cells[1][0]) for text in cells[0]]
    return found


def test_the_help_and_the_guide_list_all_forms(capsys: pytest.CaptureFixture[str]) -> None:
    main(["tile", "--help"])
    # The help is drawn in a box as wide as the terminal.
    for text in (capsys.readouterr().out, GUIDE.read_text(encoding="utf-8")):
        assert FORMS_TOLD in " ".join(re.sub("[│|]", " ", text).split())


def test_the_guide_has_a_table() -> None:
    assert len(spellings()) > 30


@pytest.mark.parametrize(("text", "stored"), spellings())
def test_what_the_guide_promises(text: str, stored: str) -> None:
    assert parse_period(text) == stored
    if "/" not in text:
        for name in (text, f"mosaic_{text}", f"{text}_B04", f"kosan_{text}_rgb", f"S2-{text}-10m"):
            assert period_in(name) == stored, name


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("nk_2016", "2016"),
        ("kosan2019", "2019"),
        ("2019mosaic", "2019"),
        ("2019v2", "2019"),
        ("mosaic_2019-0000000000-0000001024", "2019"),
        ("mosaic_2019-04-0000000000-0000001024", "2019-04"),
        ("mosaic_2019_1", "2019"),
        ("mosaic_2019_1_2", "2019"),
        ("rgb_2019_10m", "2019"),
        ("rgb_2019_04_10m", "2019-04"),
        ("rgb_2019_10TFK", "2019"),
        ("rgb_2048px_2019", "2019"),
        ("rgb_2048_2019", "2019"),
        ("rgb_1024x2048_2019", "2019"),
        ("rgb_2016x2016_2019", "2019"),
        ("32652_2019", "2019"),
        ("2019_32652", "2019"),
        ("6259_2019", "2019"),
        ("tile_2017_2019", "2019"),
        ("tile2017_2019", "2019"),
        ("epsg2017_2019", "2019"),
        ("S2_2019-04_v2020", "2019-04"),
        ("S2_2019-04_v2020.1", "2019-04"),
        ("a3f2017bc_2019", "2019"),
        ("2017abcd_2019", "2019"),
        ("3f2504e0-2017-11d3-9a0c-0305e82c3301_2019", "2019"),
        ("GHS_BUILT_S_2018_GLOBE_R2023A_54009", "2018"),
        ("1990", "1990"),
        ("rgb_2000_patches_2019", "2019"),
        ("landsat_1990-1999", "1990--1999"),
        ("2019_2019-04", "2019-04"),
        ("2019-Q2_20190612", "2019-06-12"),
        ("X2019.04.01", "2019-04-01"),
        ("20190612_021611_1034_3B", "2019-06-12"),
        ("20190612021611", "2019-06-12"),
        ("2019-06-12T02:16:11.024Z", "2019-06-12"),
        ("fall_creek_2019", "2019"),
        ("springfield_2019", "2019"),
        ("01dec2019", "2019-12-01"),
        ("feb2019", "2019-02"),
        ("Sentinel-2-2019", "2019"),
        ("Sentinel-2_mosaic_2019_Q2_52SCG_0_0", "2019-Q2"),
        ("S2B_52SCG_20190612_0_L2A", "2019-06-12"),
        ("SENTINEL2A_20190612-021611-123_L2A_T52SCG_C_V2-2", "2019-06-12"),
        ("S2A_MSIL2A_20190612T021611_N0500_R003_T52SCG_20230612T051229", "2019-06-12"),
        ("S2A_MSIL1C_20190612T021611_20230612T051229_processed_2022", "2019-06-12"),
        ("S2A_OPER_PRD_MSIL1C_PDMC_20160805T101010_R003_V20160804T021611_20160804T021611",
         "2016-08-04"),
        ("20190612T021611_20230612T051229_T52SCG", "2019-06-12"),
        ("LC08_L2SP_116033_20190612_20200828_02_T1_SR", "2019-06-12"),
        ("HLS.S30.T52SCG.2019163T021611.v2.0", "2019-06-12"),
        ("20190612T235950_20190613T000010", "2019-06-12"),
    ],
)  # fmt: skip
def test_names_as_they_are(name: str, stored: str) -> None:
    assert period_in(name) == stored


@pytest.mark.parametrize(
    "name",
    [
        "2048", "rgb_2048px", "2016px", "2019m", "2019a", "1024x2019", "tile_2019", "tile2019",
        "v2020", "epsg_2154", "EPSG2019", "0.2019", "1.2019", "a_12019", "20191399", "20190230",
        "1960", "2025", "202406", "2024-06", "20240601", "2019abcd", "a1b2019",
        "3f2504e0-2019-11d3-9a0c-0305e82c3301", "R003", "N0509", "T52SCG", "32652", "x", "",
        "GHS_R2023A", "FY2019", "1234", "seed2019",
    ],
)  # fmt: skip
def test_numbers_that_are_no_date(name: str) -> None:
    assert period_in(name) is None


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("a_2019-4", "2019-4"),
        ("a_2019.4", "2019.4"),
        ("a_2019_13", "2019_13"),
        ("a_2019-00", "2019-00"),
        ("a_04_2019", "04_2019"),
        ("a_12-06-2019", "12-06-2019"),
        ("a_15_06_2019", "15_06_2019"),
        ("a_2019163", "2019163"),
        ("a_2019-163", "2019-163"),
        ("a_2019_04-06", "2019_04-06"),
        ("a_2019-04_06", "2019-04_06"),
        ("a_2019-02-30", "2019-02-30"),
        ("a_2019_04b", "2019_04b"),
        ("a_2019_12_bands", "2019_12"),
        ("a_2019_month04", "2019_month04"),
        ("a_2019_m4", "2019_m4"),
        ("a_2019_wk12", "2019_wk12"),
        ("a_week12_2019", "week12_2019"),
        ("a_2019_doy163", "2019_doy163"),
        ("a_2019_d163", "2019_d163"),
        ("a_quarter2_2019", "quarter2_2019"),
        ("a_2019_first_half", "2019_first_half"),
        ("a_2019Q5", "2019Q5"),
        ("a_2019_H3", "2019_H3"),
        ("a_1990_2019", "1990_2019"),
        ("summer_2019", "summer_2019"),
        ("a_2019-dry", "2019-dry"),
        ("winter_2018-2019", "winter_2018"),
        ("a_Dec-Jan2019", "Dec-Jan2019"),
    ],
)
def test_what_may_be_read_in_two_ways_is_not_guessed(name: str, word: str) -> None:
    with pytest.raises(Unclear, match="--period") as found:
        find(name, TODAY)
    assert repr(word) in str(found.value)


@given(st.dates(datetime.date(2015, 1, 1), datetime.date(2024, 4, 30)), st.sampled_from(
    ["%Y-%m-%d", "%Y_%m_%d", "%Y.%m.%d", "%Y%m%d", "%Y%m%dT%H%M%S", "%d%b%Y", "%Y-%b-%d"]
))  # fmt: skip
def test_every_day_is_found(day: datetime.date, form: str) -> None:
    assert period_in(f"S2_{day.strftime(form)}_B04") == day.isoformat()


@given(st.text(alphabet="0123456789-_. TQHWabcdefpxv/", max_size=40))
def test_any_name_has_an_answer(name: str) -> None:
    """It is a list of spans that begin before today, or one sentence; never another error."""
    try:
        spans = find(name, TODAY)
    except Unclear as error:
        assert "\n" not in str(error)
    else:
        assert all(span.first <= span.last and span.first <= TODAY for span in spans)


@given(st.text(alphabet="0123456789-_. TQHWabcdefpxv/", max_size=24))
def test_any_text_is_a_span_or_none(text: str) -> None:
    span = spell(text)
    assert span is None or span.first <= span.last


def test_a_long_text_is_refused_at_once() -> None:
    """Its parts are not tried in all ways: that would take longer than the universe has."""
    assert spell("2019-" * 12) is None and spell("2019-" * 1000) is None
