"""Claims: what one source says of a band's scale and offset, and ESA's processing baselines."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ecofm.errors import SceneError

REFLECTANCE_SCALE = 1e-4
BASELINE_OFFSET = -0.1
"""Reflectance that ESA adds, as 1000 in stored numbers, from this baseline on."""
FIRST_BASELINE = 400
BASELINE = re.compile(r"MSIL(?:1C|2A)[_ ][0-9T]+[_ ]N([0-9]{2})([0-9]{2})(?![0-9])")
LAST_BASELINE = 2000
"""Products that people process themselves have 99.99, which tells nothing of an offset."""
MAX_OFFSET = 10.0
"""In reflectance; a larger one is meant in stored numbers."""


Numbers = npt.NDArray[np.float64]
Sample = Mapping[str, Numbers]
"""Some valid stored numbers of each band."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What one source says of a band: scale, and offset in reflectance; None where it is silent."""

    source: str
    scale: float | None = None
    offset: float | None = None


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
    name: str = ""
    """The product's, the item's or the file's."""
    tags: str = ""
    """The texts of the files' tags, where a product's name may be."""
    day: str | None = None
    """Date, or the period's year."""
    scale: float | None = None
    """The user's word; it is added to nothing else."""
    offset: float | None = None
    """The user's word, in stored numbers."""


def parse_baseline(text: object, source: str, *, is_version: bool = False) -> Claim | None:
    """Return what ESA's processing baseline says (`05.09`, `0509`, `N0509`, 5.09), None for others.

    A version of other software, as FORCE's 3.7.12, is no baseline; where a text may be any version
    (`is_version`), one is written with two digits.
    """
    if isinstance(text, float | int) and not isinstance(text, bool) and abs(text) < 100:
        text = f"{text:05.2f}"
    first = "{2}" if is_version else "{1,2}"
    pattern = rf"N?([0-9]{{2}})([0-9]{{2}})|([0-9]{first})\.([0-9]{{2}})"
    found = re.fullmatch(pattern, text.strip()) if isinstance(text, str) else None
    if found is None:
        return None
    return _baseline((found[1] or found[3].zfill(2)) + (found[2] or found[4]), source)


def _baseline(digits: str, source: str) -> Claim | None:
    if int(digits) > LAST_BASELINE:
        return None
    offset = BASELINE_OFFSET if int(digits) >= FIRST_BASELINE else 0.0
    return Claim(f"{source} {digits[:2]}.{digits[2:]}", None, offset)


def baseline_of_name(names: str) -> str:
    """Return the baseline in a product's name, as 0509; empty when there is none."""
    found = BASELINE.search(names)
    return found[1] + found[2] if found else ""


def make_claim(source: str, scale: float | None, offset: float | None) -> Claim | None:
    """Return what a source says, None where it says nothing; raises SceneError for nonsense."""
    if scale is None and offset is None:
        return None
    if scale is not None and not scale > 0:
        raise SceneError(f"has scale {scale:g} by {source}, expected one above 0; give --scale")
    if offset is not None and abs(offset) > MAX_OFFSET:
        stored = 1e-4 if scale in (None, 1.0) else scale
        raise SceneError(
            f"has offset {offset:g} by {source}, which is no reflectance; give --scale {stored:g} "
            f"--offset {offset:g} if it is meant in stored numbers"
        )
    return Claim(source, scale, offset)


def claim_of_name(names: str) -> Claim | None:
    """Return what the processing baseline in a product's name says, None when there is none."""
    digits = baseline_of_name(names)
    return _baseline(digits, "processing baseline in its name,") if digits else None


def parse_number(value: Any, what: str) -> float | None:
    """Return a number that metadata state, None where they state none; SceneError for nonsense."""
    if value is None or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise SceneError(f"has {what} {str(value)[:40]!r}, expected a number") from error
    if not np.isfinite(number) or abs(number) > 2**16:
        raise SceneError(f"has {what} {number:g}, which no stored number needs")
    return number


def _agreed(evidence: Evidence, band: str, what: str) -> tuple[float | None, str]:
    """Return what the sources say of one band, and who; SceneError where two disagree."""
    said = [
        (value, claim.source)
        for claim in evidence.claims.get(band, ())
        if (value := getattr(claim, what)) is not None and not _is_overruled(claim, evidence)
    ]
    for value, source in said[1:]:
        if not is_close(value, said[0][0]):
            raise SceneError(
                f"has {what} {said[0][0]:g} by {said[0][1]} and {value:g} by {source}: "
                f"they contradict each other; give --{what}, as it is, to settle it"
                if what == "scale"
                else f"has offset {said[0][0]:g} by {said[0][1]} and {value:g} by {source}: they "
                "contradict each other; give --offset in stored numbers, -1000 or 0"
            )
    return said[0] if said else (None, "")


def _is_overruled(claim: Claim, evidence: Evidence) -> bool:
    """Whether the user says another scale: then the offset beside it means nothing either."""
    scale, given = claim.scale, evidence.scale
    return given is not None and scale is not None and not is_close(scale, given)


def is_close(one: float, other: float) -> bool:
    """Return whether two scales or offsets are one, written with other rounding."""
    return bool(np.isclose(one, other, rtol=1e-4, atol=1e-9))


def per_band(evidence: Evidence, what: str) -> tuple[dict[str, float], str]:
    """Return what is said of each band; a silent one takes what all others agree on."""
    found = {band: _agreed(evidence, band, what) for band in evidence.dtypes}
    told = {band: value for band, (value, _) in found.items() if value is not None}
    sources = list(dict.fromkeys(source for value, source in found.values() if value is not None))
    silent = [band for band in found if band not in told]
    if told and silent:
        first = next(iter(told.values()))
        if not all(is_close(value, first) for value in told.values()):
            raise SceneError(
                f"says the {what} of {', '.join(told)}, each another one, and none of "
                f"{', '.join(silent)}; give --{what}"
            )
        told |= dict.fromkeys(silent, first)
    return {band: told[band] for band in found if band in told}, ", ".join(sources[:3])


def whole(value: float) -> float:
    """Return an offset without the rounding of a division."""
    return float(round(value)) if abs(value - round(value)) < 1e-6 else float(value)
