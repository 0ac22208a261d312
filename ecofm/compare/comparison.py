"""One comparison: what it holds, and the checks that every way in shares."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from ecofm.errors import ComparisonError

OUTCOMES = ("left", "right", "tie", "skip")
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


def normalize_item(name: str) -> str:
    """Return the name by which an item is matched: `03` is `3`, `000` is `0`.

    Only names of ASCII digits lose leading zeros. Raises ComparisonError as `check_text` does.
    """
    name = check_text(name, "an item's name")
    if name.isascii() and name.isdigit():
        return name.lstrip("0") or "0"
    return name


def check_comparison(annotator: str, left: str, right: str, outcome: str) -> Comparison:
    """Return the comparison with its texts normalised.

    Raises ComparisonError when a text is unusable, the outcome unknown, or an item is compared
    with itself.
    """
    annotator = check_text(annotator, "the annotator's name")
    left, right = normalize_item(left), normalize_item(right)
    outcome = outcome.strip()
    if outcome not in OUTCOMES:
        raise ComparisonError(
            f"the outcome is {quote(outcome)}, expected left, right, tie or skip; correct it."
        )
    if left == right:
        raise ComparisonError(
            f"item {quote(left)} is compared with itself, expected two items; remove the line."
        )
    return Comparison(annotator, left, right, outcome)
