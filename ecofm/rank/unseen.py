"""What a fit says of comparisons that it has not seen: of new places, by new people.

Comparisons hang together. An ordering of 22 clusters is 231 comparisons, each of which follows
from others; the same pair is judged by several people; tiles of one cell resemble each other. So
whole places are held out, in all their periods, and where there are several annotators whole
annotators with them. A comparison of two held-out places tells what the embedding knows. One of a
held-out place with a known one can be won by knowing the known one alone: beside it stands what
the consensus of the other comparisons says, which knows nothing of the held-out place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from ecofm.compare.consensus import ConsensusConfig
from ecofm.compare.davidson import PairCounts, Posterior, maximise
from ecofm.rank.calibration import Z_90, Judged, fit_scale
from ecofm.rank.items import Indices, ItemPairs
from ecofm.rank.losses import Floats

N_FOLDS = 5
N_REPEATS = 2
"""Times that places are dealt into folds anew, so that more pairs fall into one fold."""
N_GROUPS = 2
"""Groups of annotators, of which one is held out at a time."""
MANY = 2000
"""From so many answers on, one dealing tells enough."""
N_DRAWS = 400

Mask = npt.NDArray[np.bool_]
FitLevels = Callable[[ItemPairs], Floats]
"""Fits to comparisons and returns where all items stand, known or not, (item,)."""


@dataclass(frozen=True, slots=True)
class Votes:
    """What one annotator said of one pair that was held out, and what was predicted for it."""

    vote: Indices
    """A number for annotator and pair, shape (vote,)."""
    annotator: Indices
    places: Indices
    """Of the left and of the right, shape (vote, 2)."""
    counts: Floats
    """How often left and right were said, shape (vote, 2); a tie names no winner."""
    gap: Floats
    """Predicted score of the left less that of the right, shape (vote,)."""

    @classmethod
    def join(cls, parts: list[Votes]) -> Votes:
        """Put folds together; what was held out more than once counts as often."""
        names = ("vote", "annotator", "places", "counts", "gap")
        return cls(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in names})

    @property
    def n(self) -> int:
        """How many different answers there are."""
        _, first = np.unique(self.vote, return_index=True)
        return int(self.counts[first].sum())

    def share_won(self, weight: Floats | None = None) -> float:
        """Return how often the higher score won; of equal scores each wins half the time."""
        towards = np.sign(self.gap)
        won = self.counts[:, 0] * (1 + towards) / 2 + self.counts[:, 1] * (1 - towards) / 2
        given = np.ones(len(won)) if weight is None else weight
        return float(given @ won / (given @ self.counts.sum(axis=1)))


@dataclass(frozen=True, slots=True)
class Rate:
    """How often the higher score won, with a 90 % interval over places and annotators."""

    n: int
    won: float
    lower: float
    upper: float
    error: float
    """Standard error."""

    @property
    def p(self) -> float:
        """The p value of the lead over chance, one-sided."""
        return float(norm.sf((self.won - 0.5) / self.error))

    @classmethod
    def measure(cls, votes: Votes, random: np.random.Generator) -> Rate:
        """Weigh places and annotators anew at each draw (Bayesian bootstrap, Rubin 1981).

        A vote has the product of its weights (Owen 2007, *The pigeonhole bootstrap*), so that
        answers about one place, or of one person, are not taken for independent.
        """
        drawn = np.empty(N_DRAWS)
        n_places, n_people = int(votes.places.max()) + 1, int(votes.annotator.max()) + 1
        several = len(np.unique(votes.annotator)) > 1
        for number in range(N_DRAWS):
            weight = random.standard_exponential(n_places)[votes.places].prod(axis=1)
            if several:
                weight = weight * random.standard_exponential(n_people)[votes.annotator]
            drawn[number] = votes.share_won(weight)
        n, won = votes.n, votes.share_won()
        # Answers that all agree have no spread between draws, and are a sample all the same.
        smoothed = (won * n + 1) / (n + 2)
        error = max(float(drawn.std(ddof=1)), (smoothed * (1 - smoothed) / n) ** 0.5)
        half = Z_90 * error
        return cls(n, won, max(won - half, 0.0), min(won + half, 1.0), error)


@dataclass(frozen=True, slots=True)
class Unseen:
    """Held-out comparisons, and how they were foretold."""

    judged: Judged
    """Pairs of two new places, with what everybody said of them."""
    new: Rate
    """Two new places, a new annotator where there are several."""
    known: Rate | None
    """A new place and a known one; None where there was none."""
    consensus: float | None
    """How often the consensus of the other comparisons named the winner of those."""


@dataclass(frozen=True, slots=True)
class _Division:
    """Which items and annotators are held out, and which annotators are learned from."""

    items: Mask
    people: Mask
    others: Mask


def judge_unseen(pairs: ItemPairs, fit: FitLevels, random: np.random.Generator) -> Unseen | None:
    """Fit without some places and people and look at what they said, again and again.

    None when no comparison can be held out with both of its places and something to learn from
    is left.
    """
    judged, new, known, alone = [], [], [], []
    for division in _divide(pairs, random):
        sides = division.items[pairs.left], division.items[pairs.right]
        both, one, rest = sides[0] & sides[1], sides[0] ^ sides[1], ~(sides[0] | sides[1])
        kept = replace(
            pairs, left=pairs.left[rest], right=pairs.right[rest],
            counts=pairs.counts[division.others][:, rest], weight=pairs.weight[division.others],
        )  # fmt: skip
        decided = pairs.counts[division.people][:, both, :2].sum()
        if not decided or not kept.counts[..., :2].any():
            continue
        levels = fit(kept)
        levels = (levels - levels.mean()) / max(float(levels.std()), 1e-12)
        judged.append(_judge(pairs, both, levels, kept))
        new.append(_collect(pairs, both, division.people, levels))
        if pairs.counts[division.people][:, one, :2].any():
            known.append(_collect(pairs, one, division.people, levels))
            alone.append(_collect(pairs, one, division.people, fit_consensus_alone(kept)))
    if not new:
        return None
    loss = float(np.mean([part.loss for part in judged]))
    consensus = Votes.join(alone).share_won() if alone else None
    return Unseen(
        Judged.join(judged, loss),
        Rate.measure(Votes.join(new), random),
        Rate.measure(Votes.join(known), random) if known else None,
        consensus,
    )


def fit_consensus_alone(pairs: ItemPairs) -> Floats:
    """Return the consensus's strength of each item, (item,): 0 of one that was never compared."""
    counts = PairCounts(pairs.items, pairs.left, pairs.right, pairs.summed)
    strength: Floats = maximise(Posterior(counts, ConsensusConfig().prior_std))[:-1]
    compared = np.zeros(len(pairs.items), dtype=bool)
    compared[np.union1d(pairs.left, pairs.right)] = True
    return np.where(compared, strength, 0.0)


def _judge(pairs: ItemPairs, both: Mask, levels: Floats, kept: ItemPairs) -> Judged:
    gap = levels[kept.left] - levels[kept.right]
    scale = fit_scale(gap, kept.counts.sum(axis=0))
    sides = np.column_stack([levels[pairs.left], levels[pairs.right]])[both]
    counts = pairs.counts.sum(axis=0)[both]
    return Judged.score(np.flatnonzero(both), sides, counts, scale)


def _collect(pairs: ItemPairs, mask: Mask, people: Mask, levels: Floats) -> Votes:
    """Return what held-out annotators decided about some of the pairs."""
    counts = np.where((mask[None] & people[:, None])[..., None], pairs.counts[..., :2], 0)
    annotator, pair = np.nonzero(counts.sum(axis=2))
    left, right = pairs.left[pair], pairs.right[pair]
    return Votes(
        annotator * len(pairs.left) + pair,
        annotator,
        pairs.places[np.column_stack([left, right])],
        counts[annotator, pair],
        levels[left] - levels[right],
    )


def _divide(pairs: ItemPairs, random: np.random.Generator) -> Iterator[_Division]:
    """Yield which places and annotators to hold out, each annotator with each fold of places."""
    n_people = len(pairs.counts)
    n_groups = min(N_GROUPS, n_people)
    many = pairs.counts.sum() > MANY
    for _ in range(1 if many else N_REPEATS):
        folds = deal_places(pairs, N_FOLDS, random)
        group = random.permutation(n_people) % n_groups
        for fold in range(int(folds.max()) + 1):
            groups = [fold % n_groups] if many else range(n_groups)
            for number in groups:
                people = group == number
                # One annotator alone cannot be held out.
                yield _Division(folds == fold, people, ~people if n_groups > 1 else people)


def deal_places(pairs: ItemPairs, n_folds: int, random: np.random.Generator) -> Indices:
    """Return the fold of each item, (item,), so that places which were compared share folds.

    A pair can be judged when both of its places are held out, which is rare where few of all
    pairs were compared: so a random matching of compared places is dealt, then the others.
    """
    edges = pairs.places[np.column_stack([pairs.left, pairs.right])]
    edges = edges[edges[:, 0] != edges[:, 1]]
    unit = np.full(int(pairs.places.max()) + 1, -1)
    n_matched = 0
    for left, right in random.permutation(edges).tolist():
        if unit[left] < 0 and unit[right] < 0:
            unit[left] = unit[right] = n_matched
            n_matched += 1
    n_folds = max(1, min(n_folds, n_matched))
    single = np.flatnonzero(unit < 0)
    dealt = np.concatenate(
        [random.permutation(n_matched), n_matched + random.permutation(len(single))]
    )
    unit[single] = n_matched + np.arange(len(single))
    return np.asarray((dealt % n_folds)[unit][pairs.places])
