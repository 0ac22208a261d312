"""The ranking head: an ensemble of linear heads fitted to comparisons.

An item's level is the mean score of its members, since people judge a sheet of exemplars as one.
Comparing random members instead would ask the head to explain answers that nobody gave.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh
from scipy.optimize import minimize

from ecofm.rank.items import Indices, ItemPairs, mean_members
from ecofm.rank.losses import Floats, davidson_loss

Reals = Floats | npt.NDArray[np.float32]


@dataclass(kw_only=True, slots=True)
class RankConfig:
    """How comparisons become a ranker."""

    seed: int = 0
    """Seed of folds and resampling."""
    n_heads: int = 10
    """Heads of the ensemble, each fitted to resampled annotators and members."""
    components: int = 64
    """Directions of the embeddings that the heads see."""
    invariance: float = 0.8
    """How much of what varies between periods of one cell is taken for noise; 0 to 1."""
    decays: list[float] = field(default_factory=lambda: [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1])
    """Ridge penalties that held-out items choose from."""
    folds: int = 5
    """Folds of items for that choice."""

    def __post_init__(self) -> None:
        """Raise ValueError for values that cannot be used."""
        if self.n_heads < 2 or self.components < 1 or not self.decays:
            raise ValueError("n_heads >= 2, components >= 1 and a decay are needed.")
        if not 0 <= self.invariance <= 1:
            raise ValueError(f"invariance {self.invariance}: expected 0 to 1.")


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

    def predict(self, embeddings: Reals) -> Floats:
        """Return the heads' scores, shape (head, tile), for embeddings (tile, dim)."""
        return self.weights @ embeddings.T.astype(np.float64) + self.bias[:, None]


@dataclass(frozen=True, slots=True)
class Basis:
    """Standardised principal components: (x - mean) @ projection."""

    mean: Floats
    projection: Floats

    def __call__(self, embeddings: Reals) -> Floats:
        """Project embeddings (tile, dim) to (tile, component)."""
        return (embeddings - self.mean) @ self.projection


def build_basis(
    embeddings: Reals, components: int, cells: Indices | None = None, invariance: float = 0.0
) -> Basis:
    """Return the directions in which places differ most, measured against what does not matter.

    Every dimension is standardised. What changes between periods of one cell is mostly season,
    haze and sensor: with `cells` (the cell's number of each row) the directions are those with
    the largest ratio of total to within-cell variance (Hatch & Stolcke 2006, within-class
    covariance normalisation), the within-cell covariance shrunk to the identity by
    1 - `invariance`. Without repeated cells they are the principal components. They are scaled
    together so that the mean squared length of a projected embedding is 1.
    """
    mean, spread = embeddings.mean(axis=0), embeddings.std(axis=0)
    scale = 1 / np.where(spread > 1e-6, spread, np.inf)
    standard = (embeddings - mean) * scale
    total = standard.T @ standard / len(standard)
    noise = np.eye(len(total))
    within = None if cells is None or invariance == 0 else _within_cells(standard, cells)
    if within is not None and np.trace(within) > 1e-9:
        level = np.trace(within) / len(within)
        noise = invariance * within + (1 - invariance) * level * noise
        # Dimensions without spread would make the pencil singular for invariance 1.
        noise += 1e-6 * level * np.eye(len(noise))
    n_kept = min(components, len(total))
    window = [len(total) - n_kept, len(total) - 1]
    values, vectors = eigh(total, noise, subset_by_index=window)
    length = max(float(values.clip(min=0).sum()), 1e-12) ** 0.5
    return Basis(mean, scale[:, None] * vectors[:, ::-1] / length)


def _within_cells(standard: Floats, cells: Indices) -> Floats | None:
    """Return the covariance around the cells' means, None when no cell is repeated."""
    _, cell, counts = np.unique(cells, return_inverse=True, return_counts=True)
    repeated = counts[cell] > 1
    if not repeated.any():
        return None
    sums = np.zeros((len(counts), standard.shape[1]))
    np.add.at(sums, cell, standard)
    residual = (standard - sums[cell] / counts[cell, None])[repeated]
    freedom = len(residual) - int((counts > 1).sum())
    return residual.T @ residual / freedom


def fit_head(
    features: Floats, left: Indices, right: Indices, counts: Floats, decay: float
) -> tuple[Floats, float]:
    """Return the weights (component,) and log_tie of one head, by L-BFGS on a convex loss.

    `features` (item, component); `counts` weighs left, right and tie of each pair, (pair, 3).
    """
    n, n_components = features.shape

    def loss(parameters: Floats) -> tuple[float, Floats]:
        weights, log_tie = parameters[:-1], parameters[-1]
        scores = features @ weights
        value, slope, tie_slope = davidson_loss(scores[left] - scores[right], counts, log_tie)
        by_item = np.bincount(left, slope, n) - np.bincount(right, slope, n)
        # A weak pull on log_tie keeps it finite when nobody ever said tie.
        value += decay * float(weights @ weights) / 2 + 1e-3 * float(log_tie**2)
        gradient = np.append(by_item @ features + decay * weights, tie_slope + 2e-3 * log_tie)
        return value, gradient

    found = minimize(
        loss, np.zeros(n_components + 1), jac=True, method="L-BFGS-B", options={"maxiter": 300}
    )
    return found.x[:-1], float(found.x[-1])


def fit_heads(embeddings: Reals, basis: Basis, pairs: ItemPairs, config: RankConfig) -> LinearHeads:
    """Fit the ensemble; the penalty is chosen by comparisons with items that were held out.

    Scores are anchored: over items, the mean of the members' mean score is 0 and its deviation 1.
    """
    random = np.random.default_rng(config.seed)
    used, inverse = np.unique(np.concatenate(pairs.members), return_inverse=True)
    ends = np.cumsum([len(members) for members in pairs.members])
    compact = replace(pairs, members=np.split(inverse, ends[:-1]))
    features = basis(embeddings[used].astype(np.float64))
    items = mean_members(features, compact)
    decay, held_out_loss = choose_decay(items, pairs, config, random)
    heads = []
    for _ in range(config.n_heads):
        drawn = mean_members(features, compact, random)
        counts = _resample_annotators(pairs.counts, random)
        heads.append(fit_head(drawn, pairs.left, pairs.right, counts, decay)[0])
    weights, bias = _anchor(items, np.array(heads))
    full = weights @ basis.projection.T
    return LinearHeads(full, bias - full @ basis.mean, decay, held_out_loss)


def choose_decay(
    items: Floats, pairs: ItemPairs, config: RankConfig, random: np.random.Generator
) -> tuple[float, float]:
    """Return the penalty to use and the loss of comparisons with held-out items there.

    `items` (item, component) are the items' mean features. The penalty is the largest within one
    standard error of the best (Breiman et al. 1984): neighbouring places resemble each other, so
    held-out items flatter flexible heads.
    """
    n_items = len(pairs.items)
    decays = sorted(config.decays)
    if n_items < 4:
        return decays[-1], float("nan")
    fold_of_item = random.permutation(n_items) % min(config.folds, n_items)
    losses = []
    for fold in range(int(fold_of_item.max()) + 1):
        held = (fold_of_item[pairs.left] == fold) | (fold_of_item[pairs.right] == fold)
        if held.any() and not held.all():
            losses.append(_judge_fold(items, pairs, held, decays))
    if not losses:
        return decays[-1], float("nan")
    mean = np.mean(losses, axis=0)
    best = int(mean.argmin())
    error = np.std(losses, axis=0, ddof=1)[best] / len(losses) ** 0.5 if len(losses) > 1 else 0.0
    chosen = int(np.flatnonzero(mean <= mean[best] + error).max())
    return decays[chosen], float(mean[chosen])


def _judge_fold(
    items: Floats, pairs: ItemPairs, held: npt.NDArray[np.bool_], decays: list[float]
) -> list[float]:
    """Return the loss of the held pairs for each penalty, the head fitted to the others."""
    counts = pairs.counts.sum(axis=0)
    left, right = pairs.left, pairs.right
    losses = []
    for decay in decays:
        weights, log_tie = fit_head(items, left[~held], right[~held], counts[~held], decay)
        scores = items @ weights
        difference = scores[left[held]] - scores[right[held]]
        losses.append(davidson_loss(difference, counts[held], log_tie)[0])
    return losses


def _resample_annotators(counts: Floats, random: np.random.Generator) -> Floats:
    """Return (pair, 3) counts of annotators drawn with replacement.

    One annotator alone cannot be resampled; then each pair's comparisons are.
    """
    n_annotators = len(counts)
    if n_annotators > 1:
        drawn: Floats = counts[random.integers(0, n_annotators, n_annotators)].sum(axis=0)
        return drawn
    return np.asarray(random.poisson(counts[0]) + 1e-9, dtype=np.float64)


def _anchor(items: Floats, heads: Floats) -> tuple[Floats, Floats]:
    """Scale each head so that the items' mean is 0 and their deviation 1."""
    scores = heads @ items.T
    spread = scores.std(axis=1)
    scaled = heads / np.where(spread > 1e-12, spread, 1.0)[:, None]
    return scaled, -(scaled @ items.T).mean(axis=1)
