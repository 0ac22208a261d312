"""The door of rankers that were fitted to a table: is what they predict better than the mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array, eye_array
from scipy.stats import ttest_1samp

from ecofm.rank.evidence import LEVEL, MIN_ANSWERS, Verdict
from ecofm.rank.items import Indices
from ecofm.rank.losses import Floats
from ecofm.rank.luck import exchange_places
from ecofm.rank.table import Target
from ecofm.rank.unseen import Mask
from ecofm.types import say

FEW_VALUES = 50
"""Of fewer values, a rank correlation is known to within .2 at best (90 % interval)."""


@dataclass(frozen=True, slots=True)
class JudgedValues:
    """How well held-out values were predicted."""

    figures: dict[str, float]
    gain: Floats
    """By how much the loss of each item is less than that of the mean or the shares, (item,)."""

    def p(self, places: Indices) -> float:
        """Return the p value of the gain over places, one-sided."""
        gain = np.bincount(places, self.gain) / np.bincount(places)
        return float(ttest_1samp(gain, 0, alternative="greater").pvalue)


@dataclass(frozen=True, slots=True)
class Foretold:
    """What held-out items say of a ranker of a table's values."""

    n_items: int
    figures: dict[str, float]
    """Of held-out items: r2, spearman, error, error_of_mean; or accuracy, log_loss and others."""
    p: float
    """How often exchanged embeddings fit the values as well."""
    verdict: Verdict

    def warn(self, said_in: object, column: str) -> None:
        """Say where few values stand behind a ranker, and where it is no better than the mean.

        Values are somebody's measurement, and their intervals are those of held-out items: unlike
        what nobody said, such a ranker is written, and marked.
        """
        if self.n_items < FEW_VALUES:
            say(
                f"warning: {self.n_items} items with a {column} (at least {FEW_VALUES}) stand "
                "behind this ranker; what it says of other places is uncertain."
            )
        if self.verdict is Verdict.chance:
            say(
                f"warning: {column} of {said_in} gives a ranker that predicts held-out items no "
                f"better than chance: {describe_figures(self.figures)}, and embeddings exchanged "
                f"between places at random fit the values as well in {self.p:.0%} of cases (at "
                f"most {LEVEL:.0%} would be luck); check that the rows name the right places, or "
                "give more of them."
            )

    def to_json(self) -> dict[str, Any]:
        """Return what the manifest keeps."""
        return {"verdict": self.verdict.value, "p": self.p, "level": LEVEL}


def weigh_values(
    features: Floats,
    several: Mask,
    target: Target,
    judged: JudgedValues,
    random: np.random.Generator,
    *,
    is_straight: bool,
) -> Foretold:
    """Return what a table's values say of a ranker; `features` (item, feature) is what it sees."""
    said = target.values[:, None]
    if target.classes:
        said = (said == np.arange(len(target.classes))).astype(np.float64)
    n = len(said)
    graph, said = csr_array(eye_array(n)), said - said.mean(axis=0)
    p = exchange_places(features, said, graph, target.places, several, random)
    if not is_straight:
        # The exchange sees straight lines only; the lesser p value counts, doubled (Bonferroni).
        p = min(1.0, 2 * min(p, judged.p(target.places)))
    verdict = Verdict.better
    if p > LEVEL or judged.gain.mean() <= 0:
        verdict = Verdict.chance if n >= MIN_ANSWERS else Verdict.few
    return Foretold(n, judged.figures, p, verdict)


def describe_figures(figures: dict[str, float]) -> str:
    """Say how well held-out items were predicted, beside the mean or the largest class."""
    if "r2" in figures:
        return (
            f"held out, the error is {figures['error']:.3g} (root mean square) and that of their "
            f"mean {figures['error_of_mean']:.3g}: r2 {figures['r2']:.3f}, rank correlation "
            f"{figures['spearman']:.3f}"
        )
    return (
        f"held out, {figures['accuracy']:.1%} of classes are right and "
        f"{figures['share_of_largest_class']:.1%} by naming the largest each time (balanced "
        f"{figures['balanced_accuracy']:.1%}); the log loss is {figures['log_loss']:.3f} and that "
        f"of the classes' shares {figures['log_loss_of_shares']:.3f}"
    )
