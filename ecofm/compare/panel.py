"""The items that questions are chosen among, when there are embeddings to choose them by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ecofm.compare.items import ItemSource, MemberSheets, Tiles
from ecofm.compare.picking import MAX_PANEL, Panel, choose_panel
from ecofm.errors import ArtifactError

if TYPE_CHECKING:
    from ecofm.compare.davidson import Ints

CHUNK = 65536
ITERATIONS = 10


def build_panel(source: ItemSource, embeddings: Sequence[Path], counts: Ints) -> Panel:
    """Return the panel of a source's items; `counts` says how often each was compared.

    With embeddings, clusters lie at their members' mean, and of more than 500 tiles the one
    nearest to each of 500 k-means centres stands for the tiles around it. Raises ArtifactError
    when a tile has no embedding.
    """
    if not embeddings:
        return choose_panel(len(source.items), counts, source.sizes)
    if not isinstance(source, Tiles):
        raise ArtifactError(
            "embeddings need the archives of their tiles; give --archive with --embeddings."
        )
    matrix, rows = match_rows(source, embeddings)
    if isinstance(source, MemberSheets):
        means = np.stack([matrix[rows[members]].mean(axis=0) for members in source.tiles_of])
        panel = choose_panel(len(source.items), counts, source.sizes)
        return panel._replace(embeddings=standardise(means[panel.items]))
    if len(source.items) <= MAX_PANEL:
        everything = standardise(np.asarray(matrix[rows]))
        return Panel(np.arange(len(rows)), source.sizes, everything)
    return choose_medoids(matrix, rows)


def match_rows(
    source: Tiles, paths: Sequence[Path]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the embeddings, and the row of each tile of the source."""
    from ecofm.embed import open_embeddings

    index, matrix, _ = open_embeddings(paths)
    row_of = {str(tile): row for row, tile in enumerate(index["tile_id"])}
    rows = np.array([row_of.get(tile, -1) for tile in source.tile_ids])
    if (rows < 0).any():
        first = source.tile_ids[int((rows < 0).argmax())]
        raise ArtifactError(
            f"{paths[0]} lacks {int((rows < 0).sum())} of the archive's tiles, first {first}; "
            "make it again with `ecofm embed`."
        )
    return matrix, rows


def choose_medoids(
    matrix: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], n: int = MAX_PANEL
) -> Panel:
    """Return the tile nearest to each of n k-means centres, and how many tiles lie around it."""
    from ecofm.kmeans import fit_centres, import_faiss

    sample = np.random.default_rng(0).permutation(len(rows))[: 100 * n]
    points = np.asarray(matrix[np.sort(rows[sample])], dtype=np.float32)
    mean, std = points.mean(axis=0), points.std(axis=0) + 1e-6
    centres = fit_centres((points - mean) / std, n, seed=0, iterations=ITERATIONS)
    lookup = import_faiss().IndexFlatL2(centres.shape[1])
    lookup.add(centres)
    sizes, nearest, best = np.zeros(n), np.full(n, -1), np.full(n, np.inf)
    for start in range(0, len(rows), CHUNK):
        chunk = (np.asarray(matrix[rows[start : start + CHUNK]]) - mean) / std
        squared, found = (part[:, 0] for part in lookup.search(np.ascontiguousarray(chunk), 1))
        sizes += np.bincount(found, minlength=n)
        order = np.lexsort((squared, found))
        seen, first = np.unique(found[order], return_index=True)
        closest = order[first]
        closer = squared[closest] < best[seen]
        best[seen[closer]] = squared[closest[closer]]
        nearest[seen[closer]] = start + closest[closer]
    kept = nearest >= 0
    chosen = nearest[kept]
    points = (np.asarray(matrix[rows[chosen]]) - mean) / std
    return Panel(chosen.astype(np.int64), sizes[kept], points)


def standardise(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the points with mean 0 and standard deviation 1 in each dimension."""
    exact = points.astype(np.float64)
    scaled = (exact - exact.mean(axis=0)) / (exact.std(axis=0) + 1e-6)
    return np.asarray(scaled, dtype=np.float32)
