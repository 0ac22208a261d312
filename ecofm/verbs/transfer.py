"""`ecofm transfer`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ecofm.errors import UsageError
from ecofm.rank.evidence import say_evidence
from ecofm.rank.opening import load_ranker
from ecofm.rank.transfer import TransferConfig
from ecofm.rank.transfer import transfer as run_transfer
from ecofm.types import print_result, progress_bar
from ecofm.verbs.outcome import conclude


def transfer(
    ranker: Path,
    *,
    embeddings: list[Path],
    out: Path,
    comparisons: Path | None = None,
    members: Path | None = None,
    clusters: Path | None = None,
    config: Annotated[TransferConfig | None, Parameter(name="*")] = None,
    curve: bool = False,
    truth: Path | None = None,
    column: str | None = None,
    region: str | None = None,
    sizes: list[int] | None = None,
    draws: int = 10,
    overwrite: bool = False,
    force: bool = False,
) -> None:
    """Move a ranker to a new country by a few comparisons there, or measure how many it takes.

    `ecofm transfer RANKER --embeddings E --comparisons C --out R` writes a ranker for
    `ecofm score`. With `--curve --truth TABLE` it writes how well transferred rankers and ones
    trained from scratch follow the truth after 0, 10, 25... questions, as table and picture.

    Args:
        ranker: The ranker to start from, learned elsewhere with the same encoder.
        embeddings: Embeddings of the new country; give the flag once for each.
        out: The new ranker's folder, or the curve's.
        comparisons: A store, or a CSV or Parquet file with the columns annotator, left, right,
            outcome or annotator, ordering: judgements of the new country. With --curve, random
            parts of them are used; without, simulated annotators answer by the truth.
        members: CSV or Parquet with the columns tile_id, item: which tiles an item stands for.
        clusters: What `ecofm cluster` wrote, when its clusters are the items.
        config: How the ranker is moved.
        curve: Measure the curve.
        truth: With --curve: CSV or Parquet by cell_id, and period if it has one.
        column: With --curve: the column of TRUTH to judge by, when it has several.
        region: With --curve: the column of TRUTH that names regions; whole ones are left out.
        sizes: With --curve: numbers of questions; 0, 10, 25, 50, 100 and 200 by default.
        draws: With --curve: how often regions and questions are drawn anew.
        overwrite: Replace something else that OUT holds.
        force: Write a ranker that is no better than chance in the new country all the same, marked.
    """
    if members and clusters:
        raise UsageError("give --members or --clusters, not both.")
    if curve:
        if truth is None:
            raise UsageError("--curve needs --truth: a table by cell_id to judge by.")
        _measure(
            ranker, embeddings, truth, out, config, comparisons, members or clusters,
            {"column": column, "region": region, "draws": draws}
            | ({"sizes": sizes} if sizes else {}),
            overwrite,
        )  # fmt: skip
        return
    if truth or column or region or sizes:
        raise UsageError("--truth, --column, --region and --sizes go with --curve.")
    if comparisons is None:
        raise UsageError(
            "--comparisons is needed: judgements of the new country's tiles or clusters. "
            "Without any, `ecofm score` uses the ranker as it is."
        )
    run_transfer(
        ranker, embeddings, comparisons, out, config or TransferConfig(),
        members=members or clusters, overwrite=overwrite, force=force,
    )  # fmt: skip
    manifest = load_ranker(out)[1]
    share = manifest["shares"][-1]
    conclude(
        out,
        f"corrected by {manifest['n_comparisons']} comparisons of {manifest['n_items']} items; "
        f"the source's own order has {share:.0%} of the say",
    )
    say_evidence(manifest)


def _measure(
    ranker: Path,
    embeddings: list[Path],
    truth: Path,
    out: Path,
    config: TransferConfig | None,
    comparisons: Path | None,
    members: Path | None,
    options: dict[str, object],
    overwrite: bool,
) -> None:
    """Measure the curve with simulated annotators who see the truth."""
    from ecofm.benchmark.transfer import CurveConfig, measure_curve
    from ecofm.synth import AnnotatorConfig, simulate_comparisons

    measure_curve(
        ranker,
        embeddings,
        truth,
        out,
        CurveConfig(**options),  # type: ignore[arg-type]
        lambda pairs, level, seed: simulate_comparisons(pairs, level, AnnotatorConfig(), seed),
        transfer=config,
        comparisons=comparisons,
        members=members,
        overwrite=overwrite,
        progress=progress_bar("draws"),
    )
    print_result((out / "curve.md").read_text(encoding="utf-8"), end="")
    conclude(out, "curve.csv, curve.json, curve.md and curve.png")
