"""The GPU's kernel makes the views that torch's operations make, run by Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# The interpreter has to be chosen before Triton is imported, so this runs in a process of its own.
COMPARE = """
import torch
from ecofm.pretrain.rendering import render_tiles
from ecofm.pretrain.sampling import sample_tiles
from ecofm.pretrain.views import ViewConfig, draw_parameters

torch.manual_seed(0)
worst = 0.0
for dtype, bands, tile_px, size_px, zoom, n_centres in [
    ("uint16", 12, (40, 56), 24, 0.8, 1), ("int16", 3, (33, 33), 33, 1.3, 4),
    ("uint8", 5, (48, 32), 20, 0.4, 4), ("uint16", 1, (24, 24), 64, 0.25, 1),
]:
    high = {"uint16": 65536, "int16": 32768, "uint8": 256}[dtype]
    low = -3000 if dtype == "int16" else 0
    pixels = torch.randint(low, high, (4, bands, *tile_px), dtype=torch.int32)
    pixels = pixels.to(getattr(torch, dtype))
    valid = torch.rand(4, *tile_px) < 0.9
    centre = torch.rand(n_centres, bands, 1, 1) * high / 2
    spread = torch.rand(n_centres, bands, 1, 1) * high / 4 + high / 8
    config = ViewConfig(size_px=size_px, min_zoom=zoom, max_zoom=1.5)
    for step in range(3):
        parameters = draw_parameters(
            config, seed=0, step=step, view=0, samples=slice(0, 4), n_global=4, n_bands=bands,
            tile_px=tile_px,
        )
        expected = render_tiles(pixels, valid, centre, spread, parameters, size_px)
        affine = (parameters.spatial, parameters.mixing, parameters.offset)
        found = sample_tiles(pixels, valid, centre, spread, affine, size_px)
        assert found.shape == expected.shape and found.stride()[1] == 1
        worst = max(worst, float((found - expected).abs().max()))
print(worst)
"""


def test_the_kernel_makes_the_same_views() -> None:
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-c", COMPARE],
        cwd=ROOT, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-3
