"""python -m benchmarks.transfer_real DATA WORK [SEED...]: transfer between kinds of real chips.

The source ranker knows the ten annotators' orderings of the study's clusters, nothing else. The
labelled chips are another people's choice of places, with their own mixture of towns, fields and
wilderness: 0 to 200 comparisons of them, as their labels say, correct the source. Regions are
clusters of the labelled chips by their embeddings, so that what is left out looks like nothing that
was asked about. Judged by the labels of left-out chips. WORK is that of benchmarks.nk, whose
encoders are used or trained.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch

from benchmarks.nk import SEEDS, embed_arms, prepare
from benchmarks.record import describe_machine
from ecofm.artifact import write_json
from ecofm.benchmark.transfer import CurveConfig, measure_curve
from ecofm.benchmark.transfer_looks import draw_curve, render_table, summarise
from ecofm.cluster import ClusterConfig, cluster
from ecofm.demo.real import answer_by_level, level_chips
from ecofm.rank.heads import RankConfig
from ecofm.rank.run import rank

N_REGIONS, DRAWS = 8, 8
RESULTS = Path(__file__).parent / "results"


def answer(pairs: Sequence[tuple[str, str]], level: Mapping[str, float], seed: int) -> pd.DataFrame:
    """Return what the labels say of pairs of chips; they say it each time alike."""
    return answer_by_level(pairs, level)


def main(data: Path, work: Path, seeds: Sequence[int]) -> None:
    """Measure a curve for each encoder, and write the figures of all together."""
    torch.set_num_threads(1)
    known = prepare(data, work)
    tables = []
    for seed in seeds:
        next(embed_arms(work, known, seed))
        chips = work / "ecofm" / str(seed) / "chips"
        root = work / "transfer" / str(seed)
        cluster([chips], root / "regions", ClusterConfig(k=N_REGIONS, seed=seed))
        regions = pd.read_parquet(root / "regions" / "clusters.parquet")
        truth = known.labels.assign(level=level_chips(known.labels))
        truth = truth.merge(regions[["tile_id", "item"]], on="tile_id")
        truth["cell_id"] = truth["tile_id"].str.rsplit("@", n=1).str[0]
        truth[["cell_id", "level", "item"]].to_csv(root / "truth.csv", index=False)
        known.orderings.to_csv(root / "orderings.csv", index=False)
        known.members.to_csv(root / "members.csv", index=False)
        rank(
            [chips], root / "orderings.csv", root / "ranker", RankConfig(seed=seed),
            members=root / "members.csv",
        )  # fmt: skip
        config = CurveConfig(column="level", region="item", draws=DRAWS, seed=seed)
        measure_curve(root / "ranker", [chips], root / "truth.csv", root / "curve", config, answer)
        table = pd.read_csv(root / "curve" / "curve.csv")
        tables.append(table.assign(draw=table["draw"] + 100 * seed))
        print(seed, render_table(summarise(table)), sep="\n", flush=True)
    together = pd.concat(tables, ignore_index=True)
    summary = summarise(together)
    draw_curve(together, RESULTS / "transfer_real.png")
    settings = {"seeds": list(seeds), "draws": DRAWS, "regions": N_REGIONS, "recipe": "rgb8_demo"}
    record = describe_machine(("ecofm", "numpy", "scipy", "torch"))
    write_json(RESULTS / "transfer_real.json", {**record, "settings": settings, **summary})
    print(render_table(summary))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [int(seed) for seed in sys.argv[3:]] or SEEDS)
