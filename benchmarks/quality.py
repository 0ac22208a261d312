"""python -m benchmarks.quality DATA WORK: what the features of short runs know, three seeds each.

Encoders of one size are trained for equal steps on the mosaics of one county (DATA/kosan, four
years), and judged on chips that they have not seen: kNN and linear probe on DATA/eurosat (ten
classes) and on DATA/nk_annotated (most of four people's votes: urban, rural, uninhabited), and the
rank correlation of a linear probe with the votes. For the change-preserving recipe, each sub-space
is asked for year, season, place and development of the county's tiles. WORK keeps the runs, so
that the same command continues; the figures go to benchmarks/results/pretrain_quality.json.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.record import describe_machine
from benchmarks.subspaces import ask, embed_all, read_all, scale, split
from benchmarks.training import BATCH, VIEW_PX, build_config, run_config
from ecofm.artifact import write_json
from ecofm.pretrain import health
from ecofm.pretrain.encoders import Encoder, Normalization
from ecofm.pretrain.module import Positives
from ecofm.pretrain.opening import load as load_encoder
from ecofm.pretrain.run import pretrain
from ecofm.pretrain.years import ChangePreservingConfig
from ecofm.tiles.archive import Archive, open_archive
from ecofm.tiles.ingest import TileConfig, tile

STEPS, SEEDS, N_FILTERS = 600, (0, 1, 2), 192
RESULTS = Path(__file__).parent / "results" / "pretrain_quality.json"
ARMS: dict[str, dict[str, Any]] = {
    "random initialisation": {"steps": 0},
    "single-period positives": {"positives": Positives.tile},
    "multi-period positives": {},
    "change-preserving": {"method": ChangePreservingConfig()},
}


def random_filters(encoder: Encoder, seed: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return features of one random convolution: the log mean and spread of its responses."""
    generator = torch.Generator().manual_seed(seed)
    filters = torch.randn(N_FILTERS, 3, 5, 5, generator=generator)
    filters -= filters.mean(dim=(2, 3), keepdim=True)

    def embed(pixels: Tensor, valid: Tensor) -> Tensor:
        responses = F.conv2d(encoder.normalize(pixels, valid), filters).relu_()
        return torch.cat(
            [(responses.mean(dim=(2, 3)) + 1e-3).log(), (responses.std(dim=(2, 3)) + 1e-3).log()], 1
        )

    return embed


class Chips:
    """Chips with labels: what the features are judged by."""

    def __init__(self, data: Path, work: Path) -> None:
        """Tile and read them."""
        for name in ("eurosat", "nk_annotated"):
            tile([data / name], work / name, TileConfig(grid="none"))
        eurosat = open_archive(work / "eurosat")
        self.eurosat = read_all(eurosat)
        self.classes = np.unique(eurosat.index["group"], return_inverse=True)[1]
        annotated = open_archive(work / "nk_annotated")
        self.annotated = read_all(annotated)
        votes = pd.read_csv(data / "nk_annotated" / "labels.csv").set_index("image_id")
        names = [int(Path(cell).stem) for cell in annotated.index["cell_id"]]
        shares = votes.loc[names, ["urban", "rural", "uninhabited"]].to_numpy()
        self.votes = shares.argmax(axis=1)
        self.development = shares[:, 0] - shares[:, 2]

    def judge(self, embed: Callable[[Tensor, Tensor], Tensor], seed: int) -> dict[str, float]:
        """Return the figures of a way to embed."""
        eurosat = embed_all(embed, *self.eurosat)
        annotated = embed_all(embed, *self.annotated)
        return {
            "eurosat_knn": health.knn_accuracy(scale(eurosat), self.classes),
            "eurosat_probe": health.probe_accuracy(eurosat, self.classes, seed),
            "annotated_knn": health.knn_accuracy(scale(annotated), self.votes),
            "annotated_probe": health.probe_accuracy(annotated, self.votes, seed),
            "annotated_spearman": health.probe_spearman(annotated, self.development, seed),
        }


def ablate(run: Path, county: Archive, data: Path, seed: int) -> dict[str, dict[str, float]]:
    """Return what trunk and sub-spaces know of the county's tiles; floor area is development."""
    encoder, _ = load_encoder(run)
    spaces = split(encoder, embed_all(encoder, *read_all(county)))
    floors = pd.read_csv(data / "nk_tables" / "tiles.csv.gz").set_index("y_x")
    area = floors["floor_area_2014_m2"].reindex(county.index["cell_id"]).to_numpy(dtype=float)
    years = np.unique(county.index["period"], return_inverse=True)[1]
    # 2016 is brown, the other years are green.
    return {
        name: ask(space, county.index["cell_id"].to_numpy(), years, years == 0, area, seed)
        for name, space in spaces.items()
    }


def main(data: Path, work: Path) -> None:
    """Train, judge, and write the figures after each run."""
    torch.set_num_threads(1)
    mosaics = sorted((data / "kosan").glob("S2_RGB_*.tif"))
    tile(mosaics, work / "county", TileConfig(grid="xyz:14"))
    county = open_archive(work / "county")
    chips = Chips(data, work)
    figures: dict[str, list[dict[str, float]]] = {}
    spaces: list[dict[str, dict[str, float]]] = []
    for n_done, seed in enumerate(SEEDS, start=1):
        for arm, changes in ARMS.items():
            out = work / f"{arm.replace(' ', '-')}-{seed}"
            config = build_config(seed, STEPS, changes, normalization=Normalization.tile)
            pretrain([work / "county"], out, config, run_config())
            encoder, _ = load_encoder(out)
            figures.setdefault(arm, []).append(chips.judge(encoder, seed))
            print(seed, arm, figures[arm][-1], flush=True)
            if arm == "random initialisation":
                filters = chips.judge(random_filters(encoder, seed), seed)
                figures.setdefault("random convolutional features", []).append(filters)
                print(seed, "random convolutional features", filters, flush=True)
            if arm == "change-preserving":
                spaces.append(ablate(out, county, data, seed))
                print(seed, spaces[-1], flush=True)
        write_json(
            RESULTS,
            {
                "chips": figures,
                "subspaces": spaces,
                "settings": {
                    "steps": STEPS,
                    "batch_size": BATCH,
                    "view_px": VIEW_PX,
                    "seeds": list(SEEDS[:n_done]),
                },
                **describe_machine(("torch", "lightly", "timm")),
            },
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
