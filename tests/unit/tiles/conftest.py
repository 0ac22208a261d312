"""Scenes and chips for the tests, painted by the functions below."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

from ecofm.tiles.archive import Archive, open_archive
from ecofm.tiles.ingest import TileConfig, tile

EPSG = "EPSG:32652"
CALL = ("area", "overwrite", "progress", "masks", "append", "workers", "dask", "sign")
CORNER = (250 * 1280, 3376 * 1280)
"""Top left of cell 32652_3375_250 of utm:1280, a whole number of cells of 1280 m."""


def random_pixels(shape: tuple[int, int, int], dtype: str = "uint16", seed: int = 0) -> Any:
    """Return pixels (band, height, width), never 0: bytes, or reflectance x 10000 up to 1."""
    low, high = {"uint8": (1, 255), "uint16": (1, 10_000), "int16": (-300, 10_000)}[dtype]
    values = np.random.default_rng(seed).integers(low, high, shape, endpoint=True, dtype=dtype)
    values[values == 0] = 1
    return values


def paint_scene(
    path: Path,
    pixels: Any,
    *,
    corner: tuple[float, float] = CORNER,
    crs: str | None = EPSG,
    transform: Affine | None = None,
    mask: Any = None,
    tags: dict[str, str] | None = None,
    names: list[str] | None = None,
    **options: Any,
) -> Path:
    """Write a GeoTIFF of 10 m pixels with its top left at a corner."""
    path.parent.mkdir(parents=True, exist_ok=True)
    place = transform or Affine(10, 0, corner[0], 0, -10, corner[1])
    where = {"crs": crs, "transform": place} if crs else {}
    profile = {
        "driver": "GTiff", "count": len(pixels), "height": pixels.shape[1],
        "width": pixels.shape[2], "dtype": str(pixels.dtype), **where, **options,
    }  # fmt: skip
    with (
        warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", **profile) as file,
    ):
        file.write(pixels)
        if mask is not None:
            file.write_mask(mask)
        if tags:
            file.update_tags(**tags)
        for number, name in enumerate(names or [], start=1):
            file.set_band_description(number, name)
    return path


def paint_chip(path: Path, *, side_px: int = 32, seed: int = 0, mode: str = "RGB") -> Path:
    """Write an image file by its suffix, with Pillow."""
    path.parent.mkdir(parents=True, exist_ok=True)
    n_bands = len(mode) if mode in ("RGB", "RGBA") else 1
    values = np.random.default_rng(seed).integers(1, 255, (side_px, side_px, n_bands), np.uint8)
    image = Image.fromarray(values if n_bands > 1 else values[..., 0])
    image.convert(mode).save(
        path, **({"quality": 95, "subsampling": 0} if path.suffix == ".jpg" else {})
    )
    return path


def run_tile(folder: Path, out: Path, **options: Any) -> Archive:
    """Tile a folder onto utm:1280 unless told otherwise, and open what came out."""
    paths = options.pop("paths", [folder])
    call = {key: options.pop(key) for key in CALL if key in options}
    return open_archive(tile(paths, out, TileConfig(**{"grid": "utm:1280", **options}), **call))


def hash_folder(folder: Path) -> dict[str, str]:
    """Return the hash of every file below a folder, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class Stopped(Exception):
    """A run that ends in the middle."""


def stop_after(n_shards: int) -> Callable[[int, int], None]:
    """Return a progress that ends the run after some shards."""

    def progress(done: int, _: int) -> None:
        if done == n_shards:
            raise Stopped

    return progress


class Painter:
    """The functions above, under one name."""

    Stopped = Stopped
    stop_after = staticmethod(stop_after)

    corner = CORNER
    affine = Affine
    pixels = staticmethod(random_pixels)
    scene = staticmethod(paint_scene)
    chip = staticmethod(paint_chip)
    tile = staticmethod(run_tile)
    hashes: Callable[[Path], dict[str, str]] = staticmethod(hash_folder)


@pytest.fixture(scope="session")
def paint() -> Painter:
    """Return the painter of scenes and chips."""
    return Painter()
