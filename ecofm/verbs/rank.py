"""`ecofm rank`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ecofm.rank.heads import RankConfig
from ecofm.rank.run import load_ranker
from ecofm.rank.run import rank as run_rank
from ecofm.verbs.outcome import conclude


def rank(
    *,
    embeddings: list[Path],
    comparisons: Path,
    out: Path,
    members: Path | None = None,
    clusters: Path | None = None,
    config: Annotated[RankConfig | None, Parameter(name="*")] = None,
    overwrite: bool = False,
) -> None:
    """Fit a ranker to people's comparisons of tiles or clusters.

    Args:
        embeddings: Embeddings folders that hold the compared tiles; give the flag once for each.
        comparisons: A store, or a CSV or Parquet file with the columns annotator, left, right,
            outcome or annotator, ordering.
        out: The ranker's folder.
        members: CSV or Parquet with the columns tile_id, item: which tiles an item stands for.
        clusters: What `ecofm cluster` wrote, when its clusters are the items.
        config: How comparisons become a ranker.
        overwrite: Replace another ranker that OUT holds.
    """
    if members and clusters:
        raise ValueError("give --members or --clusters, not both.")
    run_rank(
        embeddings,
        comparisons,
        out,
        config or RankConfig(),
        members=members or clusters,
        overwrite=overwrite,
    )
    manifest = load_ranker(out)[1]
    conclude(out, f"{manifest['n_comparisons']} comparisons of {manifest['n_items']} items")
