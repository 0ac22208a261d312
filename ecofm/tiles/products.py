"""Products: sets of band files, SAFE folders and STAC items, read as scenes."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

from ecofm.errors import SceneError
from ecofm.tiles.assembly import IDENTITY, Place, SceneOptions, Told, assemble
from ecofm.tiles.bandfiles import split_band
from ecofm.tiles.bands import SENTINEL
from ecofm.tiles.claims import Claim, parse_baseline, parse_number
from ecofm.tiles.headers import read_header
from ecofm.tiles.periods import dates_told
from ecofm.tiles.scenes import Scene
from ecofm.tiles.sources import PRODUCT_FILES, SUFFIXES, Source

MAX_XML_BYTES = 2**24


def read_product(source: Source, options: SceneOptions) -> Scene:
    """Read what a raster, a set or a SAFE folder says of itself; raises SceneError."""
    if source.kind == "safe":
        return _read_safe(source, options)
    if source.kind == "bands":
        return _read_set(source, options)
    return read_scene(source.path, source.name, options)


def read_scene(path: Path, name: str, options: SceneOptions) -> Scene:
    """Read what one raster says of itself.

    Raises SceneError when it cannot be read, has another number type, its bands do not fit the
    given names, or nothing decides what its numbers mean.
    """
    header = read_header(path, None if options.bands is None else len(options.bands))
    files: dict[str, Place] = {
        band: (path, number) for band, number in zip(header.names, header.numbers, strict=True)
    }
    told = Told(
        name=path.stem,
        dates=dates_told(header.tags),
        product_id=path.stem,
        tag=header.tags.get("period"),
    )
    return assemble(name, files, told, options, header)


def _read_set(source: Source, options: SceneOptions) -> Scene:
    files: dict[str, Place] = {}
    for path in source.files:
        if path.suffix.lower() not in SUFFIXES:
            continue
        split = split_band(path.stem)
        assert split is not None, "a set holds band files only"
        files[split[1]] = path, 1
    name = source.path.name
    told = Told(name=name, product_id=name, dates=_dates_beside(source))
    return assemble(source.name, files, told, options)


def _dates_beside(source: Source) -> list[str]:
    """Return the date that a `dates.txt` beside a folder of bands tells, as in Onera's OSCD."""
    folder = source.files[0].parent
    number = re.fullmatch(r"imgs_([0-9])(?:_rect)?", folder.name)
    table = folder.parent / "dates.txt"
    if not number or not table.is_file() or not source.may_read(table):
        return []
    lines = table.read_text(encoding="utf-8", errors="replace")[:4096].splitlines()
    return [line.split(":", 1)[1] for line in lines if line.startswith(f"date_{number[1]}:")]


def _read_safe(source: Source, options: SceneOptions) -> Scene:
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
    places: dict[str, Place] = {band: (path, 1) for band, (_, path) in files.items()}
    return assemble(source.name, places, told, options)


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
    identity = [*found.get("PRODUCT_URI", []), folder.name]
    digits = next(iter(found.get("PROCESSING_BASELINE", [])), "")
    times = ("PRODUCT_START_TIME", "DATATAKE_SENSING_START")
    return Told(
        # A SAFE's name ends with the day that it was processed on.
        name=next((i[3] for text in identity if (i := IDENTITY.search(text))), ""),
        dates=[text for key in times for text in found.get(key, [])],
        product_id=" ".join(identity),
        claims=_claims(found, path.name),
        baseline=parse_baseline(digits, f"processing baseline in {path.name},"),
        baseline_digits=re.sub("[^0-9]", "", digits),
    )


def _claims(found: dict[str, list[str]], file: str) -> dict[str, list[Claim]]:
    """Return what a product's metadata say of each band; offsets are listed by band_id."""
    keys = ("BOA_QUANTIFICATION_VALUE", "QUANTIFICATION_VALUE")
    texts = next((found[key] for key in keys if key in found), [])
    scales = {parse_number(text, f"quantification in {file}") for text in texts} - {None, 0.0}
    if len(scales) > 1:
        raise SceneError(f"has quantifications {sorted(map(str, scales))} in {file}; give --scale")
    quantification = next(iter(scales), None)
    key = next((key for key in ("BOA_ADD_OFFSET", "RADIO_ADD_OFFSET") if key in found), "")
    offsets = [parse_number(text, f"{key} in {file}") for text in found.get(key, [])]
    if len({*offsets}) == 1:
        offsets = offsets[:1] * len(SENTINEL)
    elif offsets and len(offsets) != len(SENTINEL):
        raise SceneError(f"has {len(offsets)} {key} in {file}, expected {len(SENTINEL)}")
    claims: dict[str, list[Claim]] = {}
    for band, added in zip(SENTINEL, offsets or [None] * len(SENTINEL), strict=True):
        offset = None if added is None else added / (quantification or 1e4)
        scale = None if quantification is None else 1 / quantification
        if scale is not None or offset is not None:
            claims[band] = [Claim(f"{key or 'quantification'} in {file}", scale, offset)]
    return claims
