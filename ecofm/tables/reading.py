"""Text tables and Parquet, as cells of text with the line that each stands on."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecofm.errors import EcofmError
from ecofm.escaping import unescape_cell
from ecofm.files import FileError, read_file, reason_of, require_parquet
from ecofm.tables.keys import column_name, count, quote

PARQUET, GZIP = b"PAR1", b"\x1f\x8b"
MAX_BYTES = 2**30
"""1 GiB, also of what is packed with gzip."""
FOREIGN = {
    b"PK\x03\x04": "a workbook or a zip archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"%PDF": "a PDF",
    b"SQLite format 3": "a database (a GeoPackage, perhaps)",
    b"<": "a web page or XML",
}
UTF16 = (b"\xff\xfe", b"\xfe\xff")
SEPARATORS = ",;\t|"
N_PROBED = 200
"""Records that tell which character separates the fields."""
SPOKEN = {"\t": "tabs", ";": "semicolons", "|": "vertical bars"}
ROW_NUMBERS = re.compile(r"unnamed:_?\d+|index_level_\d+|index|")
"""Names, as `column_name` gives them, under which programs write row numbers."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table's cells. `frame` holds text, "" where nothing stands; Parquet's numbers stay so."""

    path: Path
    frame: pd.DataFrame
    """One column a named column of the file, its name without outer blanks; rows from 0."""
    lines: NDArray[np.int64]
    """Line of each row in the file; of Parquet, the row's number from 1."""
    unit: str
    """What `lines` counts: `line` or `row`."""
    separator: str | None
    """What stands between the fields of a text table."""
    notes: tuple[str, ...]
    """What was recognised or left out, one sentence each."""

    @property
    def columns(self) -> list[str]:
        """The names of the columns, in order."""
        return [str(name) for name in self.frame.columns]

    def find(self, *names: str) -> str | None:
        """Return the first of these columns that is there, in any case and with any blanks."""
        known: dict[str, str] = {}
        for name in self.columns:
            known.setdefault(column_name(name), name)
        return next((known[n] for n in map(column_name, names) if n in known), None)

    def text(self, column: str) -> list[str]:
        """Return a column's cells as text, "" where nothing stands; 7001.0 of Parquet is so."""
        cells = self.frame[column]
        if pd.api.types.is_numeric_dtype(cells):
            return ["" if pd.isna(cell) else str(cell) for cell in cells.tolist()]
        return [str(cell) for cell in cells]

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Yield the line and the text of some columns, row by row."""
        cells = zip(*(self.text(column) for column in columns), strict=True)
        yield from zip(self.lines.tolist(), cells, strict=True)

    def at(self, row: SupportsIndex) -> str:
        """Return a row's place in the file: `line 7`."""
        return f"{self.unit} {self.lines[row]}"


def read_table(path: Path) -> Table:
    """Return a CSV or TSV (also compressed with gzip, or as Excel writes them) or a Parquet table.

    The kind is told by the content. Text is UTF-8, with or without a byte order mark, or UTF-16
    with one; fields are separated by commas, semicolons, tabs or vertical bars, which a first line
    `sep=;` may tell. Rows without any text are dropped, empty fields at the end of a row are
    ignored, and nothing in a cell is taken for missing. Raises EcofmError naming the file and the
    line of the first fault.
    """
    content = read_bytes(path)
    if content.startswith(PARQUET):
        return _read_parquet(path, content)
    return _read_text(path, decode(path, content))


def read_bytes(path: Path) -> bytes:
    """Return a file's content, decompressed; raises EcofmError when missing, empty or damaged."""
    try:
        content = read_file(path, MAX_BYTES)
        if content.startswith(GZIP):
            content = _unpack(content)
        if content.startswith(PARQUET):
            require_parquet(io.BytesIO(content))
    except (OSError, EOFError, zlib.error) as error:
        raise EcofmError(
            f"{path} cannot be read as a table ({reason_of(error)}); give a CSV or Parquet file."
        ) from error
    if not content.strip():
        raise EcofmError(f"{path} is empty; give a table with a line of column names and rows.")
    return content


def _unpack(content: bytes) -> bytes:
    """Return what is packed with gzip; raises FileError where it is far more than it looks."""
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as packed:
        found = packed.read(MAX_BYTES + 1)
    if len(found) > MAX_BYTES:
        raise FileError(f"it unpacks to more than {MAX_BYTES} bytes")
    return found


def decode(path: Path, content: bytes) -> str:
    """Return the text of a file in UTF-8 or, where a byte order mark says so, UTF-16.

    Raises EcofmError naming the line and byte that is neither, and for files of other kinds.
    """
    for head, kind in FOREIGN.items():
        if content.startswith(head):
            raise EcofmError(
                f"{path} is {kind}, not a table of text; save it as CSV in UTF-8, or as Parquet."
            )
    encoding = "utf-16" if content.startswith(UTF16) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise EcofmError(
            f"{path}, line {line}: byte 0x{content[error.start]:02x} is not "
            f"{encoding.removesuffix('-sig').upper()}; save the file in UTF-8 (Excel: "
            '"CSV UTF-8").'
        ) from error
    if text.lstrip().startswith("<"):
        raise EcofmError(
            f"{path} is {FOREIGN[b'<']}, not a table of text; save it as CSV in UTF-8."
        )
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise EcofmError(f"{path}, line {line} holds a zero byte; save the file as CSV in UTF-8.")
    return text


Record = tuple[int, list[str]]


@dataclass(frozen=True, slots=True)
class Records:
    """The fields of a text table, whatever their number in each record."""

    head: int
    """The line of the column names."""
    names: list[str]
    """The column names, without blank ones at the end."""
    width: int
    """Fields in the line of column names, blank ones at the end included."""
    rows: list[Record]
    """The line on which each further record begins, and its fields; none of them is all blank."""
    separator: str
    """What stands between the fields."""
    notes: tuple[str, ...]
    """What was recognised or left out, one sentence each."""

    def misfit(self, cells: list[str]) -> str | None:
        """Return what is wrong with a record's number of fields, None where it fits the names.

        Blank fields may be missing or too many at the end of the file's lines, but no column.
        """
        filled = len(_trim(cells))
        if len(cells) >= len(self.names) and filled <= self.width:
            return None
        found = max(filled, min(len(cells), len(self.names)))
        cure = "correct the line"
        if len(self.names) == 1:
            cure = (
                f"if line {self.head}, {quote(self.names[0])}, is a title or a comment, remove it: "
                "the column names come first"
            )
        elif filled == 1:
            cure = "correct the line, or remove it if it is a title or a footnote"
        return (
            f"found {count(found, 'field')}, expected {len(self.names)} as in the column names of "
            f"line {self.head}; {cure}."
        )


def read_records(path: Path, text: str) -> Records:
    """Return the fields of a text table; raises EcofmError when it has none, or broken quotes."""
    skipped, separator = 0, None
    if told := re.match(r'"?sep=(.)"?[;,\t]*(?:\r\n|\n|\r)', text, re.IGNORECASE):
        separator, text, skipped = told[1], text[told.end() :], 1
    separator = separator or _detect_separator(text)
    records = list(_split(path, text, separator, skipped))
    kept = [record for record in records if _trim(record[1])]
    if not kept:
        raise EcofmError(f"{path} has only blank lines; give a table with column names and rows.")
    notes = [f"{path.name} is separated by {SPOKEN[separator]}."] if separator in SPOKEN else []
    if dropped := len(records) - len(kept):
        notes.append(f"{path.name}: left out {count(dropped, 'empty row')}.")
    (head, names), *rows = kept
    return Records(head, _trim(names), len(names), rows, separator, tuple(notes))


def _read_text(path: Path, text: str) -> Table:
    found = read_records(path, text)
    for line, cells in found.rows:
        if fault := found.misfit(cells):
            raise EcofmError(f"{path}, line {line}: {fault}")
    rows = [_trim(cells) for _, cells in found.rows]
    width = max(len(cells) for cells in (found.names, *rows))
    columns = [[c[place] if place < len(c) else "" for c in rows] for place in range(width)]
    lines = [line for line, _ in found.rows]
    return _build(path, found.names, columns, lines, found.separator, list(found.notes), found.head)


def _trim(cells: list[str]) -> list[str]:
    """Return cells without the blank ones at the end."""
    end = len(cells)
    while end and not cells[end - 1].strip():
        end -= 1
    return cells[:end]


def _split(path: Path, text: str, separator: str, skipped: int = 0) -> Iterator[Record]:
    """Yield the line on which each record begins, and its fields; blank lines are skipped."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    before = 0
    try:
        for cells in reader:
            if cells:
                yield before + 1 + skipped, [unescape_cell(cell) for cell in cells]
            before = reader.line_num
    except csv.Error as error:
        raise EcofmError(
            f"{path}, line {before + 1 + skipped} cannot be read as a table ({error}); correct "
            "the line."
        ) from error


def _detect_separator(text: str) -> str:
    """Return the separator under which the first records have as many fields as the header.

    Of several, the one with the most fields; a decimal comma in a table of semicolons is none.
    """
    best, found = (False, 0), ","
    for separator in SEPARATORS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        widths: list[int] = []
        try:
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    widths.append(len(_trim(cells)) if widths else len(cells))
                if len(widths) > N_PROBED:
                    break
        except csv.Error:
            continue
        if not widths or widths[0] < 2:
            continue
        fits = all(1 < width <= widths[0] for width in widths[1:])
        if (fits, widths[0]) > best:
            best, found = (fits, widths[0]), separator
    return found


def _read_parquet(path: Path, content: bytes) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(content))
        plain = [f.name for f in table.schema if not _is_nested(f.type)]
        others = [f"{f.name} ({f.type})" for f in table.schema if f.name not in plain]
        table = table.select(plain)
        names = [str(name) for name in plain]
        # Whole numbers with gaps stay whole: a long code has more digits than a float holds.
        columns = [_plain(column.to_pandas(integer_object_nulls=True)) for column in table.columns]
    # Damaged files make Arrow raise nearly anything.
    except Exception as error:
        raise EcofmError(
            f"{path} cannot be read as a table ({str(error)[:100]}); write it again as Parquet or "
            "CSV."
        ) from error
    blank = np.ones(table.num_rows, dtype=bool)
    for column in columns:
        blank &= _is_blank(column)
    dropped = int(blank.sum())
    notes = [f"{path.name}: left out {count(dropped, 'empty row')}."] if dropped else []
    if others:
        notes.append(f"{path.name}: left out {', '.join(others)}, neither text nor numbers.")
    kept = np.flatnonzero(~blank)
    columns = [column.iloc[kept] for column in columns]
    return _build(path, names, columns, (kept + 1).tolist(), None, notes)


def _is_nested(kind: Any) -> bool:
    """Return whether an Arrow type holds geometries, lists or structures."""
    import pyarrow.types as types

    return any(test(kind) for test in (types.is_nested, types.is_binary, types.is_large_binary))


def from_frame(path: Path, frame: pd.DataFrame) -> Table:
    """Return the table of a frame that another reader made of a file."""
    columns = [_plain(frame[name]) for name in frame.columns]
    lines = list(range(1, len(frame) + 1))
    return _build(path, [str(name) for name in frame.columns], columns, lines, None, [])


def _plain(column: pd.Series) -> pd.Series:
    """Return numbers as they are, and everything else as text with "" for nothing."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return column.reset_index(drop=True)
    missing = column.isna().to_numpy()
    cells = ["" if gone else str(cell) for cell, gone in zip(column, missing, strict=True)]
    return pd.Series(cells, dtype=object)


def _is_blank(column: pd.Series) -> NDArray[np.bool_]:
    if pd.api.types.is_numeric_dtype(column):
        return np.asarray(column.isna(), dtype=bool)
    return np.array([not cell.strip() for cell in column], dtype=bool)


def _build(
    path: Path,
    names: list[str],
    columns: Sequence[pd.Series | list[str]],
    lines: list[int],
    separator: str | None,
    notes: list[str],
    head: int = 0,
) -> Table:
    """Return a table of the named columns; raises EcofmError where names are missing or twice."""
    unit = "line" if separator else "row"
    found: dict[str, pd.Series] = {}
    for place, given in enumerate(columns):
        name = " ".join((names[place] if place < len(names) else "").split())
        column = pd.Series(given, dtype=object) if isinstance(given, list) else given
        column = column.reset_index(drop=True)
        if ROW_NUMBERS.fullmatch(column_name(name)):
            if _is_blank(column).all():
                continue
            if _counts_rows(column):
                notes.append(f"{path.name}: left out column {place + 1}, which numbers the rows.")
                continue
        if not name:
            row = int(np.argmax(~_is_blank(column)))
            raise EcofmError(
                f"{path}: column {place + 1} has no name and holds {quote(str(column[row]))} "
                f"({unit} {lines[row]}). {f'Line {head}' if head else 'The file'} must name the "
                "columns: remove a title above them, or name the column."
            )
        if name in found:
            raise EcofmError(f"{path} has two columns {quote(name)}; rename or remove one of them.")
        found[name] = column
    frame = pd.DataFrame(found)
    return Table(path, frame, np.array(lines, dtype=np.int64), unit, separator, tuple(notes))


def _counts_rows(column: pd.Series) -> bool:
    """Return whether a column holds 0, 1, 2 or 1, 2, 3, each a row."""
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    return len(numbers) > 1 and bool((np.diff(numbers) == 1).all() and numbers[0] in (0, 1))
