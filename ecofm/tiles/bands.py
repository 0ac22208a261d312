"""Bands: what files and catalogues call them, which of them measure the ground, and a choice."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ecofm.errors import SceneError

SENTINEL = (
    "B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12",
)  # fmt: skip
# STAC's common names, and the asset keys of Earth Search.
COMMON = {
    "coastal": "B01", "blue": "B02", "green": "B03", "red": "B04", "rededge1": "B05",
    "rededge2": "B06", "rededge3": "B07", "rededge071": "B05", "rededge075": "B06",
    "rededge078": "B07", "nir": "B08", "nir08": "B8A", "nir09": "B09", "cirrus": "B10",
    "swir16": "B11", "swir22": "B12", "scl": "SCL", "swir1": "B11", "swir2": "B12",
    "broadnir": "B08", "coastal_aerosol": "B01", "red_edge_1": "B05", "red_edge_2": "B06",
    "red_edge_3": "B07", "nir_1": "B08", "nir_2": "B8A", "swir_2": "B11", "swir_3": "B12",
}  # fmt: skip
CLASS_BAND = "SCL"
MAX_NAME = 64
UNNAMED = re.compile(r"band[0-9]+")
BAND = re.compile(r"B(?:0?[1-9]|1[0-2]|0?8A)", re.IGNORECASE)
# What Earth Engine puts around a band: the image's number or id before it, a reducer behind it.
AROUND = re.compile(
    r"(?:[0-9]+_|[0-9]{8}T[0-9]{6}_[0-9]{8}T[0-9]{6}_T[0-9A-Z]{5}_|nbart?_)?(?P<band>.+?)"
    r"(?:_(?:median|mean|medoid|mosaic|first|min|max|p[0-9]{1,2}|[126]0m))?",
    re.IGNORECASE,
)

Kind = Literal["classes", "bits", "nonzero", "zero", "unused"]
"""What a quality band hides: its classes, pixels with a cloud bit, what is not 0, what is 0."""
QUALITY: tuple[tuple[str, Kind], ...] = (
    ("SCL|SCENE_CLASS(?:IFICATION)?", "classes"),
    ("QA60", "bits"),
    ("MSK_CLASSI_OPAQUE|MSK_CLASSI_CIRRUS", "nonzero"),
    ("DATA_?MASK", "zero"),
    (
        r"MSK_\w+|\w*QA[0-9_]?\w*|AOT|WVP|TCI(?:_[RGB])?|PVI|PREVIEW|VISUAL|(?:MSK_)?(?:CLD|SNW)(?:PRB)?"
        r"|CL[MP]|CS(?:_CDF)?|FMASK|PROBABILITY|\w*CLOUD\w*|\w*MASK\w*|\w*(?:AZIMUTH|ZENITH)\w*"
        r"|ALPHA|COUNT|N_?OBS|MG2|EDG|SAT|DFP|IAB|QAI|ANG|[SV][ZA]A|ST_\w+|OA_\w+"
        r"|\w*(?:CONTIGUITY|SHADOW|AEROSOL)\w*",
        "unused",
    ),
)
"""Quality bands by their names, the first that fits."""
CLOUD_BITS = 1 << 10 | 1 << 11
"""QA60: opaque clouds and cirrus."""
QUALITY_FILE = re.compile(
    r"SCL|QA(?:10|20|60)|MSK_CLASSI_\w+|MSK_(?:CLD|SNW)PRB|CLDPRB|SNWPRB|AOT|WVP|TCI|DATA_?MASK",
    re.IGNORECASE,
)
"""Files of these names beside band files belong to their scene."""


def band_name(name: str) -> str:
    """Return a band's name with two digits: B2 is B02, and B08A is B8A."""
    found = re.fullmatch(r"B0?([0-9]|8A|1[0-2])", name, re.IGNORECASE)
    if not found:
        return name
    digits = found[1].upper()
    return f"B{digits}" if len(digits) > 1 else f"B0{digits}"


def spectral_name(name: str) -> str | None:
    """Return the band of Sentinel-2 that a name stands for (B4, 0_B4_median, red), else None."""
    found = AROUND.fullmatch(name.strip())
    text = found["band"] if found else ""
    known = COMMON.get(text.lower()) or (band_name(text.upper()) if BAND.fullmatch(text) else None)
    return known if known in SENTINEL else None


def spectral_names(own: Sequence[str]) -> list[str | None]:
    """Return `spectral_name` of a scene's bands: beside FORCE's BROADNIR, NIR is the narrow one."""
    has_both = any(name.upper() == "BROADNIR" for name in own)
    return ["B8A" if has_both and n.upper() == "NIR" else spectral_name(n) for n in own]


def quality_kind(name: str) -> Kind | None:
    """Return what a quality band of some name hides, None for a name that is none of them."""
    found = AROUND.fullmatch(name.strip())
    text = found["band"] if found else name
    for pattern, kind in QUALITY:
        if re.fullmatch(pattern, text, re.IGNORECASE):
            return kind
    return None


def own_names(
    descriptions: Sequence[str | None], colours: Sequence[str], stem: str
) -> tuple[str, ...]:
    """Return a raster's band names: its own, else red, green and blue, else the file name's.

    Where none of them says, they are band1, band2... (`UNNAMED`). Sentinel-2's own names get two
    digits.
    """
    named = [(text or "").strip() for text in descriptions]
    unnamed = [f"band{number}" for number in range(1, len(named) + 1)]
    if all(name.isprintable() and 0 < len(name) <= MAX_NAME for name in named):
        names = [_short(name) for name in named]
        return tuple(names if len(set(names)) == len(names) else unnamed)
    if list(colours) == ["red", "green", "blue"]:
        return tuple(colours)
    # As in `S2_L2A_20220612_town_B04_B03_B02_SCL.tif`.
    told = [
        band_name(word.upper())
        for word in stem.split("_")
        if BAND.fullmatch(word) or QUALITY_FILE.fullmatch(word)
    ]
    if len(told) == len(named) == len(set(told)):
        return tuple(told)
    return tuple(unnamed)


def _short(name: str) -> str:
    """Return `B04` for `b4` or `0_B4_median`, and other names, `red` too, as they are."""
    found = spectral_name(name)
    return name if found is None or name.lower() in COMMON else found


@dataclass(frozen=True, slots=True)
class Choice:
    """The bands to read of a scene: their names, and their indices among its own."""

    names: tuple[str, ...]
    indices: tuple[int, ...]
    quality: tuple[tuple[str, int, Kind], ...] = ()
    """Quality bands that hide pixels: name, index and what they hide."""
    unused: tuple[str, ...] = ()
    """Bands that are left out: they measure no reflectance."""


def choose(own: Sequence[str], wanted: Sequence[str] | None, *, is_guess: bool = False) -> Choice:
    """Return which of a scene's own bands are read, in the order that `wanted` gives.

    None takes all that measure reflectance: quality bands are known by their names, and beside
    bands of Sentinel-2 whatever is neither (an index, a count) is left out. `B04` takes the band of
    that name (also called B4 or red), `B04=Gray` or `B04=1` gives a band of the file another name.
    Where the bands have no names, as many plain names as bands name them in file order; where their
    names are a guess, from the colours that software writes by default, such names must agree with
    it. Raises SceneError when a band is not there.
    """
    kinds = [quality_kind(name) for name in own]
    known = spectral_names(own)
    measured = [
        index
        for index in range(len(own))
        if kinds[index] is None and (known[index] or not any(known))
    ]
    quality = tuple(
        (name, index, kind)
        for index, (name, kind) in enumerate(zip(own, kinds, strict=True))
        if kind not in (None, "unused")
    )
    if wanted is None:
        names, indices = tuple(own[index] for index in measured), tuple(measured)
    elif _names_all(wanted, own):
        # Then a mask among them is named too.
        return _named_in_order(wanted)
    else:
        pairs = [_find(text, own, known) for text in wanted]
        names, indices = tuple(name for name, _ in pairs), tuple(index for _, index in pairs)
        if is_guess and len(wanted) == len(own) and indices != tuple(range(len(own))):
            _refuse_guess(wanted, own)
    hiding = tuple(found for found in quality if found[1] not in indices)
    left = [i for i in range(len(own)) if i not in indices and i not in {q[1] for q in hiding}]
    return Choice(names, indices, hiding, tuple(own[i] for i in left) if wanted is None else ())


def _named_in_order(names: Sequence[str]) -> Choice:
    kinds = [quality_kind(name) for name in names]
    kept = [index for index, kind in enumerate(kinds) if kind is None]
    hiding = tuple(
        (names[index], index, kind)
        for index, kind in enumerate(kinds)
        if kind not in (None, "unused")
    )
    unused = tuple(names[index] for index, kind in enumerate(kinds) if kind == "unused")
    return Choice(tuple(names[index] for index in kept), tuple(kept), hiding, unused)


def _names_all(wanted: Sequence[str], own: Sequence[str]) -> bool:
    """Return whether plain names, as many as there are unnamed bands, name them in file order."""
    are_new = not any("=" in text or text.isdigit() or UNNAMED.fullmatch(text) for text in wanted)
    return are_new and len(wanted) == len(own) and all(map(UNNAMED.fullmatch, own))


def _refuse_guess(wanted: Sequence[str], own: Sequence[str]) -> None:
    if any("=" in text or text in own for text in wanted):
        return
    numbered = ",".join(f"{name}={number}" for number, name in enumerate(wanted, start=1))
    raise SceneError(
        f"has bands {', '.join(own)} by its colours, which software may write by default, and "
        f"--bands names them {', '.join(wanted)}: give --bands {numbered} if that is their "
        "order in the file"
    )


def _find(text: str, own: Sequence[str], known: Sequence[str | None]) -> tuple[str, int]:
    """Return (name, index) of what one entry of `--bands` asks for; raises SceneError."""
    name, _, source = text.partition("=")
    wanted = source or name
    label = band_name(name) if not name.isdigit() else f"band{name}"
    exact = [index for index, other in enumerate(own) if other == wanted]
    alike = [index for index, other in enumerate(own) if other.lower() == wanted.lower()]
    meant = spectral_name(wanted)
    same = [index for index, other in enumerate(known) if other is not None and other == meant]
    for found in (exact, alike, same):
        if len(found) == 1:
            return label, found[0]
    if wanted.isdigit() and 1 <= int(wanted) <= len(own):
        return label, int(wanted) - 1
    if all(map(UNNAMED.fullmatch, own)):
        raise SceneError(
            f"has {len(own)} bands without names, and --bands asks for {wanted}: name all of them "
            f"in file order, or some by their number (--bands {name}=1)"
        )
    raise SceneError(
        f"has bands {', '.join(own)}, and --bands asks for {wanted}: choose among these, or give "
        f"one of them another name (--bands NAME={own[0]})"
    )
