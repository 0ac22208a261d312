"""Tables of comparisons or orderings: CSV and Parquet, read with the line named, written whole."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ecofm.compare.comparison import COLUMNS, Comparison, check_comparison, quote
from ecofm.compare.orderings import expand_ordering
from ecofm.errors import ComparisonError

if TYPE_CHECKING:
    import pandas as pd

ORDERING_COLUMNS = ("annotator", "ordering")
EXPECTED = "expected annotator,left,right,outcome or annotator,ordering"
PARQUET_MAGIC = b"PAR1"

Line = tuple[int, Sequence[str]]
"""Line number in the file (of a Parquet file: row number from 1), and the fields."""


def read_bytes(path: Path) -> bytes:
    """Return a file's content; raises ComparisonError when it is missing, empty or no file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ComparisonError(
            f"{path} cannot be read ({error.strerror}); give a CSV or Parquet file with columns "
            "annotator,left,right,outcome or annotator,ordering, or a comparison store."
        ) from error
    if not content:
        raise ComparisonError(f"{path} is empty, {EXPECTED}; give a file with answers in it.")
    return content


def read_table(path: Path) -> tuple[str, list[Comparison]]:
    """Return the kind of a CSV or Parquet file, `comparison` or `ordering`, and its comparisons.

    Orderings are expanded. Raises ComparisonError naming the file and the line of the first
    fault.
    """
    content = read_bytes(path)
    parquet = content.startswith(PARQUET_MAGIC)
    lines = read_parquet(path, content) if parquet else read_csv(path, content)
    kind, places = find_columns(path, next(lines)[1])
    rows: list[Comparison] = []
    for number, fields in lines:
        cells = [fields[place] for place in places]
        try:
            if kind == "ordering":
                rows += expand_ordering(cells[0], cells[1])
            else:
                rows.append(check_comparison(cells[0], cells[1], cells[2], cells[3]))
        except ComparisonError as error:
            raise ComparisonError(
                f"{path}, {'row' if parquet else 'line'} {number}: {error}"
            ) from error
    if not rows:
        raise ComparisonError(f"{path} has a header and no answers; give a file with answers.")
    return kind, rows


def find_columns(path: Path, header: Sequence[str]) -> tuple[str, list[int]]:
    """Return what kind of table a header announces, and the places of its columns.

    Further columns are allowed and not read. Raises ComparisonError when neither kind fits, both
    do, or a column occurs twice.
    """
    names = [name.strip() for name in header]
    fitting = {
        kind: columns
        for kind, columns in (("comparison", COLUMNS), ("ordering", ORDERING_COLUMNS))
        if all(names.count(column) == 1 for column in columns)
    }
    if len(fitting) != 1:
        found = quote(",".join(names))
        raise ComparisonError(
            f"{path}, line 1: the columns are {found}, {EXPECTED}; correct the first line."
        )
    ((kind, columns),) = fitting.items()
    return kind, [names.index(column) for column in columns]


def decode(path: Path, content: bytes) -> str:
    """Return UTF-8 text, with or without a byte order mark; raises ComparisonError otherwise."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise ComparisonError(
            f"{path}, line {number}: byte 0x{content[error.start]:02x} is not UTF-8; "
            "save the file in UTF-8."
        ) from error


def read_csv(path: Path, content: bytes) -> Iterator[Line]:
    """Yield the header and each line that is not blank; UTF-8, with or without a byte order mark.

    Raises ComparisonError for other encodings, broken quotes, fields over csv's 131,072
    characters, and lines with another number of fields than the header.
    """
    reader = csv.reader(io.StringIO(decode(path, content), newline=""), strict=True)
    n_fields = 0
    try:
        for fields in reader:
            if not fields:
                continue
            n_fields = n_fields or len(fields)
            if len(fields) != n_fields:
                raise ComparisonError(
                    f"{path}, line {reader.line_num}: found {len(fields)} fields, expected "
                    f"{n_fields} as in the first line; correct the line."
                )
            yield reader.line_num, fields
    except csv.Error as error:
        raise ComparisonError(
            f"{path}, line {reader.line_num}: this is not CSV ({error}); correct the line."
        ) from error
    if not n_fields:
        raise ComparisonError(f"{path} has only blank lines, {EXPECTED}; give another file.")


def read_parquet(path: Path, content: bytes) -> Iterator[Line]:
    """Yield the header and each row; text and integer columns, no missing values.

    Raises ComparisonError for damaged files and for columns of other types.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        names = file.schema_arrow.names
        yield 1, names
        _, places = find_columns(path, names)
        table = file.read([names[place] for place in places])
    except (pa.ArrowException, OSError) as error:
        raise ComparisonError(
            f"{path} cannot be read as Parquet ({str(error)[:100]}); export it again."
        ) from error
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        if not (is_text or pa.types.is_integer(kind)) or column.null_count:
            found = "missing values" if column.null_count else str(kind)
            raise ComparisonError(
                f"{path}: column {quote(name)} holds {found}, expected text in every row; "
                "correct the column."
            )
        columns[name] = [str(value) for value in column.to_pylist()]
    blank = [""] * table.num_rows
    yield from enumerate(zip(*(columns.get(name, blank) for name in names), strict=True), start=1)


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
                frame.to_csv(file, index=False, encoding="utf-8", lineterminator="\n")
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
