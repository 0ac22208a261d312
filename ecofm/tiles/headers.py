"""Headers: what one raster says of its bands, before any pixel of it is read."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp

from ecofm.errors import SceneError
from ecofm.tiles.bands import own_names
from ecofm.tiles.claims import Claim, make_claim, parse_number
from ecofm.tiles.rasters import Rasters, Remote
from ecofm.tiles.scenes import Part
from ecofm.tiles.sidecars import AUX, Sidecar, read_sidecar
from ecofm.types import DTYPES

WIDE = ("int32", "uint32", "int64", "uint64", "float32", "float64")
"""Types that are read and stored as uint16."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What a raster says of itself; its bands are those that are no alpha."""

    path: Path | Remote
    shape_px: tuple[int, int]
    geobox: GeoBox | None
    dtype: str
    numbers: tuple[int, ...]
    names: tuple[str, ...]
    """Of the bands, by the file's own descriptions, colours or name."""
    nodata: float | None
    """What the file itself declares."""
    has_palette: bool
    is_guess: bool
    """Whether the names are those of the colours, which software writes by default."""
    has_alpha: bool
    """Whether a band is taken for alpha, which hides pixels."""
    tags: dict[str, str]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    sidecar: Sidecar = field(default_factory=Sidecar)

    def claims(self, number: int) -> list[Claim]:
        """Return what the file and its sidecar say of a band's scale, and offset in reflectance.

        GDAL gives 1 and 0 where a file is silent, so these say nothing.
        """
        index = self.numbers.index(number)
        found = [_claim("the file itself (GDAL)", self.scales[index], self.offsets[index])]
        beside = self.sidecar.scales.get(number), self.sidecar.offsets.get(number)
        found.append(_claim(f"{self.path.name}{AUX}", beside[0] or 1.0, beside[1] or 0.0))
        if (added := parse_number(self.tags.get("BOA_ADD_OFFSET"), "BOA_ADD_OFFSET")) is not None:
            found.append(Claim("BOA_ADD_OFFSET in its tags", None, added / 1e4))
        return [claim for claim in found if claim is not None]

    def part(self, number: int, default_nodata: float | None = None) -> Part:
        """Return a band as a part; `default_nodata` is that where nothing declares any."""
        beside = self.sidecar.nodata.get(number)
        own = self.nodata
        if beside is not None and own is not None and not np.isclose(beside, own, equal_nan=True):
            raise SceneError(
                f"has nodata {own:g} in {self.path.name} and {beside:g} in its {AUX}; "
                "remove the wrong one"
            )
        return Part(
            path=self.path,
            numbers=(number,),
            geobox=self.geobox,
            dtype=self.dtype,
            nodata=default_nodata if beside is None else beside,
        )


def _claim(source: str, scale: float, offset: float) -> Claim | None:
    """Return what GDAL reads; it gives 1 and 0 where a file is silent."""
    if not math.isfinite(scale) or not math.isfinite(offset):
        raise SceneError(f"has scale {scale:g} and offset {offset:g} by {source}; give --scale")
    return make_claim(source, None if scale == 1 else scale, offset or None)


def read_header(path: Path | Remote, bands: int | None = None) -> Header:
    """Read what a raster says of itself.

    `bands` is the number of names that people give: as many as there are bands include a fourth
    one that GDAL calls alpha. Raises SceneError when it cannot be read, has another number type, a
    damaged place, or a sidecar that cannot be honoured.
    """
    sidecar = read_sidecar(path) if isinstance(path, Path) else Sidecar()
    with Rasters() as rasters, rasters.use(path) as dataset:
        numbers = _band_numbers(dataset, bands)
        if not numbers:
            raise SceneError("has no band besides its mask")
        described = [dataset.descriptions[n - 1] or sidecar.names.get(n) for n in numbers]
        colours = [dataset.colorinterp[n - 1].name for n in numbers]
        names = own_names(described, colours, Path(path.name).stem)
        return Header(
            path=path,
            shape_px=(dataset.height, dataset.width),
            geobox=geobox_of(dataset),
            dtype=_dtype_of(dataset),
            numbers=numbers,
            names=names,
            nodata=dataset.nodatavals[numbers[0] - 1],
            has_palette=ColorInterp.palette in dataset.colorinterp,
            is_guess=names == tuple(colours) and not any(described),
            has_alpha=len(numbers) < dataset.count,
            tags=dataset.tags(),
            scales=tuple(dataset.scales[n - 1] for n in numbers),
            offsets=tuple(dataset.offsets[n - 1] for n in numbers),
            sidecar=sidecar,
        )


def _dtype_of(dataset: rasterio.DatasetReader) -> str:
    dtype = str(dataset.dtypes[0])
    if dtype not in (*DTYPES, *WIDE) or len(set(dataset.dtypes)) > 1:
        found = ", ".join(sorted(set(dataset.dtypes)))
        raise SceneError(
            f"has numbers of type {found}; expected one of {', '.join((*DTYPES, *WIDE))}"
        )
    return dtype


def _band_numbers(dataset: rasterio.DatasetReader, bands: int | None) -> tuple[int, ...]:
    """Return the bands that are no mask: GDAL calls the fourth of four 8-bit ones alpha."""
    if bands == dataset.count:
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
