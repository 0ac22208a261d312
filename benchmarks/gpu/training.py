"""Pretraining: the model alone on views in memory, then end to end through `pretrain`.

Images are counted as views that pass the trained encoder forwards and backwards: two a pair.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.inputs import Bench, Clock, forget_peak, measure_seconds, one_line, peak_gib
from ecofm.pretrain.devices import lay_out
from ecofm.pretrain.encoders import Encoder, EncoderConfig, Pooling
from ecofm.pretrain.methods import build_method
from ecofm.pretrain.module import ContrastiveModule
from ecofm.pretrain.run import PretrainConfig, RunConfig, pretrain
from ecofm.pretrain.students import SimCLRConfig
from ecofm.pretrain.views import ViewConfig
from ecofm.tiles.archive import open_archive
from ecofm.tiles.loader import PairLoader

WARM_STEPS, FLOP_PAIRS = 12, 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A backbone at a size."""

    backbone: str
    pooling: Pooling
    view_px: int
    grid: str
    pairs: int

    def shrink(self, bench: Bench) -> Case:
        """Return it in a size for a rehearsal on the CPU."""
        if not bench.is_tiny:
            return self
        is_vit = self.backbone.startswith("vit")
        backbone = "vit_tiny_patch16_224" if is_vit else "resnet10t"
        return replace(self, backbone=backbone, view_px=32, pairs=4)

    def config(self, steps: int) -> PretrainConfig:
        """Return what `pretrain` is told."""
        return PretrainConfig(
            steps=steps,
            batch_size=self.pairs,
            warmup_steps=10,
            learning_rate=1e-4,
            encoder=EncoderConfig(backbone=self.backbone, pooling=self.pooling, words=0),
            views=ViewConfig(size_px=self.view_px),
            method=SimCLRConfig(),
        )


CASES = {
    "resnet18 64 px": Case(
        backbone="resnet18", pooling=Pooling.stages, view_px=64, grid="utm:1280", pairs=1024
    ),
    "resnet50 224 px": Case(
        backbone="resnet50", pooling=Pooling.stages, view_px=224, grid="utm:2560", pairs=256
    ),
    "vit_small 224 px": Case(
        backbone="vit_small_patch16_224", pooling=Pooling.last, view_px=224, grid="utm:2560",
        pairs=512,
    ),
}  # fmt: skip


class InMemory:
    """Steps of a method on views that stay in the device's memory."""

    def __init__(self, case: Case, bench: Bench, *, compile: bool) -> None:
        """Build the method as `pretrain` does, and make one batch of views."""
        torch.manual_seed(0)
        archive = open_archive(bench.archive(case.grid))
        config = case.config(steps=1000)
        encoder = Encoder(config.encoder, archive.contract)
        method = lay_out(
            build_method(config.method, encoder), channels_last=True, compile=compile,
            is_sharded=False, n_devices=1, on_gpu=bench.on_gpu,
        )  # fmt: skip
        self.module = ContrastiveModule(
            method, config.views, [archive], batch_size=case.pairs, seed=0, steps=1000,
            warmup_steps=10, learning_rate=1e-4, weight_decay=1e-4, threads=0,
        ).to(bench.device)  # fmt: skip
        self.device = bench.device
        self.optimizer = self.module.configure_optimizers()
        self.views = self._make_views(archive, case)

    def _make_views(self, archive: Any, case: Case) -> list[Tensor]:
        module = self.module
        loader = PairLoader([archive], batch_size=case.pairs, seed=0, places=module.places)
        batch = next(iter(loader))
        batch |= {name: batch[name].to(self.device) for name in ("pixels", "valid")}
        with torch.no_grad():
            return [module.view(batch, 0, tile, stream, 0) for tile, stream in module.sources]

    def __call__(self) -> None:
        """Make one update."""
        self.optimizer.zero_grad()
        self.backward(self.views)
        self.optimizer.step()

    def backward(self, views: list[Tensor]) -> None:
        """Add a batch's gradients."""
        is_mixed = self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=is_mixed):
            loss, *_ = self.module.method(*views)
        loss.backward()

    def count_flops(self) -> float:
        """Return the floating-point operations of an image, forwards and backwards."""
        with FlopCounterMode(display=False) as counter:
            self.backward([view[:FLOP_PAIRS] for view in self.views])
        return counter.get_total_flops() / (2 * FLOP_PAIRS)


def measure_training(name: str, bench: Bench, reached: float | None) -> dict[str, Any]:
    """Return the rates of a case; `reached` are the TFLOP/s of the device's matrix product.

    A batch that does not fit is halved.
    """
    case = CASES[name].shrink(bench)
    while True:
        try:
            return _measure(case, bench, reached)
        except torch.OutOfMemoryError:
            if case.pairs <= 32:
                raise
            case = replace(case, pairs=case.pairs // 2)
            print(f"  out of memory: {case.pairs} pairs now", flush=True)


def _measure(case: Case, bench: Bench, reached: float | None) -> dict[str, Any]:
    found: dict[str, Any] = {"pairs": case.pairs, "images_s": {}, "peak_gib": {}}
    for compile in (False, True) if bench.compiles else (False,):
        way = "compiled" if compile else "eager"
        forget_peak(bench)
        with one_line(f"{way}, views in memory"):
            steps = InMemory(case, bench, compile=compile)
            if not compile:
                found["gflop_per_image"] = steps.count_flops() / 1e9
            rate = 2 * case.pairs / measure_seconds(steps, bench)
        del steps
        found["images_s"][f"{way}, in memory"] = rate
        found["peak_gib"][f"{way}, in memory"] = peak_gib(bench)
        forget_peak(bench)
        with one_line(f"{way}, end to end"):
            found["images_s"][f"{way}, end to end"] = _end_to_end(case, bench, rate, compile)
        found["peak_gib"][f"{way}, end to end"] = peak_gib(bench)
    rates: dict[str, float] = found["images_s"]
    found["ratio"] = {
        way: rates[f"{way}, end to end"] / rates[f"{way}, in memory"]
        for way in ("eager", "compiled")
        if f"{way}, in memory" in rates
    }
    found["tflop_s"] = {way: rate * found["gflop_per_image"] / 1e3 for way, rate in rates.items()}
    found["utilisation"] = {
        way: value / reached if reached else None for way, value in found["tflop_s"].items()
    }
    found["loader_images_s"] = 2 * _measure_loader(case, bench)
    return found


def _end_to_end(case: Case, bench: Bench, in_memory: float, compile: bool) -> float:
    """Return images a second of `pretrain`, from the archive on disk to the update."""
    warm, n = WARM_STEPS, min(400, max(20, math.ceil(6 * in_memory / (2 * case.pairs))))
    if bench.is_tiny:
        warm, n = 1, 2
    clock = Clock()
    pretrain(
        [bench.archive(case.grid)],
        bench.work / "runs" / f"{case.backbone} {case.grid} {case.pairs} {compile}",
        case.config(warm + n + 1),
        RunConfig(
            threads=bench.threads, accelerator=bench.accelerator, precision=bench.precision,
            compile=compile, checkpoint_every=10**6,
        ),
        progress=clock,
    )  # fmt: skip
    # The last step writes the checkpoint.
    return 2 * case.pairs * clock.rate(warm - 1, -2)


def _measure_loader(case: Case, bench: Bench) -> float:
    """Return pairs a second of the loader alone, once it has hashed the tiles."""
    archive = open_archive(bench.archive(case.grid))
    loader = PairLoader([archive], batch_size=case.pairs, seed=0, threads=bench.threads)
    batches = iter(loader)
    warm = math.ceil(1.5 * archive.n_tiles / case.pairs) + 4
    return case.pairs / measure_seconds(lambda: next(batches), bench, warm)
