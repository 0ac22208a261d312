"""Which columns of a table of proxies tell the place and the time of a row."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ecofm.benchmark.points import find_coordinates
from ecofm.benchmark.vectors import CELL_KEYS
from ecofm.errors import EcofmError, UsageError
from ecofm.tables import PERIOD_COLUMNS, Table, canonical, column_name, count, quote
from ecofm.tables.periods import MAY_BE_A_STATISTIC, span_of

REGION_KEYS = ("region", "name")
"""Columns that name a region, in polygons and in tables for them."""
YEAR = re.compile(r"(?:19|20)\d\d")
MONTHS = ("month", "mon", "mm", "mes", "m\u00eas", "mois", "monat", "bulan", "th\u00e1ng")
"""Names of a column of months, as `column_name` writes them."""
SHOWN = 5
"""Names that a sentence lists; files hold all."""


@dataclass(kw_only=True, slots=True)
class ProxyOptions:
    """How a table of proxies is to be read, where it does not tell."""

    key: str | None = None
    """Column that names the cell or region of a row; None looks for cell_id, y_x, region, name."""
    lat: str | None = None
    """Column of the latitude of survey points, in degrees; None looks for LATNUM, lat, latitude
    and the like."""
    lon: str | None = None
    """Column of the longitude of survey points, in degrees."""
    period_column: str | None = None
    """Column that tells the time of a row; None looks for period, year, survey_year, date and the
    like."""
    weight: str | None = None
    """Column of the weights by which the rows of one survey point (households) are averaged; None
    looks for hv005, v005, weight and the like."""
    decimal: str | None = None
    """Decimal mark, `.` or `,`, where the table leaves a doubt."""
    missing: list[str] | None = None
    """Numbers and marks that stand for a missing number, beside those that are recognised, such as
    -9999; `none` recognises none of these."""

    def __post_init__(self) -> None:
        """Raise ValueError for values that mean nothing."""
        if self.decimal not in (None, ".", ","):
            raise UsageError(f"decimal {self.decimal!r}: expected . or ,.")
        if (self.lat is None) != (self.lon is None):
            raise UsageError("--lat and --lon name two columns: give both.")
        if self.key and self.lat:
            raise UsageError("--key names places and --lat, --lon points: give one of them.")


def choose_key(
    given: Table, options: ProxyOptions, cells: set[str], by_region: bool, hint: str
) -> tuple[str, str | None, tuple[str, str] | None]:
    """Return the level, the column that names the place, and those of coordinates."""
    if options.lat is not None and options.lon is not None:
        return "point", None, (_require(given, options.lat), _require(given, options.lon))
    if options.key is not None:
        key = _require(given, options.key)
        names = {canonical(name) for name in given.text(key)}
        is_cell = bool(names & cells) or not by_region
        return "cell" if is_cell else "region", key, None
    if (named := given.find(*CELL_KEYS)) is not None:
        return "cell", named, None
    if by_region and (region := given.find(*REGION_KEYS)) is not None:
        return "region", region, None
    coordinates = find_coordinates(given.columns)
    if coordinates is None and (region := given.find("region")) is not None:
        return "region", region, None
    if coordinates is not None:
        return "point", None, coordinates
    raise EcofmError(
        f"{given.path} has columns {', '.join(given.columns)}; expected one of "
        f"{', '.join(CELL_KEYS)}, region to say which place a row is about, or latitude and "
        f"longitude of points{hint}."
    )


def _require(given: Table, name: str) -> str:
    found = name if name in given.columns else given.find(name)
    if found is None:
        raise EcofmError(f"{given.path} has no column {name}; it has {', '.join(given.columns)}.")
    return found


def choose_period(given: Table, options: ProxyOptions) -> str | None:
    """Return the column that tells the time: `period`, or another name that holds dates."""
    if options.period_column is not None:
        return _require(given, options.period_column)
    named = (given.find(name) for name in PERIOD_COLUMNS)
    return next((name for name in named if name is not None and tells_time(given, name)), None)


def read_times(given: Table, period: str, notes: list[str]) -> tuple[list[str], str | None]:
    """Return the time of each row as text, and the column of months or quarters if there is one.

    Years and a column of months, 1 to 12, tell a month together.
    """
    times = given.text(period)
    if not all(YEAR.fullmatch(canonical(time)) for time in times if canonical(time)):
        return times, None
    for names, form, last in ((MONTHS, "{}-{:02d}", 12), (("quarter", "qtr"), "{}-Q{}", 4)):
        part = given.find(*names)
        numbers = [canonical(text) for text in given.text(part)] if part else []
        if part and all(n.isdecimal() and 1 <= int(n) <= last for n in numbers):
            notes.append(f"{period} and {part} tell the time of a row together.")
            parts = zip(map(canonical, times), map(int, numbers), strict=True)
            return [form.format(year, n) if year else "" for year, n in parts], part
    return times, None


def tells_time(given: Table, name: str) -> bool:
    """Return whether a column is called like a time, and may be one."""
    called = column_name(name)
    if called not in MAY_BE_A_STATISTIC:
        return called in PERIOD_COLUMNS
    texts = [text for text in map(canonical, given.text(name)) if text]
    return 2 * sum(span_of(text) is not None for text in texts) > len(texts)


def has_text(cells: pd.Series, given: Table, name: str, notes: list[str]) -> pd.Series:
    """Return which cells hold something; the others are noted."""
    has = cells.map(lambda text: bool(canonical(text)))
    if not has.all():
        where = ", ".join(given.at(row) for row in np.flatnonzero(~has)[:SHOWN])
        more = ", ..." if (~has).sum() > SHOWN else ""
        notes.append(f"left out {count(int((~has).sum()), 'row')} without {name}: {where}{more}.")
    return has


def list_names(names: Iterable[str]) -> str:
    """Return the first names in quotes, and how many more there are."""
    given = list(names)
    more = f" and {len(given) - SHOWN} more" if len(given) > SHOWN else ""
    return ", ".join(map(quote, given[:SHOWN])) + more
