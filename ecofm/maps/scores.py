"""The stage `score`: embeddings and a ranker to scores with intervals, and to maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd

from ecofm import artifact
from ecofm.embed import Embeddings, Matrix, require_tiles_once
from ecofm.errors import ArtifactError, EcofmError
from ecofm.maps.cogs import write_maps
from ecofm.maps.stac import write_collection
from ecofm.rank.calibration import Z_90
from ecofm.rank.evidence import describe_verdict
from ecofm.rank.opening import load_ranker
from ecofm.rank.resolution import warn_of_tiles
from ecofm.rank.targets import Classes, Ranker
from ecofm.types import Progress, say

CHUNK_TILES = 65_536


def score(
    embeddings: Sequence[Path],
    ranker: Path,
    out: Path,
    *,
    cog: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write scores.parquet (tile_id, cell_id, period, score, lower, upper, geometry).

    `lower` and `upper` are a 90 % interval: the ranker's ensemble and, where repeated answers tell
    it, how far places stray from what their embedding tells. A ranker of classes adds `class`, the
    likeliest, and `p_{class}`, the probability of each; `score` is that of the ranker's positive
    class. With `cog` each period becomes `{period}.tif`, or each of its zones a
    `{period}_{zone}.tif`, with bands score, lower and upper, one pixel a cell; `collection.json`
    is the STAC collection of them. Raises ArtifactError when the ranker was made for another
    encoder, or embeddings share tiles.
    """
    heads, manifest = load_ranker(ranker)
    parts = [Embeddings(path) for path in embeddings]
    for part in parts:
        if part.encoder_hash != manifest["encoder"]:
            raise ArtifactError(
                f"{part.path} comes from another encoder than {ranker} was fitted on; embed the "
                "archive with that encoder."
            )
        part.warn_of_resolution()
    require_tiles_once([(part.path, part.index) for part in parts], "embeddings")
    warn_of_tiles(ranker, manifest, embeddings)
    if warning := describe_verdict(manifest):
        say(f"warning: {warning}.")
    inputs = artifact.hash_inputs(embeddings=embeddings, ranker=ranker)
    draft = artifact.Draft(
        out, stage="scores", config={"cog": cog}, inputs=inputs, overwrite=overwrite
    )
    if draft.done:
        say(f"{out} is done already: the same embeddings and ranker.")
        return out
    attribution = "; ".join(dict.fromkeys(part.notes.attribution for part in parts))
    tables = [_score_part(part, heads, progress) for part in parts]
    whole = pd.concat(tables, ignore_index=True)
    if not np.isfinite(whole["score"]).all():
        raise EcofmError(f"{embeddings[0]} gives scores that are not finite; embed again.")
    with draft as folder:
        whole.to_parquet(folder / "scores.parquet")
        if cog:
            write_collection(write_maps(whole, folder, attribution), folder, attribution)
        draft.extra = {"n_tiles": len(whole), "warning": warning, "attribution": attribution}
    return out


def _score_part(part: Embeddings, heads: Ranker, progress: Progress | None) -> gpd.GeoDataFrame:
    table = part.index[["tile_id", "cell_id", "period", "geometry"]].copy()
    centre, spread = predict_intervals(part.matrix, heads, progress)
    lower, upper = centre - Z_90 * spread, centre + Z_90 * spread
    if isinstance(heads, Classes):
        lower, upper = lower.clip(min=0), upper.clip(max=1)
    for place, (name, values) in enumerate(
        {"score": centre, "lower": lower, "upper": upper}.items()
    ):
        table.insert(3 + place, name, values)
    if isinstance(heads, Classes):
        shares = predict_classes(part.matrix, heads)
        table["class"] = np.array(heads.names)[shares.argmax(axis=0)]
        for name, share in zip(heads.names, shares, strict=True):
            table[f"p_{name}"] = share
    return table


def predict_classes(matrix: Matrix, classes: Classes) -> np.ndarray:
    """Return each class's mean probability over the ensemble, (class, tile), in chunks."""
    parts = [
        classes.shares(matrix[start : start + CHUNK_TILES]).mean(axis=1)
        for start in range(0, len(matrix), CHUNK_TILES)
    ]
    return np.concatenate(parts, axis=1)


def predict_intervals(
    matrix: Matrix, heads: Ranker, progress: Progress | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's mean over the ensemble and the deviation around it, in chunks."""
    centre, spread = np.empty(len(matrix)), np.empty(len(matrix))
    for start in range(0, len(matrix), CHUNK_TILES):
        rows = slice(start, start + CHUNK_TILES)
        scores = heads.predict(matrix[rows])
        centre[rows] = scores.mean(axis=0)
        spread[rows] = heads.spread(scores)
        if progress:
            progress(min(start + CHUNK_TILES, len(matrix)), len(matrix))
    return centre, spread
