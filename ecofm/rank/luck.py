"""Have answers anything to do with what embeddings show, or would luck fit them as well.

The places' embeddings are exchanged at random; where they fit the answers as well then, nobody said
anything that can be learned. The answers stay as they are, so that it does not matter how they hang
together: a random ordering of 22 clusters is 231 consistent comparisons and no evidence. And the
answers are turned round at random, which is right whichever pairs were asked about.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csr_array

from ecofm.rank.items import Indices, ItemPairs
from ecofm.rank.losses import Floats
from ecofm.rank.unseen import Mask

N_DRAWS, N_IF_MANY, MANY_ITEMS = 199, 39, 10_000
"""Of many items a few draws tell as well, and each takes its time."""
PENALTY = 3.0
"""Of the test, in mean eigenvalues: of .3 to 30 the best for 20 or 30 pairs of tiles, and within
two hundredths of the best for an ordering of 8 clusters."""


def measure_luck(features: Floats, pairs: ItemPairs, random: np.random.Generator) -> float:
    """Return the p value of comparisons: how often luck fits them as well as these features.

    It is the larger of two. Exchanged features are right however the answers hang together, but
    not where similar places were asked about; answers turned round at random are right whichever
    pairs were asked, but not for orderings.
    """
    items = np.union1d(pairs.left, pairs.right)
    left, right = np.searchsorted(items, pairs.left), np.searchsorted(items, pairs.right)
    counts, n = pairs.summed, len(items)
    shown = features[items] - features[items].mean(axis=0)
    if _is_constant(shown):
        return 1.0

    def lead(net: Floats) -> Floats:
        found = np.bincount(left, net, n) - np.bincount(right, net, n)
        return found.astype(np.float64)[:, None]

    decided = counts[:, 0] + counts[:, 1]
    rows, columns = np.r_[left, right], np.r_[right, left]
    met = coo_array((np.r_[decided, decided], (rows, columns)), shape=(n, n))
    own = coo_array((met.sum(axis=1), (np.arange(n), np.arange(n))), shape=(n, n))
    graph, said = csr_array(own - met), lead(counts[:, 0] - counts[:, 1])
    several = np.array([len(pairs.members[item]) > 1 for item in items])
    places = np.unique(pairs.places[items], return_inverse=True)[1]
    exchanged = exchange_places(shown, said, graph, places, several, random)
    # What one annotator said of a pair, also more than once, is turned round as a whole.
    own_net = pairs.weight[:, None] * (pairs.counts[..., 0] - pairs.counts[..., 1])
    annotator, pair = np.nonzero(own_net)
    voices, measure = own_net[annotator, pair], _Measure.build(shown, graph)
    reached, n_as_good, n_draws = measure(shown.T @ said) * (1 - 1e-9), 1, _count_draws(n)
    for _ in range(n_draws):
        turned = voices * random.choice([-1.0, 1.0], len(voices))
        drawn = lead(np.bincount(pair, turned, len(pairs.left)).astype(np.float64))
        n_as_good += measure(shown.T @ drawn) >= reached
    return max(exchanged, n_as_good / (n_draws + 1))


@dataclass(frozen=True, slots=True)
class _Measure:
    """The statistic of a score test under a ridge penalty: u' (F' G F + penalty)^-1 u."""

    inverse: Floats

    @classmethod
    def build(cls, features: Floats, graph: csr_array) -> _Measure:
        met = features.T @ (graph @ features)
        pull = PENALTY * float(np.trace(met)) / len(met)
        return cls(np.linalg.inv(met + pull * np.eye(len(met))))

    def __call__(self, found: Floats) -> float:
        """Return it for u = F' said, (feature, column)."""
        return float((found * (self.inverse @ found)).sum())


def _count_draws(n_items: int) -> int:
    return N_DRAWS if n_items < MANY_ITEMS else N_IF_MANY


def _is_constant(features: Floats) -> bool:
    """Return whether centred features tell no item from another."""
    return not len(features) or float(np.abs(features).max()) < 1e-9


def exchange_places(
    features: Floats,
    said: Floats,
    graph: csr_array,
    places: Indices,
    several: Mask,
    random: np.random.Generator,
) -> float:
    """Return the p value of a permutation test of what was `said` of items, (item, column).

    The statistic is `_Measure`, of features F and a `graph` G: who was compared with whom.
    Features are exchanged between places as wholes, where both have as many items, of one or of
    `several` tiles.
    """
    groups = _group_places(places, several)
    features = features - features.mean(axis=0)
    if _is_constant(features):
        return 1.0

    def fit(of_items: Floats) -> float:
        return _Measure.build(of_items, graph)(of_items.T @ said)

    reached, n_as_good, n_draws = fit(features) * (1 - 1e-9), 1, _count_draws(len(features))
    for _ in range(n_draws):
        drawn = np.arange(len(features))
        for rows in groups:
            drawn[rows] = rows[random.permutation(len(rows))]
        n_as_good += fit(features[drawn]) >= reached
    return n_as_good / (n_draws + 1)


def _group_places(places: Indices, several: Mask) -> list[Indices]:
    """Return the items of places that may change places with each other, (place, item) each."""
    order = np.lexsort((several, places))
    ends = np.cumsum(np.bincount(places))
    groups: dict[tuple[bool, ...], list[Indices]] = {}
    for items in np.split(order, ends[:-1]):
        groups.setdefault(tuple(several[items].tolist()), []).append(items)
    return [np.array(items) for items in groups.values()]
