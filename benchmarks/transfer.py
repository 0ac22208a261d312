"""python -m benchmarks.transfer WORK: how many questions a ranker needs in a second country.

Two synthetic countries differ in climate, building style and sensor. The encoder sees the first
only, 150 steps; the source ranker learns from 600 simulated comparisons there. In the second
country 0 to 200 questions are asked, at random or by the picker of `ecofm compare serve`, and the
transferred ranker and one from scratch are judged in districts that were left out: SEEDS pairs of
countries, DRAWS draws each. WORK keeps the runs, so that the same command continues.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.record import describe_machine
from ecofm.artifact import write_json
from ecofm.benchmark.transfer import CurveConfig, measure_curve
from ecofm.benchmark.transfer_looks import draw_curve, render_table, summarise
from ecofm.embed import embed, open_embeddings
from ecofm.pretrain.run import RunConfig, pretrain
from ecofm.rank.heads import RankConfig
from ecofm.rank.run import rank
from ecofm.recipe import read_recipe
from ecofm.synth import AnnotatorConfig, CountryConfig, generate_country, simulate_comparisons
from ecofm.tiles.ingest import TileConfig, tile
from ecofm.types import progress_bar

SEEDS, DRAWS, STEPS, N_SOURCE_PAIRS = (0, 1, 2), 4, 150, 600
RESULTS = Path(__file__).parent / "results"
SECOND = {"climate": "arid", "style": "southern", "sensor": "second"}


def answer(pairs: Sequence[tuple[str, str]], level: Mapping[str, float], seed: int) -> pd.DataFrame:
    """Return what simulated annotators say."""
    return simulate_comparisons(pairs, level, AnnotatorConfig(), seed)


def prepare(root: Path, seed: int) -> None:
    """Draw and tile both countries, train the encoder and the ranker of the first."""
    source = CountryConfig(seed=100 + seed, n_cells=16, periods=("2019", "2020"))
    countries = {"source": source, "target": replace(source, seed=200 + seed, **SECOND)}
    for name, country in countries.items():
        if not (root / name / "archive" / "manifest.json").exists():
            generate_country(root / name, country)
            config = TileConfig(grid="utm:1280", min_valid_share=0.25)
            tile([root / name / "scenes"], root / name / "archive", config)
            shutil.rmtree(root / name / "scenes")
    recipe = replace(read_recipe("demo"), steps=STEPS, seed=seed)
    run = RunConfig(torch_threads=1, threads=1)
    pretrain([root / "source" / "archive"], root / "run", recipe, run, recipe="demo")
    for name in countries:
        embed([root / name / "archive"], root / "run", root / name / "embeddings")
    embeddings = root / "source" / "embeddings"
    known = set(open_embeddings([embeddings])[0]["tile_id"])
    truth = pd.read_parquet(root / "source" / "truth.parquet")
    truth["tile_id"] = truth["cell_id"] + "@" + truth["period"]
    truth = truth[truth["tile_id"].isin(known)]
    drawn = np.random.default_rng(0).choice(truth["tile_id"].to_numpy(), (N_SOURCE_PAIRS, 2))
    pairs = [(left, right) for left, right in drawn.tolist() if left != right]
    level = dict(zip(truth["tile_id"], truth["development"], strict=True))
    answer(pairs, level, 0).to_csv(root / "comparisons.csv", index=False)
    rank([embeddings], root / "comparisons.csv", root / "ranker", RankConfig())


def main(work: Path) -> None:
    """Prepare, measure, and write the figures of all seeds together."""
    tables = []
    for seed in SEEDS:
        root = work / str(seed)
        prepare(root, seed)
        measure_curve(
            root / "ranker", [root / "target" / "embeddings"], root / "target" / "truth.parquet",
            root / "curve", CurveConfig(column="development", region="district", draws=DRAWS),
            answer, progress=progress_bar(f"seed {seed}"),
        )  # fmt: skip
        table = pd.read_csv(root / "curve" / "curve.csv")
        tables.append(table.assign(draw=table["draw"] + 100 * seed))
    together = pd.concat(tables, ignore_index=True)
    summary = summarise(together)
    draw_curve(together, RESULTS / "transfer.png")
    settings = {"seeds": list(SEEDS), "draws": DRAWS, "steps": STEPS, "second_country": SECOND}
    record = describe_machine(("ecofm", "numpy", "scipy", "torch"))
    values = together.round(4).replace({np.nan: None}).to_dict("list")
    write_json(
        RESULTS / "transfer.json", {**record, "settings": settings, **summary, "raw": values}
    )
    print(render_table(summary))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
