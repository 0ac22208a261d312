"""STAC items: what their properties say, and where their assets lie."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecofm.errors import SceneError
from ecofm.tiles.assembly import Place, SceneOptions, Told, assemble
from ecofm.tiles.bands import CLASS_BAND, COMMON, QUALITY_FILE, quality_kind, spectral_name
from ecofm.tiles.claims import Claim, make_claim, parse_baseline, parse_number
from ecofm.tiles.items import copies_of, file_of, is_file_href, is_item, read_stac_file, shown
from ecofm.tiles.limits import MAX_HREF_CHARS, MAX_TEXT_CHARS
from ecofm.tiles.offsets import APPLIED
from ecofm.tiles.periods import period_of_span
from ecofm.tiles.rasters import Remote
from ecofm.tiles.scenes import Scene
from ecofm.tiles.sources import Source

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
GSD = re.compile(r"_([126]0)m$")
PICTURES = {"visual", "overview", "thumbnail"}
"""Roles of assets that are renderings."""
BASELINES = ("s2:processing_baseline", "sentinel:processing_baseline")
VERSION = "processing:version"
V0_APPLIED = "sentinel:boa_offset_applied"
OTHER_COLLECTION = re.compile(
    r"landsat|(?<![a-z])l[cet]0[45789]|hls-?l30|modis|viirs|naip|planet|spot|sentinel-?[1356]"
)
LANDSAT_GSD_M = 30

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
    _require_sentinel(item, properties)
    chosen = _assets_of(assets, options)
    if all(quality_kind(band) for band in chosen):
        raise SceneError(_no_band(assets))
    files: dict[str, Place] = {
        band: (_place_of(assets[key], source, options), number)
        for band, (key, number) in chosen.items()
    }
    told = _told_by(item, properties)
    told.claims = {band: _claims_of(assets[key], key, n) for band, (key, n) in chosen.items()}
    nodata = {band: _nodata_of(assets[key], n) for band, (key, n) in chosen.items()}
    told.nodata = {band: number for band, number in nodata.items() if number is not None}
    return assemble(source.name, files, told, options)


def _told_by(item: Json, properties: Json) -> Told:
    def text(*keys: str) -> str | None:
        for key in keys:
            value = properties.get(key)
            if isinstance(value, str) and len(value) > MAX_TEXT_CHARS:
                raise SceneError(
                    f"has a {key} of {len(value)} characters, expected at most {MAX_TEXT_CHARS}"
                )
            if isinstance(value, str) and value:
                return value
        return None

    date = text("datetime") or period_of_span(text("start_datetime"), text("end_datetime"))
    item_id = str(item.get("id", ""))[:MAX_TEXT_CHARS]
    product = text("s2:product_uri", "s2:product_id", "s2:granule_id") or item_id
    baseline, digits = _baseline_of(properties)
    return Told(
        name=item_id[:200],
        dates=[date] if date else [],
        product_id=product,
        tag=text("period"),
        applied=any(_is_true(properties.get(key)) for key in (APPLIED, V0_APPLIED)),
        baseline=baseline,
        baseline_digits=digits,
        synthetic=bool(properties.get("synthetic")),
    )


def _baseline_of(properties: Json) -> tuple[Claim | None, str]:
    """Return what ESA's processing baseline says, and its digits.

    `processing:version` is one where it is written as one and is no other software's version.
    """
    software = properties.get("processing:software")
    named = software.values() if isinstance(software, dict) else ()
    versions = [text for text in named if isinstance(text, str)]
    values = [(key, properties.get(key)) for key in BASELINES]
    if properties.get(VERSION) not in versions:
        values.append((VERSION, properties.get(VERSION)))
    for key, value in values:
        found = parse_baseline(value, key, is_version=key == VERSION)
        if found is not None:
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
        if any(text.partition("=")[2] == key for text in options.bands or ()):
            offered.setdefault(key, []).append(((False, 0, False, key), 1))
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


def _require_sentinel(item: Json, properties: Json) -> None:
    """Raise SceneError for another satellite's item: its `blue` is no B02, nor scaled as that."""
    stated = False
    for key in ("constellation", "platform", "mission"):
        name = properties.get(key)
        if not isinstance(name, str) or not name.strip():
            continue
        if not re.fullmatch(r"(?:sentinel2|s2)(?:msi)?[a-d]?", re.sub(r"[\W_]", "", name.lower())):
            raise SceneError(f"is of {key} {shown(name, 40)}; items of Sentinel-2 are read")
        stated = True
    if stated:
        return
    listed = properties.get("instruments")
    instruments = [str(name) for name in listed] if isinstance(listed, list) else []
    collection = str(item.get("collection") or "")
    if instruments and not any("msi" in name.lower() for name in instruments):
        found = f"instruments {shown(', '.join(instruments), 40)}"
    elif OTHER_COLLECTION.search(collection.lower()):
        found = f"collection {shown(collection, 40)}"
    elif properties.get("gsd") == LANDSAT_GSD_M:
        found = f"gsd {LANDSAT_GSD_M}, as Landsat's are"
    else:
        return
    raise SceneError(f"is of {found}, and of no platform; items of Sentinel-2 are read")


def _no_band(assets: Json) -> str:
    """Return why an item has no band, with the assets to name where they look like bands."""
    own = shown(", ".join(assets), 200)
    said = f"has no asset with a band of Sentinel-2 (its own: {own})"
    guessed: dict[str, str] = {}
    for key in assets:
        for word in re.split(r"[_\-.]", key):
            if (band := spectral_name(word)) is not None:
                guessed.setdefault(band, key)
    pairs = [f"{band}={shown(key)}" for band, key in guessed.items()] or [
        f"B04={shown(key)}" for key in list(assets)[:1]
    ]
    return f"{said}; name them, as in --bands {','.join(pairs)}" if pairs else said


def _is_true(value: object) -> bool:
    """Return whether a property says yes, as some writers do in words."""
    return value is True or (isinstance(value, str) and value.strip().lower() == "true")


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
    is_quality = QUALITY_FILE.fullmatch(name) and quality_kind(name)
    if is_quality or COMMON.get(name.lower()) == CLASS_BAND:
        return name.upper()
    return spectral_name(name)


def _place_of(asset: Json, source: Source, options: SceneOptions) -> Path | Remote:
    """Return the file or URL of an asset; raises SceneError when it must not be read."""
    href = str(asset.get("href", ""))
    if len(href) > MAX_HREF_CHARS or CONTROL.search(href):
        raise SceneError(
            f"names '{shown(href, 40)}', of {len(href)} characters; expected a path or a URL of at "
            f"most {MAX_HREF_CHARS}, none of them a control character"
        )
    target = source.copies.get(href) or file_of(href, source.path)
    if re.match(r"https?://", href) and target is None:
        if not options.remote:
            raise SceneError(_not_here(href, source))
        return Remote(href, options.sign)
    # A store of its own, as `s3://`, has its data behind a URL too: `--sign` knows which.
    if options.remote and options.sign and target is None and "://" in href:
        return Remote(href, options.sign)
    if target is None and is_file_href(href):
        raise SceneError(f"names '{shown(href)}', which is no path that can be opened")
    if target is None:
        raise SceneError(f"names '{shown(href)}'; only files and, with --remote, https are read")
    if not source.may_read(target):
        above = os.path.commonpath([*map(os.path.abspath, source.roots), target])
        cure = f"give the folder above both, {above}" if above != os.sep else "copy it there"
        raise SceneError(f"names '{shown(href)}', which is outside the given folder; {cure}")
    if not os.path.isfile(target):
        what = "is no file" if os.path.exists(target) else "does not exist"
        raise SceneError(f"names '{shown(href)}', which {what}")
    return target


def _not_here(href: str, source: Source) -> str:
    """Return why the pixels of a URL are not read."""
    if found := copies_of(href, source.path, []):
        return (
            f"has its pixels at {shown(href)}, and {found[0].name} beside it may be the copy of "
            "another item's; put the files of each item into a folder called as its id, or give "
            "--remote to read the URLs"
        )
    return f"has its pixels at {shown(href)}; give --remote to read them"


def _nodata_of(asset: Json, number: int) -> float | None:
    """Return the nodata value that an asset states for a band, None where it is silent."""
    for name in ("raster:bands", "bands", ""):
        bands = _list_of(asset, name) if name else [dict(asset)]
        band = bands[number - 1] if number <= len(bands) else bands[0] if bands else {}
        value = band.get("nodata", band.get("raster:nodata"))
        if value is None or isinstance(value, bool):
            continue
        try:
            return float(value)  # "nan" and "inf" are written as texts
        except (TypeError, ValueError, OverflowError) as error:
            raise SceneError(f"has nodata {shown(str(value), 40)!r}, expected a number") from error
    return None


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
        if (claim := make_claim(source, scale, offset)) is not None:
            found.append(claim)
    return found
