"""What a head sees of an embedding: standardised directions, or a kernel over them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from scipy.spatial.distance import cdist

from ecofm.rank.items import Indices, Matrix
from ecofm.rank.losses import Floats

LANDMARKS = 200


@dataclass(frozen=True, slots=True)
class Basis:
    """Standardised directions: (x - mean) @ projection."""

    mean: Floats
    projection: Floats

    def __call__(self, embeddings: Matrix) -> Floats:
        """Project embeddings (tile, dim) to (tile, component)."""
        found: Floats = (embeddings - self.mean) @ self.projection
        return found


@dataclass(frozen=True, slots=True)
class Kernel:
    """A Gaussian kernel between directions and landmarks, whitened (Nystroem).

    A linear head on these features, with a ridge penalty, is the mode of a Gaussian process.
    """

    basis: Basis
    landmarks: Floats
    """Shape (landmark, component)."""
    whitening: Floats
    """Shape (landmark, feature)."""
    width: float
    """The kernel is exp(-distance^2 / (2 width^2))."""

    def __call__(self, embeddings: Matrix) -> Floats:
        """Return features (tile, feature) of embeddings (tile, dim)."""
        return _gaussian(self.basis(embeddings), self.landmarks, self.width) @ self.whitening


def build_basis(
    embeddings: Matrix, components: int, cells: Indices | None = None, invariance: float = 0.0
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


def build_kernel(basis: Basis, embeddings: Matrix, random: np.random.Generator) -> Kernel:
    """Return a kernel whose landmarks are random tiles and whose width is their median distance."""
    chosen = random.permutation(len(embeddings))[:LANDMARKS]
    landmarks = basis(embeddings[np.sort(chosen)])
    apart = cdist(landmarks, landmarks)
    width = max(float(np.median(apart)), 1e-6)
    values, vectors = np.linalg.eigh(_gaussian(landmarks, landmarks, width))
    kept = values > 1e-6 * values[-1]
    return Kernel(basis, landmarks, vectors[:, kept] / np.sqrt(values[kept]), width)


def _gaussian(rows: Floats, landmarks: Floats, width: float) -> Floats:
    found: Floats = np.exp(-cdist(rows, landmarks, "sqeuclidean") / (2 * width**2))
    return found


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
    found: Floats = residual.T @ residual / freedom
    return found
