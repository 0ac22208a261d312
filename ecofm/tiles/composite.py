"""Composites: what several dates show of one cell, made into one tile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt

from ecofm.tiles.periods import middle_day
from ecofm.tiles.rasters import Pixels, Valid

FAR_PX = 50
"""Beyond this distance a cloud does not spoil a pixel (Griffiths et al. 2013)."""
NEAR_DAYS = 45.0


@dataclass(slots=True)
class Dated:
    """What one date shows: (band, height, width) pixels and (height, width) valid."""

    date: str
    """A day, or a longer period that a scene tells of itself; empty when unknown."""
    pixels: Pixels
    valid: Valid


def fill(layer: Dated, pixels: Pixels, valid: Valid) -> None:
    """Fill a layer's gaps from another scene."""
    gap = valid & ~layer.valid
    layer.pixels[:, gap] = pixels[:, gap]
    layer.valid |= gap


def compose(layers: list[Dated], how: str, period: str) -> tuple[Pixels, Valid, list[str]]:
    """Return one tile of several dates: pixels, valid, and the dates that are in it.

    `first` takes the first valid date, `median` the median of each band, `medoid` the date whose
    pixel is nearest to the median of all bands (Flood 2013, with the median for the centre; its
    spectra are real ones), `best` the date farthest from cloud and nearest to the middle of the
    period (Griffiths et al. 2013). Invalid pixels are 0.
    """
    if len(layers) == 1:
        pixels, valid = layers[0].pixels, layers[0].valid
        if not valid.all():
            pixels[:, ~valid] = 0
        return pixels, valid, [layers[0].date]
    stack = np.stack([layer.pixels for layer in layers])
    seen = np.stack([layer.valid for layer in layers])
    valid = np.asarray(seen.any(axis=0))
    if how == "median":
        pixels = median_of(stack, seen).astype(stack.dtype)
        used = np.asarray(seen.any(axis=(1, 2)))
    else:
        chosen = _choose(stack, seen, layers, how, period)
        pixels = np.take_along_axis(stack, chosen[None, None], axis=0)[0]
        used = np.bincount(chosen[valid], minlength=len(layers)) > 0
    pixels[:, ~valid] = 0
    return pixels, valid, [layer.date for layer, is_in in zip(layers, used, strict=True) if is_in]


def median_of(stack: Pixels, seen: Valid) -> npt.NDArray[np.float32]:
    """Return the median over (date, band, height, width) of what is seen (date, height, width).

    Rounded to the stored numbers; 0 where nothing is seen.
    """
    ordered = np.where(seen[:, None], stack, np.iinfo(str(stack.dtype)).max)
    ordered.sort(axis=0)
    n = np.maximum(seen.sum(axis=0), 1)
    low, high = ((n - 1) // 2)[None, None], (n // 2)[None, None]
    middle = (
        np.take_along_axis(ordered, low, axis=0)[0].astype(np.float32)
        + np.take_along_axis(ordered, high, axis=0)[0]
    ) / 2
    return np.where(seen.any(axis=0), np.rint(middle), 0).astype(np.float32)


def _choose(
    stack: Pixels, seen: Valid, layers: list[Dated], how: str, period: str
) -> npt.NDArray[np.intp]:
    """Return which date each pixel is taken from: (height, width)."""
    if how == "first":
        return np.asarray(seen.argmax(axis=0))
    if how == "medoid":
        centre = median_of(stack, seen)
        cost = np.stack(
            [np.square(layer - centre, dtype=np.float32).sum(axis=0) for layer in stack]
        )
    else:
        cost = np.stack([_cost_of(layer, period) for layer in layers])
    return np.asarray(np.where(seen, cost, np.inf).argmin(axis=0))


def _cost_of(layer: Dated, period: str) -> npt.NDArray[np.float32]:
    """Return what speaks against each pixel of a date: cloud nearby, and days from the middle."""
    near = np.ones(layer.valid.shape)
    if not layer.valid.all():
        near = np.minimum(distance_transform_edt(layer.valid) / FAR_PX, 1)
    days = 0
    if layer.date:
        days = (middle_day(layer.date) - middle_day(period)).days
    return np.asarray(-near - np.exp(-0.5 * (days / NEAR_DAYS) ** 2), np.float32)
