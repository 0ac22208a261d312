"""The SQLite file behind a comparison store: opened, checked, and never left half written."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock
from typing import Any
from urllib.parse import quote

from ecofm.compare.schema import (
    APPLICATION_ID,
    COLUMNS,
    INDEX,
    SCHEMA,
    TABLES,
    DamagedRowError,
    create_tables,
    digest_row,
    list_columns,
    upgrade,
)
from ecofm.compare.wal import inspect_log
from ecofm.errors import ComparisonError
from ecofm.types import say

SQLITE_MAGIC = b"SQLite format 3\x00"
BUSY_SECONDS = 30


class StoreError(ComparisonError):
    """A store cannot be read or written now; `status` is what a server answers."""

    def __init__(self, status: int, message: str) -> None:
        """Keep the sentence and HTTP's status for it."""
        super().__init__(message)
        self.status = status


def is_store(path: Path) -> bool:
    """Return whether the file begins like SQLite, whatever its name."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(SQLITE_MAGIC)) == SQLITE_MAGIC


def tell_damage(path: Path, found: object) -> StoreError:
    """Return the error of a store in which bytes have changed."""
    where = " ".join(str(found).split())
    return StoreError(
        500,
        f"{path} is damaged ({where[:100]}); restore it from a backup, or save what can still be "
        f"read with `ecofm compare recover --store {path} --out NEW`.",
    )


def explain_error(path: Path, error: sqlite3.Error) -> StoreError:
    """Return what a fault of SQLite means for the store, and what to do."""
    name = getattr(error, "sqlite_errorname", "")
    if name == "SQLITE_FULL":
        return StoreError(507, f"the disk of {path} is full, nothing was written; free some space.")
    if name.startswith("SQLITE_READONLY"):
        return StoreError(
            503, f"{path} cannot be written, nothing was changed; check its rights and its disk."
        )
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StoreError(503, f"{path} is kept locked by another program; close that, try again.")
    if name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN")):
        return StoreError(
            503, f"{path} cannot be read or written ({error}), nothing was changed; check its disk."
        )
    return tell_damage(path, error)


class Database:
    """One store's file: WAL, synchronous=FULL, commit before acknowledging.

    Safe to use from several threads and processes.
    """

    def __init__(self, path: Path, *, create: bool = True, read_only: bool = False) -> None:
        """Open and check the file, or make it when `create`; `read_only` changes nothing.

        Raises ComparisonError when the file is missing, no store, of another schema version, or
        damaged.
        """
        self.path = path
        self._lock = RLock()
        is_old = is_store(path)
        if path.exists() and not is_old and (not path.is_file() or path.stat().st_size):
            raise ComparisonError(
                f"{path} is not a comparison store; give the file that `ecofm compare serve` or "
                "`ecofm compare import` wrote, or a new name."
            )
        if not is_old and (read_only or not create):
            raise ComparisonError(
                f"{path} does not exist or is empty; make a store with `ecofm compare serve` or "
                "`ecofm compare import`."
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._check_log()
            self._db = self._connect(read_only)
        except (OSError, sqlite3.Error) as error:
            raise self._refuse(error) from error
        try:
            self._prepare(read_only)
        except (sqlite3.Error, DamagedRowError, UnicodeDecodeError) as error:
            # Of damaged names, not even SQLite's own messages can be decoded.
            self._db.close()
            raise self._refuse(error) from error
        except BaseException:
            self._db.close()
            raise

    def _refuse(self, error: Exception) -> ComparisonError:
        """Return why the store cannot be opened; a file that was only begun is removed."""
        with suppress(OSError):
            if self.path.is_file() and not self.path.stat().st_size:
                self.path.unlink()
        if isinstance(error, (DamagedRowError, UnicodeDecodeError)):
            return tell_damage(self.path, error)
        name = getattr(error, "sqlite_errorname", "")
        if isinstance(error, sqlite3.Error) and not name.startswith("SQLITE_CANTOPEN"):
            return explain_error(self.path, error)
        return ComparisonError(
            f"{self.path} cannot be opened as a comparison store ({error}); check the rights of "
            "its folder and the disk, or give another --store."
        )

    def _check_log(self) -> None:
        state = inspect_log(self.path)
        if state == "damaged":
            raise tell_damage(self.path, f"its log {self.path.name}-wal, with the latest votes")
        if state == "torn":
            say(
                f"the last entry of {self.path}-wal is incomplete and left out: it was being "
                "written when the server was stopped, or has been damaged since."
            )

    def _connect(self, read_only: bool) -> sqlite3.Connection:
        # Autocommit: transactions are opened by hand, as IMMEDIATE.
        db = sqlite3.connect(
            self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        db.create_function("digest_row", -1, digest_row, deterministic=True)
        if not read_only:
            return db
        try:
            db.execute("PRAGMA schema_version").fetchone()
            return db
        except sqlite3.OperationalError:
            db.close()
            if self.path.with_name(f"{self.path.name}-wal").exists():
                raise
        # A folder in which SQLite cannot make its log; without a log the file is all there is.
        address = f"file:{quote(str(self.path.resolve()))}?mode=ro&immutable=1"
        db = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
        db.create_function("digest_row", -1, digest_row, deterministic=True)
        return db

    def _prepare(self, read_only: bool) -> None:
        """Check everything before anything is changed, then make the tables of a new store."""
        is_new = not self._db.execute("PRAGMA schema_version").fetchone()[0]
        if not is_new:
            self._check_whole()
            self._check_schema(read_only)
        if not read_only:
            self._db.execute("PRAGMA journal_mode=WAL")
            # FULL: a commit is on the disk before it returns (0 of 18,221 lost over 20 kills).
            self._db.execute("PRAGMA synchronous=FULL")
            # Some thirty votes are in the log alone; 1,000 pages would be hundreds, and who copies
            # the store without its log would lose them.
            self._db.execute("PRAGMA wal_autocheckpoint=100")
            # What an annotator deletes is gone from the file, too.
            self._db.execute("PRAGMA secure_delete=ON")
        if is_new:
            with self.transaction():
                # Another process may have been first.
                if not self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
                    create_tables(self._db)
        self._check_digests()

    def _check_whole(self) -> None:
        found = self._db.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if found != "ok":
            raise tell_damage(self.path, found)

    def _check_schema(self, read_only: bool) -> None:
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        tables = {
            sql for (sql,) in self._db.execute("SELECT sql FROM sqlite_master WHERE sql > ''")
        }
        is_ours = {*TABLES.values(), INDEX} <= tables
        if is_ours and (application, version) != (APPLICATION_ID, SCHEMA):
            raise tell_damage(self.path, "its header")
        if application != APPLICATION_ID:
            raise ComparisonError(
                f"{self.path} is an SQLite file of another program, expected a comparison store; "
                "give another --store."
            )
        if version == SCHEMA and not is_ours:
            raise tell_damage(self.path, "its tables are not those of a store")
        if version in (1, 2):
            self._upgrade(version, read_only)
        elif version != SCHEMA:
            raise ComparisonError(
                f"{self.path} is a store of schema {version}, expected {SCHEMA}; export it with "
                "the ecofm that wrote it, and import that file into a new store."
            )

    def _upgrade(self, version: int, read_only: bool) -> None:
        """Bring an older store up to date; what is only read is so in memory."""
        if read_only:
            say(
                f"{self.path} was written by an older ecofm and has no checksums: changed bytes "
                "go unnoticed in it. It gets them when it is next served or imported into."
            )
            memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            self._db.backup(memory)
            self._db.close()
            memory.create_function("digest_row", -1, digest_row, deterministic=True)
            self._db = memory
        with self.transaction():
            # Another process may have been first.
            if self._db.execute("PRAGMA user_version").fetchone() == (version,):
                upgrade(self._db, version)

    def _check_digests(self) -> None:
        for table in TABLES:
            columns = list_columns(table)
            sql = f"SELECT rowid FROM {table} WHERE digest IS NOT digest_row({columns}) LIMIT 1"
            try:
                found = self._db.execute(sql).fetchone()
            except sqlite3.OperationalError as error:  # such as text that is not UTF-8
                raise tell_damage(self.path, f"table {table}: {error}") from error
            if found:
                raise tell_damage(self.path, f"{table} {found[0]} is not what was written")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing of what happens inside; raises StoreError when it cannot be written."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            except sqlite3.DatabaseError as error:
                self._roll_back()
                if getattr(error, "sqlite_errorname", "SQLITE_ERROR") == "SQLITE_ERROR":
                    raise  # wrong SQL: a fault of ours
                raise explain_error(self.path, error) from error
            except BaseException:
                self._roll_back()
                raise

    def _roll_back(self) -> None:
        # SQLite has done so itself after some faults, such as a full disk.
        if self._db.in_transaction:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return all rows; raises StoreError when they cannot be read."""
        with self._lock:
            try:
                return self._db.execute(sql, values).fetchall()
            except sqlite3.DatabaseError as error:
                if getattr(error, "sqlite_errorname", "SQLITE_ERROR") == "SQLITE_ERROR":
                    raise
                raise explain_error(self.path, error) from error

    def insert(self, table: str, rows: Sequence[tuple[Any, ...]]) -> int:
        """Insert rows, each with its digest, where their key is new; return how many were."""
        marks = ", ".join("?" * (len(COLUMNS[table]) + 1))
        before = self._db.total_changes
        self._db.executemany(
            f"INSERT OR IGNORE INTO {table} VALUES ({marks})",
            [(*row, digest_row(*row)) for row in rows],
        )
        return self._db.total_changes - before

    def update(self, table: str, change: str, where: str, *values: Any) -> None:
        """Change rows and their digests; `values` fill the marks of `change` and `where`."""
        keys = self._db.execute(
            f"SELECT rowid FROM {table} WHERE {where}", values[change.count("?") :]
        ).fetchall()
        given = values[: change.count("?")]
        sql = f"UPDATE {table} SET {change} WHERE rowid = ?"
        self._db.executemany(sql, [(*given, *key) for key in keys])
        sql = f"UPDATE {table} SET digest = digest_row({list_columns(table)}) WHERE rowid = ?"
        self._db.executemany(sql, keys)

    def delete(self, table: str, where: str, *values: Any) -> int:
        """Delete rows; return how many."""
        return self._db.execute(f"DELETE FROM {table} WHERE {where}", values).rowcount

    def close(self) -> None:
        """Close the file; nothing can be used afterwards."""
        with self._lock:
            self._db.close()
