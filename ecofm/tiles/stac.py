"""STAC items: what their properties say, and where their assets lie."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecofm.errors import SceneError
from ecofm.tiles.assembly import Place, SceneOptions, Told, assemble
from ecofm.tiles.bands import CLASS_BAND, COMMON, QUALITY_FILE, quality_kind, spectral_name
from ecofm.tiles.claims import Claim, parse_baseline, parse_number
from ecofm.tiles.items import file_of, is_item, read_stac_file
from ecofm.tiles.periods import period_of_span
from ecofm.tiles.radiometry import APPLIED
from ecofm.tiles.rasters import Remote
from ecofm.tiles.scenes import Scene
from ecofm.tiles.sources import Source

GSD = re.compile(r"_([126]0)m$")
PICTURES = {"visual", "overview", "thumbnail"}
"""Roles of assets that are renderings."""
BASELINES = ("s2:processing_baseline", "sentinel:processing_baseline")
VERSION = "processing:version"

Json = Mapping[str, Any]


def read_stac(source: Source, options: SceneOptions) -> Scene:
    """Read what a STAC item says of itself; raises SceneError when it cannot be used."""
    item = source.item or read_stac_file(source.path)
    if item is None or not is_item(item):
        raise SceneError("is no STAC item any more")
    properties, assets = (
        value if isinstance(value := item.get(key), dict) else {}
        for key in ("properties", "assets")
    )
    _require_sentinel(properties)
    chosen = _assets_of(assets, options)
    if all(quality_kind(band) for band in chosen):
        raise SceneError(f"has no asset with a band of Sentinel-2 (its own: {', '.join(assets)})")
    files: dict[str, Place] = {
        band: (_place_of(assets[key], source, options), number)
        for band, (key, number) in chosen.items()
    }
    told = _told_by(item, properties)
    told.claims = {band: _claims_of(assets[key], key, n) for band, (key, n) in chosen.items()}
    return assemble(source.name, files, told, options)


def _told_by(item: Json, properties: Json) -> Told:
    def text(*keys: str) -> str | None:
        values = (properties.get(key) for key in keys)
        return next((value for value in values if isinstance(value, str) and value), None)

    date = text("datetime") or period_of_span(text("start_datetime"), text("end_datetime"))
    item_id = str(item.get("id", ""))
    product = text("s2:product_uri", "s2:product_id", "s2:granule_id") or item_id
    baseline, digits = _baseline_of(properties)
    return Told(
        name=item_id[:200],
        dates=[date] if date else [],
        product_id=product,
        tag=text("period"),
        applied=properties.get(APPLIED) is True
        or properties.get("sentinel:boa_offset_applied") is True,
        baseline=baseline,
        baseline_digits=digits,
        synthetic=bool(properties.get("synthetic")),
    )


def _baseline_of(properties: Json) -> tuple[Claim | None, str]:
    """Return what ESA's processing baseline says, and its digits.

    `processing:version` is one where it is written as one and is no other software's version.
    """
    software = properties.get("processing:software")
    versions = set(software.values()) if isinstance(software, dict) else set()
    values = [(key, properties.get(key)) for key in BASELINES]
    if properties.get(VERSION) not in versions:
        values.append((VERSION, properties.get(VERSION)))
    for key, value in values:
        if (found := parse_baseline(value, key)) is not None:
            return found, re.sub("[^0-9]", "", found.source[len(key) :])
    return None, ""


def _assets_of(assets: Json, options: SceneOptions) -> dict[str, tuple[str, int]]:
    """Return (asset's key, band's number) of each band, whatever order the assets stand in.

    A file of one band goes before one of several (a rendering may name bands too), the finest
    before coarser ones, GeoTIFF before JPEG 2000. One raster may hold all bands: then the item
    says their order.
    """
    offered: dict[str, list[tuple[tuple[bool, int, bool, str], int]]] = {}
    for key, asset in assets.items():
        if not isinstance(asset, dict) or _is_picture(key, asset):
            continue
        names = _bands_of(asset)
        found = GSD.search(key)
        rank = (len(names) > 1, int(found[1]) if found else 0, _is_jp2(asset), key)
        if len(names) > 1:
            for number, name in enumerate(names, start=1):
                if name:
                    offered.setdefault(name, []).append((rank, number))
        elif band := _band_of_key(key) or next(iter(names), None):
            offered.setdefault(band, []).append((rank, 1))
    return {
        band: (min(places)[0][-1], min(places)[1])
        for band, places in offered.items()
        if _is_wanted(band, options.bands)
    }


def _is_wanted(band: str, wanted: tuple[str, ...] | None) -> bool:
    """Return whether a band is asked for, or hides pixels of those that are."""
    kind = quality_kind(band)
    if kind not in (None, "unused"):
        return True
    if wanted is None:
        return kind is None
    sources = [text.partition("=")[2] or text for text in wanted]
    return any(band == source or spectral_name(source) == band for source in sources)


def _is_picture(key: str, asset: Json) -> bool:
    roles = asset.get("roles")
    named = {role for role in roles if isinstance(role, str)} if isinstance(roles, list) else set()
    return bool(named & PICTURES) or key.lower().removesuffix("-jp2") in PICTURES


def _require_sentinel(properties: Json) -> None:
    """Raise SceneError for another satellite's item: its `blue` is no B02, nor scaled as that."""
    for key in ("constellation", "platform", "mission"):
        name = properties.get(key)
        if not isinstance(name, str) or not name.strip():
            continue
        if not re.fullmatch(r"(?:sentinel2|s2)(?:msi)?[a-d]?", re.sub(r"[\W_]", "", name.lower())):
            raise SceneError(f"is of {key} {name[:40]}; items of Sentinel-2 are read")


def _is_jp2(asset: Json) -> bool:
    return str(asset.get("href", "")).partition("?")[0].lower().endswith(".jp2")


def _list_of(asset: Json, *keys: str) -> list[dict[str, Any]]:
    """Return the first of some lists of objects that an asset has."""
    for key in keys:
        if isinstance(found := asset.get(key), list) and found:
            return [value if isinstance(value, dict) else {} for value in found]
    return []


def _bands_of(asset: Json) -> tuple[str | None, ...]:
    """Return the bands of an asset, by STAC 1.0's extension or STAC 1.1; None for others."""
    keys = ("name", "common_name", "eo:common_name")
    return tuple(
        next((known for key in keys if (known := _known(band.get(key)))), None)
        for band in _list_of(asset, "eo:bands", "bands")
    )


def _band_of_key(key: str) -> str | None:
    key = key.removesuffix("-jp2")
    found = GSD.search(key)
    return _known(key.removesuffix(found[0] if found else ""))


def _known(name: object) -> str | None:
    """Return the band of Sentinel-2, or the quality band, that a name stands for, else None."""
    if not isinstance(name, str):
        return None
    if COMMON.get(name.lower()) == CLASS_BAND or QUALITY_FILE.fullmatch(name):
        return name.upper()
    return spectral_name(name)


def _place_of(asset: Json, source: Source, options: SceneOptions) -> Path | Remote:
    """Return the file or URL of an asset; raises SceneError when it must not be read."""
    href = str(asset.get("href", ""))
    target = file_of(href, source.path, is_alone=source.item is None)
    if re.match(r"https?://", href) and target is None:
        if not options.remote:
            raise SceneError(f"has its pixels at {href[:80]}; give --remote to read them")
        return Remote(href, options.sign)
    # A store of its own, as `s3://`, has its data behind a URL too: `--sign` knows which.
    if options.remote and options.sign and target is None and "://" in href:
        return Remote(href, options.sign)
    if target is None:
        raise SceneError(f"names {href[:80]}; only files and, with --remote, https are read")
    if not source.may_read(target):
        raise SceneError(f"names {href[:80]}, which is outside the given folder")
    if not target.is_file():
        raise SceneError(f"names {href[:80]}, which does not exist")
    return target


def _claims_of(asset: Json, key: str, number: int) -> list[Claim]:
    """Return what an asset says of a band: `raster:bands`, STAC 1.1's bands, or its own fields."""
    found = []
    for name in ("raster:bands", "bands", ""):
        bands = _list_of(asset, name) if name else [dict(asset)]
        band = bands[number - 1] if name and number <= len(bands) else bands[0] if bands else {}
        source = f"{name or 'raster:scale and raster:offset'} of asset {key}"
        scale, offset = (
            parse_number(band.get(field, band.get(f"raster:{field}")), f"{field} in {source}")
            for field in ("scale", "offset")
        )
        if scale is not None and scale <= 0:
            raise SceneError(f"has scale {scale:g} in {source}, expected one above 0")
        if scale is not None or offset is not None:
            found.append(Claim(source, scale, offset))
    return found
