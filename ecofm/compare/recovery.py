"""What can still be read of a damaged store, saved in a new one."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ecofm.compare.database import is_store
from ecofm.compare.schema import (
    INDEX,
    OLD_COLUMNS,
    OLD_SHOWN,
    SCHEMA,
    TABLES,
    DamagedRowError,
    check_types,
    digest_row,
    list_columns,
)
from ecofm.compare.store import Store
from ecofm.errors import ComparisonError

ROW_BYTES = 20
"""No row is shorter: so many bytes of the file hold one at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recovered:
    """What came of a recovery."""

    n_kept: int
    """Comparisons in the new store."""
    n_lost: int
    """Rows of any table that could not be read, or not as they were written."""
    lost: tuple[str, ...]
    """One sentence for each of them."""


def recover(store: Path, out: Path) -> Recovered:
    """Save every row whose digest is right in a new store; the damaged one is left as it is.

    Raises ComparisonError when there is no store, or none of its tables can be read, or `out`
    exists.
    """
    store, out = Path(store), Path(out)
    if out.exists():
        raise ComparisonError(f"{out} exists; give a new --out.")
    if not is_store(store):
        raise ComparisonError(f"{store} is not a comparison store; restore it from a backup.")
    lost: list[str] = []
    with TemporaryDirectory() as folder:
        copy = _copy(store, Path(folder))
        kept = {table: list(_read_rows(copy, table, lost)) for table in TABLES}
    if not kept["vote"]:
        raise ComparisonError(f"nothing can be read of {store}; restore it from a backup.")
    with Store(out) as target:
        with target.transaction():
            for table, rows in kept.items():
                target.insert(table, rows)
        n_kept = len(target.comparisons())
    return Recovered(n_kept=n_kept, n_lost=len(lost), lost=tuple(lost))


def _copy(store: Path, folder: Path) -> Path:
    """Return a copy of a store and its log whose tables are defined as they were at first."""
    copy = folder / "store"
    for ending in ("", "-wal"):
        if (found := store.with_name(f"{store.name}{ending}")).exists():
            shutil.copyfile(found, copy.with_name(f"{copy.name}{ending}"))
    db = sqlite3.connect(copy)
    with suppress(sqlite3.DatabaseError), db:
        db.execute("PRAGMA writable_schema=ON")
        if db.execute("PRAGMA user_version").fetchone() == (SCHEMA,):
            for table, sql in TABLES.items():
                db.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (sql, table))
            db.execute(
                "UPDATE sqlite_master SET sql = ? WHERE type = 'index' AND sql > ''", (INDEX,)
            )
    db.close()
    return copy


def _read_rows(store: Path, table: str, lost: list[str]) -> Iterator[tuple[Any, ...]]:
    """Yield rows without their digest; those that cannot be read, or have changed, go to `lost`."""
    db = sqlite3.connect(store)
    try:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        columns = f"{list_columns(table)}, digest"
        if version in OLD_SHOWN:
            if table != "vote":
                return
            columns = OLD_COLUMNS.format(shown=OLD_SHOWN[version])
        # Row by row, without an index: a page that cannot be read hides no others.
        sql = f"SELECT {columns} FROM {table} NOT INDEXED WHERE rowid = ?"
        for rowid in range(1, _find_last(db, store, table) + 1):
            try:
                for row in db.execute(sql, (rowid,)):
                    yield _check_row(table, row, version)
            except (sqlite3.DatabaseError, DamagedRowError) as error:
                lost.append(f"{table} {rowid}: {error}")
    except sqlite3.DatabaseError as error:
        lost.append(f"table {table}: {error}")
    finally:
        db.close()


def _check_row(table: str, row: tuple[Any, ...], version: int) -> tuple[Any, ...]:
    """Return a row without its digest; raises DamagedRowError when it was never written so."""
    # A store of before has neither owner nor digest.
    *values, digest = (*row, None, None) if version in OLD_SHOWN else row
    check_types(table, tuple(values))
    if version not in OLD_SHOWN and digest_row(*values) != digest:
        raise DamagedRowError("is not what was written")
    return tuple(values)


def _find_last(db: sqlite3.Connection, store: Path, table: str) -> int:
    """Return the last row's number, or a bound where it cannot be read."""
    most = store.stat().st_size // ROW_BYTES
    try:
        (last,) = db.execute(f"SELECT max(rowid) FROM {table} NOT INDEXED").fetchone()
    except sqlite3.DatabaseError:
        return most
    return min(last or 0, most)
