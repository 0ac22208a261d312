"""Pixels: a scene read onto a cell, or a whole chip, with the mask of what is valid."""

from __future__ import annotations

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
from ecofm.tiles.scenes import Pixels, Rasters, Scene, Valid

ALIGNED_PX = 1e-3
MAX_CHIP_BYTES = 2**29
MAX_WINDOW_PX = 2**26  # float32, twice: half a GiB
N_BORDER = 17


def read_onto(scene: Scene, target: GeoBox, rasters: Rasters) -> tuple[Pixels, Valid]:
    """Read a scene onto a cell: (band, height, width) in the stored type and a valid mask.

    Where the scene is aligned with the cell within 0.001 px the bytes are copied, else they are
    resampled (bilinear, each pixel weighted by its validity, so that nodata never bleeds in).
    """
    assert scene.geobox is not None, "chips are read whole"
    with rasters.use(scene.path) as dataset:
        corner = _offset_between(scene.geobox, target)
        if corner is not None:
            return _copy(dataset, scene, target, *corner)
        return _resample(dataset, scene, scene.geobox, target)


def read_chip(scene: Scene, rasters: Rasters) -> tuple[Pixels, Valid]:
    """Read a whole chip: (band, height, width) and its valid mask."""
    n_bytes = scene.shape_px[0] * scene.shape_px[1] * len(scene.bands) * 2
    if n_bytes > MAX_CHIP_BYTES:
        raise SceneError(f"is {scene.shape_px} px; too large for a chip")
    with rasters.use(scene.path) as dataset:
        return _read(dataset, scene, Window(0, 0, dataset.width, dataset.height))


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


def _read(dataset: rasterio.DatasetReader, scene: Scene, window: Window) -> tuple[Pixels, Valid]:
    """Read a window and its mask.

    A nodata value that no measurement has (all but 0) makes a pixel invalid where any band holds
    it; 0 only where all bands do, because a band may be truly dark.
    """
    pixels = dataset.read(scene.band_numbers, window=window)
    flags = dataset.mask_flag_enums[scene.band_numbers[0] - 1]
    nodata = dataset.nodatavals[scene.band_numbers[0] - 1]
    has_alpha = MaskFlags.alpha in flags and dataset.count > len(scene.band_numbers)
    if has_alpha or (MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags):
        return pixels, dataset.dataset_mask(window=window) > 0
    if nodata is None:
        return pixels, np.ones(pixels.shape[1:], bool)
    if nodata == 0:
        return pixels, (pixels != 0).any(axis=0)
    return pixels, (pixels != np.float32(nodata)).all(axis=0)


def _copy(
    dataset: rasterio.DatasetReader, scene: Scene, target: GeoBox, left: int, top: int
) -> tuple[Pixels, Valid]:
    pixels = np.zeros((len(scene.bands), *target.shape), scene.dtype)
    valid = np.zeros(target.shape, bool)
    x0, y0 = max(left, 0), max(top, 0)
    x1 = min(left + target.width, dataset.width)
    y1 = min(top + target.height, dataset.height)
    if x1 > x0 and y1 > y0:
        inside = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
        window = Window(x0, y0, x1 - x0, y1 - y0)
        pixels[(slice(None), *inside)], valid[inside] = _read(dataset, scene, window)
    return pixels, valid


def _resample(
    dataset: rasterio.DatasetReader, scene: Scene, source: GeoBox, target: GeoBox
) -> tuple[Pixels, Valid]:
    pixels = np.zeros((len(scene.bands), *target.shape), scene.dtype)
    window = _window_of(source, target)
    if window is None:
        return pixels, np.zeros(target.shape, bool)
    if window.width * window.height > MAX_WINDOW_PX:
        raise SceneError("is far finer than the grid; downsample it first")
    stored, mask = _read(dataset, scene, window)
    a, b, _, d, e, _ = tuple(source.affine)[:6]
    left, top = apply(source.affine, window.col_off, window.row_off)
    warp: dict[str, Any] = {
        "src_transform": Affine(a, b, left, d, e, top),
        "src_crs": dataset.crs,
        "dst_transform": target.affine,
        "dst_crs": str(target.crs),
        "resampling": Resampling.bilinear,
        "init_dest_nodata": False,
    }
    weight = _warp(mask, target, warp)
    valid = weight > 0.5
    limits = np.iinfo(scene.dtype)
    for number, band in enumerate(stored):
        # One band at a time: the memory is bounded by the window, not by the bands.
        values = _warp(np.where(mask, band, 0), target, warp)[valid]
        values = np.rint(values / weight[valid]).clip(limits.min, limits.max)
        pixels[number][valid] = values.astype(scene.dtype)
    return pixels, valid


def _warp(values: Pixels | Valid, target: GeoBox, warp: dict[str, Any]) -> npt.NDArray[np.float32]:
    warped = np.zeros(target.shape, np.float32)
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
    # Bilinear looks one pixel away, or as far as a target pixel reaches in a finer source.
    pad = 2 + 2 * max((high - low) / (width, height))
    x0, y0 = np.floor(np.maximum(low - pad, 0)).astype(int)
    x1, y1 = np.ceil(np.minimum(high + pad, (source.width, source.height))).astype(int)
    if x1 <= x0 or y1 <= y0:
        return None
    return Window(int(x0), int(y0), int(x1 - x0), int(y1 - y0))
