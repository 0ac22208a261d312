"""The time of a table's rows: which column tells it, and which period of ours it is."""

from __future__ import annotations

import calendar
import datetime
import re
from collections.abc import Iterable, Mapping

from ecofm.spelling import spell
from ecofm.tables.keys import ALIKE, canonical

PERIOD_COLUMNS = (
    "period", "year", "survey_year", "census_year", "reference_year", "ref_year", "dhsyear",
    "data_year", "hv007", "v007", "yr", "date", "time", "survey_date", "jahr", "annee", "année",
    "ano", "año", "anno", "rok", "tahun", "năm",
)  # fmt: skip
"""Names of a column that tells the time, the likeliest first, as `column_name` writes them."""
MAY_BE_A_STATISTIC = {"time"}
"""Those that may also be a number of hours: they must hold years or dates."""

FIRST, LAST = 1900, 2099
"""Years of a table: other numbers of four digits are none."""
DAY = re.compile(r"(\d{4})[-/.](\d\d?)(?:[-/.](\d\d?)(?:[T ]\d\d:\d\d.*)?)?")
"""Also of one digit, or with slashes: in a column of dates no name is to be told apart."""
YEAR_LAST = re.compile(r"\d\d?[-/.]\d\d?[-/.](\d{4})")

Span = tuple[datetime.date, datetime.date]


def match_periods(given: Iterable[str], ours: Iterable[str]) -> Mapping[str, str]:
    """Return for the periods of a table, as written there, ours that they fall in.

    2019.0 is 2019. A date falls in its day, month, quarter or year, of which we must have one only;
    a year falls in no quarter or day. What is not in the result has no period of ours.
    """
    known = {period: span_of(period) for period in dict.fromkeys(ours)}
    found = {}
    for written in dict.fromkeys(given):
        period = canonical(written)
        if period in known:
            found[written] = period
            continue
        span = span_of(period)
        within = [p for p, other in known.items() if span and other and _holds(other, span)]
        same = [p for p in within if known[p] == span] or within
        if len(same) == 1:
            found[written] = same[0]
    return found


def span_of(period: str) -> Span | None:
    """Return the first and last day of a year, quarter, month, day or range; None of others.

    Where days and months can be confused, as in 02/03/2019, only the year is known.
    """
    try:
        span = _read_span(period)
    except ValueError:
        return None
    return span if span and FIRST <= span[0].year <= span[1].year <= LAST else None


def _read_span(period: str) -> Span | None:
    if found := YEAR_LAST.fullmatch(period):
        return _months(int(found[1]), 1, 12)
    if found := DAY.fullmatch(period):
        if found[3] is None:
            return _months(int(found[1]), int(found[2]), int(found[2]))
        day = datetime.date(int(found[1]), int(found[2]), int(found[3]))
        return day, day
    spelled = spell(period.translate(ALIKE))
    return (spelled.first, spelled.last) if spelled else None


def _months(year: int, first: int, last: int) -> Span:
    end = calendar.monthrange(year, last)[1]
    return datetime.date(year, first, 1), datetime.date(year, last, end)


def _holds(outer: Span, inner: Span) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]
