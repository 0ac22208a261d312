"""Periods and dates: what tags, metadata and names say of time, and whether they agree."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence

from ecofm.errors import SceneError, UsageError

DATE = re.compile(r"(?<![0-9])((?:19|20)[0-9]{2})[-_.]?([0-9]{2})[-_.]?([0-9]{2})(?![0-9])")
YEAR = re.compile(r"(?<![0-9])((?:19|20)[0-9]{2}(?:-Q[1-4])?)(?![0-9])")
PERIOD = re.compile(r"[0-9]{4}(-Q[1-4]|-[0-9]{2}-[0-9]{2})?")
EPOCH = datetime.date(1970, 1, 1).toordinal()
MAX_APART_DAYS = 1  # a pass near midnight has two dates


def parse_period(text: str) -> str:
    """Return a period as it is stored; raises ValueError unless it is a year, quarter or day."""
    found = PERIOD.fullmatch(text)
    try:
        if not found:
            raise ValueError
        datetime.date.fromisoformat(text if len(text) == 10 else f"{text[:4]}-01-01")
    except ValueError:
        raise UsageError(
            f"period {text[:40]!r}: expected a year, a quarter or a day (2019, 2019-Q2, 2019-06-12)"
        ) from None
    return text


def find_dates(text: str) -> list[str]:
    """Return all days that a text names, as 2019-06-12."""
    days = []
    for found in DATE.finditer(text):
        try:
            days.append(datetime.date(*map(int, found.groups())).isoformat())
        except ValueError:
            continue
    return days


def read_period(
    name: str, tag: str | None, metadata: Sequence[str] = ()
) -> tuple[str | None, str | None]:
    """Return (date, period) from the tag `period`, else metadata, else the name.

    Metadata are texts of the product, the most trusted first. Raises SceneError when they and the
    name contradict one another.
    """
    told = next((days[0] for text in metadata if (days := find_dates(text))), None)
    named = find_dates(name)
    if told and named and not any(_are_near(told, day) for day in named):
        raise SceneError(f"is of {told} by its metadata and of {named[0]} by its name")
    date = told or (named[0] if named else None)
    if tag is not None:
        try:
            period = parse_period(tag)
        except ValueError as error:
            raise SceneError(f"has a bad tag: {error}") from error
        if date and not _contains(period, date):
            raise SceneError(f"is of period {period} by its tag and of {date} otherwise")
        return date, period
    if date:
        return date, date
    year = YEAR.search(name)
    return None, year[1] if year else None


def _are_near(one: str, other: str) -> bool:
    first, second = map(datetime.date.fromisoformat, (one, other))
    return abs((first - second).days) <= MAX_APART_DAYS


def quarter_of(day: str) -> str:
    """Return the quarter of a day: 2019-Q2."""
    return f"{day[:4]}-Q{(int(day[5:7]) + 2) // 3}"


def _contains(period: str, day: str) -> bool:
    return period in (day[:4], quarter_of(day)) or (len(period) == 10 and _are_near(period, day))


def widen(period: str, per: str) -> str:
    """Return the year or quarter in which a period lies, or the period itself for `date`.

    Raises SceneError when a year is to become a quarter.
    """
    if per == "date":
        return period
    if per == "year":
        return period[:4]
    if len(period) == 4:
        raise SceneError(f"is of the year {period}, which is no quarter; give --per year")
    return period if "Q" in period else quarter_of(period)


def middle_day(period: str) -> datetime.date:
    """Return the day in the middle of a period."""
    if len(period) == 10:
        return datetime.date.fromisoformat(period)
    month = 3 * int(period[-1]) - 1 if "Q" in period else 7
    return datetime.date(int(period[:4]), month, 15 if "Q" in period else 1)


def day_number(period: str, dates: Sequence[str] = ()) -> int:
    """Return the mean of some dates, else the middle of a period, in days since 1970-01-01."""
    if not dates:
        return 0 if period == "none" else middle_day(period).toordinal() - EPOCH
    days = [datetime.date.fromisoformat(date).toordinal() for date in dates]
    return round(sum(days) / len(days)) - EPOCH
