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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ecofm.errors import SceneError
from ecofm.tiles.claims import BASELINE_OFFSET, Claim, claim_of_name
from ecofm.tiles.periods import TIMELESS, last_day

REFLECTANCE_SCALE = 1e-4
FIRST_DAY = "2022-01-25"
"""A longer period is judged by its last day: most of 2022 carries the offset."""
PRODUCT = re.compile(r"S2[A-D]_MSIL(?:1C|2A)_|S2[A-D]_(?:T?[0-9]{2}[A-Z]{3}_)[0-9T]+_.*L(?:1C|2A)"
                     r"|(?<![A-Z0-9])T[0-9]{2}[A-Z]{3}_[0-9]{8}T[0-9]{6}(?![0-9])")  # fmt: skip
LANDSAT = re.compile(r"(?<![A-Z0-9])L[COTEM]0[4-9]_L[12][A-Z0-9]{2}_|(?<![A-Z0-9])S[RT]_B[0-9]")
SENTINEL_2 = re.compile(r"(?<![A-Z0-9])S2(?![0-9])|SENTINEL.?2", re.IGNORECASE)
APPLIED = "earthsearch:boa_offset_applied"
HARMONISED = re.compile(r"harmoni[sz]ed", re.IGNORECASE)

Numbers = npt.NDArray[np.float64]
Sample = Mapping[str, Numbers]
"""Some valid stored numbers of each band."""

BELOW, SLIGHTLY_BELOW = -0.04, -0.02
DENIED_SHARE = 0.02
"""With more of the numbers below -.04 reflectance, the offset was taken off before."""
DOUBT_SHARE, SLIGHT_DOUBT_SHARE = 0.002, 0.05
"""With more of them below -.04 or -.02 there is a doubt, which a baseline does not settle."""
FLOOR, FLOOR_SHARE = 0.08, 0.002
"""With less than this share below .08, an offset of .1 may be in the numbers."""
UNTOLD = (
    "nothing tells an offset, and no number is dark: read without one; give --offset -1000 if the "
    "scene was processed again with baseline 04.00 or later"
)
MAX_MEDIAN, MIN_TOP = 2.0, 0.002
"""No ground has a median reflectance above 2, nor a 99th percentile below .002."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """All that is known of the numbers of a scene."""

    dtypes: Mapping[str, str]
    """Stored number type of each band."""
    claims: Mapping[str, Sequence[Claim]] = field(default_factory=dict)
    """What is said of the numbers of each band."""
    applied: bool = False
    """`earthsearch:boa_offset_applied`; a name with `harmonized` says the same."""
    baseline: Claim | None = None
    names: str = ""
    """The scene's name and tags, where a baseline may be."""
    day: str | None = None
    """Date, or the period's year."""
    scale: float | None = None
    """The user's word; it is added to nothing else."""
    offset: float | None = None
    """The user's word, in stored numbers."""


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
    _refuse_landsat(evidence)
    sample = {band: values for band, values in look().items() if len(values)}
    scales, scale_by = _scales(evidence, sample)
    measured = {band: sample[band] * scales[band] for band in bands if band in sample}
    _require_plausible(measured, scales, scale_by)
    offsets, offset_by, notes = _offsets(evidence, scales, measured)
    found = {band: Radiometry(scales[band], _whole(offsets[band] / scales[band])) for band in bands}
    return found, _told(found, scale_by, offset_by), notes


def _is_rendering(evidence: Evidence) -> bool:
    """Whether all bands are 8-bit images of which nobody says a scale."""
    claims = [claim for claims in evidence.claims.values() for claim in claims]
    is_said = any(claim.scale is not None and claim.scale != 1 for claim in claims)
    return set(evidence.dtypes.values()) == {"uint8"} and not is_said


def _refuse_landsat(evidence: Evidence) -> None:
    """Refuse what is Landsat's by name and says no scale: it is no reflectance x 10000."""
    is_float = all(dtype.startswith("float") for dtype in evidence.dtypes.values())
    is_said = any(
        claim.scale is not None for claims in evidence.claims.values() for claim in claims
    )
    text = " ".join([evidence.names, *evidence.dtypes])
    is_landsat = LANDSAT.search(text) and not SENTINEL_2.search(text)
    if evidence.scale is None and not is_float and not is_said and is_landsat:
        raise SceneError(
            "is of Landsat by its name, and says no scale; those of Collection 2 are scale 2.75e-5 "
            "and offset -0.2: give --scale 2.75e-5 --offset -7272.7 if it is one"
        )


def _agreed(evidence: Evidence, band: str, what: str) -> tuple[float | None, str]:
    """Return what the sources say of one band, and who; SceneError where two disagree."""
    said = [
        (value, claim.source)
        for claim in evidence.claims.get(band, ())
        if (value := getattr(claim, what)) is not None
    ]
    for value, source in said[1:]:
        if not _is_close(value, said[0][0]):
            raise SceneError(
                f"has {what} {said[0][0]:g} by {said[0][1]} and {value:g} by {source}: "
                f"they contradict each other; give --{what}, as it is, to settle it"
                if what == "scale"
                else f"has offset {said[0][0]:g} by {said[0][1]} and {value:g} by {source}: they "
                "contradict each other; give --offset in stored numbers, -1000 or 0"
            )
    return said[0] if said else (None, "")


def _is_close(one: float, other: float) -> bool:
    return bool(np.isclose(one, other, rtol=1e-4, atol=1e-9))


def _per_band(evidence: Evidence, what: str) -> tuple[dict[str, float], str]:
    """Return what is said of each band; a silent one takes what all others agree on."""
    found = {band: _agreed(evidence, band, what) for band in evidence.dtypes}
    told = {band: value for band, (value, _) in found.items() if value is not None}
    sources = list(dict.fromkeys(source for value, source in found.values() if value is not None))
    silent = [band for band in found if band not in told]
    if told and silent:
        first = next(iter(told.values()))
        if not all(_is_close(value, first) for value in told.values()):
            raise SceneError(
                f"says the {what} of {', '.join(told)}, each another one, and none of "
                f"{', '.join(silent)}; give --{what}"
            )
        told |= dict.fromkeys(silent, first)
    return {band: told[band] for band in found if band in told}, ", ".join(sources[:3])


def _scales(evidence: Evidence, sample: Sample) -> tuple[dict[str, float], str]:
    bands = list(evidence.dtypes)
    if evidence.scale is not None:
        return dict.fromkeys(bands, evidence.scale), "--scale"
    told, source = _per_band(evidence, "scale")
    if told:
        return told, source
    is_float = {band for band, dtype in evidence.dtypes.items() if dtype.startswith("float")}
    if not is_float:
        return dict.fromkeys(bands, REFLECTANCE_SCALE), "default"
    scale = _scale_of_floats(
        np.concatenate([np.zeros(0), *(sample[b] for b in bands if b in sample)])
    )
    return dict.fromkeys(bands, scale), "the range of its floats"


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
    if not measured or scale_by == "--scale":
        return
    values = np.concatenate(list(measured.values()))
    median, top = float(np.median(values)), float(np.percentile(values, 99))
    if median > MAX_MEDIAN or (top < MIN_TOP and scale_by != "default"):
        scale = next(iter(scales.values()))
        raise SceneError(
            f"would have a median reflectance of {median:.3g} at scale {scale:g}, by {scale_by}; "
            "give --scale, the reflectance of 1 in its numbers"
        )


def _offsets(
    evidence: Evidence, scales: Mapping[str, float], measured: Mapping[str, Numbers]
) -> tuple[dict[str, float], str, list[str]]:
    """Return each band's offset in reflectance, who says so, and what people must be told."""
    bands = list(evidence.dtypes)
    if evidence.offset is not None:
        return {band: evidence.offset * scales[band] for band in bands}, "--offset", []
    told, source = _per_band(evidence, "offset")
    baseline = evidence.baseline or claim_of_name(evidence.names)
    applied_by = _applied_by(evidence)
    if applied_by:
        _require_applied(applied_by, told, source, measured)
        return dict.fromkeys(bands, 0.0), applied_by, []
    if told:
        _require_agreement(told, source, baseline, scales, measured)
        return told, source, []
    if baseline is not None:
        return _of_baseline(baseline, bands, scales, measured)
    is_after = evidence.day not in (None, TIMELESS) and last_day(str(evidence.day)) >= FIRST_DAY
    if PRODUCT.search(evidence.names):
        dated = Claim(f"its date {evidence.day}", None, BASELINE_OFFSET if is_after else 0.0)
        if evidence.day is not None:
            return _of_baseline(dated, bands, scales, measured)
    if is_after and _has_floor(measured):
        raise SceneError(
            f"says nothing of an offset, is of {evidence.day}, and has no number that would be "
            f"darker than {FLOOR:g}: {_flags(scales)}"
        )
    notes = [UNTOLD] if _has_floor(measured) else []
    return dict.fromkeys(bands, 0.0), "default", notes


def _flags(scales: Mapping[str, float]) -> str:
    """Say which flag settles the offset."""
    stored = _whole(BASELINE_OFFSET / next(iter(scales.values())))
    return (
        f"give --offset {stored:g} if 1000 was added to it, as ESA does from processing baseline "
        "04.00 on, or --offset 0 if not (Earth Engine's harmonized collection)"
    )


def _applied_by(evidence: Evidence) -> str:
    if evidence.applied:
        return APPLIED
    found = HARMONISED.search(evidence.names)
    return f"{found[0]!r} in its name" if found else ""


def _require_applied(
    applied_by: str, told: Mapping[str, float], source: str, measured: Mapping[str, Numbers]
) -> None:
    """Refuse a name that denies an offset which the file states, where the pixels allow both.

    Earth Search keeps the offset in `raster:bands` also where its own property says that it was
    applied: that property counts.
    """
    if applied_by != APPLIED and any(told.values()) and _has_floor(measured):
        raise SceneError(
            f"has no offset by {applied_by} and offset {next(iter(told.values())):g} by {source}: "
            "they contradict each other, and the pixels do not tell; give --offset, 0 or -1000"
        )


def _require_agreement(
    told: Mapping[str, float],
    source: str,
    baseline: Claim | None,
    scales: Mapping[str, float],
    measured: Mapping[str, Numbers],
) -> None:
    """Raise SceneError where an explicit offset contradicts the baseline or the pixels."""
    below, _ = _below(measured, told)
    first = next(iter(told.values()))
    if baseline is not None and baseline.offset is not None:
        is_s2_offset = all(_is_close(v, 0) or _is_close(v, BASELINE_OFFSET) for v in told.values())
        is_same = all(_is_close(value, baseline.offset) for value in told.values())
        shown, _ = _below(measured, dict.fromkeys(told, BASELINE_OFFSET))
        is_shown = first == 0 and shown > DENIED_SHARE
        if is_s2_offset and not is_same and not is_shown:
            raise SceneError(
                f"has offset {first:g} by {source} and {baseline.offset:g} by {baseline.source}: "
                f"they contradict each other; {_flags(scales)}"
            )
    if min(told.values()) < 0 and below > DENIED_SHARE:
        raise SceneError(
            f"has offset {first:g} by {source}, but {below:.0%} of its numbers would be below zero "
            "reflectance: it seems to be applied already; give --offset 0 if so"
        )


def _of_baseline(
    said: Claim,
    bands: list[str],
    scales: Mapping[str, float],
    measured: Mapping[str, Numbers],
) -> tuple[dict[str, float], str, list[str]]:
    """Return the offset that a baseline or a date says, or 0 where the pixels deny it."""
    offset = said.offset or 0.0
    if offset == 0 or not measured:
        return dict.fromkeys(bands, offset), said.source, []
    below, slightly = _below(measured, dict.fromkeys(bands, offset))
    if below > DENIED_SHARE:
        note = (
            f"{said.source} says that 1000 was added, and the pixels show that it was taken off "
            "again: they are read without an offset"
        )
        return dict.fromkeys(bands, 0.0), f"its pixels, against {said.source}", [note]
    is_open = below > DOUBT_SHARE or slightly > SLIGHT_DOUBT_SHARE
    # Software that writes reflectance from 0 to 1 has mostly dealt with the offset.
    is_float = all(_is_close(scale, 1) for scale in scales.values())
    if is_open or is_float:
        raise SceneError(
            f"has the added 1000 by {said.source}, and pixels that leave a doubt "
            f"({slightly:.1%} would be below {SLIGHTLY_BELOW:g}): {_flags(scales)}"
        )
    return dict.fromkeys(bands, offset), said.source, []


def _below(measured: Mapping[str, Numbers], offsets: Mapping[str, float]) -> tuple[float, float]:
    """Return the shares of numbers that would be below -.04 and -.02 reflectance."""
    if not measured:
        return 0.0, 0.0
    values = np.concatenate([v + offsets[band] for band, v in measured.items()])
    return float((values < BELOW).mean()), float((values < SLIGHTLY_BELOW).mean())


def _has_floor(measured: Mapping[str, Numbers]) -> bool:
    """Whether so few numbers are dark that an offset may be in them."""
    if not measured:
        return False
    values = np.concatenate(list(measured.values()))
    return bool((values < FLOOR).mean() < FLOOR_SHARE)


def _whole(value: float) -> float:
    """Return an offset without the rounding of a division."""
    return float(round(value)) if abs(value - round(value)) < 1e-6 else float(value)


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
