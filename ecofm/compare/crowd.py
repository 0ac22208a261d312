"""How reliable each annotator is: Bradley-Terry with ties seen through noisy annotators.

After crowd-BT (Chen et al. 2013, "Pairwise ranking aggregation in a crowdsourced setting", WSDM):
an annotator of reliability eta names the better item as Davidson's model has it with probability
eta, and the opposite otherwise; ties are as the model has them. Strengths and reliabilities are
fitted in turn by expectation and maximisation, so that each step is a plain Davidson fit.

Unlike there, an annotator is never judged by strengths that their own answers made: those agree
with them whatever they said, and three people who guess would all be found reliable. Annotators
are dealt into folds, and each is judged by what the other folds say.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

from ecofm.compare.davidson import (
    Floats,
    Ints,
    Posterior,
    VoiceCounts,
    assemble,
    invert,
    maximise,
    sum_by,
)

PRIOR_GOOD, PRIOR_BAD = 10.0, 1.0
"""The Beta prior of a reliability, as in crowd-BT: most people mean what they say."""
N_FOLDS = 10
"""Up to so many annotators, each is judged by all the others."""
MAX_ROUNDS, MAX_STEPS = 60, 2
"""Of reliabilities and, within one, of Newton's method, which the next round takes further."""
TOLERANCE = 1e-3
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
    """Share of an annotator's answers that are not turned round (n_annotators,).

    1 where nobody else says anything about the same items: see `lead_of_others`.
    """
    precision: float
    """Of the prior on strengths and theta."""
    others: Floats
    """Strengths and theta without the annotators of each fold (n_folds, n_items + 1)."""

    def shares(self) -> Floats:
        """Return the probability of first, second and tie for each voice (n_voices, 3)."""
        left, right, tie = _spread(self.voices, self.point).T
        own = self.reliability[self.voices.annotator]
        return np.stack(
            [own * left + (1 - own) * right, own * right + (1 - own) * left, tie], axis=1
        )

    def refit_others(self) -> Crowd:
        """Return the crowd with `others` whose reliabilities are found without the fold as well.

        Among three people who guess, those who happen to answer like one of them are taken to be
        reliable by that one's answers, and would then confirm them. It takes as many fits as there
        are folds; where folds have several annotators, one of them has too little weight for this.
        """
        if len(self.voices.annotators) > N_FOLDS:
            return self
        fits = [
            fit_crowd(_leave_out(self.voices, number), self.precision**-0.5)
            for number in range(len(self.others))
        ]
        return replace(
            self, others=np.array([fit.point for fit in fits]).reshape(self.others.shape)
        )

    def lead_of_others(self) -> Floats:
        """Return by how much the others put first above second, for each voice (n_voices,).

        In log odds; NaN where the others' answers do not connect the two items.
        """
        voices = self.voices
        fold, size = _fold(voices), len(voices.pairs.names)
        lead = np.full(len(voices.pair), np.nan)
        first, second = voices.pairs.first[voices.pair], voices.pairs.second[voices.pair]
        for number, point in enumerate(self.others):
            own = fold == number
            edges = (np.ones(int((~own).sum())), (first[~own], second[~own]))
            group = connected_components(coo_array(edges, shape=(size, size)), directed=False)[1]
            known = own & (group[first] == group[second])
            lead[known] = point[first[known]] - point[second[known]]
        return lead

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
    """Return strengths and reliabilities fitted in turn, each annotator judged by the others.

    With `weigh` false, or a single annotator, everyone has reliability 1: one annotator's noise
    cannot be told from items that are close.
    """
    n_annotators = len(voices.annotators)
    posterior = Posterior(voices.pairs, prior_std)
    point = maximise(posterior)
    n_folds = min(N_FOLDS, n_annotators) if n_annotators > 1 else 0
    others = np.tile(point, (n_folds, 1))
    crowd = Crowd(voices, point, np.ones(n_annotators), posterior.precision, others)
    if not n_folds:
        return crowd
    if not weigh:
        return _fit_strengths(crowd, prior_std)
    crowd = replace(crowd, reliability=np.full(n_annotators, 0.9))
    for _ in range(MAX_ROUNDS):
        crowd = _fit_strengths(crowd, prior_std, MAX_STEPS)
        reliability = _judge(crowd)
        moved = np.abs(reliability - crowd.reliability).max()
        crowd = replace(crowd, reliability=reliability)
        if moved < TOLERANCE:
            break
    return crowd


def _fold(voices: VoiceCounts) -> Ints:
    """Return the fold of each voice, that of its annotator (n_voices,)."""
    return voices.annotator % N_FOLDS


def _leave_out(voices: VoiceCounts, fold: int) -> VoiceCounts:
    """Return the voices of the annotators outside a fold."""
    told = _fold(voices) != fold
    kept, annotator = np.unique(voices.annotator[told], return_inverse=True)
    pair, counts = voices.pair[told], voices.counts[told]
    pairs = replace(voices.pairs, counts=sum_by(pair, counts, len(voices.pairs.first)))
    names = [voices.annotators[number] for number in kept]
    return VoiceCounts(pairs, names, annotator, pair, counts)


def _spread(voices: VoiceCounts, point: Floats) -> Floats:
    """Return the probability of first, second and tie for each voice, if meant (n_voices, 3)."""
    return np.asarray(np.exp(Posterior(voices.pairs, 1.0).log_shares(point))[voices.pair])


def _turn(crowd: Crowd, left: Floats, right: Floats) -> tuple[Floats, Floats]:
    """Return how many of each voice's answers were meant, and how many turned (n_voices, 2).

    `left` and `right` are the probabilities, or odds, that first and second are to be named.
    """
    own = crowd.reliability[crowd.voices.annotator]
    meant = np.stack([own * left, own * right], axis=1)
    turned = np.stack([(1 - own) * right, (1 - own) * left], axis=1)
    kept = crowd.voices.counts[:, :2] * meant / np.maximum(meant + turned, 1e-300)
    return kept, crowd.voices.counts[:, :2] - kept


def _fit_strengths(crowd: Crowd, prior_std: float, max_steps: int = 100) -> Crowd:
    """Return the crowd with strengths, of all and without each fold, fitted to what was meant."""
    fold = _fold(crowd.voices)

    def fit(point: Floats, told: npt.NDArray[np.bool_]) -> Floats:
        return _maximise_meant(crowd, prior_std, point, told, max_steps)

    everyone = fit(crowd.point, np.ones(len(fold), dtype=bool))
    others = [fit(point, fold != number) for number, point in enumerate(crowd.others)]
    return replace(crowd, point=everyone, others=np.stack(others))


def _maximise_meant(
    crowd: Crowd, prior_std: float, point: Floats, told: npt.NDArray[np.bool_], max_steps: int
) -> Floats:
    """Return a point nearer to the mode for the voices' answers as they were meant."""
    voices = crowd.voices
    kept, turned = _turn(crowd, *_spread(voices, point)[:, :2].T)
    counts = np.column_stack([kept + turned[:, ::-1], voices.counts[:, 2]]) * told[:, None]
    pairs = replace(voices.pairs, counts=sum_by(voices.pair, counts, len(voices.pairs.first)))
    posterior = Posterior(pairs, prior_std)
    return maximise(posterior, posterior.start_from(point), max_steps)


def _judge(crowd: Crowd) -> Floats:
    """Return the reliabilities that follow from what the others say (n_annotators,)."""
    lead = crowd.lead_of_others()
    left = expit(lead)
    told = np.isfinite(lead)[:, None]
    good, bad = (
        np.bincount(
            crowd.voices.annotator,
            np.where(told, part, 0.0).sum(axis=1),
            len(crowd.voices.annotators),
        )
        for part in _turn(crowd, left, 1 - left)
    )
    return np.asarray((good + PRIOR_GOOD - 1) / (good + bad + PRIOR_GOOD + PRIOR_BAD - 2))
