"""The door of rankers that were fitted to a table: is what they predict better than the mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array, eye_array

from ecofm.errors import EcofmError
from ecofm.rank.evidence import FORCE, LEVEL, MIN_ANSWERS, Verdict, exchange_places
from ecofm.rank.losses import Floats
from ecofm.rank.table import Target
from ecofm.rank.unseen import Mask
from ecofm.types import say

FEW_VALUES = 50
"""Of fewer values, a rank correlation is known to within .2 at best (90 % interval)."""


@dataclass(frozen=True, slots=True)
class Foretold:
    """What held-out items say of a ranker of a table's values."""

    n_items: int
    figures: dict[str, float]
    """Of held-out items: r2, spearman, error, error_of_mean; or accuracy, log_loss and others."""
    p: float
    """How often exchanged embeddings fit the values as well."""
    verdict: Verdict

    def require(self, said_in: object, column: str, *, force: bool) -> None:
        """Warn of few values; raise EcofmError for a ranker that is no better than the mean."""
        if self.n_items < FEW_VALUES:
            say(
                f"warning: {self.n_items} items with a {column} (at least {FEW_VALUES}) stand "
                "behind this ranker; what it says of other places is uncertain."
            )
        if self.verdict is not Verdict.chance or force:
            return
        raise EcofmError(
            f"{column} of {said_in} gives a ranker that predicts held-out items no better than "
            f"chance: {describe_figures(self.figures)}, and embeddings exchanged between places "
            f"at random fit the values as well in {self.p:.0%} of cases (less than {LEVEL:.0%} is "
            f"asked for); check that the rows name the right places, give more of them, or {FORCE}."
        )

    def to_json(self) -> dict[str, Any]:
        """Return what the manifest keeps."""
        return {"verdict": self.verdict.value, "p": self.p, "level": LEVEL}


def weigh_values(
    shown: Floats, several: Mask, target: Target, figures: dict[str, float],
    random: np.random.Generator,
) -> Foretold:  # fmt: skip
    """Return what a table's values say of a ranker; `shown` (item, feature) is what it sees."""
    said = target.values[:, None]
    if target.classes:
        said = (said == np.arange(len(target.classes))).astype(np.float64)
    n = len(said)
    said = said - said.mean(axis=0)
    p = exchange_places(shown, said, csr_array(eye_array(n)), target.places, several, random)
    error, naive = (("log_loss", "log_loss_of_shares") if target.classes
                    else ("error", "error_of_mean"))  # fmt: skip
    verdict = Verdict.better
    if p > LEVEL or figures[error] >= figures[naive]:
        verdict = Verdict.chance if n >= MIN_ANSWERS else Verdict.few
    return Foretold(n, figures, p, verdict)


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
