"""What held-out comparisons say of scores: how often the higher wins, how far places stray.

The unit of a score is the deviation of the compared items' development. A ranker tells a share of
it, and places stray by the rest: share^2 + residual^2 = 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize
from scipy.special import logsumexp

from ecofm.rank.items import Indices, ItemPairs
from ecofm.rank.losses import Floats, davidson_slopes, log_odds

NODES = 21
"""Of the Gauss-Hermite rule that integrates over the residual."""
MAX_PAIRS = 20_000
MIN_REPEATED = 30
BINS = 5
MAX_RESIDUAL = 20.0
MAX_TILT = 1.0
MAX_SCORE = 2.0
"""The residual follows the score as far as this many of its own deviations, no further."""
MIN_SHARE = 0.05
"""A ranker that tells nothing keeps the order of its scores, and little more."""
MIN_SLOPE = 1.5
"""Log odds of an answer for a unit of development, at least.

People who look tell places that are a deviation apart (82 %). Where held-out answers follow the
score less, it is the score that is wrong; without this, people who contradict each other would be
taken for poor judges of a good score."""
Z_90 = 1.6449
"""Half of a normal distribution's 90 % interval, in deviations."""
PULL = 1e-4
PARTS = ("pair", "levels", "counts", "expected")


@dataclass(frozen=True, slots=True)
class Residual:
    """How far places stray from what their embedding tells, in units of score."""

    deviation: float
    """At score 0."""
    tilt: float = 0.0
    """Its logarithm grows by so much for a unit of score."""
    limit: float = MAX_SCORE
    """And no further than to this score, up or down."""

    def at(self, score: Floats) -> Floats:
        """Return the deviation of places with these scores."""
        found: Floats = self.deviation * np.exp(self.tilt * score.clip(-self.limit, self.limit))
        return found

    def rescale(self, share: float) -> Residual:
        """Return the residual where scores whose deviation is 1 are made `share` times as large."""
        return Residual((1 - share**2) ** 0.5, self.tilt / share, self.limit * share)


@dataclass(frozen=True, slots=True)
class Judged:
    """Comparisons with an item that the fit did not see, and what it predicted for them."""

    pair: Indices
    """Their numbers among all pairs."""
    levels: Floats
    """Score of the left and of the right, (pair, 2), in units of the items' deviation."""
    counts: Floats
    """Left, right and tie, (pair, 3)."""
    expected: Floats
    """The probability of each, (pair, 3)."""
    loss: float
    """Mean negative log likelihood, in nats."""

    @classmethod
    def score(cls, pair: Indices, levels: Floats, counts: Floats, scale: Floats) -> Judged:
        """Judge levels by the odds that `fit_scale` found."""
        slope, log_tie = scale
        likelihood = log_odds(slope * (levels[:, 0] - levels[:, 1]), log_tie)
        loss = -float((counts * likelihood).sum() / counts.sum())
        return cls(pair, levels, counts, np.exp(likelihood), loss)

    @classmethod
    def join(cls, parts: Sequence[Judged], loss: float) -> Judged:
        """Put folds together; a pair between two held-out folds is in both."""
        fields = {name: np.concatenate([getattr(part, name) for part in parts]) for name in PARTS}
        return cls(**fields, loss=loss)

    def choose(self, mask: npt.NDArray[np.bool_]) -> Judged:
        """Return the pairs where the mask (pair,) is true; the loss stays that of all."""
        fields = {name: getattr(self, name)[mask] for name in PARTS}
        return Judged(**fields, loss=self.loss)

    @property
    def gap(self) -> Floats:
        """Score of the left less that of the right, (pair,)."""
        found: Floats = self.levels[:, 0] - self.levels[:, 1]
        return found

    def table(self) -> pd.DataFrame:
        """Return gap, n, won and expected by bins of the gap: does the higher one win as told?

        A tie is half a win.
        """
        ahead = self.gap > 0
        share = [
            np.where(ahead, values[:, 0], values[:, 1]) + values[:, 2] / 2
            for values in (self.counts, self.expected * self.counts.sum(axis=1, keepdims=True))
        ]
        weight = self.counts.sum(axis=1)
        gap = np.abs(self.gap)
        bins = pd.qcut(pd.Series(gap).rank(method="first"), min(BINS, len(gap)), labels=False)
        rows = (
            pd.DataFrame({"gap": gap * weight, "n": weight, "won": share[0], "expected": share[1]})
            .groupby(bins.to_numpy())
            .sum()
        )
        for name in ("gap", "won", "expected"):
            rows[name] /= rows["n"]
        return rows.reset_index(drop=True)


def fit_scale(gap: Floats, counts: Floats) -> Floats:
    """Return (slope, log_tie): the log odds that one unit of score stands for, by likelihood."""

    def loss(scale: Floats) -> tuple[float, Floats]:
        value, by_difference, by_tie = davidson_slopes(scale[0] * gap, counts, scale[1])
        # A weak pull keeps separable answers finite.
        value += PULL * float(np.square(scale).sum())
        return value, np.array([by_difference @ gap, by_tie]) + 2 * PULL * scale

    found: Floats = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B").x
    return found


def divide_variance(
    judged: Judged | None, pairs: ItemPairs, sureness: float
) -> tuple[float, Residual]:
    """Return which share of development a ranker's scores tell, and how far places stray.

    `judged` are pairs of places that the fit did not see, scores in units of their own deviation;
    without any, next to nothing is told. `sureness` (0 to 1) is how much of the squared share is
    no luck of the few that judged.
    """
    if judged is None or sureness <= 0:
        return MIN_SHARE, Residual(1.0).rescale(MIN_SHARE)
    residual, told = bound_residual(judged), fit_residual(judged, pairs)
    # Twenty nodes cannot tell the residual where many people say exactly the same.
    if told and told.deviation < residual.deviation:
        residual = told
    share = (sureness / (1 + residual.deviation**2)) ** 0.5
    share = max(share, MIN_SHARE)
    return share, residual.rescale(share)


def bound_residual(judged: Judged) -> Residual:
    """Return how far places stray at most, where nothing tells people's slips from it.

    Answers are taken to be without fault: a place with the lower score that won did stray. A
    logistic curve of slope b is nearly a normal one of deviation 1.7 / b (Bradley-Terry to
    Thurstone), which two places share.
    """
    slope = max(float(fit_scale(judged.gap, judged.counts)[0]), 1e-9)
    return Residual(min(1.7 / 2**0.5 / slope, MAX_RESIDUAL))


def fit_residual(judged: Judged, pairs: ItemPairs) -> Residual | None:
    """Return how far places stray from what their embedding tells.

    Two people who judge one pair share its residual, but not their own slips; so repeated pairs
    tell the two apart: a logistic model with a normal residual for each pair (Davidson's, with
    a random effect), by likelihood over held-out pairs. Pairs of single tiles are used where
    enough of them were repeated, else all. None when no pair was: nothing can be told then.
    The unit is the deviation of the scores.
    """
    repeated = pairs.counts.sum(axis=(0, 2))[judged.pair] > 1
    sizes = np.array([len(members) for members in pairs.members])
    tiles = (sizes[pairs.left] == 1) & (sizes[pairs.right] == 1)
    of_tiles = tiles[judged.pair]
    if (repeated & of_tiles).sum() >= MIN_REPEATED:
        used = of_tiles
    elif repeated.sum() >= MIN_REPEATED:
        used = np.ones_like(repeated)
    else:
        return None
    # More pairs tell no more, and each costs a sum over nodes.
    chosen = np.random.default_rng(0).permutation(np.flatnonzero(used))[:MAX_PAIRS]
    gap, counts = judged.gap[chosen], judged.counts[chosen]
    capped = judged.levels[chosen].clip(-MAX_SCORE, MAX_SCORE)
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    log_weights = np.log(weights / weights.sum())

    def loss(point: Floats) -> float:
        slope, log_tie, log_deviation, tilt = point
        # Both places stray, each as far as its score lets it.
        stray = np.exp(log_deviation) * np.sqrt(np.exp(2 * tilt * capped).sum(axis=1))
        strayed = gap[:, None] + stray[:, None] * nodes
        likelihood = (counts[:, None] * log_odds(slope * strayed, log_tie)).sum(axis=2)
        pull = PULL * (slope**2 + log_tie**2 + tilt**2)
        evidence = float(logsumexp(likelihood + log_weights, axis=1).sum() / counts.sum())
        return float(pull - evidence)

    found = minimize(
        loss,
        np.array([2.0, 0.0, np.log(0.5), 0.0]),
        method="L-BFGS-B",
        bounds=[
            (1e-3, None),
            (None, None),
            (np.log(1e-3), np.log(MAX_RESIDUAL)),
            (-MAX_TILT, MAX_TILT),
        ],
    )
    slope, deviation = float(found.x[0]), float(np.exp(found.x[2]))
    least = max((MIN_SLOPE / slope) ** 2 - 1, 0.0) ** 0.5
    return Residual(min(max(deviation, least), MAX_RESIDUAL), float(found.x[3]))
