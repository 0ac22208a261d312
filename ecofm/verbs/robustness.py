"""`ecofm robustness`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ecofm.benchmark.robustness import RobustnessConfig
from ecofm.benchmark.robustness import robustness as run_robustness
from ecofm.types import print_result, progress_bar
from ecofm.verbs.outcome import conclude


def robustness(
    ranker: Path,
    *,
    encoder: Path,
    archive: Path,
    out: Path,
    proxies: Path | None = None,
    config: Annotated[RobustnessConfig | None, Parameter(name="*")] = None,
    overwrite: bool = False,
) -> None:
    """Measure how much a score depends on haze, colour, blur, resolution, gaps and the year.

    Args:
        ranker: What `ecofm rank` or `ecofm transfer` wrote.
        encoder: The encoder that its embeddings came from.
        archive: Tiles to look at; several periods of a cell tell how alike years are scored.
        out: The report's folder.
        proxies: CSV or Parquet by cell_id: the correlation with a statistic, given mean colour.
        config: What is measured.
        overwrite: Replace another report that OUT holds.
    """
    run_robustness(
        ranker, encoder, archive, out, config or RobustnessConfig(),
        proxies=proxies, overwrite=overwrite, progress=progress_bar("robustness"),
    )  # fmt: skip
    print_result((out / "robustness.md").read_text(encoding="utf-8"), end="")
    conclude(out, "robustness.json, robustness.csv, robustness.md and robustness.png")
