"""Orderings: one annotator's weak order of items, `3=4>1>0`, and the comparisons in it."""

from __future__ import annotations

from itertools import combinations

from ecofm.compare.comparison import (
    Comparison,
    UnansweredError,
    normalize_annotator,
    normalize_item,
    quote,
)
from ecofm.errors import ComparisonError

__all__ = ["expand_ordering", "format_ordering", "normalize_item", "parse_ordering"]

MAX_ITEMS = 1000
"""Items in one ordering: 499,500 comparisons, far beyond what a person can put in order."""
HOW_TO = "write it best first with '>' between tiers and '=' inside them, such as 3=4>1>0"


def parse_ordering(text: str) -> list[list[str]]:
    """Return the tiers of an ordering, best first, with normalised item names.

    Spaces around names and signs are ignored. Raises ComparisonError when a name is missing or
    repeated, `<` occurs, or there are fewer than two or more than 1,000 items.
    """
    if "<" in text:
        raise ComparisonError(f"the ordering {quote(text)} contains '<'; {HOW_TO}.")
    tiers = [tier.split("=") for tier in text.split(">")]
    if not all(name.strip() for tier in tiers for name in tier):
        raise ComparisonError(f"the ordering {quote(text)} lacks an item beside a sign; {HOW_TO}.")
    tiers = [[normalize_item(name) for name in tier] for tier in tiers]
    check_tiers(tiers)
    return tiers


def check_tiers(tiers: list[list[str]]) -> None:
    """Raise ComparisonError unless the tiers hold two to 1,000 items, each of them once."""
    seen: set[str] = set()
    for name in (name for tier in tiers for name in tier):
        if name in seen:
            raise ComparisonError(
                f"the ordering names item {quote(name)} twice, expected once; remove one of them."
            )
        seen.add(name)
    if not 2 <= len(seen) <= MAX_ITEMS:
        raise ComparisonError(
            f"the ordering has {len(seen)} item(s), expected 2 to {MAX_ITEMS}; {HOW_TO}."
        )


def format_ordering(tiers: list[list[str]]) -> str:
    """Return the text that `parse_ordering` reads back to the same tiers.

    Raises ComparisonError when a name cannot be written in an ordering.
    """
    for name in (name for tier in tiers for name in tier):
        if set(name) & set("<>="):
            raise ComparisonError(
                f"item {quote(name)} holds '<', '>' or '=', which an ordering cannot carry; "
                "write comparisons instead."
            )
    text = ">".join("=".join(tier) for tier in tiers)
    parse_ordering(text)
    return text


def expand_ordering(annotator: str, text: str) -> list[Comparison]:
    """Return every unordered pair of the ordering's items once.

    The better item is the left one, with outcome `left`; items of one tier give `tie`. Raises
    ComparisonError as `parse_ordering` does, or when the annotator's name is unusable.
    """
    if not text.strip():
        raise UnansweredError(f"there is no ordering yet; {HOW_TO}.")
    annotator = normalize_annotator(annotator)
    ranked = [(rank, name) for rank, tier in enumerate(parse_ordering(text)) for name in tier]
    return [
        Comparison(annotator, better, worse, "tie" if rank == below else "left")
        for (rank, better), (below, worse) in combinations(ranked, 2)
    ]
