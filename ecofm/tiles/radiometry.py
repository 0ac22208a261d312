"""Radiometry: streaming band statistics, and the contract that they complete."""

from __future__ import annotations

from typing import Any

import numpy as np

from ecofm.tiles.scenes import Pixels, Scene, Valid
from ecofm.types import Contract

REFLECTANCE_SCALE = 1e-4


class BandStatistics:
    """Mean, standard deviation and range of each band over valid pixels, one tile at a time."""

    def __init__(self, n_bands: int) -> None:
        """Start from nothing."""
        self.n_pixels = 0
        self.total = np.zeros(n_bands)
        self.squares = np.zeros(n_bands)

    def add(self, pixels: Pixels, valid: Valid) -> None:
        """Add a tile: (band, height, width) and its valid mask (height, width)."""
        values = pixels[:, valid].astype(np.float64)
        self.n_pixels += values.shape[1]
        self.total += values.sum(axis=1)
        self.squares += np.square(values).sum(axis=1)

    def to_json(self) -> dict[str, Any]:
        """Return the sums as plain numbers."""
        return {
            "n_pixels": self.n_pixels,
            "total": self.total.tolist(),
            "squares": self.squares.tolist(),
        }

    def add_json(self, sums: dict[str, Any] | None) -> None:
        """Add the sums that another run stored with a shard."""
        if sums is not None:
            self.n_pixels += sums["n_pixels"]
            self.total += sums["total"]
            self.squares += sums["squares"]

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each band."""
        return tuple(float(v) for v in self.total / self.n_pixels)

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each band."""
        variance = self.squares / self.n_pixels - np.square(self.total / self.n_pixels)
        return tuple(float(v) for v in np.sqrt(np.maximum(variance, 0)))


def build_contract(scene: Scene, statistics: BandStatistics, gsd_m: float | None) -> Contract:
    """Return the contract of an archive: 8-bit images are renderings, 16-bit ones reflectance."""
    is_rendering = scene.dtype == "uint8"
    limits = np.iinfo(scene.dtype)
    return Contract(
        bands=scene.bands,
        dtype=scene.dtype,
        units="digital number" if is_rendering else "reflectance",
        scale=1.0 if is_rendering else REFLECTANCE_SCALE,
        offset=scene.offset,
        valid_range=(float(limits.min), float(limits.max)),
        gsd_m=gsd_m,
        mean=statistics.mean,
        std=statistics.std,
    )
