"""python -m benchmarks.intervals WORK: do 90 % intervals hold 90 % of unseen cells.

The encoder sees one synthetic country, which is not judged. In each further country of an unseen
seed, simulated annotators judge pairs of tiles twice outside the held-out districts, a ranker
learns from them alone, and its intervals are judged by the truth in the held-out districts:
coverage and mean width over all cells, urban and rural ones, with a binomial interval by cells, and
beside them an interval of constant width that covers as much. Score and truth are both in units of
the compared tiles' deviation. WORK keeps what was made, so that the same command continues.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest, spearmanr

from benchmarks.record import describe_machine
from ecofm.artifact import write_json
from ecofm.demo.synthetic import make_archive, read_truth
from ecofm.embed import embed
from ecofm.maps.scores import score
from ecofm.pretrain.run import RunConfig, pretrain
from ecofm.rank.heads import RankConfig
from ecofm.rank.run import rank
from ecofm.recipe import read_recipe
from ecofm.synth import AnnotatorConfig, CountryConfig, simulate_comparisons

ENCODER_SEED, SEEDS = 300, tuple(range(401, 411))
N_PAIRS, PERIODS = 600, ("2019", "2020")
URBAN_SHARE = 0.05
"""Cells with a larger share under buildings are called urban: about a third of them."""
RESULTS = Path(__file__).parent / "results" / "intervals.json"


def judge_country(root: Path, encoder: Path, seed: int) -> pd.DataFrame:
    """Return score, lower, upper, truth and built_share of the held-out tiles of a country."""
    make_archive(root, CountryConfig(seed=seed, periods=PERIODS), keep=False)
    embed([root / "archive"], encoder, root / "embeddings")
    truth = read_truth(root)
    asked = truth[~truth["held_out"]].set_index("tile_id")["development"]
    drawn = np.random.default_rng(seed).choice(asked.index.to_numpy(), (N_PAIRS, 2))
    pairs = [(left, right) for left, right in drawn.tolist() if left != right]
    # What two people say of one pair tells their slips from places that stray.
    annotators = AnnotatorConfig(n_repeats=2)
    said = simulate_comparisons(pairs, asked.to_dict(), annotators, seed)
    said.to_csv(root / "comparisons.csv", index=False)
    config = RankConfig()
    rank([root / "embeddings"], root / "comparisons.csv", root / "ranker", config, overwrite=True)
    score([root / "embeddings"], root / "ranker", root / "scores", overwrite=True)
    scores = pd.read_parquet(root / "scores" / "scores.parquet")
    items = asked[sorted({*said["left"], *said["right"]})]
    truth["truth"] = (truth["development"] - items.mean()) / items.std(ddof=0)
    held = truth.loc[truth["held_out"], ["tile_id", "truth", "built_share"]]
    return held.merge(scores[["tile_id", "cell_id", "score", "lower", "upper"]], on="tile_id")


def describe(tiles: pd.DataFrame) -> dict[str, float]:
    """Return coverage, its interval by cells, width, and the width of a constant interval."""
    covered = tiles["truth"].between(tiles["lower"], tiles["upper"])
    n_cells = tiles["cell_id"].nunique()
    within = round(covered.mean() * n_cells)
    sure = binomtest(within, n_cells).proportion_ci(0.95, method="wilson")
    error = (tiles["truth"] - tiles["score"]).abs()
    return {
        "n_cells": n_cells,
        "covered": covered.mean(),
        "covered_low": sure.low,
        "covered_high": sure.high,
        "width": (tiles["upper"] - tiles["lower"]).mean(),
        "constant_width": 2 * float(error.quantile(covered.mean())),
        "spearman": float(spearmanr(tiles["score"], tiles["truth"])[0]),
        "error": float((error**2).mean() ** 0.5),
    }


def main(work: Path) -> None:
    """Judge all countries, print the table and write the figures."""
    root = work / str(ENCODER_SEED)
    make_archive(root, CountryConfig(seed=ENCODER_SEED, periods=PERIODS), keep=False)
    run = RunConfig(accelerator="cpu", torch_threads=1, threads=1)
    recipe = replace(read_recipe("demo"), seed=ENCODER_SEED)
    pretrain([root / "archive"], work / "run", recipe, run, recipe="demo")
    countries = {}
    for seed in SEEDS:
        found = judge_country(work / str(seed), work / "run", seed)
        countries[str(seed)] = found.assign(cell_id=f"{seed}/" + found["cell_id"])
        print(seed, describe(countries[str(seed)]), flush=True)
    tiles = pd.concat(countries.values(), ignore_index=True)
    tiles.to_csv(work / "tiles.csv", index=False)
    urban = tiles["built_share"] > URBAN_SHARE
    figures = {"all": describe(tiles), "urban": describe(tiles[urban])}
    figures["rural"] = describe(tiles[~urban])
    print(pd.DataFrame(figures).T.round(3).to_string())
    write_json(
        RESULTS,
        {
            **figures,
            "by_country": {seed: describe(found) for seed, found in countries.items()},
            "settings": {"pairs": N_PAIRS, "answers_a_pair": 2, "urban_share": URBAN_SHARE},
            **describe_machine(("torch", "scipy")),
        },
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
