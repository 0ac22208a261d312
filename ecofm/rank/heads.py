"""The ranking head: an ensemble of linear heads fitted to comparisons of member tiles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from ecofm.rank.items import Indices, ItemPairs, sample_tile_pairs
from ecofm.rank.losses import Floats, davidson_loss


@dataclass(kw_only=True, slots=True)
class RankConfig:
    """How comparisons become a ranker."""

    seed: int = 0
    """Seed of member pairs, folds and resampling."""
    n_heads: int = 10
    """Heads of the ensemble, each fitted to resampled annotators and members."""
    components: int = 128
    """Principal components of the embeddings that the heads see."""
    tile_pairs: int = 64
    """Member pairs drawn for each pair of items."""
    decays: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    """Ridge penalties that held-out items choose from."""
    folds: int = 5
    """Folds of items for that choice."""

    def __post_init__(self) -> None:
        """Raise ValueError for values that cannot be used."""
        if self.n_heads < 2 or self.components < 1 or self.tile_pairs < 1 or not self.decays:
            raise ValueError("n_heads >= 2, components, tile_pairs >= 1 and a decay are needed.")


@dataclass(frozen=True, slots=True)
class LinearHeads:
    """An ensemble of affine maps from embedding to score."""

    weights: Floats
    """Shape (head, dim)."""
    bias: Floats
    """Shape (head,)."""
    decay: float
    """The ridge penalty that held-out items chose."""
    held_out_loss: float
    """Mean negative log likelihood of comparisons with a held-out item, in nats."""

    def predict(self, embeddings: Floats) -> Floats:
        """Return the heads' scores, shape (head, tile), for embeddings (tile, dim)."""
        return self.weights @ embeddings.T.astype(np.float64) + self.bias[:, None]


@dataclass(frozen=True, slots=True)
class Basis:
    """Standardised principal components: (x - mean) @ projection."""

    mean: Floats
    projection: Floats

    def __call__(self, embeddings: Floats) -> Floats:
        """Project embeddings (tile, dim) to (tile, component)."""
        return (embeddings - self.mean) @ self.projection


def build_basis(embeddings: Floats, components: int) -> Basis:
    """Standardise every dimension, then keep the principal components with the most variance.

    They are scaled together so that the mean squared length of a projected embedding is 1.
    """
    mean, spread = embeddings.mean(axis=0), embeddings.std(axis=0)
    scale = 1 / np.where(spread > 1e-6, spread, np.inf)
    standard = (embeddings - mean) * scale
    covariance = standard.T @ standard / len(standard)
    values, vectors = np.linalg.eigh(covariance)
    kept = np.argsort(values)[::-1][:components]
    length = max(float(values[kept].sum()), 1e-12) ** 0.5
    return Basis(mean, scale[:, None] * vectors[:, kept] / length)


def fit_head(
    features: Floats, left: Indices, right: Indices, counts: Floats, decay: float
) -> tuple[Floats, float]:
    """Return the weights (component,) and log_tie of one head, by L-BFGS on a convex loss.

    `counts` weighs left, right and tie of each tile pair, shape (pair, 3).
    """
    n, n_components = features.shape

    def loss(parameters: Floats) -> tuple[float, Floats]:
        weights, log_tie = parameters[:-1], parameters[-1]
        scores = features @ weights
        value, slope, tie_slope = davidson_loss(scores[left] - scores[right], counts, log_tie)
        by_tile = np.bincount(left, slope, n) - np.bincount(right, slope, n)
        # A weak pull on log_tie keeps it finite when nobody ever said tie.
        value += decay * float(weights @ weights) / 2 + 1e-3 * float(log_tie**2)
        gradient = np.append(by_tile @ features + decay * weights, tie_slope + 2e-3 * log_tie)
        return value, gradient

    found = minimize(
        loss, np.zeros(n_components + 1), jac=True, method="L-BFGS-B", options={"maxiter": 300}
    )
    return found.x[:-1], float(found.x[-1])


def fit_heads(
    embeddings: Floats, basis: Basis, pairs: ItemPairs, config: RankConfig
) -> LinearHeads:
    """Fit the ensemble; the penalty is chosen by comparisons with items that were held out.

    Scores are anchored: over items, the mean of the members' mean score is 0 and its deviation 1.
    """
    random = np.random.default_rng(config.seed)
    used, inverse = np.unique(np.concatenate(pairs.members), return_inverse=True)
    compact = ItemPairs(
        pairs.items,
        np.split(inverse, np.cumsum([len(m) for m in pairs.members])[:-1]),
        pairs.left,
        pairs.right,
        pairs.counts,
    )
    features = basis(embeddings[used].astype(np.float64))
    decay, held_out_loss = choose_decay(features, compact, config, random)
    heads = []
    for _ in range(config.n_heads):
        counts = _resample_annotators(pairs.counts, random)
        heads.append(_fit_pairs(features, compact, counts, decay, config, random)[0])
    weights, bias = _anchor(features, compact, np.array(heads))
    full = weights @ basis.projection.T
    return LinearHeads(full, bias - full @ basis.mean, decay, held_out_loss)


def choose_decay(
    features: Floats, pairs: ItemPairs, config: RankConfig, random: np.random.Generator
) -> tuple[float, float]:
    """Return the penalty under which held-out items are judged best, and the loss there."""
    n_items = len(pairs.items)
    folds = min(config.folds, n_items)
    if n_items < 4:
        return max(config.decays), float("nan")
    fold_of_item = random.permutation(n_items) % folds
    counts = pairs.counts.sum(axis=0)
    total = np.zeros(len(config.decays))
    for fold in range(folds):
        held = (fold_of_item[pairs.left] == fold) | (fold_of_item[pairs.right] == fold)
        if held.all() or not held.any():
            continue
        number, left, right = sample_tile_pairs(pairs, config.tile_pairs, random)
        weight = counts / np.bincount(number, minlength=len(counts))[:, None]
        trained, judged = ~held[number], held[number]
        for place, decay in enumerate(config.decays):
            weights, log_tie = fit_head(
                features, left[trained], right[trained], weight[number[trained]], decay
            )
            scores = features @ weights
            difference = scores[left[judged]] - scores[right[judged]]
            judged_counts = weight[number[judged]]
            loss, _, _ = davidson_loss(difference, judged_counts, log_tie)
            total[place] += loss * judged_counts.sum()
    if not total.any():
        return max(config.decays), float("nan")
    judged_twice = (
        counts.sum() + counts[fold_of_item[pairs.left] != fold_of_item[pairs.right]].sum()
    )
    best = int(total.argmin())
    return config.decays[best], float(total[best] / judged_twice)


def _fit_pairs(
    features: Floats,
    pairs: ItemPairs,
    counts: Floats,
    decay: float,
    config: RankConfig,
    random: np.random.Generator,
) -> tuple[Floats, float]:
    number, left, right = sample_tile_pairs(pairs, config.tile_pairs, random)
    weight = counts / np.bincount(number, minlength=len(counts))[:, None]
    return fit_head(features, left, right, weight[number], decay)


def _resample_annotators(counts: Floats, random: np.random.Generator) -> Floats:
    """Return (pair, 3) counts of annotators drawn with replacement.

    One annotator alone cannot be resampled; then each pair's comparisons are.
    """
    n_annotators = len(counts)
    if n_annotators > 1:
        return counts[random.integers(0, n_annotators, n_annotators)].sum(axis=0)
    return random.poisson(counts[0]).astype(np.float64) + 1e-9


def _anchor(features: Floats, pairs: ItemPairs, heads: Floats) -> tuple[Floats, Floats]:
    """Scale each head so that the items' mean is 0 and their deviation 1."""
    centres = np.array([features[m].mean(axis=0) for m in pairs.members])
    scores = heads @ centres.T
    spread = scores.std(axis=1)
    scaled = heads / np.where(spread > 1e-12, spread, 1.0)[:, None]
    return scaled, -(scaled @ centres.T).mean(axis=1)
