"""Claims: what one source says of a band's scale and offset, and ESA's processing baselines."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecofm.errors import SceneError

BASELINE_OFFSET = -0.1
"""Reflectance that ESA adds, as 1000 in stored numbers, from this baseline on."""
FIRST_BASELINE = 400
BASELINE = re.compile(r"(?<![A-Z0-9])N([0-9]{2})\.?([0-9]{2})(?![0-9])")


@dataclass(frozen=True, slots=True)
class Claim:
    """What one source says of a band: scale, and offset in reflectance; None where it is silent."""

    source: str
    scale: float | None = None
    offset: float | None = None


def parse_baseline(text: object, source: str) -> Claim | None:
    """Return what ESA's processing baseline says (`05.09`, `0509`, `N0509`, 5.09), None for others.

    A version of other software, as FORCE's 3.7.12, is no baseline.
    """
    if isinstance(text, float | int) and not isinstance(text, bool):
        text = f"{text:05.2f}"
    found = (
        re.fullmatch(r"N?([0-9]{2})\.?([0-9]{2})", text.strip()) if isinstance(text, str) else None
    )
    return None if found is None else _baseline(found[1] + found[2], source)


def _baseline(digits: str, source: str) -> Claim:
    offset = BASELINE_OFFSET if int(digits) >= FIRST_BASELINE else 0.0
    return Claim(f"{source} {digits[:2]}.{digits[2:]}", None, offset)


def baseline_of_name(names: str) -> str:
    """Return the baseline in a product's name, as 0509; empty when there is none."""
    found = BASELINE.search(names.replace("_", " "))
    return found[1] + found[2] if found else ""


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
    except (TypeError, ValueError) as error:
        raise SceneError(f"has {what} {str(value)[:40]!r}, expected a number") from error
    if not np.isfinite(number) or abs(number) > 2**16:
        raise SceneError(f"has {what} {number:g}, which no stored number needs")
    return number
