"""Radiometry: what a scene's stored numbers mean, decided once a band from all that is known.

reflectance = stored x scale + offset. Scale and offset come, in this order, from

1. the user (`--scale`, `--offset`);
2. what is said of the very numbers: a STAC asset's scale and offset, `BOA_ADD_OFFSET` of the
   product's metadata, the file's own scale and offset (GDAL), a sidecar, the word `harmonized`;
   `earthsearch:boa_offset_applied` outranks the offset that stands beside it in the same item;
3. ESA's processing baseline, from metadata or the product's name: from 04.00 on, 1000 is added;
4. the date, for a product of ESA;
5. the number type: integers are reflectance x 10000, 8-bit images are renderings, and the range
   of floats tells whether they are reflectance or 10000 times that.

Those under 2 must agree with each other and with the baseline, or the scene is refused with both
named. What 3 and 4 say gives way to pixels that deny it: numbers from which 1000 was taken reach
down to 0, while the darkest water of a scene with the 1000 added is stored at 900 to 1100, a few
hundredths around zero reflectance. Where neither words nor numbers decide, the scene is refused
with the flag to give. Raised errors are SceneError.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ecofm.errors import SceneError
from ecofm.tiles.claims import (
    REFLECTANCE_SCALE,
    Evidence,
    Numbers,
    Sample,
    baseline_of_name,
    is_close,
    per_band,
    whole,
)
from ecofm.tiles.offsets import HARMONISED, PRODUCT, resolve_offsets

LANDSAT = re.compile(
    r"(?<![A-Z0-9])L[COTEM]0[4-9]_(?:L[12]|[0-9]{6}_)|(?<![A-Z0-9])S[RT]_B[0-9]|landsat",
    re.IGNORECASE,
)
SENTINEL_2 = re.compile(r"(?<![A-Z0-9])S2(?![0-9])|SENTINEL.?2", re.IGNORECASE)
RANGE = "the range of its floats"
NEGATIVE_SHARE = 0.001
MAX_MEDIAN, MAX_MEDIAN_UNTOLD, MIN_TOP = 2.0, 1.0, 0.002
"""No ground has a median reflectance above 2, hardly any one above 1, and none a 99th percentile
below .002."""


@dataclass(frozen=True, slots=True)
class Radiometry:
    """What a band's stored numbers mean: reflectance = (stored + offset) x scale."""

    scale: float
    offset: float
    """In stored numbers."""

    @property
    def is_rendering(self) -> bool:
        """Whether the numbers are an 8-bit picture's, with no unit."""
        return self.scale == 1 and self.offset == 0


def resolve(
    evidence: Evidence, look: Callable[[], Sample]
) -> tuple[dict[str, Radiometry], str, list[str]]:
    """Return each band's radiometry, which source decided, and what people must be told.

    `look` reads a sample of the pixels. Raises SceneError for contradictions, for numbers that
    cannot be what is said of them, and where nothing decides.
    """
    bands = list(evidence.dtypes)
    if evidence.scale is None and _is_rendering(evidence):
        offset = evidence.offset or 0.0
        decided = "8-bit rendering" + ("" if evidence.offset is None else ", offset by --offset")
        return dict.fromkeys(bands, Radiometry(1.0, offset)), decided, []
    # 0 is nodata of most products, whatever else they declare.
    sample = {band: values[values != 0] for band, values in look().items() if values.any()}
    scales, scale_by = _scales(evidence, sample)
    _refuse_landsat(evidence, scales, scale_by)
    measured = {band: sample[band] * scales[band] for band in bands if band in sample}
    _require_plausible(measured, scales, scale_by)
    offsets, offset_by, notes = resolve_offsets(evidence, scales, measured)
    notes += _note_negative(measured, offsets, evidence, scales)
    found = {band: Radiometry(scales[band], whole(offsets[band] / scales[band])) for band in bands}
    return found, _told(found, scale_by, offset_by), notes


def telling(name: str) -> str:
    """Return what of a product's name decides anything here, without its date and its place.

    Scenes whose names tell the same are then decided once, where all else is the same, too.
    """
    digits = baseline_of_name(name)
    harmonised = HARMONISED.search(name)
    found = [
        f"MSIL2A_0_N{digits}" if digits else "",
        "T00AAA_00000000T000000" if PRODUCT.search(name) else "",
        harmonised[0] if harmonised else "",
        "landsat" if LANDSAT.search(name) else "",
        "S2" if SENTINEL_2.search(name) else "",
    ]
    return " ".join(filter(None, found))


def _is_rendering(evidence: Evidence) -> bool:
    """Whether all bands are 8-bit images of which nobody says a scale."""
    claims = [claim for claims in evidence.claims.values() for claim in claims]
    is_said = any(claim.scale is not None and claim.scale != 1 for claim in claims)
    return set(evidence.dtypes.values()) == {"uint8"} and not is_said


def _refuse_landsat(evidence: Evidence, scales: Mapping[str, float], scale_by: str) -> None:
    """Refuse what is Landsat's by name, says no scale, and is no reflectance from 0 to 1."""
    text = " ".join([evidence.name, *evidence.dtypes])
    is_landsat = LANDSAT.search(text) and not SENTINEL_2.search(text)
    is_untold = scale_by == "default" or scale_by == RANGE
    if is_landsat and is_untold and any(is_close(s, REFLECTANCE_SCALE) for s in scales.values()):
        raise SceneError(
            "is of Landsat by its name, and says no scale; surface reflectance of Collection 2 is "
            "scale 2.75e-5 and offset -0.2: give --scale 2.75e-5 --offset -7272.7 if it is that "
            "(level 1 has a scale of its own in its MTL file)"
        )


def _scales(evidence: Evidence, sample: Sample) -> tuple[dict[str, float], str]:
    bands = list(evidence.dtypes)
    if evidence.scale is not None:
        return dict.fromkeys(bands, evidence.scale), "--scale"
    told, source = per_band(evidence, "scale")
    if told:
        return told, source
    floats = [band for band in bands if evidence.dtypes[band].startswith("float")]
    found = dict.fromkeys(bands, REFLECTANCE_SCALE)
    if floats:
        values = np.concatenate([np.zeros(0), *(sample[b] for b in floats if b in sample)])
        found |= dict.fromkeys(floats, _scale_of_floats(values))
    return found, RANGE if floats else "default"


def _scale_of_floats(values: Numbers) -> float:
    """Return 1 for reflectance from 0 to 1, .0001 for 10000 times that; else raise SceneError."""
    if not len(values):
        raise SceneError("shows no valid number, so that its scale cannot be told; give --scale")
    top, largest = float(np.percentile(values, 99)), float(values.max())
    if MIN_TOP < top <= MAX_MEDIAN:
        return 1.0
    if largest > 255 and 100 <= top <= MAX_MEDIAN / REFLECTANCE_SCALE:
        return REFLECTANCE_SCALE
    raise SceneError(
        f"has floats up to {top:.4g} (99th percentile), neither reflectance from 0 to 1 nor "
        "10000 times that; give --scale, the reflectance of 1 (0.01 for per cent)"
    )


def _require_plausible(
    measured: Mapping[str, Numbers], scales: Mapping[str, float], scale_by: str
) -> None:
    """Raise SceneError for numbers that no ground reflects under their scale."""
    if not measured:
        return
    values = np.concatenate(list(measured.values()))
    median, top = float(np.median(values)), float(np.percentile(values, 99))
    limit = MAX_MEDIAN_UNTOLD if scale_by == "default" else MAX_MEDIAN
    if median > limit or (top < MIN_TOP and scale_by != "default"):
        scale = next(iter(scales.values()))
        raise SceneError(
            f"would have a median reflectance of {median:.3g} at scale {scale:g}, by {scale_by}; "
            "give --scale, the reflectance of 1 in its numbers"
            + (f" (--scale {scale:g} if it is snow)" if scale_by == "default" else "")
        )


def _note_negative(
    measured: Mapping[str, Numbers],
    offsets: Mapping[str, float],
    evidence: Evidence,
    scales: Mapping[str, float],
) -> list[str]:
    """Say where numbers that are stored anew lie below zero: uint16 has no room for them."""
    others = [
        band
        for band in measured
        if evidence.dtypes[band] not in ("int16", "uint16")
        or not is_close(scales[band], REFLECTANCE_SCALE)
    ]
    values = [measured[band] + offsets[band] for band in others]
    share = float((np.concatenate(values) < -1e-9).mean()) if values else 0.0
    if share <= NEGATIVE_SHARE:
        return []
    return ["some of its numbers are below zero reflectance, and are stored as 0"]


def _told(found: Mapping[str, Radiometry], scale_by: str, offset_by: str) -> str:
    """Return what was decided, and by what, for the manifest."""
    groups: dict[Radiometry, list[str]] = {}
    for band, radiometry in found.items():
        groups.setdefault(radiometry, []).append(band)
    texts = [
        f"scale {r.scale:g}, offset {r.offset:g}"
        + (f" ({', '.join(b)})" if len(groups) > 1 else "")
        for r, b in groups.items()
    ]
    return f"{'; '.join(texts)}; scale by {scale_by}, offset by {offset_by}"
