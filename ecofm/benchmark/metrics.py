"""Agreement of a score with a proxy: resampled correlations, partial ones, and their intervals."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ecofm.errors import EcofmError

Floats = NDArray[np.float64]

MIN_PAIRS = 5
"""Places that a correlation needs at least."""
INTERVAL = (2.5, 97.5)
"""Percentiles of the resamples that end a 95 % interval."""
BATCH_NUMBERS = 300_000
"""Numbers held at once while resampling: 2.4 MB stay in the cache, 30 MB took a third longer."""


def log_if_positive(values: Floats) -> Floats:
    """Return the logarithms of values that are all positive, others as they are."""
    return np.asarray(np.log(values)) if (values > 0).all() else values


def partial(correlations: Floats) -> Floats:
    """Return the correlation of the first two variables given the others: (..., k, k) to (...).

    NaN where the others are constant, so that the matrix has no numbers.
    """
    usable = np.asarray(np.isfinite(correlations).all(axis=(-2, -1), keepdims=True))
    # pinv, because covariates such as three colours can be collinear.
    inverse = np.linalg.pinv(np.where(usable, correlations, 0), hermitian=True)
    scale = np.sqrt(inverse[..., 0, 0] * inverse[..., 1, 1])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(usable[..., 0, 0], -inverse[..., 0, 1] / scale, np.nan)


def resample_correlations(table: Floats, *, ranks: bool, n_resamples: int, seed: int) -> Floats:
    """Return the correlation matrix of each bootstrap resample: (n_resamples, k, k).

    `table` is complete, (row, column). With `ranks`, of the ranks within each resample (Spearman).
    All columns share the resamples, so differences between them are paired; the same seed draws
    the same resamples for any table of as many rows. NaN where a resample is constant.
    """
    n_rows, n_columns = table.shape
    generator = np.random.default_rng(seed)
    batch = max(1, min(n_resamples, BATCH_NUMBERS // (n_rows * n_columns)))
    ranker = [_plan_ranks(column) for column in table.T] if ranks else []
    parts = []
    for start in range(0, n_resamples, batch):
        size = min(batch, n_resamples - start)
        drawn = generator.integers(0, n_rows, size=(size, n_rows), dtype=np.int64)
        drawn += n_rows * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * n_rows).reshape(size, n_rows)
        if ranks:
            values = np.stack([_rank_counted(counts, *plan) for plan in ranker], axis=1)
        else:
            values = np.broadcast_to(table.T, (size, n_columns, n_rows))
        parts.append(_correlate(values, counts.astype(np.float64)))
    return np.concatenate(parts)


def _plan_ranks(column: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Return the sorting order, the first place of each distinct value, and each row's value."""
    _, first, inverse = np.unique(np.sort(column), return_index=True, return_inverse=True)
    order = np.argsort(column, kind="stable")
    of_row = np.empty_like(order)
    of_row[order] = inverse
    return order, first, of_row


def _rank_counted(
    counts: NDArray[np.int64],
    order: NDArray[np.intp],
    first: NDArray[np.intp],
    of_row: NDArray[np.intp],
) -> Floats:
    """Return mean ranks where row i stands counts[i] times: cumulative sums instead of sorting."""
    sizes = np.add.reduceat(counts[:, order], first, axis=1)
    middle = np.cumsum(sizes, axis=1) - (sizes - 1) / 2
    return np.asarray(middle[:, of_row])


def _correlate(values: Floats, counts: Floats) -> Floats:
    """Return counted correlation matrices: (batch, k, row) and (batch, row) to (batch, k, k)."""
    weights = counts / counts.sum(axis=1, keepdims=True)
    centred = values - (values @ weights[:, :, None])
    covariance = (centred * weights[:, None, :]) @ centred.transpose(0, 2, 1)
    deviation = np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 0))
    # Rounding leaves constant columns a deviation near 1e-16 of their size.
    deviation[deviation <= 1e-12 * np.abs(values).max(axis=2)] = np.nan
    return np.asarray(covariance / (deviation[:, :, None] * deviation[:, None, :]))


def bound(resamples: Floats) -> tuple[float, float]:
    """Return the ends of the 95 % percentile interval over resamples that have a value.

    Raises EcofmError when fewer than half of the resamples have one.
    """
    if np.isfinite(resamples).mean() < 0.5:
        raise EcofmError("most resamples are constant: too few different values for an interval.")
    lower, upper = np.nanpercentile(resamples, INTERVAL)
    return float(lower), float(upper)
