"""Comparisons in and out: read any file, import into a store, export from one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ecofm.artifact import write_text
from ecofm.compare.comparison import COLUMNS, Comparison, list_names
from ecofm.compare.labelstudio import read_labelstudio, write_labelstudio
from ecofm.compare.store import RECORD, Store, is_store
from ecofm.compare.study import read_study, write_study
from ecofm.compare.tables import PARQUET_MAGIC, decode, read_bytes, read_table, write_table
from ecofm.errors import ComparisonError

if TYPE_CHECKING:
    import pandas as pd

MAX_HEAD = 4096
SUFFIXES = (".csv", ".parquet", ".json", ".txt")


@dataclass(frozen=True, kw_only=True, slots=True)
class FileSummary:
    """What came of one imported file."""

    path: Path
    """The file."""
    n_added: int
    """Comparisons that were new to the store."""
    n_known: int
    """Comparisons that the store held already."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportSummary:
    """What came of an import; the numbers are comparisons, not lines."""

    files: tuple[FileSummary, ...]
    """One entry a file, in the order given."""

    @property
    def n_added(self) -> int:
        """Comparisons that were new to the store, over all files."""
        return sum(file.n_added for file in self.files)

    @property
    def n_known(self) -> int:
        """Comparisons that the store held already, over all files."""
        return sum(file.n_known for file in self.files)


def _read_rows(path: Path) -> tuple[str, list[Comparison]]:
    """Return the kind of any comparison file, and its comparisons."""
    if not is_store(path):
        head = read_bytes(path)[:MAX_HEAD].lstrip(b"\xef\xbb\xbf\r\n\t ")
        if head[:1] in (b"[", b"{"):
            return "labelstudio", read_labelstudio(path, decode(path, read_bytes(path)))
        first_line = head.split(b"\n")[0]
        if head[:4] != PARQUET_MAGIC and b"," not in first_line and set(first_line) & set(b"<="):
            return "study", read_study(path, decode(path, read_bytes(path)))
        return read_table(path)
    with Store(path, create=False) as store:
        rows = store.comparisons()
    if not rows:
        raise ComparisonError(
            f"{path} holds no comparisons yet; collect some with `ecofm compare serve` or "
            "`ecofm compare import`."
        )
    return "comparison", rows


def _to_frame(rows: Sequence[Comparison]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows, columns=list(COLUMNS), dtype="str")


def read_comparisons(path: Path) -> pd.DataFrame:
    """Return a store's or a table's comparisons: annotator, left, right, outcome, all text.

    The kind of file is told by its first bytes, not by its name: a store, Parquet, Label Studio's
    JSON, the reference study's ordering files (no comma, but '<' or '='), else CSV. Orderings are
    expanded, items' names normalised, and outcomes are left, right, tie or skip. Raises
    ComparisonError naming file and line when anything in it is unusable.
    """
    return _to_frame(_read_rows(Path(path))[1])


def hash_comparisons(frame: pd.DataFrame) -> str:
    """Return the sha256 of what was said, whatever file said it and in whichever order.

    A store's file does not change while its server keeps new votes in the write-ahead log.
    """
    text = frame[list(COLUMNS)].sort_values(list(COLUMNS)).to_csv(index=False)
    return hashlib.sha256(text.encode()).hexdigest()


def import_files(paths: Sequence[Path], store: Path) -> ImportSummary:
    """Add the comparisons of tables or other stores to a store, which is made when missing.

    Every file is read before anything is written, and all go in with one transaction: a bad file
    leaves the store as it was. What the store holds already is not added again. Raises
    ComparisonError as `read_comparisons` does.
    """
    tables = [_read_rows(Path(path)) for path in paths]
    if not tables:
        raise ComparisonError("no file to import was named; give CSV or Parquet files.")
    with Store(Path(store)) as target:
        n_added = target.add_tables(tables)
    return ImportSummary(
        files=tuple(
            FileSummary(path=Path(path), n_added=n, n_known=len(rows) - n)
            for path, (_, rows), n in zip(paths, tables, n_added, strict=True)
        )
    )


def export(store: Path, out: Path, annotator: str | None = None, *, full: bool = False) -> int:
    """Write a store's comparisons and return how many there were.

    With `full`, a table has every column that the store keeps (`store.RECORD`), which `import`
    reads too.

    The suffix decides: .csv and .parquet; .json for Label Studio; .txt for one annotator's
    ordering file. With `annotator`, only what they said. Raises ComparisonError when the store is
    missing or empty, or `out` has another suffix or cannot hold the comparisons.
    """
    with Store(Path(store), create=False):
        pass  # a table in place of the store is refused here
    out = Path(out)
    rows = _read_rows(Path(store))[1]
    names = sorted({row.annotator for row in rows})
    if annotator is not None:
        rows = [row for row in rows if row.annotator == annotator]
        if not rows:
            raise ComparisonError(
                f"{store} has nobody called {annotator!r}, expected one of {list_names(names)}; "
                "correct --annotator."
            )
    suffix = out.suffix.lower()
    if suffix not in SUFFIXES:
        raise ComparisonError(
            f"{out} ends in {suffix!r}, expected {', '.join(SUFFIXES)}; choose another --out."
        )
    if suffix == ".json":
        write_text(out, write_labelstudio(rows))
    elif suffix == ".txt":
        if len({row.annotator for row in rows}) > 1:
            raise ComparisonError(
                f"{out}: an ordering file holds one annotator, {store} has {list_names(names)}; "
                "choose one with --annotator."
            )
        write_text(out, write_study(rows))
    else:
        write_table(_read_records(Path(store), annotator) if full else _to_frame(rows), out)
    return len(rows)


def _read_records(store: Path, annotator: str | None) -> pd.DataFrame:
    import pandas as pd

    with Store(store, create=False) as opened:
        frame = pd.DataFrame(opened.records(), columns=list(RECORD))
    frame["response_ms"] = frame["response_ms"].astype("Int64")
    return frame if annotator is None else frame[frame["annotator"] == annotator]
