"""Offsets: who says what was added to a scene's numbers, and what the pixels say to that."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from ecofm.errors import SceneError
from ecofm.tiles.claims import (
    BASELINE_OFFSET,
    Claim,
    Evidence,
    Numbers,
    claim_of_name,
    is_close,
    per_band,
    whole,
)
from ecofm.tiles.periods import TIMELESS, last_day

FIRST_DAY = "2022-01-25"
"""A longer period is judged by its last day: most of 2022 carries the offset."""
PRODUCT = re.compile(
    r"S2[A-D]_MSIL(?:1C|2A)_|(?<![A-Z0-9])T[0-9]{2}[A-Z]{3}_[0-9]{8}T[0-9]{6}(?![0-9])"
)
"""Names of ESA's products and granules."""
APPLIED = "earthsearch:boa_offset_applied"
HARMONISED = re.compile(r"(?<![a-z])(?<!not[-_ ])(?<!non[-_ ])harmoni[sz]ed", re.IGNORECASE)

BELOW, SLIGHTLY_BELOW = -0.04, -0.02
DENIED_SHARE = 0.02
"""With more of the numbers below -.04 reflectance, the offset was taken off before."""
DOUBT_SHARE, SLIGHT_DOUBT_SHARE = 0.002, 0.05
"""With more of them below -.04 or -.02 there is a doubt, which a baseline does not settle."""
FLOOR, FLOOR_SHARE = 0.09, 0.01
"""With less than this share below .09, an offset of .1 may be in the numbers."""
FLAG_SHARE = 0.05
"""With more below -.04, the user's offset is no offset of these numbers."""
UNTOLD = (
    "nothing tells an offset, and no number is dark: read without one; give --offset -1000 if the "
    "scene was processed again with baseline 04.00 or later"
)


def resolve_offsets(
    evidence: Evidence, scales: Mapping[str, float], measured: Mapping[str, Numbers]
) -> tuple[dict[str, float], str, list[str]]:
    """Return each band's offset in reflectance, who says so, and what people must be told."""
    bands = list(evidence.dtypes)
    if evidence.offset is not None:
        return _of_user(evidence.offset, evidence, scales, measured), "--offset", []
    told, source = per_band(evidence, "offset")
    baseline = evidence.baseline or claim_of_name(f"{evidence.name} {evidence.tags}")
    applied_by = _applied_by(evidence)
    if applied_by:
        _require_applied(applied_by, told, source, measured)
        return dict.fromkeys(bands, 0.0), applied_by, []
    if told:
        _require_agreement(told, source, baseline, scales, measured)
        return told, source, []
    if baseline is not None:
        return _of_baseline(baseline, bands, scales, measured)
    if not _has_floor(measured):
        return dict.fromkeys(bands, 0.0), "default", []
    is_dated = evidence.day not in (None, TIMELESS)
    is_after = is_dated and last_day(str(evidence.day)) >= FIRST_DAY
    if not PRODUCT.search(evidence.name):
        if is_after:
            raise _doubt(evidence, scales)
        return dict.fromkeys(bands, 0.0), "default", [UNTOLD]
    if not is_after:  # older scenes that were processed again carry the offset, too
        raise _doubt(evidence, scales)
    dated = Claim(f"its date {evidence.day}", None, BASELINE_OFFSET)
    return _of_baseline(dated, bands, scales, measured)


def _of_user(
    offset: float, evidence: Evidence, scales: Mapping[str, float], measured: Mapping[str, Numbers]
) -> dict[str, float]:
    """Return the user's offset in reflectance; SceneError where it cannot be one of these numbers.

    The commonest slip is another unit: -0.1 where stored numbers need -1000.
    """
    found = {band: offset * scale for band, scale in scales.items()}
    scale = next(iter(scales.values()))
    is_whole = not any(dtype.startswith("float") for dtype in evidence.dtypes.values())
    if is_whole and 0 < abs(offset) < 1 and scale < 0.01:
        raise SceneError(
            f"holds whole numbers, in which --offset {offset:g} is nothing; give "
            f"--offset {whole(offset / scale):g}"
        )
    below, _ = _below(measured, found)
    if offset < 0 and below > FLAG_SHARE:
        raise SceneError(
            f"would have {below:.0%} of its numbers below zero reflectance with --offset "
            f"{offset:g}, which is in stored numbers of scale {scale:g}: tile it by itself, and "
            "add the others with --append"
        )
    return found


def _doubt(evidence: Evidence, scales: Mapping[str, float]) -> SceneError:
    return SceneError(
        f"says nothing of an offset, is of {evidence.day}, and has hardly a number darker than "
        f"{FLOOR:g}: {_flags(scales)}"
    )


def _flags(scales: Mapping[str, float]) -> str:
    """Say which flag settles the offset."""
    stored = whole(BASELINE_OFFSET / next(iter(scales.values())))
    return (
        f"give --offset {stored:g} if 1000 was added to it, as ESA does from processing baseline "
        "04.00 on, or --offset 0 if not (Earth Engine's harmonized collection); scenes of the "
        "other kind are added with --append"
    )


def _applied_by(evidence: Evidence) -> str:
    if evidence.applied:
        return APPLIED
    found = HARMONISED.search(evidence.name)
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
        is_s2_offset = all(is_close(v, 0) or is_close(v, BASELINE_OFFSET) for v in told.values())
        is_same = all(is_close(value, baseline.offset) for value in told.values())
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
    is_float = all(is_close(scale, 1) for scale in scales.values())
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
