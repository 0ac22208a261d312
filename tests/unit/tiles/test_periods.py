"""Periods: one way to store them, order, what holds what, and what scenes say of their time."""

from __future__ import annotations

import datetime
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecofm.errors import SceneError
from ecofm.tiles.periods import (
    FORMS_TOLD,
    Period,
    canonical,
    day_number,
    last_day,
    lies_in,
    middle_day,
    parse_period,
    period_of_folders,
    period_of_span,
    period_or,
    read,
    read_period,
    sort_periods,
    widen,
    years_of,
)

DAYS = st.dates(datetime.date(1972, 1, 1), datetime.date(2100, 12, 31))
ONE = datetime.timedelta(days=1)


@st.composite
def periods(draw: st.DrawFn) -> Period:
    """Draw any span, and often one that begins and ends with months, quarters or years."""
    first, last = sorted(draw(st.tuples(DAYS, DAYS)))
    length = draw(st.sampled_from(["days", "day", "month", "quarter", "year", "months", "years"]))
    if length == "days":
        return Period(first, last)
    if length in ("day", "month", "quarter", "year"):
        return read(widen(first.isoformat(), "date" if length == "day" else length))
    per = length.removesuffix("s")
    return Period(
        read(widen(first.isoformat(), per)).first, read(widen(last.isoformat(), per)).last
    )


@given(periods())
def test_a_period_is_what_its_text_is(period: Period) -> None:
    assert read(str(period)) == period
    assert parse_period(str(period)) == str(period)


@given(periods(), periods())
def test_equal_texts_are_equal_spans(one: Period, other: Period) -> None:
    assert (str(one) == str(other)) == (one == other)


@given(periods())
def test_a_text_is_fit_for_files_and_ids(period: Period) -> None:
    assert set(str(period)) <= set("0123456789-Q") and not str(period).startswith("-")
    assert f"32652_3375_250@{period}".split("@") == ["32652_3375_250", str(period)]


@given(st.lists(periods(), max_size=6))
def test_periods_are_sorted_by_their_first_day_and_then_by_their_last(found: list[Period]) -> None:
    spans = [read(text) for text in sort_periods(map(str, found))]
    assert spans == sorted(set(found), key=lambda span: (span.first, span.last))


def test_chips_and_names_from_elsewhere_are_sorted_too() -> None:
    found = ["2019-Q2", "none", "2019-04", "2018--2019", "2019", "2018", "before"]
    assert sort_periods(found) == [
        "before", "none", "2018", "2018--2019", "2019", "2019-04", "2019-Q2",
    ]  # fmt: skip


@given(periods())
def test_the_middle_lies_inside(period: Period) -> None:
    assert period.first <= period.middle <= period.last
    before, after = (period.middle - period.first).days, (period.last - period.middle).days
    assert abs(before - after) <= 2
    assert middle_day(str(period)) == period.middle
    assert last_day(str(period)) == period.last.isoformat()


@given(periods(), st.sampled_from(["month", "quarter", "year"]))
def test_what_is_widened_holds_what_it_was(period: Period, per: str) -> None:
    try:
        wide = read(widen(str(period), per))
    except SceneError as error:
        assert period.first.timetuple()[:2] != period.last.timetuple()[:2]
        advised = [word for word in ("month", "quarter", "year") if f"--per {word}" in str(error)]
        assert "--per date" in str(error)
        for other in advised:
            assert read(widen(str(period), other)).holds(period), "the advice is true"
    else:
        assert wide.kind == per and wide.holds(period)
        assert period == wide or lies_in(str(period), str(wide))


@given(DAYS)
def test_day_month_quarter_and_year_hold_each_other(day: datetime.date) -> None:
    spans = [read(widen(day.isoformat(), per)) for per in ("date", "month", "quarter", "year")]
    for (n, narrow), (m, wide) in itertools.product(enumerate(spans), enumerate(spans)):
        assert wide.holds(narrow) == (n <= m)


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("2019-01-01--2019-12-31", "2019"),
        ("2019-01--2019-12", "2019"),
        ("2019-Q1--2019-Q4", "2019"),
        ("2019-04--2019-06", "2019-Q2"),
        ("20190401-20190430", "2019-04"),
        ("2018-2019", "2018--2019"),
        ("2019-01-01--2020-01-01", "2019-01-01--2020-01-01"),
        ("2018-12--2019-02", "2018-12--2019-02"),
        ("0001", "0001"),
        ("9999-12", "9999-12"),
    ],
)
def test_a_range_that_is_a_unit_becomes_it(text: str, stored: str) -> None:
    assert parse_period(text) == stored and canonical(text) == stored


def test_the_message_lists_all_forms_and_a_table_s_other_words_stay() -> None:
    with pytest.raises(ValueError, match="expected") as found:
        parse_period("summer")
    assert FORMS_TOLD in str(found.value)
    assert canonical("summer") == "summer" and canonical("none") == "none"


@pytest.mark.parametrize(
    ("period", "dates", "day"),
    [
        ("none", [], 0),
        ("1970-01-01", [], 0),
        ("1970", ["1970-01-01", "1970-01-03"], 1),
        ("1970-Q1", ["1970-01", "1970-02"], 29),
    ],
)
def test_days_are_counted_from_1970(period: str, dates: list[str], day: int) -> None:
    assert day_number(period, dates) == day


def test_years_of_a_range_are_all_of_them() -> None:
    assert years_of("2017-12--2019-02") == ["2017", "2018", "2019"]
    assert years_of("2019-Q2") == ["2019"] and years_of("none") == []


TODAY = datetime.date(2024, 5, 1)


@pytest.mark.parametrize(
    ("name", "tag", "metadata", "date", "period"),
    [
        ("a_2019", None, [], None, "2019"),
        ("a_2019-04", None, [], None, "2019-04"),
        ("a_20190612", None, [], "2019-06-12", "2019-06-12"),
        ("a_2019", None, ["2018-06-12T02:16:11.024Z"], "2018-06-12", "2018-06-12"),
        ("a_2019-4", None, ["2018-06-12T02:16:11Z"], "2018-06-12", "2018-06-12"),
        ("a_20190613", None, ["2019-06-12T23:59:59Z"], "2019-06-12", "2019-06-12"),
        ("a_2019-06", None, ["2019-06-12"], "2019-06-12", "2019-06-12"),
        ("a", None, ["not known", "2019-06-12"], "2019-06-12", "2019-06-12"),
        ("a", None, ["2019-01--2019-05"], None, "2019-01--2019-05"),
        ("a_2018", "2019", [], None, "2019"),
        ("a_2019-04", "2019", [], "2019-04", "2019"),
        ("a_201904", "2019_Q2", [], "2019-04", "2019-Q2"),
        ("a", "2019--2020", ["2020-02-01"], "2020-02-01", "2019--2020"),
        ("a", None, [], None, None),
    ],
)
def test_what_counts_before_what(
    name: str, tag: str | None, metadata: list[str], date: str | None, period: str | None
) -> None:
    assert read_period(name, tag, metadata, TODAY) == (date, period)


@pytest.mark.parametrize(
    ("name", "tag", "metadata", "reason"),
    [
        ("a_20190601", None, ["2020-02-02"], "is of 2020-02-02 by its metadata and of 2019-06-01"),
        ("a_2019-06", None, ["2020-02-02"], "is of 2020-02-02 by its metadata and of 2019-06"),
        ("a_2019-04", "2018", [], "is of period 2018 by its tag and of 2019-04 otherwise"),
        ("a", "2018", ["2019-04-01"], "is of period 2018 by its tag and of 2019-04-01 otherwise"),
        ("a", "spring", [], "has a bad tag"),
        ("rgb_2019_processed_2022", None, [], "names 2019 and 2022.*--period|2019.*2022"),
        ("a_2019-4", None, [], "2019-04, or give --period"),
    ],
)
def test_contradictions_are_refused_and_a_given_period_settles_them(
    name: str, tag: str | None, metadata: list[str], reason: str
) -> None:
    with pytest.raises(SceneError, match=reason):
        read_period(name, tag, metadata, TODAY)
    assert period_or("2017", name, tag, metadata) == (None, "2017")


def test_a_given_period_keeps_a_month_that_lies_in_it() -> None:
    assert period_or("2019", "a_2019-04", None, []) == ("2019-04", "2019")
    assert period_or("2018", "a_2019-04", None, []) == (None, "2018")
    assert period_or("2019", "a_20190612", None, []) == ("2019-06-12", "2019")
    assert period_or("none", "a_2019-04", None, []) == (None, "none")


def test_nothing_is_from_the_future() -> None:
    assert read_period("a_2048_2019", None, (), TODAY) == (None, "2019")
    assert read_period("a_2025", None, (), TODAY) == (None, None)
    assert read_period("a_2025", None, (), datetime.date(2025, 1, 1)) == (None, "2025")
    assert read_period("a_20240503", None, (), TODAY) == (None, None)
    assert read_period("a_20240502", None, (), TODAY)[0] == "2024-05-02", "today elsewhere"


@pytest.mark.parametrize(
    ("start", "end", "period"),
    [
        ("2019-01-01T00:00:00Z", "2019-12-31T23:59:59Z", "2019"),
        ("2019-01-01T00:00:00Z", "2020-01-01T00:00:00Z", "2019"),
        ("2019-01-01T00:00:00Z", "2019-12-31T00:00:00Z", "2019"),
        ("2019-04-01", "2019-06-30", "2019-Q2"),
        ("2019-04-01T00:00:00+00:00", "2019-05-01T00:00:00+00:00", "2019-04"),
        ("2019-01-15T00:00:00Z", "2019-02-15T00:00:00Z", "2019-01-15--2019-02-14"),
        ("2019-06-12T00:00:00Z", "2019-06-13T00:00:00Z", "2019-06-12"),
        ("2019-06-12T02:16:11Z", "2019-06-12T02:16:29Z", "2019-06-12"),
        ("2019-06-12T23:59:50Z", "2019-06-13T00:00:10Z", "2019-06-12"),
        ("2018-01-01T00:00:00Z", "2019-12-31T23:59:59.999Z", "2018--2019"),
        ("2019-06-12T02:16:11Z", None, "2019-06-12"),
        (None, None, None),
        ("soon", "later", None),
    ],
)
def test_metadata_of_a_span(start: str | None, end: str | None, period: str | None) -> None:
    assert period_of_span(start, end) == period


def test_a_span_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(SceneError, match="ends before that"):
        period_of_span("2019-12-31T00:00:00Z", "2019-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("folders", "period"),
    [
        (["2019", "data"], "2019"),
        (["04", "2019"], "2019-04"),
        (["12", "06", "2019"], "2019-06-12"),
        (["deep", "3", "2017-06-12"], "2017-06-12"),
        (["0", "nk_2016"], "2016"),
        (["2018-Q2", "2019"], "2018-Q2"),
        (["a", "b"], None),
        (["export_20230405", "downloads-2023"], None),
        (["processed_2023", "2019"], "2019"),
    ],
)
def test_the_nearest_folder_that_tells_counts(folders: list[str], period: str | None) -> None:
    assert period_of_folders(folders, TODAY) == period


def test_an_unclear_folder_is_refused() -> None:
    with pytest.raises(SceneError, match="has a folder whose period is unclear"):
        period_of_folders(["2019_13"], TODAY)
