"""python -m benchmarks.rank [TILES ...]: time and memory of ranking, by the number of tiles.

Ten annotators compare 100,000 pairs: tiles with each other, or the tiles' 500 clusters. Embeddings
are 256 random numbers a tile, in four periods a cell, and a sum of them is the truth. Each line is
of a process of its own, which ran `ecofm rank` alone: seconds, the most anonymous memory it had,
and what both are of those with the fewest tiles.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from benchmarks.plan import anon_mb
from benchmarks.record import describe_machine
from ecofm.artifact import Draft, write_json
from ecofm.embed import open_embeddings
from ecofm.rank.heads import RankConfig
from ecofm.rank.opening import load_ranker
from ecofm.rank.run import rank
from ecofm.types import Contract

DIM, N_COMPARISONS, N_CLUSTERS, N_ANNOTATORS = 256, 100_000, 500, 10
N_PERIODS, CHUNK = 4, 65_536
SIZES = (100_000, 1_000_000)
RESULTS = Path(__file__).parent / "results" / "rank.json"


def write_inputs(work: Path, n_tiles: int) -> None:
    """Write embeddings, clusters and what annotators say of tiles and of clusters."""
    random = np.random.default_rng(0)
    cells = np.arange(n_tiles) // N_PERIODS
    cell_ids = pd.Series([f"0_{cell}" for cell in cells.tolist()])
    periods = pd.Series(np.arange(n_tiles) % N_PERIODS + 2019).astype(str)
    tile_ids = cell_ids + "@" + periods
    columns = {"tile_id": tile_ids, "cell_id": cell_ids, "period": periods, "group": ""}
    nowhere = gpd.GeoSeries([None] * n_tiles, crs="EPSG:4326")
    contract = Contract(
        bands=("red",), dtype="uint8", units="digital number", scale=1.0, offset=0.0,
        valid_range=(0.0, 255.0), gsd_m=None, mean=(0.0,), std=(1.0,),
    )  # fmt: skip
    draft = Draft(work / "embeddings", stage="embeddings", config={}, inputs={"encoder": "0"})
    draft.extra = {"dim": DIM, "attribution": "none", "contract": contract.to_json()}
    truth = np.empty(n_tiles)
    # Tiles differ in some directions more than in others, and periods of a cell hardly.
    scale, weights = np.linspace(1, 0, DIM) ** 2, random.normal(size=DIM)
    with draft as folder:
        index = gpd.GeoDataFrame(columns | {"valid_share": 1.0}, geometry=nowhere)
        index.to_parquet(folder / "index.parquet")
        shape = (n_tiles, DIM)
        path = folder / "embeddings.npy"
        matrix = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        for start in range(0, n_tiles, CHUNK):
            rows = slice(start, min(start + CHUNK, n_tiles))
            own, again = np.unique(cells[rows], return_inverse=True)
            places = random.normal(size=(len(own), DIM)) * scale
            truth[rows] = (places @ weights)[again] / np.linalg.norm(scale * weights)
            matrix[rows] = places[again] + random.normal(0, 0.1, (len(again), DIM))
        matrix.flush()
    np.save(work / "truth.npy", truth)
    # Clusters are of tiles alike, as k-means would have them.
    cluster = np.argsort(np.argsort(truth + random.normal(0, 0.5, n_tiles))) * N_CLUSTERS // n_tiles
    names = pd.Series(cluster).astype(str).str.zfill(3)
    pd.DataFrame({"tile_id": tile_ids, "item": names}).to_parquet(work / "members.parquet")
    levels = pd.Series(truth).groupby(names).mean()
    compare(tile_ids.to_numpy(), truth, random).to_csv(work / "tiles.csv", index=False)
    said = compare(levels.index.to_numpy(), levels.to_numpy(), random)
    said.to_csv(work / "clusters.csv", index=False)


def compare(names: np.ndarray, level: np.ndarray, random: np.random.Generator) -> pd.DataFrame:
    """Return what annotators say of random pairs."""
    left, right = random.integers(0, len(names), (2, N_COMPARISONS))
    right = np.where(left == right, (right + 1) % len(names), right)
    ahead = level[left] - level[right] + random.logistic(0, 0.3, N_COMPARISONS) > 0
    who = random.integers(0, N_ANNOTATORS, N_COMPARISONS)
    return pd.DataFrame(
        {
            "annotator": [f"a{number}" for number in who.tolist()],
            "left": names[left],
            "right": names[right],
            "outcome": np.where(ahead, "left", "right"),
        }
    )


def measure(work: Path, what: str) -> None:
    """Rank in this process and print seconds and the largest anonymous memory as JSON."""
    held = [anon_mb()]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            held.append(anon_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    members = work / "members.parquet" if what == "clusters" else None
    out = work / f"ranker-{what}"
    rank([work / "embeddings"], work / f"{what}.csv", out, RankConfig(), members=members)
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    _, matrix, _ = open_embeddings([work / "embeddings"])
    seen = slice(0, 100_000)
    scores = load_ranker(out)[0].predict(matrix[seen]).mean(axis=0)
    found = spearmanr(scores, np.load(work / "truth.npy")[seen])[0]
    print(json.dumps({"seconds": seconds, "anon_mb": max(held), "spearman": float(found)}))


def main(sizes: list[int]) -> None:
    """Measure each size in a process of its own, print the table and write the figures."""
    rows = []
    for n_tiles in sizes:
        with tempfile.TemporaryDirectory() as folder:
            write_inputs(Path(folder), n_tiles)
            for what in ("clusters", "tiles"):
                command = [sys.executable, "-m", "benchmarks.rank", "--measure", folder, what]
                said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                found = json.loads(said.splitlines()[-1])
                rows.append({"compared": what, "tiles": n_tiles, **found})
                print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    for name in ("seconds", "anon_mb"):
        table[f"{name}_ratio"] = table[name] / table.groupby("compared")[name].transform("first")
    print(table.round(2).to_string(index=False))
    settings = {"comparisons": N_COMPARISONS, "annotators": N_ANNOTATORS, "dim": DIM}
    record = describe_machine(("numpy", "scipy", "torch", "pandas"))
    write_json(RESULTS, {**record, "settings": settings, "raw": table.to_dict("records")})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(Path(sys.argv[2]), sys.argv[3])
    else:
        main([int(size) for size in sys.argv[1:]] or list(SIZES))
