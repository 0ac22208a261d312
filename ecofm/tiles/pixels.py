"""Pixels: a scene read onto a cell, or a whole chip, with the mask of what is valid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import MaskFlags, Resampling
from rasterio.warp import reproject
from rasterio.windows import Window

from ecofm.errors import SceneError
from ecofm.grid import apply, pixel_outlines
from ecofm.tiles.rasters import Pixels, Rasters, Valid
from ecofm.tiles.scenes import Hiding, Part, Scene

ALIGNED_PX = 1e-3
MAX_CHIP_BYTES = 2**29
MAX_WINDOW_PX = 2**26  # float32, twice: half a GiB
MAX_WARP_PX = 2**24
N_BORDER = 17
LEAST_REFLECTANCE = -0.5
CLOUDS = (0, 1, 3, 8, 9, 10)
"""SCL: nodata, defective, shadow, cloud of medium and high probability, cirrus."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How scenes are read onto cells."""

    resampling: str = "bilinear"
    """For reflectance: `bilinear` or `cubic`. Classes and masks are always `nearest`."""
    masked_classes: tuple[int, ...] = CLOUDS
    """Classes of SCL that are invalid."""
    use_quality: bool = True
    """Whether other quality bands, such as QA60, hide pixels."""


@dataclass(slots=True)
class Layer:
    """What one part of a scene shows of a cell."""

    pixels: Pixels
    valid: Valid
    covered: Valid
    """Where the raster reaches, whatever it holds there."""
    has_zero_nodata: bool
    """0 is nodata: then a pixel is invalid where all bands of the scene are 0, for one may be
    truly dark."""


def read_onto(
    scene: Scene, target: GeoBox, rasters: Rasters, reading: Reading | None = None
) -> tuple[Pixels, Valid]:
    """Read a scene onto a cell: (band, height, width) in the stored type and a valid mask.

    Where a part is aligned with the cell within 0.001 px the bytes are copied, else they are
    resampled (each pixel weighted by its validity, so that nodata never bleeds in). The numbers are
    brought to the archive's scale and offset. What a quality band or a mask hides is invalid.
    """
    reading = reading or Reading()
    method = Resampling[reading.resampling]
    layers = [_read_part(part, scene, target, rasters, method) for part in scene.parts]
    pixels = layers[0].pixels if len(layers) == 1 else np.concatenate([x.pixels for x in layers])
    valid = _valid_of(layers)
    for hiding in scene.hidings:
        if valid.any() and _is_used(hiding, reading):
            values = _read_values(hiding.part, target, rasters)
            valid &= ~hiding.hides(values, reading.masked_classes)
    return pixels, valid


def _valid_of(layers: list[Layer]) -> Valid:
    """Return where all layers are valid; those whose nodata is 0, where one of them is not 0."""
    valid: Valid = np.logical_and.reduce([layer.covered for layer in layers])
    for layer in layers:
        if not layer.has_zero_nodata:
            valid &= layer.valid
    if any(layer.has_zero_nodata for layer in layers):
        valid &= np.logical_or.reduce([x.valid for x in layers if x.has_zero_nodata])
    return valid


def _is_used(hiding: Hiding, reading: Reading) -> bool:
    """Return whether a quality band counts; a raster that people gave always does."""
    if hiding.kind == "classes":
        return bool(reading.masked_classes)
    return reading.use_quality or hiding.is_given


def read_chip(
    scene: Scene, rasters: Rasters, reading: Reading | None = None
) -> tuple[Pixels, Valid]:
    """Read a whole chip: (band, height, width) and its valid mask."""
    reading = reading or Reading()
    n_bytes = scene.shape_px[0] * scene.shape_px[1] * len(scene.bands) * 2
    if n_bytes > MAX_CHIP_BYTES:
        raise SceneError(f"is {scene.shape_px} px; too large for a chip")
    layers = []
    for part in scene.parts:
        with rasters.use(part.path) as dataset:
            layers.append(_read_whole(dataset, part, scene))
    pixels = np.concatenate([layer.pixels for layer in layers])
    valid = _valid_of(layers)
    for hiding in scene.hidings:
        if not _is_used(hiding, reading):
            continue
        with rasters.use(hiding.part.path) as dataset:
            if dataset.shape != valid.shape:
                raise SceneError(f"is {valid.shape} px, and its mask {dataset.shape} px")
            values = _as_values(dataset.read(hiding.part.numbers[0]))
            valid &= ~hiding.hides(values, reading.masked_classes)
    return pixels, valid


def _read_whole(dataset: rasterio.DatasetReader, part: Part, scene: Scene) -> Layer:
    pixels, valid, is_zero = read_valid(dataset, part)
    return Layer(_stored(pixels, part, scene), valid, np.ones_like(valid), is_zero)


def _stored(values: npt.NDArray[Any], part: Part, scene: Scene) -> Pixels:
    """Return a part's numbers in the archive's scale and offset, rounded and clipped to its type.

    What is below the smallest number, as reflectance below zero in an archive without an offset, is
    the smallest one. Bytes that mean the same already are returned as they are.
    """
    gain = part.scale / scene.to_scale
    is_same_scale = abs(gain - 1) < 1e-9
    shift = part.offset * (1.0 if is_same_scale else gain) - scene.to_offset
    limits = np.iinfo(scene.dtype)
    if is_same_scale and values.dtype.kind in "iu" and shift == round(shift):
        if shift == 0 and str(values.dtype) == scene.dtype:
            return values
        moved = values.astype(np.int64) + round(shift)
        return np.asarray(moved.clip(limits.min, limits.max).astype(scene.dtype))
    # What is not valid may be any number, the smallest float64 too.
    finite = np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0).clip(-1e9, 1e9)
    scaled = finite * gain + shift
    return np.asarray(np.rint(scaled).clip(limits.min, limits.max).astype(scene.dtype))


def _read_part(
    part: Part, scene: Scene, target: GeoBox, rasters: Rasters, method: Resampling
) -> Layer:
    assert part.geobox is not None, "chips are read whole"
    with rasters.use(part.path) as dataset:
        corner = _offset_between(part.geobox, target)
        if corner is not None:
            layer = _copy(dataset, part, target, *corner)
        else:
            layer = _resample(dataset, part, target, method)
    layer.pixels = _stored(layer.pixels, part, scene)
    return layer


def _as_values(stored: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Return a quality band's numbers as integers, which floats with NaN may hold too."""
    if stored.dtype.kind == "f":
        stored = np.nan_to_num(stored, nan=0.0, posinf=0.0, neginf=0.0)
    return np.asarray(np.clip(stored, -(2**31), 2**31 - 1).astype(np.int32))


def _read_values(part: Part, target: GeoBox, rasters: Rasters) -> npt.NDArray[np.int32]:
    """Return a quality band or a mask on a cell, 0 where it does not reach."""
    assert part.geobox is not None, "a quality band of a placed scene has a place"
    values = np.zeros(target.shape, np.int32)
    window = _window_of(part.geobox, target)
    if window is None:
        return values
    with rasters.use(part.path) as dataset:
        _require_small(window)
        stored = _as_values(dataset.read(part.numbers[0], window=window))
        warp = _warp_of(part.geobox, dataset, window, target, Resampling.nearest)
        reproject(stored, values, **warp)
    return values


def _offset_between(source: GeoBox, target: GeoBox) -> tuple[int, int] | None:
    """Return (left, top) of the target in the source's pixels, None when they are not aligned."""
    assert source.crs is not None and target.crs is not None, "both have a place"
    if source.crs != target.crs and (source.crs.epsg is None or source.crs.epsg != target.crs.epsg):
        return None
    left, top = apply(~source.affine, target.affine.c, target.affine.f)
    height, width = target.shape
    corners = np.array([(width, 0), (0, height), (width, height)])
    found = np.stack(apply(~source.affine, *apply(target.affine, *corners.T)), axis=1)
    place = np.round([left, top])
    off = max(np.abs(found - place - corners).max(), np.abs([left, top] - place).max())
    return (int(place[0]), int(place[1])) if off < ALIGNED_PX else None


def read_valid(
    dataset: rasterio.DatasetReader,
    part: Part,
    window: Window | None = None,
    shape: tuple[int, int] | None = None,
    *,
    any_number: bool = False,
) -> tuple[Pixels, Valid, bool]:
    """Read a window (perhaps at another shape), its mask, and whether 0 is nodata.

    A nodata value that no measurement has (all but 0), what is no finite number, and what is no
    reflectance (below -.5) makes a pixel invalid where any band holds it; 0 only where all bands
    do, because a band may be truly dark. With `any_number` no number is too low.
    """
    first = part.numbers[0] - 1
    out_shape = None if shape is None else (len(part.numbers), *shape)
    pixels = dataset.read(list(part.numbers), window=window, out_shape=out_shape)
    valid = _plausible(pixels, part, -np.inf if any_number else LEAST_REFLECTANCE)
    for number in part.also_nodata:
        valid &= (pixels != number).all(axis=0)
    flags = dataset.mask_flag_enums[first]
    has_alpha = MaskFlags.alpha in flags and dataset.count > len(part.numbers)
    if has_alpha or (MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags):
        return pixels, valid & (dataset.dataset_mask(window=window, out_shape=shape) > 0), False
    nodata = dataset.nodatavals[first]
    nodata = part.nodata if nodata is None or np.isnan(nodata) else nodata
    if nodata is None or np.isnan(nodata):
        return pixels, valid, False
    if nodata == 0:
        return pixels, valid & (pixels != 0).any(axis=0), True
    # As the type holds it: the smallest float32 is no exact float64.
    held = np.asarray(nodata).astype(pixels.dtype) if pixels.dtype.kind == "f" else nodata
    return pixels, valid & (pixels != held).all(axis=0), False


def _plausible(pixels: Pixels, part: Part, least: float) -> Valid:
    """Return where all bands are finite and no reflectance below -.5, as -9999 would be."""
    if pixels.dtype.kind == "u":
        return np.ones(pixels.shape[1:], bool)
    lowest = least / part.scale - part.offset
    # NaN is above nothing.
    numbers: npt.NDArray[Any] = pixels
    return np.asarray((numbers > lowest).all(axis=0) & (numbers < np.inf).all(axis=0))


def _copy(
    dataset: rasterio.DatasetReader, part: Part, target: GeoBox, left: int, top: int
) -> Layer:
    x0, y0 = max(left, 0), max(top, 0)
    x1 = min(left + target.width, dataset.width)
    y1 = min(top + target.height, dataset.height)
    if (x1 - x0, y1 - y0) == (target.width, target.height):
        pixels, valid, is_zero = read_valid(dataset, part, Window(x0, y0, x1 - x0, y1 - y0))
        return Layer(pixels, valid, np.ones(target.shape, bool), is_zero)
    pixels = np.zeros((len(part.numbers), *target.shape), part.dtype)
    valid, covered = np.zeros(target.shape, bool), np.zeros(target.shape, bool)
    is_zero = False
    if x1 > x0 and y1 > y0:
        inside = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
        window = Window(x0, y0, x1 - x0, y1 - y0)
        pixels[(slice(None), *inside)], valid[inside], is_zero = read_valid(dataset, part, window)
        covered[inside] = True
    return Layer(pixels, valid, covered, is_zero)


def _resample(
    dataset: rasterio.DatasetReader, part: Part, target: GeoBox, method: Resampling
) -> Layer:
    assert part.geobox is not None, "chips are read whole"
    # Integers are rounded below; those too wide for uint16 fit into what float32 keeps exact.
    pixels: Pixels = np.zeros((len(part.numbers), *target.shape), part.dtype)
    window = _window_of(part.geobox, target)
    if window is None:
        nothing = np.zeros(target.shape, bool)
        return Layer(pixels, nothing, nothing, False)
    _require_small(window)
    stored, mask, is_zero = read_valid(dataset, part, window)
    warp = _warp_of(part.geobox, dataset, window, target, method)
    (weight,) = _warp(mask[None], target, warp)
    valid = weight > 0.5
    covered = valid
    if not mask.all():
        covered = _warp(np.ones_like(mask)[None], target, warp)[0] > 0.5
    is_float = stored.dtype.kind == "f"
    # Some bands at a time: where a pixel lies is found once for all of them (a third of the time
    # for twelve), and the memory is bounded by the window.
    n_bands = max(1, MAX_WARP_PX // mask.size)
    for first in range(0, len(stored), n_bands):
        some = slice(first, first + n_bands)
        values = _warp(np.where(mask, stored[some], 0), target, warp)[:, valid]
        values = values / weight[valid]
        if not is_float:
            limits = np.iinfo(part.dtype if np.dtype(part.dtype).itemsize < 8 else np.int32)
            values = np.rint(values).clip(limits.min, limits.max)
        pixels[some, valid] = values.astype(part.dtype)
    return Layer(pixels, valid, covered, is_zero)


def _require_small(window: Window) -> None:
    if window.width * window.height > MAX_WINDOW_PX:
        raise SceneError("is far finer than the grid; downsample it first")


def _warp_of(
    source: GeoBox,
    dataset: rasterio.DatasetReader,
    window: Window,
    target: GeoBox,
    method: Resampling,
) -> dict[str, Any]:
    """Return how a window of a raster is warped onto a target."""
    a, b, _, d, e, _ = tuple(source.affine)[:6]
    left, top = apply(source.affine, window.col_off, window.row_off)
    return {
        "src_transform": Affine(a, b, left, d, e, top),
        "src_crs": dataset.crs,
        "dst_transform": target.affine,
        "dst_crs": str(target.crs),
        "resampling": method,
        "init_dest_nodata": False,
    }


def _warp(values: Pixels | Valid, target: GeoBox, warp: dict[str, Any]) -> npt.NDArray[np.float32]:
    warped = np.zeros((len(values), *target.shape), np.float32)
    reproject(values.astype(np.float32), warped, **warp)
    return warped


def _window_of(source: GeoBox, target: GeoBox) -> Window | None:
    """Return the source's pixels that a target needs, None when there are none."""
    height, width = target.shape
    x, y = (
        line.ravel()
        for line in np.meshgrid(*(np.linspace(0, n, N_BORDER) for n in (width, height)))
    )
    points = np.stack(apply(target.affine, x, y), axis=1)
    outline = pixel_outlines(points[None], str(target.crs), source)[0]
    outline = outline[np.isfinite(outline).all(axis=1)]
    if not len(outline):
        return None
    low, high = outline.min(axis=0), outline.max(axis=0)
    # Cubic looks two pixels away, or as far as a target pixel reaches in a finer source.
    pad = 3 + 3 * max((high - low) / (width, height))
    x0, y0 = np.floor(np.maximum(low - pad, 0)).astype(int)
    x1, y1 = np.ceil(np.minimum(high + pad, (source.width, source.height))).astype(int)
    if x1 <= x0 or y1 <= y0:
        return None
    return Window(int(x0), int(y0), int(x1 - x0), int(y1 - y0))
