"""Whether the features are healthy: figures that need no labels, and two that use what is given.

None of them enters training or stopping, but for the alarm on collapse.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor, nn

N_FOLDS = 5
RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Penalties, as shares of the mean squared feature times the number of rows."""


def feature_std(features: Tensor) -> Tensor:
    """Return the mean std of normalised features times sqrt(dim): 1 is healthy, 0 collapsed."""
    unit = nn.functional.normalize(features.detach().float(), dim=1)
    return cast(Tensor, unit.std(dim=0).mean() * unit.shape[1] ** 0.5)


def effective_rank(features: Float[Tensor, "batch dim"]) -> Tensor:
    """Return RankMe: the exponential of the entropy of the singular values' shares.

    It runs from 1 to the smaller side of the matrix (Garrido et al. 2023, equation 1).
    """
    matrix = features.detach().double()
    # Singular values by way of the smaller product: on a GPU, those of 512 x 7680 take seconds.
    product = matrix @ matrix.T if len(matrix) < matrix.shape[1] else matrix.T @ matrix
    values = torch.linalg.eigvalsh(product).clamp(min=0).sqrt().float()
    shares = values / values.sum().clamp(min=1e-12) + 1e-7
    return cast(Tensor, (-(shares * shares.log()).sum()).exp())


def alignment(first: Float[Tensor, "batch dim"], second: Float[Tensor, "batch dim"]) -> Tensor:
    """Return the mean squared distance of a pair on the sphere, 0 to 4 (Wang & Isola 2020)."""
    one, other = (nn.functional.normalize(x.detach().float(), dim=1) for x in (first, second))
    return (one - other).square().sum(dim=1).mean()


def uniformity(features: Float[Tensor, "batch dim"]) -> Tensor:
    """Return the log of the mean Gaussian potential: 0 collapsed, -4 spread out over the sphere."""
    unit = nn.functional.normalize(features.detach().float(), dim=1)
    return torch.pdist(unit).square().mul(-2).exp().mean().log()


def judge(first: Tensor, second: Tensor) -> dict[str, float]:
    """Return the figures of two views' features (batch, dim)."""
    return {
        "embedding_std": float(feature_std(first)),
        "rank": float(effective_rank(first)),
        "alignment": float(alignment(first, second)),
        "uniformity": float(uniformity(first)),
    }


def knn_accuracy(embeddings: NDArray[np.float32], labels: NDArray[np.int64], k: int = 10) -> float:
    """Return the share of rows that most of their k nearest others name rightly, by cosine."""
    centred = embeddings - embeddings.mean(axis=0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    likeness = unit @ unit.T
    np.fill_diagonal(likeness, -np.inf)
    nearest = np.argsort(-likeness, axis=1, kind="stable")[:, :k]
    votes = np.zeros((len(labels), int(labels.max()) + 1))
    # A nearer neighbour decides a tie.
    for place in range(nearest.shape[1]):
        votes[np.arange(len(labels)), labels[nearest[:, place]]] += 1 - 1e-3 * place
    return float((votes.argmax(axis=1) == labels).mean())


def probe_predictions(
    embeddings: NDArray[np.float32],
    targets: NDArray[np.float64],
    seed: int = 0,
    groups: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """Return each row's held-out prediction of `targets` (row, target) by ridge regression.

    Five folds; the penalty is chosen inside each training part by leave-one-out error. Rows of one
    group, such as the tiles of a cell, are held out together.
    """
    if groups is None:
        groups = np.arange(len(embeddings))
    fold = (np.random.default_rng(seed).permutation(groups.max() + 1) % N_FOLDS)[groups]
    predicted = np.empty_like(targets)
    for held in range(N_FOLDS):
        known = fold != held
        predicted[~known] = _ridge(embeddings[known], targets[known], embeddings[~known])
    return predicted


def _ridge(
    known: NDArray[np.float32], targets: NDArray[np.float64], asked: NDArray[np.float32]
) -> NDArray[np.float64]:
    centre, spread = known.mean(axis=0), known.std(axis=0) + 1e-6
    x, x_asked = (((part - centre) / spread).astype(np.float64) for part in (known, asked))
    middle = targets.mean(axis=0)
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    rotated = u.T @ (targets - middle)
    best, found = np.inf, np.zeros((len(asked), targets.shape[1]))
    for ridge in RIDGES:
        shrink = s**2 / (s**2 + ridge * x.size)
        fitted = u @ (shrink[:, None] * rotated)
        leverage = (u**2 * shrink).sum(axis=1)
        error = (((targets - middle - fitted) / (1 - leverage)[:, None].clip(1e-6)) ** 2).mean()
        if error < best:
            best = error
            weights = vt.T @ ((shrink / np.maximum(s, 1e-12))[:, None] * rotated)
            found = x_asked @ weights + middle
    return found


def probe_accuracy(
    embeddings: NDArray[np.float32],
    labels: NDArray[np.int64],
    seed: int = 0,
    groups: NDArray[np.int64] | None = None,
) -> float:
    """Return the held-out accuracy of a linear probe (ridge on one column a class)."""
    targets = np.eye(int(labels.max()) + 1)[labels]
    predicted = probe_predictions(embeddings, targets, seed, groups)
    return float((predicted.argmax(axis=1) == labels).mean())


def probe_spearman(
    embeddings: NDArray[np.float32],
    values: NDArray[np.float64],
    seed: int = 0,
    groups: NDArray[np.int64] | None = None,
) -> float:
    """Return the rank correlation of a linear probe's held-out predictions with `values`."""
    predicted = probe_predictions(embeddings, values[:, None], seed, groups)
    return float(spearmanr(predicted[:, 0], values).statistic)
