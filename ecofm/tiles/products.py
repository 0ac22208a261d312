"""Products: sets of band files, SAFE folders and STAC items, read as scenes."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ecofm.errors import SceneError
from ecofm.tiles.offsets import Offset, resolve_offset
from ecofm.tiles.periods import period_or
from ecofm.tiles.rasters import Remote, Sign
from ecofm.tiles.scenes import (
    CLASS_BAND,
    Part,
    Scene,
    common_dtype,
    part_of,
    read_scene,
    settle_offset,
    shape_of,
)
from ecofm.tiles.sources import PRODUCT_FILES, SUFFIXES, Source, split_band

SENTINEL = (
    "B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12",
)  # fmt: skip
NODATA = 0.0
"""Sentinel-2 products keep 0 for nodata, and their files do not say so."""
QUANTIFICATION = 10000.0
MAX_XML_BYTES = 2**24
IDENTITY = re.compile(
    r"(S2[A-Z])_MSI(L1C|L2A)_([0-9]{8}T[0-9]{6})(?:_N([0-9]{4}))?_R[0-9]{3}_(T[0-9A-Z]{5})"
)

Place = tuple[Path | Remote, int]
"""A raster and the number of a band in it, from 1."""


@dataclass(kw_only=True, slots=True)
class Words:
    """What people say of all scenes; it overrides what the scenes say."""

    period: str | None = None
    bands: tuple[str, ...] | None = None
    offset: float | None = None
    period_in_name: bool = True
    remote: bool = False
    """Whether assets with a URL may be read."""
    sign: Sign | None = None


@dataclass(kw_only=True, slots=True)
class Told:
    """What a product says of itself."""

    name: str = ""
    """Where a date may be, least trusted."""
    dates: list[str] = field(default_factory=list)
    product_id: str = ""
    tag: str | None = None
    applied: bool | None = None
    metadata: float | None = None
    baseline: str | None = None
    synthetic: bool = False


def read_product(source: Source, words: Words) -> Scene:
    """Read what a raster, a set or a SAFE folder says of itself; raises SceneError."""
    if source.kind == "safe":
        return _read_safe(source, words)
    if source.kind == "bands":
        return _read_set(source, words)
    scene = read_scene(
        source.path,
        name=source.name,
        period=words.period,
        bands=words.bands,
        period_in_name=words.period_in_name,
        offset=words.offset,
    )
    product, baseline = identify(source.path.stem)
    return replace(scene, product=product and f"{product}|{source.path.stem}", baseline=baseline)


def identify(text: str) -> tuple[str, str]:
    """Return (acquisition and granule, baseline) of a product's id, empty when it is none."""
    found = IDENTITY.search(text)
    if not found:
        return "", ""
    return "_".join((found[1], found[2], found[3], found[5])), found[4] or ""


def assemble(source: Source, files: Mapping[str, Place], told: Told, words: Words) -> Scene:
    """Return the scene whose bands lie at some places."""
    names = words.bands or tuple(sorted(files.keys() - {CLASS_BAND}, key=_order))
    missing = [name for name in names if name not in files]
    if missing:
        raise SceneError(f"has no band {', '.join(missing)} (its own: {', '.join(sorted(files))})")
    if not names:
        raise SceneError("has no band besides its classification")
    parts: list[Part] = []
    dtypes: list[str] = []
    tags: dict[str, str] = {}
    for name in names:
        part, dtype, more = part_of(*files[name], NODATA)
        if parts and parts[-1].path == part.path:
            part = replace(part, numbers=(*parts.pop().numbers, *part.numbers))
        parts.append(part)
        dtypes.append(dtype)
        tags |= more
    dtype = common_dtype(dtypes)
    classes = None
    if CLASS_BAND in files and CLASS_BAND not in names:
        classes = part_of(*files[CLASS_BAND], None)[0]
    date, period = period_or(
        words.period, told.name if words.period_in_name else "", told.tag, told.dates
    )
    found = resolve_offset(
        product_id=told.product_id,
        date=date,
        applied=told.applied,
        metadata=told.metadata,
        baseline=told.baseline,
    )
    settled: Offset = settle_offset(
        words.offset, dtype, found, [(p.path, p.numbers) for p in parts]
    )
    product, baseline = identify(told.product_id)
    return Scene(
        name=source.name,
        period=period,
        date=date,
        bands=names,
        parts=tuple(parts),
        dtype=dtype,
        offset=settled.value,
        offset_said_by=settled.said_by,
        classes=classes,
        product=product,
        baseline=re.sub("[^0-9]", "", told.baseline or baseline),
        shape_px=shape_of(parts),
        synthetic=told.synthetic or "synthetic" in " ".join([*tags, *tags.values()]).lower(),
    )


def _order(band: str) -> tuple[int, str]:
    """Return a sort key: the order of wavelengths, in which B8A follows B08."""
    return (SENTINEL.index(band) if band in SENTINEL else len(SENTINEL)), band


def _read_set(source: Source, words: Words) -> Scene:
    files: dict[str, Place] = {}
    for path in source.files:
        split = split_band(path.stem)
        assert split is not None, "a set holds band files only"
        files[split[1]] = path, 1
    name = source.path.name
    told = Told(name=name, product_id=name, dates=_dates_beside(source))
    return assemble(source, files, told, words)


def _dates_beside(source: Source) -> list[str]:
    """Return the date that a `dates.txt` beside a folder of bands tells, as in Onera's OSCD."""
    folder = source.files[0].parent
    number = re.fullmatch(r"imgs_([0-9])(?:_rect)?", folder.name)
    table = folder.parent / "dates.txt"
    if not number or not table.is_file() or not source.may_read(table):
        return []
    lines = table.read_text(encoding="utf-8", errors="replace")[:4096].splitlines()
    return [line.split(":", 1)[1] for line in lines if line.startswith(f"date_{number[1]}:")]


def _read_safe(source: Source, words: Words) -> Scene:
    files: dict[str, tuple[int, Path]] = {}
    for path in source.files:
        in_images = "IMG_DATA" in path.parts
        if not in_images or path.suffix.lower() not in SUFFIXES or not source.may_read(path):
            continue
        if split := split_band(path.stem):
            _, band, gsd = split
            if band not in files or gsd < files[band][0]:
                files[band] = gsd, path
    if not files:
        raise SceneError("is a SAFE folder without IMG_DATA/*_B02*.jp2; was it unpacked whole?")
    told = _read_metadata(source.path)
    return assemble(source, {band: (path, 1) for band, (_, path) in files.items()}, told, words)


def _read_metadata(folder: Path) -> Told:
    """Return what a SAFE folder's own XML says; raises SceneError when it is damaged."""
    path = next(folder / name for name in PRODUCT_FILES if (folder / name).is_file())
    try:
        if path.stat().st_size > MAX_XML_BYTES:
            raise SceneError(f"has {path.name} of {path.stat().st_size} bytes")
        text = path.read_text(encoding="utf-8")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise SceneError(f"has entities in {path.name}, which no product has")
        found: dict[str, list[str]] = {}
        for element in ET.fromstring(text).iter():
            key = element.tag.rpartition("}")[2]
            found.setdefault(key, []).append((element.text or "").strip())
    except (OSError, ValueError, ET.ParseError) as error:
        raise SceneError(f"has {path.name} that cannot be read ({error})") from error
    scale = _one_number(found, "BOA_QUANTIFICATION_VALUE", "QUANTIFICATION_VALUE")
    if scale not in (None, QUANTIFICATION):
        raise SceneError(f"has quantification {scale:g}, expected {QUANTIFICATION:g}")
    times = ("PRODUCT_START_TIME", "DATATAKE_SENSING_START")
    identity = [*found.get("PRODUCT_URI", []), folder.name]
    return Told(
        # A SAFE's name ends with the day that it was processed on.
        name=next((i[3] for text in identity if (i := IDENTITY.search(text))), ""),
        dates=[text for key in times for text in found.get(key, [])],
        product_id=" ".join(identity),
        metadata=_one_number(found, "BOA_ADD_OFFSET", "RADIO_ADD_OFFSET"),
        baseline=next(iter(found.get("PROCESSING_BASELINE", [])), None),
    )


def _one_number(found: dict[str, list[str]], *keys: str) -> float | None:
    """Return the number that all elements with one of the names hold, None when there is none."""
    texts = next((found[key] for key in keys if key in found), [])
    try:
        values = {float(text) for text in texts}
    except ValueError as error:
        raise SceneError(f"has a {keys[0]} that is no number") from error
    if len(values) > 1:
        raise SceneError(f"has {keys[0]} {sorted(values)}: one for all bands is expected")
    return values.pop() if values else None
