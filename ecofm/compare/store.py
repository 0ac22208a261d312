"""The comparison store: one SQLite file that keeps every vote it has acknowledged."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple

from ecofm import __version__
from ecofm.compare.comparison import COLUMNS, Comparison
from ecofm.compare.database import Database
from ecofm.compare.people import People, Person, now
from ecofm.errors import ComparisonError

VOTE_ID = re.compile(r"[A-Za-z0-9-]{16,64}")
NAMES = ", ".join(f'"{column}"' for column in COLUMNS)
RECORD = (
    "id", *COLUMNS, "shown_left", "asked", "response_ms", "created", "app_version", "source",
)  # fmt: skip
"""The columns of a full record, as `records` returns them."""
OWN = "annotator = ? AND owner = ? AND undone IS NULL"


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
    owner: str | None = None
    """Whose sessions may see and delete it."""


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


class Store(Database):
    """Votes and people in one SQLite file; what is acknowledged is on the disk."""

    def __init__(self, path: Path, *, create: bool = True, read_only: bool = False) -> None:
        """Open the store, or make it when `create`; raises as `Database` does."""
        super().__init__(path, create=create, read_only=read_only)
        self.people = People(self)

    def __enter__(self) -> Store:
        """Return the store."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def add(self, vote: Vote) -> bool:
        """Store a vote; when this returns, the vote is on the disk.

        Returns whether it was new; one that was taken back stays so. Raises ComparisonError when
        the id is malformed or belongs to another vote.
        """
        if not VOTE_ID.fullmatch(vote.id):
            raise ComparisonError("the vote's id is malformed, expected 16 to 64 letters or digits")
        with self.transaction():
            known = self.query(f"SELECT undone, {NAMES} FROM vote WHERE id = ?", vote.id)
            if known and known[0][0] is None and known[0][1:] != vote.comparison:
                raise ComparisonError(f"vote {vote.id} is known with another answer; reload.")
            shown = (vote.comparison.left, vote.asked, vote.owner)
            self._insert([(vote.id, *vote.comparison, vote.response_ms, *shown)], "web")
        return not known

    def _insert(self, rows: Sequence[tuple[Any, ...]], source: str) -> int:
        """Insert rows of (id, comparison..., response_ms, shown_left, asked, owner)."""
        rest = (now(), __version__, source, None)
        return self.insert("vote", [(*row[:6], *rest, *row[6:]) for row in rows])

    def add_tiers(self, tiers_id: str, person: Person, rows: Sequence[Comparison]) -> bool:
        """Store the comparisons of somebody's tiers in place of their tiers before.

        Returns whether they were new; a retry changes nothing.
        """
        if not VOTE_ID.fullmatch(tiers_id) or len(tiers_id) > 48:
            raise ComparisonError("the id is malformed, expected 16 to 48 letters or digits")
        with self.transaction():
            if self.query("SELECT 1 FROM vote WHERE id GLOB ?", f"{tiers_id}-*"):
                return False
            self._erase("annotator = ? AND owner = ? AND source = 'tiers'", *person)
            ids = (f"{tiers_id}-{number}" for number in range(len(rows)))
            rest = (None, None, None, person.owner)
            kept = [(key, *row, *rest) for key, row in zip(ids, rows, strict=True)]
            self._insert(kept, "tiers")
        return True

    def _erase(self, where: str, *values: Any) -> list[Comparison]:
        """Erase the content of votes and return it; their ids stay."""
        where = f"undone IS NULL AND {where}"
        found = self.query(f"SELECT {NAMES} FROM vote WHERE {where}", *values)
        erased = """undone = ?, annotator = '', "left" = '', "right" = '-', outcome = 'skip',
            response_ms = NULL, shown_left = NULL, asked = NULL, owner = NULL"""
        self.update("vote", erased, where, now(), *values)
        return [Comparison(*row) for row in found]

    def undo(self, vote_id: str, person: Person) -> Comparison | None:
        """Delete a web vote of this person; return what it was, None when there is none."""
        where = "id = ? AND annotator = ? AND owner = ? AND source = 'web'"
        with self.transaction():
            found = self._erase(where, vote_id, *person)
        return found[0] if found else None

    def forget(self, person: Person) -> list[Comparison]:
        """Delete all that this person said in the web app; return what it was."""
        with self.transaction():
            return self._erase(
                "annotator = ? AND owner = ? AND source IN ('web', 'tiers')", *person
            )

    def add_tables(self, tables: Sequence[tuple[str, Sequence[Comparison]]]) -> list[int]:
        """Store tables of (kind, comparisons) in one transaction; return the rows new in each.

        A comparison that a table holds n times is added until the store holds it n times. So the
        same table, or the store's own export, adds nothing when it comes again.
        """
        n_added = []
        with self.transaction():
            for kind, rows in tables:
                stored = self._count_equal()
                seen: Counter[Comparison] = Counter()
                fresh = []
                for row in rows:
                    seen[row] += 1
                    if seen[row] > stored[row]:
                        key = json.dumps([*row, seen[row]]).encode()
                        key_hash = hashlib.sha256(key).hexdigest()[:32]
                        fresh.append((key_hash, *row, None, None, None, None))
                n_added.append(self._insert(fresh, f"import:{kind}"))
        return n_added

    def _count_equal(self) -> Counter[Comparison]:
        sql = f"SELECT {NAMES}, count(*) FROM vote WHERE undone IS NULL GROUP BY {NAMES}"
        return Counter({Comparison(*row[:4]): row[4] for row in self.query(sql)})

    def comparisons(self, asked: bool | None = None) -> list[Comparison]:
        """Return every comparison that was not deleted, in the order of arrival.

        `asked` keeps the answers to the web app's questions only, or all others.
        """
        wanted = {None: "", True: "AND source = 'web'", False: "AND source <> 'web'"}[asked]
        sql = f"SELECT {NAMES} FROM vote WHERE undone IS NULL {wanted} ORDER BY rowid"
        return [Comparison(*row) for row in self.query(sql)]

    def records(self) -> list[tuple[Any, ...]]:
        """Return all that is kept of every vote, in the order of arrival: columns `RECORD`."""
        columns = ", ".join(f'"{column}"' for column in RECORD)
        return self.query(f"SELECT {columns} FROM vote WHERE undone IS NULL ORDER BY rowid")

    def count_votes(self, annotator: str) -> int:
        """Return how many questions of the web app this annotator has answered."""
        sql = "SELECT count(*) FROM vote WHERE annotator = ? AND source = 'web' AND undone IS NULL"
        return int(self.query(sql, annotator)[0][0])

    def count_own(self, person: Person) -> int:
        """Return how many web votes this person sees."""
        sql = f"SELECT count(*) FROM vote WHERE {OWN} AND source = 'web'"
        return int(self.query(sql, *person)[0][0])

    def own_votes(self, person: Person, skip: int, most: int) -> list[OwnVote]:
        """Return web votes of this person, newest first, without the first `skip`."""
        sql = f"""SELECT id, "left", "right", outcome, created FROM vote
            WHERE {OWN} AND source = 'web' ORDER BY rowid DESC LIMIT ? OFFSET ?"""
        return [OwnVote(*row) for row in self.query(sql, *person, most, skip)]

    def own_tiers(self, person: Person) -> list[Comparison]:
        """Return the comparisons of this person's tiers."""
        sql = f"SELECT {NAMES} FROM vote WHERE {OWN} AND source = 'tiers' ORDER BY rowid"
        return [Comparison(*row) for row in self.query(sql, *person)]

    def response_times(self, annotator: str, most: int = 30) -> list[int]:
        """Return the milliseconds that this annotator took for the latest questions."""
        sql = """SELECT response_ms FROM vote
            WHERE annotator = ? AND source = 'web' AND undone IS NULL ORDER BY rowid DESC LIMIT ?"""
        return [int(row[0]) for row in self.query(sql, annotator, most)]
