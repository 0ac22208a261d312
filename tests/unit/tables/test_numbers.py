"""Numbers as offices write them: the number that was meant, said, or a question."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecofm.tables import Column, read_number_columns
from ecofm.tables.reading import from_frame

NAN = np.nan


def read(cells: list[Any], separator: str | None = ",", **more: Any) -> Column:
    table = from_frame(Path("t.csv"), pd.DataFrame({"pop": cells}))
    table = replace(table, separator=separator, unit="line")
    return read_number_columns(table, **more)["pop"]


def numbers(cells: list[Any], **more: Any) -> list[float]:
    column = read(cells, **more)
    assert column.values is not None, column.fault
    return [float(value) for value in column.values]


@pytest.mark.parametrize(
    ("cells", "meant", "said"),
    [
        (["12,300", "950"], [12300, 950], "a comma separates thousands"),
        (["1,234,567", "8"], [1234567, 8], "a comma separates thousands"),
        (["12,300.5", "950"], [12300.5, 950], "a comma separates thousands"),
        (["12 300", "950"], [12300, 950], "a blank separates thousands"),
        (["12\u202f300", "9\u00a0500,5"], [12300, 9500.5], "a blank separates thousands"),
        (["12'300", "950"], [12300, 950], "an apostrophe"),
        (["12\u2019300", "950"], [12300, 950], "an apostrophe"),
        (["12.300,5", "950"], [12300.5, 950], "a point separates thousands"),
        (["1.234.567", "8"], [1234567, 8], "a point separates thousands"),
        (["12.300", "950"], [12300, 950], "a point separates thousands"),
        (["12,34,567", "8"], [1234567, 8], "a comma separates thousands"),
        (["12,5", "7"], [12.5, 7], "a comma is decimal"),
        (["12,305", "7,5"], [12.305, 7.5], "a comma is decimal"),
        (["0,123", "4,567"], [0.123, 4.567], "a comma is decimal"),
        (["1,5E+03", "7"], [1500, 7], "a comma is decimal"),
        (["\u22125", "- 7"], [-5, -7], None),
        (["1e3", "+7.5", ".5", "5."], [1000, 7.5, 0.5, 5], None),
        (["12 %", "7%", "0"], [12, 7, 0], "%"),
        (["$12,300", "$950"], [12300, 950], "$"),
        (["12.5 \u20ac", "7"], [12.5, 7], "\u20ac"),
        (["-$5", "$1,283"], [-5, 1283], "without $"),
        (["USD 1,283", "USD 7"], [1283, 7], "without USD"),
        (["Rs. 1,283", "Rs. 7"], [1283, 7], "without Rs."),
        (["1,283 KRW", "7 KRW"], [1283, 7], "without KRW"),
        (["\uff11\uff12", "\uff17"], [12, 7], None),
        (["12.345", "7.891"], [12.345, 7.891], "ranks would be the same"),
    ],
)
def test_numbers_are_as_they_were_meant(
    cells: list[str], meant: list[float], said: str | None
) -> None:
    column = read(cells)
    assert column.values is not None, column.fault
    assert column.values.tolist() == meant
    assert (said is None) == (not column.notes)
    assert said is None or any(said in note and "(line 1)" in note for note in column.notes)


@pytest.mark.parametrize(
    "mark",
    "<5|< 5|>1,000|\u22645|under 5|*|**|..|...|-|\u2014|n/a|N/A|NA|n.a.|x|X|(D)|(S)|:|c|#N/A|"
    "#DIV/0!|null|NaN|no data|inf|\\N|\u2026|\u2020|\u2021|NR|not reported|5 or less|"
    "\uff1c5|1-4|1\u20134|10+|n<5|up to 5".split("|"),
)
def test_marks_of_secret_and_unknown_numbers_are_missing_and_said(mark: str) -> None:
    column = read(["12", mark, "", mark, "7"])
    assert column.values is not None, column.fault
    np.testing.assert_array_equal(column.values, [12, NAN, NAN, NAN, 7])
    assert column.notes == (f"pop: missing in 2 cells, which say {mark!r} (line 2).",)


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["12,305", "951"], ["'12,305' (line 1) may be 12305 or 12.305"]),
        (["12.305", "951"], ["'12.305' (line 1) may be 12305 or 12.305"]),
        (["1,234.5", "1.234,5"], ["more than one way", "'1,234.5'", "'1.234,5'"]),
        (["12", "see note", "7"], ["1 of 3", "'see note' (line 2)"]),
        (["12", "(7)"], ["'(7)' (line 2)", "write -7 where (7) is below zero"]),
        (["12", "7\u00b2"], ["'7\u00b2' (line 2)"]),
        (["12 %", "0.5"], ["mixes units", "'0.5'"]),
        (["$12", "7 \u20ac"], ["mixes units"]),
    ],
)
def test_doubtful_columns_are_asked_about(cells: list[str], words: list[str]) -> None:
    column = read(cells, separator=";")
    assert column.values is None and not column.is_text
    assert all(word in (column.fault or "") for word in words), column.fault


def test_text_is_told_from_numbers_and_named() -> None:
    column = read(["Hanoi", "n/a", ""])
    assert column.is_text and "'Hanoi' (line 1)" in (column.fault or "")
    assert read(["", ""]).is_text and read(["x", "-"]).is_text


def test_a_comma_that_separates_fields_is_no_decimal_mark() -> None:
    assert numbers(["12,305", "951"]) == [12305, 951]
    assert read(["12,305", "951"], separator="\t").values is None
    assert numbers(["12,305", "951"], separator=";", decimal=",") == [12.305, 951]
    assert numbers(["12,305", "951"], separator=";", decimal=".") == [12305, 951]


def test_other_columns_tell_the_decimal_mark() -> None:
    frame = pd.DataFrame({"pop": ["12.305", "951"], "share": ["0,5", "7,25"]})
    found = read_number_columns(from_frame(Path("t.csv"), frame))
    assert found["pop"].values is not None and found["pop"].values.tolist() == [12305, 951]
    frame = pd.DataFrame({"pop": ["12.305", "9.510"], "share": ["0.5", "7.25"]})
    column = read_number_columns(from_frame(Path("t.csv"), frame))["pop"]
    assert column.values is not None and column.values.tolist() == [12.305, 9.51]
    assert "'12.305' (row 1) is read as 12.305" in column.notes[0]


@pytest.mark.parametrize("other", [["64", "6.444"], ["64", "6.440"], ["70", "1.000"]])
@pytest.mark.parametrize("separator", [",", ";", "\t", None])
def test_a_column_that_contradicts_the_mark_of_others_is_asked_about(
    other: list[str], separator: str | None
) -> None:
    for mark, told in ((".", ","), (",", ".")):
        frame = pd.DataFrame({"pop": other, "rate": ["0.10", "0.13"]}).apply(
            lambda cells, mark=mark: cells.str.replace(".", mark)
        )
        table = replace(from_frame(Path("t.csv"), frame), separator=separator)
        column = read_number_columns(table)["pop"]
        assert column.values is None and "may be" in (column.fault or "")
        column = read_number_columns(table, decimal=told)["pop"]
        assert column.values is not None and column.values[1] >= 1000


def test_degrees_have_no_thousands() -> None:
    table = from_frame(
        Path("t.csv"), pd.DataFrame({"lat": ["37,002", "37"], "lon": ["127.125", "5"]})
    )
    found = read_number_columns(table, thousands=False)
    assert [column.values.tolist() for column in found.values() if column.values is not None] == [
        [37.002, 37],
        [127.125, 5],
    ]


PEOPLE = [1200, 3400, 560, 78000, 910]
RATES = [0.5, 2.5, 3.0, 1.25, 0.75]
GROWTH = [-110, -99, -50, -9, 12, 99]


@pytest.mark.parametrize(
    ("values", "gone"),
    [
        ([*PEOPLE, -9999, -9999], -9999),
        ([*PEOPLE, -9999], -9999),
        ([*PEOPLE, -999], -999),
        ([*PEOPLE, -99999], -99999),
        ([*PEOPLE, -99, -99], -99),
        ([*RATES, -9999.0], -9999),
        ([*GROWTH, -9999], -9999),
        ([*RATES, -0.5, -999], -999),
        ([-20, 30, 10, -999], -999),
        ([*PEOPLE, -32768], -32768),
        ([*PEOPLE, 1e20], 1e20),
        ([*PEOPLE, -1e38], -1e38),
        ([*GROWTH, -3.4028234663852886e38], -3.4028234663852886e38),
        ([*RATES, 9999, 9999], 9999),
        ([100, 250, 390, 9999, 9999], 9999),
        ([*RATES, -9999.99], -9999.99),
        ([*PEOPLE, -999.9, -999.9], -999.9),
        ([*RATES, -99.9, -99.9], -99.9),
        ([*RATES, float(np.float32(-9999.99))], float(np.float32(-9999.99))),
    ],
)
def test_numbers_that_can_be_no_values_are_missing_and_said(
    values: list[float], gone: float
) -> None:
    for cells in (values, [str(value) for value in values]):
        column = read(cells)
        assert column.values is not None, column.fault
        expected = [NAN if value == gone else value for value in values]
        np.testing.assert_array_equal(column.values, expected)
        assert f"of {gone:.15g}" in column.notes[-1]


@pytest.mark.parametrize(
    "values",
    [
        GROWTH,
        [*GROWTH, -99],
        [-5000, 3000, 4000, 200, -999],
        [0, 1, 2, 5, -1, -1],
        [9000, 9500, 9999],
        [95.5, 97, 99],
        [12, 99, 30, 45],
        [-1, -2, -3],
        [-9, -9, -9, -9],
        [9999],
    ],
)
def test_numbers_that_can_be_values_stay(values: list[float]) -> None:
    assert numbers(values) == values


@pytest.mark.parametrize(
    ("values", "asked"),
    [
        ([*PEOPLE, -99], -99),
        ([*PEOPLE, -9, -9], -9),
        ([*PEOPLE, -1], -1),
        ([*RATES, 9999], 9999),
        ([*RATES, 99, 99], 99),
        ([*PEOPLE, -88, -88], -88),
        ([1, 0, 99], 99),
        ([-5000, 3000, 4000, 200, -9999], -9999),
        ([-50_000, 30_000, 4000, 200, -9999, -9999], -9999),
        ([-100, 200, 10, -999], -999),
        ([*range(-380, 380, 40), -999, -999, -999], -999),
        ([*PEOPLE, -99.9], -99.9),
        ([1283, 38_540, 217_820, 999_999], 999_999),
        ([*PEOPLE, 9_999_999], 9_999_999),
        ([*range(1950, 2008, 3), 9999], 9999),
        ([*range(5), 4.75, -1, -1, -1], -1),
        ([-0.5, 0.25, 0.1, -9], -9),
    ],
)
def test_numbers_that_may_be_either_are_asked_about(values: list[float], asked: float) -> None:
    column = read(values)
    assert column.values is None
    assert f"of {asked:.15g} (" in (column.fault or "") and "may be" in (column.fault or "")


def test_who_says_what_is_missing_is_believed() -> None:
    assert numbers([*PEOPLE, -99], missing=["none"])[-1] == -99
    assert np.isnan(numbers([*PEOPLE, -99], missing=["-99"])[-1])
    told = numbers([*PEOPLE, -1, -9999], missing=["-1"])
    assert np.isnan(told[-2:]).all()
    assert numbers([*PEOPLE, -1, -9999], missing=["none", "-1"])[-1] == -9999
    kept = read([*PEOPLE, -9999, -9999], missing=["none"])
    assert kept.notes == (
        "pop: kept as numbers, though they may be none: 2 cells of -9999 (line 6).",
    )
    assert np.isnan(numbers(["12", "geheim"], missing=["Geheim"])[-1])
    assert np.isnan(numbers([1.0, np.inf, 2.0])[1])


STYLES = {
    "plain": lambda v: f"{v}",
    "comma": lambda v: f"{v:,}",
    "point": lambda v: f"{v:,}".replace(",", "."),
    "blank": lambda v: f"{v:,}".replace(",", "\u00a0"),
    "apostrophe": lambda v: f"{v:,}".replace(",", "'"),
}


@given(
    values=st.lists(st.integers(0, 10**8), min_size=2, max_size=20, unique=True),
    style=st.sampled_from(sorted(STYLES)),
    separator=st.sampled_from([",", ";", "\t", None]),
)
def test_whole_numbers_keep_their_order_in_every_style(
    values: list[int], style: str, separator: str | None
) -> None:
    """What is read has the ranks that were meant, or the column is asked about."""
    column = read([STYLES[style](value) for value in values], separator=separator, missing=["none"])
    if column.values is not None:
        assert np.argsort(column.values).tolist() == np.argsort(values).tolist()
    else:
        assert style in ("comma", "point") and "may be" in (column.fault or "")
