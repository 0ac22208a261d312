"""The benchmark stage: scores against proxies, beside rivals and image statistics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import geopandas as gpd
import pandas as pd

from ecofm.artifact import Draft, hash_inputs, read_manifest
from ecofm.benchmark.baselines import image_statistics
from ecofm.benchmark.columns import ProxyOptions
from ecofm.benchmark.contest import OURS, Contest, Outcome, hold
from ecofm.benchmark.joining import Join, join_proxies, write_unmatched
from ecofm.benchmark.proxies import (
    Proxies,
    name_rival,
    read_proxies,
    resolve_rival,
)
from ecofm.benchmark.regions import average_regions, read_regions
from ecofm.benchmark.report import write_report
from ecofm.errors import EcofmError, UsageError
from ecofm.maps.change import read_scores
from ecofm.tiles.periods import sort_periods
from ecofm.types import progress_bar, require_seed, say

if TYPE_CHECKING:
    from ecofm.tiles.archive import Archive

MEAN = "mean"
"""The period that stands for the mean of all periods."""


@dataclass(kw_only=True, slots=True)
class BenchmarkConfig(ProxyOptions):
    """What `benchmark` may be told."""

    targets: list[str] | None = None
    """Columns of the proxies to check against; None takes every numeric column not in `beside`."""
    beside: list[str] = field(default_factory=list)
    """Rival scores in the proxies' columns; `siscore_{period}` stands for a column a period."""
    region_column: str | None = None
    """Column of the polygons that names them; None looks for region, name."""
    min_covered: float = 0.1
    """Smallest share of a region, 0 to 1, that scored cells must cover for it to be compared."""
    radius_m: float | None = None
    """Radius in metres within which cells belong to a survey point; 0 takes the cell that it lies
    in. None takes how far the DHS displaces points: 2,000 m where a column says urban, else 5,000.
    """
    n_bootstrap: int = 1_000
    """Resamples of the places for each 95 % interval, at least 1,000."""
    seed: int = 0
    """Seed of the resampling."""

    def __post_init__(self) -> None:
        """Raise ValueError for values that mean nothing."""
        require_seed(self.seed)
        ProxyOptions.__post_init__(self)
        if self.n_bootstrap < 1_000:
            raise UsageError(f"n_bootstrap is {self.n_bootstrap}: an interval needs 1,000 or more.")
        if not 0 <= self.min_covered <= 1:
            raise UsageError(f"min_covered is {self.min_covered}: expected a share from 0 to 1.")
        if self.radius_m is not None and not 0 <= self.radius_m <= 100_000:
            raise UsageError(f"radius_m is {self.radius_m}: expected 0 to 100,000 m.")


def benchmark(
    scores: Path,
    proxies: Path,
    out: Path,
    regions: Path | None,
    archive: list[Path] | None,
    config: BenchmarkConfig,
    overwrite: bool = False,
) -> Path:
    """Write report.json, report.md and pictures: how well the scores agree with the proxies.

    For each level (cell, and region where `regions` is given), period and the mean of periods,
    target, and subset (all places; those where the target is above 0): Spearman, Pearson, R² and
    R² of logarithms with 95 % bootstrap intervals, for our score, the rivals and, where `archive`
    gives the scored tiles' pixels, single image statistics; paired differences; and Spearman
    given the mean colour. All contestants of a row are judged on the same places. A region's
    value is the mean over the cells that it overlaps, weighted by the area of the overlap; a
    survey point's, over the circle round it. The mean of periods is over cells scored in all of
    them. What matched, what has no partner on either side (unmatched.csv names all), and how cells
    of the table were read is said and stands in the report. Raises EcofmError when nothing can be
    compared.
    """
    table = read_scores(scores).rename(columns={"score": OURS})
    table = table[["tile_id", "cell_id", "period", OURS, "geometry"]]
    proxy = read_proxies(
        proxies,
        config,
        cells=table["cell_id"].unique(),
        periods=table["period"].unique(),
        targets=config.targets or (),
        by_region=regions is not None,
    )
    region_column = config.region_column
    if regions is None and proxy.has_polygons:
        regions, region_column = proxies, region_column or proxy.key
    inputs = hash_inputs(scores=scores, proxies=proxies, regions=regions, archive=archive)
    draft = Draft(out, stage="report", config=asdict(config), inputs=inputs, overwrite=overwrite)
    if draft.done:
        say(f"{out} is done already.")
        return out
    polygons = read_regions(regions, region_column) if regions else None
    join = join_proxies(
        table, proxy, polygons, min_covered=config.min_covered, radius_m=config.radius_m
    )
    targets = proxy.pick_targets(config.targets, config.beside)
    readings = proxy.explain(targets, config.targets is None) + join.proxies.tell_missing(targets)
    for sentence in [*readings, *join.sentences]:
        say(sentence)
    attribution = str(read_manifest(scores, "scores").get("attribution", ""))
    if archive:
        table, attribution = add_baselines(table, archive)
    contests = list(plan_contests(table, join, targets, config))
    outcomes, refused = hold_all(contests, config)
    if not outcomes:
        raise EcofmError(f"nothing can be compared with {proxies}: {refused[0]}.")
    with draft as folder:
        write_report(folder, outcomes, refused, attribution, join, proxy.notes + readings)
        write_unmatched(join, folder)
    say(f"{len(outcomes)} comparisons; {len(refused)} left out, named in report.md.")
    return out


def add_baselines(table: gpd.GeoDataFrame, paths: list[Path]) -> tuple[gpd.GeoDataFrame, str]:
    """Return the scores with their tiles' image statistics, and the imagery's attribution."""
    from ecofm.tiles.archive import open_archives

    archives, _ = open_archives(paths)
    scored = set(table["tile_id"])
    found = [measure_archive(archive) for archive in archives]
    statistics = pd.concat(found).drop_duplicates("tile_id").set_index("tile_id")
    if not scored & set(statistics.index):
        raise EcofmError(
            f"{', '.join(map(str, paths))} holds none of the scored tiles; "
            "give the archive that the scores were made from."
        )
    numbers = statistics.drop(columns=["cell_id", "period"])
    attribution = "; ".join(dict.fromkeys(a.attribution for a in archives if a.attribution))
    return table.join(numbers, on="tile_id"), attribution


def measure_archive(archive: Archive) -> pd.DataFrame:
    """Return the archive's image statistics, drawing progress."""
    return image_statistics(archive, progress_bar("image statistics"))


def plan_contests(
    table: gpd.GeoDataFrame,
    join: Join,
    targets: list[str],
    config: BenchmarkConfig,
) -> Iterator[Contest]:
    """Yield every contest: levels, periods and their mean, targets, subsets."""
    proxy = join.proxies
    periods = sort_periods(table["period"])
    require_rivals(proxy, config.beside, periods)
    named: list[tuple[str, list[str]]] = [(period, [period]) for period in periods]
    if len(periods) > 1:
        named.append((MEAN, periods))
    for label, members in named:
        ours = average_periods(table, members)
        statistics = proxy.at(members)
        found = {name_rival(b): resolve_rival(b, statistics, members) for b in config.beside}
        rivals = {name: series for name, series in found.items() if series is not None}
        require_new_names([*rivals, *targets], ours, proxy)
        for target in targets:
            others = pd.DataFrame({**rivals, target: statistics[target]})
            for level, frame in join_levels(ours, others, join):
                contest = Contest(
                    level=level,
                    period=label,
                    subset="all",
                    target=target,
                    frame=frame,
                    rivals=list(rivals),
                    baselines=[str(name) for name in ours if name != OURS],
                )
                yield contest
                # Asked of the whole table, so that every period has the same rows in the report.
                if level == proxy.level and target in frame and (statistics[target] == 0).any():
                    built = frame[frame[target] > 0]
                    yield replace(contest, subset=f"{target} > 0", frame=built)


def require_new_names(names: list[str], ours: pd.DataFrame, proxy: Proxies) -> None:
    """Raise EcofmError for a proxy that goes by the name of our score or an image statistic."""
    taken = [name for name in names if name in ours]
    if taken:
        raise EcofmError(
            f"{proxy.path} calls a column {taken[0]}, which is our name for what it stands "
            "beside; rename the column."
        )


def require_rivals(proxy: Proxies, beside: list[str], periods: list[str]) -> None:
    """Raise EcofmError for a rival that no period has a column for."""
    for name in beside:
        if all(resolve_rival(name, proxy.table, period) is None for period in periods):
            raise EcofmError(
                f"{proxy.path} has no column {name} for any of {', '.join(periods)}; it has "
                f"{', '.join(proxy.statistics)}."
            )


def average_periods(table: gpd.GeoDataFrame, periods: list[str]) -> pd.DataFrame:
    """Return the mean of score and image statistics by cell_id, NaN where a period lacks one."""
    rows = pd.DataFrame(table[table["period"].isin(periods)].drop(columns="geometry"))
    grouped = rows.drop(columns=["tile_id", "period"]).groupby("cell_id")
    mean, count = grouped.mean(), grouped.count()
    return mean.where(count == len(periods))


def join_levels(
    ours: pd.DataFrame, others: pd.DataFrame, join: Join
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the level, and the table of contestants and target by place."""
    level = join.proxies.level
    scored = ours.dropna(subset=[OURS])
    parts = join.shares.within(scored.index, join.min_covered) if join.shares else None
    if level == "cell":
        joined = ours.join(others, how="inner")
        yield "cell", joined
        if parts is not None:
            # The same cells for all: a region's mean over other cells is another place's.
            usable = joined.dropna(axis=1, how="all").dropna()
            yield "region", average_regions(usable, parts)
    elif parts is not None:
        yield level, average_regions(scored, parts).join(others, how="inner")


def hold_all(contests: list[Contest], config: BenchmarkConfig) -> tuple[list[Outcome], list[str]]:
    """Return the outcomes, and for each contest that cannot be held a sentence."""
    draw = progress_bar("benchmark")
    outcomes, refused = [], []
    for done, contest in enumerate(contests, start=1):
        try:
            outcomes.append(hold(contest, config.n_bootstrap, config.seed))
        except EcofmError as error:
            refused.append(" ".join([*contest.label().values(), f"({error})"]))
        draw(done, len(contests))
    return outcomes, refused
