"""STAC items: what their properties say, and where their assets lie."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecofm.errors import SceneError
from ecofm.tiles.products import SENTINEL, Place, Told, Words, assemble
from ecofm.tiles.scenes import CLASS_BAND, Scene, band_name
from ecofm.tiles.sources import Source, is_inside, read_item

# STAC's common names, and the asset keys of Earth Search.
COMMON = {
    "coastal": "B01", "blue": "B02", "green": "B03", "red": "B04", "rededge1": "B05",
    "rededge2": "B06", "rededge3": "B07", "nir": "B08", "nir08": "B8A", "nir09": "B09",
    "cirrus": "B10", "swir16": "B11", "swir22": "B12", "scl": CLASS_BAND,
}  # fmt: skip


def read_stac(source: Source, words: Words) -> Scene:
    """Read what a STAC item says of itself; raises SceneError when it cannot be used."""
    item = read_item(source.path)
    if item is None:
        raise SceneError("is no STAC item any more")
    properties, assets = (
        value if isinstance(value := item.get(key), dict) else {}
        for key in ("properties", "assets")
    )
    files, told = _assets_of(assets, source, words), _told_by(item, properties)
    if not files.keys() - {CLASS_BAND}:
        raise SceneError(f"has no asset with a band of Sentinel-2 (its own: {', '.join(assets)})")
    told.metadata = _offset_of_assets(assets)
    return assemble(source, files, told, words)


def _told_by(item: Mapping[str, Any], properties: Mapping[str, Any]) -> Told:
    def text(*keys: str) -> str | None:
        values = (properties.get(key) for key in keys)
        return next((value for value in values if isinstance(value, str) and value), None)

    applied = properties.get("earthsearch:boa_offset_applied")
    date = text("datetime", "start_datetime")
    product = text("s2:product_uri", "s2:product_id") or str(item.get("id", ""))
    return Told(
        name=str(item.get("id", ""))[:200],
        dates=[date] if date else [],
        product_id=product,
        tag=text("period"),
        applied=applied if isinstance(applied, bool) else None,
        metadata=None,
        baseline=text("s2:processing_baseline", "processing:version"),
        synthetic=bool(properties.get("synthetic")),
    )


def _assets_of(assets: Mapping[str, Any], source: Source, words: Words) -> dict[str, Place]:
    """Return where each band of an item lies; GeoTIFF goes before JPEG 2000.

    One raster may hold all bands: then the item says their order.
    """
    chosen: dict[str, tuple[dict[str, Any], int]] = {}
    for key, asset in assets.items():
        if not isinstance(asset, dict):
            continue
        names = _bands_of(asset)
        band = _canonical(key.removesuffix("-jp2")) or (_canonical(names[0]) if names else None)
        if len(names) > 1 and {*names} <= {*SENTINEL, CLASS_BAND}:
            for number, name in enumerate(names, start=1):
                chosen.setdefault(name, (asset, number))
        elif band is not None and len(names) < 2:
            if band not in chosen or (_is_jp2(chosen[band][0]) and not _is_jp2(asset)):
                chosen[band] = asset, 1
    wanted = {*words.bands, CLASS_BAND} if words.bands else set(chosen)
    return {
        band: (_place_of(asset, source, words), number)
        for band, (asset, number) in chosen.items()
        if band in wanted
    }


def _is_jp2(asset: Mapping[str, Any]) -> bool:
    return str(asset.get("href", "")).partition("?")[0].lower().endswith(".jp2")


def _bands_of(asset: Any) -> tuple[str, ...]:
    """Return the names of an asset's bands, by STAC 1.0's extension or STAC 1.1."""
    if not isinstance(asset, dict):
        return ()
    bands = asset.get("eo:bands") or asset.get("bands") or []
    names = [band.get("name") for band in bands if isinstance(band, dict)]
    return tuple(_canonical(name) or name for name in names if isinstance(name, str))


def _canonical(name: str) -> str | None:
    """Return the band of Sentinel-2 that a name stands for, None when it stands for none."""
    known = COMMON.get(name.lower()) or band_name(name.upper())
    return known if known in (*SENTINEL, CLASS_BAND) else None


def _place_of(asset: Mapping[str, Any], source: Source, words: Words) -> Path | str:
    """Return the file or URL of an asset; raises SceneError when it must not be read."""
    href = str(asset.get("href", ""))
    if re.match(r"https?://", href):
        if not words.remote:
            raise SceneError(f"has its pixels at {href[:80]}; give --remote to read them")
        return words.sign(href) if words.sign else href
    target = Path(href.removeprefix("file://"))
    if re.match(r"[a-z0-9]+:", href.removeprefix("file://")) or href.startswith("/vsi"):
        raise SceneError(f"names {href[:80]}; only files and, with --remote, https are read")
    target = source.path.parent / target
    if not is_inside(target, source.root):
        raise SceneError(f"names {href[:80]}, which is outside the given folder")
    if not target.is_file():
        raise SceneError(f"names {href[:80]}, which does not exist")
    return target


def _offset_of_assets(assets: Mapping[str, Any]) -> float | None:
    """Return the offset in stored numbers that `raster:bands` (or STAC 1.1) say, None if none."""
    values = set()
    for key, asset in assets.items():
        if not isinstance(asset, dict) or _canonical(key) in (None, CLASS_BAND):
            continue
        for band in [*(asset.get("raster:bands") or asset.get("bands") or []), asset]:
            if not isinstance(band, dict):
                continue
            scale, offset = (band.get(k, band.get(f"raster:{k}")) for k in ("scale", "offset"))
            if isinstance(scale, int | float) and isinstance(offset, int | float) and scale > 0:
                values.add(round(offset / scale, 6))
    if len(values) > 1:
        raise SceneError(f"has offsets {sorted(values)}: one for all bands is expected")
    return values.pop() if values else None
