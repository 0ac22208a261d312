"""Annotators one by one: how often each agrees with the consensus of the others, beside chance."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np

from ecofm.compare.chance import (
    BETTER,
    CHANCE,
    CONTRARY,
    GUESSING,
    TOO_FEW,
    UNKNOWN,
    Share,
    judge_share,
)

if TYPE_CHECKING:
    import pandas as pd

    from ecofm.compare.crowd import Crowd

MAX_NAMED = 20
"""Annotators that are described in sentences; the table has all."""


def tabulate_annotators(comparisons: pd.DataFrame, crowd: Crowd) -> pd.DataFrame:
    """Return a row for each annotator: how much they said, and how it stands to the others.

    n_answers, n_left (which the first-named side won), n_ties and n_skips count answers;
    n_compared those, neither tie nor skip, on which the others have a consensus; with_others is
    the share of these that agrees with it, lower and upper its 98 % interval, and verdict what they
    say beside `CHANCE`. The annotator's own answers are no part of that consensus (`Crowd.others`).
    reliability is the share of answers that the model takes as meant, NaN where nobody else judged
    the same items, the answers are too few, or it cannot be told who is upside down; consistency
    the share of repeated questions, swapped or not, that got the same answer as before.
    """
    import pandas as pd

    rows = []
    reliability = dict(zip(crowd.voices.annotators, crowd.reliability, strict=True))
    shares = dict(zip(crowd.voices.annotators, crowd.measure_agreement(), strict=True))
    for annotator, own in comparisons.groupby("annotator", sort=True):
        name = str(annotator)
        n_compared, found = shares.get(name, (0, Share(np.nan, np.nan, np.nan, 0.0)))
        verdict = judge_share(found)
        is_unclear = verdict == CONTRARY and reliability[name] >= CHANCE
        own_reliability = (
            np.nan if is_unclear or verdict in (TOO_FEW, UNKNOWN) else reliability[name]
        )
        same, again = count_repeats(own)
        counted = (own["outcome"].eq(outcome).sum() for outcome in ("left", "tie", "skip"))
        rows.append(
            (name, len(own), *map(int, counted), n_compared, *found[:3], verdict, own_reliability,
             same / again if again else np.nan)
        )  # fmt: skip
    columns = ["annotator", "n_answers", "n_left", "n_ties", "n_skips", "n_compared", "with_others",
               "lower", "upper", "verdict", "reliability", "consistency"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


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
    """Return what the report says of the annotators, good news too."""
    fine = ["Each of them agrees with the others more often than chance would."]
    return describe_doubtful(annotators) or fine


def describe_doubtful(annotators: pd.DataFrame) -> list[str]:
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
        lines.append(
            f"{rest} more are not shown to be better than chance; annotators.csv of `ecofm compare "
            "report` has all."
        )
    if len(annotators) == 2 and doubtful["verdict"].isin([GUESSING, CONTRARY]).any():
        lines.append("Of two annotators, it cannot be told who is right: let a third compare.")
    elif 2 * doubtful["verdict"].eq(CONTRARY).sum() >= len(annotators):
        lines.append(
            "So many contradict each other that it cannot be told who is right: nobody's answers "
            "are taken the other way round. Let others compare the same items."
        )
    return lines


def _describe(found: dict[Hashable, Any]) -> str:
    """Return what the report says of one annotator, a row of `tabulate_annotators`."""
    name, n_compared = found["annotator"], found["n_compared"]
    if found["verdict"] == UNKNOWN:
        return (
            f"{name}: it cannot be known how reliable the {found['n_answers']} answers are, since "
            "none of them says left or right about items on which the others have a consensus."
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
