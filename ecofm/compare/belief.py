"""What is believed about the items' levels while people answer: a Gaussian, updated by each vote.

The prior is Gaussian: items are alike as far as their embeddings are, so that items that were
never compared inherit from those that were. Votes are Davidson's model seen through noisy
annotators (see `ecofm.compare.crowd`). Between full fits (Laplace's approximation) a vote is one
Kalman step, quick enough to take before the next question.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve

from ecofm.compare.davidson import Floats, Ints

OUTCOME_ROW = {"left": 0, "right": 1, "tie": 2}
NEWTON_STEPS = 20
PRIOR_GOOD, PRIOR_BAD = 10.0, 1.0
"""The Beta prior of a reliability, as in crowd-BT: most people mean what they say."""
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(7)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


@dataclass(frozen=True, kw_only=True, slots=True)
class BeliefConfig:
    """The prior of levels, in log odds."""

    prior_std: float = 3.0
    """Standard deviation of a level."""
    inherited: float = 0.7
    """Share of the prior variance that embeddings explain; only with embeddings."""
    start_theta: float = -0.3
    """Log of the tie parameter before any answer; the ten annotators of the reference study have
    -0.33."""


def make_prior(
    n_items: int, config: BeliefConfig, embeddings: npt.NDArray[np.floating] | None = None
) -> Floats:
    """Return the prior covariance (n_items, n_items).

    `embeddings` (n_items, dim) are centred and made Gaussian-kernel similarities with the median
    distance as the length, so that a tile says much about its like and nothing about others.
    """
    variance = config.prior_std**2
    if embeddings is None:
        return np.asarray(variance * np.eye(n_items))
    points = np.asarray(embeddings, dtype=np.float64)
    norms = (points**2).sum(axis=1)
    squared = np.maximum(norms[:, None] + norms - 2 * points @ points.T, 0)
    length = np.median(squared[np.triu_indices(n_items, 1)]) or 1.0
    alike = np.exp(-squared / length)
    mixed = config.inherited * alike + (1 - config.inherited) * np.eye(n_items)
    return np.asarray(variance * mixed)


class Belief:
    """Mean and covariance of the levels, and the reliability of each annotator."""

    def __init__(self, prior: Floats, config: BeliefConfig) -> None:
        """Start from the prior covariance (n_items, n_items)."""
        self.config = config
        self.n_items = len(prior)
        self._prior = prior
        self._precision = cho_solve(cho_factor(prior), np.eye(self.n_items))
        self.mean: Floats = np.zeros(self.n_items)
        self.covariance: Floats = prior.copy()
        self.theta = config.start_theta
        self.reliability: dict[str, float] = {}

    def trust(self, annotator: str) -> float:
        """Return the reliability of an annotator; who is new is taken as the prior's mean."""
        return self.reliability.get(annotator, PRIOR_GOOD / (PRIOR_GOOD + PRIOR_BAD))

    def observe(self, left: int, right: int, outcome: str, annotator: str) -> None:
        """Take one vote into account, approximately; skips say nothing."""
        if outcome not in OUTCOME_ROW:
            return
        difference = self.mean[left] - self.mean[right]
        slope, curvature = self._slope(
            np.array([difference]), OUTCOME_ROW[outcome], self.trust(annotator)
        )
        column = self.covariance[:, left] - self.covariance[:, right]
        variance = column[left] - column[right]
        gain = column / (1 + curvature * variance)
        self.mean = self.mean + gain * slope
        self.covariance = self.covariance - curvature * np.outer(gain, column)

    def _slope(self, difference: Floats, row: int, trust: float) -> tuple[float, float]:
        """Return the derivative of a vote's log likelihood, and the information of any vote."""
        shares, slopes = see(difference, self.theta, trust)
        slope = slopes[row] / shares[row]
        information = (slopes**2 / shares).sum(axis=0)
        return float(slope[0]), float(information[0])

    def fit(
        self, left: Ints, right: Ints, outcome: Ints, annotator: Ints, annotators: list[str]
    ) -> None:
        """Fit to all votes (n_votes,): item indices, rows of `OUTCOME_ROW`, annotator indices.

        Reliabilities move by one step of expectation and maximisation a fit.
        """
        own = np.array([self.trust(name) for name in annotators] or [1.0])[annotator]
        names = len(annotators)
        shares = see(self.mean[left] - self.mean[right], self.theta, 1.0)[0]
        meant = np.where(outcome == 0, shares[0], shares[1])
        contrary = np.where(outcome == 0, shares[1], shares[0])
        kept = own * meant / np.maximum(own * meant + (1 - own) * contrary, 1e-300)
        kept = np.where(outcome == 2, 1.0, kept)
        self._fit_levels(left, right, outcome, kept)
        untied = (outcome != 2).astype(float)
        good = np.bincount(annotator, kept * untied, names)
        all_ = np.bincount(annotator, untied, names)
        reliability = (good + PRIOR_GOOD - 1) / (all_ + PRIOR_GOOD + PRIOR_BAD - 2)
        self.reliability = dict(zip(annotators, reliability.tolist(), strict=True))

    def _fit_levels(self, left: Ints, right: Ints, outcome: Ints, kept: Floats) -> None:
        """Newton's method on the levels and theta, votes turned round by 1 - kept."""
        size = self.n_items
        counts = np.stack([
            np.where(outcome == 0, kept, np.where(outcome == 1, 1 - kept, 0)),
            np.where(outcome == 1, kept, np.where(outcome == 0, 1 - kept, 0)),
            (outcome == 2).astype(float),
        ])  # fmt: skip
        prior_theta = self.config.prior_std**-2
        mean, theta = self.mean, self.theta
        for _ in range(NEWTON_STEPS):
            shares, _ = see(mean[left] - mean[right], theta, 1.0)
            surplus = counts - shares
            pull = (surplus[0] - surplus[1]) / 2
            slope = np.bincount(left, pull, size) - np.bincount(right, pull, size)
            slope -= self._precision @ mean
            weight = (shares[0] + shares[1]) / 4 - ((shares[0] - shares[1]) / 2) ** 2
            hessian = self._precision.copy()
            np.add.at(hessian, (left, right), -weight)
            np.add.at(hessian, (right, left), -weight)
            hessian[np.diag_indices(size)] += np.bincount(left, weight, size)
            hessian[np.diag_indices(size)] += np.bincount(right, weight, size)
            factor = cho_factor(hessian)
            step = cho_solve(factor, slope)
            # A long step overshoots where answers are lopsided.
            mean = mean + step * min(1.0, 4.0 / max(np.abs(step).max(), 1e-9))
            tie_slope = surplus[2].sum() - prior_theta * (theta - self.config.start_theta)
            theta += np.clip(tie_slope / ((shares[2] * (1 - shares[2])).sum() + prior_theta), -1, 1)
            if np.abs(step).max() < 1e-3:
                break
        self.mean, self.theta = mean, float(theta)
        self.covariance = cho_solve(factor, np.eye(size))

    def information(self, first: Ints, second: Ints, trust: float) -> Floats:
        """Return how much the answer to each pair is expected to tell, in nats (n_pairs,).

        It is the mutual information of the answer and the pair's difference (Houlsby et al. 2011,
        arXiv:1112.5745), by Gauss-Hermite quadrature.
        """
        mean, variance = self.moments(first, second)
        at_nodes = mean[:, None] + np.sqrt(variance)[:, None] * NODES
        shares, _ = see(at_nodes, self.theta, trust)
        expected = shares @ WEIGHTS
        told = -(expected * np.log(expected)).sum(axis=0)
        noise = -(shares * np.log(shares)).sum(axis=0) @ WEIGHTS
        return np.asarray(told - noise)

    def guess_information(self, first: Ints, second: Ints) -> Floats:
        """Return a cheap stand-in for `information` that ranks pairs nearly alike (n_pairs,)."""
        mean, variance = self.moments(first, second)
        half = np.abs(mean) / np.sqrt(1 + variance / 6) / 2
        decay = np.exp(-half)
        odds = 1 + decay**2 + np.exp(self.theta) * decay
        return np.asarray(np.log1p(variance * (decay / odds) ** 2))

    def moments(self, first: Ints, second: Ints) -> tuple[Floats, Floats]:
        """Return mean and variance of the difference of each pair (n_pairs,)."""
        own = np.diag(self.covariance)
        variance = own[first] + own[second] - 2 * self.covariance[first, second]
        return self.mean[first] - self.mean[second], np.maximum(variance, 0)


def see(difference: Floats, theta: float, trust: float) -> tuple[Floats, Floats]:
    """Return the probability of left, right and tie, and its derivative (3, ...)."""
    half = np.clip(difference / 2, -300, 300)
    top = np.maximum(np.abs(half), theta)
    odds = np.stack([np.exp(half - top), np.exp(-half - top), np.exp(theta - top)])
    plain = odds / odds.sum(axis=0)
    lean = (plain[0] - plain[1]) / 2
    slopes = np.stack([plain[0] * (0.5 - lean), -plain[1] * (0.5 + lean), -plain[2] * lean])
    mixed = np.stack([
        trust * plain[0] + (1 - trust) * plain[1], trust * plain[1] + (1 - trust) * plain[0],
        plain[2],
    ])  # fmt: skip
    seen = np.stack([
        trust * slopes[0] + (1 - trust) * slopes[1], trust * slopes[1] + (1 - trust) * slopes[0],
        slopes[2],
    ])  # fmt: skip
    return np.maximum(mixed, 1e-300), seen
