"""What held-out comparisons say of scores: how often the higher wins, how far places stray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import logsumexp

from ecofm.rank.items import Indices, ItemPairs
from ecofm.rank.losses import Floats, davidson_slopes, log_odds

NODES = 21
"""Of the Gauss-Hermite rule that integrates over the residual."""
MIN_REPEATED = 30
BINS = 5
MAX_RESIDUAL = 20.0
PULL = 1e-4


@dataclass(frozen=True, slots=True)
class Judged:
    """Comparisons with an item that the fit did not see, and what it predicted for them."""

    pair: Indices
    """Their numbers among all pairs."""
    gap: Floats
    """Score of the left less that of the right, in units of the items' deviation."""
    counts: Floats
    """Left, right and tie, (pair, 3)."""
    expected: Floats
    """The probability of each, (pair, 3)."""
    loss: float
    """Mean negative log likelihood, in nats."""

    @classmethod
    def score(cls, pair: Indices, gap: Floats, counts: Floats, scale: Floats) -> Judged:
        """Judge gaps by the odds that `fit_scale` found."""
        slope, log_tie = scale
        likelihood = log_odds(slope * gap, log_tie)
        loss = -float((counts * likelihood).sum() / counts.sum())
        return cls(pair, gap, counts, np.exp(likelihood), loss)

    @classmethod
    def join(cls, parts: Sequence[Judged], loss: float) -> Judged:
        """Put folds together; a pair between two held-out folds is in both."""
        fields = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("pair", "gap", "counts", "expected")
        }
        return cls(**fields, loss=loss)

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


def fit_residual(judged: Judged, pairs: ItemPairs) -> float | None:
    """Return how far places stray from what their embedding tells, in units of score.

    Two people who judge one pair share its residual, but not their own slips; so repeated pairs
    tell the two apart: a logistic model with a normal residual for each pair (Davidson's, with
    a random effect), by likelihood over held-out pairs. Pairs of single tiles are used where
    enough of them were repeated, else all. None when no pair was: nothing can be told then.
    """
    repeated = judged.counts.sum(axis=1) > 1
    sizes = np.array([len(members) for members in pairs.members])
    tiles = (sizes[pairs.left] == 1) & (sizes[pairs.right] == 1)
    of_tiles = tiles[judged.pair]
    if (repeated & of_tiles).sum() >= MIN_REPEATED:
        used = of_tiles
    elif repeated.sum() >= MIN_REPEATED:
        used = np.ones_like(repeated)
    else:
        return None
    gap, counts = judged.gap[used], judged.counts[used]
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    log_weights = np.log(weights / weights.sum())

    def loss(point: Floats) -> float:
        slope, log_tie, log_residual = point
        # Both places stray, so the difference does by the root of two.
        strayed = gap[:, None] + np.sqrt(2) * np.exp(log_residual) * nodes
        likelihood = (counts[:, None] * log_odds(slope * strayed, log_tie)).sum(axis=2)
        pull = PULL * (slope**2 + log_tie**2)
        evidence = float(logsumexp(likelihood + log_weights, axis=1).sum() / counts.sum())
        return float(pull - evidence)

    found = minimize(
        loss,
        np.array([2.0, 0.0, np.log(0.5)]),
        method="L-BFGS-B",
        bounds=[(1e-3, None), (None, None), (np.log(1e-3), np.log(MAX_RESIDUAL))],
    )
    return float(np.exp(found.x[2]))
