"""One comparison: what it holds, and the checks that every way in shares."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ecofm.errors import ComparisonError
from ecofm.tables.keys import canonical

OUTCOMES = ("left", "right", "tie", "skip")
SPELLINGS = {
    "left": ("l",),
    "right": ("r",),
    "tie": ("tied", "equal", "same", "draw", "="),
    "skip": ("skipped", "can't tell", "cannot tell", "unsure", "?"),
}
"""What files may write for an outcome beside its name, in any case."""
OUTCOME_OF = {
    spelling: outcome for outcome, others in SPELLINGS.items() for spelling in (outcome, *others)
}
DECIMAL = re.compile(r"\d+[.,]\d+")
WHOLE = re.compile(r"(\d+)[.,]0+")
THOUSANDS = re.compile(r"[1-9]\d{0,2}([.,]\d{3})+")
SHORTENED = re.compile(r"\d+([.,]\d+)?[eE]\+\d+")
MISSING = ("nan", "NaN", "<NA>", "#N/A")
"""What programs write into a name's place where there is none."""
COLUMNS = ("annotator", "left", "right", "outcome")
MAX_TEXT = 200


class Comparison(NamedTuple):
    """One judgement: which of two items is more developed, as one annotator sees it."""

    annotator: str
    """Who judged."""
    left: str
    """The item named first; for a vote in the web app, the one shown at the left."""
    right: str
    """The other item, never the same."""
    outcome: str
    """`left` or `right`: the more developed one; `tie`; `skip`: can't tell, never fitted."""


def quote(text: str) -> str:
    """Return a text as an error message shows it: short, and with nothing unprintable."""
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


def list_names(names: Sequence[str], most: int = 5) -> str:
    """Return names as a short list in words."""
    shown = ", ".join(names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def check_text(text: str, what: str) -> str:
    """Return the text without outer spaces; `what` names it in errors.

    Raises ComparisonError when it is empty, longer than 200 characters, or holds control
    characters or halves of surrogate pairs, which neither CSV nor SQLite carry safely.
    """
    text = text.strip()
    if not text:
        raise ComparisonError(f"{what} is empty, expected a name; fill it in.")
    if len(text) > MAX_TEXT:
        raise ComparisonError(
            f"{what} has {len(text)} characters ({quote(text)}), expected at most {MAX_TEXT}; "
            "shorten it."
        )
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise ComparisonError(
            f"{what} holds a control character ({quote(text)}), expected plain text; remove it."
        )
    return text


def normalize_name(name: str, what: str) -> str:
    """Return a name as it is compared: 1.0 is 1, blanks and Unicode form count for nothing.

    `what` names it in errors; raises ComparisonError as `check_text` does, and for a decimal number
    or another mark of a program that took a name for a number.
    """
    name = check_text(name, what)
    if name in MISSING:
        raise ComparisonError(f"{what} is {name}, a missing value; fill it in.")
    if whole := WHOLE.fullmatch(name):
        if THOUSANDS.fullmatch(name):
            raise ComparisonError(
                f"{what} is {quote(name)}, which may be {whole[1]} or {re.sub('[.,]', '', name)}; "
                "write it without a point or comma."
            )
        return whole[1]
    if DECIMAL.fullmatch(name) or SHORTENED.fullmatch(name) or THOUSANDS.fullmatch(name):
        raise ComparisonError(
            f"{what} is {quote(name)}, expected a whole number or a name; a spreadsheet may have "
            "changed it: format the column as text and write it again."
        )
    seen = canonical(name)
    return name if seen == name else normalize_name(seen, what)


def normalize_item(name: str) -> str:
    """Return the name by which an item is matched: `03` and `3.0` are `3`, `000` is `0`.

    Only names of ASCII digits lose leading zeros; `v1.0` and `52SCG_1.0` stay. Raises
    ComparisonError as `normalize_name` does.
    """
    name = normalize_name(name, "an item's name")
    if name.isascii() and name.isdigit():
        return name.lstrip("0") or "0"
    return name


def refuse_decimals(path: Path, names: Iterable[str]) -> None:
    """Raise ComparisonError when a file's names are both like 1.0 and like 1.1.

    Alone, 1.0 is the number 1 that passed through a column of floats. Beside 1.1 it may be a name.
    """
    found = {name.strip() for name in names if DECIMAL.fullmatch(name.strip())}
    parts = sorted(name for name in found if not WHOLE.fullmatch(name))
    wholes = sorted(found - set(parts))
    if wholes and parts:
        number = re.split("[.,]", wholes[0])[0]
        raise ComparisonError(
            f"{path} names the items {quote(wholes[0])} and {quote(parts[0])}: whether the first "
            f"is {number} or a name of its own cannot be told; write whole numbers, or names such "
            "as 1-1."
        )


def normalize_annotator(name: str) -> str:
    """Return the name under which an annotator's answers are kept; raises as `normalize_name`."""
    return normalize_name(name, "the annotator's name")


class UnansweredError(ComparisonError):
    """A question was asked, and nobody has answered it yet."""


def parse_outcome(text: str) -> str:
    """Return left, right, tie or skip for any spelling of `SPELLINGS`.

    Raises UnansweredError for an empty text, and ComparisonError for others.
    """
    plain = " ".join(text.replace("\u2019", "'").casefold().split())
    if not plain:
        raise UnansweredError(
            "there is no outcome yet, expected left, right, tie or skip; fill it in when known."
        )
    if plain not in OUTCOME_OF:
        raise ComparisonError(
            f"the outcome is {quote(text.strip())}, expected left, right, tie or skip; correct it."
        )
    return OUTCOME_OF[plain]


def check_comparison(annotator: str, left: str, right: str, outcome: str) -> Comparison:
    """Return the comparison with its texts normalised.

    Raises UnansweredError when the outcome is empty, and ComparisonError when it is unknown, a
    name is unusable, or an item is compared with itself.
    """
    said = parse_outcome(outcome)
    names = normalize_annotator(annotator), normalize_item(left), normalize_item(right)
    if names[1] == names[2]:
        raise ComparisonError(
            f"item {quote(names[1])} is compared with itself, expected two items; remove the line."
        )
    return Comparison(*names, said)
