"""Scenes and chips: what a raster, or a set of them, says of itself before pixels are read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from ecofm.tiles.bands import CLOUD_BITS, Kind
from ecofm.tiles.claims import REFLECTANCE_SCALE
from ecofm.tiles.rasters import Pixels, Remote, Valid
from ecofm.types import say

__all__ = ["Hiding", "Part", "Pixels", "Scene", "Valid", "say_notes"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Bands of a scene that lie in one raster: reflectance = (stored + offset) x scale."""

    path: Path | Remote
    numbers: tuple[int, ...]
    geobox: GeoBox | None
    dtype: str = "uint16"
    """numpy name of the stored type."""
    nodata: float | None = None
    """Used where the raster declares none."""
    also_nodata: tuple[float, ...] = ()
    """Numbers that stand for nodata though nothing declares them."""
    scale: float = REFLECTANCE_SCALE
    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class Hiding:
    """A band, or a raster that people gave, which says where pixels are invalid."""

    part: Part
    kind: Kind
    is_given: bool = False
    """Whether people gave it with `--masks`."""

    def hides(self, values: npt.NDArray[np.int32], classes: Sequence[int]) -> Valid:
        """Return what is invalid by the values on a cell, 0 where the band does not reach.

        `classes` are those of the scene classification that are invalid; without any, it hides
        nothing.
        """
        if self.kind == "classes":
            return np.asarray(np.isin(values, classes))
        if self.kind == "bits":
            return np.asarray((values & CLOUD_BITS) != 0)
        return np.asarray(values == 0 if self.kind == "zero" else values != 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """What a scene says of itself: its parts, in the order of `bands`, and what hides pixels."""

    name: str
    """Path relative to the given folder, by which people are told of the scene."""
    period: str | None
    date: str | None
    """The day that it shows, or a month or another span of its own where the period is longer."""
    bands: tuple[str, ...]
    parts: tuple[Part, ...]
    dtype: str
    """Of the numbers that an archive stores."""
    radiometry: str = "default"
    """What the numbers mean, and which source decided it."""
    to_scale: float = REFLECTANCE_SCALE
    to_offset: float = 0.0
    """Those of the archive, to which the numbers are brought."""
    hidings: tuple[Hiding, ...] = ()
    acquisition: str = ""
    """Same for every processing and level of one acquisition of a granule; empty when unknown."""
    level: str = ""
    """`L1C` or `L2A`; empty when unknown."""
    baseline: str = ""
    processed: str = ""
    """Discriminator of the product: when it was made, or its archive started."""
    shape_px: tuple[int, int]
    synthetic: bool = False
    notes: tuple[str, ...] = ()
    """What people are told of it."""

    @property
    def path(self) -> Path:
        """The first raster's file."""
        path = self.parts[0].path
        return Path(path.name) if isinstance(path, Remote) else path

    @property
    def geobox(self) -> GeoBox | None:
        """The place of the part with most pixels."""
        boxes = [part.geobox for part in self.parts if part.geobox is not None]
        return max(boxes, key=lambda box: box.width * box.height) if boxes else None

    @property
    def signature(self) -> tuple[tuple[str, ...], str]:
        """What all scenes of one archive share: bands and dtype."""
        return self.bands, self.dtype


def own_units(scenes: Sequence[Scene]) -> tuple[float, float]:
    """Return the scale and offset that an archive of some scenes stores its numbers in.

    Pictures keep their numbers. Reflectance is stored in steps of .0001, with the lowest offset of
    what comes in such steps, by which nothing is lost.
    """
    if scenes[0].dtype == "uint8":
        return 1.0, scenes[0].parts[0].offset
    parts = [part for scene in scenes for part in scene.parts]
    offsets = [p.offset for p in parts if abs(p.scale / REFLECTANCE_SCALE - 1) < 1e-9]
    return REFLECTANCE_SCALE, min(offsets, default=0.0)


def readable_name(name: str) -> str:
    r"""Return a file name as valid Unicode: bytes that are no UTF-8 become `\xff`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def shape_of(parts: Sequence[Part]) -> tuple[int, int]:
    """Return the largest size of some parts in pixels: height, width."""
    shapes = [part.geobox.shape for part in parts if part.geobox is not None]
    height, width = max(shapes, key=lambda shape: int(np.prod(shape)))
    return int(height), int(width)


def say_notes(scenes: Sequence[Scene]) -> None:
    """Say what people must know of their scenes, each thing once."""
    named: dict[str, list[str]] = {}
    for scene in scenes:
        for note in scene.notes:
            named.setdefault(note, []).append(scene.name)
    for note, names in named.items():
        where = names[0] if len(names) == 1 else f"{len(names)} scenes (the first: {names[0]})"
        say(f"{where}: {note}.")
