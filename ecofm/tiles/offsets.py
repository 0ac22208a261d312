"""The offset of Sentinel-2's numbers: who says what it is, and whether it was applied already."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rasterio.enums import Resampling

from ecofm.errors import SceneError
from ecofm.tiles.rasters import Rasters, Remote

BASELINE_OFFSET = -1000.0
FIRST_BASELINE = 400
FIRST_DAY = "2022-01-25"
PRODUCT = re.compile(r"MSIL[12][AC]|(?<![A-Z0-9])L(?:1C|2A)(?![A-Z0-9])")
BASELINE = re.compile(r"(?<![A-Z0-9])N([0-9]{2})([0-9]{2})(?![0-9])")
MAX_BELOW_ZERO = 0.25
"""Over water and in shadow some per cent of the pixels are below zero reflectance, never these."""
SAMPLE_PX = 256


@dataclass(frozen=True, slots=True)
class Offset:
    """What is added to a scene's stored numbers, and who says so."""

    value: float
    said_by: str


def resolve_offset(
    *,
    product_id: str,
    date: str | None,
    applied: bool | None = None,
    metadata: float | None = None,
    baseline: str | None = None,
) -> Offset:
    """Return the offset of a scene, from the most to the least trusted.

    `applied` is earthsearch:boa_offset_applied, `metadata` is BOA_ADD_OFFSET (or what STAC's
    raster:bands say), `baseline` the processing baseline, `05.11` or `0511`; without it the
    product's id is searched for one. The date counts for known products of Sentinel-2 only, and
    last: older scenes that were processed again carry the offset too.
    """
    if applied:
        return Offset(0.0, "earthsearch:boa_offset_applied")
    if metadata is not None:
        if not abs(metadata) <= 2**16:
            raise SceneError(f"has BOA_ADD_OFFSET {metadata:g}, which no 16-bit number needs")
        return Offset(metadata, "BOA_ADD_OFFSET")
    digits = re.sub(r"[^0-9]", "", baseline or "")
    if not digits and (found := BASELINE.search(product_id.replace("_", " "))):
        digits = found[1] + found[2]
    if digits:
        has_offset = int(digits[:4]) >= FIRST_BASELINE
        return Offset(BASELINE_OFFSET if has_offset else 0.0, "processing baseline")
    if date and PRODUCT.search(product_id.replace("_", " ")):
        return Offset(BASELINE_OFFSET if date >= FIRST_DAY else 0.0, "date")
    return Offset(0.0, "default")


def check_offset(offset: Offset, parts: Sequence[tuple[Path | Remote, Sequence[int]]]) -> Offset:
    """Return the offset, or 0 where the pixels show that it was applied already.

    `parts` are rasters and their bands. Raises SceneError when the metadata state an offset that
    the pixels contradict: applying it twice is the commonest bug in this field.
    """
    if offset.value >= 0:
        return offset
    below, n = 0, 0
    with Rasters() as rasters:
        for path, numbers in parts:
            with rasters.use(path) as dataset:
                shape = [min(SAMPLE_PX, side) for side in dataset.shape]
                pixels = dataset.read(
                    list(numbers), out_shape=(len(numbers), *shape), resampling=Resampling.nearest
                )
            below += int(((pixels > 0) & (pixels < -offset.value)).sum())
            n += int((pixels > 0).sum())
    share = below / max(n, 1)
    if share <= MAX_BELOW_ZERO:
        return offset
    if offset.said_by in ("processing baseline", "date"):
        return Offset(0.0, f"pixels ({offset.said_by} says {offset.value:g})")
    raise SceneError(
        f"says offset {offset.value:g}, but {share:.0%} of its numbers would be below zero: it "
        "seems to be applied already; give --offset 0 if so"
    )
