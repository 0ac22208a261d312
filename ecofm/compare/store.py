"""The comparison store: one SQLite file that keeps every vote it has acknowledged."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import Any, Literal, NamedTuple

from ecofm import __version__
from ecofm.compare.comparison import COLUMNS, Comparison
from ecofm.errors import ComparisonError

SQLITE_MAGIC = b"SQLite format 3\x00"
APPLICATION_ID = int.from_bytes(b"ecof", "big")
SCHEMA = 2
VOTE_ID = re.compile(r"[A-Za-z0-9-]{16,64}")
NAMES = ", ".join(f'"{column}"' for column in COLUMNS)
RECORD = (
    "id", *COLUMNS, "shown_left", "asked", "response_ms", "created", "app_version", "source",
)  # fmt: skip
"""The columns of a full record, as `records` returns them."""
TABLES = """
CREATE TABLE vote (
    id TEXT PRIMARY KEY,
    annotator TEXT NOT NULL,
    "left" TEXT NOT NULL,
    "right" TEXT NOT NULL CHECK ("right" <> "left"),
    outcome TEXT NOT NULL CHECK (outcome IN ('left', 'right', 'tie', 'skip')),
    response_ms INTEGER,     -- from the pair's display to the answer; NULL when imported
    created TEXT NOT NULL,   -- UTC, ISO 8601
    app_version TEXT NOT NULL,
    source TEXT NOT NULL,    -- 'web', 'tiers', 'import:comparison', ...
    undone TEXT,             -- UTC; only the id stays, so that a late retry adds nothing
    shown_left TEXT,         -- the item shown at the left; NULL for tiers and imports
    asked TEXT               -- 'informed', 'random', 'repeat', 'swapped'; NULL likewise
);
CREATE INDEX vote_annotator ON vote (annotator, "left", "right");
CREATE TABLE session (token_sha256 TEXT PRIMARY KEY, annotator TEXT NOT NULL, created TEXT);
CREATE TABLE invite (token_sha256 TEXT PRIMARY KEY, annotator TEXT NOT NULL, created TEXT)
"""
UPGRADE = """
ALTER TABLE vote ADD COLUMN shown_left TEXT;
ALTER TABLE vote ADD COLUMN asked TEXT;
UPDATE vote SET shown_left = "left" WHERE source = 'web';
CREATE TABLE invite (token_sha256 TEXT PRIMARY KEY, annotator TEXT NOT NULL, created TEXT)
"""
"""From schema 1 to 2."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Vote:
    """A comparison on its way into the store from the web app."""

    id: str
    """Made by the client, 16 to 64 letters, digits and hyphens: a retry is the same vote."""
    comparison: Comparison
    """Checked; left is the item that was shown at the left."""
    response_ms: int
    """Milliseconds from the pair's display to the answer."""
    asked: str = "informed"
    """Why this pair was asked for: informed, random, repeat or swapped."""


class OwnVote(NamedTuple):
    """A web vote as its annotator sees it again."""

    id: str
    """The vote's id."""
    left: str
    """The item that was shown at the left."""
    right: str
    """The other item."""
    outcome: Literal["left", "right", "tie", "skip"]
    """Which was said to be more developed."""
    created: str
    """UTC, ISO 8601."""


def is_store(path: Path) -> bool:
    """Return whether the file begins like SQLite, whatever its name."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(SQLITE_MAGIC)) == SQLITE_MAGIC


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _hash_token(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class Store:
    """Votes and sessions in one SQLite file: WAL, synchronous=FULL, commit before acknowledging.

    Safe to use from several threads and processes.
    """

    def __init__(self, path: Path, *, create: bool = True) -> None:
        """Open the store, or make it when `create`.

        Raises ComparisonError when the file is missing, no store, or of another schema version.
        """
        self.path = path
        self._lock = RLock()
        if path.exists() and not is_store(path) and (not path.is_file() or path.stat().st_size):
            raise ComparisonError(
                f"{path} is not a comparison store; give the file that `ecofm compare serve` or "
                "`ecofm compare import` wrote, or a new name."
            )
        if not create and not is_store(path):
            raise ComparisonError(
                f"{path} does not exist or is empty; make a store with `ecofm compare serve` or "
                "`ecofm compare import`."
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Autocommit: transactions are opened by hand, as IMMEDIATE.
            self._db = sqlite3.connect(
                path, timeout=30, isolation_level=None, check_same_thread=False
            )
            self._prepare()
        except (OSError, sqlite3.Error) as error:
            raise ComparisonError(
                f"{path} cannot be opened as a comparison store ({error}); give another --store."
            ) from error

    def _prepare(self) -> None:
        """Check the schema before anything is changed, then make the tables of a new store."""
        is_new = not self._db.execute("PRAGMA schema_version").fetchone()[0]
        if not is_new:
            self._check_schema()
        self._db.execute("PRAGMA journal_mode=WAL")
        # FULL: a commit is on the disk before it returns (0 of 18,221 lost over 20 kills).
        self._db.execute("PRAGMA synchronous=FULL")
        # What an annotator deletes is gone from the file, too.
        self._db.execute("PRAGMA secure_delete=ON")
        if is_new:
            with self._transaction():
                # Another process may have been first.
                if not self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
                    for statement in TABLES.split(";\n"):
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA application_id={APPLICATION_ID}")
                    self._db.execute(f"PRAGMA user_version={SCHEMA}")
            self._check_schema()

    def _check_schema(self) -> None:
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if application != APPLICATION_ID:
            self.close()
            raise ComparisonError(
                f"{self.path} is an SQLite file of another program, expected a comparison store; "
                "give another --store."
            )
        if version == 1:
            with self._transaction():
                # Another process may have been first.
                if self._db.execute("PRAGMA user_version").fetchone() == (1,):
                    for statement in UPGRADE.split(";\n"):
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA user_version={SCHEMA}")
        elif version != SCHEMA:
            self.close()
            raise ComparisonError(
                f"{self.path} is a store of schema {version}, expected {SCHEMA}; export it with "
                "the ecofm that wrote it, and import that file into a new store."
            )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    def __enter__(self) -> Store:
        """Return the store."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file; the store cannot be used afterwards."""
        with self._lock:
            self._db.close()

    def add(self, vote: Vote) -> bool:
        """Store a vote; when this returns, the vote is on the disk.

        Returns whether it was new; one that was taken back stays so. Raises ComparisonError when
        the id is malformed or belongs to another vote.
        """
        if not VOTE_ID.fullmatch(vote.id):
            raise ComparisonError("the vote's id is malformed, expected 16 to 64 letters or digits")
        with self._transaction():
            known = self._query(f"SELECT undone, {NAMES} FROM vote WHERE id = ?", vote.id)
            if known and known[0][0] is None and known[0][1:] != vote.comparison:
                raise ComparisonError(f"vote {vote.id} is known with another answer; reload.")
            shown = (vote.comparison.left, vote.asked)
            self._insert([(vote.id, *vote.comparison, vote.response_ms, *shown)], "web")
        return not known

    def _insert(self, rows: Sequence[tuple[Any, ...]], source: str) -> int:
        """Insert rows of (id, comparison..., response_ms, shown_left, asked); return how many."""
        before = self._db.total_changes
        self._db.executemany(
            "INSERT OR IGNORE INTO vote VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, ?, ?)",
            [(*row[:6], _now(), __version__, source, *row[6:]) for row in rows],
        )
        return self._db.total_changes - before

    def add_tiers(self, tiers_id: str, annotator: str, rows: Sequence[Comparison]) -> bool:
        """Store the comparisons of an annotator's tiers in place of their tiers before.

        Returns whether they were new; a retry changes nothing.
        """
        if not VOTE_ID.fullmatch(tiers_id) or len(tiers_id) > 48:
            raise ComparisonError("the id is malformed, expected 16 to 48 letters or digits")
        with self._transaction():
            if self._query("SELECT 1 FROM vote WHERE id GLOB ?", f"{tiers_id}-*"):
                return False
            self._erase("annotator = ? AND source = 'tiers'", annotator)
            ids = (f"{tiers_id}-{number}" for number in range(len(rows)))
            kept = [(key, *row, None, None, None) for key, row in zip(ids, rows, strict=True)]
            self._insert(kept, "tiers")
        return True

    def _erase(self, where: str, *values: Any) -> list[Comparison]:
        """Erase the content of votes and return it; their ids stay."""
        found = self._query(f"SELECT {NAMES} FROM vote WHERE undone IS NULL AND {where}", *values)
        self._db.execute(
            f"""UPDATE vote SET undone = ?, annotator = '', "left" = '', "right" = '-',
            outcome = 'skip', response_ms = NULL, shown_left = NULL, asked = NULL
            WHERE undone IS NULL AND {where}""",
            (_now(), *values),
        )
        return [Comparison(*row) for row in found]

    def undo(self, vote_id: str, annotator: str) -> Comparison | None:
        """Delete a web vote of this annotator; return what it was, None when there is none."""
        with self._transaction():
            found = self._erase("id = ? AND annotator = ? AND source = 'web'", vote_id, annotator)
        return found[0] if found else None

    def forget(self, annotator: str) -> list[Comparison]:
        """Delete all that this annotator said in the web app; return what it was."""
        with self._transaction():
            return self._erase("annotator = ? AND source IN ('web', 'tiers')", annotator)

    def add_tables(self, tables: Sequence[tuple[str, Sequence[Comparison]]]) -> list[int]:
        """Store tables of (kind, comparisons) in one transaction; return the rows new in each.

        A comparison that a table holds n times is added until the store holds it n times. So the
        same table, or the store's own export, adds nothing when it comes again.
        """
        n_added = []
        with self._transaction():
            for kind, rows in tables:
                stored = self._count_equal()
                seen: Counter[Comparison] = Counter()
                fresh = []
                for row in rows:
                    seen[row] += 1
                    if seen[row] > stored[row]:
                        key = json.dumps([*row, seen[row]]).encode()
                        key_hash = hashlib.sha256(key).hexdigest()[:32]
                        fresh.append((key_hash, *row, None, None, None))
                n_added.append(self._insert(fresh, f"import:{kind}"))
        return n_added

    def _count_equal(self) -> Counter[Comparison]:
        sql = f"SELECT {NAMES}, count(*) FROM vote WHERE undone IS NULL GROUP BY {NAMES}"
        return Counter({Comparison(*row[:4]): row[4] for row in self._query(sql)})

    def comparisons(self, asked: bool | None = None) -> list[Comparison]:
        """Return every comparison that was not deleted, in the order of arrival.

        `asked` keeps the answers to the web app's questions only, or all others.
        """
        wanted = {None: "", True: "AND source = 'web'", False: "AND source <> 'web'"}[asked]
        sql = f"SELECT {NAMES} FROM vote WHERE undone IS NULL {wanted} ORDER BY rowid"
        return [Comparison(*row) for row in self._query(sql)]

    def records(self) -> list[tuple[Any, ...]]:
        """Return all that is kept of every vote, in the order of arrival: columns `RECORD`."""
        columns = ", ".join(f'"{column}"' for column in RECORD)
        return self._query(f"SELECT {columns} FROM vote WHERE undone IS NULL ORDER BY rowid")

    def count_votes(self, annotator: str) -> int:
        """Return how many questions of the web app this annotator has answered."""
        sql = "SELECT count(*) FROM vote WHERE annotator = ? AND source = 'web' AND undone IS NULL"
        return int(self._query(sql, annotator)[0][0])

    def own_votes(self, annotator: str, skip: int, most: int) -> list[OwnVote]:
        """Return web votes of this annotator, newest first, without the first `skip`."""
        sql = """SELECT id, "left", "right", outcome, created FROM vote
            WHERE annotator = ? AND source = 'web' AND undone IS NULL
            ORDER BY rowid DESC LIMIT ? OFFSET ?"""
        return [OwnVote(*row) for row in self._query(sql, annotator, most, skip)]

    def own_tiers(self, annotator: str) -> list[Comparison]:
        """Return the comparisons of this annotator's tiers."""
        sql = f"""SELECT {NAMES} FROM vote
            WHERE annotator = ? AND source = 'tiers' AND undone IS NULL ORDER BY rowid"""
        return [Comparison(*row) for row in self._query(sql, annotator)]

    def response_times(self, annotator: str, most: int = 30) -> list[int]:
        """Return the milliseconds that this annotator took for the latest questions."""
        sql = """SELECT response_ms FROM vote
            WHERE annotator = ? AND source = 'web' AND undone IS NULL ORDER BY rowid DESC LIMIT ?"""
        return [int(row[0]) for row in self._query(sql, annotator, most)]

    def start_session(self, annotator: str) -> str:
        """Return a new secret token that stands for this annotator; only its hash is kept."""
        return self._add_secret("session", annotator)

    def find_annotator(self, token: str) -> str | None:
        """Return whose token this is, None when the store never gave it out."""
        return self._find_secret("session", token)

    def invite(self, annotator: str) -> str:
        """Return a new secret that lets its bearer answer as this annotator."""
        return self._add_secret("invite", annotator)

    def revoke(self, annotator: str) -> int:
        """End the invitations and sessions of an annotator; return how many invitations."""
        with self._transaction():
            self._db.execute("DELETE FROM session WHERE annotator = ?", (annotator,))
            return self._db.execute("DELETE FROM invite WHERE annotator = ?", (annotator,)).rowcount

    def find_invited(self, token: str) -> str | None:
        """Return who was invited with this secret, None when nobody was."""
        return self._find_secret("invite", token)

    def has_invites(self) -> bool:
        """Return whether anybody was invited."""
        return bool(self._query("SELECT 1 FROM invite LIMIT 1"))

    def _add_secret(self, table: str, annotator: str) -> str:
        token = secrets.token_urlsafe(24)
        with self._transaction():
            row = (_hash_token(token), annotator, _now())
            self._db.execute(f"INSERT INTO {table} VALUES (?, ?, ?)", row)
        return token

    def _find_secret(self, table: str, token: str) -> str | None:
        sql = f"SELECT annotator FROM {table} WHERE token_sha256 = ?"
        found = self._query(sql, _hash_token(token))
        return str(found[0][0]) if found else None
