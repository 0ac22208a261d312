"""Who annotators are: names that somebody has claimed, sessions, and secret links.

A session acts for a name and an owner. The name stands beside the votes; the owner, a random word,
tells whose they are: only its sessions see and delete them. A claimed name has one owner. Only
hashes of secrets are kept.
"""

from __future__ import annotations

import hashlib
import secrets
import unicodedata
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from ecofm.compare.database import Database
from ecofm.errors import ComparisonError

BLANKS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Characters that show nothing, although Unicode does not call them blanks or formats."""


class TakenError(ComparisonError):
    """A name belongs to somebody else."""


class Person(NamedTuple):
    """For whom a session acts."""

    annotator: str
    """The name beside the votes."""
    owner: str
    """Whose votes are seen and deleted."""


class Standing(NamedTuple):
    """What a store knows of one name."""

    annotator: str
    """The name."""
    n_votes: int
    """Comparisons that are kept under it."""
    is_claimed: bool
    """Whether it belongs to somebody."""
    n_links: int
    """Invitations and personal links that are valid."""


def now() -> str:
    """Return the time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def fold_name(name: str) -> str:
    """Return what is equal for names that people take for the same.

    Case, blanks, Unicode form, marks of width and direction, and what cannot be seen are gone.
    """
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(
        character
        for character in plain
        if not character.isspace()
        and unicodedata.category(character) not in ("Cf", "Cc", "Zs", "Zl", "Zp")
        and not 0xFE00 <= ord(character) <= 0xFE0F  # variation selectors
        and not 0xE0100 <= ord(character) <= 0xE01EF
        and character not in BLANKS
    )


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()


class People:
    """The names, sessions and links of a store."""

    def __init__(self, database: Database) -> None:
        """Use the tables of a store."""
        self._db = database

    def enter(self, name: str, browser: str, *, claim: bool) -> Person:
        """Return for whom a browser acts that gives a name; `browser` is a secret that it keeps.

        With `claim`, a name that nobody has becomes this browser's own; without, several browsers
        may use a name, each for votes of its own. Raises TakenError for a name of another.
        """
        folded = fold_name(name)
        if not folded:
            raise ComparisonError("your name shows nothing, expected letters; type another.")
        with self._db.transaction():
            known = self._find(_hash(folded, browser))
            owned = self._db.query("SELECT annotator, owner FROM claim WHERE folded = ?", folded)
            if owned and known != Person(*owned[0]):
                raise TakenError(
                    f"the name {name} belongs to somebody already; if it is yours, open your "
                    "personal link or invitation, else choose another name"
                )
            if not owned and self._is_invited(folded):
                raise TakenError(f"{name} was invited: open the link of the invitation")
            person = known or Person(self.spell(name), secrets.token_urlsafe(12))
            if claim and not owned:
                self._claim(folded, person)
            elif not claim:
                # On one's own machine, answers of before there were owners are one's own.
                self._adopt(person, "owner IS NULL")
            if not known:
                self._add_session(_hash(folded, browser), person)
        return person

    def is_known(self, name: str, browser: str) -> bool:
        """Return whether this browser was let in under this name before."""
        return self._find(_hash(fold_name(name), browser)) is not None

    def accept(self, link: str, browser: str) -> Person | None:
        """Return for whom the bearer of a link acts, None when it is not valid.

        A link from the study's owner vouches: all that was said under the name is this person's.
        """
        with self._db.transaction():
            sql = "SELECT annotator, origin FROM invite WHERE token_sha256 = ?"
            found = self._db.query(sql, _hash(link))
            if not found:
                return None
            annotator, origin = found[0]
            person = self._claim(fold_name(annotator), Person(annotator, secrets.token_urlsafe(12)))
            if origin == "study":
                self._adopt(person, "owner IS NOT ?", person.owner)
            key = _hash(fold_name(annotator), browser)
            self._db.delete("session", "token_sha256 = ?", key)
            self._add_session(key, person)
        return person

    def start_session(self, person: Person) -> str:
        """Return a new secret token for the requests of a session."""
        token = secrets.token_urlsafe(24)
        with self._db.transaction():
            self._add_session(_hash(token), person)
        return token

    def find(self, token: str) -> Person | None:
        """Return for whom a session acts, None when the store never gave its token out."""
        return self._find(_hash(token))

    def invite(self, annotator: str, origin: Literal["study", "self"] = "study") -> str:
        """Return a new secret for a link by which its bearer is this annotator.

        Of personal links (`self`), the one before ends.
        """
        token = secrets.token_urlsafe(24)
        with self._db.transaction():
            annotator = self.spell(annotator)
            if origin == "self":
                self._db.delete("invite", "annotator = ? AND origin = 'self'", annotator)
            self._db.insert("invite", [(_hash(token), annotator, origin, now())])
        return token

    def revoke(self, annotator: str) -> int:
        """End the sessions and links of an annotator; return how many links.

        The name stays closed until its owner gets another invitation.
        """
        with self._db.transaction():
            annotator = self.spell(annotator)
            self._claim(fold_name(annotator), Person(annotator, secrets.token_urlsafe(12)))
            self._db.delete("session", "annotator = ?", annotator)
            return self._db.delete("invite", "annotator = ?", annotator)

    def has_invites(self) -> bool:
        """Return whether anybody was invited."""
        return bool(self._db.query("SELECT 1 FROM invite LIMIT 1"))

    def list_standing(self) -> list[Standing]:
        """Return all names that votes, claims or links know, in alphabetical order."""
        count = "SELECT annotator, count(*) FROM {} WHERE {} GROUP BY annotator"
        votes = dict(self._db.query(count.format("vote", "undone IS NULL")))
        links = dict(self._db.query(count.format("invite", "1")))
        claims = {name for (name,) in self._db.query("SELECT annotator FROM claim")}
        names = sorted({*votes, *links, *claims})
        return [Standing(n, votes.get(n, 0), n in claims, links.get(n, 0)) for n in names]

    def spell(self, name: str) -> str:
        """Return how the store writes a name that it knows in this or another spelling."""
        folded = fold_name(name)
        owned = self._db.query("SELECT annotator FROM claim WHERE folded = ?", folded)
        if owned:
            return str(owned[0][0])
        sql = "SELECT annotator FROM invite UNION SELECT annotator FROM vote WHERE undone IS NULL"
        known = sorted(other for (other,) in self._db.query(sql) if fold_name(other) == folded)
        return name if name in known or not known else str(known[0])

    def _is_invited(self, folded: str) -> bool:
        names = self._db.query("SELECT DISTINCT annotator FROM invite")
        return any(fold_name(name) == folded for (name,) in names)

    def _claim(self, folded: str, person: Person) -> Person:
        """Give a name to a person, unless it has an owner; return who has it."""
        self._db.insert("claim", [(folded, person.annotator, person.owner, now())])
        sql = "SELECT annotator, owner FROM claim WHERE folded = ?"
        return Person(*self._db.query(sql, folded)[0])

    def _adopt(self, person: Person, where: str, *values: str) -> None:
        where = f"annotator = ? AND source IN ('web', 'tiers') AND undone IS NULL AND {where}"
        self._db.update("vote", "owner = ?", where, person.owner, person.annotator, *values)

    def _add_session(self, key: str, person: Person) -> None:
        self._db.insert("session", [(key, person.annotator, person.owner, now())])

    def _find(self, key: str) -> Person | None:
        sql = "SELECT annotator, owner FROM session WHERE token_sha256 = ?"
        found = self._db.query(sql, key)
        return Person(*found[0]) if found else None
