"""Tables of comparisons or orderings: CSV and Parquet, read row by row, written whole."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ecofm.compare.answers import Answers
from ecofm.compare.comparison import COLUMNS, check_comparison, quote, refuse_decimals
from ecofm.compare.labelstudio import FLAT_KEYS, read_flat
from ecofm.compare.orderings import expand_ordering
from ecofm.errors import ComparisonError
from ecofm.tables import column_name, read_records, read_table, write_csv

if TYPE_CHECKING:
    import pandas as pd

    from ecofm.compare.comparison import Comparison

KINDS = {"comparison": COLUMNS, "ordering": ("annotator", "ordering"), "labelstudio": FLAT_KEYS}
"""The kinds of tables, and the columns by which each is known."""
EXPECTED = "expected annotator,left,right,outcome or annotator,ordering"
PARQUET_MAGIC = b"PAR1"
BETWEEN = re.compile("[<>=]")
QUOTED = r'(?:[^"\r\n]|"")*'
WHOLE_ROW = re.compile(rf'^"({QUOTED}[,;\t|]{QUOTED})"[,;\t ]*(?=\r?$)', re.MULTILINE)
"""A row in quotes as a whole, as a spreadsheet writes one that was pasted into a single column."""

Line = tuple[str, Sequence[str], str | None]
"""Where it stands, such as `line 7`, its fields, and what is wrong with their number."""


def read_text_table(path: Path, text: str) -> Answers:
    """Return the answers of a CSV file, line by line.

    Raises ComparisonError or EcofmError when its columns are of no kind, or its quotes are broken.
    """
    if WHOLE_ROW.match(text):
        text = WHOLE_ROW.sub(lambda row: row[1].replace('""', '"'), text)
    records = read_records(path, text)
    kind, places = find_columns(f"{path}, line {records.head}", records.names)
    lines: list[Line] = []
    for number, cells in records.rows:
        fault = records.misfit(cells)
        # Spreadsheets leave out the blank fields at a line's end: no harm where nothing is read.
        is_short = len(cells) < len(records.names) and len(cells) > max(places)
        lines.append((f"line {number}", cells, None if is_short else fault))
    return _read_lines(Answers(path, kind), records.names, places, lines)


def read_parquet_table(path: Path) -> Answers:
    """Return the answers of a Parquet file, row by row; raises as `read_text_table` does."""
    table = read_table(path)
    try:
        kind, places = find_columns(str(path), table.columns)
    except ComparisonError as error:  # a column of lists or bytes is none of the table's
        raise ComparisonError(" ".join([str(error), *table.notes])) from error
    _check_types(path, [table.columns[place] for place in places])
    lines = [(f"row {number}", cells, None) for number, cells in table.rows(table.columns)]
    return _read_lines(Answers(path, kind), table.columns, places, lines)


def _read_lines(
    answers: Answers, names: Sequence[str], places: list[int], lines: Iterable[Line]
) -> Answers:
    """Take the answer of each line; one without any text at the places says nothing."""
    known = [column_name(name) for name in names]
    items: list[str] = []
    for place, cells, fault in lines:
        if fault:
            answers.reject(place, ComparisonError(fault))
            continue
        own = [cells[number] for number in places]
        if not any(cell.strip() for cell in own):
            continue
        items += BETWEEN.split(own[1]) if answers.kind == "ordering" else own[1:3]
        if answers.kind == "labelstudio":
            answers.take(place, partial(read_flat, dict(zip(known, cells, strict=False))))
        elif answers.kind == "ordering":
            answers.take(place, partial(expand_ordering, own[0], own[1]))
        else:
            answers.take(place, partial(_compare, own))
    refuse_decimals(answers.path, items)
    return answers


def _compare(cells: list[str]) -> list[Comparison]:
    return [check_comparison(*cells)]


def find_columns(where: str, header: Sequence[str]) -> tuple[str, list[int]]:
    """Return what kind of table a header announces, and the places of its columns.

    `where` names the file and line in errors. Blanks and capitals in names count for nothing;
    further columns are allowed and not read. Raises ComparisonError when no kind fits, several do,
    or a column occurs twice.
    """
    names = [column_name(name) for name in header]
    fitting = {
        kind: columns
        for kind, columns in KINDS.items()
        if all(names.count(column) == 1 for column in columns)
    }
    if "comparison" in fitting:
        fitting.pop("labelstudio", None)
    if len(fitting) != 1:
        found = quote(",".join(name.strip() for name in header))
        raise ComparisonError(
            f"{where}: the columns are {found}, {EXPECTED}; write these names, each once, in the "
            "first line."
        )
    ((kind, columns),) = fitting.items()
    return kind, [names.index(column) for column in columns]


def _check_types(path: Path, names: list[str]) -> None:
    """Raise ComparisonError unless columns of a Parquet file hold text or numbers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pq.read_schema(path)
    for field in schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer,
                 pa.types.is_floating, pa.types.is_null)  # fmt: skip
        if " ".join(field.name.split()) in names and not any(test(kind) for test in tests):
            raise ComparisonError(
                f"{path}: column {quote(field.name)} holds {kind}, expected text or whole numbers; "
                "correct the column."
            )


def write_table(frame: pd.DataFrame, out: Path) -> None:
    """Write a table as CSV or Parquet by suffix, beside `out` and renamed when whole.

    Raises ComparisonError for another suffix, or when `out` cannot be written.
    """
    suffix = out.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise ComparisonError(
            f"{out} ends in {quote(suffix)}, expected .csv or .parquet; choose another --out."
        )
    beside = out.with_name(f".{out.name}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            if suffix == ".csv":
                write_csv(frame, file)
            else:
                frame.to_parquet(file, index=False)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(out)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ComparisonError(
            f"{out} cannot be written ({error.strerror}); choose another --out."
        ) from error
