"""Whether somebody agrees with others more often than chance: a share, its interval, a verdict."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

from ecofm.compare.davidson import Ints

CHANCE = 0.5
"""How often who guesses agrees, ties left out."""
INTERVAL = 0.98
"""Of the share of agreement: one in a hundred who guess is taken to be better than chance."""
BETTER, GUESSING, CONTRARY = "better than chance", "no better than chance", "worse than chance"
TOO_FEW, UNKNOWN = "too few answers", "unknown"
MANY_ENOUGH = 0.8
"""An interval that holds chance and reaches this high tells of too few answers, not of guessing."""


class Share(NamedTuple):
    """A share of answers and its interval; NaN of nothing."""

    share: float
    lower: float
    upper: float
    n_own: float
    """How many independent answers tell as much as these do."""


def measure_share(
    agrees: npt.NDArray[np.bool_], first: Ints, second: Ints, interval: float = INTERVAL
) -> Share:
    """Return the share of true answers with its interval, for answers about pairs of items.

    `first` and `second` are the items' numbers (n_answers,). Answers that share an item hang
    together: an ordering of 22 items has 231 comparisons and far fewer judgements. So the number
    of answers in Wilson's interval is divided by the ratio of the variance that is robust to this
    (Fafchamps and Gubert 2007, "The formation of risk sharing networks") to the binomial one, never
    below 1, and the quantile is Student's with two degrees of freedom fewer than items.
    """
    n_answers = len(agrees)
    if not n_answers:
        return Share(np.nan, np.nan, np.nan, 0.0)
    share = float(agrees.mean())
    surplus = agrees - share
    items, number = np.unique(np.concatenate([first, second]), return_inverse=True)
    first, second = number[:n_answers], number[n_answers:]
    pair = np.minimum(first, second) * len(items) + np.maximum(first, second)
    by_item = np.bincount(number, np.tile(surplus, 2))
    by_pair = np.bincount(np.unique(pair, return_inverse=True)[1], surplus)
    small = len(items) / (len(items) - 1)
    robust = small * float((by_item**2).sum() - (by_pair**2).sum())
    binomial = n_answers * share * (1 - share)
    n_own = n_answers / max(1.0, robust / binomial if binomial else 1.0)
    quantile = float(student.ppf((1 + interval) / 2, max(len(items) - 2, 1)))
    weight = quantile**2 / n_own
    middle = (share + weight / 2) / (1 + weight)
    half = np.sqrt(weight * (share * (1 - share) + weight / 4)) / (1 + weight)
    return Share(share, float(middle - half), float(middle + half), n_own)


def judge_share(found: Share) -> str:
    """Return what a share of agreement with the others says of an annotator."""
    if np.isnan(found.share):
        return UNKNOWN
    if found.lower > CHANCE:
        return BETTER
    if found.upper < CHANCE:
        return CONTRARY
    return TOO_FEW if found.upper > MANY_ENOUGH else GUESSING
