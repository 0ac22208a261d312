"""python -m benchmarks.pretrain [views] [training] [options]: speed of pretraining on the CPU.

views: two views of 12 bands and 224 px, against torchgeo's default augmentation of its SimCLR
task, and against ours made of the same operations by kornia. training: ResNet-18 at 64 px end to
end, against torchgeo's SimCLR task on the same tiles; at torchgeo's precision, at ours, and ours
on one batch that stays in memory. options: that batch in either precision and memory format, and
compiled. All of a part is interleaved in one run; figures are ratios of medians, and the raw
seconds go to benchmarks/results/pretrain_speed.json. Quality is `python -m benchmarks.quality`.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ecofm.artifact import build_manifest, read_json, write_json
from ecofm.pretrain.devices import lay_out
from ecofm.pretrain.encoders import Encoder, EncoderConfig, Pooling
from ecofm.pretrain.methods import SimCLRConfig, build_method
from ecofm.pretrain.rendering import render_tiles
from ecofm.pretrain.views import ViewConfig, draw_parameters
from ecofm.synth import CountryConfig, generate_country
from ecofm.tiles.archive import Archive, open_archive
from ecofm.tiles.ingest import TileConfig, tile
from ecofm.tiles.loader import PairLoader

REPEATS = 5
RESULTS = Path(__file__).parent / "results" / "pretrain_speed.json"
Contestants = dict[str, Callable[[], None]]


def interleave(contestants: Contestants, repeats: int = REPEATS) -> dict[str, list[float]]:
    """Return each contestant's seconds; all are warmed once, and take turns."""
    for run in contestants.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, run in contestants.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def torchgeo_tasks() -> Any:
    """Return torchgeo's tasks, which were called trainers up to 0.8."""
    name = "tasks" if find_spec("torchgeo.tasks") else "trainers"
    return import_module(f"torchgeo.{name}")


def views_contestants(batch: int = 16) -> Contestants:
    """Two views a tile of 12 bands, 256 px, as stored."""
    from kornia import augmentation as K

    pixels = torch.randint(0, 4000, (2, batch, 12, 256, 256), dtype=torch.int32).to(torch.uint16)
    valid = torch.ones(2, batch, 256, 256, dtype=torch.bool)
    mean, std = torch.full((1, 12, 1, 1), 1500.0), torch.full((1, 12, 1, 1), 900.0)
    config = ViewConfig(size_px=224, min_zoom=0.9, max_zoom=1.4)

    def ours() -> None:
        for view in range(2):
            parameters = draw_parameters(
                config, seed=0, step=0, view=view, samples=slice(0, batch), n_global=batch,
                n_bands=12, tile_px=(256, 256),
            )  # fmt: skip
            render_tiles(pixels[view], valid[view], mean, std, parameters, 224)

    default = torchgeo_tasks().simclr.simclr_augmentations(224, torch.full((12,), 0.5))
    # Crop and zoom, flip, quarter turns; gain and offset of each band; grey: what our affines do.
    matched = K.AugmentationSequential(
        K.RandomResizedCrop(size=(224, 224), scale=(0.4, 1.0)),
        K.RandomHorizontalFlip(),
        K.RandomRotation90(times=(0, 3)),
        K.RandomBrightness(brightness=(0.8, 1.2), p=0.8),
        K.RandomContrast(contrast=(0.8, 1.2), p=0.8),
        data_keys=["input"],
    )

    def kornia(augment: Any) -> Callable[[], None]:
        def run() -> None:
            for view in range(2):
                augment((pixels[view].float() - 1500) / 900)

        return run

    return {
        "ecofm": ours,
        "torchgeo's default": kornia(default),
        "kornia, matched operations": kornia(matched),
    }


class Training:
    """Steps of SimCLR with ResNet-18 on pairs of 64 px tiles."""

    def __init__(
        self,
        archive: Archive,
        *,
        bf16: bool,
        fixed: bool = False,
        channels_last: bool = True,
        compile: bool = False,
    ) -> None:
        """Build the encoder; `fixed` trains on one batch of views that stays in memory."""
        torch.manual_seed(0)
        config = EncoderConfig(backbone="resnet18", pooling=Pooling.last, words=0)
        self.encoder = Encoder(config, archive.contract)
        self.method = lay_out(
            build_method(SimCLRConfig(), self.encoder), channels_last=channels_last,
            compile=compile, is_sharded=False, n_devices=1, on_gpu=False,
        )  # fmt: skip
        self.optimizer = torch.optim.AdamW(self.method.parameters(), lr=1e-3, fused=True)
        self.batches = iter(PairLoader([archive], batch_size=BATCH, seed=0, threads=1))
        self.bf16 = bf16
        self.fixed = self.views() if fixed else None

    def views(self) -> list[Tensor]:
        """Return the next batch's views."""
        batch = next(self.batches)
        views = []
        for view in range(2):
            pixels, valid = batch["pixels"][view], batch["valid"][view]
            parameters = draw_parameters(
                ViewConfig(size_px=64), seed=0, step=int(batch["step"]), view=view,
                samples=slice(0, BATCH), n_global=BATCH, n_bands=12, tile_px=pixels.shape[2:],
            )  # fmt: skip
            centre, spread = self.encoder.measure(pixels, valid)
            views.append(render_tiles(pixels, valid, centre, spread, parameters, 64))
        return views

    def __call__(self) -> None:
        """Make STEPS updates."""
        for _ in range(STEPS):
            views = self.fixed or self.views()
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                loss, *_ = self.method(*views)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


BATCH, STEPS = 32, 2


def torchgeo_training(archive: Archive) -> Callable[[], None]:
    """Return torchgeo's SimCLR task on the same tiles, read by torch's DataLoader."""
    pixels = np.stack([archive.read(i)[0] for i in range(archive.n_tiles)])
    task = torchgeo_tasks().SimCLRTask(model="resnet18", in_channels=12, size=64, lr=1e-3)
    task.log = lambda *args, **kwargs: None
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-3)

    class Tiles(torch.utils.data.Dataset[dict[str, Tensor]]):
        def __len__(self) -> int:
            return BATCH * STEPS

        def __getitem__(self, index: int) -> dict[str, Tensor]:
            tile = torch.from_numpy(pixels[index % len(pixels)].astype(np.float32))
            return {"image": (tile - 1500) / 900}

    def run() -> None:
        for batch in torch.utils.data.DataLoader(Tiles(), batch_size=BATCH):
            loss = task.training_step(batch, 0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run


def make_archive(root: Path) -> Archive:
    """Return a small synthetic country's tiles of 12 bands and 128 px."""
    generate_country(root, CountryConfig(n_cells=8))
    tile([root / "scenes"], root / "archive", TileConfig(grid="utm:1280"))
    return open_archive(root / "archive")


def training_contestants(archive: Archive) -> Contestants:
    """SimCLR end to end, from the archive to the update."""
    found: Contestants = {"torchgeo's task, fp32": torchgeo_training(archive)}
    for precision in precisions():
        for fixed in (False, True):
            name = f"ecofm, {precision}{', views in memory' if fixed else ''}"
            found[name] = Training(archive, bf16=precision == "bf16", fixed=fixed)
    return found


def option_contestants(archive: Archive) -> Contestants:
    """SimCLR on views in memory, with each of the options."""
    return {
        ", ".join([precision, layout, *(["compiled"] if compile else [])]): Training(
            archive, bf16=precision == "bf16", fixed=True,
            channels_last=layout == "channels_last", compile=compile,
        )
        for precision in precisions()
        for layout in ("contiguous", "channels_last")
        for compile in (False, True)
    }  # fmt: skip


def precisions() -> list[str]:
    """Return bf16 as well where the processor has it; emulated, it is ten times as slow."""
    has_bf16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return ["bf16", "fp32"] if has_bf16 else ["fp32"]


def report(title: str, seconds: dict[str, list[float]], n: int, base: str) -> None:
    """Print samples a second and ratios to `base`."""
    print(title)
    for name, values in seconds.items():
        ratio = np.median(seconds[base]) / np.median(values)
        print(f"  {name:32s} {n / np.median(values):8.1f}/s  {ratio:5.2f}x", flush=True)


def main(parts: list[str]) -> None:
    """Measure what is asked for, and add it to the recorded results."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    found: dict[str, Any] = read_json(RESULTS) if RESULTS.exists() else {}
    if "views" in parts:
        found["views"] = interleave(views_contestants())
        report("two 12x224x224 views a tile", found["views"], 16, "torchgeo's default")
    with tempfile.TemporaryDirectory() as folder:
        archive = make_archive(Path(folder)) if {"training", "options"} & set(parts) else None
        if archive and "training" in parts:
            found["training"] = interleave(training_contestants(archive))
            report(
                "ResNet-18, 64 px, pairs a second", found["training"], BATCH * STEPS,
                "torchgeo's task, fp32",
            )  # fmt: skip
        if archive and "options" in parts:
            found["options"] = interleave(option_contestants(archive))
            report(
                "the same on views in memory", found["options"], BATCH * STEPS, "fp32, contiguous"
            )
    found |= {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one torch thread",
        "versions": {name: version(name) for name in ("torch", "torchgeo", "kornia", "timm")},
        "commit": build_manifest("report", {}, {})["git_commit"],
    }
    write_json(RESULTS, found)


if __name__ == "__main__":
    main(sys.argv[1:] or ["views", "training", "options"])
