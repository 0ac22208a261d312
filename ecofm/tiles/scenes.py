"""Scenes and chips: what a raster, or a set of them, says of itself before pixels are read."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp

from ecofm.errors import SceneError
from ecofm.tiles.offsets import Offset, check_offset, resolve_offset
from ecofm.tiles.periods import dates_told, period_or
from ecofm.tiles.rasters import Pixels, Rasters, Remote, Valid
from ecofm.types import DTYPES

__all__ = ["Part", "Pixels", "Scene", "Valid", "read_scene"]

MAX_NAME = 64
CLASS_BAND = "SCL"
BAND = re.compile(r"B(?:0?[1-9]|1[0-2]|8A)|SCL", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Bands of a scene that lie in one raster."""

    path: Path | Remote
    numbers: tuple[int, ...]
    geobox: GeoBox | None
    nodata: float | None = None
    """Used where the raster declares none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """What a scene says of itself: its parts, in the order of `bands`, and its masks."""

    name: str
    """Path relative to the given folder, by which people are told of the scene."""
    period: str | None
    date: str | None
    """The day that it shows, or a month or another span of its own where the period is longer."""
    bands: tuple[str, ...]
    parts: tuple[Part, ...]
    dtype: str
    offset: float
    offset_said_by: str = "default"
    shift: int = 0
    """Added to the stored numbers, so that all scenes of an archive have one offset."""
    classes: Part | None = None
    """The scene classification (SCL)."""
    mask: Part | None = None
    """A mask that people gave: what is not 0 is invalid."""
    product: str = ""
    """Same for every processing of one acquisition; empty when unknown."""
    baseline: str = ""
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


def read_scene(
    path: Path,
    *,
    name: str,
    period: str | None,
    bands: tuple[str, ...] | None,
    period_in_name: bool = True,
    offset: float | None = None,
) -> Scene:
    """Read what a raster says of itself.

    `period`, `bands` and `offset` override what the file says; without `period_in_name` its name
    says nothing of time. `bands` name all bands in order, or choose some by name. A band SCL is
    the scene classification and no part of the pixels. Raises SceneError when the file cannot be
    read, has another number type, or its bands do not fit the given names.
    """
    with Rasters() as rasters, rasters.use(path) as dataset:
        names, numbers = choose_bands(dataset, path.stem, bands)
        dtype = _dtype_of(dataset)
        tags = dataset.tags()
        geobox = geobox_of(dataset)
        shape_px = dataset.shape
    date, own_period = period_or(
        period, path.stem if period_in_name else "", tags.get("period"), dates_told(tags)
    )
    classes = None
    if CLASS_BAND in names:
        place = names.index(CLASS_BAND)
        classes = Part(path=path, numbers=(numbers[place],), geobox=geobox)
        names = names[:place] + names[place + 1 :]
        numbers = numbers[:place] + numbers[place + 1 :]
    if not names:
        raise SceneError("has no band besides its mask")
    text = " ".join([path.stem, *tags.values()])
    told = offset_told(tags)
    found = settle_offset(
        offset, dtype, resolve_offset(product_id=text, date=date, metadata=told), [(path, numbers)]
    )
    return Scene(
        name=name,
        period=own_period,
        date=date,
        bands=names,
        parts=(Part(path=path, numbers=numbers, geobox=geobox),),
        dtype=dtype,
        offset=found.value,
        offset_said_by=found.said_by,
        classes=classes,
        shape_px=shape_px,
        synthetic="synthetic" in " ".join([*tags, *tags.values()]).lower(),
    )


def settle_offset(
    given: float | None,
    dtype: str,
    found: Offset,
    parts: Sequence[tuple[Path | Remote, Sequence[int]]],
) -> Offset:
    """Return the offset that counts: the given one, none for 8-bit images, or the checked one."""
    if given is not None:
        return Offset(given, "--offset")
    return Offset(0.0, "default") if dtype == "uint8" else check_offset(found, parts)


def offset_told(tags: dict[str, str]) -> float | None:
    """Return the offset that a raster's tags state; raises SceneError when it is no number."""
    text = tags.get("BOA_ADD_OFFSET")
    try:
        value = None if text is None else float(text)
    except ValueError as error:
        raise SceneError(f"has BOA_ADD_OFFSET {text!r:.40}, expected a number") from error
    if value is not None and not abs(value) <= 2**16:
        raise SceneError(f"has BOA_ADD_OFFSET {value:g}, which no 16-bit number needs")
    return value


def choose_bands(
    dataset: rasterio.DatasetReader, stem: str, bands: tuple[str, ...] | None
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the names and numbers of the bands to read; raises SceneError when none fit."""
    numbers = _band_numbers(dataset, bands)
    if not numbers:
        raise SceneError("has no band besides its mask")
    if ColorInterp.palette in dataset.colorinterp:
        raise SceneError("has a colour table; convert it to RGB")
    names = _band_names(dataset, numbers, stem)
    if bands is None:
        return names, numbers
    if len(bands) == len(numbers):
        return bands, numbers
    if set(bands) <= set(names):
        chosen = [
            *bands,
            *([CLASS_BAND] if CLASS_BAND in names and CLASS_BAND not in bands else ()),
        ]
        return tuple(chosen), tuple(numbers[names.index(band)] for band in chosen)
    raise SceneError(
        f"has {len(numbers)} bands, but {len(bands)} are named (its own: {', '.join(names)})"
    )


def _dtype_of(dataset: rasterio.DatasetReader) -> str:
    dtype = str(dataset.dtypes[0])
    if dtype not in DTYPES or len(set(dataset.dtypes)) > 1:
        found = ", ".join(sorted(set(dataset.dtypes)))
        raise SceneError(f"has numbers of type {found}; expected one of {', '.join(DTYPES)}")
    return dtype


def _band_numbers(
    dataset: rasterio.DatasetReader, bands: tuple[str, ...] | None
) -> tuple[int, ...]:
    """Return the bands that are no mask: GDAL calls the fourth of four 8-bit ones alpha."""
    if bands is not None and len(bands) == dataset.count:
        return tuple(range(1, dataset.count + 1))
    kinds = zip(dataset.colorinterp, dataset.descriptions, strict=True)
    return tuple(
        number
        for number, (kind, name) in enumerate(kinds, start=1)
        if kind != ColorInterp.alpha or (name and name.lower() != "alpha")
    )


def geobox_of(dataset: rasterio.DatasetReader) -> GeoBox | None:
    """Return where a raster lies, None when it does not say; raises SceneError for nonsense."""
    transform = dataset.transform
    if dataset.crs is None or transform.is_identity:
        return None
    numbers = tuple(transform)[:6]
    if not all(map(math.isfinite, numbers)) or not abs(transform.determinant) > 0:
        raise SceneError(f"has a transform that leads nowhere: {numbers}")
    found = GeoBox(dataset.shape, transform, dataset.crs)
    if found.crs is None or not (found.crs.geographic or found.crs.projected):
        raise SceneError("has a CRS that is neither geographic nor projected")
    return found


def band_name(name: str) -> str:
    """Return a band's name with two digits: B2 is B02."""
    return re.sub(r"^B([0-9])$", r"B0\1", name)


def _band_names(
    dataset: rasterio.DatasetReader, numbers: tuple[int, ...], stem: str
) -> tuple[str, ...]:
    named = [dataset.descriptions[number - 1] or "" for number in numbers]
    usable = all(name.isprintable() and 0 < len(name) <= MAX_NAME for name in named)
    if usable and len(set(named)) == len(named):
        return tuple(map(band_name, named))
    kinds = [dataset.colorinterp[number - 1].name for number in numbers]
    if kinds == ["red", "green", "blue"]:
        return tuple(kinds)
    # As in `S2_L2A_20220612_town_B04_B03_B02_SCL.tif`.
    told = [band_name(word.upper()) for word in stem.split("_") if BAND.fullmatch(word)]
    if len(told) == len(numbers) == len(set(told)):
        return tuple(told)
    return tuple(f"band{number}" for number in numbers)


def readable_name(name: str) -> str:
    r"""Return a file name as valid Unicode: bytes that are no UTF-8 become `\xff`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def part_of(
    path: Path | Remote, number: int, nodata: float | None
) -> tuple[Part, str, dict[str, str]]:
    """Return a band of a raster as a part, with its number type and tags."""
    place = path.name
    with Rasters() as rasters, rasters.use(path) as dataset:
        if dataset.count < number:
            raise SceneError(f"has {dataset.count} bands in {place}, expected {number}")
        dtype = _dtype_of(dataset)
        part = Part(path=path, numbers=(number,), geobox=geobox_of(dataset), nodata=nodata)
        if part.geobox is None:
            raise SceneError(f"has no place (CRS and transform) in {place}")
        return part, dtype, dataset.tags()


def common_dtype(dtypes: Sequence[str]) -> str:
    """Return the number type of all parts; raises SceneError when they differ."""
    if len(set(dtypes)) > 1:
        raise SceneError(f"has numbers of types {', '.join(sorted(set(dtypes)))}, expected one")
    return dtypes[0]


def shape_of(parts: Sequence[Part]) -> tuple[int, int]:
    """Return the largest size of some parts in pixels: height, width."""
    shapes = [part.geobox.shape for part in parts if part.geobox is not None]
    height, width = max(shapes, key=lambda shape: int(np.prod(shape)))
    return int(height), int(width)
