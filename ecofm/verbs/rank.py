"""`ecofm rank`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from ecofm.errors import UsageError
from ecofm.rank.evidence import say_evidence
from ecofm.rank.foretold import describe_figures
from ecofm.rank.heads import RankConfig
from ecofm.rank.opening import load_ranker
from ecofm.rank.run import rank as run_rank
from ecofm.rank.run import rank_target
from ecofm.verbs.outcome import conclude


def rank(
    *,
    embeddings: list[Path],
    comparisons: Path | None = None,
    target: Path | None = None,
    column: str | None = None,
    positive: str | None = None,
    out: Path,
    members: Path | None = None,
    clusters: Path | None = None,
    config: Annotated[RankConfig | None, Parameter(name="*")] = None,
    overwrite: bool = False,
    force: bool = False,
) -> None:
    """Fit a ranker to people's comparisons of tiles or clusters, or to a table's column.

    The last lines say how often the higher score won on comparisons that the ranker had not seen,
    or how well it predicted held-out values. A ranker that is no better than chance is refused.

    Args:
        embeddings: Embeddings folders that hold the compared tiles; give the flag once for each.
        comparisons: A store, or a CSV or Parquet file with the columns annotator, left, right,
            outcome or annotator, ordering.
        target: In the place of comparisons: a CSV or Parquet table whose rows are named by
            tile_id, cell_id (with or without period) or item. Numbers are learned as numbers,
            anything else as classes.
        column: The target's column, where it has several.
        positive: The class whose probability is the score; by default the last by name.
        out: The ranker's folder.
        members: CSV or Parquet with the columns tile_id, item: which tiles an item stands for.
        clusters: What `ecofm cluster` wrote, when its clusters are the items.
        config: How comparisons become a ranker.
        overwrite: Replace another ranker that OUT holds.
        force: Write a ranker of comparisons that is no better than chance all the same. It is
            marked so, and its scores are nearly equal with wide intervals. One of a target is
            always written, and marked.
    """
    if members and clusters:
        raise UsageError("give --members or --clusters, not both.")
    if (comparisons is None) == (target is None):
        raise UsageError("give --comparisons or --target, one of them.")
    config, items = config or RankConfig(), members or clusters
    if comparisons:
        if column or positive:
            raise UsageError("--column and --positive belong to --target.")
        run_rank(
            embeddings, comparisons, out, config, members=items, overwrite=overwrite, force=force
        )
    else:
        assert target
        rank_target(
            embeddings, target, out, config,
            column=column, positive=positive, members=items, overwrite=overwrite,
        )  # fmt: skip
    manifest = load_ranker(out)[1]
    conclude(out, describe(manifest))
    say_evidence(manifest)


def describe(manifest: dict[str, Any]) -> str:
    """Say in a line what a ranker was fitted to, and how well a target was foretold."""
    if "target" not in manifest:
        return (
            f"{manifest['n_comparisons']} comparisons of {manifest['n_items']} items by "
            f"{manifest['n_annotators']} annotator(s)"
        )
    figures = describe_figures(manifest["held_out"])
    return f"{manifest['target']} of {manifest['n_items']} items; {figures}"
