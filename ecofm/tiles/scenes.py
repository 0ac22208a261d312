"""Scenes and chips: open a raster safely, learn its bands and period, read it onto a cell."""

from __future__ import annotations

import datetime
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.warp import reproject
from rasterio.windows import Window

from ecofm.errors import SceneError

# A VRT named .tif reads any local file and calls URLs, so the driver follows the first bytes.
DRIVERS = {
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",
    b"MM\0+": "GTiff",
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"\0\0\0\x0cjP": "JP2OpenJPEG",
}
SUFFIXES = {".tif", ".tiff", ".jp2", ".png", ".jpg", ".jpeg"}
DTYPES = ("uint8", "uint16", "int16")
MAX_BLOCK_BYTES = 2**30
MAX_CHIP_BYTES = 2**29
# Deflate reaches about 1000:1; a larger promise is an empty file that asks for all memory.
MAX_RATIO = 1100
ALIGNED_PX = 1e-3
PERIOD = re.compile(r"(\d{4})(-Q[1-4]|-\d\d-\d\d)?")

Pixels = npt.NDArray[np.generic]
Valid = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """What a raster says of itself before its pixels are read."""

    path: Path
    period: str | None
    date: str | None
    geobox: GeoBox | None
    bands: tuple[str, ...]
    band_numbers: tuple[int, ...]
    dtype: str
    offset: float
    shape_px: tuple[int, int]
    synthetic: bool

    @property
    def signature(self) -> tuple[tuple[str, ...], str, float]:
        """What all scenes of one archive share: bands, dtype and offset."""
        return self.bands, self.dtype, self.offset


@contextmanager
def open_raster(path: Path) -> Iterator[rasterio.DatasetReader]:
    """Open a local raster with the listed drivers only; GDAL's complaints become SceneError."""
    driver = _driver_of(path)
    try:
        with (
            # Chips have no place on Earth, and need none.
            warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
            rasterio.Env(
                GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", GDAL_ERROR_ON_LIBJPEG_WARNING=True
            ),
            rasterio.open(path.resolve(), driver=driver) as dataset,
        ):
            _require_sane_size(dataset, path)
            yield dataset
    except (RasterioError, ValueError, OSError) as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise SceneError(f"{path.name} cannot be read as an image ({reason})") from error


def _driver_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise SceneError(f"{path.name} cannot be opened ({error.strerror})") from error
    for magic, driver in DRIVERS.items():
        if start.startswith(magic):
            return driver
    raise SceneError(f"{path.name} is no TIFF, JPEG 2000, PNG or JPEG (it starts with {start!r})")


def _require_sane_size(dataset: rasterio.DatasetReader, path: Path) -> None:
    item_bytes = max(np.dtype(dtype).itemsize for dtype in dataset.dtypes)
    block_px = max(height * width for height, width in dataset.block_shapes)
    declared = dataset.width * dataset.height * dataset.count * item_bytes
    # Sparse or bomb: chips are small, so the ratio is judged above 256 MiB only.
    bomb = declared > 2**28 and declared > MAX_RATIO * path.stat().st_size
    if block_px * item_bytes > MAX_BLOCK_BYTES or bomb:
        raise SceneError(
            f"{path.name} declares {dataset.width}x{dataset.height} px in {dataset.count} bands "
            f"but holds {path.stat().st_size} bytes"
        )


def read_scene(path: Path, *, period: str | None, bands: tuple[str, ...] | None) -> Scene:
    """Read what a raster says of itself.

    `period` and `bands` override what the file says. Raises SceneError when the file cannot be
    read, has another number type, or its bands do not fit the given names.
    """
    with open_raster(path) as dataset:
        numbers = tuple(
            number
            for number, kind in enumerate(dataset.colorinterp, start=1)
            if kind != ColorInterp.alpha
        )
        dtype = str(dataset.dtypes[0])
        if dtype not in DTYPES or len(set(dataset.dtypes)) > 1:
            raise SceneError(f"{path.name} has numbers of type {dtype}; expected {DTYPES}")
        names = _band_names(dataset, numbers) if bands is None else bands
        if len(names) != len(numbers):
            raise SceneError(f"{path.name} has {len(numbers)} bands, but {len(names)} are named")
        tags = dataset.tags()
        date, named_period = _period_of(path, tags)
        geobox = None
        if dataset.crs is not None and not dataset.transform.is_identity:
            geobox = GeoBox(dataset.shape, dataset.transform, dataset.crs)
        return Scene(
            path=path,
            period=period or named_period,
            date=date,
            geobox=geobox,
            bands=names,
            band_numbers=numbers,
            dtype=dtype,
            offset=_offset_of(tags, path),
            shape_px=dataset.shape,
            synthetic=any("synthetic" in str(value).lower() for value in tags.values()),
        )


def _offset_of(tags: dict[str, str], path: Path) -> float:
    text = tags.get("BOA_ADD_OFFSET", "0")
    try:
        return float(text)
    except ValueError as error:
        raise SceneError(f"{path.name} has BOA_ADD_OFFSET {text!r}, expected a number") from error


def _band_names(dataset: rasterio.DatasetReader, numbers: tuple[int, ...]) -> tuple[str, ...]:
    named = [dataset.descriptions[number - 1] for number in numbers]
    if all(named) and len(set(named)) == len(named):
        return tuple(re.sub(r"^B(\d)$", r"B0\1", str(name)) for name in named)
    kinds = [dataset.colorinterp[number - 1].name for number in numbers]
    if kinds == ["red", "green", "blue"]:
        return tuple(kinds)
    return tuple(f"band{number}" for number in numbers)


def parse_period(text: str) -> str:
    """Return a period as it is stored; raises ValueError unless it is a year, quarter or day."""
    if not (found := PERIOD.fullmatch(text)):
        raise ValueError(f"period {text!r}: expected a year, a quarter or a day (2019, 2019-Q2...)")
    if found[2] and "Q" not in found[2]:
        datetime.date.fromisoformat(text)
    return text


def _period_of(path: Path, tags: dict[str, str]) -> tuple[str | None, str | None]:
    """Return (date, period) from the tag `period`, product metadata, or the file's name."""
    date = None
    for text in (tags.get("PRODUCT_START_TIME", ""), tags.get("SENSING_TIME", ""), path.stem):
        for found in re.finditer(r"(?<!\d)(20\d\d|19\d\d)[-_.]?(\d\d)[-_.]?(\d\d)(?!\d)", text):
            try:
                date = datetime.date(*map(int, found.groups())).isoformat()
                break
            except ValueError:
                continue
        if date:
            break
    if "period" in tags:
        try:
            return date, parse_period(tags["period"])
        except ValueError as error:
            raise SceneError(f"{path.name}: {error}") from error
    if date:
        return date, date
    year = re.search(r"(?<!\d)((?:19|20)\d\d(?:-Q[1-4])?)(?!\d)", path.stem)
    return None, year[1] if year else None


def read_onto(scene: Scene, target: GeoBox) -> tuple[Pixels, Valid]:
    """Read a scene onto a cell: (band, height, width) in the stored type and a valid mask.

    Where the scene is aligned with the cell within 0.001 px the bytes are copied, else they are
    resampled (bilinear, each pixel weighted by its validity, so that nodata never bleeds in).
    """
    with open_raster(scene.path) as dataset:
        left, top = ~dataset.transform * (target.affine * (0, 0))
        right, bottom = ~dataset.transform * (target.affine * (target.width, target.height))
        corners = np.array([left, top, right, bottom])
        size = (right - left - target.width, bottom - top - target.height)
        same_crs = dataset.crs == target.crs or (
            dataset.crs.to_epsg() is not None and dataset.crs.to_epsg() == target.crs.epsg
        )
        aligned = same_crs and np.abs([*(corners - corners.round()), *size]).max() < ALIGNED_PX
        if aligned:
            return _copy(dataset, scene, target, round(left), round(top))
        return _resample(dataset, scene, target)


def _copy(
    dataset: rasterio.DatasetReader, scene: Scene, target: GeoBox, left: int, top: int
) -> tuple[Pixels, Valid]:
    pixels = np.zeros((len(scene.bands), *target.shape), scene.dtype)
    valid = np.zeros(target.shape, bool)
    x0, y0 = max(left, 0), max(top, 0)
    x1 = min(left + target.width, dataset.width)
    y1 = min(top + target.height, dataset.height)
    if x1 > x0 and y1 > y0:
        window = Window(x0, y0, x1 - x0, y1 - y0)
        inside = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
        pixels[(slice(None), *inside)] = dataset.read(scene.band_numbers, window=window)
        valid[inside] = dataset.dataset_mask(window=window) > 0
    return pixels, valid


def _resample(
    dataset: rasterio.DatasetReader, scene: Scene, target: GeoBox
) -> tuple[Pixels, Valid]:
    pixels = np.zeros((len(scene.bands), *target.shape), scene.dtype)
    source = GeoBox(dataset.shape, dataset.transform, dataset.crs)
    near = target.buffered(8 * target.resolution.x).extent.to_crs(source.crs).boundingbox
    corners = [~dataset.transform * point for point in near.points]
    x0, y0 = np.floor(np.min(corners, axis=0)).astype(int)
    x1, y1 = np.ceil(np.max(corners, axis=0)).astype(int)
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, dataset.width), min(y1, dataset.height)
    if x1 <= x0 or y1 <= y0:
        return pixels, np.zeros(target.shape, bool)
    if (x1 - x0) * (y1 - y0) * len(scene.bands) > 2**28:
        raise SceneError(f"{scene.path.name} is far finer than the grid; downsample it first")
    window = Window(x0, y0, x1 - x0, y1 - y0)
    mask = (dataset.dataset_mask(window=window) > 0).astype(np.float32)
    bands = dataset.read(scene.band_numbers, window=window).astype(np.float32) * mask
    warped = np.zeros((len(bands) + 1, *target.shape), np.float32)
    reproject(
        np.concatenate([bands, mask[None]]),
        warped,
        src_transform=dataset.window_transform(window),
        src_crs=dataset.crs,
        dst_transform=target.affine,
        dst_crs=target.crs,
        resampling=Resampling.bilinear,
        init_dest_nodata=False,
    )
    weight = warped[-1]
    valid = weight > 0.5
    limits = np.iinfo(scene.dtype)
    values = np.rint(warped[:-1] / np.maximum(weight, 1e-6)).clip(limits.min, limits.max)
    pixels[:, valid] = values[:, valid].astype(scene.dtype)
    return pixels, valid


def read_chip(scene: Scene) -> tuple[Pixels, Valid]:
    """Read a whole chip: (band, height, width) and its valid mask."""
    n_bytes = scene.shape_px[0] * scene.shape_px[1] * len(scene.bands) * 2
    if n_bytes > MAX_CHIP_BYTES:
        raise SceneError(f"{scene.path.name} is {scene.shape_px} px; too large for a chip")
    with open_raster(scene.path) as dataset:
        return dataset.read(scene.band_numbers), dataset.dataset_mask() > 0
