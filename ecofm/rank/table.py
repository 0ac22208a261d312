"""A table of values, as the targets of heads: which column, of which embedded tiles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ecofm.compare.orderings import normalize_item
from ecofm.errors import EcofmError
from ecofm.rank.items import Indices, number_cells
from ecofm.rank.losses import Floats
from ecofm.tables import read_table
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
    table = read_table(path, (*KEYS, "period"))
    key = next((name for name in KEYS if name in table.columns), None)
    if key is None:
        raise EcofmError(
            f"{path} has columns {', '.join(table.columns)}; expected one of tile_id, cell_id "
            "(with or without period) or item that names its rows."
        )
    if key == "item" and members is None:
        raise EcofmError(f"{path} names items; say which tiles they stand for with --members.")
    column = _choose_column(path, table, column)
    names = table[key].astype(str)
    if key == "cell_id" and "period" in table.columns:
        names = names + "@" + table["period"].astype(str)
        key = "tile_id"
    known = table[column].notna()
    if (doubled := names[known].duplicated()).any():
        raise EcofmError(
            f"{path} has more than one row for {key} {names[known][doubled].iloc[0]!r}; give one."
        )
    groups = _group_rows(key, index, members)
    if key == "item":
        names = names.map(normalize_item)
    found = known & names.isin(list(groups))
    if found.sum() < MIN_ITEMS:
        example = f", as in {names.iloc[0]!r}" if len(names) else ""
        raise EcofmError(
            f"{path} has {int(found.sum())} rows with a {column} and a {key} that was embedded"
            f"{example}; at least {MIN_ITEMS} are needed. Check --embeddings and the names."
        )
    if left_out := len(table) - int(found.sum()):
        say(f"{left_out} of {len(table)} rows of {path} have no {column} or no embedded tile.")
    items = names[found].tolist()
    values, classes = _to_values(path, column, table.loc[found, column])
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


def _choose_column(path: Path, table: pd.DataFrame, column: str | None) -> str:
    others = [str(name) for name in table.columns if name not in (*KEYS, "period", "geometry")]
    if column is None and len(others) == 1:
        return others[0]
    if column is None or column not in others:
        asked = "no --column was given" if column is None else f"--column {column} is none of them"
        raise EcofmError(
            f"{path} has the columns {', '.join(others) or 'that name its rows only'}; {asked}."
        )
    return column


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


def _to_values(path: Path, column: str, found: pd.Series) -> tuple[Floats, list[str]]:
    is_number = pd.api.types.is_numeric_dtype(found) and not pd.api.types.is_bool_dtype(found)
    if is_number:
        numbers = found.to_numpy(np.float64)
        if not np.isfinite(numbers).all():
            raise EcofmError(f"{path} has a {column} that is not finite; leave such cells empty.")
        if np.ptp(numbers) == 0:
            raise EcofmError(f"{path} has {column} {numbers[0]:g} in every row; nothing differs.")
        return numbers, []
    names, counts = np.unique(found.astype(str), return_counts=True)
    if len(names) < 2:
        raise EcofmError(f"{path} has {column} {names[0]!r} in every row; nothing differs.")
    if len(names) > MAX_CLASSES or counts.min() < MIN_OF_CLASS:
        raise EcofmError(
            f"{path} has {len(names)} classes of {column}, {names[counts.argmin()]!r} in "
            f"{counts.min()} rows; at most {MAX_CLASSES} with {MIN_OF_CLASS} rows each can be "
            "learned. Are they numbers written as text?"
        )
    number = pd.Series(np.arange(len(names)), index=names)
    return number[found.astype(str)].to_numpy(np.float64), names.tolist()
