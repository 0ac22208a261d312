"""The stages after pretraining: embedding, fine-tuning, and FAISS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.gpu.inputs import Bench, Clock, forget_peak, measure_seconds, one_line, peak_gib
from ecofm import artifact, load_encoder
from ecofm.embed import embed
from ecofm.errors import MissingExtraError
from ecofm.kmeans import import_faiss
from ecofm.pretrain import encoders
from ecofm.pretrain.encoders import Encoder, EncoderConfig, Pooling
from ecofm.pretrain.views import ViewConfig
from ecofm.rank.finetune import FinetuneConfig, _tune
from ecofm.rank.items import pair_items
from ecofm.tiles.archive import open_archive

TINY = EncoderConfig(backbone="resnet10t", words=0)
ENCODERS = {
    "resnet18, 128 px": (EncoderConfig(backbone="resnet18", words=0), "utm:1280"),
    "resnet18 and 256 words, 128 px": (EncoderConfig(backbone="resnet18"), "utm:1280"),
    "vit_small, 256 px": (
        EncoderConfig(backbone="vit_small_patch16_224", pooling=Pooling.last, words=0), "utm:2560",
    ),
}  # fmt: skip
BATCH, COMPARED = 32, 16


def write_encoder(bench: Bench, config: EncoderConfig, archive: Path) -> Path:
    """Write an encoder with random weights and return its folder."""
    torch.manual_seed(0)
    encoder = Encoder(config, open_archive(archive).contract)
    out = bench.work / f"encoder_{config.backbone}_{config.words}"
    if not out.exists():
        with artifact.Draft(out, stage="encoder", config={}, inputs={}) as folder:
            encoders.save(folder, encoder, {})
    return out


def measure_embedding(bench: Bench) -> dict[str, Any]:
    """Return tiles a second of `embed` and of the model alone, and how far CPU and GPU differ."""
    found: dict[str, Any] = {}
    for name, (config, grid) in ENCODERS.items():
        config = TINY if bench.is_tiny else config
        path = bench.archive(grid)
        encoder = write_encoder(bench, config, path)
        clock = Clock()
        forget_peak(bench)
        with one_line(name):
            embed([path], encoder, bench.work / f"embeddings_{len(found)}", progress=clock)
            rate = clock.rate(0, -1) if len(clock.moments) > 1 else None
            alone, difference = _model_alone(bench, encoder, path)
        found[name] = {
            "tiles_s": rate, "model_only_tiles_s": alone, "peak_gib": peak_gib(bench),
            "largest_difference_from_cpu": difference,
        }  # fmt: skip
    return found


def _model_alone(bench: Bench, encoder: Path, path: Path) -> tuple[float, float]:
    """Return tiles a second in memory, and the largest difference from the CPU's in deviations."""
    model, _ = load_encoder(encoder)
    archive = open_archive(path)
    n_tiles = 4 if bench.is_tiny else BATCH
    tiles = [archive.read(n) for n in range(n_tiles)]
    pixels, valid = (torch.from_numpy(np.stack(part)) for part in zip(*tiles, strict=True))
    with torch.inference_mode():
        expected = model(pixels[:COMPARED], valid[:COMPARED])
        model, pixels, valid = (part.to(bench.device) for part in (model, pixels, valid))
        got = model(pixels[:COMPARED], valid[:COMPARED]).cpu()
        seconds = measure_seconds(lambda: model(pixels, valid), bench)
    spread = expected.std(dim=0).mean()
    return len(pixels) / seconds, float((got - expected).abs().max() / spread)


def measure_finetuning(bench: Bench) -> dict[str, Any]:
    """Return steps a second of fine-tuning, and which device it trains on."""
    path = bench.small_archive()
    config = TINY if bench.is_tiny else EncoderConfig(backbone="resnet18", words=0)
    archive = open_archive(path)
    model = Encoder(config, archive.contract)
    tile_ids = archive.index["tile_id"]
    pairs = pair_items(_answer_at_random(tile_ids.to_list()), tile_ids, None)
    size_px, steps = (32, 3) if bench.is_tiny else (128, 20)
    told = FinetuneConfig(steps=steps, views=ViewConfig(size_px=size_px))
    clock = Clock()
    _tune(model, [archive], pairs, told, clock)
    rate = clock.rate(0, -1)
    images = 2 * 2 * told.pairs * told.exemplars  # two sides, in two renderings
    return {"steps_s": rate, "images_s": rate * images, "trained_on": model.mean.device.type}


def _answer_at_random(tile_ids: list[str]) -> pd.DataFrame:
    random = np.random.default_rng(0)
    left, right = zip(*(random.choice(tile_ids, 2, replace=False) for _ in range(200)), strict=True)
    outcome = random.choice(["left", "right"], len(left))
    said = {"annotator": "random", "left": left, "right": right, "outcome": outcome}
    return pd.DataFrame(said, dtype=str)


def measure_faiss(bench: Bench) -> dict[str, Any]:
    """Return seconds of k-means and search, on the GPU and on the CPU."""
    try:
        faiss = import_faiss()
    except MissingExtraError:
        return {"note": "faiss is not installed"}
    n, dim, k = (2000, 32, 16) if bench.is_tiny else (500_000, 512, 256)
    points = np.random.default_rng(0).standard_normal((n, dim), dtype=np.float32)
    has_gpu = bench.on_gpu and hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
    found: dict[str, Any] = {"n": n, "dim": dim, "k": k}
    for where in ("cpu", "gpu") if has_gpu else ("cpu",):
        kmeans = faiss.Kmeans(
            dim, k, niter=10, seed=0, gpu=where == "gpu", max_points_per_centroid=n // k
        )
        index = faiss.IndexFlatL2(dim)
        if where == "gpu":
            index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
        index.add(points)
        found[where] = {
            "kmeans_s": measure_seconds(lambda m=kmeans: m.train(points), bench, warm=0),
            "search_1000_s": measure_seconds(lambda i=index: i.search(points[:1000], 10), bench),
        }
    if not has_gpu:
        found["note"] = "faiss-gpu is not installed"
    return found
