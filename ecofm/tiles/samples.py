"""Samples: some valid stored numbers of a raster's bands, from all over it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import rasterio
from rasterio.windows import Window

from ecofm.tiles.pixels import read_valid
from ecofm.tiles.rasters import Pixels
from ecofm.tiles.scenes import Part

WHOLE_PX = 512
SIDE_PX, N_ACROSS = 64, 4
ENOUGH_PX = 1000
MIN_REPEATED, MIN_SHARE, MIN_APART = 10, 1e-3, 2.0
"""A number stands for nodata where so many pixels, and such a share of them, hold it, and it is so
many times as far from zero as the next one..."""
FAR, FAR_REFLECTANCE = (900.0, 30_000.0), (0.9, 10.0)
"""...and no reflectance, x 10000 or from 0 to 1, is as far below zero, or as large."""


def sample_part(dataset: rasterio.DatasetReader, part: Part) -> Pixels:
    """Return valid numbers of a part's bands: (band, number), perhaps none.

    A small raster is read whole. Of a large one its overviews are read, or sixteen windows from all
    over it; where these show little, as near the edge of a swath, strips until there is enough.
    """
    found: list[Pixels] = []
    n = 0
    for window, shape, is_last_resort in _windows(dataset):
        if is_last_resort and n >= ENOUGH_PX:
            break
        # Of a scale that is not known yet, no number is too low.
        pixels, valid, _ = read_valid(dataset, part, window, shape, any_number=True)
        found.append(pixels[:, valid])
        n += found[-1].shape[1]
    return np.concatenate(found, axis=1)


def _windows(
    dataset: rasterio.DatasetReader,
) -> Iterator[tuple[Window, tuple[int, int] | None, bool]]:
    """Yield (window, shape to read it at, whether it is read only where there is too little)."""
    height, width = dataset.shape
    whole = Window(0, 0, width, height)
    if max(height, width) <= WHOLE_PX:
        yield whole, None, False
        return
    if dataset.overviews(1):
        yield whole, (min(height, WHOLE_PX // 2), min(width, WHOLE_PX // 2)), False
        return
    rows, columns = (
        np.linspace(0, max(side - SIDE_PX, 0), N_ACROSS).astype(int) for side in (height, width)
    )
    for row in rows.tolist():
        for column in columns.tolist():
            w, h = min(SIDE_PX, width - column), min(SIDE_PX, height - row)
            yield Window(column, row, w, h), None, False
    for row in range(0, height, SIDE_PX):
        yield Window(0, row, width, min(SIDE_PX, height - row)), None, True


def undeclared_nodata(values: Pixels) -> float | None:
    """Return a number that stands for nodata though nothing declares it, None where none does.

    It is the smallest number, below zero (-9999), or the largest, where no reflectance is as large
    (65535): held by many pixels, and far from the next one.
    """
    flat = values.ravel()
    flat = flat[np.isfinite(flat)]
    if not len(flat):
        return None
    for sign in (-1.0, 1.0):
        size = flat.astype(np.float64) * sign
        others = size[size < size.max()]
        n = len(size) - len(others)
        if n < max(MIN_REPEATED, MIN_SHARE * len(size)) or not len(others):
            continue
        is_reflectance = flat.dtype.kind == "f" and np.abs(others).max() <= 2
        far = FAR_REFLECTANCE if is_reflectance else FAR
        if size.max() >= max(far[sign > 0], MIN_APART * others.max()):
            return float(sign * size.max())
    return None
