"""FAISS k-means with a seed, and the sentence for a machine without FAISS."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ecofm.errors import MissingExtraError

Points = npt.NDArray[np.float32]


def import_faiss() -> Any:
    """Return the module faiss, or raise MissingExtraError with the command that installs it."""
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError(
            "faiss is needed and not installed: run `pip install 'ecofm[cpu]'`, or "
            "`pip install 'ecofm[gpu]'` on a machine with CUDA."
        ) from error
    return faiss


def fit_centres(points: Points, k: int, *, seed: int, iterations: int, tries: int = 1) -> Points:
    """Return k centres (k, dim) of points (n, dim) by Lloyd's iterations; the best of `tries`.

    The same points and seed give the same bytes on one machine, whatever else uses its cores.
    """
    faiss = import_faiss()
    kmeans = faiss.Kmeans(
        points.shape[1], k, niter=iterations, nredo=tries, seed=seed, min_points_per_centroid=1
    )
    kmeans.train(np.ascontiguousarray(points, dtype=np.float32))
    return np.asarray(kmeans.centroids, dtype=np.float32).copy()
