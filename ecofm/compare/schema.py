"""The tables of a comparison store, and how a store of before becomes one of today.

Every row ends in a digest of its other columns, so that a byte that changed on the disk is
noticed where SQLite cannot see it: inside a name, an outcome or a time.
"""

from __future__ import annotations

import json
import sqlite3

import xxhash

APPLICATION_ID = int.from_bytes(b"ecof", "big")
SCHEMA = 3
TABLES = {
    "vote": """CREATE TABLE vote (
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
    asked TEXT,              -- 'informed', 'random', 'repeat', 'swapped'; NULL likewise
    owner TEXT,              -- who may see and delete it; NULL for imports
    digest TEXT NOT NULL
)""",
    "session": """CREATE TABLE session (
    token_sha256 TEXT PRIMARY KEY,
    annotator TEXT NOT NULL,
    owner TEXT NOT NULL,
    created TEXT NOT NULL,
    digest TEXT NOT NULL
)""",
    "invite": """CREATE TABLE invite (
    token_sha256 TEXT PRIMARY KEY,
    annotator TEXT NOT NULL,
    origin TEXT NOT NULL,    -- 'study': its owner vouches; 'self': made by the annotator
    created TEXT NOT NULL,
    digest TEXT NOT NULL
)""",
    "claim": """CREATE TABLE claim (
    folded TEXT PRIMARY KEY, -- the name without case, blanks and what cannot be seen
    annotator TEXT NOT NULL,
    owner TEXT NOT NULL,
    created TEXT NOT NULL,
    digest TEXT NOT NULL
)""",
}
INDEX = 'CREATE INDEX vote_annotator ON vote (annotator, "left", "right")'
COLUMNS = {
    "vote": ("id", "annotator", "left", "right", "outcome", "response_ms", "created",
             "app_version", "source", "undone", "shown_left", "asked", "owner"),
    "session": ("token_sha256", "annotator", "owner", "created"),
    "invite": ("token_sha256", "annotator", "origin", "created"),
    "claim": ("folded", "annotator", "owner", "created"),
}  # fmt: skip
"""The columns of each table before its digest."""
OLD_COLUMNS = """id, annotator, "left", "right", outcome, response_ms, created, app_version,
    source, undone, {shown}"""
OLD_SHOWN = {1: "iif(source = 'web', \"left\", NULL), NULL", 2: "shown_left, asked"}
TYPES = {"response_ms": (int, type(None)), "undone": (str, type(None)),
         "shown_left": (str, type(None)), "asked": (str, type(None)),
         "owner": (str, type(None))}  # fmt: skip
"""What a column may hold, where it is not text."""


class DamagedRowError(Exception):
    """A row of a store cannot have been written by ecofm."""


def digest_row(*values: str | int | None) -> str:
    """Return 16 hexadecimal digits that change when any of the values does."""
    return xxhash.xxh3_64_hexdigest(json.dumps(values).encode())


def list_columns(table: str) -> str:
    """Return a table's columns without its digest, quoted, for SQL."""
    return ", ".join(f'"{column}"' for column in COLUMNS[table])


def create_tables(db: sqlite3.Connection) -> None:
    """Make the tables of a new store, inside the caller's transaction."""
    for statement in (*TABLES.values(), INDEX):
        db.execute(statement)
    db.execute(f"PRAGMA application_id={APPLICATION_ID}")
    db.execute(f"PRAGMA user_version={SCHEMA}")


def upgrade(db: sqlite3.Connection, version: int) -> None:
    """Bring a store of schema 1 or 2 up to date, inside the caller's transaction.

    Its sessions end: anybody with the shared password could have begun them. Raises
    DamagedRowError for a value of a type that was never written.
    """
    db.execute("ALTER TABLE vote RENAME TO old_vote")
    db.execute("DROP INDEX vote_annotator")
    db.execute("DROP TABLE session")
    invites = []
    if version == 2:
        invites = db.execute("SELECT token_sha256, annotator, created FROM invite").fetchall()
        db.execute("DROP TABLE invite")
    create_tables(db)
    marks = ", ".join("?" * (len(COLUMNS["vote"]) + 2))
    columns = OLD_COLUMNS.format(shown=OLD_SHOWN[version])
    old_votes = db.execute(f"SELECT rowid, {columns} FROM old_vote ORDER BY rowid")
    for rowid, *row in old_votes.fetchall():
        values = (*row, None)
        check_types("vote", values)
        db.execute(
            f"INSERT INTO vote (rowid, {list_columns('vote')}, digest) VALUES ({marks})",
            (rowid, *values, digest_row(*values)),
        )
    for token, annotator, created in invites:
        values = (token, annotator, "study", created or "")
        check_types("invite", values)
        db.execute("INSERT INTO invite VALUES (?, ?, ?, ?, ?)", (*values, digest_row(*values)))
    db.execute("DROP TABLE old_vote")


def check_types(table: str, values: tuple[object, ...]) -> None:
    """Raise DamagedRowError where a value is of a type that the column never holds."""
    for column, value in zip(COLUMNS[table], values, strict=True):
        if not isinstance(value, TYPES.get(column, (str,))):
            raise DamagedRowError(f"{table}.{column} is {value!r}")
