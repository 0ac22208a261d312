"""What a step's views cost apart from the model: drawing, copying, rendering."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.gpu.inputs import BANDS, Bench, measure_seconds
from ecofm.pretrain import rendering
from ecofm.pretrain.views import ViewConfig, draw_parameters
from ecofm.tiles.archive import open_archive
from ecofm.tiles.loader import PairLoader

SIZES = {"224 px of 256": ("utm:2560", 224, 256), "64 px of 128": ("utm:1280", 64, 1024)}


def measure_views(bench: Bench) -> dict[str, Any]:
    """Return milliseconds of each part for one view of a batch of tiles, and views a second.

    Where the kernel fails or makes other views, the sections after this one go without it.
    """
    try:
        return {name: _measure(bench, *size) for name, size in SIZES.items()}
    except Exception:
        rendering.FUSES = False
        raise


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

    def render() -> torch.Tensor:
        return rendering.render_tiles(*here, mean, std, parameters, size_px)

    found = {}
    if bench.on_gpu and rendering.FUSES:
        fused = render()
        rendering.FUSES = False
        difference = float((render() - fused).abs().max())
        found["render_without_kernel_ms"] = 1e3 * measure_seconds(render, bench)
        rendering.FUSES = True
        found["largest_difference"] = difference
        if not difference < 1e-2:
            raise ValueError(f"the kernel's views differ by {difference}.")
    seconds = {
        "draw": measure_seconds(draw, bench),
        "copy": measure_seconds(
            lambda: [part.to(bench.device, non_blocking=True) for part in (pixels, valid)], bench
        ),
        "render": measure_seconds(render, bench),
    }
    found |= {f"{name}_ms": 1e3 * value for name, value in seconds.items()}
    found["copy_gb_s"] = (pixels.nbytes + valid.nbytes) / seconds["copy"] / 1e9
    found["views_s"] = n / sum(seconds.values())
    found["rendered_views_s"] = n / seconds["render"]
    return found
