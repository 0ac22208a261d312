"""Columns of numbers as offices write them: 12,300 and 12.300,5 and 7 %, "<5" and "n/a"."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecofm.tables.keys import count, quote
from ecofm.tables.reading import Table
from ecofm.tables.sentinels import Sentinels, find_sentinels
from ecofm.tables.styles import BRACKETED, STYLES, Style, clean, is_missing_mark, strip_units

Floats = NDArray[np.float64]

MARK_NAMES = {",": "a comma", ".": "a point", " ": "a blank", "'": "an apostrophe"}


@dataclass(frozen=True, slots=True)
class Column:
    """What a column holds: numbers, or the reason why they cannot be told."""

    name: str
    values: Floats | None
    """NaN where a number is missing; None where the column cannot be read as numbers."""
    notes: tuple[str, ...] = ()
    """How cells were read that are no plain numbers, one sentence each."""
    fault: str | None = None
    """Why it is no column of numbers, with an example and the cure."""
    is_text: bool = False
    """No cell is a number: the column is a name or a note, or empty."""


def read_number_columns(
    table: Table,
    columns: Iterable[str] | None = None,
    *,
    decimal: str | None = None,
    missing: Sequence[str] | None = None,
    thousands: bool = True,
) -> dict[str, Column]:
    """Return columns (all, where None) as numbers, each read in one way from top to bottom.

    `decimal` is the decimal mark, `.` or `,`, where it is known. `missing` lists numbers and
    marks that stand for nothing; numbers such as -9999 are recognised where they can be no values
    of their column. Those that are told are missing beside these, and `none` switches
    the recognition off. Where a column's numbers may mean two things, the decimal mark of the
    table's other columns decides, if the column agrees with it; else it has a `fault`. Without
    `thousands`, nothing separates thousands: no coordinate is as large.
    """
    names = table.columns if columns is None else list(columns)
    read = {name: _Reader(table, name, missing, thousands) for name in names}
    marks = {mark for reader in read.values() if (mark := reader.decimal_mark())}
    beside = marks.pop() if len(marks) == 1 else None
    return {name: reader.read(decimal, beside) for name, reader in read.items()}


class _Reader:
    """One column: its different cells, and the ways in which all of them can be read."""

    def __init__(
        self, table: Table, name: str, missing: Sequence[str] | None, thousands: bool
    ) -> None:
        self.table, self.name, self.missing = table, name, missing
        self.notes: list[str] = []
        self.fault: str | None = None
        self.is_text = False
        self.numeric = pd.api.types.is_numeric_dtype(table.frame[name])
        if self.numeric:
            self.values = table.frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
            return
        self.codes, uniques = pd.factorize(np.array(table.text(name), dtype=object))
        self.cells = [str(cell) for cell in uniques]
        self.place = {cell: place for place, cell in enumerate(self.cells)}
        self.counts = np.bincount(self.codes, minlength=len(self.cells))
        self._sort_cells()
        self.marks = {mark for core in self.numbers.values() for mark in set(core) & set(",. '")}
        self.styles = [
            style
            for style in STYLES
            if style.group in (self.marks if thousands else set()) | {""}
            and (style.group or style.decimal in self.marks | {"."})
            and all(map(style.fits, self.numbers.values()))
        ]
        if self.numbers and not self.styles and not self.fault:
            self._name_two_styles()

    def _where(self, cell: str) -> str:
        """Return a cell's text and the line on which it first stands."""
        row = int(np.argmax(self.codes == self.place[cell]))
        return f"{quote(cell.strip())} ({self.table.at(row)})"

    def _count(self, cells: list[str]) -> int:
        return int(sum(self.counts[self.place[cell]] for cell in cells))

    def _sort_cells(self) -> None:
        """Tell numbers, marks of missing ones and other text apart; units are taken off."""
        self.numbers: dict[str, str] = {}
        marks, others, units = [], [], {}
        told = {clean(mark).casefold() for mark in self.missing or ()}
        for cell in self.cells:
            text = clean(cell)
            if not text:
                continue
            core, unit = strip_units(text)
            if text.casefold() in told or is_missing_mark(text):
                marks.append(cell)
            elif any(style.fits(core) for style in STYLES):
                self.numbers[cell] = core
                units[cell] = unit
            else:
                others.append(cell)
        if not self.numbers:
            self.is_text = True
            shown = f", such as {self._where((others or marks)[0])}" if others or marks else ""
            self.fault = f"{self.name} holds no numbers{shown}"
        elif others:
            cure = "correct or empty them"
            if BRACKETED.fullmatch(clean(others[0])):
                cure = "write -7 where (7) is below zero, and 7 where it is of few cases"
            self.fault = (
                f"{self.name} is not numbers throughout: {self._count(others)} of "
                f"{len(self.codes)} cells are text, such as {self._where(others[0])}; {cure}"
            )
        if marks and self.numbers:
            shown = ", ".join(map(self._where, marks[:3]))
            found = count(self._count(marks), "cell")
            self.notes.append(f"{self.name}: missing in {found}, which say {shown}.")
        self._check_units(units)

    def _check_units(self, units: dict[str, str]) -> None:
        """Say which units were taken off, or find that they differ."""
        kinds: dict[str, str] = {}
        for cell, unit in units.items():
            # Nothing is nothing in any unit, and money may be written without its sign.
            if self.numbers[cell].strip("0.,"):
                kinds.setdefault(unit, cell)
        if "%" not in kinds and len(kinds) > 1:
            kinds.pop("", None)
        if len(kinds) > 1 and not self.fault:
            one, other = map(self._where, list(kinds.values())[:2])
            self.fault = f"{self.name} mixes units, such as {one} and {other}; write it in one unit"
        elif unit := next(iter(kinds), ""):
            self.notes.append(f"{self.name}: {self._where(kinds[unit])} is read without {unit}.")

    def _name_two_styles(self) -> None:
        """Find two cells that no way to write numbers has in common."""
        left = list(STYLES)
        before = ""
        for cell, core in self.numbers.items():
            fitting = [style for style in left if style.fits(core)]
            if not fitting:
                other = next(
                    (c for c, t in self.numbers.items() if not _share_style(t, core)), before
                )
                self.fault = (
                    f"{self.name} writes numbers in more than one way, such as "
                    f"{self._where(other)} and {self._where(cell)}; write them in one way"
                )
                return
            left, before = fitting, cell

    def decimal_mark(self) -> str | None:
        """Return the decimal mark that this column leaves no doubt about, if it has one."""
        if self.numeric or self.fault or not self.marks & set(",."):
            return None
        if len(self._readings(self.styles)) > 1:
            return None
        marks = {style.decimal for style in self.styles}
        return marks.pop() if len(marks) == 1 else None

    def _readings(self, styles: list[Style]) -> list[tuple[Style, Floats]]:
        """Return the ways that give different numbers, the plainest of each."""
        found: list[tuple[Style, Floats]] = []
        for style in styles:
            values = np.array([style.read(core) for core in self.numbers.values()])
            if not any(np.array_equal(values, other) for _, other in found):
                found.append((style, values))
        return found

    def read(self, told: str | None, beside: str | None) -> Column:
        """Return the column's numbers or its fault.

        The decimal mark that is `told` decides where there is doubt; the one of the columns
        `beside` only where the column's own cells agree with it.
        """
        if not self.numeric and not self.fault:
            readings = self._readings(self.styles)
            if len(readings) > 1 and told:
                readings = self._readings(_with_decimal(self.styles, told)) or readings
            if len(readings) > 1:
                cores = list(self.numbers.values())
                chosen = choose_reading(readings, cores, self.table.separator, beside)
                if chosen is not None and not chosen[0].group:
                    self._say_alike(*readings[0], readings[1][1])
                readings = readings if chosen is None else [chosen]
            if len(readings) > 1:
                self._ask_for_mark(readings)
            else:
                self._take(*readings[0])
        if self.fault:
            return Column(self.name, None, tuple(self.notes), self.fault, self.is_text)
        return self._finish()

    def _say_alike(self, style: Style, one: Floats, other: Floats) -> None:
        place = int(np.argmax(one != other))
        low, high = sorted((one[place], other[place]))
        self.notes.append(
            f"{self.name}: {self._where(list(self.numbers)[place])} is read as {low:.15g}; were it "
            f"{high:.15g}, and all others alike, ranks would be the same."
        )

    def _ask_for_mark(self, readings: list[tuple[Style, Floats]]) -> None:
        (_, one), (_, other) = readings[:2]
        place = int(np.argmax(one != other))
        cell = list(self.numbers)[place]
        high, low = (plain(pick(one[place], other[place])) for pick in (max, min))
        self.fault = (
            f"{self.name}: {self._where(cell)} may be {high} or {low}; write the numbers without "
            "separators of thousands"
        )

    def _take(self, style: Style, values: Floats) -> None:
        """Keep the numbers of one style, and say what its marks mean."""
        by_cell = np.full(len(self.cells), np.nan)
        by_cell[[self.place[cell] for cell in self.numbers]] = values
        self.values = by_cell[self.codes]
        for mark, role in ((style.group, "separates thousands"), (style.decimal, "is decimal")):
            cell = next((c for c, core in self.numbers.items() if mark and mark in core), None)
            if cell is not None and (mark, role) != (".", "is decimal"):
                number = values[list(self.numbers).index(cell)]
                self.notes.append(
                    f"{self.name}: {self._where(cell)} is read as {number:.15g}: "
                    f"{MARK_NAMES[mark]} {role}."
                )

    def _finish(self) -> Column:
        """Return the column without numbers that stand for nothing, which are said."""
        values = self.values.copy()
        if (infinite := np.isinf(values)).any():
            found = count(int(infinite.sum()), "cell")
            self.notes.append(f"{self.name}: missing in {found} of infinity.")
            values[infinite] = np.nan
        told = [number for number in map(_to_number, self.missing or ()) if number is not None]
        sentinels = find_sentinels(values[~np.isin(values, told)])
        if "none" in (self.missing or ()):
            self._say_kept(values, [*sentinels.missing, *sentinels.doubtful])
            sentinels = Sentinels()
        for number in [*told, *sentinels.missing]:
            at = values == number
            if at.any():
                self.notes.append(f"{self.name}: missing in {self._at(values, number)}.")
            values[at] = np.nan
        column = Column(self.name, values, tuple(self.notes))
        if not sentinels.doubtful:
            return column
        fault = (
            f"{self.name}: {self._at(values, sentinels.doubtful[0])} may be a number or stand for "
            "a missing one; empty such cells if it does"
        )
        return replace(column, values=None, fault=fault)

    def _at(self, values: Floats, number: float) -> str:
        """Return how many cells hold a number, and where the first of them stands."""
        at = values == number
        where = self.table.at(int(np.argmax(at)))
        return f"{count(int(at.sum()), 'cell')} of {plain(number)} ({where})"

    def _say_kept(self, values: Floats, numbers: list[float]) -> None:
        if numbers:
            kept = ", ".join(self._at(values, number) for number in numbers)
            self.notes.append(f"{self.name}: kept as numbers, though they may be none: {kept}.")


def choose_reading(
    readings: list[tuple[Style, Floats]],
    cores: list[str],
    separator: str | None,
    beside: str | None = None,
) -> tuple[Style, Floats] | None:
    """Return the likelier of two readings, with or without thousands, or None where none is.

    Who writes decimals writes as many in every cell, or drops zeros at the end: a column with
    12,300 and 950 does neither, so that the comma separates thousands. Commas in a table that is
    separated by commas are none of decimals either. Where the readings differ by one factor, either
    gives the same ranks. `beside` is the decimal mark of other columns: what it makes of thousands
    is believed, but a column with 6.444 and 279 contradicts that its point is decimal.
    """
    grouped = next((r for r in readings if r[0].group), None)
    single = next((r for r in readings if not r[0].group), None)
    if grouped is None or single is None or len(readings) > 2:
        return None
    mark = grouped[0].group
    with_mark = [core for core in cores if mark in core]
    without = [core for core in cores if mark not in core and core.strip("+-0")]
    if beside == mark:
        return None if without else single
    if beside or (without and any(core.endswith("0") for core in with_mark)):
        return grouped
    if mark == ",":
        if separator == ",":
            return grouped
        return None if without else single if separator == ";" else grouped
    return None if without else single


def plain(number: float) -> str:
    """Return a number as a file writes it: 9999999 and not 1e+07."""
    return f"{number:.15g}"


def _with_decimal(styles: list[Style], mark: str) -> list[Style]:
    return [style for style in styles if style.decimal == mark]


def _share_style(one: str, other: str) -> bool:
    return any(style.fits(one) and style.fits(other) for style in STYLES)


def _to_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
