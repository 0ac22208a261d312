"""How reliable each annotator is: Bradley-Terry with ties seen through noisy annotators.

After crowd-BT (Chen et al. 2013, "Pairwise ranking aggregation in a crowdsourced setting", WSDM):
an annotator of reliability eta names the better item as Davidson's model has it with probability
eta, and the opposite otherwise; ties are as the model has them. Strengths and reliabilities are
fitted together by expectation and maximisation, so that each step is a plain Davidson fit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array

from ecofm.compare.davidson import (
    Floats,
    Posterior,
    VoiceCounts,
    assemble,
    invert,
    maximise,
    sum_by,
)

PRIOR_GOOD, PRIOR_BAD = 10.0, 1.0
"""The Beta prior of a reliability, as in crowd-BT: most people mean what they say."""
MAX_ROUNDS = 60
TOLERANCE = 1e-5
"""Rounds end when no reliability moves by more."""
MIN_ANNOTATORS = 5
"""Fewer annotators do not tell how much annotators differ."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """The joint fit of strengths and reliabilities."""

    voices: VoiceCounts
    """What was fitted."""
    point: Floats
    """Strengths and theta (n_items + 1,)."""
    reliability: Floats
    """Share of an annotator's answers that are not turned round (n_annotators,)."""
    precision: float
    """Of the prior on strengths and theta."""

    def shares(self) -> Floats:
        """Return the probability of first, second and tie for each voice (n_voices, 3)."""
        plain = np.exp(Posterior(self.voices.pairs, 1.0).log_shares(self.point))
        left, right, tie = plain[self.voices.pair].T
        own = self.reliability[self.voices.annotator]
        return np.stack(
            [own * left + (1 - own) * right, own * right + (1 - own) * left, tie], axis=1
        )

    def slopes(self) -> Floats:
        """Return the derivatives of log `shares` in difference and theta (n_voices, 3, 2)."""
        left, right, tie = np.exp(Posterior(self.voices.pairs, 1.0).log_shares(self.point)).T
        lean = (left - right) / 2
        by_difference = np.stack([left * (0.5 - lean), -right * (0.5 + lean), -tie * lean], axis=1)
        by_theta = np.stack([-left * tie, -right * tie, tie * (1 - tie)], axis=1)
        plain = np.stack([by_difference, by_theta], axis=2)[self.voices.pair]
        own = self.reliability[self.voices.annotator][:, None]
        seen = plain.copy()
        seen[:, 0] = own * plain[:, 0] + (1 - own) * plain[:, 1]
        seen[:, 1] = own * plain[:, 1] + (1 - own) * plain[:, 0]
        return seen / np.maximum(self.shares(), 1e-300)[:, :, None]

    def information(self) -> csr_array:
        """Return the expected information (n_items + 1, n_items + 1), prior included."""
        voices, slopes = self.voices, self.slopes()
        weighted = self.shares()[:, :, None] * slopes * voices.counts.sum(axis=1)[:, None, None]
        by_voice = np.stack(
            [
                (weighted[:, :, a] * slopes[:, :, b]).sum(axis=1)
                for a, b in ((0, 0), (0, 1), (1, 1))
            ],
            axis=1,
        )
        spread, mixed, tie_spread = sum_by(voices.pair, by_voice, len(voices.pairs.first)).T
        return assemble(voices.pairs, self.precision, spread, mixed, tie_spread)

    def covariance(self) -> Floats:
        """Return the covariance of strengths and theta, widened by how much annotators differ.

        One annotator's answers hang together: an ordering of 22 items has 231 comparisons and far
        fewer judgements. The widening is the mean ratio of the sandwich variance, clustered by
        annotator (Liang and Zeger 1986), to the model's, and never below 1; it needs five
        annotators, with fewer the variance is the model's.
        """
        inverse = invert(self.information())
        n_annotators = len(self.voices.annotators)
        if n_annotators < MIN_ANNOTATORS:
            return inverse
        pulls = self._pull_by_annotator()
        moved = inverse @ (pulls - pulls.mean(axis=0)).T
        moved = moved[:-1] - moved[:-1].mean(axis=0)
        sandwich = (moved**2).sum() * n_annotators / (n_annotators - 1)
        own = inverse[:-1, :-1]
        model = np.trace(own) - own.sum() / len(own)
        return inverse * max(1.0, float(sandwich / model))

    def _pull_by_annotator(self) -> Floats:
        """Return the gradient of each annotator's log likelihood (n_annotators, n_items + 1)."""
        voices = self.voices
        by_voice = (voices.counts[:, :, None] * self.slopes()).sum(axis=1)
        pulls = np.zeros((len(voices.annotators), len(self.point)))
        first, second = voices.pairs.first[voices.pair], voices.pairs.second[voices.pair]
        np.add.at(pulls, (voices.annotator, first), by_voice[:, 0])
        np.add.at(pulls, (voices.annotator, second), -by_voice[:, 0])
        np.add.at(pulls[:, -1], voices.annotator, by_voice[:, 1])
        return pulls


def fit_crowd(voices: VoiceCounts, prior_std: float, *, weigh: bool = True) -> Crowd:
    """Return strengths and reliabilities fitted together.

    With `weigh` false, or a single annotator, everyone has reliability 1: one annotator's noise
    cannot be told from items that are close.
    """
    n_annotators = len(voices.annotators)
    posterior = Posterior(voices.pairs, prior_std)
    everyone = Crowd(voices, maximise(posterior), np.ones(n_annotators), posterior.precision)
    if not weigh or n_annotators == 1:
        return everyone
    crowd = replace(everyone, reliability=np.full(n_annotators, 0.9))
    for _ in range(MAX_ROUNDS):
        counts, reliability = _expect(crowd)
        pairs = replace(voices.pairs, counts=counts)
        point = maximise(Posterior(pairs, prior_std), crowd.point)
        moved = np.abs(reliability - crowd.reliability).max()
        crowd = replace(crowd, point=point, reliability=reliability)
        if moved < TOLERANCE:
            break
    return crowd


def _expect(crowd: Crowd) -> tuple[Floats, Floats]:
    """Return the counts by pair as they were meant, and the reliabilities that follow."""
    voices = crowd.voices
    plain = np.exp(Posterior(voices.pairs, 1.0).log_shares(crowd.point))[voices.pair]
    own = crowd.reliability[voices.annotator]
    meant = own[:, None] * plain[:, :2] / np.maximum(crowd.shares()[:, :2], 1e-300)
    kept = voices.counts[:, :2] * meant
    turned = voices.counts[:, :2] - kept
    counts = np.column_stack([kept + turned[:, ::-1], voices.counts[:, 2]])
    good, bad = (
        np.bincount(voices.annotator, part.sum(axis=1), len(voices.annotators))
        for part in (kept, turned)
    )
    reliability = (good + PRIOR_GOOD - 1) / (good + bad + PRIOR_GOOD + PRIOR_BAD - 2)
    return sum_by(voices.pair, counts, len(voices.pairs.first)), reliability
