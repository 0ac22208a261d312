"""Band files: rasters of one band each, told apart by a word of their names or by their folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ecofm.tiles.bands import BAND, COMMON, QUALITY_FILE, band_name, quality_kind

WORD = r"(?<![^_.\-\s])(?:{})(?:_(?P<gsd>[126]0)m)?(?![^_.\-\s])"
# `band02` is how Digital Earth Australia calls B02; `band2` may be any second band.
NUMBERED = r"BAND_?(?P<number>[0-9]{1,2}A?)"
BAND_WORD = re.compile(WORD.format(rf"{BAND.pattern}|{NUMBERED}"), re.IGNORECASE)
KNOWN_WORD = re.compile(WORD.format(QUALITY_FILE.pattern), re.IGNORECASE)
# The longest first: `nir_1` is no `nir`.
COLOURS = sorted((name for name, band in COMMON.items() if BAND.fullmatch(band)), key=len)[::-1]
COLOUR_WORD = re.compile(WORD.format("|".join(map(re.escape, COLOURS))), re.IGNORECASE)
PICTURES = ("TCI", "PVI", "PREVIEW", "VISUAL")
# What products of Sentinel-2, Landsat, HLS, THEIA, FORCE and Digital Earth Australia call files
# that hold no reflectance. The short words are capitals: `town_sat.tif` is a picture.
QUALITY_END = re.compile(
    r"(?:^|.*[_.\-\s])(?P<word>"
    r"CLM|CLD|CLP|MG[12]|EDG|SAT|DFP|PIX|USI|IAB|ATB|SNW|WAT|QAI|QLT|ANG|ILL|HOT|DST|VZN|OVV"
    r"|(?:mean)?[SV][ZA]A|AOT|WVP|SCL|QA[0-9]{0,2}|SRE_QA|ST_(?:B10|[A-Z]+)"
    r"|(?i:F_?MASK|SCL|QA60|(?:SR_)?QA_(?:PIXEL|RADSAT|AEROSOL)|SR_(?:AEROSOL|CLOUD)_QA|LINEAGE"
    r"|PIXEL_QA|RADSAT_QA|CLDPRB|SNWPRB|MSK_(?:CLD|SNW)PRB|MSK_CLASSI\w*|CLOUD_?PROB(?:ABILITY)?"
    r"|(?:(?:CLOUD|WATER|SNOW|SHADOW|DATA|VALID|VALIDITY|NODATA|LAND|QUALITY|QA)_?)?MASK"
    r"|OA_\w+|(?:SOLAR|SUN|VIEW|SENSOR|SATELLITE)_?(?:ZENITH|AZIMUTH)(?:_ANGLES?)?)"
    r")(?:_(?:R[12]|XS|[126]0m))?$"
)
QUALITY_FOLDERS = ("MASKS", "QI_DATA")
RESOLUTION_FOLDER = re.compile(r"R[126]0m")
GRANULE_FILE = re.compile(r"T[0-9]{2}[A-Z]{3}_[0-9]{8}T[0-9]{6}")
QUALITY = "is a quality file by its name"


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file's name says when one of its words is taken for a band."""

    band: str
    gsd_m: int
    """0 where the name does not tell."""
    rest: tuple[str, str]
    """What stands before and behind the word."""
    is_numbered: bool = False
    """Whether the word is `band2`, which need not be B02."""


@dataclass(slots=True)
class BandSet:
    """The files that are bands of one scene."""

    folder: Path
    scene: str
    """Their name without the band; empty where the name is the band alone."""
    bands: dict[str, Path] = field(default_factory=dict)


@dataclass(slots=True)
class BandFiles:
    """What the names of some files say: sets, and files that are no scenes, with the reason."""

    sets: list[BandSet] = field(default_factory=list)
    taken: set[Path] = field(default_factory=set)
    """Files that are in a set, or the same band of one at a coarser resolution."""
    rejected: dict[Path, str] = field(default_factory=dict)


Group = dict[str, list[tuple[int, Path, Reading]]]


def quality_word(stem: str) -> str | None:
    """Return the word by which a file is no imagery, None for others.

    A raster of several bands may be named by them: `town_B04_SCL` is none of these files.
    """
    found = QUALITY_END.match(stem)
    if found is None or BAND_WORD.search(stem[: found.start("word")]):
        return None
    return found["word"]


def split_band(stem: str) -> tuple[str, int] | None:
    """Return (band, metres or 0) of a file that is named by one of ESA's bands."""
    if not (quality_word(stem) or KNOWN_WORD.search(stem) or BAND_WORD.search(stem)):
        return None
    return next(((found.band, found.gsd_m) for found in readings(stem)), None)


def readings(stem: str) -> list[Reading]:
    """Return how a file's name can be read as that of a band file.

    A raster of several bands may be named by them too: then none of its words is its band.
    """
    if word := quality_word(stem):
        start = stem.rindex(word)
        gsd = re.search(r"_([126]0)m$", stem)
        return [Reading(word.upper(), int(gsd[1]) if gsd else 0, (stem[:start], ""))]
    known, bands = list(KNOWN_WORD.finditer(stem)), list(BAND_WORD.finditer(stem))
    if len(known) + len(bands) > 1:
        return []
    return [_reading(stem, found) for found in known or bands or COLOUR_WORD.finditer(stem)]


def _reading(stem: str, found: re.Match[str]) -> Reading:
    gsd = found["gsd"]
    text = found[0].removesuffix(f"_{gsd}m")
    number = found.groupdict().get("number")
    band = COMMON.get(text.lower()) or band_name(f"B{number}" if number else text.upper())
    is_numbered = bool(number) and len(str(number)) == 1
    return Reading(band, int(gsd or 0), (stem[: found.start()], stem[found.end() :]), is_numbered)


def sort_band_files(images: Sequence[Path], root: Path, *, are_chips: bool = False) -> BandFiles:
    """Return the sets among some files in a folder and below it, and what is no scene.

    The files of a set differ in nothing but their bands: in their names (`town_B04.tif`, `red.tif`,
    `B04_2019.tif`) or in their folders (`B04/2019.tif`, `R10m/`, `R20m/`). A set has two bands.
    Of chips each file is one by itself.
    """
    groups: dict[tuple[Path, tuple[str, str], bool], Group] = {}
    for path in () if are_chips else images:
        for home, reading in _homes(path, root):
            # ESA's files of L2A end in their resolution, those of L1C do not.
            is_l2a = bool(GRANULE_FILE.search(reading.rest[0])) and reading.gsd_m > 0
            group = groups.setdefault((home, reading.rest, is_l2a), {})
            group.setdefault(reading.band, []).append((reading.gsd_m, path, reading))
    found = BandFiles()
    for (home, rest, is_l2a), group in sorted(groups.items(), key=lambda one: -len(one[1])):
        members: Group = {}
        for band, places in group.items():
            left = [place for place in places if place[1] not in found.taken]
            if left and (BAND.fullmatch(band) or quality_kind(band) not in (None, "unused")):
                members[band] = left
        if len(members) >= 2 and any(map(BAND.fullmatch, members)):
            scene = rest if not is_l2a or (home, rest, False) not in groups else (*rest, "L2A")
            _add_set(found, home, _joined(scene), members)
            for _, path, _ in (place for band in PICTURES for place in group.get(band, ())):
                found.rejected[path] = "is a picture of a scene whose bands are read"
    for path in images:
        is_open = path not in found.taken and path not in found.rejected
        if is_open and (word := _quality_of(path)):
            found.rejected[path] = (
                f"{QUALITY} ({word}), which is not read; rename it if it is imagery"
            )
    return found


def _homes(path: Path, root: Path) -> list[tuple[Path, Reading]]:
    """Return how a file can be read as a band, each with the folder that its scene is in."""
    folder = path.parent
    found = readings(path.stem)
    if folder == root:
        return [(folder, reading) for reading in found]
    if RESOLUTION_FOLDER.fullmatch(folder.name):
        return [(folder.parent, reading) for reading in found]
    for pattern in (KNOWN_WORD, BAND_WORD, COLOUR_WORD):
        if named := pattern.fullmatch(folder.name):
            own = _reading(folder.name, named)
            if not found:
                return [(folder.parent, Reading(own.band, own.gsd_m, (path.stem, "")))]
            if any(reading.band == own.band for reading in found):
                return [(folder.parent, reading) for reading in found]
    return [(folder, reading) for reading in found]


def _quality_of(path: Path) -> str | None:
    """Return the word by which a file is no imagery: of its own name, or that of its folder."""
    if word := quality_word(path.stem):
        return word
    folder = path.parent.name
    return folder if folder in QUALITY_FOLDERS or quality_word(folder) == folder else None


def _joined(words: Sequence[str]) -> str:
    return "_".join(filter(None, (word.strip("_.- ") for word in words)))


def _add_set(found: BandFiles, home: Path, scene: str, members: Group) -> None:
    """Add a set, of the finest file of each band; what it leaves in doubt is refused by name."""
    places = [place for band in members for place in members[band]]
    found.taken.update(path for _, path, _ in places)
    if any(reading.is_numbered for _, _, reading in places):
        for _, path, _ in places:
            found.rejected[path] = (
                "is one of several files called band1, band2...: nothing says whether these are "
                "the bands of Sentinel-2 or the order in a file; rename them by their bands, as in "
                f"town_B04{path.suffix}"
            )
        return
    same = sum(other.folder == home and other.scene == scene for other in found.sets)
    added = BandSet(home, scene + (f"~{same + 1}" if same else ""))
    for band in sorted(members):
        (gsd_m, path, _), *others = sorted(members[band], key=lambda place: place[:2])
        added.bands[band] = path
        for other_m, other, _ in others:
            if other_m == gsd_m:
                found.rejected[other] = f"is band {band} of its scene, as {path.name} is"
    found.sets.append(added)
