"""How reliable each annotator is: Bradley-Terry with ties seen through noisy annotators.

After crowd-BT (Chen et al. 2013, "Pairwise ranking aggregation in a crowdsourced setting", WSDM):
an annotator of reliability eta names the better item as Davidson's model has it with probability
eta, and the opposite otherwise; ties are as the model has them.

Unlike there, an annotator is never judged by strengths that their own answers made: those agree
with them whatever they said, and three people who guess would all be found reliable. Annotators
are dealt into folds, and each is judged by what the other folds say, who are weighed without the
judged one as well. Nor is an annotator taken to be upside down unless most of the others are not:
between two who contradict each other, noise alone would choose.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy.sparse import coo_array, csr_array, diags_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import cg
from scipy.special import expit, softmax

from ecofm.compare.chance import CHANCE, CONTRARY, UNKNOWN, Share, judge_share, measure_share
from ecofm.compare.davidson import (
    NEVER_TIES,
    Floats,
    Ints,
    Posterior,
    VoiceCounts,
    assemble,
    invert,
    maximise,
    sum_by,
)

N_FOLDS = 10
"""Up to so many annotators, each is judged by all the others."""
N_NESTED = 2
"""Whoever judges is judged without the judged, by others who count alike."""
MAX_STEPS = 100
"""Of Fisher's scoring; it takes about ten."""
GRID = np.linspace(CHANCE, 1.0, 26)
"""Reliabilities over which the posterior is summed."""
NOBODY_KNOWS = 0.55
"""The reliability of all where they contradict each other: scores with very wide intervals."""
UNDECIDED = 1e-6
"""A lead of the others, in log odds, that is rounding alone."""
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

    def measure_agreement(self) -> list[tuple[int, Share]]:
        """Return for each annotator how many answers the others have a consensus on, and the share.

        Of answers that name one of the two; the share is of those that agree with the consensus.
        """
        voices, lead = self.voices, self.lead_of_others()
        decided = np.flatnonzero(np.abs(np.nan_to_num(lead)) > UNDECIDED)
        decided = decided[np.argsort(voices.annotator[decided], kind="stable")]
        # One entry an answer: those for the pair's first item, then those for its second.
        sides = voices.counts[decided, :2].astype(np.int64).ravel()
        voice = np.repeat(np.repeat(decided, 2), sides)
        is_first = np.repeat(np.tile([True, False], len(decided)), sides)
        agrees = is_first == (lead[voice] > 0)
        pair = voices.pair[voice]
        first, second = voices.pairs.first[pair], voices.pairs.second[pair]
        ends = np.searchsorted(voices.annotator[voice], np.arange(len(voices.annotators) + 1))
        return [
            (
                int(end - start),
                measure_share(agrees[start:end], first[start:end], second[start:end]),
            )
            for start, end in pairwise(ends)
        ]

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

    def _free(self) -> Floats:
        """Return the parameters that the prior holds: theta only where there are ties."""
        free = self.point.copy()
        free[-1] *= free[-1] != NEVER_TIES
        return free

    def value(self) -> float:
        """Return the log posterior but for a constant."""
        counts, free = self.voices.counts, self._free()
        fit = (counts * np.log(np.maximum(self.shares(), 1e-300))).sum()
        return float(fit - self.precision / 2 * free @ free)

    def gradient(self) -> Floats:
        """Return the derivative of `value` (n_items + 1,)."""
        voices, size = self.voices, len(self.point) - 1
        by_voice = (voices.counts[:, :, None] * self.slopes()).sum(axis=1)
        pull, tied = sum_by(voices.pair, by_voice, len(voices.pairs.first)).T
        by_item = np.bincount(voices.pairs.first, pull, size)
        by_item -= np.bincount(voices.pairs.second, pull, size)
        ties = tied.sum() if self.point[-1] != NEVER_TIES else 0.0
        return np.append(by_item, ties) - self.precision * self._free()


def fit_crowd(voices: VoiceCounts, prior_std: float, *, weigh: bool = True) -> Crowd:
    """Return strengths and reliabilities, each annotator judged by the others.

    With `weigh` false, or a single annotator, everyone has reliability 1: one annotator's noise
    cannot be told from items that are close.
    """
    start = maximise(Posterior(voices.pairs, prior_std))
    crowd = _hear_others(voices, prior_std, N_NESTED if weigh else 1, start)
    if not weigh or not len(crowd.others):
        return crowd
    reliability = _judge(crowd)
    if (reliability == CHANCE).all():  # they contradict each other, and nobody can be believed more
        reliability = np.full(len(reliability), NOBODY_KNOWS)
    return _fit_strengths(replace(crowd, reliability=reliability))


def _hear_others(voices: VoiceCounts, prior_std: float, n_nested: int, start: Floats) -> Crowd:
    """Return the crowd with all alike, and what the others of each fold say.

    The others of a fold are weighed by what they say of each other, never by the fold's answers,
    and so on `n_nested` times; the innermost count alike.
    """
    posterior = Posterior(voices.pairs, prior_std)
    point = maximise(posterior, posterior.start_from(start))
    n_annotators = len(voices.annotators)
    alike = Crowd(
        voices, point, np.ones(n_annotators), posterior.precision, np.empty((0, len(point)))
    )
    if n_annotators == 1 or not n_nested:
        return alike
    others = []
    for fold in range(min(N_FOLDS, n_annotators)):
        crowd = _hear_others(_leave_out(voices, fold), prior_std, n_nested - 1, point)
        if len(crowd.others):
            crowd = _fit_strengths(replace(crowd, reliability=_judge(crowd)))
        others.append(crowd.point)
    return replace(alike, others=np.stack(others))


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


def _fit_strengths(crowd: Crowd) -> Crowd:
    """Return the crowd with the strengths that fit its reliabilities.

    By Fisher's scoring with step halving, from the strengths of all alike.
    """
    value = crowd.value()
    for _ in range(MAX_STEPS):
        gradient, information = crowd.gradient(), crowd.information()
        step, _ = cg(information, gradient, rtol=1e-8, M=diags_array(1 / information.diagonal()))
        gain = float(gradient @ step)
        if gain < 1e-14 * (1 + abs(value)):
            break
        size = 1.0
        while (moved := replace(crowd, point=crowd.point + size * step)).value() < (
            value + size * gain / 4
        ):
            size /= 2
            if size < 1e-6:  # rounding hides any further gain
                return crowd
        crowd, value = moved, moved.value()
    return crowd


def _judge(crowd: Crowd) -> Floats:
    """Return the reliabilities that follow from what the others say (n_annotators,).

    The mean of the posterior, all reliabilities from chance to 1 being as likely before, and
    answers that hang together counting as the fewer that they are worth: what is not shown draws
    it towards chance. Who is worse than chance has one below it where most are not, so that their
    answers are turned round; else nobody can tell who is upside down, and theirs is chance itself.
    It is 1 where nobody else says anything about the same items.
    """
    found = crowd.measure_agreement()
    verdicts = np.array([judge_share(share) for _, share in found])
    contrary, known = verdicts == CONTRARY, verdicts != UNKNOWN
    group = _group_annotators(crowd.voices)
    is_minority = (2 * np.bincount(group, contrary) < np.bincount(group))[group]
    deflate = np.array([share.n_own / max(n, 1) for n, share in found])
    left = expit(np.nan_to_num(crowd.lead_of_others()))
    left = np.where(contrary[crowd.voices.annotator], 1 - left, left)
    fit = np.zeros((len(found), len(GRID)))
    for column, own in enumerate(GRID):
        odds = np.log(np.maximum(own * left + (1 - own) * (1 - left), 1e-300))
        other = np.log(np.maximum(own * (1 - left) + (1 - own) * left, 1e-300))
        by_voice = crowd.voices.counts[:, 0] * odds + crowd.voices.counts[:, 1] * other
        fit[:, column] = deflate * np.bincount(crowd.voices.annotator, by_voice, len(found))
    mean = softmax(fit, axis=1) @ GRID
    return np.where(known, np.where(contrary, np.where(is_minority, 1 - mean, CHANCE), mean), 1.0)


def _group_annotators(voices: VoiceCounts) -> Ints:
    """Return a number for each annotator, equal where they are linked by items (n_annotators,)."""
    n_annotators = len(voices.annotators)
    size = n_annotators + len(voices.pairs.names)
    item = np.concatenate([voices.pairs.first[voices.pair], voices.pairs.second[voices.pair]])
    edges = (np.ones(len(item)), (np.tile(voices.annotator, 2), n_annotators + item))
    group = connected_components(coo_array(edges, shape=(size, size)), directed=False)[1]
    return np.asarray(group[:n_annotators], dtype=np.int64)
