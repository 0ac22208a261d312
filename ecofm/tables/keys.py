"""Names of places as their authors meant them, and two sets of names matched."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ecofm.errors import EcofmError

INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f"))
ALIKE = dict.fromkeys(map(ord, "\u2018\u2019\u02bc\u0060\u00b4"), "'") | dict.fromkeys(
    map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212"), "-"
)
"""Apostrophes and dashes (also the minus sign) that keyboards and word processors mix."""
WHOLE = re.compile(r"([+-]?\d+)\.0*")
GROUPED = re.compile(r"\d{1,3}(?:[, ']\d{3})+")
AS_TEXT = re.compile(r"""="(.*)"|'(\d+)""")
"""How spreadsheets keep a code from becoming a number."""
PLAIN = re.compile(r"[A-Za-z0-9_@-]*")
"""Names that are canonical as they stand, which nearly all ids are."""


def canonical(key: str) -> str:
    """Return a name as its author meant it, in Unicode's composed form (NFC).

    Outer, repeated and no-break blanks and characters that cannot be seen are gone, 7001.0 is
    7001, and ="07001" is 07001. The empty text stands for no name; NA, nan and null are names.
    """
    if PLAIN.fullmatch(key):
        return key
    seen = unicodedata.normalize("NFC", key.translate(INVISIBLE))
    seen = " ".join(seen.split())
    if told := AS_TEXT.fullmatch(seen):
        seen = " ".join((told[1] if told[1] is not None else told[2]).split())
    whole = WHOLE.fullmatch(seen)
    return whole[1] if whole else seen


def loosen(key: str) -> str:
    """Return a canonical name without case, kinds of dashes, and what pads or parts a number."""
    seen = unicodedata.normalize("NFKC", key.translate(ALIKE)).casefold()
    if GROUPED.fullmatch(seen):
        seen = re.sub(r"\D", "", seen)
    return (seen.lstrip("0") or "0") if seen.isdecimal() else seen


def column_name(name: str) -> str:
    """Return a column's name as it is compared: lower case, words joined by underscores."""
    return re.sub(r"[\s_-]+", "_", canonical(name).casefold()).strip("_")


def quote(text: str) -> str:
    """Return text in quotation marks, cut where it is long."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def count(n: int, thing: str) -> str:
    """Return a number with its noun: `1 row`, `2 rows`."""
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


LEVELS: tuple[tuple[Callable[[str], str], str], ...] = (
    (canonical, "apart from blanks, Unicode form or a decimal point"),
    (loosen, "apart from leading zeros, separators of thousands, capitals or dashes"),
)


@dataclass(slots=True)
class Match:
    """Two sets of names, matched."""

    pairs: dict[str, str]
    """Name of the left side to the same name as the right side writes it."""
    only_left: list[str]
    """Names of the left without a partner, in the order given."""
    only_right: list[str]
    """Names of the right without a partner, in the order given."""
    notes: list[str] = field(default_factory=list)
    """One sentence for each way in which spellings differ, with an example."""


def match_keys(left: Iterable[str], right: Iterable[str], sides: tuple[str, str]) -> Match:
    """Match names exactly, then in canonical form, then without case and leading zeros.

    `sides` say in messages whose names these are, such as `the polygons`. Names that only a looser
    comparison tells to be the same must be alone on their side: raises EcofmError with the
    spellings of two that are not.
    """
    lefts, rights = (list(dict.fromkeys(names)) for names in (left, right))
    known = set(rights)
    pairs = {name: name for name in lefts if name in known}
    notes = []
    for form, difference in LEVELS:
        if len(pairs) == len(lefts) == len(rights):
            break
        found = _match_by(form, lefts, rights, pairs, sides)
        if found:
            example = next(iter(found.items()))
            notes.append(
                f"{count(len(found), 'name')} of {sides[0]} and {sides[1]} matched {difference}, "
                f"such as {quote(example[0])} and {quote(example[1])}."
            )
        pairs |= found
    used = set(pairs.values())
    return Match(
        {name: pairs[name] for name in lefts if name in pairs},
        [name for name in lefts if name not in pairs],
        [name for name in rights if name not in used],
        notes,
    )


def _match_by(
    form: Callable[[str], str],
    lefts: list[str],
    rights: list[str],
    pairs: dict[str, str],
    sides: tuple[str, str],
) -> dict[str, str]:
    """Return the pairs that one form adds; raises EcofmError where it cannot tell which."""
    # The second form stands on the first.
    groups = [_group(form, names) for names in (lefts, rights)]
    found = {}
    for seen, mine in groups[0].items():
        theirs = groups[1].get(seen)
        if not theirs or not seen:
            continue
        if len(mine) == len(theirs) == 1:
            if mine[0] not in pairs:
                found[mine[0]] = theirs[0]
            continue
        if not _is_doubtful(form, mine, theirs, pairs):
            continue
        crowd, side = (mine, sides[0]) if len(mine) > 1 else (theirs, sides[1])
        other, partner = (theirs, sides[1]) if len(mine) > 1 else (mine, sides[0])
        raise EcofmError(
            f"{quote(crowd[0])} and {quote(crowd[1])} of {side} may both be {quote(other[0])} of "
            f"{partner}; write the names on both sides alike."
        )
    return found


def _is_doubtful(
    form: Callable[[str], str], mine: list[str], theirs: list[str], pairs: dict[str, str]
) -> bool:
    """Return whether names that look alike are not told apart by an exact match.

    PARIS beside Paris may be a region and its capital: the exact one is meant. 07001 beside 7001,
    and names that differ in blanks, may be anything.
    """
    done = [name for name in mine if name in pairs]
    if len(done) == len(mine) == len(theirs):
        return False
    is_capitals = form is loosen and not canonical(mine[0]).isdecimal()
    return not (is_capitals and len(done) == min(len(mine), len(theirs)))


def _group(form: Callable[[str], str], names: list[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        seen = canonical(name)
        groups[seen if form is canonical else form(seen)].append(name)
    return groups
