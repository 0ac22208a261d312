"""Sidecars: what a FILE.aux.xml beside a raster says of its bands; GDAL itself opens none here."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from ecofm.errors import SceneError
from ecofm.tiles.metadata import read_xml

AUX, MASK = ".aux.xml", ".msk"


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What is said of each band, by its number from 1; where lies what they say of it."""

    nodata: dict[int, float] = field(default_factory=dict)
    scales: dict[int, float] = field(default_factory=dict)
    offsets: dict[int, float] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)


def sidecars_of(path: Path) -> tuple[Path, ...]:
    """Return what lies beside a raster and changes what its numbers mean: files, by their names."""
    beside = (path.with_name(path.name + suffix) for suffix in (AUX, MASK))
    return tuple(file for file in beside if os.path.lexists(file))


def read_sidecar(path: Path) -> Sidecar:
    """Return what FILE.aux.xml says of nodata, scale, offset and names (GDAL's PAM).

    Its place and its tags have no say. Raises SceneError when it cannot be read, and where a mask
    lies in FILE.msk.
    """
    if os.path.lexists(path.with_name(path.name + MASK)):
        raise SceneError(
            f"has its mask beside it, in {path.name}{MASK}, which is not read; write both into one "
            "file with gdal_translate, GDAL_TIFF_INTERNAL_MASK set to YES"
        )
    aux = path.with_name(path.name + AUX)
    if not os.path.lexists(aux):
        return Sidecar()
    found = Sidecar()
    into = {"NoDataValue": found.nodata, "Scale": found.scales, "Offset": found.offsets}
    try:
        for band in read_xml(aux).iter("PAMRasterBand"):
            number = int(band.get("band", ""))
            for element in band:
                if element.tag in into:
                    into[element.tag][number] = float((element.text or "").strip())
                elif element.tag == "Description" and element.text:
                    found.names[number] = element.text
    except ValueError as error:
        raise SceneError(
            f"has {aux.name} beside it that cannot be read ({error}); write what it says into the "
            "file with gdal_translate, or remove it"
        ) from error
    return found
