"""Products: sets of band files, SAFE folders and STAC items, read as scenes."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ecofm.errors import SceneError
from ecofm.files import read_start
from ecofm.tiles.assembly import GRANULE, IDENTITY, Place, SceneOptions, Told, assemble
from ecofm.tiles.bandfiles import split_band
from ecofm.tiles.bands import SENTINEL
from ecofm.tiles.claims import Claim, parse_baseline, parse_number
from ecofm.tiles.given import PRODUCT_FILES, SUFFIXES, absolute
from ecofm.tiles.headers import read_header
from ecofm.tiles.metadata import read_xml
from ecofm.tiles.periods import dates_told
from ecofm.tiles.scenes import Scene
from ecofm.tiles.sources import Source

OFFSETS = ("BOA_ADD_OFFSET", "RADIO_ADD_OFFSET")
GRANULE_TILE = re.compile(r"(?<![A-Z0-9])T[0-9]{2}[A-Z]{3}(?![A-Z0-9])")


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
    for band, path in zip(source.bands, source.files, strict=False):  # sidecars follow
        if (n_bands := len(read_header(path).numbers)) > 1:
            raise SceneError(
                f"is named as a set of band files, and {path.name} has {n_bands} bands itself; "
                "give each date or scene a file of its own, or rename these files"
            )
        files[band] = path, 1
    name = source.path.name
    product_id = " ".join([name, *_product_above(source.path)])
    told = Told(name=name, product_id=product_id, dates=_dates_beside(source))
    return assemble(source.name, files, told, options)


def _product_above(path: Path) -> list[str]:
    """Return the name of the nearest folder above that names a product, if it is of the granule."""
    for folder in absolute(path).parents:
        if product := IDENTITY.search(folder.name):
            granule = GRANULE.search(path.name)
            is_same = granule is None or granule[1] == f"{product[5]}_{product[3]}"
            return [folder.name] if is_same else []
    return []


def _dates_beside(source: Source) -> list[str]:
    """Return the date that a `dates.txt` beside a folder of bands tells, as in Onera's OSCD."""
    folder = source.files[0].parent
    number = re.fullmatch(r"imgs_([0-9])(?:_rect)?", folder.name)
    table = folder.parent / "dates.txt"
    if not number or not table.is_file() or not source.may_read(table):
        return []
    lines = read_start(table, 4096).decode("utf-8", "replace").splitlines()
    return [line.split(":", 1)[1] for line in lines if line.startswith(f"date_{number[1]}:")]


def _read_safe(source: Source, options: SceneOptions) -> Scene:
    files: dict[str, tuple[int, Path]] = {}
    for path in source.files:
        in_images = "IMG_DATA" in path.parts
        if not in_images or path.suffix.lower() not in SUFFIXES or not source.may_read(path):
            continue
        if split := split_band(path.stem):
            band, gsd = split
            if band not in files or gsd < files[band][0]:
                files[band] = gsd, path
    if not files:
        raise SceneError("is a SAFE folder without IMG_DATA/*_B02*.jp2; was it unpacked whole?")
    told = _read_metadata(source)
    places: dict[str, Place] = {band: (path, 1) for band, (_, path) in files.items()}
    return assemble(source.name, places, told, options)


def _read_metadata(source: Source) -> Told:
    """Return what a SAFE folder's own XML says; raises SceneError when it is damaged."""
    folder = source.path
    path = next(folder / name for name in PRODUCT_FILES if os.path.lexists(folder / name))
    found: dict[str, list[str]] = {}
    offsets: dict[str, list[tuple[str, str]]] = {}
    for element in read_xml(path).iter():
        key = element.tag.rpartition("}")[2]
        value = (element.text or "").strip()
        found.setdefault(key, []).append(value)
        if key in OFFSETS:
            offsets.setdefault(key, []).append((element.get("band_id", ""), value))
    identity = [*found.get("PRODUCT_URI", []), folder.name]
    if granule := GRANULE_TILE.search(source.name.rpartition("/")[2].replace(folder.name, "")):
        # A product of several granules has one tile in its name, or none.
        identity = [re.sub(r"_T[0-9A-Z]{5}(?=_|\.|$)", f"_{granule[0]}", t) for t in identity]
    digits = next(iter(found.get("PROCESSING_BASELINE", [])), "")
    times = ("PRODUCT_START_TIME", "DATATAKE_SENSING_START")
    return Told(
        # A SAFE's name ends with the day that it was processed on.
        name=next((i[3] for text in identity if (i := IDENTITY.search(text))), ""),
        dates=[text for key in times for text in found.get(key, [])],
        product_id=" ".join(identity),
        claims=_claims(found, offsets, path.name),
        baseline=parse_baseline(digits, f"processing baseline in {path.name},"),
        baseline_digits=re.sub("[^0-9]", "", digits),
    )


def _claims(
    found: dict[str, list[str]], offsets: dict[str, list[tuple[str, str]]], file: str
) -> dict[str, list[Claim]]:
    """Return what a product's metadata say of each band."""
    keys = ("BOA_QUANTIFICATION_VALUE", "QUANTIFICATION_VALUE")
    texts = next((found[key] for key in keys if key in found), [])
    scales = {parse_number(text, f"quantification in {file}") for text in texts} - {None, 0.0}
    if len(scales) > 1:
        raise SceneError(f"has quantifications {sorted(map(str, scales))} in {file}; give --scale")
    quantification = next(iter(scales), None)
    key = next((key for key in OFFSETS if key in offsets), "")
    added = _offsets_of(offsets.get(key, []), key, file)
    claims: dict[str, list[Claim]] = {}
    for band in SENTINEL:
        offset = None if (number := added.get(band)) is None else number / (quantification or 1e4)
        scale = None if quantification is None else 1 / quantification
        if scale is not None or offset is not None:
            claims[band] = [Claim(f"{key or 'quantification'} in {file}", scale, offset)]
    return claims


def _offsets_of(listed: list[tuple[str, str]], key: str, file: str) -> dict[str, float | None]:
    """Return the stored offset of each band, which is listed by its `band_id`, 0 for B01."""
    numbers = [(number, parse_number(text, f"{key} in {file}")) for number, text in listed]
    if len({offset for _, offset in numbers}) == 1:
        return dict.fromkeys(SENTINEL, numbers[0][1])
    ids = {str(band_id) for band_id in range(len(SENTINEL))}
    found = [number for number, _ in numbers]
    if len(set(found)) < len(found) or not ids.issuperset(found):
        raise SceneError(
            f"has {len(numbers)} {key} in {file} that differ, expected one for each band_id, from "
            f"0 to {len(SENTINEL) - 1}"
        )
    return {SENTINEL[int(number)]: offset for number, offset in numbers}
