"""Proxies: tables of statistics by cell, region or survey point, and their time."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from ecofm.benchmark.columns import (
    REGION_KEYS,
    ProxyOptions,
    choose_key,
    choose_period,
    has_text,
    list_names,
    read_times,
    tells_time,
)
from ecofm.benchmark.points import (
    ABOUT_SURVEY,
    Points,
    Survey,
    find_survey,
    is_coordinate,
    read_points,
)
from ecofm.benchmark.vectors import CELL_KEYS, open_proxies
from ecofm.errors import EcofmError
from ecofm.tables import (
    Column,
    Table,
    canonical,
    column_name,
    count,
    match_keys,
    match_periods,
    quote,
    read_number_columns,
)
from ecofm.types import say

NOT_STATISTICS = {"county", "district", "group", *CELL_KEYS, *REGION_KEYS}
"""Columns that name a place: never a target."""
RESERVED = ("unit", "period")
PERIOD = "{period}"
SPOILED = re.compile(r"\d+\.\d+|\d(?:\.\d+)?[eE]\+?\d+")
"""Codes that a spreadsheet took for numbers: 1.10 is 1.1, and a long one 1E+15."""
NAMES_PLACES = re.compile(r"(?:name|code|pcode|geoid|fips|id)$")
ADVICE = " (--missing and --decimal tell how to read it)"


@dataclass(frozen=True, slots=True)
class Proxies:
    """Statistics by place: `table` has `unit`, perhaps `period`, and the columns of the file.

    Numbers are floats, NaN where one is missing; other columns are text, None where empty.
    """

    path: Path
    level: str
    """`cell`, `region` or `point`: what a unit is."""
    table: pd.DataFrame
    columns: dict[str, Column]
    """What each column holds that names no place and no time."""
    places: pd.Series
    """Where each row of `table` stands in the file: `line 7`."""
    period_column: str | None = None
    points: Points | None = None
    notes: list[str] = field(default_factory=list)
    """What was recognised and left out while reading, one sentence each."""
    advice: str = ""
    """Which flags tell how a doubtful column is to be read."""
    key: str | None = None
    """The column that names the cell or region of a row."""
    may_be_points: bool = False
    """Its rows are taken for regions, but have coordinates."""
    has_polygons: bool = False
    """The file holds the outlines of its regions too."""

    @property
    def statistics(self) -> list[str]:
        """The columns of numbers that name no place."""
        return [
            name
            for name, column in self.columns.items()
            if column.values is not None and column_name(name) not in NOT_STATISTICS
        ]

    def at(self, period: str | list[str]) -> pd.DataFrame:
        """Return the statistics by unit for one period, or the mean where all of a list exist.

        A table without periods says the same for all of them.
        """
        numbers = self.table[["unit", *self.statistics]]
        if "period" not in self.table:
            return numbers.set_index("unit")
        wanted = [period] if isinstance(period, str) else period
        chosen = numbers[self.table["period"].isin(wanted)].groupby("unit")
        mean, counted = chosen.mean(), chosen.count()
        return mean.where(counted == len(wanted))

    def pick_targets(self, targets: list[str] | None, beside: list[str]) -> list[str]:
        """Return the statistics to check against; raises EcofmError for one that is not there."""
        known = {column_name(name): name for name in reversed(self.statistics)}
        chosen = []
        for name in targets or []:
            if name in self.statistics or column_name(name) in known:
                chosen.append(name if name in self.statistics else known[column_name(name)])
            elif (column := self.columns.get(name)) and column.fault:
                advice = "" if column.is_text else self.advice
                raise EcofmError(f"{self.path}: {column.fault}{advice}.")
            else:
                raise EcofmError(
                    f"{self.path} has no numeric column {name}; it has "
                    f"{', '.join(self.statistics)}; choose the targets among these."
                )
        rivals = [re.compile(re.escape(b).replace(re.escape(PERIOD), ".+")) for b in beside]
        others = [s for s in self.statistics if not any(r.fullmatch(s) for r in rivals)]
        found = chosen or others
        if not found:
            faults = [c.fault for c in self.columns.values() if c.fault and not c.is_text]
            raise EcofmError(
                f"{self.path} has no numeric column to check scores against"
                f"{': ' if faults else ''}{'; '.join(faults)}{self.advice if faults else ''}."
            )
        return found

    def explain(self, names: Iterable[str], all_others: bool) -> list[str]:
        """Return how the columns `names` were read and, if asked, which others are left out."""
        said = [note for name in names for note in self.columns[name].notes]
        if not all_others:
            return said
        faulty = [c for c in self.columns.values() if c.fault and not c.is_text]
        said += [f"left out {column.fault}{self.advice}." for column in faulty]
        named = [n for n, c in self.columns.items() if c.values is not None]
        if places := [name for name in named if name not in self.statistics]:
            said.append(f"left out, for they name places: {', '.join(places)}.")
        texts = [c.fault for c in self.columns.values() if c.fault and c.is_text]
        if texts:
            said.append(f"left out, for a target is a number: {'; '.join(texts)}.")
        return said

    def tell_missing(self, names: Iterable[str]) -> list[str]:
        """Return for columns with gaps how many places have no number, and which come first."""
        said = []
        for name in names:
            gone = self.table.loc[self.table[name].isna(), "unit"]
            if len(gone):
                said.append(
                    f"{name} has no number in {len(gone)} of {count(len(self.table), 'row')}: "
                    f"{list_names(gone)}."
                )
        return said

    def join(self, units: Iterable[str], periods: Iterable[str], sides: str) -> Joined:
        """Return the proxies under our names of places and periods, and what has no partner.

        `sides` says whose names `units` are. Raises EcofmError when two of them fall together, or
        two rows come to be about one place and period.
        """
        found = match_keys(units, self.table["unit"], (sides, self.path.name))
        ours = {theirs: mine for mine, theirs in found.pairs.items()}
        unit = self.table["unit"].map(ours)
        kept = unit.notna()
        table = self.table.assign(unit=unit)
        lost_periods: list[str] = []
        notes = list(found.notes)
        if "period" in self.table:
            times = match_periods(self.table["period"], periods)
            table["period"] = self.table["period"].map(times)
            lost_periods = [p for p in dict.fromkeys(self.table["period"]) if p not in times]
            kept &= table["period"].notna()
            if other := next(((p, mine) for p, mine in times.items() if p != mine), None):
                notes.append(
                    f"{self.period_column} {quote(other[0])} is taken for the period {other[1]}."
                )
        proxies = replace(self, table=table[kept], places=self.places[kept])
        proxies.require_single()
        lines = self.places.groupby(self.table["unit"]).first()
        lost = [f"{quote(name)} ({lines[name]})" for name in found.only_right]
        has_row = set(proxies.table["unit"])
        without_row = [name for name in dict.fromkeys(units) if name not in has_row]
        other_time = set(found.pairs) - has_row
        joined = Joined(proxies, len(has_row), without_row, other_time, lost, lost_periods, notes,
                        proxies.find_gaps(found.pairs))  # fmt: skip
        if found.pairs and lost_periods and not kept.any():
            raise EcofmError(
                f"{joined.lost()}, but of {list_names(dict.fromkeys(periods))}; correct the "
                "column, or remove it where the numbers stand for every period."
            )
        return joined

    def find_gaps(self, units: Iterable[str]) -> dict[str, list[str]]:
        """Return by period the units that have rows, but none of that period."""
        if "period" not in self.table:
            return {}
        rows = {str(period): set(group) for period, group in self.table.groupby("period")["unit"]}
        present = set().union(*rows.values())
        lacking = {p: [n for n in units if n in present - has] for p, has in sorted(rows.items())}
        return {period: names for period, names in lacking.items() if names}

    def require_single(self) -> None:
        """Raise EcofmError where two rows are about one place and period."""
        names = ["unit", "period"] if "period" in self.table else ["unit"]
        keys = self.table[names].copy()
        keys["unit"] = keys["unit"].map(canonical)
        twice = keys.duplicated(names)
        if twice.any():
            second = keys.index[twice][0]
            alike = (keys[names] == keys.loc[second, names]).all(axis=1)
            rows = [
                f"{quote(str(self.table.at[r, 'unit']))} ({self.places[r]})"
                for r in keys.index[alike]
            ]
            what = " in period ".join(map(str, keys.loc[second, names]))
            raise EcofmError(
                f"{self.path} has two rows for {self.level} {what}: {rows[0]} and {rows[1]}. "
                f"{self._how_to_part(str(keys.at[second, 'unit']))}"
            )

    def _how_to_part(self, unit: str) -> str:
        """Say what to do about two rows of one place and period."""
        cures = ["If they are one place at two times, call the column that tells the time `period`"]
        if "period" in self.table:
            cures = ["If they are one place at two times of the period, give one row, their mean"]
        if SPOILED.fullmatch(unit):
            cures.append("if a program made codes such as 1.10 the number 1.1, store them as text")
        apart = self._find_another_key() if self.advice else None
        if apart and self.level == "region":
            cures.append(
                f"if {apart} tells them apart, give --key {quote_flag(apart)}, and "
                f"--region-column {quote_flag(apart)} or what the polygons call it"
            )
        elif apart:
            cures.append(f"if {apart} tells them apart, give --key {quote_flag(apart)}")
        else:
            cures.append(
                "if they are two places, tell them apart by a column of codes, in both files"
            )
        if self.may_be_points:
            cures.append("if each row is a point, leave out --regions")
        return "; ".join(cures) + "."

    def _find_another_key(self) -> str | None:
        """Return a column that may name places and has no name twice in a period."""
        times = self.table["period"] if "period" in self.table else ""
        for name in self.columns:
            cells = self.table[name]
            is_text = self.columns[name].is_text or NAMES_PLACES.search(column_name(name))
            if is_text and cells.notna().all():
                rows = pd.DataFrame({"cell": cells.astype(str), "time": times})
                if not rows.duplicated().any():
                    return name
        return None


@dataclass(frozen=True, slots=True)
class Joined:
    """Proxies under our names, and what either side has alone."""

    proxies: Proxies
    n_matched: int
    """Places that both sides have."""
    without_row: list[str]
    """Our places without a row of a period of ours."""
    other_time: set[str]
    """Those of them that have a row of another period."""
    without_place: list[str]
    """Rows whose place we do not have, with their lines."""
    lost_periods: list[str]
    """Periods of the table, as written there, that no score has."""
    notes: list[str]
    """How spellings and periods differ."""
    gaps: dict[str, list[str]]
    """By period, our places that have rows, but none of that period."""

    def reason(self, name: str) -> str:
        """Say why a place has no row."""
        return "no row of a scored period" if name in self.other_time else "no row"

    def lost(self) -> str:
        """Say which periods of the table no score has."""
        column = self.proxies.period_column
        name = self.proxies.path.name
        return f"{name} has {column} {list_names(self.lost_periods)}, of which there is no score"


def read_proxies(
    path: Path,
    options: ProxyOptions | None = None,
    *,
    cells: Iterable[str] = (),
    periods: Iterable[str] = (),
    targets: Iterable[str] = (),
    by_region: bool = False,
) -> Proxies:
    """Read a table keyed by cell_id, y_x or region, or of survey points.

    CSV, TSV and Parquet are read as `read_table` says, points and polygons with statistics also
    from vector files. `cells` are ours, by which a table with `--key` is told to be by cell;
    `periods` are ours, within which the rows of a survey point are averaged; `targets` are
    statistics whatever they are called; `by_region` says that there are polygons, so that a table
    with regions and coordinates is by region. What was recognised is said. Raises EcofmError when
    the table cannot be read, has no key, or says something twice.
    """
    # Other stages have no such flags.
    advice = ADVICE if options else ""
    hint = "; other columns are chosen with --key, or --lat and --lon" if options else ""
    options = options or ProxyOptions()
    given, has_polygons = open_proxies(path)
    if not len(given.lines):
        raise EcofmError(f"{path} has names of columns and no rows; give a table with rows.")
    notes = list(given.notes)
    by_region = by_region or has_polygons
    level, key, coordinates = choose_key(given, options, set(cells), by_region, hint)
    period = choose_period(given, options)
    times, part = read_times(given, period, notes) if period is not None else ([], None)
    survey = find_survey(given, options, targets) if level == "point" else Survey()
    taken = {key, period, part, *(coordinates or ())}
    others = _choose_others(given, taken, survey, set(map(column_name, targets)), notes)
    columns = read_number_columns(given, others, decimal=options.decimal, missing=options.missing)
    table = pd.DataFrame(
        {
            name: [text.strip() or None for text in given.text(name)] if c.values is None
            else c.values
            for name, c in columns.items()
        },
        index=range(len(given.lines)),
    )  # fmt: skip
    places = pd.Series([given.at(row) for row in table.index], index=table.index, dtype=object)
    kept = pd.Series(True, index=table.index)
    points = None
    if period is not None:
        table["period"] = times
        kept &= has_text(table["period"], given, period, notes)
    if level == "point":
        assert coordinates is not None
        ours = match_periods(times, periods)
        within = pd.Series([ours.get(time, time) for time in times] or "", index=table.index)
        points, table, places = read_points(
            given, coordinates, options, survey, table[kept], places[kept], within, notes
        )
    else:
        assert key is not None
        table["unit"] = given.text(key)
        kept &= has_text(table["unit"], given, key, notes)
        table, places = table[kept], places[kept]
    for note in notes:
        say(note)
    may_be_points = level == "region" and by_region and not has_polygons and any(
        map(is_coordinate, given.columns)
    )  # fmt: skip
    found = Proxies(path, level, table, columns, places, period, points, notes, advice, key,
                    may_be_points, has_polygons and level == "region")  # fmt: skip
    found.require_single()
    return found


def _choose_others(
    given: Table, taken: set[str | None], survey: Survey, targets: set[str], notes: list[str]
) -> list[str]:
    """Return the columns that may be statistics; those of a name that means more are noted."""
    taken = {*taken, survey.weight, survey.setting, survey.cluster}
    left = [name for name in given.columns if name not in taken]
    wanted = [name for name in left if column_name(name) in targets]
    odd = [name for name in left if tells_time(given, name) or name in RESERVED]
    where = [name for name in left if is_coordinate(name)]
    about = [name for name in left if survey.is_survey and column_name(name) in ABOUT_SURVEY]
    for names, why in ((odd, "a place or a time is called so"), (where, "they are coordinates"),
                       (about, "they describe the survey")):  # fmt: skip
        if names := [name for name in names if name not in wanted or name in RESERVED]:
            notes.append(f"left out, for {why}: {', '.join(names)}.")
            left = [name for name in left if name not in names]
    return left


def quote_flag(name: str) -> str:
    """Return a column's name as it is given to a flag."""
    return name if re.fullmatch(r"[\w.-]+", name) else f'"{name}"'


def resolve_rival(beside: str, table: pd.DataFrame, period: str | list[str]) -> pd.Series | None:
    """Return a rival's score by unit for a period, or its mean over a list of periods.

    `siscore_{period}` names a column for each period; a plain name is one column for all. None
    where a column is not there.
    """
    wanted = [period] if isinstance(period, str) else period
    columns = list(dict.fromkeys(beside.replace(PERIOD, p) for p in wanted))
    if not set(columns) <= set(table.columns):
        return None
    return table[columns].mean(axis=1, skipna=False)


def name_rival(beside: str) -> str:
    """Return a rival's name without its period: `siscore_{period}` is siscore."""
    return beside.replace(f"_{PERIOD}", "").replace(PERIOD, "").strip("_") or beside
