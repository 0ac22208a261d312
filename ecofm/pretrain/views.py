"""Views: one spatial affine and one spectral affine a view, and a blur where it is asked for.

The parameters are drawn by a counter-based generator keyed by (seed, step), one row a global
sample, so that they depend neither on the number of devices nor on how often a run was resumed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from numpy.typing import NDArray
from torch import Tensor

from ecofm.errors import UsageError

Places = NDArray[np.float32]
"""Where the views of each sample lie: (batch, 3), x and y from 0 to 1, and the share of their shift
that is kept."""

VIEW_STREAM = 1
PLACE, BLUR = 2, 8
"""Streams of one step: views have 0, 1, 3 and 4, and their blur stands beside them."""
N_UNIFORM = 8


@dataclass(kw_only=True, slots=True)
class ViewConfig:
    """How two views of a place may differ. Strengths are in standard deviations of a band."""

    size_px: int = 64
    """Side of a view."""
    min_zoom: float = 0.8
    """Smallest number of view pixels for one tile pixel; 1 keeps the full resolution."""
    max_zoom: float = 1.25
    """Largest number of view pixels for one tile pixel."""
    max_shift: float = 0.5
    """Largest distance between the two views' centres along each axis, in sides of a view."""
    min_valid_share: float = 0.5
    """Smallest share of valid pixels in a view: views lie where all of a pair have it. A pair
    without such a place gives way to another; 0 takes what comes."""
    gain: float = 0.3
    """Each band is multiplied by exp(N(0, gain))."""
    offset: float = 0.3
    """N(0, offset) is added to each band."""
    haze: float = 0.4
    """Largest share of the signal that haze replaces, in a random half of the views."""
    mix: float = 0.1
    """N(0, mix) of every other band is mixed into each band."""
    grey_probability: float = 0.2
    """Share of views in which all bands become their mean."""
    drop_probability: float = 0.05
    """Probability that a band is dropped (set to its mean)."""

    blur_probability: float = 0.0
    """Share of views that are blurred; none, for fine texture is what tells places apart."""
    max_blur_px: float = 1.5
    """Largest standard deviation of the blur, in pixels of the view."""

    def __post_init__(self) -> None:
        """Raise ValueError for values that cannot be used."""
        if self.size_px < 8 or not 0 < self.min_zoom <= self.max_zoom:
            raise UsageError("views need size_px >= 8 and 0 < min_zoom <= max_zoom.")
        if not 0 <= self.blur_probability <= 1 or not 0 < self.max_blur_px < float("inf"):
            raise UsageError("views need 0 <= blur_probability <= 1 and max_blur_px > 0.")
        shares = ("haze", "grey_probability", "drop_probability")
        if wrong := [name for name in shares if not 0 <= getattr(self, name) <= 1]:
            raise UsageError(
                f"views.{wrong[0]} is {getattr(self, wrong[0])}, expected a share from 0 to 1."
            )
        strengths = ("max_shift", "gain", "offset", "mix")
        if wrong := [n for n in strengths if not 0 <= getattr(self, n) < float("inf")]:
            raise UsageError(f"views.{wrong[0]} is {getattr(self, wrong[0])}, expected 0 or more.")
        if not self.max_zoom < float("inf"):
            raise UsageError(f"views.max_zoom is {self.max_zoom}, expected a finite number.")
        if not 0 <= self.min_valid_share <= 1:
            raise UsageError(
                f"views need a min_valid_share from 0 to 1, and not {self.min_valid_share}."
            )


@dataclass(frozen=True, slots=True)
class ViewParameters:
    """The two affines of a batch of views, and its blur."""

    spatial: Float[Tensor, "batch 2 3"]
    """Normalised output coordinates to normalised input coordinates, as `affine_grid` takes."""
    mixing: Float[Tensor, "batch band band"]
    """Bands of the view from bands of the tile."""
    offset: Float[Tensor, "batch band"]
    """Added after mixing."""
    blur: Float[Tensor, " batch"]
    """Standard deviation of the blur in pixels of the view; 0 is none."""

    def take(self, part: slice) -> ViewParameters:
        """Return the parameters of some of the views."""
        return ViewParameters(
            self.spatial[part], self.mixing[part], self.offset[part], self.blur[part]
        )


def draw_parameters(
    config: ViewConfig,
    *,
    seed: int,
    step: int,
    view: int,
    samples: slice,
    n_global: int,
    n_bands: int,
    tile_px: tuple[int, int],
    places: Places | None = None,
) -> ViewParameters:
    """Draw the affines and blur of a view for `samples`, a slice of the step's global batch.

    `places` are where the views of each sample lie; None takes the first choice.
    """
    if places is None:
        places = draw_places(seed, step, n_global)[samples]
    random = _generator(seed, step, view)
    uniform = random.random((n_global, N_UNIFORM), dtype=np.float32)[samples]
    normal = random.standard_normal((n_global, n_bands, n_bands + 2), dtype=np.float32)[samples]
    band_uniform = random.random((n_global, n_bands), dtype=np.float32)[samples]
    mixing, offset = _spectral(config, uniform, normal, band_uniform)
    blur = _generator(seed, step, BLUR + view).random((n_global, 2), dtype=np.float32)[samples]
    is_sharp = blur[:, 0] >= config.blur_probability
    # From a tenth on: less is none, and its kernel too narrow to be written down.
    sigma = np.where(is_sharp, 0, config.max_blur_px * (0.1 + 0.9 * blur[:, 1]))
    return ViewParameters(
        torch.from_numpy(_spatial(config, places, uniform, tile_px)),
        torch.from_numpy(mixing),
        torch.from_numpy(offset),
        torch.from_numpy(sigma.astype(np.float32)),
    )


def _generator(seed: int, step: int, stream: int) -> np.random.Generator:
    key = np.array([seed, (VIEW_STREAM << 32) + stream], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, step]))


def draw_places(seed: int, step: int, n_global: int, stream: int = PLACE) -> Places:
    """Return the first choice of where the views of each sample lie: (n_global, 3)."""
    drawn = _generator(seed, step, stream).random((n_global, 2), dtype=np.float32)
    return np.pad(drawn, ((0, 0), (0, 1)), constant_values=1)


def draw_uniform(seed: int, step: int, view: int, n_global: int) -> NDArray[np.float32]:
    """Return what decides how a view lies around its place: (n_global, N_UNIFORM)."""
    return _generator(seed, step, view).random((n_global, N_UNIFORM), dtype=np.float32)


def lay_views(
    config: ViewConfig, places: Places, uniform: NDArray[np.float32], tile_px: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the centres and half extents (batch, 2) of views, from -1 to 1 over the tile."""
    log_zoom = np.log([config.min_zoom, config.max_zoom])
    zoom = np.exp(log_zoom[0] + uniform[:, 0] * (log_zoom[1] - log_zoom[0]))
    span = np.minimum(config.size_px / zoom[:, None] / np.array(tile_px[::-1]), 1.0)
    # Both views lie around one place; normalised coordinates run from -1 to 1 over the tile.
    shift = (uniform[:, 1:3] * 2 - 1) * config.max_shift * span * places[:, 2:]
    centre = np.clip((places[:, :2] * 2 - 1) * (1 - span) + shift, span - 1, 1 - span)
    return centre, span


def _spatial(
    config: ViewConfig, places: Places, uniform: NDArray[np.float32], tile_px: tuple[int, int]
) -> np.ndarray:
    """Return crop, zoom, quarter turn and flip as one affine: (batch, 2, 3)."""
    n = len(uniform)
    centre, span = lay_views(config, places, uniform, tile_px)
    turn = np.floor(uniform[:, 3] * 4) * (np.pi / 2)
    flip = np.where(uniform[:, 4] < 0.5, -1.0, 1.0)
    affine = np.zeros((n, 2, 3), np.float32)
    affine[:, 0, 0] = np.round(np.cos(turn)) * flip * span[:, 0]
    affine[:, 0, 1] = -np.round(np.sin(turn)) * span[:, 0]
    affine[:, 1, 0] = np.round(np.sin(turn)) * flip * span[:, 1]
    affine[:, 1, 1] = np.round(np.cos(turn)) * span[:, 1]
    affine[:, :, 2] = centre
    return affine


def _spectral(
    config: ViewConfig, uniform: np.ndarray, normal: np.ndarray, band_uniform: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return gain, mixing, grey, haze and band drop as one matrix and one offset a view."""
    n_bands = band_uniform.shape[1]
    mixing = normal[:, :, :n_bands] * np.float32(config.mix / np.sqrt(n_bands))
    diagonal = np.arange(n_bands)
    mixing[:, diagonal, diagonal] = np.exp(normal[:, :, n_bands] * config.gain)
    offset = normal[:, :, n_bands + 1] * np.float32(config.offset)
    is_grey = uniform[:, 5] < config.grey_probability
    mixing[is_grey] = 1.0 / n_bands
    # Haze: I = J t + A (1 - t) (Koschmieder), with the transmission t the same in all bands.
    haze = np.where(uniform[:, 6] < 0.5, uniform[:, 7] * config.haze, 0).astype(np.float32)
    mixing *= (1 - haze)[:, None, None]
    offset += (2 * haze)[:, None]
    is_dropped = band_uniform < config.drop_probability
    mixing[is_dropped] = 0
    offset[is_dropped] = 0
    return mixing.astype(np.float32), offset.astype(np.float32)


def measure_tiles(
    pixels: Shaped[Tensor, "batch band height width"],
    valid: Bool[Tensor, "batch height width"],
    mean: Float[Tensor, " band"],
    std: Float[Tensor, " band"],
    per_tile: bool,
) -> tuple[Float[Tensor, "n band 1 1"], Float[Tensor, "n band 1 1"]]:
    """Return the centre and spread that normalised pixels are measured against.

    They are the archive's `mean` and `std` (n = 1), or with `per_tile` each tile's own, which
    removes the rendering's stretch and uniform haze.
    """
    centre, spread = mean[None, :, None, None], std[None, :, None, None].clamp(min=1e-6)
    if not per_tile:
        return centre, spread
    # A regular sample of at least 64 pixels a side serves as well as all of them.
    stride = max(1, min(pixels.shape[2:]) // 64)
    sample = pixels[:, :, ::stride, ::stride].float()
    known = valid[:, None, ::stride, ::stride]
    n_valid = known.sum(dim=(2, 3), keepdim=True).clamp(min=1)
    centre = (sample * known).sum(dim=(2, 3), keepdim=True) / n_valid
    variance = ((sample - centre) * known).square().sum(dim=(2, 3), keepdim=True) / n_valid
    # A tile without texture (sea, one colour) must not have its noise blown up.
    return centre, (variance + 0.02 * spread.square()).sqrt()
