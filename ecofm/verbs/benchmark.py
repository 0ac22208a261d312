"""`ecofm benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ecofm.benchmark.benchmark import BenchmarkConfig
from ecofm.benchmark.benchmark import benchmark as run_benchmark
from ecofm.benchmark.report import summary_table
from ecofm.types import print_result
from ecofm.verbs.outcome import conclude


def benchmark(
    *,
    scores: Path,
    proxies: Path,
    out: Path,
    regions: Path | None = None,
    archive: list[Path] | None = None,
    config: Annotated[BenchmarkConfig | None, Parameter(name="*")] = None,
    overwrite: bool = False,
) -> None:
    """Check scores against proxies, beside plain baselines; every figure has an interval.

    Args:
        scores: What `ecofm score` wrote.
        proxies: CSV, TSV or Parquet keyed by cell_id (or y_x) or region, or with latitude and
            longitude of survey points (also GeoPackage, GeoJSON), and period or year if it has
            one; every other numeric column is a statistic. docs/PROXIES.md says what is recognised.
        out: The report's folder; unmatched.csv in it names all that has no partner.
        regions: Polygons with a column region or name; scores are averaged over them, each cell by
            its area within.
        archive: The scored tiles; with them, mean colour and image statistics stand beside.
        config: What is compared.
        overwrite: Replace another report that OUT holds.
    """
    run_benchmark(
        scores, proxies, out, regions, archive, config or BenchmarkConfig(), overwrite=overwrite
    )
    print_result(summary_table(out / "report.json"))
    conclude(out, "report.md, report.json and figures")
