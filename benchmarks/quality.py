"""python -m benchmarks.quality DATA WORK: what the features of short runs know, three seeds each.

Encoders of one size are trained for equal steps on the mosaics of one county (DATA/kosan, four
years), and judged on chips that they have not seen: kNN and linear probe on DATA/eurosat (ten
classes) and on DATA/nk_annotated (most of four people's votes: urban, rural, uninhabited), and the
rank correlation of a linear probe with the votes. For the change-preserving recipe, each sub-space
is asked for year, season, place and development of the county's tiles. WORK keeps the runs, so
that the same command continues; the figures go to benchmarks/results/pretrain_quality.json.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from ecofm.artifact import build_manifest, write_json
from ecofm.pretrain import health
from ecofm.pretrain.encoders import Encoder, EncoderConfig, Normalization, Pooling
from ecofm.pretrain.encoders import load as load_encoder
from ecofm.pretrain.module import Positives
from ecofm.pretrain.resume import AtomicCheckpointIO, newest_checkpoint
from ecofm.pretrain.run import PretrainConfig, RunConfig, pretrain
from ecofm.pretrain.students import SimCLRConfig
from ecofm.pretrain.views import ViewConfig
from ecofm.pretrain.years import ChangePreservingConfig
from ecofm.tiles.archive import Archive, open_archive
from ecofm.tiles.ingest import TileConfig, tile

STEPS, BATCH, VIEW_PX, SEEDS, N_FILTERS = 80, 32, 48, (0, 1, 2), 192
RESULTS = Path(__file__).parent / "results" / "pretrain_quality.json"
ARMS: dict[str, dict[str, Any]] = {
    "random initialisation": {"steps": 0},
    "single-period positives": {"positives": Positives.tile},
    "multi-period positives": {},
    "change-preserving": {"method": ChangePreservingConfig()},
}


def build_config(seed: int, changes: dict[str, Any]) -> PretrainConfig:
    """Return the config of an arm: the same encoder, steps and views for all."""
    fields: dict[str, Any] = {
        "steps": STEPS,
        "batch_size": BATCH,
        "seed": seed,
        "views": ViewConfig(size_px=VIEW_PX),
        "method": SimCLRConfig(),
        "encoder": EncoderConfig(
            backbone="resnet10t", width=0.5, normalization=Normalization.tile,
            pooling=Pooling.stages, words=0,
        ),
    }  # fmt: skip
    return PretrainConfig(**(fields | changes))


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
            "eurosat_knn": health.knn_accuracy(_scale(eurosat), self.classes),
            "eurosat_probe": health.probe_accuracy(eurosat, self.classes, seed),
            "annotated_knn": health.knn_accuracy(_scale(annotated), self.votes),
            "annotated_probe": health.probe_accuracy(annotated, self.votes, seed),
            "annotated_spearman": health.probe_spearman(annotated, self.development, seed),
        }


def _scale(features: np.ndarray) -> np.ndarray:
    return (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)


def ablate(run: Path, county: Archive, data: Path, seed: int) -> dict[str, dict[str, float]]:
    """Return what trunk and sub-spaces know: year and season (1 is all), place, development."""
    encoder, _ = load_encoder(run)
    checkpoint = newest_checkpoint(run / "checkpoints")
    assert checkpoint is not None
    state = AtomicCheckpointIO().load_checkpoint(checkpoint)["state_dict"]
    trunk = embed_all(lambda p, v: encoder.encode(encoder.normalize(p, v), v), *read_all(county))
    spaces = {"trunk": trunk}
    for name in ("invariant", "years"):
        weight, bias = (state[f"method.{name}.{part}"].numpy() for part in ("weight", "bias"))
        spaces[name] = trunk @ weight.T + bias
    index = county.index
    years = np.unique(index["period"], return_inverse=True)[1]
    floors = pd.read_csv(data / "nk_tables" / "tiles.csv.gz").set_index("y_x")
    area = floors["floor_area_2014_m2"].reindex(index["cell_id"]).to_numpy(dtype=float)
    known = np.isfinite(area)
    return {
        name: {
            "year_probe": health.probe_accuracy(space, years, seed),
            # 2016 is brown, the other years are green.
            "season_probe": health.probe_accuracy(space, (years == 0).astype(int), seed),
            "place_found": find_places(space, index["cell_id"].to_numpy(), years),
            "development_spearman": health.probe_spearman(space[known], area[known], seed),
        }
        for name, space in spaces.items()
    }


def find_places(space: np.ndarray, cells: np.ndarray, years: np.ndarray) -> float:
    """Return how often a tile's nearest tile of the next year shows the same cell."""
    hits = []
    for year in range(years.max()):
        parts = []
        for chosen in (year, year + 1):
            scaled = _scale(space[years == chosen])  # per year, or the season decides
            parts.append(scaled / np.linalg.norm(scaled, axis=1, keepdims=True))
        nearest = (parts[0] @ parts[1].T).argmax(axis=1)
        now, then = cells[years == year], cells[years == year + 1]
        hits.extend(then[nearest][np.isin(now, then)] == now[np.isin(now, then)])
    return float(np.mean(hits))


def main(data: Path, work: Path) -> None:
    """Train, judge, and write the figures after each run."""
    torch.set_num_threads(1)
    mosaics = sorted((data / "kosan").glob("S2_RGB_*.tif"))
    tile(mosaics, work / "county", TileConfig(grid="xyz:14"))
    county = open_archive(work / "county")
    chips = Chips(data, work)
    figures: dict[str, list[dict[str, float]]] = {}
    spaces: list[dict[str, dict[str, float]]] = []
    run_config = RunConfig(accelerator="cpu", torch_threads=1, threads=1, checkpoint_every=STEPS)
    for seed in SEEDS:
        for arm, changes in ARMS.items():
            out = work / f"{arm.replace(' ', '-')}-{seed}"
            pretrain([work / "county"], out, build_config(seed, changes), run_config)
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
                    "seeds": list(SEEDS),
                },
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
                "versions": {name: version(name) for name in ("torch", "lightly", "timm")},
                "commit": build_manifest("report", {}, {})["git_commit"],
            },
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
