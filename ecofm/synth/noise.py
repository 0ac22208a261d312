"""Noise for the synthetic country: smooth random fields and hashed random numbers.

Both are plain element-wise arithmetic, without BLAS or threads, so that a seed gives the
same bytes however many cores there are.
"""

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

Raster = NDArray[np.floating[Any]]
"""Real numbers `[height, width]`, in practice float32."""

# The standard deviation of a cubic B-spline through white noise, both axes: mean of sum(w**2).
_SPLINE_STD = 151 / 315


def derive_rng(seed: int, *names: str | int) -> np.random.Generator:
    """Return the generator that belongs to `names` under `seed`, independent of all others."""
    keys = [n if isinstance(n, int) else zlib.crc32(n.encode()) for n in names]
    return np.random.default_rng([seed, *keys])


def smooth_noise(shape: tuple[int, int], scale_px: float, rng: np.random.Generator) -> Raster:
    """Return about standard normal noise whose features are `scale_px` wide (cubic B-spline)."""
    counts = [int(n / scale_px) + 5 for n in shape]
    knots = rng.standard_normal(counts, dtype=np.float32) / np.float32(_SPLINE_STD)
    start = rng.random(2)
    rows = _interpolate(knots, shape[0], scale_px, start[0])
    return np.ascontiguousarray(_interpolate(rows.T, shape[1], scale_px, start[1]).T)


def _interpolate(knots: Raster, n: int, scale_px: float, start: float) -> Raster:
    position = np.arange(n) / scale_px + start
    first = np.floor(position).astype(np.intp)
    t = (position - first).astype(np.float32)[:, None]
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    out = knots[first] * (weights[0] / 6)
    for k in (1, 2, 3):
        out += knots[first + k] * (weights[k] / 6)
    return out


def fractal_noise(
    shape: tuple[int, int],
    scale_px: float,
    rng: np.random.Generator,
    octaves: int,
    gain: float = 0.5,
    ridged: bool = False,
) -> Raster:
    """Return a sum of `octaves` noises, each half as wide and `gain` times as strong.

    `ridged` folds each octave at zero, which makes crests and gullies.
    """
    total = np.zeros(shape, np.float32)
    for k in range(octaves):
        layer = smooth_noise(shape, max(scale_px / 2**k, 1.5), rng)
        if ridged:
            layer = 0.8 - np.abs(layer)
        total += np.float32(gain**k) * layer
    return total


def rank_field(field: Raster) -> Raster:
    """Return `field` with its values replaced by their quantiles, 0 to 1, smoothly."""
    step = max(1, min(field.shape) // 256)
    levels = np.linspace(0, 1, 257)
    quantiles = np.quantile(field[::step, ::step], levels)
    return np.interp(field, quantiles, levels).astype(np.float32)


def smoothstep(x: Raster, low: float, high: float) -> Raster:
    """Return 0 below `low`, 1 above `high` and a smooth ramp between."""
    t: Raster = np.clip((x - np.float32(low)) / np.float32(high - low), 0, 1)
    return t * t * (3 - 2 * t)


def hash_ids(seed: int, *ids: NDArray[Any]) -> NDArray[np.uint32]:
    """Return one well mixed uint32 for each tuple of integers, the same for ever."""
    mixed = np.full(1, seed * 0x9E3779B1 & 0xFFFFFFFF, np.uint32)
    for part in ids:
        mixed = (mixed ^ part.astype(np.uint32)) * np.uint32(0x85EBCA77)
        mixed ^= mixed >> np.uint32(13)
        mixed *= np.uint32(0xC2B2AE3D)
        mixed ^= mixed >> np.uint32(16)
    return mixed


def hash_uniform(seed: int, *ids: NDArray[Any]) -> Raster:
    """Return one uniform number in [0, 1) for each tuple of integers."""
    return (hash_ids(seed, *ids) >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)
