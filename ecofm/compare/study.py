"""The reference study's ordering files: lines `0<1` (0 is less developed) and tiers `1=2=3`.

One file holds one annotator's partial order, as (Ahn et al. 2023, Nature Communications 14:6811)
publish theirs; what follows from its lines by closure is compared too.
"""

from __future__ import annotations

import re
from pathlib import Path

from ecofm.compare.answers import Answers
from ecofm.compare.comparison import (
    Comparison,
    normalize_item,
    normalize_name,
    quote,
    refuse_decimals,
)
from ecofm.compare.graph import Order, build_order, close, condense, find_components, reduce_edges
from ecofm.errors import ComparisonError

MAX_ITEMS = 1000
"""Items in one file: its closure can hold 499,500 comparisons."""
HOW_TO = "write one 'lower<higher' or one tier 'a=b=c' a line"


def read_study(path: Path, text: str) -> Answers:
    """Return the comparisons that follow from an ordering file; the annotator is the file's stem.

    Items that no chain of lines connects give none. Raises ComparisonError naming the items of a
    contradiction, or when the file names fewer than two items or too many.
    """
    answers = Answers(path, "study")
    annotator = normalize_name(path.stem, f"{path}: the annotator's name")
    tiers, steps = _parse(answers, text)
    tier_of = {name: place for place, tier in enumerate(tiers) for name in tier}
    edges = [(tier_of[upper], tier_of[lower]) for lower, upper in steps]
    below: list[list[int]] = [[] for _ in tiers]
    for upper, lower in sorted(set(edges)):
        below[upper].append(lower)
    if any(upper == lower for upper, lower in edges) or len(
        set(find_components(len(tiers), edges))
    ) < len(tiers):
        own = [min(tier) for tier in tiers]
        loops = [own[upper] for upper, lower in edges if upper == lower]
        found = Order(own, {edge: [annotator] for edge in edges}).explain_cycles()
        why = found[0] if found else f"item {quote(loops[0])} is below its own equal."
        raise ComparisonError(f"{path} contradicts itself; correct a line. {why}")
    rows = answers.rows
    for place, reach in enumerate(close(below)):
        tier = tiers[place]
        rows += [Comparison(annotator, a, b, "tie") for i, a in enumerate(tier) for b in tier[:i]]
        for lower in range(len(tiers)):
            if reach >> lower & 1:
                rows += [Comparison(annotator, a, b, "left") for a in tier for b in tiers[lower]]
    return answers


def _parse(answers: Answers, text: str) -> tuple[list[list[str]], list[tuple[str, str]]]:
    """Return the tiers, every item in one, and the steps (lower, higher)."""
    refuse_decimals(answers.path, re.split("[<>=\n]", text))
    tier_of: dict[str, list[str]] = {}
    steps: list[tuple[str, str]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            is_step, names = _parse_line(line)
        except ComparisonError as error:
            answers.reject(f"line {number}", error)
            continue
        answers.n_good += 1
        if is_step:
            steps.append((names[0], names[1]))
        joined = [] if is_step else names
        for name in names:
            tier_of.setdefault(name, [name])
        for name in joined[1:]:
            if tier_of[name] is not tier_of[joined[0]]:
                tier_of[joined[0]] += tier_of[name]
                for other in tier_of[name]:
                    tier_of[other] = tier_of[joined[0]]
    if len(tier_of) > MAX_ITEMS or (len(tier_of) < 2 and not answers.rejected):
        raise ComparisonError(
            f"{answers.path} names {len(tier_of)} item(s), expected 2 to {MAX_ITEMS}; {HOW_TO}."
        )
    tiers = list({id(tier): tier for tier in tier_of.values()}.values())
    return tiers, steps


def _parse_line(line: str) -> tuple[bool, list[str]]:
    """Return whether a line is a step, `lower<higher`, and the names in it."""
    is_step = line.count("<") == 1 and "=" not in line
    names = line.split("<") if is_step else line.split("=")
    if len(names) < 2 or any(not name.strip() or set(name) & set("<>") for name in names):
        raise ComparisonError(f"found {quote(line)}; {HOW_TO}.")
    return is_step, [normalize_item(name) for name in names]


def write_study(rows: list[Comparison]) -> str:
    """Return one annotator's order as an ordering file: its reduction, and the tiers.

    Items tied with each other and alike towards all others make a tier. What the format cannot
    carry (skips, ties between items that are not alike) is left out. Raises ComparisonError when
    the answers contradict each other, or a name holds '<', '>' or '='.
    """
    order = build_order(rows)
    cycles = order.explain_cycles()
    if cycles:
        raise ComparisonError(f"an ordering file cannot hold a contradiction. {cycles[0]}")
    for name in order.names:
        if set(name) & set("<>="):
            raise ComparisonError(
                f"item {quote(name)} holds '<', '>' or '=', which an ordering file cannot carry; "
                "export CSV instead."
            )
    groups, below = condense(order)
    name_of = [order.names[group[0]] for group in groups]
    reach = close(below)
    tiers = find_tiers(rows, name_of, reach)
    first = {name_of.index(name): name for name, *_ in tiers}
    kept = {place for place in first} | {
        place for place, name in enumerate(name_of) if not any(name in tier for tier in tiers)
    }
    bare = [[lower for lower in sorted(kept) if row >> lower & 1] for row in reach]
    lines = [
        f"{name_of[lower]}<{name_of[upper]}"
        for upper, row in enumerate(reduce_edges(bare))
        if upper in kept
        for lower in row
    ]
    return "\n".join([*lines, *("=".join(tier) for tier in tiers)]) + "\n"


def find_tiers(rows: list[Comparison], names: list[str], reach: list[int]) -> list[list[str]]:
    """Return groups of two or more items that tie with each other and stand alike to the rest."""
    tied = {frozenset((row.left, row.right)) for row in rows if row.outcome == "tie"}
    over = [0] * len(names)
    for upper, below in enumerate(reach):
        for lower in range(len(names)):
            if below >> lower & 1:
                over[lower] |= 1 << upper
    alike: dict[tuple[int, int], list[list[str]]] = {}
    for place, name in enumerate(names):
        tiers = alike.setdefault((reach[place], over[place]), [])
        for tier in tiers:
            if all(frozenset((name, other)) in tied for other in tier):
                tier.append(name)
                break
        else:
            tiers.append([name])
    return [tier for tiers in alike.values() for tier in tiers if len(tier) > 1]
