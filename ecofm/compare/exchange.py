"""Comparisons in and out: read any file, import into a store, export from one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecofm.artifact import write_text
from ecofm.compare.answers import MAX_SHOWN, Answers, Rejection
from ecofm.compare.comparison import COLUMNS, Comparison, list_names
from ecofm.compare.database import is_store
from ecofm.compare.labelstudio import read_labelstudio, write_labelstudio
from ecofm.compare.store import RECORD, Store
from ecofm.compare.study import read_study, write_study
from ecofm.compare.tables import (
    PARQUET_MAGIC,
    read_parquet_table,
    read_text_table,
    write_table,
)
from ecofm.errors import ComparisonError, EcofmError
from ecofm.escaping import visible
from ecofm.tables import count, decode, read_bytes
from ecofm.types import say

if TYPE_CHECKING:
    import pandas as pd

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
    rejected: tuple[Rejection, ...]
    """What was left out, in the order of the file."""


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

    @property
    def rejected(self) -> list[str]:
        """What was left out of all files, one sentence each."""
        return [tell_rejection(file.path, found) for file in self.files for found in file.rejected]


def read_answers(path: Path) -> Answers:
    """Return what any comparison file holds, the good answers and the others.

    The kind of file is told by its content, not by its name: a store, Parquet, Label Studio's
    JSON, the reference study's ordering files (no comma, but '<' or '='), else CSV. Raises
    ComparisonError when the file is of no kind, has no answers, or most of it is at fault.
    """
    try:
        return _read_any(path).settle()
    except ComparisonError:
        raise
    except EcofmError as error:
        raise ComparisonError(str(error)) from error


def _read_any(path: Path) -> Answers:
    if is_store(path):
        return _read_store(path)
    content = read_bytes(path)
    if content.startswith(PARQUET_MAGIC):
        return read_parquet_table(path)
    text = decode(path, content)
    if text.lstrip()[:1] in ("[", "{"):
        return read_labelstudio(path, text)
    first_line = text.lstrip().split("\n")[0]
    is_table = "," in first_line or first_line.strip('"').lower().startswith("sep=")
    if not is_table and set(first_line) & set("<="):
        return read_study(path, text)
    return read_text_table(path, text)


def _read_store(path: Path) -> Answers:
    answers = Answers(path, "comparison")
    with Store(path, create=False, read_only=True) as store:
        answers.rows = store.comparisons()
    answers.n_good = len(answers.rows)
    if not answers.rows:
        raise ComparisonError(tell_empty(path))
    return answers


def tell_empty(store: Path) -> str:
    """Return what is said of a store without comparisons."""
    return (
        f"{store} holds no comparisons yet; collect some with `ecofm compare serve` or "
        "`ecofm compare import`."
    )


def _to_frame(rows: Sequence[Comparison]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows, columns=list(COLUMNS), dtype="str")


def read_comparisons(path: Path, warn: Callable[[str], None] = say) -> pd.DataFrame:
    """Return a store's or a table's comparisons: annotator, left, right, outcome, all text.

    Orderings are expanded, items' names normalised, and outcomes are left, right, tie or skip.
    Questions without an answer are left out, and `warn` is told so. Raises ComparisonError as
    `read_answers` does, and naming file and line when anything in it is at fault.
    """
    answers = read_answers(Path(path)).require_whole()
    if n_open := len(answers.rejected):
        warn(f"{path}: {count(n_open, 'question')} without an answer left out.")
    tell_alike({row.annotator for row in answers.rows}, warn)
    return _to_frame(answers.rows)


def tell_alike(annotators: Iterable[str], warn: Callable[[str], None] = say) -> None:
    """Tell of annotators whose names differ in capitals or blanks only."""
    spellings: dict[str, list[str]] = {}
    for name in sorted(annotators):
        spellings.setdefault("".join(name.casefold().split()), []).append(name)
    alike = [names for names in spellings.values() if len(names) > 1]
    if alike:
        shown = "; ".join(" and ".join(map(repr, names)) for names in alike[:MAX_SHOWN])
        rest = f"; and {len(alike) - MAX_SHOWN} more" if len(alike) > MAX_SHOWN else ""
        warn(
            f"annotators whose names differ only in capitals or blanks are counted as different "
            f"people: {shown}{rest}. If they are the same, spell them alike in the file and import "
            "it into a new store."
        )


def hash_comparisons(frame: pd.DataFrame) -> str:
    """Return the sha256 of what was said, whatever file said it and in whichever order.

    A store's file does not change while its server keeps new votes in the write-ahead log.
    """
    text = frame[list(COLUMNS)].sort_values(list(COLUMNS)).to_csv(index=False)
    return hashlib.sha256(text.encode()).hexdigest()


def import_files(paths: Sequence[Path], store: Path, *, strict: bool = False) -> ImportSummary:
    """Add the comparisons of tables or other stores to a store, which is made when missing.

    Every file is read before anything is written, and all go in with one transaction. What cannot
    be read is left out, and named with its place and reason in a table beside the store (see
    `name_rejected`). What the store holds already is not added again. Raises ComparisonError as
    `read_answers` does, and with `strict` when anything was left out: the store is then as it was.
    """
    found = [read_answers(Path(path)) for path in paths]
    if not found:
        raise ComparisonError("no file to import was named; give CSV or Parquet files.")
    rejected = [(answers.path, told) for answers in found for told in answers.rejected]
    names = name_rejected(Path(store))
    if strict and rejected:
        _write_rejected(rejected, names)
        raise ComparisonError(
            f"{tell_rejection(*rejected[0])} {count(len(rejected), 'answer')} cannot be read, "
            f"{names} has them all; nothing was imported, since --strict was given."
        )
    with Store(Path(store)) as target:
        _write_rejected(rejected, names)
        n_added = target.add_tables([(answers.kind, answers.rows) for answers in found])
        tell_alike({row.annotator for row in target.comparisons()})
    return ImportSummary(
        files=tuple(
            FileSummary(
                path=answers.path, n_added=n, n_known=len(answers.rows) - n,
                rejected=tuple(answers.rejected),
            )
            for answers, n in zip(found, n_added, strict=True)
        )
    )  # fmt: skip


def name_rejected(store: Path) -> Path:
    """Return the table, beside a store, of what its latest import left out: file, place, reason."""
    return store.with_name(f"{store.name}.rejected.csv")


def tell_rejection(path: Path, found: Rejection) -> str:
    """Return what was left out of a file, and why."""
    return f"{path}, {found.place}: {found.reason}"


def _write_rejected(rejected: Sequence[tuple[Path, Rejection]], out: Path) -> None:
    """Write what an import leaves out; the table of an import before it is gone."""
    import pandas as pd

    if not rejected:
        if out.exists():  # on a read-only disk, not even a missing file can be removed
            out.unlink()
        return
    rows = [(visible(str(path)), found.place, found.reason) for path, found in rejected]
    write_table(pd.DataFrame(rows, columns=["file", "place", "reason"]), out)


def export(store: Path, out: Path, annotator: str | None = None, *, full: bool = False) -> int:
    """Write a store's comparisons and return how many there were.

    With `full`, a table has every column that the store keeps (`store.RECORD`), which `import`
    reads too.

    The suffix decides: .csv and .parquet; .json for Label Studio; .txt for one annotator's
    ordering file. With `annotator`, only what they said. Raises ComparisonError when the store is
    missing or empty, or `out` has another suffix or cannot hold the comparisons.
    """
    store, out = Path(store), Path(out)
    with Store(store, create=False, read_only=True) as opened:
        rows, records = opened.comparisons(), opened.records() if full else []
    if not rows:
        raise ComparisonError(tell_empty(store))
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
        write_table(_to_records(records, annotator) if full else _to_frame(rows), out)
    return len(rows)


def _to_records(records: Sequence[tuple[Any, ...]], annotator: str | None) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame(records, columns=list(RECORD))
    frame["response_ms"] = frame["response_ms"].astype("Int64")
    return frame if annotator is None else frame[frame["annotator"] == annotator]
