"""What a step's views cost apart from the model: drawing, copying, rendering."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.gpu.inputs import BANDS, Bench, measure_seconds
from ecofm.pretrain.rendering import render_tiles
from ecofm.pretrain.views import ViewConfig, draw_parameters
from ecofm.tiles.archive import open_archive
from ecofm.tiles.loader import PairLoader

SIZES = {"224 px of 256": ("utm:2560", 224, 256), "64 px of 128": ("utm:1280", 64, 1024)}


def measure_views(bench: Bench) -> dict[str, Any]:
    """Return milliseconds of each part for one view of a batch of tiles, and views a second."""
    return {name: _measure(bench, *size) for name, size in SIZES.items()}


def _measure(bench: Bench, grid: str, size_px: int, n: int) -> dict[str, float]:
    n = 4 if bench.is_tiny else n
    archive = open_archive(bench.archive(grid))
    batch = next(iter(PairLoader([archive], batch_size=n, seed=0)))
    pixels, valid = batch["pixels"][0], batch["valid"][0]
    mean, std = (
        torch.tensor(values, device=bench.device)[None, :, None, None]
        for values in (archive.contract.mean, archive.contract.std)
    )
    here = [part.to(bench.device) for part in (pixels, valid)]

    def draw() -> Any:
        return draw_parameters(
            ViewConfig(size_px=size_px), seed=0, step=0, view=0, samples=slice(0, n),
            n_global=n, n_bands=BANDS, tile_px=archive.tile_px,
        )  # fmt: skip

    parameters = draw()
    seconds = {
        "draw": measure_seconds(draw, bench),
        "copy": measure_seconds(
            lambda: [part.to(bench.device, non_blocking=True) for part in (pixels, valid)], bench
        ),
        "render": measure_seconds(
            lambda: render_tiles(*here, mean, std, parameters, size_px), bench
        ),
    }
    found = {f"{name}_ms": 1e3 * value for name, value in seconds.items()}
    found["copy_gb_s"] = (pixels.nbytes + valid.nbytes) / seconds["copy"] / 1e9
    found["views_s"] = n / sum(seconds.values())
    found["rendered_views_s"] = n / seconds["render"]
    return found
