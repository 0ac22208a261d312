"""A picture of what a run looks at: tiles of some pairs, and the views that are made of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ecofm.contrast import draw_tile
from ecofm.lettering import spell_latin
from ecofm.pretrain.module import ContrastiveModule
from ecofm.pretrain.rendering import render_views
from ecofm.tiles.loader import PairLoader

N_PAIRS, PANEL_PX, GAP_PX, LABEL_PX = 8, 144, 4, 16
Picture = NDArray[np.uint8]


def draw_views(module: ContrastiveModule, picture: Path) -> None:
    """Draw the first pairs of step 0: both tiles whole, then every view that the method asks for.

    In the contrast of all pictures; views are brought back to stored numbers for it, and what is
    not valid is grey. What differs between the views is what the encoder is taught to look past.
    """
    parts = module.accumulate
    n_read = max(n for n in range(1, N_PAIRS * parts + 1) if module.batch_size % n == 0)
    loader = PairLoader(
        module.archives,
        batch_size=module.batch_size,
        seed=module.seed,
        world_size=module.batch_size // n_read,
        pairs=module.pairs,
        places=module.places,
    )
    contract = module.method.encoder.contract
    batch: dict[str, Any] = next(iter(loader))
    columns: list[tuple[str, list[Picture]]] = []
    with torch.no_grad():
        for tile in dict.fromkeys(tile for tile, _ in module.sources):
            pixels, valid = (batch[name][tile][::parts].numpy() for name in ("pixels", "valid"))
            drawn = [draw_tile(*pair, contract) for pair in zip(pixels, valid, strict=True)]
            columns.append((f"tile {tile + 1}", drawn))
        for number, (tile, stream) in enumerate(module.sources, start=1):
            drawn = _draw_view(module, batch, tile, stream)
            columns.append((f"view {number}, of tile {tile + 1}", drawn))
    sheet = _lay_out(columns)
    beside = picture.with_name(f".{picture.name}.partial")
    sheet.save(beside, format="png")
    beside.replace(picture)


def _draw_view(
    module: ContrastiveModule, batch: dict[str, Any], tile: int, stream: int
) -> list[Picture]:
    """Return the pictures of a view of each pair, in stored numbers again."""
    encoder, parts = module.method.encoder, module.accumulate
    pixels, valid = (batch[name][tile][::parts] for name in ("pixels", "valid"))
    centre, spread = encoder.measure(pixels, valid)
    stored = (module.view(batch, 0, tile, stream, 0) * spread + centre).numpy()
    plain = replace(
        module.draw(batch, 0, stream, 0),
        mixing=torch.ones(len(pixels), 1, 1),
        offset=torch.zeros(len(pixels), 1),
        blur=torch.zeros(len(pixels)),
    )
    shown = render_views(valid[:, None].float(), plain, module.views.size_px)[:, 0].numpy() > 0.5
    return [draw_tile(*pair, encoder.contract) for pair in zip(stored, shown, strict=True)]


def _lay_out(columns: list[tuple[str, list[Picture]]]) -> Image.Image:
    side = PANEL_PX + GAP_PX
    n_rows = len(columns[0][1])
    sheet = Image.new("RGB", (len(columns) * side, LABEL_PX + n_rows * side), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (title, images) in enumerate(columns):
        pen.text((place * side + 2, 2), spell_latin(title), "black")
        for row, image in enumerate(images):
            panel = Image.fromarray(np.ascontiguousarray(image)).resize(
                (PANEL_PX, PANEL_PX), Image.Resampling.BILINEAR
            )
            sheet.paste(panel, (place * side, LABEL_PX + row * side))
    return sheet
