"""`ecofm score`."""

from __future__ import annotations

from pathlib import Path

from ecofm.maps.scores import score as run_score
from ecofm.types import progress_bar
from ecofm.verbs.outcome import conclude


def score(
    *,
    embeddings: list[Path],
    ranker: Path,
    out: Path,
    cog: bool = False,
    overwrite: bool = False,
) -> None:
    """Score tiles; each score has a 90 % interval.

    Args:
        embeddings: Embeddings folders; give the flag once for each. They may not share tiles.
        ranker: What `ecofm rank` wrote.
        out: The scores' folder.
        cog: Also write a cloud-optimised GeoTIFF for each period ({period}.tif), or for each UTM
            zone in it ({period}_{EPSG code}.tif), one pixel a cell, and a STAC collection of them
            (collection.json).
        overwrite: Replace other scores that OUT holds.
    """
    run_score(embeddings, ranker, out, cog=cog, overwrite=overwrite, progress=progress_bar("score"))
    conclude(out, "scores in scores.parquet")
