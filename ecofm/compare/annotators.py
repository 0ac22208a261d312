"""Annotators one by one: how often each agrees with the consensus of the others, beside chance."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

from ecofm.compare.davidson import Ints

if TYPE_CHECKING:
    import pandas as pd

    from ecofm.compare.crowd import Crowd

CHANCE = 0.5
"""How often who guesses agrees, ties left out."""
INTERVAL = 0.98
"""Of the share of agreement: one in a hundred who guess is taken to be better than chance."""
BETTER, GUESSING, CONTRARY = "better than chance", "no better than chance", "worse than chance"
TOO_FEW, UNKNOWN = "too few answers", "unknown"
MANY_ENOUGH = 0.8
"""An interval that holds chance and reaches this high tells of too few answers, not of guessing."""
MAX_NAMED = 20
"""Annotators that are described in sentences; the table has all."""


class Share(NamedTuple):
    """A share of answers and its interval; NaN of nothing."""

    share: float
    lower: float
    upper: float


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
        return Share(np.nan, np.nan, np.nan)
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
    return Share(share, float(middle - half), float(middle + half))


def judge_share(found: Share) -> str:
    """Return what a share of agreement with the others says of an annotator."""
    if np.isnan(found.share):
        return UNKNOWN
    if found.lower > CHANCE:
        return BETTER
    if found.upper < CHANCE:
        return CONTRARY
    return TOO_FEW if found.upper > MANY_ENOUGH else GUESSING


def tabulate_annotators(comparisons: pd.DataFrame, crowd: Crowd) -> pd.DataFrame:
    """Return a row for each annotator: how much they said, and how it stands to the others.

    n_answers, n_left (which the first-named side won), n_ties and n_skips count answers;
    n_compared those, neither tie nor skip, on which the others have a consensus; with_others is
    the share of these that agrees with it, lower and upper its 98 % interval, and verdict what they
    say beside `CHANCE`. The annotator's own answers are no part of that consensus (`Crowd.others`).
    reliability is the share of answers that the model takes as meant, NaN where nobody else judged
    the same items or the answers are too few; consistency the share of repeated questions, swapped
    or not, that got the same answer as before.
    """
    import pandas as pd

    rows = []
    reliability = dict(zip(crowd.voices.annotators, crowd.reliability, strict=True))
    shares = _measure_annotators(crowd)
    for annotator, own in comparisons.groupby("annotator", sort=True):
        name = str(annotator)
        n_compared, found = shares.get(name, (0, Share(np.nan, np.nan, np.nan)))
        verdict = judge_share(found)
        own_reliability = np.nan if verdict in (TOO_FEW, UNKNOWN) else reliability[name]
        same, again = count_repeats(own)
        counted = (own["outcome"].eq(outcome).sum() for outcome in ("left", "tie", "skip"))
        rows.append(
            (name, len(own), *map(int, counted), n_compared, *found, verdict, own_reliability,
             same / again if again else np.nan)
        )  # fmt: skip
    columns = ["annotator", "n_answers", "n_left", "n_ties", "n_skips", "n_compared", "with_others",
               "lower", "upper", "verdict", "reliability", "consistency"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _measure_annotators(crowd: Crowd) -> dict[str, tuple[int, Share]]:
    """Return for each annotator the number of answers with a consensus, and the share with it."""
    voices, lead = crowd.voices, crowd.refit_others().lead_of_others()
    decided = np.flatnonzero(np.abs(np.nan_to_num(lead)) > 1e-9)
    # One entry an answer: those for the pair's first item, then those for its second.
    n_each = voices.counts[decided, :2].astype(np.int64)
    voice = np.concatenate([np.repeat(decided, n_each[:, side]) for side in (0, 1)])
    is_first = np.arange(len(voice)) < n_each[:, 0].sum()
    agrees = is_first == (lead[voice] > 0)
    first, second = voices.pairs.first[voices.pair[voice]], voices.pairs.second[voices.pair[voice]]
    found = {}
    for number, name in enumerate(voices.annotators):
        own = voices.annotator[voice] == number
        found[name] = (
            int(own.sum()),
            measure_share(agrees[own], first[own], second[own]),
        )
    return found


def count_repeats(own: pd.DataFrame) -> tuple[int, int]:
    """Return how many answers repeat the pair's answer before, and how many had one to repeat."""
    last: dict[tuple[str, str], str] = {}
    same = again = 0
    for left, right, outcome in own[["left", "right", "outcome"]].to_numpy(dtype=object).tolist():
        winner = left if outcome == "left" else right if outcome == "right" else outcome
        pair = (min(left, right), max(left, right))
        if pair in last:
            again += 1
            same += last[pair] == winner
        last[pair] = winner
    return same, again


def describe_annotators(annotators: pd.DataFrame) -> list[str]:
    """Return a sentence for each annotator who is not shown to be better than chance."""
    if len(annotators) == 1:
        return [
            f"All answers are by {annotators['annotator'].iloc[0]}: with a single annotator it "
            "cannot be known how reliable they are. Let somebody else compare the same items."
        ]
    doubtful = annotators[annotators["verdict"] != BETTER]
    lines = [_describe(row) for row in doubtful.head(MAX_NAMED).to_dict("records")]
    rest = len(doubtful) - len(lines)
    if rest:
        lines.append(f"{rest} more are not shown to be better than chance; annotators.csv has all.")
    if len(annotators) == 2 and doubtful["verdict"].isin([GUESSING, CONTRARY]).any():
        lines.append("Of two annotators, it cannot be told who is right: let a third compare.")
    return lines or ["Each of them agrees with the others more often than chance would."]


def _describe(found: dict[Hashable, Any]) -> str:
    """Return what the report says of one annotator, a row of `tabulate_annotators`."""
    name, n_compared = found["annotator"], found["n_compared"]
    if found["verdict"] == UNKNOWN:
        return (
            f"{name}: it cannot be known how reliable the {found['n_answers']} answers are, since "
            "none of them says left or right about items that others have compared."
        )
    n_agreed = round(found["with_others"] * n_compared)
    conclusion = {
        GUESSING: "no better than chance; ask whether the question was understood, or leave the "
        "answers out",
        CONTRARY: "worse than chance, as if left and right, or more and less, were taken for each "
        "other; ask, and correct or leave out the answers",
        TOO_FEW: "too few answers to tell from chance; ask for more",
    }[found["verdict"]]
    n_untied = found["n_answers"] - found["n_ties"] - found["n_skips"]
    return (
        f"{name} agrees with the consensus of the others in {n_agreed} of {n_compared} answers, "
        f"{found['with_others']:.0%} ({found['lower']:.0%} to {found['upper']:.0%}; who guesses: "
        f"{CHANCE:.0%}): {conclusion}. Left was said in {found['n_left']} of {n_untied}."
    )
