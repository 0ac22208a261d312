"""The demo's default: a synthetic country with known truth, from scenes to a checked report."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd

from ecofm.artifact import MANIFEST
from ecofm.benchmark.benchmark import BenchmarkConfig, benchmark
from ecofm.benchmark.report import summary_table
from ecofm.cluster import ClusterConfig, cluster
from ecofm.compare import write_consensus
from ecofm.demo.answers import collect_comparisons
from ecofm.demo.page import Page, draw_overview
from ecofm.embed import embed
from ecofm.errors import EcofmError
from ecofm.maps.change import ChangeConfig, change
from ecofm.maps.pictures import draw_imagery, draw_scores
from ecofm.maps.scores import score
from ecofm.pretrain.run import PretrainConfig, RunConfig, pretrain
from ecofm.rank.heads import RankConfig
from ecofm.rank.run import rank
from ecofm.recipe import read_recipe
from ecofm.synth import (
    AnnotatorConfig,
    CountryConfig,
    generate_country,
    simulate_comparisons,
    simulate_orderings,
)
from ecofm.tables import write_csv
from ecofm.tiles.archive import open_archive
from ecofm.tiles.ingest import TileConfig, tile
from ecofm.types import print_result, progress_bar, say

# Not used while the recipe, the ranker and the country were tuned.
SEED = 20261125
N_TILE_PAIRS = 600
N_CLUSTERS = 24


def demo_synthetic(
    out: Path,
    *,
    keep: bool = False,
    country: CountryConfig | None = None,
    pretraining: PretrainConfig | None = None,
    run: RunConfig | None = None,
) -> Path:
    """Run the whole chain on a synthetic country and return the path of report.html.

    The ranker sees nothing but the simulated annotators' answers about districts that are not
    held out; the figures are taken on the others.
    """
    country = country or CountryConfig(seed=SEED)
    make_archive(out, country, keep=keep)
    pretrain(
        [out / "archive"],
        out / "run",
        pretraining or read_recipe("demo"),
        run or RunConfig(),
        progress=progress_bar("pretrain"),
        recipe="demo",
    )
    embed([out / "archive"], out / "run", out / "embeddings", progress=progress_bar("embed"))
    n_tiles = open_archive(out / "archive").n_tiles
    cluster(
        [out / "embeddings"],
        out / "clusters",
        ClusterConfig(k=max(2, min(N_CLUSTERS, n_tiles // 8))),
        archives=[out / "archive"],
    )
    ask_annotators(out, country.seed)
    rank(
        [out / "embeddings"],
        out / "comparisons.csv",
        out / "ranker",
        RankConfig(),
        members=out / "members.csv",
    )
    score([out / "embeddings"], out / "ranker", out / "scores", cog=True)
    change(out / "scores", country.periods[0], country.periods[-1], out / "change", ChangeConfig())
    check(out, pretraining or read_recipe("demo"))
    return write_page(out, country)


def make_archive(out: Path, country: CountryConfig, *, keep: bool) -> None:
    """Draw the country and tile it; the scenes are removed unless they are kept."""
    scenes = out / "country" / "scenes"
    if not (out / "archive" / MANIFEST).exists():
        say("drawing a synthetic country (0.6 GB of scenes for a while)")
        generate_country(out / "country", country, progress_bar("country"))
        grid = f"utm:{country.cell_px * 10}"
        # Under a quarter in view, a tile shows clouds rather than a place.
        config = TileConfig(grid=grid, min_valid_share=0.25)
        tile([scenes], out / "archive", config, progress=progress_bar("tile"))
    if not keep:
        shutil.rmtree(scenes, ignore_errors=True)


def ask_annotators(out: Path, seed: int) -> None:
    """Let simulated annotators order the clusters and compare tiles; export what they said."""
    truth = read_truth(out)
    asked = truth[~truth["held_out"]].set_index("tile_id")["development"]
    clusters = pd.read_parquet(out / "clusters" / "clusters.parquet")
    members = clusters[clusters["tile_id"].isin(asked.index)][["tile_id", "item"]]
    write_csv(members, out / "members.csv")
    values = {
        str(item): asked[tile_ids].tolist() for item, tile_ids in members.groupby("item")["tile_id"]
    }
    # What two people say of one pair tells their slips from places that stray.
    config = AnnotatorConfig(n_repeats=2)
    random = np.random.default_rng(seed)
    drawn = random.choice(asked.index.to_numpy(), (N_TILE_PAIRS, 2))
    pairs = [(left, right) for left, right in drawn.tolist() if left != right]
    write_csv(simulate_orderings(values, config, seed), out / "orderings.csv")
    known = {str(tile_id): float(value) for tile_id, value in asked.items()}
    write_csv(simulate_comparisons(pairs, known, config, seed), out / "tile_comparisons.csv")
    collect_comparisons(out, ["orderings.csv", "tile_comparisons.csv"])
    write_consensus(out / "orderings.csv", out / "consensus.csv")


def read_truth(out: Path) -> pd.DataFrame:
    """Return the known development of each tile, with its district and whether it is held out."""
    truth = pd.read_parquet(out / "country" / "truth.parquet")
    truth["tile_id"] = truth["cell_id"] + "@" + truth["period"]
    scored = open_archive(out / "archive").index["tile_id"]
    return truth[truth["tile_id"].isin(scored)]


def check(out: Path, pretraining: PretrainConfig) -> None:
    """Compare scores with the truth in held-out districts, and beside the untrained encoder."""
    pretrain([out / "archive"], out / "untrained" / "run", replace(pretraining, steps=0))
    embed([out / "archive"], out / "untrained" / "run", out / "untrained" / "embeddings")
    rank(
        [out / "untrained" / "embeddings"],
        out / "comparisons.csv",
        out / "untrained" / "ranker",
        RankConfig(),
        members=out / "members.csv",
        force=True,  # a rival is shown however bad it is
    )
    score(
        [out / "untrained" / "embeddings"], out / "untrained" / "ranker", out / "untrained/scores"
    )
    rival = pd.read_parquet(out / "untrained" / "scores" / "scores.parquet")
    truth = read_truth(out)
    truth = truth[truth["held_out"]].merge(
        rival[["tile_id", "score"]].rename(columns={"score": "untrained_encoder"}), on="tile_id"
    )
    columns = ["cell_id", "period", "development", "untrained_encoder"]
    truth[columns].to_parquet(out / "truth_held_out.parquet")
    benchmark(
        out / "scores",
        out / "truth_held_out.parquet",
        out / "benchmark",
        None,
        [out / "archive"],
        BenchmarkConfig(targets=["development"], beside=["untrained_encoder"]),
    )


def check_census(out: Path) -> str:
    """Compare the districts' mean scores with the synthetic census; return the table."""
    try:
        benchmark(
            out / "scores",
            out / "country" / "census.csv",
            out / "census",
            out / "country" / "districts.gpkg",
            None,
            BenchmarkConfig(),
        )
    except EcofmError as error:
        return f"no comparison with the census: {error}"
    return summary_table(out / "census" / "report.json")


def write_page(out: Path, country: CountryConfig) -> Path:
    """Write report.html and print the short table."""
    archive = open_archive(out / "archive")
    scores = gpd.read_parquet(out / "scores" / "scores.parquet")
    first, last = country.periods[0], country.periods[-1]
    page = Page(
        "ecofm: the whole chain on a synthetic country",
        "Everything here is synthetic: the country, its imagery, its census and its annotators. "
        "The ranker saw only annotators' answers; the figures are taken on held-out districts.",
    )
    table = summary_table(out / "benchmark" / "report.json")
    page.add_text("Scores against the known truth, held-out districts", table)
    imagery = draw_imagery(archive, last)
    scored = draw_scores(scores, last, f"Score {last}")
    page.add_figure("True colour", f"Synthetic imagery, {last}.", imagery)
    page.add_figure("Score", f"Development as the ranker scores it, {last}.", scored)
    page.add_clusters(out / "clusters", scores)
    page.add_figure(
        "Change", f"Change of score from {first} to {last}; faded cells may be noise.",
        out / "change" / "change.png",
    )  # fmt: skip
    page.add_text("Scores against the synthetic census", check_census(out))
    page.write(out / "report.html")
    draw_overview([imagery, scored, out / "change" / "change.png"], out / "overview.png")
    print_result(table)
    say(f"{out / 'report.html'}: the report, one file with its pictures inside")
    return out / "report.html"
