"""Periods: the spans of days that tiles stand for, as text and as days, and what holds what.

A period is a day, a month, a quarter, a year, or a range of these, always written in one way, so
that equal periods are equal texts: `2019-06-12`, `2019-06`, `2019-Q2`, `2019`, `2018--2019`,
`2019-06--2019-08`, `2019-06-12--2019-07-03`. How people may write them is in `spelling`.
"""

from __future__ import annotations

import calendar
import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ecofm.errors import SceneError, UsageError
from ecofm.spelling import FIRST_SENTINEL, ONE_DAY, Spelled, Unclear, find, spell

TIMELESS = "none"
"""What a chip has in place of a period."""
FORMS_TOLD = (
    "a year (2019), a quarter (2019-Q2), a month (2019-04), a day (2019-06-12) or a range of them "
    "(2018--2019)"
)
PER = ("month", "quarter", "year")
EPOCH = datetime.date(1970, 1, 1).toordinal()
MAX_APART_DAYS = 1  # a pass near midnight has two dates
TIME_TAGS = (
    "PRODUCT_START_TIME", "SENSING_TIME", "DATATAKE_1_DATATAKE_SENSING_START",
    "ACQUISITION_DATE", "ACQUISITIONDATETIME", "DATE_ACQUIRED", "datetime",
)  # fmt: skip
"""Tags of a raster that tell when it was sensed."""
ONE_PASS = datetime.timedelta(hours=2)
MADE = re.compile("download|export|process|creat|produc|generat|deliver|updat|release", re.I)
"""A folder that is named by these tells when files were made, not what they show."""
NESTED = re.compile(r"[0-9]{4}(-[0-9]{2}){1,2}")


@dataclass(frozen=True, order=True, slots=True)
class Period:
    """A span of days; the earlier one begins first, or ends first."""

    first: datetime.date
    last: datetime.date
    """Included."""

    @property
    def kind(self) -> str:
        """`day`, `month`, `quarter`, `year` or `range`."""
        if self.first == self.last:
            return "day"
        n_months = self._n_months
        if n_months == 1:
            return "month"
        if n_months == 3 and self.first.month % 3 == 1:
            return "quarter"
        return "year" if n_months == 12 and self.first.month == 1 else "range"

    @property
    def _n_months(self) -> int:
        """How many whole months it is, 0 when it is none."""
        last = self.last
        if self.first.day > 1 or last.day < calendar.monthrange(last.year, last.month)[1]:
            return 0
        return 12 * (last.year - self.first.year) + last.month - self.first.month + 1

    def __str__(self) -> str:
        """Return the one way in which it is written."""
        day = self.first.isoformat()
        match self.kind:
            case "day":
                return day
            case "month":
                return day[:7]
            case "quarter":
                return f"{day[:4]}-Q{self.first.month // 3 + 1}"
            case "year":
                return day[:4]
        n_months = self._n_months
        length = 10 if not n_months else 7 if n_months % 12 or self.first.month > 1 else 4
        return f"{day[:length]}--{self.last.isoformat()[:length]}"

    def holds(self, other: Period) -> bool:
        """Return whether all days of another period are in it."""
        return self.first <= other.first and other.last <= self.last

    def is_near(self, other: Period) -> bool:
        """Return whether the two share a day, or are as near as the two dates of a pass."""
        apart = MAX_APART_DAYS * ONE_DAY
        return self.first <= other.last + apart and other.first <= self.last + apart

    @property
    def middle(self) -> datetime.date:
        """The day in the middle."""
        return self.first + max((self.last - self.first).days - 1, 0) // 2 * ONE_DAY


def read(text: str) -> Period:
    """Return the period that a text is, in any spelling; raises ValueError when it is none."""
    span = spell(text)
    if span is None:
        raise UsageError(f"period {text[:40]!r}: expected {FORMS_TOLD}")
    return Period(span.first, span.last)


def parse_period(text: str) -> str:
    """Return a period as it is stored: `201904` is 2019-04; raises ValueError when it is none."""
    return str(read(text))


def canonical(text: str) -> str:
    """Return a period as it is stored, and what is none as it is: a table may hold others."""
    try:
        return parse_period(text)
    except ValueError:
        return text


def sort_periods(texts: Iterable[str]) -> list[str]:
    """Return periods in order of time, each once; what is none comes first, by its name."""
    return sorted(set(texts), key=lambda text: (sort_key(text), text))


def sort_key(text: str) -> tuple[datetime.date, datetime.date]:
    """Return what puts a period in order of time; what is none comes first."""
    span = spell(text)
    return (span.first, span.last) if span else (datetime.date.min, datetime.date.min)


def years_of(period: str) -> list[str]:
    """Return the years that a period has days in."""
    if period == TIMELESS:
        return []
    span = read(period)
    return [f"{year:04d}" for year in range(span.first.year, span.last.year + 1)]


def read_period(
    name: str,
    tag: str | None,
    metadata: Sequence[str] = (),
    today: datetime.date | None = None,
) -> tuple[str | None, str | None]:
    """Return (date, period) from the tag `period`, else metadata, else the name.

    Metadata are texts of the product, the most trusted first. The date is a day, or where a tag
    gives a longer period what the scene says besides: a month, a quarter. A bare year in a name is
    the weakest word and contradicts nothing. Raises SceneError when they contradict one another,
    or the name counts and can be read in several ways. Nothing in a name is later than `today`.
    """
    latest = (today or datetime.date.today()) + ONE_DAY  # it may be tomorrow elsewhere
    told = _told_by(metadata, latest)
    if told is None and tag is None:
        own = period = _named_by(name, "name", latest)
    else:
        named = _hinted_by(name, latest)
        if told and named and not any(told.is_near(span) for span in named):
            raise SceneError(f"is of {told} by its metadata and of {named[0]} by its name")
        own, period = told or next(iter(named), None), told
    if tag is not None:
        period = _tagged(tag)
        if own and not (period.holds(own) or (own.kind == "day" and period.is_near(own))):
            raise SceneError(f"is of period {period} by its tag and of {own} otherwise")
    has_date = own is not None and (own.kind == "day" or own != period)
    return str(own) if has_date else None, str(period) if period else None


def period_or(
    given: str | None, name: str, tag: str | None, metadata: Sequence[str]
) -> tuple[str | None, str | None]:
    """Return (date, period) of a scene; a given period settles what the scene leaves open."""
    try:
        date, period = read_period(name, tag, metadata)
    except SceneError:
        if given is None:
            raise
        return None, given
    if date is None and given and period and lies_in(period, given):
        date = period
    return date, given or period


def dates_told(tags: Mapping[str, str]) -> list[str]:
    """Return what a raster's tags say of its time."""
    return [tags[key] for key in TIME_TAGS if key in tags]


def _tagged(tag: str) -> Period:
    try:
        return read(tag)
    except ValueError as error:
        raise SceneError(f"has a bad tag: {error}") from error


def _told_by(metadata: Sequence[str], latest: datetime.date) -> Period | None:
    """Return the first period in some metadata."""
    for text in metadata:
        try:
            spans = find(text, latest)
        except Unclear as error:
            raise SceneError(f"has a time in its metadata that is unclear: {error}") from error
        if spans:
            return Period(spans[0].first, spans[0].last)
    return None


def _named_by(name: str, what: str, latest: datetime.date) -> Period | None:
    """Return the period that a name speaks of; raises SceneError when it is unclear."""
    try:
        return _one_of(find(name, latest))
    except Unclear as error:
        raise SceneError(f"has a {what} whose period is unclear: {error}") from error


def _hinted_by(name: str, latest: datetime.date) -> list[Period]:
    """Return what a name says surely: a bare year may be another number."""
    try:
        spans = find(name, latest)
    except Unclear:
        return []
    return [Period(span.first, span.last) for span in spans if span.kind != "year"]


def _one_of(spans: list[Spelled]) -> Period | None:
    """Return the one period that all spans of a name agree on; raises Unclear when they do not."""
    recent = [span for span in spans if span.last.year >= FIRST_SENTINEL]
    found = [Period(span.first, span.last) for span in recent or spans]
    if not found:
        return None
    if all(found[0].is_near(other) and other.kind == "day" for other in found):
        return found[0]
    narrowest = min(found, key=lambda period: period.last - period.first)
    for other in found:
        if not other.holds(narrowest):
            raise Unclear(f"it names {narrowest} and {other}; keep one of them, or give --period")
    return narrowest


def period_of_folders(folders: Sequence[str], today: datetime.date | None = None) -> str | None:
    """Return the period in the name of the nearest folder that has one: `2019-04`, `2019/04`.

    `folders` are their names from the nearest on. Raises SceneError when it is unclear.
    """
    latest = (today or datetime.date.today()) + ONE_DAY
    for n, folder in enumerate(folders):
        joined = ("-".join(reversed(folders[n : n + depth])) for depth in (3, 2))
        name = next((text for text in joined if NESTED.fullmatch(text)), folder)
        if not MADE.search(name) and (period := _named_by(name, "folder", latest)):
            return str(period)
    return None


def period_of_span(start: str | None, end: str | None) -> str | None:
    """Return the period from one moment to another (ISO 8601), as metadata state it.

    An end at midnight is the end of the day before, unless whole months end with the day itself,
    for many write the last day so. A pass over midnight is of its first day. Where one of the two
    is missing the other's day is told, None where both are. Raises SceneError for an end before
    the start.
    """
    moments = [_moment(text) for text in (start, end)]
    known = [moment for moment in moments if moment]
    if not known:
        return None
    first, last = known[0], known[-1]
    if last < first:
        raise SceneError(f"begins on {start} and ends before that, on {end}")
    if last - first <= ONE_PASS:
        return first.date().isoformat()
    inclusive = Period(first.date(), last.date())
    is_midnight = last.time() == datetime.time() and str(end)[10:] != ""
    if is_midnight and (inclusive.kind == "range" and not inclusive._n_months):
        return str(Period(first.date(), last.date() - ONE_DAY))
    return str(inclusive)


def _moment(text: str | None) -> datetime.datetime | None:
    try:
        moment = datetime.datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment.astimezone(datetime.UTC).replace(tzinfo=None) if moment.tzinfo else moment


def widen(period: str, per: str) -> str:
    """Return the month, quarter or year in which a period lies, or the period for `date`.

    Raises SceneError when it lies in no single one: a year is no quarter.
    """
    if per == "date" or period == TIMELESS:
        return period
    found = read(period)
    wide = _around(found, per)
    if wide.holds(found):
        return str(wide)
    longer = [f"--per {other}" for other in PER if _around(found, other).holds(found)]
    cure = " or ".join([*longer, "--per date, which keeps it as it is"])
    raise SceneError(f"is of the {found.kind} {period}, which lies in no single {per}; give {cure}")


def _around(period: Period, per: str) -> Period:
    """Return the month, quarter or year that a period begins in."""
    year, month = period.first.year, period.first.month
    n_months = {"month": 1, "quarter": 3, "year": 12}[per]
    first = (month - 1) // n_months * n_months + 1
    last = first + n_months - 1
    end = datetime.date(year, last, calendar.monthrange(year, last)[1])
    return Period(datetime.date(year, first, 1), end)


def is_day(text: str | None) -> bool:
    """Return whether a date is known to the day."""
    return text is not None and read(text).kind == "day"


def lies_in(period: str, wide: str) -> bool:
    """Return whether a period is a part of another one, and shorter."""
    if TIMELESS in (period, wide) or period == wide:
        return False
    return read(wide).holds(read(period))


def last_day(period: str) -> str:
    """Return the last day of a period: 2019-06-30 for 2019-Q2."""
    return read(period).last.isoformat()


def middle_day(period: str) -> datetime.date:
    """Return the day in the middle of a period."""
    return read(period).middle


def day_number(period: str, dates: Sequence[str] = ()) -> int:
    """Return the mean of some dates, else the middle of a period, in days since 1970-01-01."""
    if not dates:
        return 0 if period == TIMELESS else middle_day(period).toordinal() - EPOCH
    return round(sum(middle_day(date).toordinal() for date in dates) / len(dates)) - EPOCH
