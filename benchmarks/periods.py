"""python -m benchmarks.periods WORK: do positives of other periods teach what development is.

Encoders of equal steps see one synthetic country, with positives across periods, within one, or not
at all. In ten other countries the same ranker learns from the same comparisons on each; judged by
the truth in held-out districts, and by how alike two periods are ranked there. WORK is that of
benchmarks.intervals, whose countries and comparisons are used.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
from scipy.stats import spearmanr

from benchmarks.intervals import ENCODER_SEED, SEEDS
from benchmarks.record import describe_machine
from ecofm.artifact import write_json
from ecofm.demo.synthetic import read_truth
from ecofm.embed import embed
from ecofm.maps.scores import score
from ecofm.pretrain.module import Positives
from ecofm.pretrain.run import RunConfig, pretrain
from ecofm.rank.heads import RankConfig
from ecofm.rank.run import rank
from ecofm.recipe import read_recipe

ARMS = {
    "multi-period positives": {},
    "single-period positives": {"positives": Positives.tile},
    "random initialisation": {"steps": 0},
}
RESULTS = Path(__file__).parent / "results" / "periods.json"


def judge(country: Path, encoder: Path, out: Path) -> dict[str, float]:
    """Return the rank correlation with the truth, and between periods, of held-out tiles."""
    embed([country / "archive"], encoder, out / "embeddings")
    rank([out / "embeddings"], country / "comparisons.csv", out / "ranker", RankConfig())
    score([out / "embeddings"], out / "ranker", out / "scores")
    truth = read_truth(country)
    truth = truth.loc[truth["held_out"], ["cell_id", "period", "development"]]
    scores = pd.read_parquet(out / "scores" / "scores.parquet")
    held = scores[["cell_id", "period", "score"]].merge(truth, on=["cell_id", "period"])
    wide = held.pivot(index="cell_id", columns="period", values="score").dropna()
    return {
        "truth": float(spearmanr(held["score"], held["development"])[0]),
        "between_periods": float(spearmanr(wide.iloc[:, 0], wide.iloc[:, 1])[0]),
    }


def main(work: Path) -> None:
    """Train the encoders, judge them in each country, and write the figures."""
    run = RunConfig(accelerator="cpu", torch_threads=1, threads=1)
    recipe = replace(read_recipe("demo"), seed=ENCODER_SEED)
    figures: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    for arm, changes in ARMS.items():
        encoder = work / "periods" / arm.replace(" ", "-")
        changed = replace(recipe, **changes)
        pretrain([work / str(ENCODER_SEED) / "archive"], encoder, changed, run, recipe="demo")
        for seed in SEEDS:
            out = work / "periods" / f"{seed}-{arm.replace(' ', '-')}"
            figures[arm].append(judge(work / str(seed), encoder, out))
            print(arm, seed, figures[arm][-1], flush=True)
    means = {arm: pd.DataFrame(found).mean() for arm, found in figures.items()}
    print(pd.DataFrame(means).T.round(3).to_string())
    settings = {"steps": recipe.steps, "seeds": list(SEEDS)}
    record = describe_machine(("torch", "lightly", "timm", "scipy"))
    write_json(RESULTS, {**record, "settings": settings, "raw": figures})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
