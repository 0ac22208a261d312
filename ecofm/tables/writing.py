"""The one writer of CSV: safe to open in a spreadsheet, and read back as it was."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import pandas as pd

from ecofm.escaping import escape_cell


def write_csv(frame: pd.DataFrame, target: Path | IO[bytes]) -> None:
    """Write a table as CSV in UTF-8, without its index.

    Text that a spreadsheet would run as a formula gets a leading apostrophe, which `read_table`
    and `read_records` take away again; numbers stay numbers.
    """
    columns = [frame.iloc[:, place] for place in range(frame.shape[1])]
    safe = pd.concat([_escape_column(column) for column in columns], axis=1) if columns else frame
    safe.to_csv(
        target, index=False, header=[escape_cell(str(name)) for name in frame.columns],
        encoding="utf-8", errors="backslashreplace", lineterminator="\n",
    )  # fmt: skip


def _escape_column(column: pd.Series[Any]) -> pd.Series[Any]:
    if pd.api.types.is_numeric_dtype(column):
        return column
    # As objects: Arrow's text holds no halves of surrogate pairs, as files' names may.
    cells = [_escape(cell) for cell in column]
    return pd.Series(cells, index=column.index, dtype=object)


def _escape(cell: Any) -> Any:
    return escape_cell(cell) if isinstance(cell, str) else cell
