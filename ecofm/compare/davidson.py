"""Bradley-Terry with ties: comparisons added up by pair, the posterior, its mode and spread.

The model is Bradley-Terry with ties after Davidson (1970, "On extending the Bradley-Terry model
to accommodate ties in paired comparison experiments", JASA 65): with s the items' strengths,
d = s_left - s_right and theta the log of the tie parameter, the answers left, right and tie have
weights exp(d / 2), exp(-d / 2) and exp(theta). Without any tie it is Bradley-Terry itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import coo_array, csr_array, diags_array, eye_array
from scipy.sparse.linalg import cg
from scipy.special import log_softmax

from ecofm.compare.comparison import COLUMNS, OUTCOMES
from ecofm.errors import ComparisonError

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NEVER_TIES = -40.0
"""theta where nobody ever tied: the tie's weight vanishes beside any other."""


@dataclass(frozen=True, slots=True)
class PairCounts:
    """Equal comparisons added up: one row for each unordered pair of items."""

    names: list[str]
    """The items, sorted; first and second are indices into this list."""
    first: Ints
    """Index of one item of each pair (n_pairs,)."""
    second: Ints
    """Index of the other item, always the larger one (n_pairs,)."""
    counts: Floats
    """How often first won, second won, and they tied (n_pairs, 3)."""


@dataclass(frozen=True, slots=True)
class VoiceCounts:
    """Equal comparisons added up by pair and annotator."""

    pairs: PairCounts
    """The sum over annotators."""
    annotators: list[str]
    """The annotators, sorted."""
    annotator: Ints
    """Index of the annotator of each row (n_voices,)."""
    pair: Ints
    """Index of the pair of each row (n_voices,)."""
    counts: Floats
    """How often first won, second won, and they tied (n_voices, 3)."""


def count_voices(comparisons: pd.DataFrame) -> VoiceCounts:
    """Return the comparisons added up by pair and annotator, without skips.

    Raises ComparisonError when columns are missing, an outcome is unknown, or nothing is left.
    """
    fitted = check_fitted(comparisons)
    left, right = fitted["left"].to_numpy(dtype=object), fitted["right"].to_numpy(dtype=object)
    names, codes = np.unique(np.concatenate([left, right]), return_inverse=True)
    left, right = codes[: len(fitted)], codes[len(fitted) :]
    if (left == right).any():
        raise ComparisonError("an item is compared with itself; remove that comparison.")
    annotators, annotator = np.unique(
        fitted["annotator"].to_numpy(dtype=object), return_inverse=True
    )
    outcome = fitted["outcome"].to_numpy(dtype=object)
    first_won = (outcome == "left") == (left < right)
    column = np.where(outcome == "tie", 2, np.where(first_won, 0, 1))
    keys = np.minimum(left, right) * len(names) + np.maximum(left, right)
    pairs, pair = np.unique(keys, return_inverse=True)
    voices, row = np.unique(annotator * len(pairs) + pair, return_inverse=True)
    counts = add_up(row, column, len(voices))
    voice_pair = voices % len(pairs)
    totals = PairCounts(
        list(names), pairs // len(names), pairs % len(names), sum_by(voice_pair, counts, len(pairs))
    )
    return VoiceCounts(totals, list(annotators), voices // len(pairs), voice_pair, counts)


def check_fitted(comparisons: pd.DataFrame) -> pd.DataFrame:
    """Return the comparisons that can be fitted; raises as `count_voices` does."""
    missing = [column for column in COLUMNS if column not in comparisons]
    if missing:
        raise ComparisonError(
            f"the comparisons lack the column(s) {', '.join(missing)}, expected "
            f"{', '.join(COLUMNS)}; read them with ecofm.compare.read_comparisons."
        )
    unknown = set(comparisons["outcome"]) - set(OUTCOMES)
    if unknown:
        raise ComparisonError(
            f"the comparisons have the outcome {unknown.pop()!r}, expected left, right, tie or "
            "skip; correct it."
        )
    fitted = comparisons[comparisons["outcome"] != "skip"]
    if fitted.empty:
        raise ComparisonError(
            f"none of the {len(comparisons)} comparisons can be fitted: only left, right and tie "
            "count; collect more answers with `ecofm compare serve`."
        )
    return fitted


def add_up(row: Ints, column: Ints, n_rows: int) -> Floats:
    """Return how often each (row, column) occurs, for three columns: (n_rows, 3)."""
    counts = np.bincount(row * 3 + column, minlength=3 * n_rows).reshape(-1, 3)
    return counts.astype(np.float64)


def sum_by(row: Ints, values: Floats, n_rows: int) -> Floats:
    """Return the rows of `values` (n, columns) added up by `row`: (n_rows, columns)."""
    columns = [np.bincount(row, column, n_rows) for column in values.T]
    return np.stack(columns, axis=1).astype(np.float64)


class Posterior:
    """The negative log posterior of (strengths, theta), its gradient and its Hessian.

    When nothing in the counts is a tie, theta stays at `NEVER_TIES` and has no slope.
    """

    def __init__(self, pairs: PairCounts, prior_std: float) -> None:
        """Keep the counts; the parameters are a vector (n_items + 1,), theta last."""
        self.pairs = pairs
        self.n_items = len(pairs.names)
        self.precision = prior_std**-2
        self.n_answers = pairs.counts.sum(axis=1)
        self.has_ties = bool(pairs.counts[:, 2].any())

    def start(self) -> Floats:
        """Return the point where fitting begins."""
        point = np.zeros(self.n_items + 1)
        if not self.has_ties:
            point[-1] = NEVER_TIES
        return point

    def start_from(self, point: Floats) -> Floats:
        """Return a point fitted to other counts as a place to begin: theta follows the ties."""
        if self.has_ties == (point[-1] != NEVER_TIES):
            return point
        return np.append(point[:-1], self.start()[-1])

    def log_shares(self, point: Floats) -> Floats:
        """Return the log probability of each answer for each pair (n_pairs, 3)."""
        half = (point[self.pairs.first] - point[self.pairs.second]) / 2
        weights = np.stack([half, -half, np.full_like(half, point[-1])], axis=1)
        shares: Floats = log_softmax(weights, axis=1)
        return shares

    def _free(self, point: Floats) -> Floats:
        """Return the parameters that the prior holds: theta only where there are ties."""
        return point if self.has_ties else np.append(point[:-1], 0.0)

    def value(self, point: Floats) -> float:
        """Return the negative log posterior but for a constant."""
        fit = (self.pairs.counts * self.log_shares(point)).sum()
        free = self._free(point)
        return float(self.precision / 2 * free @ free - fit)

    def gradient(self, point: Floats) -> Floats:
        """Return the derivative (n_items + 1,)."""
        surplus = self.pairs.counts - self.n_answers[:, None] * np.exp(self.log_shares(point))
        pull = (surplus[:, 0] - surplus[:, 1]) / 2
        by_item = np.bincount(self.pairs.first, pull, self.n_items).astype(np.float64)
        by_item -= np.bincount(self.pairs.second, pull, self.n_items)
        uphill: Floats = np.append(by_item, surplus[:, 2].sum() if self.has_ties else 0.0)
        return self.precision * self._free(point) - uphill

    def hessian(self, point: Floats) -> csr_array:
        """Return the second derivative (n_items + 1, n_items + 1): sparse, positive definite."""
        left, right, tie = np.exp(self.log_shares(point)).T
        spread = self.n_answers * ((left + right) / 4 - ((left - right) / 2) ** 2)
        mixed = -self.n_answers * (left - right) / 2 * tie
        tie_spread = self.n_answers * tie * (1 - tie)
        return assemble(self.pairs, self.precision, spread, mixed, tie_spread)


def assemble(
    pairs: PairCounts, precision: float, spread: Floats, mixed: Floats, tie_spread: Floats
) -> csr_array:
    """Return a Hessian (n_items + 1, n_items + 1) from what each pair adds to it.

    `spread` is the second derivative in the pair's difference, `tie_spread` in theta, and `mixed`
    in both (n_pairs,); `precision` is the prior's.
    """
    first, second, n_items = pairs.first, pairs.second, len(pairs.names)
    theta = np.full_like(first, n_items)
    blocks = [
        (first, first, spread), (second, second, spread),
        (first, second, -spread), (second, first, -spread),
        (first, theta, mixed), (theta, first, mixed),
        (second, theta, -mixed), (theta, second, -mixed),
        (theta, theta, tie_spread),
    ]  # fmt: skip
    rows, columns, values = (np.concatenate(part) for part in zip(*blocks, strict=True))
    size = n_items + 1
    likelihood = coo_array((values, (rows, columns)), shape=(size, size))
    return csr_array(likelihood + precision * eye_array(size))


def maximise(posterior: Posterior, start: Floats | None = None, max_steps: int = 100) -> Floats:
    """Return the mode (n_items + 1,) by Newton's method with step halving.

    The posterior is strictly log-concave: there is one mode and every Newton step leads uphill.
    """
    point = posterior.start() if start is None else start
    value = posterior.value(point)
    for _ in range(max_steps):
        gradient, hessian = posterior.gradient(point), posterior.hessian(point)
        # Conjugate gradients need only sparse products; a Cholesky factor per step took 0.4 s at
        # 500 items where other programs kept both cores busy.
        step, _ = cg(hessian, gradient, rtol=1e-8, M=diags_array(1 / hessian.diagonal()))
        decrement = float(gradient @ step)  # twice what is left to gain, near the mode
        if decrement < 1e-14 * (1 + abs(value)):
            break
        size = 1.0
        while (lower := posterior.value(point - size * step)) > value - size * decrement / 4:
            size /= 2
            if size < 1e-6:  # rounding hides any further gain
                return point
        point, value = point - size * step, lower
    return point


def invert(hessian: csr_array) -> Floats:
    """Return the covariance of all parameters (n_items + 1, n_items + 1)."""
    covariance: Floats = cho_solve(cho_factor(hessian.toarray()), np.eye(hessian.shape[0]))
    return covariance


def centre(covariance: Floats) -> Floats:
    """Return the variance of each strength less the mean strength (n_items,)."""
    own = covariance[:-1, :-1]
    mean = own.mean(axis=0)
    return np.asarray(np.diag(own) - 2 * mean + mean.mean())
