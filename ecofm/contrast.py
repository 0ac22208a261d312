"""Contrast: the one rule by which stored numbers become the bytes of a picture.

Every picture of tiles follows it: the comparison page, the clusters' sheets, contact sheets,
mosaics and a run's views. So a tile looks the same wherever it is shown, and tiles compare.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ecofm.types import Contract, say

Bands = tuple[int, int, int]
"""Indices of the bands that are drawn red, green and blue."""

SPREAD_BELOW, SPREAD_ABOVE = 2.0, 3.0
"""What is drawn black and white, in standard deviations from the mean."""
NODATA_GREY = 128


def pick_bands(contract: Contract) -> Bands:
    """Return the bands that pictures show: true colour, else three in their order, else one."""
    if (true := contract.true_colour()) is not None:
        return true
    return (0, 1, 2) if len(contract.bands) == 3 else (0, 0, 0)


def name_bands(contract: Contract) -> list[str]:
    """Return the names of the bands that pictures show in place of true colour, none in that."""
    if contract.true_colour() is not None:
        return []
    return [contract.bands[band] for band in dict.fromkeys(pick_bands(contract))]


def name_colours(contract: Contract) -> str:
    """Return what the colours of pictures are, such as `False colour (band1, band2, band3)`."""
    if not (names := name_bands(contract)):
        return "True colour"
    return f"{'False colour' if len(names) == 3 else 'Grey'} ({', '.join(names)})"


def warn_of_names(contract: Contract, archive: Path) -> None:
    """Say so when an archive's bands have no names, and how they get some."""
    if all(re.fullmatch(r"band\d+", band) for band in contract.bands):
        say(
            f"warning: the bands of {archive} have no names, so its pictures are in "
            f"{name_colours(contract).lower()}; tile it again with their names in the order of "
            "the file, such as --bands B04,B03,B02, for true colour."
        )


def find_limits(contract: Contract, bands: Bands) -> tuple[float, float]:
    """Return the stored numbers that are drawn black and white, low < high.

    They follow from the mean and deviation of the archive's valid pixels, over the bands
    together: the same for every tile, so that a bright place stays brighter than a dark one, and
    hues are kept. uint8 images are renderings already, and are shown as they are.
    """
    if contract.dtype == "uint8":
        return 0.0, 255.0
    low = min(contract.mean[band] - SPREAD_BELOW * contract.std[band] for band in bands)
    high = max(contract.mean[band] + SPREAD_ABOVE * contract.std[band] for band in bands)
    if low < high:
        return low, high
    return low - 1, high + 1  # one number everywhere: grey, neither black nor white


def draw_colours(
    colours: npt.NDArray[np.floating], limits: tuple[float, float]
) -> npt.NDArray[np.uint8]:
    """Return (height, width, 3) bytes of (3, height, width) stored numbers."""
    low, high = limits
    scaled = (colours.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    # Half up, whatever the rounding errors: a whole number of uint8 stays what it is.
    return np.moveaxis(np.floor(np.clip(scaled, 0, 255) + 0.5).astype(np.uint8), 0, -1)


def draw_tile(
    pixels: npt.NDArray[np.generic],
    valid: npt.NDArray[np.bool_],
    contract: Contract,
    bands: Bands | None = None,
) -> npt.NDArray[np.uint8]:
    """Return a tile as uint8 (height, width, 3), grey where not valid.

    `pixels` is (band, height, width) in stored numbers, `valid` (height, width); `bands` None
    takes those that every picture shows.
    """
    bands = bands or pick_bands(contract)
    image = draw_colours(pixels[list(bands)].astype(np.float32), find_limits(contract, bands))
    image[~valid] = NODATA_GREY
    return image
