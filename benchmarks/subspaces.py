"""python -m benchmarks.subspaces WORK: what each sub-space of the change-preserving method knows.

A procedural country of 144 places and four periods, one of them an early spring. For three seeds,
SimCLR across periods and the change-preserving method train one small encoder for equal steps;
linear probes then ask each space for the year, the season, the place and the known development.
Every probe holds out whole places. WORK keeps the runs, so that the same command continues; the
figures go to benchmarks/results/subspaces.json, and their means to the screen as a table.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.record import describe_machine
from benchmarks.training import BATCH, VIEW_PX, build_config, run_config
from ecofm.artifact import write_json
from ecofm.pretrain import health
from ecofm.pretrain.encoders import Encoder
from ecofm.pretrain.opening import load as load_encoder
from ecofm.pretrain.run import pretrain
from ecofm.pretrain.years import ChangePreservingConfig
from ecofm.synth import CountryConfig, generate_country
from ecofm.tiles.archive import Archive, open_archive
from ecofm.tiles.ingest import TileConfig, tile

STEPS, SEEDS, N_CELLS = 600, (0, 1, 2), 12
RESULTS = Path(__file__).parent / "results" / "subspaces.json"
ARMS: dict[str, dict[str, Any]] = {
    "untrained": {"steps": 0},
    "SimCLR across periods": {},
    "change-preserving": {"method": ChangePreservingConfig()},
}
Known = dict[str, float]


def read_all(archive: Archive) -> tuple[Tensor, Tensor]:
    """Return all pixels (tile, band, height, width) and valid masks."""
    tiles = [archive.read(i) for i in range(archive.n_tiles)]
    pixels, valid = (torch.from_numpy(np.stack(part)) for part in zip(*tiles, strict=True))
    return pixels, valid


def embed_all(
    embed: Callable[[Tensor, Tensor], Tensor], pixels: Tensor, valid: Tensor
) -> np.ndarray:
    """Return features (tile, dim), a few tiles at a time."""
    parts = range(0, len(pixels), 20)
    with torch.inference_mode():
        return np.concatenate([embed(pixels[i : i + 20], valid[i : i + 20]).numpy() for i in parts])


def split(encoder: Encoder, embeddings: np.ndarray) -> dict[str, np.ndarray]:
    """Return the parts of embeddings by name."""
    return {name: embeddings[:, slice(*place)] for name, place in encoder.columns.items()}


def scale(features: np.ndarray) -> np.ndarray:
    """Return features with mean 0 and unit 1."""
    return (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)


def ask(
    space: np.ndarray,
    cells: np.ndarray,
    years: np.ndarray,
    seasons: np.ndarray,
    development: np.ndarray,
    seed: int,
) -> Known:
    """Return what a space knows: year and season (accuracy), place, development (Spearman)."""
    groups = np.unique(cells, return_inverse=True)[1]
    known = np.isfinite(development)
    inhabited = np.unique(groups[known], return_inverse=True)[1]
    return {
        "year": health.probe_accuracy(space, years, seed, groups),
        "season": health.probe_accuracy(space, seasons.astype(int), seed, groups),
        "place": find_places(space, cells, years),
        "development": health.probe_spearman(space[known], development[known], seed, inhabited),
    }


def find_places(space: np.ndarray, cells: np.ndarray, years: np.ndarray) -> float:
    """Return how often a tile's nearest tile of the next year shows the same cell."""
    hits = []
    for year in range(years.max()):
        parts = []
        for chosen in (year, year + 1):
            scaled = scale(space[years == chosen])  # per year, or the season decides
            parts.append(scaled / np.linalg.norm(scaled, axis=1, keepdims=True))
        nearest = (parts[0] @ parts[1].T).argmax(axis=1)
        now, then = cells[years == year], cells[years == year + 1]
        hits.extend(then[nearest][np.isin(now, then)] == now[np.isin(now, then)])
    return float(np.mean(hits))


def prepare(work: Path) -> tuple[Archive, np.ndarray, np.ndarray, np.ndarray]:
    """Return the country's archive, and each tile's period, early spring, and development."""
    if not (work / "country" / "truth.parquet").is_file():
        generate_country(work / "country", CountryConfig(n_cells=N_CELLS))
    tile([work / "country" / "scenes"], work / "archive", TileConfig(grid="utm:1280"))
    archive = open_archive(work / "archive")
    truth = pd.read_parquet(work / "country" / "truth.parquet").set_index(["cell_id", "period"])
    keys = pd.MultiIndex.from_frame(archive.index[["cell_id", "period"]])
    development = truth["development"].reindex(keys).to_numpy(dtype=float)
    periods, years = np.unique(archive.index["period"], return_inverse=True)
    return archive, years, years == len(periods) // 2, development


def print_table(figures: dict[str, list[Known]]) -> None:
    """Print the means over seeds, and their standard deviations, as a table in Markdown."""
    names = list(next(iter(figures.values()))[0])
    print("| space | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 1) + "|")
    for space, found in figures.items():
        cells = []
        for name in names:
            values = np.array([known[name] for known in found])
            cells.append(f"{values.mean():.3f} ± {values.std():.3f}")
        print(f"| {space} | " + " | ".join(cells) + " |")


def main(work: Path) -> None:
    """Train, ask, and write the figures after each seed."""
    torch.set_num_threads(1)
    archive, years, seasons, development = prepare(work)
    pixels, valid = read_all(archive)
    cells = archive.index["cell_id"].to_numpy()
    figures: dict[str, list[Known]] = {}
    for n_done, seed in enumerate(SEEDS, start=1):
        for arm, changes in ARMS.items():
            out = work / f"{arm.replace(' ', '-')}-{seed}"
            pretrain([work / "archive"], out, build_config(seed, STEPS, changes), run_config())
            encoder, _ = load_encoder(out)
            for part, space in split(encoder, embed_all(encoder, pixels, valid)).items():
                known = ask(space, cells, years, seasons, development, seed)
                figures.setdefault(f"{arm}: {part}", []).append(known)
        write_json(
            RESULTS,
            {
                "spaces": figures,
                "settings": {
                    "steps": STEPS, "batch_size": BATCH, "view_px": VIEW_PX,
                    "seeds": list(SEEDS[:n_done]), "n_places": N_CELLS**2, "n_periods": 4,
                },
                **describe_machine(("torch", "lightly", "timm")),
            },
        )  # fmt: skip
        print_table(figures)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
