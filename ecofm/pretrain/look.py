"""A picture of what a run looks at: tiles of some pairs, and the views that are made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from ecofm.pretrain.module import ContrastiveModule
from ecofm.tiles.loader import PairLoader

N_PAIRS, PANEL_PX, GAP_PX, LABEL_PX = 8, 144, 4, 16
DARKEST, BRIGHTEST = -2.0, 2.5
"""What is drawn black and white, in standard deviations of a band."""


def draw_views(module: ContrastiveModule, picture: Path) -> None:
    """Draw the first pairs of step 0: both tiles whole, then every view that the method asks for.

    True colour, one contrast for all. What differs between the views is what the encoder is
    taught to look past.
    """
    parts = module.accumulate
    n_read = max(n for n in range(1, N_PAIRS * parts + 1) if module.batch_size % n == 0)
    loader = PairLoader(
        module.archives,
        batch_size=module.batch_size,
        seed=module.seed,
        world_size=module.batch_size // n_read,
    )
    batch: dict[str, Any] = next(iter(loader))
    encoder = module.method.encoder
    columns: list[tuple[str, Tensor]] = []
    with torch.no_grad():
        for tile in dict.fromkeys(tile for tile, _ in module.sources):
            pixels, valid = (batch[name][tile][::parts] for name in ("pixels", "valid"))
            columns.append((f"tile {tile + 1}", encoder.normalize(pixels, valid)))
        for number, (tile, stream) in enumerate(module.sources, start=1):
            view = module.view(batch, 0, tile, stream, 0)
            columns.append((f"view {number}, of tile {tile + 1}", view))
    sheet = _lay_out(columns, list(encoder.contract.true_colour()))
    beside = picture.with_name(f".{picture.name}.partial")
    sheet.save(beside, format="png")
    beside.replace(picture)


def _lay_out(columns: list[tuple[str, Tensor]], bands: list[int]) -> Image.Image:
    side = PANEL_PX + GAP_PX
    n_rows = len(columns[0][1])
    sheet = Image.new("RGB", (len(columns) * side, LABEL_PX + n_rows * side), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (title, images) in enumerate(columns):
        pen.text((place * side + 2, 2), title, "black")
        for row, image in enumerate(images):
            panel = Image.fromarray(_to_bytes(image[bands])).resize(
                (PANEL_PX, PANEL_PX), Image.Resampling.BILINEAR
            )
            sheet.paste(panel, (place * side, LABEL_PX + row * side))
    return sheet


def _to_bytes(image: Tensor) -> NDArray[np.uint8]:
    """Return a normalised image (band, height, width) as bytes (height, width, band)."""
    shares = (image - DARKEST) / (BRIGHTEST - DARKEST)
    bytes_: NDArray[np.uint8] = (shares.clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
    return bytes_
