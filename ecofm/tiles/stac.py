"""STAC items: what their properties say, and where their assets lie."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecofm.errors import SceneError
from ecofm.tiles.items import is_item, read_stac_file
from ecofm.tiles.periods import period_of_span
from ecofm.tiles.products import SENTINEL, Place, Told, Words, assemble
from ecofm.tiles.radiometry import REFLECTANCE_SCALE
from ecofm.tiles.rasters import Remote
from ecofm.tiles.scenes import CLASS_BAND, Scene, band_name
from ecofm.tiles.sources import Source, absolute

# STAC's common names, and the asset keys of Earth Search.
COMMON = {
    "coastal": "B01", "blue": "B02", "green": "B03", "red": "B04", "rededge1": "B05",
    "rededge2": "B06", "rededge3": "B07", "nir": "B08", "nir08": "B8A", "nir09": "B09",
    "cirrus": "B10", "swir16": "B11", "swir22": "B12", "scl": CLASS_BAND,
}  # fmt: skip
GSD = re.compile(r"_([126]0)m$")


def read_stac(source: Source, words: Words) -> Scene:
    """Read what a STAC item says of itself; raises SceneError when it cannot be used."""
    item = source.item or read_stac_file(source.path)
    if item is None or not is_item(item):
        raise SceneError("is no STAC item any more")
    properties, assets = (
        value if isinstance(value := item.get(key), dict) else {}
        for key in ("properties", "assets")
    )
    _require_sentinel(properties)
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
    date = text("datetime") or period_of_span(text("start_datetime"), text("end_datetime"))
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
    """Return where each band of an item lies, whatever order its assets stand in.

    A file of one band goes before one of several (a rendering may name bands too), the finest
    before coarser ones, GeoTIFF before JPEG 2000. One raster may hold all bands: then the item
    says their order.
    """
    offered: dict[str, list[tuple[tuple[bool, int, bool, str], int]]] = {}
    for key, asset in assets.items():
        if not isinstance(asset, dict):
            continue
        names = _bands_of(asset)
        gsd = GSD.search(key)
        band = _canonical(key.removesuffix("-jp2").removesuffix(gsd[0] if gsd else ""))
        band = band or (_canonical(names[0]) if names else None)
        rank = (len(names) > 1, int(gsd[1]) if gsd else 0, _is_jp2(asset), key)
        if len(names) > 1 and {*names} <= {*SENTINEL, CLASS_BAND}:
            for number, name in enumerate(names, start=1):
                offered.setdefault(name, []).append((rank, number))
        elif band is not None and len(names) < 2:
            offered.setdefault(band, []).append((rank, 1))
    wanted = {*words.bands, CLASS_BAND} if words.bands else set(offered)
    chosen = {band: min(places) for band, places in offered.items() if band in wanted}
    return {
        band: (_place_of(assets[rank[-1]], source, words), number)
        for band, (rank, number) in chosen.items()
    }


def _require_sentinel(properties: Mapping[str, Any]) -> None:
    """Raise SceneError for another satellite's item: its `blue` is no B02, nor scaled as that."""
    for key in ("constellation", "platform"):
        name = properties.get(key)
        if isinstance(name, str) and name and not re.match("sentinel-?2", name, re.IGNORECASE):
            raise SceneError(f"is of {key} {name[:40]}; items of Sentinel-2 are read")


def _is_jp2(asset: Mapping[str, Any]) -> bool:
    return str(asset.get("href", "")).partition("?")[0].lower().endswith(".jp2")


def _list_of(asset: Mapping[str, Any], *keys: str) -> list[dict[str, Any]]:
    """Return the first of some lists of objects that an asset has."""
    for key in keys:
        if isinstance(found := asset.get(key), list) and found:
            return [value for value in found if isinstance(value, dict)]
    return []


def _bands_of(asset: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of an asset's bands, by STAC 1.0's extension or STAC 1.1."""
    names = [band.get("name") for band in _list_of(asset, "eo:bands", "bands")]
    return tuple(_canonical(name) or name for name in names if isinstance(name, str))


def _canonical(name: str) -> str | None:
    """Return the band of Sentinel-2 that a name stands for, None when it stands for none."""
    known = COMMON.get(name.lower()) or band_name(name.upper())
    return known if known in (*SENTINEL, CLASS_BAND) else None


def _place_of(asset: Mapping[str, Any], source: Source, words: Words) -> Path | Remote:
    """Return the file or URL of an asset; raises SceneError when it must not be read."""
    href = str(asset.get("href", ""))
    if re.match(r"https?://", href):
        if not words.remote:
            raise SceneError(f"has its pixels at {href[:80]}; give --remote to read them")
        return Remote(href, words.sign)
    # A store of its own, as `s3://`, has its data behind a URL too: `--sign` knows which.
    if words.remote and words.sign and re.match(r"[a-z0-9]+://", href) and href[:5] != "file:":
        return Remote(href, words.sign)
    target = Path(href.removeprefix("file://"))
    if re.match(r"[a-z0-9]+:", href.removeprefix("file://")) or href.startswith("/vsi"):
        raise SceneError(f"names {href[:80]}; only files and, with --remote, https are read")
    target = absolute(source.path.parent / target)
    if not source.may_read(target):
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
        for band in [*_list_of(asset, "raster:bands", "bands"), asset]:
            scale, offset = (band.get(k, band.get(f"raster:{k}")) for k in ("scale", "offset"))
            if isinstance(scale, int | float) and not math.isclose(scale, REFLECTANCE_SCALE):
                raise SceneError(f"has scale {scale:g}, expected {REFLECTANCE_SCALE:g}")
            if isinstance(scale, int | float) and isinstance(offset, int | float):
                values.add(round(offset / scale, 6))
    if len(values) > 1:
        raise SceneError(f"has offsets {sorted(values)}: one for all bands is expected")
    return values.pop() if values else None
