"""What a sceptic would try first: single statistics of each tile's pixels, never fitted.

Each is one number a tile. The report gives |rho| for them, since a sceptic may turn the sign.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecofm.contrast import pick_bands
from ecofm.errors import EcofmError
from ecofm.types import Contract, Progress, say

if TYPE_CHECKING:
    from ecofm.tiles.archive import Archive

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

MEAN_COLOUR = ("mean_red", "mean_green", "mean_blue")
"""The statistics that `given colour` means."""
BLOCK_PX = 4
"""Side of the blocks whose variance is the local variance."""
EDGE_CONTRAST = 0.1
"""A pixel is an edge when brightness changes by this share of the tile's mean in one pixel."""
N_ENTROPY_BINS = 64
INDICES = {"ndvi": (("B08", "nir"), ("B04", "red")), "ndbi": (("B11", "swir"), ("B08", "nir"))}
"""Normalised differences (a - b) / (a + b), and the names that bands a and b go by."""


def image_statistics(archive: Archive, progress: Progress | None = None) -> pd.DataFrame:
    """Return one row a tile, in the archive's order: tile_id, cell_id, period, and statistics.

    Statistics, over valid pixels at full resolution, in physical units: `mean_{band}`,
    brightness (mean of red, green, blue), blue_minus_red, blue_over_red, saturation (0 to 1),
    local_variance (in 4 px blocks), gradient_energy, edge_density (0 to 1), entropy (bits, of
    brightness in 64 bins), ndvi and ndbi where the bands exist. NaN where a tile has no valid
    pixel, or cannot be read, which is said by name. Memory is that of one tile.
    """
    spectral = _plan_indices(archive.contract)
    rows = []
    n_unreadable = 0
    for tile_index in range(archive.n_tiles):
        try:
            pixels, valid = archive.read(tile_index)
            rows.append(describe_tile(pixels, valid, archive.contract, spectral))
        except EcofmError as error:
            say(f"Left out: {error}")
            n_unreadable += 1
            rows.append({})
        if progress:
            progress(tile_index + 1, archive.n_tiles)
    if n_unreadable == archive.n_tiles:
        raise EcofmError("no tile of the archive can be read; make it again with `ecofm tile`.")
    names = archive.index[["tile_id", "cell_id", "period"]].reset_index(drop=True)
    return pd.DataFrame(pd.concat([names, pd.DataFrame(rows, dtype=np.float64)], axis=1))


def describe_tile(
    pixels: NDArray[np.generic],
    valid: Mask,
    contract: Contract,
    spectral: dict[str, tuple[int, Any]],
) -> dict[str, float]:
    """Return the statistics of one tile; none of a tile without valid pixels."""
    if not valid.any():
        return {}
    scale, offset = np.float32(contract.scale), np.float32(contract.offset)
    physical = (pixels.astype(np.float32) + offset) * scale
    flat = physical.reshape(len(physical), -1)
    inside = flat if valid.all() else flat[:, valid.ravel()]
    means = np.array([band.mean(dtype=np.float64) for band in inside])
    colour = list(pick_bands(contract))
    found = dict(zip(MEAN_COLOUR, map(float, means[colour]), strict=True))
    others = [place for place in range(len(means)) if place not in colour]
    found |= {f"mean_{contract.bands[place]}": float(means[place]) for place in others}
    red, green, blue = (inside[place] for place in colour)
    found |= describe_colour(means[colour], red, green, blue)
    if contract.true_colour() is None:  # blue and red are not known from one another
        del found["blue_minus_red"], found["blue_over_red"]
    middle = (float(np.mean(np.take(contract.mean, colour))) + contract.offset) * contract.scale
    span = 3 * float(np.mean(np.take(contract.std, colour))) * contract.scale or 1.0
    brightness = (physical[colour[0]] + physical[colour[1]] + physical[colour[2]]) / 3
    found |= describe_texture(brightness, valid, (middle - span, middle + span))
    for name, (place, append) in spectral.items():
        found[name] = _mean_index(physical, valid, place, append)
    return found


def describe_colour(
    means: NDArray[np.float64], red: Floats, green: Floats, blue: Floats
) -> dict[str, float]:
    """Return colour statistics from the (red, green, blue) means and the valid pixels' values."""
    # Band by band: numpy reduces an axis of length three ten times slower.
    top = np.maximum(np.maximum(red, green), blue)
    bottom = np.minimum(np.minimum(red, green), blue)
    lit = top > 0
    saturation = np.clip(1 - bottom[lit] / top[lit], 0, 1)
    return {
        "brightness": float(means.mean()),
        "blue_minus_red": float(means[2] - means[0]),
        "blue_over_red": float(means[2] / means[0]) if means[0] > 0 else float("nan"),
        "saturation": float(saturation.mean()) if lit.any() else float("nan"),
    }


def describe_texture(
    brightness: Floats, valid: Mask, entropy_range: tuple[float, float]
) -> dict[str, float]:
    """Return texture statistics of (height, width) brightness."""
    down, right = np.diff(brightness, axis=0)[:, :-1], np.diff(brightness, axis=1)[:-1]
    whole = valid[:-1, :-1] & valid[1:, :-1] & valid[:-1, 1:]
    energy = (down**2 + right**2)[whole]
    inside = brightness[valid]
    threshold = (EDGE_CONTRAST * abs(float(inside.mean()))) ** 2
    low, high = entropy_range
    counts, _ = np.histogram(np.clip(inside, low, high), bins=N_ENTROPY_BINS, range=(low, high))
    shares = counts[counts > 0] / counts.sum()
    return {
        "local_variance": measure_local_variance(brightness, valid),
        "gradient_energy": float(energy.mean()) if energy.size else float("nan"),
        "edge_density": float((energy > threshold).mean()) if energy.size else float("nan"),
        "entropy": float(-(shares * np.log2(shares)).sum()),
    }


def measure_local_variance(brightness: Floats, valid: Mask) -> float:
    """Return the mean variance inside the blocks that are valid throughout; NaN without one."""
    if min(brightness.shape) < BLOCK_PX:
        return float("nan")
    centred = brightness - brightness[valid].mean() if valid.any() else brightness
    n_px = BLOCK_PX**2
    mean, square = _sum_blocks(centred) / n_px, _sum_blocks(centred**2) / n_px
    whole = _sum_blocks(valid.astype(np.float32)) == n_px
    return float((square - mean**2)[whole].mean()) if whole.any() else float("nan")


def _sum_blocks(values: Floats) -> Floats:
    """Return sums of BLOCK_PX × BLOCK_PX blocks; by strides, as short axes reduce slowly."""
    height, width = (size - size % BLOCK_PX for size in values.shape)
    rows: Floats = sum(
        (values[i:height:BLOCK_PX] for i in range(1, BLOCK_PX)), values[:height:BLOCK_PX]
    )
    return sum((rows[:, i:width:BLOCK_PX] for i in range(1, BLOCK_PX)), rows[:, :width:BLOCK_PX])


def _plan_indices(contract: Contract) -> dict[str, tuple[int, Any]]:
    """Return torchgeo's transform for each index whose bands the archive has.

    torchgeo is imported here and only then: it takes seconds.
    """
    places = {}
    for name, pair in INDICES.items():
        found = [next((b for b in names if b in contract.bands), None) for names in pair]
        if None not in found:
            places[name] = [contract.bands.index(str(band)) for band in found]
    if not places:
        return {}
    from torchgeo.transforms import AppendNDBI, AppendNDVI

    makers = {"ndvi": AppendNDVI, "ndbi": AppendNDBI}
    return {name: (len(contract.bands), makers[name](*pair)) for name, pair in places.items()}


def _mean_index(physical: Floats, valid: Mask, place: int, append: Any) -> float:
    """Return the mean of the index that `append` puts at band `place`."""
    import torch

    values = append(torch.from_numpy(physical)[None])[0, place].numpy()
    return float(values[valid].mean())
