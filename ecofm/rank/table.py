"""A table of values, as the targets of heads: which column, of which embedded tiles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecofm.compare.orderings import normalize_item
from ecofm.errors import EcofmError
from ecofm.rank.items import Indices, number_cells
from ecofm.rank.losses import Floats
from ecofm.tables import (
    PERIOD_COLUMNS,
    Table,
    canonical,
    column_name,
    match_keys,
    match_periods,
    read_number_columns,
    read_table,
)
from ecofm.types import say

MIN_ITEMS = 10
MIN_OF_CLASS = 5
MAX_CLASSES = 100
KEYS = ("tile_id", "cell_id", "item")


@dataclass(frozen=True, slots=True)
class Target:
    """What a table says of items that were embedded."""

    column: str
    items: list[str]
    """Names."""
    members: list[Indices]
    """Rows of the embeddings, for each item."""
    places: Indices
    """A number for each item: tiles of one cell share theirs, shape (item,)."""
    values: Floats
    """Numbers, or numbers of classes; shape (item,)."""
    classes: list[str]
    """Names of the classes, sorted; none for numbers."""


def read_target(
    path: Path, column: str | None, index: pd.DataFrame, members: pd.DataFrame | None
) -> Target:
    """Return a column of a CSV or Parquet table, for the embedded tiles that it names.

    Rows are named by tile_id; by cell_id, alone (all its periods are one item) or with period;
    or by item, whose tiles `members` lists. Numbers are numbers, anything else are classes.
    Raises EcofmError for a table that cannot be read, names nothing that was embedded, or says
    too little to learn from.
    """
    table = read_table(path)
    for note in table.notes:
        say(note)
    written = table.find(*KEYS)
    if written is None:
        raise EcofmError(
            f"{path} has columns {', '.join(table.columns)}; expected one of tile_id, cell_id "
            "(with or without period) or item that names its rows."
        )
    key = column_name(written)
    if key == "item" and members is None:
        raise EcofmError(f"{path} names items; say which tiles they stand for with --members.")
    period = table.find(*PERIOD_COLUMNS) if key == "cell_id" else table.find("period")
    if column is not None and table.find(column) == period:
        period = None  # a year that is to be learned
    column = _choose_column(path, table, column, {written, period})
    values, is_text = _read_values(path, table, column)
    groups = _group_rows("tile_id" if key == "cell_id" and period else key, index, members)
    names = _name_rows(table, written, period, index, groups)
    known = pd.notna(values)
    if (doubled := pd.Series(names)[known & (names != "")].duplicated()).any():
        name = doubled.index[doubled][0]
        raise EcofmError(
            f"{path} has more than one row for {key} {names[name]!r}, the second in "
            f"{table.at(name)}; give one."
        )
    found = known & (names != "")
    if found.sum() < MIN_ITEMS:
        example = f", as in {table.text(written)[0]!r}" if len(names) else ""
        raise EcofmError(
            f"{path} has {int(found.sum())} rows with a {column} and a {key} that was embedded"
            f"{example}; at least {MIN_ITEMS} are needed. Check --embeddings and the names."
        )
    if left_out := len(names) - int(found.sum()):
        say(f"{left_out} of {len(names)} rows of {path} have no {column} or no embedded tile.")
    items = names[found].tolist()
    values, classes = _to_values(path, column, values[found], is_text)
    rows = [groups[name] for name in items]
    cells = number_cells(index)
    first = np.array([cells[tiles[0]] for tiles in rows])
    # An item of many cells is a place of its own.
    is_cell = np.array(
        [(cells[tiles] == cell).all() for tiles, cell in zip(rows, first, strict=True)]
    )
    own = cells.max() + 1 + np.arange(len(rows))
    places = pd.factorize(np.where(is_cell, first, own))[0].astype(np.int64)
    if places.max() < 1:
        raise EcofmError(f"{path} has values of one cell only; nothing can be held out.")
    return Target(column, items, rows, places, values, classes)


def _choose_column(path: Path, table: Table, column: str | None, taken: set[str | None]) -> str:
    others = [name for name in table.columns if name not in taken and name != "geometry"]
    if column is None and len(others) == 1:
        return others[0]
    found = table.find(column) if column is not None and column not in others else column
    if found is None or found not in others:
        asked = "no --column was given" if column is None else f"--column {column} is none of them"
        raise EcofmError(
            f"{path} has the columns {', '.join(others) or 'that name its rows only'}; {asked}."
        )
    return found


def _name_rows(
    table: Table,
    key: str,
    period: str | None,
    index: pd.DataFrame,
    groups: dict[str, Indices],
) -> NDArray[Any]:
    """Return for each row the name by which `groups` knows it, "" where it has none."""
    given = table.text(key)
    if column_name(key) == "item":
        given = [normalize_item(canonical(name)) for name in given]
    sides = ("the embeddings", str(table.path))
    if period is None or column_name(key) != "cell_id":
        match = match_keys(groups, given, sides)
        ours = {theirs: mine for mine, theirs in match.pairs.items()}
        names = [ours.get(name, "") for name in given]
    else:
        match = match_keys(index["cell_id"].astype(str), given, sides)
        cells = {theirs: mine for mine, theirs in match.pairs.items()}
        times = table.text(period)
        periods = match_periods(times, index["period"].astype(str))
        joined = [f"{cells.get(c)}@{periods.get(t)}" for c, t in zip(given, times, strict=True)]
        names = [name if name in groups else "" for name in joined]
    for note in match.notes:
        say(note)
    return np.array(names, dtype=str)


def _read_values(path: Path, table: Table, column: str) -> tuple[NDArray[Any], bool]:
    """Return a column's numbers, or its texts and True; NaN or None where a row has none.

    Raises EcofmError where it cannot be told which numbers are meant.
    """
    found = read_number_columns(table, [column])[column]
    if found.is_text:
        return np.array([canonical(t) or None for t in table.text(column)], dtype=object), True
    for note in found.notes:
        say(note)
    if found.values is None:
        raise EcofmError(f"{path}: {found.fault}.")
    return found.values, False


def _group_rows(key: str, index: pd.DataFrame, members: pd.DataFrame | None) -> dict[str, Indices]:
    """Return the embeddings' rows by what a table may call them."""
    if key == "item":
        assert members is not None
        rows = pd.Series(np.arange(len(index)), index=index["tile_id"].to_numpy())
        at = rows.reindex(members["tile_id"]).to_numpy()
        names = members["item"].map(normalize_item).to_numpy()[~np.isnan(at)]
        at = at[~np.isnan(at)].astype(np.int64)
    else:
        names, at = index[key].astype(str).to_numpy(), np.arange(len(index))
    grouped = pd.Series(at).groupby(names)
    return {str(name): rows.to_numpy() for name, rows in grouped}


def _to_values(
    path: Path, column: str, found: NDArray[Any], is_text: bool
) -> tuple[Floats, list[str]]:
    if not is_text:
        numbers = found.astype(np.float64)
        if np.ptp(numbers) == 0:
            raise EcofmError(f"{path} has {column} {numbers[0]:g} in every row; nothing differs.")
        return numbers, []
    names, places, counts = np.unique(found.astype(str), return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise EcofmError(f"{path} has {column} {names[0]!r} in every row; nothing differs.")
    if len(names) > MAX_CLASSES or counts.min() < MIN_OF_CLASS:
        raise EcofmError(
            f"{path} has {len(names)} classes of {column}, {names[counts.argmin()]!r} in "
            f"{counts.min()} rows; at most {MAX_CLASSES} with {MIN_OF_CLASS} rows each can be "
            "learned. Are they numbers written as text?"
        )
    return places.astype(np.float64), names.tolist()
