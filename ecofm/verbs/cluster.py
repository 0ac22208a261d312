"""`ecofm cluster`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ecofm.cluster import ClusterConfig
from ecofm.cluster import cluster as run_cluster
from ecofm.verbs.outcome import conclude


def cluster(
    *,
    embeddings: list[Path],
    out: Path,
    archive: list[Path] | None = None,
    config: Annotated[ClusterConfig | None, Parameter(name="*")] = None,
    overwrite: bool = False,
) -> None:
    """Group like tiles by FAISS k-means.

    Args:
        embeddings: Embeddings folders; give the flag once for each.
        out: The clusters' folder.
        archive: The archives that were embedded; with them each cluster gets a sheet of
            exemplars for people to look at.
        config: How tiles are grouped.
        overwrite: Replace other clusters that OUT holds.
    """
    config = config or ClusterConfig()
    run_cluster(embeddings, out, config, archives=archive or [], overwrite=overwrite)
    conclude(out, f"{config.k} clusters")
